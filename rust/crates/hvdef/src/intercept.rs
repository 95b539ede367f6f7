// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Intercepts: their types, and the messages that tell about them on x64 (row H-P17).

use crate::{HvU128, HvX64SegmentRegister};

numbers! { u32;
    HV_INTERCEPT_TYPE_X64_IO_PORT = 0x0,
    HV_INTERCEPT_TYPE_X64_MSR = 0x1,
    HV_INTERCEPT_TYPE_X64_CPUID = 0x2,
    HV_INTERCEPT_TYPE_EXCEPTION = 0x3,
    HV_INTERCEPT_TYPE_MMIO = 0x5,
    HV_INTERCEPT_TYPE_X64_GLOBAL_CPUID = 0x6,
    HV_INTERCEPT_TYPE_X64_APIC_SMI = 0x7,
    HV_INTERCEPT_TYPE_HYPERCALL = 0x8,
    HV_INTERCEPT_TYPE_X64_APIC_INIT_SIPI = 0x9,
    HV_INTERCEPT_MC_UPDATE_PATCH_LEVEL_MSR_READ = 0xa,
    HV_INTERCEPT_TYPE_X64_APIC_WRITE = 0xb,
    HV_INTERCEPT_TYPE_X64_MSR_INDEX = 0xc,
    HV_INTERCEPT_TYPE_UNKNOWN_SYNIC_CONNECTION = 0xd,
    HV_INTERCEPT_TYPE_RETARGET_INTERRUPT_WITH_UNKNOWN_DEVICE_ID = 0xf,
}

numbers! { u8;
    HV_INTERCEPT_ACCESS_READ = 0,
    HV_INTERCEPT_ACCESS_WRITE = 1,
    HV_INTERCEPT_ACCESS_EXECUTE = 2,
}

bit_set! {
    /// `HV_X64_VP_EXECUTION_STATE`; CPL is in bits 1:0, the VTL in bits 10:7.
    pub struct HvX64VpExecutionState: u16 {
        CR0_PE = 1 << 2,
        CR0_AM = 1 << 3,
        EFER_LMA = 1 << 4,
        DEBUG_ACTIVE = 1 << 5,
        INTERRUPTION_PENDING = 1 << 6,
        ENCLAVE_MODE = 1 << 11,
        INTERRUPT_SHADOW = 1 << 12,
        VIRTUALIZATION_FAULT_ACTIVE = 1 << 13,
    }
}

impl HvX64VpExecutionState {
    /// The same with a privilege level.
    #[inline]
    pub const fn with_cpl(self, cpl: u8) -> Self {
        Self(self.0 & !3 | (cpl & 3) as u16)
    }

    /// Privilege level.
    #[inline]
    pub const fn cpl(self) -> u8 {
        self.0 as u8 & 3
    }
}

wire_struct! {
    /// `HV_X64_INTERCEPT_MESSAGE_HEADER`.
    pub struct HvX64InterceptMessageHeader: 40 {
        /// VP that was intercepted.
        pub vp_index: u32,
        /// Instruction length in bits 3:0, CR8 in bits 7:4.
        pub instruction_length_cr8: u8,
        /// `HV_INTERCEPT_ACCESS_*`.
        pub intercept_access_type: u8,
        /// [`HvX64VpExecutionState`].
        pub execution_state: u16,
        /// CS.
        pub cs_segment: HvX64SegmentRegister,
        /// RIP of the intercepted instruction.
        pub rip: u64,
        /// RFLAGS.
        pub rflags: u64,
    }
}

impl HvX64InterceptMessageHeader {
    /// The packed byte of instruction length and CR8.
    #[inline]
    pub const fn pack_length_cr8(instruction_length: u8, cr8: u8) -> u8 {
        instruction_length & 0xf | (cr8 << 4)
    }
}

bit_set! {
    /// `HV_X64_IO_PORT_ACCESS_INFO`; the access size is in bits 2:0.
    pub struct HvX64IoPortAccessInfo: u8 {
        STRING_OP = 1 << 3,
        REP_PREFIX = 1 << 4,
    }
}

impl HvX64IoPortAccessInfo {
    /// The same with a size in bytes (1, 2 or 4).
    #[inline]
    pub const fn with_access_size(self, size: u8) -> Self {
        Self(self.0 & !7 | size & 7)
    }
}

wire_struct! {
    /// `HV_X64_IO_PORT_INTERCEPT_MESSAGE`.
    pub struct HvX64IoPortInterceptMessage: 128 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// Port.
        pub port_number: u16,
        /// [`HvX64IoPortAccessInfo`].
        pub access_info: u8,
        /// Valid bytes in `instruction_bytes`.
        pub instruction_byte_count: u8,
        /// Zero.
        pub reserved: u32,
        /// RAX.
        pub rax: u64,
        /// The instruction.
        pub instruction_bytes: [u8; 16],
        /// DS.
        pub ds_segment: HvX64SegmentRegister,
        /// ES.
        pub es_segment: HvX64SegmentRegister,
        /// RCX.
        pub rcx: u64,
        /// RSI.
        pub rsi: u64,
        /// RDI.
        pub rdi: u64,
    }
}

bit_set! {
    /// `HV_X64_MEMORY_ACCESS_INFO`.
    pub struct HvX64MemoryAccessInfo: u8 {
        GVA_VALID = 1 << 0,
        GVA_GPA_VALID = 1 << 1,
        HYPERCALL_OUTPUT_PENDING = 1 << 2,
        TLB_LOCKED_NO_OVERLAY = 1 << 3,
    }
}

wire_struct! {
    /// `HV_X64_MEMORY_INTERCEPT_MESSAGE` (unmapped GPA and GPA intercept).
    pub struct HvX64MemoryInterceptMessage: 80 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// `HV_CACHE_TYPE`.
        pub cache_type: u32,
        /// Valid bytes in `instruction_bytes`.
        pub instruction_byte_count: u8,
        /// [`HvX64MemoryAccessInfo`].
        pub memory_access_info: u8,
        /// TPR.
        pub tpr_priority: u8,
        /// Zero.
        pub reserved1: u8,
        /// Linear address.
        pub guest_virtual_address: u64,
        /// Guest-physical address.
        pub guest_physical_address: u64,
        /// The instruction.
        pub instruction_bytes: [u8; 16],
    }
}

wire_struct! {
    /// `HV_X64_CPUID_INTERCEPT_MESSAGE`.
    pub struct HvX64CpuidInterceptMessage: 104 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// RAX.
        pub rax: u64,
        /// RCX.
        pub rcx: u64,
        /// RDX.
        pub rdx: u64,
        /// RBX.
        pub rbx: u64,
        /// What the hypervisor would answer in RAX.
        pub default_result_rax: u64,
        /// What the hypervisor would answer in RCX.
        pub default_result_rcx: u64,
        /// What the hypervisor would answer in RDX.
        pub default_result_rdx: u64,
        /// What the hypervisor would answer in RBX.
        pub default_result_rbx: u64,
    }
}

wire_struct! {
    /// `HV_X64_MSR_INTERCEPT_MESSAGE`.
    pub struct HvX64MsrInterceptMessage: 64 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// MSR.
        pub msr_number: u32,
        /// Zero.
        pub reserved: u32,
        /// RDX.
        pub rdx: u64,
        /// RAX.
        pub rax: u64,
    }
}

bit_set! {
    /// `HV_X64_EXCEPTION_INFO`.
    pub struct HvX64ExceptionInfo: u8 {
        ERROR_CODE_VALID = 1 << 0,
        SOFTWARE_EXCEPTION = 1 << 1,
    }
}

wire_struct! {
    /// `HV_X64_EXCEPTION_INTERCEPT_MESSAGE`.
    pub struct HvX64ExceptionInterceptMessage: 240 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// Vector.
        pub exception_vector: u16,
        /// [`HvX64ExceptionInfo`].
        pub exception_info: u8,
        /// Valid bytes in `instruction_bytes`.
        pub instruction_byte_count: u8,
        /// Error code.
        pub error_code: u32,
        /// CR2 or DR6.
        pub exception_parameter: u64,
        /// Zero.
        pub reserved: u64,
        /// The instruction.
        pub instruction_bytes: [u8; 16],
        /// DS.
        pub ds_segment: HvX64SegmentRegister,
        /// SS.
        pub ss_segment: HvX64SegmentRegister,
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
        pub gp_registers: [u64; 16],
    }
}

wire_struct! {
    /// `HV_X64_HYPERCALL_INTERCEPT_MESSAGE`.
    pub struct HvX64HypercallInterceptMessage: 200 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// RAX.
        pub rax: u64,
        /// RBX.
        pub rbx: u64,
        /// RCX.
        pub rcx: u64,
        /// RDX.
        pub rdx: u64,
        /// R8.
        pub r8: u64,
        /// RSI.
        pub rsi: u64,
        /// RDI.
        pub rdi: u64,
        /// XMM0 to XMM5.
        pub xmm_registers: [HvU128; 6],
        /// Bit 0: of an isolated partition.
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire_struct! {
    /// `HV_X64_APIC_EOI_MESSAGE`.
    pub struct HvX64ApicEoiMessage: 8 {
        /// VP that ended the interrupt.
        pub vp_index: u32,
        /// Its vector.
        pub interrupt_vector: u32,
    }
}

wire_struct! {
    /// `HV_X64_HALT_MESSAGE`.
    pub struct HvX64HaltMessage: 40 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
    }
}

wire_struct! {
    /// `HV_X64_UNRECOVERABLE_EXCEPTION_MESSAGE` (triple fault).
    pub struct HvX64UnrecoverableExceptionMessage: 40 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
    }
}

wire_struct! {
    /// `HV_X64_INVALID_VP_REGISTER_MESSAGE`.
    pub struct HvX64InvalidVpRegisterMessage: 8 {
        /// VP.
        pub vp_index: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire_struct! {
    /// `HV_X64_UNSUPPORTED_FEATURE_MESSAGE`.
    pub struct HvX64UnsupportedFeatureMessage: 16 {
        /// VP.
        pub vp_index: u32,
        /// `HV_UNSUPPORTED_FEATURE_CODE`.
        pub feature_code: u32,
        /// Depends on the code.
        pub feature_parameter: u64,
    }
}

wire_struct! {
    /// `HV_X64_INTERRUPTION_DELIVERABLE_MESSAGE`.
    pub struct HvX64InterruptionDeliverableMessage: 48 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// `HV_X64_PENDING_*`.
        pub deliverable_type: u32,
        /// Zero.
        pub rsvd: u32,
    }
}

wire_struct! {
    /// `HV_X64_SINT_DELIVERABLE_MESSAGE`.
    pub struct HvX64SintDeliverableMessage: 48 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// A bit for each SINT.
        pub deliverable_sints: u16,
        /// Zero.
        pub rsvd1: u16,
        /// Zero.
        pub rsvd2: u32,
    }
}

wire_struct! {
    /// `HV_X64_SIPI_INTERCEPT_MESSAGE`.
    pub struct HvX64SipiInterceptMessage: 48 {
        /// Header.
        pub header: HvX64InterceptMessageHeader,
        /// VP that the start-up IPI is for.
        pub target_vp_index: u32,
        /// Its vector.
        pub interrupt_vector: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    /// H-P17: offsets that VMMs read.
    #[test]
    fn offsets() {
        assert_eq!(offset_of!(HvX64InterceptMessageHeader, execution_state), 6);
        assert_eq!(offset_of!(HvX64InterceptMessageHeader, cs_segment), 8);
        assert_eq!(offset_of!(HvX64InterceptMessageHeader, rip), 24);
        assert_eq!(offset_of!(HvX64IoPortInterceptMessage, rax), 48);
        assert_eq!(offset_of!(HvX64IoPortInterceptMessage, ds_segment), 72);
        assert_eq!(offset_of!(HvX64IoPortInterceptMessage, rdi), 120);
        assert_eq!(
            offset_of!(HvX64MemoryInterceptMessage, memory_access_info),
            45
        );
        assert_eq!(
            offset_of!(HvX64MemoryInterceptMessage, guest_physical_address),
            56
        );
        assert_eq!(
            offset_of!(HvX64ExceptionInterceptMessage, gp_registers),
            112
        );
    }

    #[test]
    fn packed_fields() {
        assert_eq!(HvX64InterceptMessageHeader::pack_length_cr8(2, 0xf), 0xf2);
        assert_eq!(HvX64IoPortAccessInfo::STRING_OP.with_access_size(4).0, 0xc);
        assert_eq!(HvX64VpExecutionState::CR0_PE.with_cpl(3).0, 7);
    }
}
