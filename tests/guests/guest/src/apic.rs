// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The local APIC in xAPIC and x2APIC mode, by register offset.

use crate::cpu::{rdmsr, wrmsr};
use crate::{cpuid, msr, percpu};
use core::sync::atomic::Ordering;

/// Physical base of the xAPIC page.
pub const BASE: u64 = 0xfee0_0000;

macro_rules! registers {
    ($($name:ident = $offset:literal;)*) => {
        $(#[doc = concat!("Register at offset ", stringify!($offset), ".")]
          pub const $name: u32 = $offset;)*
    };
}
registers! {
    ID = 0x20;
    VERSION = 0x30;
    TPR = 0x80;
    PPR = 0xa0;
    EOI = 0xb0;
    LDR = 0xd0;
    DFR = 0xe0;
    SVR = 0xf0;
    ISR = 0x100;
    TMR = 0x180;
    IRR = 0x200;
    ESR = 0x280;
    ICR = 0x300;
    ICR_HIGH = 0x310;
    LVT_TIMER = 0x320;
    LVT_THERMAL = 0x330;
    LVT_PERF = 0x340;
    LVT_LINT0 = 0x350;
    LVT_LINT1 = 0x360;
    LVT_ERROR = 0x370;
    TIMER_INITIAL = 0x380;
    TIMER_CURRENT = 0x390;
    TIMER_DIVIDE = 0x3e0;
    SELF_IPI = 0x3f0;
}

/// LVT: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// LVT timer: periodic.
pub const TIMER_PERIODIC: u32 = 1 << 17;
/// LVT timer: TSC deadline.
pub const TIMER_DEADLINE: u32 = 2 << 17;
/// SVR: software enable.
pub const SVR_ENABLE: u32 = 1 << 8;
/// Divide configuration: by 1.
pub const DIVIDE_1: u32 = 0xb;

/// ICR: delivery mode NMI.
pub const ICR_NMI: u32 = 4 << 8;
/// ICR: delivery mode INIT.
pub const ICR_INIT: u32 = 5 << 8;
/// ICR: delivery mode start-up.
pub const ICR_STARTUP: u32 = 6 << 8;
/// ICR: logical destination.
pub const ICR_LOGICAL: u32 = 1 << 11;
/// ICR: delivery pending (xAPIC).
pub const ICR_PENDING: u32 = 1 << 12;
/// ICR: level assert.
pub const ICR_ASSERT: u32 = 1 << 14;
/// ICR shorthand: self.
pub const ICR_SELF: u32 = 1 << 18;
/// ICR shorthand: all including self.
pub const ICR_ALL: u32 = 2 << 18;
/// ICR shorthand: all excluding self.
pub const ICR_OTHERS: u32 = 3 << 18;

/// The vector used for spurious interrupts.
pub const SPURIOUS: u8 = 0xff;

/// Whether this processor's APIC is in x2APIC mode.
#[inline]
pub fn is_x2apic() -> bool {
    percpu::this().x2apic.load(Ordering::Relaxed) != 0
}

/// The x2APIC MSR of a register offset.
#[inline]
pub fn x2apic_msr(register: u32) -> u32 {
    0x800 + (register >> 4)
}

/// Reads a register of the xAPIC page.
#[inline]
pub fn mmio_read(register: u32) -> u32 {
    // SAFETY: the page is identity-mapped, uncached, and only the APIC is there.
    unsafe { ((BASE + u64::from(register)) as *const u32).read_volatile() }
}

/// Writes a register of the xAPIC page.
#[inline]
pub fn mmio_write(register: u32, value: u32) {
    // SAFETY: as in `mmio_read`.
    unsafe { ((BASE + u64::from(register)) as *mut u32).write_volatile(value) };
}

/// Reads a register in the mode the APIC is in.
#[inline]
pub fn read(register: u32) -> u32 {
    if is_x2apic() {
        rdmsr(x2apic_msr(register)) as u32
    } else {
        mmio_read(register)
    }
}

/// Writes a register in the mode the APIC is in.
#[inline]
pub fn write(register: u32, value: u32) {
    if is_x2apic() {
        wrmsr(x2apic_msr(register), u64::from(value));
    } else {
        mmio_write(register, value);
    }
}

/// End of interrupt.
#[inline]
pub fn eoi() {
    write(EOI, 0);
}

/// This processor's APIC id.
pub fn id() -> u32 {
    if is_x2apic() {
        read(ID)
    } else {
        read(ID) >> 24
    }
}

/// Sends an interrupt: `low` as the ICR's low half, to `destination`.
pub fn send(destination: u32, low: u32) {
    if is_x2apic() {
        wrmsr(
            x2apic_msr(ICR),
            (u64::from(destination) << 32) | u64::from(low),
        );
    } else {
        mmio_write(ICR_HIGH, destination << 24);
        mmio_write(ICR, low);
        while mmio_read(ICR) & ICR_PENDING != 0 {
            core::hint::spin_loop();
        }
    }
}

/// Sends `vector` to this processor.
pub fn send_self(vector: u8) {
    send(0, u32::from(vector) | ICR_ASSERT | ICR_SELF);
}

/// Whether `vector`'s bit is set in ISR, TMR or IRR.
pub fn vector_bit(bank: u32, vector: u8) -> bool {
    let register = bank + (u32::from(vector) >> 5) * 0x10;
    (read(register) >> (vector & 31)) & 1 != 0
}

/// The ways to address an APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mode {
    Disabled,
    Xapic,
    X2apic,
}

/// Puts the APIC in a mode by legal transitions, and takes note.
pub fn set_mode(mode: Mode) {
    let base = rdmsr(msr::IA32_APIC_BASE) & !(msr::APIC_BASE_EN | msr::APIC_BASE_EXTD);
    let now = is_x2apic();
    match mode {
        Mode::Disabled => wrmsr(msr::IA32_APIC_BASE, base),
        Mode::Xapic => {
            if now {
                wrmsr(msr::IA32_APIC_BASE, base);
            }
            wrmsr(msr::IA32_APIC_BASE, base | msr::APIC_BASE_EN);
        }
        Mode::X2apic => {
            if !now {
                wrmsr(msr::IA32_APIC_BASE, base | msr::APIC_BASE_EN);
            }
            wrmsr(
                msr::IA32_APIC_BASE,
                base | msr::APIC_BASE_EN | msr::APIC_BASE_EXTD,
            );
        }
    }
    percpu::this()
        .x2apic
        .store(u32::from(mode == Mode::X2apic), Ordering::Relaxed);
}

/// Software-enables the APIC in the mode it is in, all LVTs masked, priority 0.
pub fn init() {
    let extd = rdmsr(msr::IA32_APIC_BASE) & msr::APIC_BASE_EXTD != 0;
    let cpu = percpu::this();
    cpu.x2apic.store(u32::from(extd), Ordering::Relaxed);
    write(SVR, SVR_ENABLE | u32::from(SPURIOUS));
    write(TPR, 0);
    for lvt in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(lvt, LVT_MASKED);
    }
    write(TIMER_INITIAL, 0);
    write(TIMER_DIVIDE, DIVIDE_1);
    cpu.apic_id.store(id(), Ordering::Release);
}

/// [`init`], then x2APIC mode where there is one.
pub fn init_best() {
    init();
    if cpuid::X2APIC.present() {
        set_mode(Mode::X2apic);
        init();
    }
}
