// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Instructions that are not expected to fault; for the others see [`crate::probe`].

use core::arch::asm;

/// RFLAGS.CF.
pub const RFLAGS_CF: u64 = 1;
/// RFLAGS.TF, single-step.
pub const RFLAGS_TF: u64 = 1 << 8;
/// RFLAGS.IF, maskable interrupts.
pub const RFLAGS_IF: u64 = 1 << 9;
/// RFLAGS.RF, no instruction breakpoint for one instruction.
pub const RFLAGS_RF: u64 = 1 << 16;
/// RFLAGS.AC, alignment check.
pub const RFLAGS_AC: u64 = 1 << 18;

/// CR0.MP.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM.
pub const CR0_EM: u64 = 1 << 2;
/// CR0.TS.
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET, always 1.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE.
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.AM.
pub const CR0_AM: u64 = 1 << 18;
/// CR0.NW.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;

/// CR4.TSD.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.PGE.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.OSFXSR.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.UMIP.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.LA57.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// CR4.FSGSBASE.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.PCIDE.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub const CR4_PKE: u64 = 1 << 22;

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        #[doc = concat!("Reads ", $name, ".")]
        #[inline]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading a control register has no effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nostack, preserves_flags)) };
            value
        }
        #[doc = concat!("Writes ", $name, ", which must be legal and keep this program running.")]
        #[inline]
        pub fn $write(value: u64) {
            // SAFETY: the guest owns its machine (crate documentation).
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    };
}
control_register!(cr0, set_cr0, "cr0");
control_register!(cr2, set_cr2, "cr2");
control_register!(cr3, set_cr3, "cr3");
control_register!(cr4, set_cr4, "cr4");
control_register!(cr8, set_cr8, "cr8");
control_register!(dr0, set_dr0, "dr0");
control_register!(dr1, set_dr1, "dr1");
control_register!(dr2, set_dr2, "dr2");
control_register!(dr3, set_dr3, "dr3");
control_register!(dr6, set_dr6, "dr6");
control_register!(dr7, set_dr7, "dr7");

/// The time-stamp counter, read after all earlier loads.
#[inline]
pub fn rdtsc() -> u64 {
    let (lo, hi): (u32, u32);
    // SAFETY: RDTSC only changes EAX and EDX.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") lo, out("edx") hi, options(nostack, preserves_flags))
    };
    (u64::from(hi) << 32) | u64::from(lo)
}

/// RDTSCP: the counter and IA32_TSC_AUX.
#[inline]
pub fn rdtscp() -> (u64, u32) {
    let (lo, hi, aux): (u32, u32, u32);
    // SAFETY: RDTSCP only changes EAX, ECX and EDX.
    unsafe {
        asm!("rdtscp", out("eax") lo, out("edx") hi, out("ecx") aux, options(nostack, preserves_flags))
    };
    ((u64::from(hi) << 32) | u64::from(lo), aux)
}

/// RDMSR of an MSR known to exist.
#[inline]
pub fn rdmsr(msr: u32) -> u64 {
    let (lo, hi): (u32, u32);
    // SAFETY: the guest owns its machine.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") lo, out("edx") hi, options(nostack, preserves_flags))
    };
    (u64::from(hi) << 32) | u64::from(lo)
}

/// WRMSR of a legal value.
#[inline]
pub fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the guest owns its machine.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// RFLAGS.
#[inline]
pub fn rflags() -> u64 {
    let value;
    // SAFETY: pushes and pops one word.
    unsafe { asm!("pushfq", "pop {}", out(reg) value) };
    value
}

/// STI.
#[inline]
pub fn sti() {
    // SAFETY: all vectors have handlers.
    unsafe { asm!("sti") };
}

/// CLI.
#[inline]
pub fn cli() {
    // SAFETY: no effect on memory.
    unsafe { asm!("cli") };
}

/// STI; HLT with nothing between: an interrupt pending before ends the HLT.
#[inline]
pub fn sti_hlt() {
    // SAFETY: all vectors have handlers.
    unsafe { asm!("sti", "hlt") };
}

/// STI; NOP; CLI: takes what is pending.
#[inline]
pub fn take_interrupts() {
    // SAFETY: all vectors have handlers.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}

/// PAUSE.
#[inline]
pub fn pause() {
    core::hint::spin_loop();
}

macro_rules! port_io {
    ($in:ident, $out:ident, $ty:ty, $reg:tt) => {
        /// Reads an I/O port.
        #[inline]
        pub fn $in(port: u16) -> $ty {
            let value;
            // SAFETY: port reads do not touch memory.
            unsafe { asm!(concat!("in ", $reg, ", dx"), in("dx") port, out($reg) value, options(nostack, preserves_flags)) };
            value
        }
        /// Writes an I/O port.
        #[inline]
        pub fn $out(port: u16, value: $ty) {
            // SAFETY: no device here masters the bus by port writes.
            unsafe { asm!(concat!("out dx, ", $reg), in("dx") port, in($reg) value, options(nostack, preserves_flags)) };
        }
    };
}
port_io!(inb, outb, u8, "al");
port_io!(inw, outw, u16, "ax");
port_io!(inl, outl, u32, "eax");

/// INVLPG.
#[inline]
pub fn invlpg(address: u64) {
    // SAFETY: only drops translations.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Stops this processor for good.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: with interrupts off nothing but an NMI or INIT follows.
        unsafe { asm!("cli", "hlt") };
    }
}
