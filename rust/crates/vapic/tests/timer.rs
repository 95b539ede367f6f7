// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The timer against counting by hand (SDM Vol. 3, 11.5.4).

use crate::common::{read, write, x2apic, xapic, Random, TestApic, CONFIG};
use vapic::{regs, ApicPage, Config, Effect, Lapic, TimerMode};

const ONE_SHOT: u32 = 0;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;
const VECTOR: u32 = 0xEC;
/// "Divide by 1": a tick of the count is 10 TSC ticks.
const BY_1: u32 = 0xB;

fn timer(mode: u32, divide: u32) -> TestApic {
    let mut apic = xapic(0);
    write(&mut apic, regs::LVT_TIMER, mode | VECTOR);
    write(&mut apic, regs::TIMER_DCR, divide);
    apic
}

/// Periodic, on a machine with that TSC.
fn periodic(tsc_khz: u32, initial: u32) -> TestApic {
    let config = Config { tsc_khz, ..CONFIG };
    let mut apic: TestApic = Lapic::new(Box::new(ApicPage::new()), 0, true, config);
    for (offset, value) in [
        (regs::SVR, 0x1FF),
        (regs::LVT_TIMER, PERIODIC | VECTOR),
        (regs::TIMER_DCR, BY_1),
        (regs::TIMER_ICR, initial),
    ] {
        write(&mut apic, offset, value);
    }
    apic
}

fn current_count(apic: &mut TestApic, now: u64) -> u64 {
    apic.mmio_read(regs::TIMER_CCR, 4, now)
}

/// Takes the timer's interrupt if it is pending.
fn interrupted(apic: &mut TestApic) -> bool {
    let vector = apic.acknowledge();
    assert!(matches!(vector, None | Some(0xEC)));
    vector.is_some() && apic.eoi().is_some()
}

#[test]
fn one_shot() {
    let mut apic = timer(ONE_SHOT, BY_1);
    assert_eq!(apic.timer_deadline(), None);
    assert_eq!(
        apic.mmio_write(regs::TIMER_ICR, 4, 100, 5000),
        Effect::TimerChanged
    );
    assert_eq!(apic.timer_deadline(), Some(6000));
    assert_eq!(apic.timer_ticks_left(5400), Some(600));
    for (now, count) in [
        (5000, 100),
        (5001, 100),
        (5010, 99),
        (5989, 2),
        (5990, 1),
        (5999, 1),
    ] {
        assert_eq!(current_count(&mut apic, now), count, "{now}");
    }
    assert!(!apic.timer_expire(5999));
    assert!(apic.timer_expire(6000));
    assert!(interrupted(&mut apic));
    assert_eq!(current_count(&mut apic, 6000), 0);
    assert_eq!(read(&mut apic, regs::TIMER_ICR), 100);
    assert!(!apic.timer_expire(100_000));
    assert_eq!(
        (apic.timer_deadline(), apic.timer_ticks_left(0)),
        (None, None)
    );
}

#[test]
fn divisors() {
    for (dcr, divisor) in [
        (0, 2),
        (1, 4),
        (2, 8),
        (3, 16),
        (8, 32),
        (9, 64),
        (10, 128),
        (11, 1),
    ] {
        let mut apic = timer(ONE_SHOT, dcr);
        apic.mmio_write(regs::TIMER_ICR, 4, 7, 0);
        assert_eq!(apic.timer_deadline(), Some(70 * divisor), "DCR {dcr}");
        apic.mmio_write(regs::TIMER_ICR, 4, u32::MAX, 0);
        assert_eq!(apic.timer_deadline(), Some(0xFFFF_FFFF * 10 * divisor));
        assert_eq!(current_count(&mut apic, 10 * divisor), 0xFFFF_FFFE);
    }
}

#[test]
fn a_zero_count_stops() {
    for mode in [ONE_SHOT, PERIODIC] {
        let mut apic = timer(mode, BY_1);
        apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
        apic.mmio_write(regs::TIMER_ICR, 4, 0, 10);
        assert_eq!(
            (apic.timer_deadline(), current_count(&mut apic, 20)),
            (None, 0)
        );
        assert!(!apic.timer_expire(5000));
    }
}

#[test]
fn what_was_due_before_a_write_is_not_lost() {
    for (offset, value) in [
        (regs::TIMER_ICR, 0),
        (regs::TIMER_DCR, 0),
        (regs::LVT_TIMER, regs::LVT_MASKED),
        (regs::SVR, 0xFF),
        (regs::LVT_TIMER, TSC_DEADLINE | VECTOR),
    ] {
        let mut apic = timer(ONE_SHOT, BY_1);
        apic.mmio_write(regs::TIMER_ICR, 4, 1, 0);
        apic.mmio_write(offset, 4, value, 10);
        assert!(interrupted(&mut apic), "{offset:#x}");
    }
}

/// A tick-by-tick model: the counter of the SDM, one TSC tick at a time.
#[test]
fn counting_modes_agree_with_brute_force() {
    let mut random = Random::new(7);
    for _ in 0..60 {
        let periodic = random.below(2) == 0;
        let code = random.below(8) as u32;
        let divide = (code & 3) | ((code & 4) << 1);
        let tick = 10 * [2, 4, 8, 16, 32, 64, 128, 1][code as usize];
        let initial = 1 + random.below(40) as u32;
        let mut apic = timer(if periodic { PERIODIC } else { ONE_SHOT }, divide);
        let start = random.next() >> 20;
        apic.mmio_write(regs::TIMER_ICR, 4, initial, start);
        let (mut count, mut interrupts) = (u64::from(initial), 0u32);
        for ticks in 1..=3 * tick * u64::from(initial) {
            if ticks % tick == 0 && count != 0 {
                count -= 1;
                if count == 0 {
                    interrupts += 1;
                    count = if periodic { initial.into() } else { 0 };
                }
            }
            let now = start + ticks;
            if random.below(3) == 0 {
                apic.timer_expire(now);
                while interrupted(&mut apic) {
                    assert!(interrupts > 0);
                    // Periods that ended between two looks are one interrupt.
                    interrupts = 0;
                }
                assert_eq!(interrupts, 0);
                assert_eq!(current_count(&mut apic, now), count);
            }
        }
    }
}

#[test]
fn periods_do_not_drift() {
    // 2893.299 MHz over 200 MHz: a period of 1000 is 14466.495 TSC ticks.
    let mut apic = periodic(2_893_299, 1000);
    for i in 1..=1_000_000u64 {
        let due = apic.timer_deadline().unwrap();
        let exact = i * 14_466_495 / 1000;
        assert!(exact - due <= 1, "period {i}: {due}, not {exact}");
        // Handled late, as it always is.
        assert!(apic.timer_expire(due + i % 977));
    }
}

#[test]
fn late_periodic_timers_catch_up_in_one_step() {
    for initial in [1, 3, 1000, 1_000_000, 0x3000_0000] {
        let period = u64::from(initial) * 10;
        for late in [0, 1, 999, 1 << 20, 0xFFFF_FFFF, 1 << 32, 1 << 40, 1 << 62] {
            let mut apic = timer(PERIODIC, BY_1);
            apic.mmio_write(regs::TIMER_ICR, 4, initial, 0);
            let now = period + late;
            assert!(apic.timer_expire(now));
            let next = apic.timer_deadline().unwrap();
            assert!(next > now && next <= now + period, "{initial} {late}");
            if late >> 32 == 0 || period >> 32 != 0 {
                assert_eq!(next % period, 0, "in phase");
            }
            assert!(!apic.timer_expire(now), "one interrupt for all");
        }
    }
}

#[test]
fn periods_shorter_than_a_tick_make_progress() {
    // A TSC slower than the timer's clock.
    let mut apic = periodic(1_000, 1);
    for now in 1..1000 {
        assert!(apic.timer_expire(now));
        assert!(!apic.timer_expire(now), "one expiry a tick");
        assert!(apic.timer_deadline().unwrap() > now);
    }
}

#[test]
fn masked_timers_count_in_silence() {
    for mode in [ONE_SHOT, PERIODIC] {
        let mut apic = timer(mode | regs::LVT_MASKED, BY_1);
        apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
        assert_eq!(apic.timer_deadline(), None, "nothing to wake up for");
        assert_eq!(current_count(&mut apic, 500), 50);
        assert!(!apic.timer_expire(1000));
        assert_eq!(
            current_count(&mut apic, 1500),
            if mode == PERIODIC { 50 } else { 0 }
        );
        apic.mmio_write(regs::LVT_TIMER, 4, mode | VECTOR, 1700);
        assert!(!interrupted(&mut apic), "expiry while masked is lost");
        assert_eq!(apic.timer_deadline(), (mode == PERIODIC).then_some(2000));
    }
}

#[test]
fn one_shot_and_periodic_change_into_each_other() {
    let mut apic = timer(ONE_SHOT, BY_1);
    apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
    apic.mmio_write(regs::LVT_TIMER, 4, PERIODIC | VECTOR, 300);
    assert_eq!(current_count(&mut apic, 300), 70, "counts on");
    assert!(apic.timer_expire(1000));
    assert_eq!(apic.timer_deadline(), Some(2000));
    apic.mmio_write(regs::LVT_TIMER, 4, ONE_SHOT | VECTOR, 1300);
    assert_eq!(current_count(&mut apic, 1300), 70);
    assert!(apic.timer_expire(2000));
    assert_eq!(apic.timer_deadline(), None);
    apic.mmio_write(regs::LVT_TIMER, 4, PERIODIC | VECTOR, 2100);
    assert_eq!(
        current_count(&mut apic, 2200),
        0,
        "a stopped counter stays stopped"
    );
}

#[test]
fn a_new_divisor_keeps_the_count() {
    let mut apic = timer(PERIODIC, BY_1);
    apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
    apic.mmio_write(regs::TIMER_DCR, 4, 1, 600);
    assert_eq!(current_count(&mut apic, 600), 40);
    assert_eq!(apic.timer_deadline(), Some(600 + 40 * 40));
    assert!(apic.timer_expire(2200));
    assert_eq!(apic.timer_deadline(), Some(2200 + 100 * 40));
}

#[test]
fn tsc_deadline() {
    let mut apic = x2apic(0);
    let write =
        |apic: &mut TestApic, value, now| apic.msr_write(regs::MSR_TSC_DEADLINE, value, now);
    let read = |apic: &mut TestApic, now| apic.msr_read(regs::MSR_TSC_DEADLINE, now).unwrap();
    assert_eq!(
        write(&mut apic, 1000, 0),
        Ok(Effect::None),
        "ignored in one-shot mode"
    );
    assert_eq!(read(&mut apic, 0), 0);
    apic.msr_write(0x832, (TSC_DEADLINE | VECTOR).into(), 0)
        .unwrap();
    assert_eq!(apic.timer_mode(), TimerMode::TscDeadline);
    assert_eq!(write(&mut apic, 1000, 0), Ok(Effect::TimerChanged));
    assert_eq!(
        (apic.timer_deadline(), read(&mut apic, 999)),
        (Some(1000), 1000)
    );
    apic.msr_write(0x838, 50, 10).unwrap();
    assert_eq!(
        apic.msr_read(0x838, 10),
        Ok(0),
        "the counts do not take part"
    );
    assert_eq!(apic.msr_read(0x839, 10), Ok(0));
    assert!(!apic.timer_expire(999));
    assert!(apic.timer_expire(1000));
    assert!(interrupted(&mut apic));
    assert_eq!((apic.timer_deadline(), read(&mut apic, 1000)), (None, 0));

    write(&mut apic, 500, 2000).unwrap();
    assert!(interrupted(&mut apic), "in the past: at once");
    assert_eq!(apic.timer_deadline(), None);

    write(&mut apic, 3000, 2000).unwrap();
    write(&mut apic, 0, 2500).unwrap();
    assert_eq!(apic.timer_deadline(), None, "zero disarms");
    assert!(!apic.timer_expire(4000));

    write(&mut apic, u64::MAX, 4000).unwrap();
    assert_eq!(apic.timer_ticks_left(4000), Some(u64::MAX - 4000));
    assert!(!apic.timer_expire(u64::MAX - 1));
    assert!(apic.timer_expire(u64::MAX));
}

#[test]
fn masked_deadlines_expire_in_silence() {
    let mut apic = timer(TSC_DEADLINE | regs::LVT_MASKED, BY_1);
    apic.write_tsc_deadline(1000, 0);
    assert_eq!(apic.timer_deadline(), None);
    assert_eq!(apic.tsc_deadline(999), 1000);
    assert_eq!(apic.tsc_deadline(1000), 0);
    apic.mmio_write(regs::LVT_TIMER, 4, TSC_DEADLINE | VECTOR, 1500);
    assert_eq!(apic.timer_deadline(), None);
    assert!(!interrupted(&mut apic));
}

#[test]
fn changes_of_mode_to_and_from_deadline_disarm() {
    for mode in [ONE_SHOT, PERIODIC] {
        let mut apic = timer(mode, BY_1);
        apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
        apic.mmio_write(regs::LVT_TIMER, 4, TSC_DEADLINE | VECTOR, 100);
        assert_eq!(apic.timer_deadline(), None);
        apic.write_tsc_deadline(1000, 100);
        apic.mmio_write(regs::LVT_TIMER, 4, TSC_DEADLINE | 0x40, 200);
        assert_eq!(
            apic.timer_deadline(),
            Some(1000),
            "the same mode: stays armed"
        );
        apic.mmio_write(regs::LVT_TIMER, 4, mode | VECTOR, 300);
        assert_eq!((apic.timer_deadline(), apic.tsc_deadline(300)), (None, 0));
        assert_eq!(current_count(&mut apic, 300), 0);
        assert!(!apic.timer_expire(5000));
    }
    let mut apic = timer(3 << 17, BY_1);
    assert_eq!(apic.timer_mode(), TimerMode::Reserved);
    apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
    apic.write_tsc_deadline(100, 0);
    assert_eq!(apic.timer_deadline(), None, "runs in no reserved mode");
}

#[test]
fn the_guest_may_move_its_tsc() {
    let mut apic = timer(ONE_SHOT, BY_1);
    apic.mmio_write(regs::TIMER_ICR, 4, 100, 0);
    apic.adjust_tsc(u64::MAX - 599);
    // 500 ticks in, the TSC reads 2^64 - 100, and the deadline is past its end.
    let now = u64::MAX - 99;
    assert_eq!(current_count(&mut apic, now), 50);
    assert_eq!(apic.timer_ticks_left(now), Some(500));
    assert!(!apic.timer_expire(now));
    assert!(!apic.timer_expire(399));
    assert!(apic.timer_expire(400));

    let mut apic = timer(TSC_DEADLINE, BY_1);
    apic.write_tsc_deadline(1000, 0);
    apic.adjust_tsc(500);
    assert_eq!(
        apic.timer_deadline(),
        Some(1000),
        "an absolute value of the TSC"
    );
}

#[test]
fn any_clocks_and_times_are_survived() {
    let mut random = Random::new(3);
    for _ in 0..2000 {
        let config = Config {
            tsc_khz: [0, 1, 200_000, u32::MAX][random.below(4) as usize],
            apic_hz: [0, 1, 200_000_000, u32::MAX][random.below(4) as usize],
            ..CONFIG
        };
        let mut apic: TestApic = Lapic::new(Box::new(ApicPage::new()), 0, true, config);
        write(&mut apic, regs::SVR, 0x1FF);
        for _ in 0..20 {
            let now = random.next() >> random.below(64);
            let value = random.next() as u32 >> random.below(32);
            match random.below(6) {
                0 => apic.mmio_write(regs::TIMER_ICR, 4, value, now),
                1 => apic.mmio_write(regs::TIMER_DCR, 4, value, now),
                2 => apic.mmio_write(regs::LVT_TIMER, 4, (value & 0x7_0000) | VECTOR, now),
                3 => apic.write_tsc_deadline(random.next(), now),
                4 => {
                    apic.adjust_tsc(random.next());
                    Effect::None
                }
                _ => {
                    apic.timer_expire(now);
                    // Whatever happened, what is left is not due any more.
                    assert_ne!(apic.timer_ticks_left(now), Some(0));
                    Effect::None
                }
            };
            let initial = u64::from(read(&mut apic, regs::TIMER_ICR));
            assert!(current_count(&mut apic, now) <= initial.max(1));
        }
    }
}
