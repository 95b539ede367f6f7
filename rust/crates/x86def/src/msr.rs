// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Model-specific registers (SDM volume 4).

macro_rules! msrs {
    ($($name:ident = $value:literal,)*) => {
        $(
            #[doc = concat!("MSR ", stringify!($value), ".")]
            pub const $name: u32 = $value;
        )*
    };
}

msrs! {
    IA32_TIME_STAMP_COUNTER = 0x10,
    IA32_PLATFORM_ID = 0x17,
    IA32_APIC_BASE = 0x1b,
    IA32_FEATURE_CONTROL = 0x3a,
    IA32_TSC_ADJUST = 0x3b,
    IA32_SPEC_CTRL = 0x48,
    IA32_PRED_CMD = 0x49,
    IA32_BIOS_UPDT_TRIG = 0x79,
    IA32_BIOS_SIGN_ID = 0x8b,
    IA32_MTRRCAP = 0xfe,
    IA32_ARCH_CAPABILITIES = 0x10a,
    IA32_FLUSH_CMD = 0x10b,
    IA32_TSX_CTRL = 0x122,
    IA32_SYSENTER_CS = 0x174,
    IA32_SYSENTER_ESP = 0x175,
    IA32_SYSENTER_EIP = 0x176,
    IA32_MCG_CAP = 0x179,
    IA32_MCG_STATUS = 0x17a,
    IA32_MISC_ENABLE = 0x1a0,
    IA32_DEBUGCTL = 0x1d9,
    IA32_MTRR_PHYSBASE0 = 0x200,
    IA32_MTRR_FIX64K_00000 = 0x250,
    IA32_MTRR_FIX16K_80000 = 0x258,
    IA32_MTRR_FIX16K_A0000 = 0x259,
    IA32_MTRR_FIX4K_C0000 = 0x268,
    IA32_PAT = 0x277,
    IA32_MTRR_DEF_TYPE = 0x2ff,
    IA32_PERF_GLOBAL_CTRL = 0x38f,
    IA32_PEBS_ENABLE = 0x3f1,
    IA32_RTIT_CTL = 0x570,
    IA32_TSC_DEADLINE = 0x6e0,
    IA32_X2APIC_FIRST = 0x800,
    IA32_X2APIC_LAST = 0x8ff,
    IA32_XSS = 0xda0,
    IA32_EFER = 0xc000_0080,
    IA32_STAR = 0xc000_0081,
    IA32_LSTAR = 0xc000_0082,
    IA32_CSTAR = 0xc000_0083,
    IA32_FMASK = 0xc000_0084,
    IA32_FS_BASE = 0xc000_0100,
    IA32_GS_BASE = 0xc000_0101,
    IA32_KERNEL_GS_BASE = 0xc000_0102,
    IA32_TSC_AUX = 0xc000_0103,
}

/// IA32_PAT after RESET.
pub const IA32_PAT_RESET: u64 = 0x0007_0406_0007_0406;
