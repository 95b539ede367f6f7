// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Control registers, EFER, RFLAGS and debug registers (SDM volume 3, chapters 2 and 18).

macro_rules! bits {
    ($($name:ident = $bit:literal, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            pub const $name: u64 = 1 << $bit;
        )*
    };
}

bits! {
    CR0_PE = 0, "Protection enable.";
    CR0_MP = 1, "Monitor coprocessor.";
    CR0_EM = 2, "Emulation.";
    CR0_TS = 3, "Task switched.";
    CR0_ET = 4, "Extension type, always 1.";
    CR0_NE = 5, "Numeric error.";
    CR0_WP = 16, "Write protect.";
    CR0_AM = 18, "Alignment mask.";
    CR0_NW = 29, "Not write-through.";
    CR0_CD = 30, "Cache disable.";
    CR0_PG = 31, "Paging.";
    CR4_VME = 0, "Virtual-8086 mode extensions.";
    CR4_PVI = 1, "Protected-mode virtual interrupts.";
    CR4_TSD = 2, "Time stamp disable.";
    CR4_DE = 3, "Debugging extensions.";
    CR4_PSE = 4, "Page size extensions.";
    CR4_PAE = 5, "Physical address extension.";
    CR4_MCE = 6, "Machine-check enable.";
    CR4_PGE = 7, "Global pages.";
    CR4_PCE = 8, "RDPMC for user code.";
    CR4_OSFXSR = 9, "FXSAVE and FXRSTOR.";
    CR4_OSXMMEXCPT = 10, "Unmasked SIMD exceptions.";
    CR4_UMIP = 11, "User-mode instruction prevention.";
    CR4_LA57 = 12, "57-bit linear addresses.";
    CR4_VMXE = 13, "VMX enable.";
    CR4_SMXE = 14, "SMX enable.";
    CR4_FSGSBASE = 16, "FSGSBASE instructions.";
    CR4_PCIDE = 17, "Process-context identifiers.";
    CR4_OSXSAVE = 18, "XSAVE.";
    CR4_SMEP = 20, "Supervisor-mode execution prevention.";
    CR4_SMAP = 21, "Supervisor-mode access prevention.";
    CR4_PKE = 22, "Protection keys.";
    CR4_CET = 23, "Control-flow enforcement.";
    CR4_FRED = 32, "Flexible return and event delivery.";
    EFER_SCE = 0, "SYSCALL.";
    EFER_LME = 8, "Long mode enable.";
    EFER_LMA = 10, "Long mode active.";
    EFER_NXE = 11, "Execute disable.";
    RFLAGS_CF = 0, "Carry.";
    RFLAGS_FIXED = 1, "Always 1.";
    RFLAGS_TF = 8, "Trap.";
    RFLAGS_IF = 9, "Interrupts enabled.";
    RFLAGS_RF = 16, "Resume.";
    RFLAGS_VM = 17, "Virtual-8086 mode.";
    RFLAGS_AC = 18, "Alignment check, and access to user pages under SMAP.";
    DR6_BD = 13, "Debug register access detected.";
    DR6_BS = 14, "Single step.";
    DR7_GD = 13, "General detect.";
    XCR0_X87 = 0, "x87 state.";
    XCR0_SSE = 1, "SSE state.";
    XCR0_AVX = 2, "AVX state.";
    XCR0_BNDREGS = 3, "MPX bound registers.";
    XCR0_BNDCSR = 4, "MPX configuration.";
    XCR0_OPMASK = 5, "AVX-512 mask registers.";
    XCR0_ZMM_HI256 = 6, "AVX-512 upper halves.";
    XCR0_HI16_ZMM = 7, "AVX-512 upper registers.";
    XCR0_PKRU = 9, "Protection-key rights.";
}

/// DR6 after RESET, and its bits that always read 1.
pub const DR6_RESET: u64 = 0xffff_0ff0;
/// DR7 after RESET: bit 10 always reads 1.
pub const DR7_RESET: u64 = 0x400;
/// DR7: local and global enables of the four breakpoints.
pub const DR7_ENABLES: u64 = 0xff;
/// CR0 after RESET (SDM table 10-1).
pub const CR0_RESET: u64 = CR0_CD | CR0_NW | CR0_ET;
