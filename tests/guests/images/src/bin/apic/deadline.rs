// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The timer in TSC-deadline mode (SDM 3A 12.5.4.1).

use core::sync::atomic::{AtomicU64, Ordering};
use guest::apic::*;
use guest::cpuid::TSC_DEADLINE;
use guest::msr::IA32_TSC_DEADLINE;
use guest::{cpu, idt, record, require, time, Pass, Verdict};

const TIMER: u8 = 0x40;

fn arm(ticks: u64) -> u64 {
    let deadline = cpu::rdtsc() + ticks;
    cpu::wrmsr(IA32_TSC_DEADLINE, deadline);
    deadline
}

pub fn fires() -> Verdict {
    require!(TSC_DEADLINE.present(), "no TSC deadline");
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER) | TIMER_DEADLINE);
    for round in 1..=50 {
        arm(round * 2_000);
        assert!(record::reached(1), "did not fire");
        record::expect(&[TIMER]);
        assert_eq!(cpu::rdmsr(IA32_TSC_DEADLINE), 0, "still armed after firing");
    }
    // A deadline in the past fires at once.
    cpu::wrmsr(IA32_TSC_DEADLINE, 1);
    assert!(record::reached(1), "a past deadline does not fire");
    record::expect(&[TIMER]);
    Pass
}

pub fn not_early() -> Verdict {
    require!(TSC_DEADLINE.present(), "no TSC deadline");
    static AT: AtomicU64 = AtomicU64::new(0);
    idt::hook(TIMER, |_| {
        AT.store(cpu::rdtsc(), Ordering::Release);
        eoi();
    });
    write(LVT_TIMER, u32::from(TIMER) | TIMER_DEADLINE);
    for round in 1..=100 {
        AT.store(0, Ordering::Release);
        let deadline = arm(round * 5_000);
        cpu::sti();
        if round % 2 == 0 {
            while AT.load(Ordering::Acquire) == 0 {
                cpu::sti_hlt();
            }
        }
        let fired = time::reached(|| AT.load(Ordering::Acquire) != 0);
        cpu::cli();
        assert!(fired, "did not fire");
        let at = AT.load(Ordering::Acquire);
        assert!(at >= deadline, "{} ticks early", deadline - at);
    }
    Pass
}

pub fn disarmed() -> Verdict {
    require!(TSC_DEADLINE.present(), "no TSC deadline");
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER) | TIMER_DEADLINE);
    let deadline = arm(50_000_000);
    assert_eq!(cpu::rdmsr(IA32_TSC_DEADLINE), deadline);
    cpu::wrmsr(IA32_TSC_DEADLINE, 0);
    cpu::sti();
    time::spin(60_000_000);
    cpu::cli();
    record::expect(&[]);
    // Leaving the mode disarms as well.
    arm(20_000_000);
    write(LVT_TIMER, u32::from(TIMER));
    assert_eq!(cpu::rdmsr(IA32_TSC_DEADLINE), 0, "armed outside the mode");
    cpu::sti();
    time::spin(30_000_000);
    cpu::cli();
    record::expect(&[]);
    Pass
}

/// Outside the mode writes of the MSR are ignored; in it those of the initial count.
pub fn by_mode_only() -> Verdict {
    require!(TSC_DEADLINE.present(), "no TSC deadline");
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER));
    cpu::wrmsr(IA32_TSC_DEADLINE, 1);
    assert_eq!(cpu::rdmsr(IA32_TSC_DEADLINE), 0);
    cpu::take_interrupts();
    record::expect(&[]);
    write(LVT_TIMER, u32::from(TIMER) | TIMER_DEADLINE);
    write(TIMER_INITIAL, 10);
    time::spin(100_000);
    assert_eq!(read(TIMER_CURRENT), 0);
    cpu::take_interrupts();
    record::expect(&[]);
    Pass
}
