// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Input and output blocks of the calls that a VMM makes through MSHV_ROOT_HVCALL.
//!
//! A rep call's block is the fixed header here, followed by its list.

use crate::{HvRegisterValue, HvU128, Wire, HV_MESSAGE_SIZE};

wire_struct! {
    /// 0x44 HvCallGetPartitionProperty, input.
    pub struct HvInputGetPartitionProperty: 16 {
        /// Partition.
        pub partition_id: u64,
        /// `HV_PARTITION_PROPERTY_*`.
        pub property_code: u32,
        /// Ignored.
        pub padding: u32,
    }
}

wire_struct! {
    /// 0x44 HvCallGetPartitionProperty, output.
    pub struct HvOutputGetPartitionProperty: 8 {
        /// Value of the property.
        pub property_value: u64,
    }
}

wire_struct! {
    /// 0x45 HvCallSetPartitionProperty, input.
    pub struct HvInputSetPartitionProperty: 24 {
        /// Partition.
        pub partition_id: u64,
        /// `HV_PARTITION_PROPERTY_*`.
        pub property_code: u32,
        /// Ignored.
        pub padding: u32,
        /// Value to set.
        pub property_value: u64,
    }
}

wire_struct! {
    /// 0x101 HvCallGetPartitionPropertyEx, input.
    pub struct HvInputGetPartitionPropertyEx: 24 {
        /// Partition.
        pub partition_id: u64,
        /// `HV_PARTITION_PROPERTY_*`.
        pub property_code: u32,
        /// Ignored.
        pub padding: u32,
        /// Argument that some properties take.
        pub arg: u64,
    }
}

wire_struct! {
    /// Start of the output of 0x101 for properties that are banks of bits (VMM capabilities 0x90007, assignable
    /// synthetic features 0x90009); the output block has room for 4072 bytes.
    pub struct HvPartitionPropertyBanks: 16 {
        /// Banks that follow.
        pub bank_count: u16,
        /// Zero.
        pub reserved: [u16; 3],
        /// First bank.
        pub bank0: u64,
    }
}

/// Bytes in the output block of HvCallGetPartitionPropertyEx.
pub const HV_PARTITION_PROPERTY_EX_MAX_VAR_SIZE: usize = 4072;

/// VMM capability: property `HV_PARTITION_PROPERTY_ASSIGNABLE_SYNTHETIC_PROC_FEATURES` can be read.
pub const HV_VMM_CAPABILITY_ASSIGNABLE_SYNTHETIC_PROC_FEATURES: u64 = 1 << 4;

/// Access that 0x4d asks for: none, so the intercept is removed.
pub const HV_INTERCEPT_ACCESS_MASK_NONE: u32 = 0;
/// Access that 0x4d asks for: reads.
pub const HV_INTERCEPT_ACCESS_MASK_READ: u32 = 1 << 0;
/// Access that 0x4d asks for: writes.
pub const HV_INTERCEPT_ACCESS_MASK_WRITE: u32 = 1 << 1;
/// Access that 0x4d asks for: execution.
pub const HV_INTERCEPT_ACCESS_MASK_EXECUTE: u32 = 1 << 2;

wire_struct! {
    /// 0x4d HvCallInstallIntercept, input.
    pub struct HvInputInstallIntercept: 24 {
        /// Partition.
        pub partition_id: u64,
        /// `HV_INTERCEPT_ACCESS_MASK_*`.
        pub access_type: u32,
        /// `HV_INTERCEPT_TYPE_*`.
        pub intercept_type: u32,
        /// Port, CPUID leaf, exception vector or MSR, by type.
        pub intercept_parameter: u64,
    }
}

wire_struct! {
    /// 0x50 HvCallGetVpRegisters, header; a list of `u32` names follows, the output is a list of 16-byte values.
    pub struct HvInputGetVpRegisters: 16 {
        /// Partition.
        pub partition_id: u64,
        /// VP.
        pub vp_index: u32,
        /// `HV_INPUT_VTL`.
        pub input_vtl: u8,
        /// Zero.
        pub rsvd_z8: u8,
        /// Zero.
        pub rsvd_z16: u16,
    }
}

/// 0x51 HvCallSetVpRegisters, header; a list of [`HvRegisterAssoc`] follows.
pub type HvInputSetVpRegisters = HvInputGetVpRegisters;

wire_struct! {
    /// An element of the list of 0x51.
    pub struct HvRegisterAssoc: 32 {
        /// `HV_REGISTER_*` or `HV_X64_REGISTER_*`.
        pub name: u32,
        /// Ignored.
        pub reserved1: u32,
        /// Ignored.
        pub reserved2: u64,
        /// Value.
        pub value: HvRegisterValue,
    }
}

wire_struct! {
    /// 0x52 HvCallTranslateVirtualAddress, input.
    pub struct HvInputTranslateVirtualAddress: 32 {
        /// Partition.
        pub partition_id: u64,
        /// VP.
        pub vp_index: u32,
        /// Ignored.
        pub padding: u32,
        /// `HV_TRANSLATE_GVA_*`.
        pub control_flags: u64,
        /// Virtual page number.
        pub gva_page: u64,
    }
}

wire_struct! {
    /// 0x52 HvCallTranslateVirtualAddress, output.
    pub struct HvOutputTranslateVirtualAddress: 16 {
        /// `HV_TRANSLATE_GVA_RESULT`: code in the low half.
        pub result_code: u32,
        /// Cache type in bits 7:0, overlay page in bit 8.
        pub result_attributes: u32,
        /// Guest page number.
        pub gpa_page: u64,
    }
}

wire_struct! {
    /// 0x56 HvCallClearVirtualInterrupt, input (row H-56).
    pub struct HvInputClearVirtualInterrupt: 8 {
        /// Partition.
        pub partition_id: u64,
    }
}

wire_struct! {
    /// A CPUID result registered by 0x91: where it applies, and value and mask per register.
    pub struct HvRegisterX64CpuidResultParameters: 44 {
        /// Leaf.
        pub input_eax: u32,
        /// Subleaf.
        pub input_ecx: u32,
        /// Only for that subleaf, if not 0.
        pub subleaf_specific: u8,
        /// Also where the hypervisor computes the value at run time, if not 0.
        pub always_override: u8,
        /// Ignored.
        pub padding: u16,
        /// Value of EAX.
        pub eax: u32,
        /// Bits of EAX that the value replaces.
        pub eax_mask: u32,
        /// Value of EBX.
        pub ebx: u32,
        /// Bits of EBX that the value replaces.
        pub ebx_mask: u32,
        /// Value of ECX.
        pub ecx: u32,
        /// Bits of ECX that the value replaces.
        pub ecx_mask: u32,
        /// Value of EDX.
        pub edx: u32,
        /// Bits of EDX that the value replaces.
        pub edx_mask: u32,
    }
}

wire_struct! {
    /// 0x91 HvCallRegisterInterceptResult, header; the parameters of its type follow. For CPUID the whole is 60 bytes
    /// long (64 in some clients).
    pub struct HvInputRegisterInterceptResult: 16 {
        /// Partition.
        pub partition_id: u64,
        /// VP, or [`crate::HV_ANY_VP`].
        pub vp_index: u32,
        /// `HV_INTERCEPT_TYPE_*`: CPUID or MSR.
        pub intercept_type: u32,
    }
}

/// Shortest input of 0x91 for a CPUID result.
pub const HV_INPUT_REGISTER_INTERCEPT_RESULT_CPUID_SIZE: usize =
    HvInputRegisterInterceptResult::SIZE + HvRegisterX64CpuidResultParameters::SIZE;

wire_struct! {
    /// 0x94 HvCallAssertVirtualInterrupt, input.
    pub struct HvInputAssertVirtualInterrupt: 32 {
        /// Partition.
        pub partition_id: u64,
        /// `HV_X64_INTERRUPT_TYPE_*`.
        pub interrupt_type: u32,
        /// Bit 0 level triggered, bit 1 logical destination mode.
        pub control: u32,
        /// APIC id, or set of logical destinations.
        pub dest_addr: u64,
        /// Vector.
        pub vector: u32,
        /// VTL.
        pub target_vtl: u8,
        /// Zero.
        pub rsvd_z0: u8,
        /// Zero.
        pub rsvd_z1: u16,
    }
}

impl HvInputAssertVirtualInterrupt {
    /// Whether the interrupt is level triggered.
    #[inline]
    pub const fn level_triggered(&self) -> bool {
        self.control & 1 != 0
    }

    /// Whether `dest_addr` is a set of logical destinations.
    #[inline]
    pub const fn logical_dest_mode(&self) -> bool {
        self.control & 2 != 0
    }
}

wire_struct! {
    /// 0xc0 HvCallSignalEventDirect, input.
    pub struct HvInputSignalEventDirect: 16 {
        /// Partition.
        pub target_partition: u64,
        /// VP.
        pub target_vp: u32,
        /// VTL.
        pub target_vtl: u8,
        /// Synthetic interrupt source.
        pub target_sint: u8,
        /// Event flag.
        pub flag_number: u16,
    }
}

wire_struct! {
    /// 0xc0 HvCallSignalEventDirect, output.
    pub struct HvOutputSignalEventDirect: 8 {
        /// 1: the flag was clear.
        pub newly_signaled: u8,
        /// Zero.
        pub reserved: [u8; 7],
    }
}

wire_struct! {
    packed
    /// 0xc1 HvCallPostMessageDirect, input.
    pub struct HvInputPostMessageDirect: 280 {
        /// Partition.
        pub partition_id: u64,
        /// VP.
        pub vp_index: u32,
        /// VTL.
        pub vtl: u8,
        /// Ignored.
        pub padding: [u8; 3],
        /// Synthetic interrupt source.
        pub sint_index: u32,
        /// The message, header and all.
        pub message: [u8; HV_MESSAGE_SIZE],
        /// Ignored.
        pub padding2: u32,
    }
}

/// 0xf4: results are for the VP's current XCR0 and XSS, not for those of the list.
pub const HV_GET_VP_CPUID_VALUES_USE_VP_XFEM_XSS: u32 = 1 << 0;
/// 0xf4: apply the results registered with 0x91.
pub const HV_GET_VP_CPUID_VALUES_APPLY_REGISTERED_VALUES: u32 = 1 << 1;

wire_struct! {
    /// 0xf4 HvCallGetVpCpuidValues, header; a list of [`HvCpuidLeafInfo`] follows, the output is a list of
    /// EAX, EBX, ECX, EDX.
    pub struct HvInputGetVpCpuidValues: 24 {
        /// Partition.
        pub partition_id: u64,
        /// VP.
        pub vp_index: u32,
        /// `HV_GET_VP_CPUID_VALUES_*`.
        pub flags: u32,
        /// Zero.
        pub reserved: u32,
        /// Ignored.
        pub padding: u32,
    }
}

wire_struct! {
    /// An element of the list of 0xf4.
    pub struct HvCpuidLeafInfo: 24 {
        /// Leaf.
        pub eax: u32,
        /// Subleaf.
        pub ecx: u32,
        /// XCR0 to assume.
        pub xfem: u64,
        /// XSS to assume.
        pub xss: u64,
    }
}

wire_struct! {
    /// 0x53 HvCallReadGpa, input.
    pub struct HvInputReadGpa: 32 {
        /// Partition.
        pub partition_id: u64,
        /// VP whose view is used.
        pub vp_index: u32,
        /// Bytes, 1 to 16.
        pub byte_count: u32,
        /// Address.
        pub base_gpa: u64,
        /// `HV_ACCESS_GPA_CONTROL_FLAGS`.
        pub control_flags: u64,
    }
}

wire_struct! {
    /// 0x53 HvCallReadGpa, output.
    pub struct HvOutputReadGpa: 24 {
        /// Why the access failed; 0 if it did not.
        pub result_code: u32,
        /// Zero.
        pub reserved: u32,
        /// Data.
        pub data: HvU128,
    }
}

wire_struct! {
    /// 0x54 HvCallWriteGpa, input.
    pub struct HvInputWriteGpa: 48 {
        /// Where.
        pub place: HvInputReadGpa,
        /// Data.
        pub data: HvU128,
    }
}

wire_struct! {
    /// 0x54 HvCallWriteGpa, output.
    pub struct HvOutputWriteGpa: 8 {
        /// Why the access failed; 0 if it did not.
        pub result_code: u32,
        /// Zero.
        pub reserved: u32,
    }
}

/// Result of 0x53 and 0x54: done.
pub const HV_ACCESS_GPA_SUCCESS: u32 = 0;
/// Result of 0x53 and 0x54: no memory there.
pub const HV_ACCESS_GPA_UNMAPPED: u32 = 1;
/// Result of 0x53: memory that cannot be read.
pub const HV_ACCESS_GPA_READ_INTERCEPT: u32 = 2;
/// Result of 0x54: memory that cannot be written.
pub const HV_ACCESS_GPA_WRITE_INTERCEPT: u32 = 3;
/// Result of 0x53 and 0x54: an overlay.
pub const HV_ACCESS_GPA_ILLEGAL_OVERLAY_ACCESS: u32 = 4;

wire_struct! {
    /// 0xc9 HvCallGetGpaPagesAccessStates, input; the output is a byte for each page.
    pub struct HvInputGetGpaPagesAccessStates: 24 {
        /// Partition.
        pub partition_id: u64,
        /// `HV_GPA_PAGE_ACCESS_STATE_*`.
        pub flags: u64,
        /// First page.
        pub gpa_page: u64,
    }
}

/// 0xc9: pages are not accessed afterwards.
pub const HV_GPA_PAGE_ACCESS_STATE_CLEAR_ACCESSED: u64 = 1 << 0;
/// 0xc9: pages are accessed afterwards.
pub const HV_GPA_PAGE_ACCESS_STATE_SET_ACCESSED: u64 = 1 << 1;
/// 0xc9: pages are not dirty afterwards.
pub const HV_GPA_PAGE_ACCESS_STATE_CLEAR_DIRTY: u64 = 1 << 2;
/// 0xc9: pages are dirty afterwards.
pub const HV_GPA_PAGE_ACCESS_STATE_SET_DIRTY: u64 = 1 << 3;
/// 0xc9, output: the page was accessed.
pub const HV_GPA_PAGE_ACCESSED: u8 = 1 << 0;
/// 0xc9, output: the page was written.
pub const HV_GPA_PAGE_DIRTY: u8 = 1 << 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout of a CPUID registration as clients send it: 16 bytes of header, then 44.
    #[test]
    fn cpuid_registration() {
        assert_eq!(HV_INPUT_REGISTER_INTERCEPT_RESULT_CPUID_SIZE, 60);
        let mut b = [0u8; 60];
        b[16..20].copy_from_slice(&1u32.to_le_bytes());
        b[24] = 1;
        b[28 + 24..28 + 28].copy_from_slice(&0x1234_5678u32.to_le_bytes());
        let p = HvRegisterX64CpuidResultParameters::read(&b[16..]).unwrap();
        assert_eq!(
            (p.input_eax, p.subleaf_specific, p.edx),
            (1, 1, 0x1234_5678)
        );
    }

    #[test]
    fn round_trip() {
        let v = HvInputAssertVirtualInterrupt {
            partition_id: 1,
            interrupt_type: 4,
            control: 3,
            dest_addr: 2,
            vector: 0x31,
            ..Default::default()
        };
        let mut b = [0u8; 32];
        v.write(&mut b).unwrap();
        assert_eq!(b[8], 4);
        assert_eq!(b[12], 3);
        assert_eq!(b[24], 0x31);
        assert_eq!(HvInputAssertVirtualInterrupt::read(&b), Some(v));
        assert!(v.level_triggered() && v.logical_dest_mode());
    }
}
