// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The register page of a VP (`hv_vp_register_page`, version 1), which the VMM maps.

use crate::{HvU128, HvX64SegmentRegister};

/// Version that is implemented.
pub const HV_VP_REGISTER_PAGE_VERSION_1: u16 = 1;

bit_set! {
    /// `dirty`: groups of registers that the VMM has written and the next run takes over.
    pub struct HvX64RegisterClass: u32 {
        GENERAL = 1 << 0,
        IP = 1 << 1,
        XMM = 1 << 2,
        SEGMENT = 1 << 3,
        FLAGS = 1 << 4,
    }
}

wire_struct! {
    /// The page's used part.
    pub struct HvVpRegisterPage: 696 {
        /// [`HV_VP_REGISTER_PAGE_VERSION_1`].
        pub version: u16,
        /// Not 0 if the contents are current.
        pub isvalid: u8,
        /// Zero.
        pub rsvdz: u8,
        /// [`HvX64RegisterClass`].
        pub dirty: u32,
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
        pub gp_registers: [u64; 16],
        /// RIP.
        pub rip: u64,
        /// RFLAGS.
        pub rflags: u64,
        /// Zero.
        pub reserved: u64,
        /// XMM0 to XMM5.
        pub xmm_registers: [HvU128; 6],
        /// ES, CS, SS, DS, FS, GS.
        pub segment_registers: [HvX64SegmentRegister; 6],
        /// CR0 (this and what follows cannot be set through the page).
        pub cr0: u64,
        /// CR3.
        pub cr3: u64,
        /// CR4.
        pub cr4: u64,
        /// CR8.
        pub cr8: u64,
        /// EFER.
        pub efer: u64,
        /// DR7.
        pub dr7: u64,
        /// [`crate::HvX64PendingInterruption`].
        pub pending_interruption: u64,
        /// `HV_X64_INTERRUPT_STATE_*`.
        pub interrupt_state: u64,
        /// Hints for an emulator.
        pub instruction_emulation_hints: u64,
        /// XCR0.
        pub xfem: u64,
        /// Zero.
        pub reserved1: [u64; 32],
        /// Vectors to deliver (count in byte 0); for encrypted partitions.
        pub interrupt_vectors: u64,
    }
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(HvVpRegisterPage, dirty) == 4);
    assert!(offset_of!(HvVpRegisterPage, gp_registers) == 8);
    assert!(offset_of!(HvVpRegisterPage, rip) == 136);
    assert!(offset_of!(HvVpRegisterPage, rflags) == 144);
    assert!(offset_of!(HvVpRegisterPage, xmm_registers) == 160);
    assert!(offset_of!(HvVpRegisterPage, segment_registers) == 256);
    assert!(offset_of!(HvVpRegisterPage, cr0) == 352);
    assert!(offset_of!(HvVpRegisterPage, efer) == 384);
    assert!(offset_of!(HvVpRegisterPage, pending_interruption) == 400);
    assert!(offset_of!(HvVpRegisterPage, xfem) == 424);
};
