// SPDX-License-Identifier: GPL-2.0 OR MIT
//! MSR numbers of the SDM, by its names.

macro_rules! msrs {
    ($($name:ident = $number:literal;)*) => {
        $(#[doc = concat!("MSR ", stringify!($number), ".")]
          pub const $name: u32 = $number;)*
    };
}

msrs! {
    IA32_TIME_STAMP_COUNTER = 0x10;
    IA32_PLATFORM_ID = 0x17;
    IA32_APIC_BASE = 0x1b;
    IA32_FEATURE_CONTROL = 0x3a;
    IA32_TSC_ADJUST = 0x3b;
    IA32_SPEC_CTRL = 0x48;
    IA32_PRED_CMD = 0x49;
    IA32_BIOS_SIGN_ID = 0x8b;
    IA32_MTRRCAP = 0xfe;
    IA32_ARCH_CAPABILITIES = 0x10a;
    IA32_FLUSH_CMD = 0x10b;
    IA32_SYSENTER_CS = 0x174;
    IA32_SYSENTER_ESP = 0x175;
    IA32_SYSENTER_EIP = 0x176;
    IA32_MCG_CAP = 0x179;
    IA32_MCG_STATUS = 0x17a;
    IA32_MISC_ENABLE = 0x1a0;
    IA32_DEBUGCTL = 0x1d9;
    IA32_MTRR_PHYSBASE0 = 0x200;
    IA32_MTRR_PHYSMASK0 = 0x201;
    IA32_MTRR_FIX64K_00000 = 0x250;
    IA32_MTRR_FIX4K_F8000 = 0x26f;
    IA32_PAT = 0x277;
    IA32_MTRR_DEF_TYPE = 0x2ff;
    IA32_VMX_BASIC = 0x480;
    IA32_TSC_DEADLINE = 0x6e0;
    IA32_X2APIC_APICID = 0x802;
    IA32_XSS = 0xda0;
    IA32_EFER = 0xc000_0080;
    IA32_STAR = 0xc000_0081;
    IA32_LSTAR = 0xc000_0082;
    IA32_CSTAR = 0xc000_0083;
    IA32_FMASK = 0xc000_0084;
    IA32_FS_BASE = 0xc000_0100;
    IA32_GS_BASE = 0xc000_0101;
    IA32_KERNEL_GS_BASE = 0xc000_0102;
    IA32_TSC_AUX = 0xc000_0103;
}

/// IA32_EFER.SCE.
pub const EFER_SCE: u64 = 1;
/// IA32_EFER.LME.
pub const EFER_LME: u64 = 1 << 8;
/// IA32_EFER.LMA.
pub const EFER_LMA: u64 = 1 << 10;
/// IA32_EFER.NXE.
pub const EFER_NXE: u64 = 1 << 11;

/// IA32_APIC_BASE: this is the bootstrap processor.
pub const APIC_BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: x2APIC mode.
pub const APIC_BASE_EXTD: u64 = 1 << 10;
/// IA32_APIC_BASE: APIC globally enabled.
pub const APIC_BASE_EN: u64 = 1 << 11;
