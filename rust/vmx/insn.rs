// SPDX-License-Identifier: GPL-2.0

//! The privileged instructions that hvrs uses. Safe functions are those that cannot break the kernel's memory: an MSR
//! that does not exist, or a value that a register does not take, is #GP, and that an oops.

#![allow(unsafe_code)] // UNSAFETY: instruction layer.

pub(crate) mod displaced;
pub(crate) mod operation;
pub(crate) mod xsave;

use crate::sys::bindings;
use core::arch::asm;
use operation::CurrentVmcs;
use x86def::msr::*;

/// XMM0 to XMM5, low halves first: the guest's, while a window is open, because the kernel's code
/// does not use them.
pub(crate) fn xmm_0_to_5() -> [u64; 12] {
    let mut words = [0; 12];
    // SAFETY: Stores 96 bytes; the kernel runs with SSE on.
    unsafe {
        asm!("movups [{0}], xmm0", "movups [{0} + 16], xmm1", "movups [{0} + 32], xmm2",
             "movups [{0} + 48], xmm3", "movups [{0} + 64], xmm4", "movups [{0} + 80], xmm5",
             in(reg) words.as_mut_ptr(), options(nostack))
    };
    words
}

macro_rules! readable {
    ($read:ident, $name:literal) => {
        /// Reads the register.
        #[inline(always)]
        pub(super) fn $read() -> u64 {
            let value;
            // SAFETY: Reading has no effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }
    };
}

macro_rules! writable {
    ($read:ident, $write:ident, $name:literal) => {
        readable!($read, $name);

        /// # Safety
        ///
        /// The value keeps the kernel running, or is undone before it notices.
        #[inline(always)]
        unsafe fn $write(value: u64) {
            // SAFETY: By the contract.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

readable!(read_cr0, "cr0");
readable!(read_cr3, "cr3");
writable!(read_cr2, move_to_cr2, "cr2");
writable!(read_cr4, write_cr4, "cr4");
writable!(read_dr0, write_dr0, "dr0");
writable!(read_dr1, write_dr1, "dr1");
writable!(read_dr2, write_dr2, "dr2");
writable!(read_dr3, write_dr3, "dr3");
writable!(read_dr7, write_dr7, "dr7");

/// CR2, which means nothing to the host but between a page fault and its handler's first lines.
#[inline(always)]
pub(super) fn write_cr2(value: u64) {
    // SAFETY: Not there.
    unsafe { move_to_cr2(value) }
}

/// The MSR, which must exist.
#[inline(always)]
pub(super) fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: Reading has no effect.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
///
/// The value keeps the kernel running, or is undone before it notices.
#[inline(always)]
unsafe fn wrmsr(msr: u32, value: u64) {
    // SAFETY: By the contract.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack))
    };
}

/// The MSR, or None where RDMSR faults.
pub(crate) fn rdmsr_safe(msr: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: #GP is caught by the exception table.
    unsafe { bindings::hvrs_rdmsr_safe(msr, &mut value) }.then_some(value)
}

/// Indirect branch prediction barrier; the CPU must have it.
pub(super) fn ibpb() {
    // SAFETY: A command without other effect.
    unsafe { wrmsr(IA32_PRED_CMD, 1) }
}

/// Writes the level-1 data cache back and empties it; the CPU must have that.
pub(super) fn l1d_flush() {
    // SAFETY: A command without other effect.
    unsafe { wrmsr(IA32_FLUSH_CMD, 1) }
}

/// Bit 0 of IA32_PRED_CMD or IA32_FLUSH_CMD for a guest, whose CPUID shows it only if the CPU has it.
pub(crate) fn speculation_command(msr: u32) {
    match msr {
        IA32_PRED_CMD => ibpb(),
        IA32_FLUSH_CMD => l1d_flush(),
        _ => {}
    }
}

/// IA32_SPEC_CTRL, which decides about speculation alone; the CPU must have it.
#[inline(always)]
pub(super) fn write_spec_ctrl(value: u64) {
    // SAFETY: No program computes anything else because of it.
    unsafe { wrmsr(IA32_SPEC_CTRL, value) }
}

/// IA32_RTIT_CTL.TraceEn; the CPU must have Intel PT.
pub(super) fn pt_is_tracing() -> bool {
    rdmsr(IA32_RTIT_CTL) & 1 != 0
}

/// The TSC.
#[inline(always)]
pub(crate) fn rdtsc() -> u64 {
    // SAFETY: Always there on this architecture.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    // SAFETY: Always there on this architecture.
    let r = unsafe { core::arch::x86_64::__cpuid_count(leaf, subleaf) };
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Raises the host's NMI handler for an NMI that caused a VM exit. NMIs are blocked until its IRET.
#[inline(always)]
pub(crate) fn int_nmi() {
    // SAFETY: The handler of vector 2 runs as for a hardware NMI; FRED is refused at load.
    unsafe { asm!("int 2") }
}

/// Raises the host's machine-check handler for a #MC that caused a VM exit.
pub(crate) fn int_machine_check() {
    // SAFETY: The handler of vector 18 runs as for a hardware machine check.
    unsafe { asm!("int 18") }
}
