// SPDX-License-Identifier: GPL-2.0 OR MIT

//! VMX capability MSRs (SDM appendix A).

/// IA32_FEATURE_CONTROL.
pub const IA32_FEATURE_CONTROL: u32 = 0x3a;
/// IA32_FEATURE_CONTROL: locked until reset.
pub const FEATURE_CONTROL_LOCKED: u64 = 1;
/// IA32_FEATURE_CONTROL: VMXON outside SMX operation is allowed.
pub const FEATURE_CONTROL_VMXON_OUTSIDE_SMX: u64 = 4;

/// IA32_VMX_BASIC.
pub const IA32_VMX_BASIC: u32 = 0x480;
/// IA32_VMX_PINBASED_CTLS.
pub const IA32_VMX_PINBASED_CTLS: u32 = 0x481;
/// IA32_VMX_PROCBASED_CTLS.
pub const IA32_VMX_PROCBASED_CTLS: u32 = 0x482;
/// IA32_VMX_EXIT_CTLS.
pub const IA32_VMX_EXIT_CTLS: u32 = 0x483;
/// IA32_VMX_ENTRY_CTLS.
pub const IA32_VMX_ENTRY_CTLS: u32 = 0x484;
/// IA32_VMX_MISC.
pub const IA32_VMX_MISC: u32 = 0x485;
/// IA32_VMX_CR0_FIXED0.
pub const IA32_VMX_CR0_FIXED0: u32 = 0x486;
/// IA32_VMX_CR0_FIXED1.
pub const IA32_VMX_CR0_FIXED1: u32 = 0x487;
/// IA32_VMX_CR4_FIXED0.
pub const IA32_VMX_CR4_FIXED0: u32 = 0x488;
/// IA32_VMX_CR4_FIXED1.
pub const IA32_VMX_CR4_FIXED1: u32 = 0x489;
/// IA32_VMX_PROCBASED_CTLS2.
pub const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48b;
/// IA32_VMX_EPT_VPID_CAP.
pub const IA32_VMX_EPT_VPID_CAP: u32 = 0x48c;
/// IA32_VMX_TRUE_PINBASED_CTLS.
pub const IA32_VMX_TRUE_PINBASED_CTLS: u32 = 0x48d;
/// IA32_VMX_TRUE_PROCBASED_CTLS.
pub const IA32_VMX_TRUE_PROCBASED_CTLS: u32 = 0x48e;
/// IA32_VMX_TRUE_EXIT_CTLS.
pub const IA32_VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
/// IA32_VMX_TRUE_ENTRY_CTLS.
pub const IA32_VMX_TRUE_ENTRY_CTLS: u32 = 0x490;

/// IA32_VMX_BASIC: the TRUE capability MSRs exist.
pub const BASIC_TRUE_CTLS: u64 = 1 << 55;
/// IA32_VMX_MISC: VM exits store EFER.LMA into the "IA-32e mode guest" VM-entry control.
pub const MISC_STORE_LMA: u64 = 1 << 5;
/// IA32_VMX_MISC: activity state HLT is supported.
pub const MISC_ACTIVITY_HLT: u64 = 1 << 6;
/// IA32_VMX_MISC: Intel PT may trace in VMX operation.
pub const MISC_PT_IN_VMX: u64 = 1 << 14;
/// IA32_VMX_MISC: bits 4:0, the preemption timer counts at TSC rate divided by two to this power.
pub const MISC_PREEMPTION_TIMER_SHIFT: u64 = 0x1f;

/// Bits of IA32_VMX_EPT_VPID_CAP.
pub mod ept_vpid {
    /// Page-walk length 4.
    pub const WALK_LENGTH_4: u64 = 1 << 6;
    /// Write-back memory type for paging structures.
    pub const MEMORY_TYPE_WB: u64 = 1 << 14;
    /// 2 MiB leaves.
    pub const PAGE_2M: u64 = 1 << 16;
    /// 1 GiB leaves.
    pub const PAGE_1G: u64 = 1 << 17;
    /// INVEPT.
    pub const INVEPT: u64 = 1 << 20;
    /// Accessed and dirty flags.
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    /// Single-context INVEPT.
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    /// All-context INVEPT.
    pub const INVEPT_ALL: u64 = 1 << 26;
    /// INVVPID.
    pub const INVVPID: u64 = 1 << 32;
    /// Individual-address INVVPID.
    pub const INVVPID_ADDRESS: u64 = 1 << 40;
    /// Single-context INVVPID.
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    /// All-context INVVPID.
    pub const INVVPID_ALL: u64 = 1 << 42;
}
