// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The timer in one-shot and periodic mode.

use guest::apic::*;
use guest::{cpu, idt, record, time, Pass, Verdict};

const TIMER: u8 = 0x40;

pub fn oneshot() -> Verdict {
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER));
    for round in 1..=50 {
        write(TIMER_INITIAL, 1000 * round);
        assert!(record::reached(1), "did not fire");
        record::expect(&[TIMER]);
        assert_eq!(read(TIMER_CURRENT), 0, "counts on after firing");
    }
    cpu::sti();
    time::spin(1_000_000);
    cpu::cli();
    record::expect(&[]);
    // It counts down, and restarts when written.
    write(TIMER_INITIAL, 0xffff_ffff);
    let first = read(TIMER_CURRENT);
    time::spin(100_000);
    let second = read(TIMER_CURRENT);
    assert!(
        second < first && first != 0,
        "count {first:#x}, then {second:#x}"
    );
    write(TIMER_INITIAL, 0xffff_ffff);
    assert!(read(TIMER_CURRENT) > second, "not restarted");
    assert_eq!(read(TIMER_INITIAL), 0xffff_ffff);
    write(TIMER_INITIAL, 0);
    Pass
}

pub fn periodic() -> Verdict {
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER) | TIMER_PERIODIC);
    write(TIMER_INITIAL, 50_000);
    assert!(
        record::reached(20),
        "stopped after {} periods",
        record::len()
    );
    assert!(read(TIMER_CURRENT) <= 50_000);
    write(TIMER_INITIAL, 0);
    cpu::take_interrupts();
    let seen = idt::count(TIMER);
    cpu::sti();
    time::spin(2_000_000);
    cpu::cli();
    assert_eq!(idt::count(TIMER), seen, "fires after it was stopped");
    Pass
}

/// A masked timer counts and does not interrupt, not even when unmasked later.
pub fn masked() -> Verdict {
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER) | LVT_MASKED);
    write(TIMER_INITIAL, 10_000);
    assert!(time::reached(|| read(TIMER_CURRENT) == 0), "does not count");
    assert!(!vector_bit(IRR, TIMER));
    write(LVT_TIMER, u32::from(TIMER));
    cpu::take_interrupts();
    record::expect(&[]);
    Pass
}

pub fn stopped() -> Verdict {
    record::start(&[TIMER]);
    write(LVT_TIMER, u32::from(TIMER));
    write(TIMER_INITIAL, 10_000_000);
    write(TIMER_INITIAL, 0);
    assert_eq!(read(TIMER_CURRENT), 0);
    cpu::sti();
    time::spin(1_000_000);
    cpu::cli();
    record::expect(&[]);
    Pass
}

/// A larger divisor counts more slowly; the bound leaves room for a stalled machine.
pub fn divide() -> Verdict {
    let counted = |divide| {
        write(TIMER_DIVIDE, divide);
        (0..8)
            .map(|_| {
                write(TIMER_INITIAL, 0xffff_ffff);
                time::spin(500_000);
                0xffff_ffff - read(TIMER_CURRENT)
            })
            .min()
            .unwrap_or(0)
    };
    let by_1 = counted(DIVIDE_1);
    let by_16 = counted(3);
    let by_128 = counted(0xa);
    write(TIMER_INITIAL, 0);
    assert!(
        by_1 / 4 > by_16 && by_16 / 2 > by_128,
        "counts by 1, 16, 128: {by_1} {by_16} {by_128}"
    );
    Pass
}
