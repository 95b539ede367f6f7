// SPDX-License-Identifier: GPL-2.0

//! Intercept messages to the VMM.

use super::core::{VpCore, R8, RAX, RBX, RCX, RDI, RDX, RSI, RSP};
use super::exits::exception::Exception;
use super::gva::{Bytes, Code, Context};
use crate::partition::memory::{Access, Resolved};
use crate::sys::pages::Pages;
use crate::vmx::vmcs::CurrentVmcs;
use crate::vp::registers::{interrupt_state, segment};
use hvdef::*;
use vmxdef::exit::IoAccess;
use vmxdef::field::*;
use x86def::cr;
use x86def::segment::{ar, Segment};

/// What messages, and the cold tier, need of the VMCS.
#[derive(Clone, Copy)]
pub(super) struct Capture {
    pub(super) context: Context,
    /// The bytes at CS:RIP, if the window had them all.
    pub(super) code: Option<Bytes>,
    pub(super) rsp: u64,
    pub(super) ds: HvX64SegmentRegister,
    pub(super) es: HvX64SegmentRegister,
    pub(super) ss: HvX64SegmentRegister,
    pub(super) cr8: u8,
    pub(super) instruction_length: u32,
    /// `HV_X64_INTERRUPT_STATE_*`.
    pub(super) interrupt_state: u64,
    pub(super) injecting: bool,
}

impl Capture {
    /// Reads it.
    #[inline(always)] // In place, not copied.
    pub(super) fn new(core: &VpCore, vmcs: &CurrentVmcs<'_>, code: Option<&Code>) -> Self {
        Self {
            context: code.map_or_else(|| Context::new(vmcs), |code| code.context),
            code: code
                .filter(|code| code.missing.is_none())
                .map(|code| code.bytes),
            rsp: vmcs.read(GUEST_RSP),
            ds: segment(vmcs, Segment::Ds),
            es: segment(vmcs, Segment::Es),
            ss: segment(vmcs, Segment::Ss),
            instruction_length: vmcs.read(VM_EXIT_INSTRUCTION_LEN),
            interrupt_state: interrupt_state(vmcs),
            cr8: core.lapic.cr8(),
            injecting: core.injection.is_some(),
        }
    }

    /// The privilege level: SS's DPL (SDM 25.4.1).
    pub(super) fn cpl(&self) -> u8 {
        ar::dpl(u32::from(self.ss.attributes))
    }

    fn header(&self, vp_index: u32, length: u8, access: u8) -> HvX64InterceptMessageHeader {
        use HvX64VpExecutionState as State;
        let shadow = self.interrupt_state & HV_X64_INTERRUPT_STATE_INTERRUPT_SHADOW != 0;
        let state = State::CR0_PE
            .when(self.context.cr0 & cr::CR0_PE != 0)
            .union(State::CR0_AM.when(self.context.cr0 & cr::CR0_AM != 0))
            .union(State::EFER_LMA.when(self.context.efer & cr::EFER_LMA != 0))
            .union(State::INTERRUPTION_PENDING.when(self.injecting))
            .union(State::INTERRUPT_SHADOW.when(shadow))
            .with_cpl(self.cpl());
        HvX64InterceptMessageHeader {
            vp_index,
            instruction_length_cr8: HvX64InterceptMessageHeader::pack_length_cr8(length, self.cr8),
            intercept_access_type: access,
            execution_state: state.bits(),
            cs_segment: self.context.cs,
            rip: self.context.rip,
            rflags: self.context.rflags,
        }
    }
}

/// The buffer of RUN_VP.
pub(super) struct Message {
    bytes: [u8; HV_MESSAGE_SIZE],
    /// Header and payload.
    len: usize,
}

impl Message {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; HV_MESSAGE_SIZE],
            len: HV_MESSAGE_SIZE,
        }
    }

    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where a VP counts it.
    pub(super) fn counter(&self) -> HvVpCounter {
        match u32::read(&self.bytes) {
            Some(HVMSG_X64_IO_PORT_INTERCEPT) => HvVpCounter::IoInterceptMessages,
            Some(HVMSG_UNMAPPED_GPA | HVMSG_GPA_INTERCEPT) => HvVpCounter::MemoryInterceptMessages,
            _ => HvVpCounter::OtherMessages,
        }
    }

    /// Copies header and payload to the page that the VMM may have mapped.
    pub(super) fn publish(&self, page: &Pages) {
        page.copy_shared(self.bytes.get(..self.len).unwrap_or(&self.bytes));
    }

    fn put<T: Wire>(&mut self, message_type: u32, payload: &T) {
        self.len = HvMessageHeader::SIZE + T::SIZE;
        // No payload is longer than a message has room for.
        let _ = HvMessage::write_intercept(&mut self.bytes, message_type, payload);
    }

    /// An I/O instruction; RIP is left on it.
    pub(super) fn io_port(
        &mut self,
        vp_index: u32,
        capture: &Capture,
        gprs: &[u64; 16],
        access: IoAccess,
        bytes: &Bytes,
    ) {
        let kind = if access.is_in() {
            HV_INTERCEPT_ACCESS_READ
        } else {
            HV_INTERCEPT_ACCESS_WRITE
        };
        let info = HvX64IoPortAccessInfo::STRING_OP
            .when(access.is_string())
            .union(HvX64IoPortAccessInfo::REP_PREFIX.when(access.is_rep()))
            .with_access_size(access.size());
        self.put(
            HVMSG_X64_IO_PORT_INTERCEPT,
            &HvX64IoPortInterceptMessage {
                header: capture.header(vp_index, capture.instruction_length as u8, kind),
                port_number: access.port(),
                access_info: info.bits(),
                instruction_byte_count: bytes.len,
                reserved: 0,
                rax: gprs[RAX],
                instruction_bytes: bytes.bytes,
                ds_segment: capture.ds,
                es_segment: capture.es,
                rcx: gprs[RCX],
                rsi: gprs[RSI],
                rdi: gprs[RDI],
            },
        );
    }

    /// A CPUID that the VMM intercepts, with what it would have given; RIP is left on it.
    pub(super) fn cpuid(
        &mut self,
        vp_index: u32,
        capture: &Capture,
        gprs: &[u64; 16],
        [eax, ebx, ecx, edx]: [u32; 4],
    ) {
        let length = capture.instruction_length as u8;
        self.put(
            HVMSG_X64_CPUID_INTERCEPT,
            &HvX64CpuidInterceptMessage {
                header: capture.header(vp_index, length, HV_INTERCEPT_ACCESS_EXECUTE),
                rax: gprs[RAX],
                rcx: gprs[RCX],
                rdx: gprs[RDX],
                rbx: gprs[RBX],
                default_result_rax: u64::from(eax),
                default_result_rcx: u64::from(ecx),
                default_result_rdx: u64::from(edx),
                default_result_rbx: u64::from(ebx),
            },
        );
    }

    /// These SINTs, a bit for each, have room for a message.
    pub(super) fn sints_deliverable(
        &mut self,
        vp_index: u32,
        capture: Option<&Capture>,
        deliverable_sints: u16,
    ) {
        let message = HvX64SintDeliverableMessage {
            header: Self::plain(vp_index, capture),
            deliverable_sints,
            rsvd1: 0,
            rsvd2: 0,
        };
        self.put(HVMSG_SYNIC_SINT_DELIVERABLE, &message);
    }

    /// RDMSR or WRMSR that the VMM intercepts; RIP is left on it.
    pub(super) fn msr(
        &mut self,
        vp_index: u32,
        capture: &Capture,
        gprs: &[u64; 16],
        msr_number: u32,
        write: bool,
    ) {
        let kind = if write {
            HV_INTERCEPT_ACCESS_WRITE
        } else {
            HV_INTERCEPT_ACCESS_READ
        };
        self.put(
            HVMSG_X64_MSR_INTERCEPT,
            &HvX64MsrInterceptMessage {
                header: capture.header(vp_index, capture.instruction_length as u8, kind),
                msr_number,
                reserved: 0,
                rdx: gprs[RDX],
                rax: gprs[RAX],
            },
        );
    }

    /// An exception that the VMM intercepts: the guest does not get it.
    pub(super) fn exception(
        &mut self,
        vp_index: u32,
        capture: &Capture,
        gprs: &[u64; 16],
        exception: Exception,
        bytes: &Bytes,
    ) {
        let info = exception.info;
        let software = info.needs_instruction_length();
        let length = if software {
            capture.instruction_length as u8
        } else {
            0
        };
        let flags = HvX64ExceptionInfo::ERROR_CODE_VALID
            .when(info.has_error_code())
            .union(HvX64ExceptionInfo::SOFTWARE_EXCEPTION.when(software));
        let mut gp_registers = *gprs;
        gp_registers[RSP] = capture.rsp;
        self.put(
            HVMSG_X64_EXCEPTION_INTERCEPT,
            &HvX64ExceptionInterceptMessage {
                header: capture.header(vp_index, length, HV_INTERCEPT_ACCESS_EXECUTE),
                exception_vector: info.vector().into(),
                exception_info: flags.bits(),
                instruction_byte_count: bytes.len,
                error_code: exception.error_code,
                exception_parameter: exception.parameter,
                reserved: 0,
                instruction_bytes: bytes.bytes,
                ds_segment: capture.ds,
                ss_segment: capture.ss,
                gp_registers,
            },
        );
    }

    /// VMCALL that the VMM intercepts; RIP is left on it.
    pub(super) fn hypercall(
        &mut self,
        vp_index: u32,
        capture: &Capture,
        gprs: &[u64; 16],
        xmm_registers: [HvU128; 6],
    ) {
        let length = capture.instruction_length as u8;
        self.put(
            HVMSG_HYPERCALL_INTERCEPT,
            &HvX64HypercallInterceptMessage {
                header: capture.header(vp_index, length, HV_INTERCEPT_ACCESS_EXECUTE),
                rax: gprs[RAX],
                rbx: gprs[RBX],
                rcx: gprs[RCX],
                rdx: gprs[RDX],
                r8: gprs[R8],
                rsi: gprs[RSI],
                rdi: gprs[RDI],
                xmm_registers,
                flags: 0,
                reserved: 0,
            },
        );
    }

    /// An access to memory that is not there, or not to be accessed so. `gla`: the linear address, if there is one, and
    /// whether `gpa` is what it translates to, and not a paging structure's.
    #[allow(clippy::too_many_arguments)] // What the message holds.
    pub(super) fn memory(
        &mut self,
        vp_index: u32,
        capture: &Capture,
        outcome: Resolved,
        access: Access,
        gpa: u64,
        gla: Option<(u64, bool)>,
        bytes: &Bytes,
    ) {
        let kind = match access {
            Access::Read => HV_INTERCEPT_ACCESS_READ,
            Access::Write => HV_INTERCEPT_ACCESS_WRITE,
            Access::Execute => HV_INTERCEPT_ACCESS_EXECUTE,
        };
        let message_type = match outcome {
            Resolved::Denied => HVMSG_GPA_INTERCEPT,
            _ => HVMSG_UNMAPPED_GPA,
        };
        let (linear, translated) = gla.unwrap_or((0, false));
        let info = HvX64MemoryAccessInfo::GVA_VALID
            .when(gla.is_some())
            .union(HvX64MemoryAccessInfo::GVA_GPA_VALID.when(translated));
        self.put(
            message_type,
            &HvX64MemoryInterceptMessage {
                // The CPU does not tell the length of an instruction that faulted.
                header: capture.header(vp_index, 0, kind),
                instruction_byte_count: bytes.len,
                memory_access_info: info.bits(),
                guest_virtual_address: linear,
                guest_physical_address: gpa,
                instruction_bytes: bytes.bytes,
                ..Wire::ZERO
            },
        );
    }

    /// A level-triggered interrupt ended.
    pub(super) fn apic_eoi(&mut self, vp_index: u32, vector: u8) {
        self.put(
            HVMSG_X64_APIC_EOI,
            &HvX64ApicEoiMessage {
                vp_index,
                interrupt_vector: u32::from(vector),
            },
        );
    }

    /// The header of a message about no instruction.
    fn plain(vp_index: u32, capture: Option<&Capture>) -> HvX64InterceptMessageHeader {
        match capture {
            Some(capture) => capture.header(vp_index, 0, HV_INTERCEPT_ACCESS_EXECUTE),
            None => HvX64InterceptMessageHeader {
                vp_index,
                ..Wire::ZERO
            },
        }
    }

    /// The CPU refuses what is in the VP's registers.
    pub(super) fn invalid_register(&mut self, vp_index: u32) {
        let message = HvX64InvalidVpRegisterMessage {
            vp_index,
            reserved: 0,
        };
        self.put(HVMSG_INVALID_VP_REGISTER_VALUE, &message);
    }

    /// The VP cannot go on.
    pub(super) fn unrecoverable(&mut self, vp_index: u32, capture: Option<&Capture>) {
        let header = Self::plain(vp_index, capture);
        let message = HvX64UnrecoverableExceptionMessage { header };
        self.put(HVMSG_UNRECOVERABLE_EXCEPTION, &message);
    }

    /// The guest has written HV_X64_MSR_RESET, on which RIP still is. To VMMs it is what a triple fault is, because that
    /// is what each of them resets a machine for; the header tells of a write of 2 bytes' instruction.
    pub(super) fn reset(&mut self, vp_index: u32, capture: Option<&Capture>) {
        const WRMSR_LENGTH: u8 = 2;
        let header = match capture {
            Some(capture) => capture.header(vp_index, WRMSR_LENGTH, HV_INTERCEPT_ACCESS_WRITE),
            None => Self::plain(vp_index, None),
        };
        let message = HvX64UnrecoverableExceptionMessage { header };
        self.put(HVMSG_UNRECOVERABLE_EXCEPTION, &message);
    }

    /// The VP has executed HLT, and the VMM has its local APIC. RIP is behind it.
    pub(super) fn halt(&mut self, vp_index: u32, capture: Option<&Capture>) {
        let header = Self::plain(vp_index, capture);
        self.put(HVMSG_X64_HALT, &HvX64HaltMessage { header });
    }

    /// An event of `kind` (`HV_X64_PENDING_*`) could be delivered now.
    pub(super) fn deliverable(&mut self, vp_index: u32, capture: Option<&Capture>, kind: u8) {
        let message = HvX64InterruptionDeliverableMessage {
            header: Self::plain(vp_index, capture),
            deliverable_type: kind.into(),
            rsvd: 0,
        };
        self.put(HVMSG_X64_INTERRUPTION_DELIVERABLE, &message);
    }
}
