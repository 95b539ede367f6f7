// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Typed access to the unions of mshv-bindings.

#![allow(non_upper_case_globals)] // names of mshv-bindings in patterns

use mshv_bindings::*;

/// A message of RUN_VP.
pub enum Message<'a> {
    /// A port was accessed.
    Port(&'a hv_x64_io_port_intercept_message),
    /// An address without RAM was accessed.
    Memory(&'a hv_x64_memory_intercept_message),
    /// A local APIC ended the service of a level-triggered interrupt with this vector.
    Eoi(u8),
    /// An MSR was accessed that hvrsctl intercepts, or has.
    Msr(&'a hv_x64_msr_intercept_message),
    /// Triple fault at this RIP.
    UnrecoverableException(u64),
    /// The guest wrote HV_X64_MSR_RESET.
    Reset,
    /// A hypercall that this program answers.
    Hypercall(&'a hv_x64_hypercall_intercept_message),
    /// Nothing is to be done.
    Nothing,
    /// A message that was not asked for: its type, and the RIP.
    Other(u32, u64),
}

/// What `message` says.
#[inline]
pub fn decode(message: &hv_message) -> Message<'_> {
    let payload = (&raw const message.u).cast::<u8>();
    // SAFETY: the payload is 240 bytes long, more than any of these messages. They are packed structs of integers, for which
    // any alignment and any bytes will do; the type says which one it is.
    unsafe {
        match message.header.message_type {
            hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT => Message::Port(&*payload.cast()),
            hv_message_type_HVMSG_UNMAPPED_GPA | hv_message_type_HVMSG_GPA_INTERCEPT => {
                Message::Memory(&*payload.cast())
            }
            hv_message_type_HVMSG_X64_APIC_EOI => {
                let eoi = &*payload.cast::<hv_x64_apic_eoi_message>();
                Message::Eoi(eoi.interrupt_vector as u8)
            }
            hv_message_type_HVMSG_X64_MSR_INTERCEPT => Message::Msr(&*payload.cast()),
            hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION => {
                let fault = &*payload.cast::<hv_x64_unrecoverable_exception_message>();
                if fault.header.intercept_access_type == HV_INTERCEPT_ACCESS_WRITE as u8 {
                    Message::Reset
                } else {
                    Message::UnrecoverableException(fault.header.rip)
                }
            }
            hv_message_type_HVMSG_HYPERCALL_INTERCEPT => Message::Hypercall(&*payload.cast()),
            // The local APICs are in the module, and HLT with them.
            hv_message_type_HVMSG_X64_HALT | hv_message_type_HVMSG_NONE => Message::Nothing,
            other => {
                let header = &*payload.cast::<hv_x64_intercept_message_header>();
                Message::Other(other, header.rip)
            }
        }
    }
}

/// How a port was accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// 1, 2 or 4 bytes.
    pub size: u8,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub repeated: bool,
}

/// How `message`'s port was accessed.
#[inline]
pub fn port_access(message: &hv_x64_io_port_intercept_message) -> PortAccess {
    // SAFETY: the union's bit field and its integer are the same byte.
    let bits = unsafe { message.access_info.as_uint8 };
    PortAccess {
        size: bits & 7,
        string: bits & (1 << 3) != 0,
        repeated: bits & (1 << 4) != 0,
    }
}

/// 64, 32 or 16: the size of the code that the VP runs.
#[inline]
pub fn bitness(header: &hv_x64_intercept_message_header) -> u32 {
    const CR0_PE: u16 = 1 << 2;
    const EFER_LMA: u16 = 1 << 4;
    const LONG: u16 = 1 << 13;
    const DEFAULT: u16 = 1 << 14;
    // SAFETY: the unions' bit fields and integers are the same words.
    let (state, attributes) = unsafe {
        let attributes = header.cs_segment.__bindgen_anon_1.attributes;
        (header.execution_state.as_uint16, attributes)
    };
    match attributes {
        a if state & EFER_LMA != 0 && a & LONG != 0 => 64,
        a if state & CR0_PE != 0 && a & DEFAULT != 0 => 32,
        _ => 16,
    }
}

/// Privilege level of the guest's code.
pub fn cpl(header: &hv_x64_intercept_message_header) -> u16 {
    // SAFETY: the union's bit field and its integer are the same word; the level is in its lowest bits.
    unsafe { header.execution_state.as_uint16 & 3 }
}

/// Whether a translation failed although the page is there.
pub fn denied(result: hv_translate_gva_result) -> bool {
    // SAFETY: as in `translated`.
    let code = unsafe { result.as_uint64 } as u32;
    code == hv_translate_gva_result_code_HV_TRANSLATE_GVA_PRIVILEGE_VIOLATION
}

/// Whether a translation succeeded.
pub fn translated(result: hv_translate_gva_result) -> bool {
    // SAFETY: the union's bit field and its integer are the same word; the result code is its lower half.
    let code = unsafe { result.as_uint64 } as u32;
    code == hv_translate_gva_result_code_HV_TRANSLATE_GVA_SUCCESS
}

/// The CPU features that the guest is not to have.
pub fn disabled_features(invariant_tsc: bool) -> [u64; MSHV_NUM_CPU_FEATURES_BANKS as usize] {
    let mut disabled = hv_partition_processor_features::default();
    // SAFETY: the union's bit field and its integers are the same words.
    unsafe {
        let bits = &mut disabled.__bindgen_anon_1;
        bits.set_tsc_invariant_support((!invariant_tsc).into());
        disabled.as_uint64
    }
}

/// The Hyper-V features that the guest is to have: those that VMMs of this ABI ask for, the VP runtime and its timer.
pub fn synthetic_features() -> u64 {
    let mut features = hv_partition_synthetic_processor_features::default();
    // SAFETY: the union's bit field and its integer are the same word.
    unsafe {
        let bits = &mut features.__bindgen_anon_1;
        bits.set_hypervisor_present(1);
        bits.set_hv1(1);
        bits.set_access_vp_run_time_reg(1);
        bits.set_access_partition_reference_counter(1);
        bits.set_access_synic_regs(1);
        bits.set_access_synthetic_timer_regs(1);
        bits.set_access_partition_reference_tsc(1);
        bits.set_access_frequency_regs(1);
        bits.set_access_intr_ctrl_regs(1);
        bits.set_access_vp_index(1);
        bits.set_access_hypercall_regs(1);
        bits.set_access_guest_idle_reg(1);
        bits.set_tb_flush_hypercalls(1);
        bits.set_synthetic_cluster_ipi(1);
        bits.set_extended_processor_masks(1);
        bits.set_enable_extended_gva_ranges_for_flush_virtual_address_list(1);
        bits.set_direct_synthetic_timers(1);
        bits.set_synthetic_time_unhalted_timer(1);
        bits.set_access_vp_regs(1);
        bits.set_start_virtual_processor(1);
        bits.set_fast_hypercall_output(1);
        features.as_uint64[0]
    }
}

/// A message header for tests: the code's size, RIP and instruction length.
#[cfg(test)]
pub fn test_header(bitness: u32, rip: u64, length: u8) -> hv_x64_intercept_message_header {
    let mut header = hv_x64_intercept_message_header {
        rip,
        ..Default::default()
    };
    // SAFETY: the unions' bit fields and integers are the same words.
    unsafe {
        let state = &mut header.execution_state.__bindgen_anon_1;
        state.set_cr0_pe(1);
        state.set_efer_lma((bitness == 64).into());
        let segment = &mut header.cs_segment.__bindgen_anon_1.__bindgen_anon_1;
        segment.set__long((bitness == 64).into());
        segment.set__default((bitness == 32).into());
    }
    header.set_instruction_length(length);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_size() {
        for size in [16, 32, 64] {
            assert_eq!(bitness(&test_header(size, 0, 0)), size);
        }
        let mut header = test_header(64, 0, 0);
        // SAFETY: both variants are plain integers.
        unsafe { header.execution_state.__bindgen_anon_1.set_efer_lma(0) };
        assert_eq!(bitness(&header), 16, "L means nothing outside long mode");
    }

    #[test]
    fn port_access_bits_are_those_of_the_bindings() {
        let mut message = hv_x64_io_port_intercept_message::default();
        // SAFETY: both variants are plain integers.
        unsafe {
            let bits = &mut message.access_info.__bindgen_anon_1;
            bits.set_access_size(4);
            bits.set_rep_prefix(1);
        }
        let expected = PortAccess {
            size: 4,
            string: false,
            repeated: true,
        };
        assert_eq!(port_access(&message), expected);
    }

    #[test]
    fn messages_are_told_apart() {
        let mut message = hv_message::default();
        assert!(matches!(decode(&message), Message::Nothing));
        message.header.message_type = hv_message_type_HVMSG_X64_CPUID_INTERCEPT;
        assert!(matches!(decode(&message), Message::Other(0x8001_0002, 0)));
        message.header.message_type = hv_message_type_HVMSG_X64_APIC_EOI;
        // SAFETY: the payload is larger than the message.
        unsafe {
            let payload = (&raw mut message.u).cast::<hv_x64_apic_eoi_message>();
            (&raw mut (*payload).interrupt_vector).write_unaligned(0x51);
        }
        assert!(matches!(decode(&message), Message::Eoi(0x51)));
    }
}
