// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::testing::xorshift;
use std::vec::Vec;

const ONE_SHOT: u64 = HV_STIMER_DIRECT | (0x40 << HV_STIMER_VECTOR_SHIFT);
const PERIODIC: u64 = ONE_SHOT | HV_STIMER_PERIODIC;
const GP: Result<(), MsrError> = Err(MsrError::GeneralProtection);

/// A VP that notes what it gets.
struct Vp {
    interrupts: Vec<u8>,
    messages: Vec<(u8, HvTimerMessagePayload)>,
    slot: Posted,
}

impl Vp {
    fn new() -> Self {
        Self {
            interrupts: Vec::new(),
            messages: Vec::new(),
            slot: Posted::Delivered,
        }
    }
}

impl Sink for Vp {
    fn interrupt(&mut self, vector: u8) {
        self.interrupts.push(vector);
    }
    fn message(&mut self, sint: u8, payload: &HvTimerMessagePayload) -> Posted {
        if self.slot == Posted::Delivered {
            self.messages.push((sint, *payload));
        }
        self.slot
    }
}

/// M-B0: reserved bits, a vector below 16 in direct mode, SINT 0.
#[test]
fn config() {
    let mut t = Stimers::new();
    for bit in (13..16).chain(20..64) {
        assert_eq!(t.write_config(0, 1 << bit), GP, "bit {bit}");
    }
    for vector in 0..16 {
        let config = HV_STIMER_DIRECT | (vector << HV_STIMER_VECTOR_SHIFT);
        assert_eq!(t.write_config(1, config | HV_STIMER_ENABLE), GP);
        assert_eq!(t.write_config(1, config), Ok(()));
        // Nor does AutoEnable enable it.
        assert_eq!(t.write_config(1, config | HV_STIMER_AUTO_ENABLE), Ok(()));
        t.write_count(1, 5);
        assert_eq!(t.config(1) & HV_STIMER_ENABLE, 0);
    }
    t.write_config(2, HV_STIMER_ENABLE | HV_STIMER_PERIODIC)
        .unwrap();
    assert_eq!(t.config(2), HV_STIMER_PERIODIC);
    let config = HV_STIMER_ENABLE | (3 << HV_STIMER_SINT_SHIFT);
    t.write_config(2, config).unwrap();
    assert_eq!(t.config(2), config);
    assert_eq!(t.config(3), 0);
    assert_eq!(t.write_config(4, 0), Err(MsrError::NotMine));
}

/// F-TM1, F-TM2, F-TM5, F-TM7: the way Linux uses it.
#[test]
fn one_shot_direct() {
    let (mut t, mut vp) = (Stimers::new(), Vp::new());
    let config = ONE_SHOT | HV_STIMER_ENABLE | HV_STIMER_AUTO_ENABLE;
    t.write_config(0, config).unwrap();
    assert_eq!(t.run(10, &mut vp), NEVER);
    t.write_count(0, 1000);
    assert_eq!(t.run(10, &mut vp), 1000);
    assert_eq!(t.run(999, &mut vp), 1000);
    assert_eq!(vp.interrupts, []);
    assert_eq!(t.run(1000, &mut vp), NEVER);
    assert_eq!(vp.interrupts, [0x40]);
    assert_eq!(t.config(0), config & !HV_STIMER_ENABLE);
    assert_eq!(t.run(5000, &mut vp), NEVER);
    // A count in the past fires at once.
    t.write_count(0, 4000);
    assert_eq!(t.config(0), config);
    assert_eq!(t.run(5001, &mut vp), NEVER);
    assert_eq!(vp.interrupts, [0x40; 2]);
    // 0 stops it.
    t.write_count(0, 9000);
    assert_eq!(t.run(5002, &mut vp), 9000);
    t.write_count(0, 0);
    assert_eq!(t.run(10_000, &mut vp), NEVER);
    assert_eq!(t.config(0) & HV_STIMER_ENABLE, 0);
    assert_eq!(vp.interrupts.len(), 2);
    // Without AutoEnable a count does not start it.
    t.write_config(0, ONE_SHOT).unwrap();
    t.write_count(0, 11_000);
    assert_eq!(t.run(12_000, &mut vp), NEVER);
}

/// F-TM3: the first period begins when it is enabled; ticks that come late are made up for with shorter periods.
#[test]
fn periodic_catches_up() {
    let (mut t, mut vp) = (Stimers::new(), Vp::new());
    t.write_count(3, 10_000);
    t.write_config(3, PERIODIC | HV_STIMER_ENABLE).unwrap();
    assert_eq!(t.run(500, &mut vp), 10_500);
    assert_eq!(t.run(10_600, &mut vp), 20_500);
    // Three periods late: half periods until 70,500.
    assert_eq!(t.run(50_600, &mut vp), 55_600);
    assert_eq!(t.run(55_600, &mut vp), 60_600);
    assert_eq!(t.run(60_600, &mut vp), 65_600);
    assert_eq!(t.run(65_600, &mut vp), 70_600);
    assert_eq!(t.run(70_600, &mut vp), 75_600);
    assert_eq!(t.run(75_600, &mut vp), 80_600);
    assert_eq!(t.run(80_600, &mut vp), 90_500);
    assert_eq!(vp.interrupts.len(), 8);
    assert_eq!(t.config(3), PERIODIC | HV_STIMER_ENABLE);
}

/// F-TM4.
#[test]
fn lazy_loses_ticks() {
    let (mut t, mut vp) = (Stimers::new(), Vp::new());
    t.write_count(0, 10_000);
    t.write_config(0, PERIODIC | HV_STIMER_LAZY | HV_STIMER_ENABLE)
        .unwrap();
    assert_eq!(t.run(0, &mut vp), 10_000);
    // Late by 3.2 periods: that tick, then the raster.
    assert_eq!(t.run(42_000, &mut vp), 50_000);
    assert_eq!(vp.interrupts.len(), 1);
    // Late by 2.8 periods: the next is near.
    assert_eq!(t.run(78_000, &mut vp), 80_000);
    assert_eq!(vp.interrupts.len(), 1);
    assert_eq!(t.run(80_000, &mut vp), 90_000);
    assert_eq!(vp.interrupts.len(), 2);
}

/// F-TM6, F-SY4: a message waits for its slot, is delivered once, and a periodic timer waits with it.
#[test]
fn messages() {
    let (mut t, mut vp) = (Stimers::new(), Vp::new());
    let sint = 2 << HV_STIMER_SINT_SHIFT;
    t.write_count(1, 1000);
    t.write_config(1, sint | HV_STIMER_ENABLE).unwrap();
    vp.slot = Posted::Busy;
    assert_eq!(t.run(1500, &mut vp), 1500 + RETRY_100NS);
    assert!(t.message_waits());
    assert_eq!(t.config(1), sint);
    vp.slot = Posted::Off;
    assert_eq!(t.run(1600, &mut vp), NEVER);
    vp.slot = Posted::Delivered;
    assert_eq!(t.run(1700, &mut vp), NEVER);
    assert!(!t.message_waits());
    let payload = HvTimerMessagePayload {
        timer_index: 1,
        reserved: 0,
        expiration_time: 1000,
        delivery_time: 1700,
    };
    assert_eq!(vp.messages, [(2, payload)]);
    assert_eq!(t.run(1800, &mut vp), NEVER);

    t.write_count(0, 10_000);
    t.write_config(0, sint | HV_STIMER_ENABLE | HV_STIMER_PERIODIC)
        .unwrap();
    assert_eq!(t.run(2000, &mut vp), 12_000);
    vp.slot = Posted::Busy;
    assert_eq!(t.run(12_000, &mut vp), 12_000 + RETRY_100NS);
    assert_eq!(t.run(50_000, &mut vp), 50_000 + RETRY_100NS);
    vp.slot = Posted::Delivered;
    assert_eq!(t.run(51_000, &mut vp), 56_000);
    assert_eq!(vp.messages.len(), 2);
    assert_eq!(vp.messages[1].1.expiration_time, 12_000);
    // What waits goes with the timer.
    vp.slot = Posted::Busy;
    t.run(56_000, &mut vp);
    assert!(t.message_waits());
    t.write_config(0, 0).unwrap();
    vp.slot = Posted::Delivered;
    assert_eq!(t.run(60_000, &mut vp), NEVER);
    assert_eq!(vp.messages.len(), 2);
}

/// Over random registers, delays and slots: nothing comes early, a one-shot timer comes once for each start, a
/// periodic one as often as its period fits unless it is lazy or hopeless, two ticks keep their distance, and saving
/// and restoring changes nothing.
#[test]
fn random() {
    let mut rng = 99;
    for _ in 0..300 {
        let (mut t, mut now) = (Stimers::new(), xorshift(&mut rng) >> 40);
        let lazy = xorshift(&mut rng) % 2 * HV_STIMER_LAZY;
        let period = 1000 + xorshift(&mut rng) % 100_000;
        let start = now;
        t.write_count(2, period);
        t.write_config(2, PERIODIC | lazy | HV_STIMER_ENABLE)
            .unwrap();
        let mut next = t.run(now, &mut Vp::new());
        let (mut ticks, mut last) = (0, now);
        for _ in 0..2000 {
            let one_shot = (xorshift(&mut rng) % 8 == 0).then(|| {
                let due = now + xorshift(&mut rng) % 50_000;
                t.write_config(0, HV_STIMER_AUTO_ENABLE | (ONE_SHOT + 16))
                    .unwrap();
                t.write_count(0, due);
                due
            });
            let mut vp = Vp::new();
            next = t.run(now, &mut vp).min(next);
            assert!(next > now || t.run(now, &mut Vp::new()) > now);
            let fired = vp.interrupts.iter().filter(|&&v| v == 0x41).count();
            assert!(one_shot.is_none_or(|due| fired == usize::from(due <= now)));
            // What a restored timer does not know is when the last tick of one that catches up was.
            if t.save().timers[2].adjustment >= now + period.max(1000) / 2 {
                t = Stimers::restore(&t.save()).unwrap();
            }
            t.write_count(0, 0);
            let mut vp = Vp::new();
            next = t.run(now, &mut vp);
            assert!(vp.interrupts.is_empty());
            // Sometimes late.
            now = match xorshift(&mut rng) % 10 {
                0 => next + xorshift(&mut rng) % (3 * period),
                1..=4 => now + (next - now) / 2,
                _ => next,
            };
            let mut vp = Vp::new();
            let before = next;
            next = t.run(now, &mut vp);
            assert!(next > now);
            if now < before {
                assert!(vp.interrupts.is_empty());
            } else if let [vector] = vp.interrupts[..] {
                assert_eq!(vector, 0x40);
                assert!(ticks == 0 || now - last >= (period / 2).max(500));
                (ticks, last) = (ticks + 1, now);
            } else {
                assert!(lazy != 0 && vp.interrupts.is_empty());
            }
        }
        assert!(ticks <= (now - start) / period);
        // Let it catch up.
        for _ in 0..200 {
            let mut vp = Vp::new();
            now = next;
            next = t.run(now, &mut vp);
            ticks += vp.interrupts.len() as u64;
        }
        let fit = (now - start) / period;
        assert!(
            if lazy != 0 {
                ticks <= fit
            } else {
                ticks == fit
            },
            "{ticks} of {fit}"
        );
    }
}

/// F-TM3: a second behind is hopeless; the raster stays.
#[test]
fn hopeless() {
    let (mut t, mut vp) = (Stimers::new(), Vp::new());
    t.write_count(0, 1000);
    t.write_config(0, PERIODIC | HV_STIMER_ENABLE).unwrap();
    t.run(300, &mut vp);
    assert_eq!(t.run(100_000_000, &mut vp), 100_000_500);
    assert_eq!(t.run(100_000_500, &mut vp), 100_001_300);
    assert_eq!(vp.interrupts.len(), 2);
}

/// No register value makes it panic, or run more than once for one time.
#[test]
fn hostile() {
    let mut rng = 5;
    let mut t = Stimers::new();
    for _ in 0..200_000 {
        let value = match xorshift(&mut rng) % 4 {
            0 => xorshift(&mut rng),
            1 => xorshift(&mut rng) & 0xf_1fff,
            2 => u64::MAX - xorshift(&mut rng) % 3,
            _ => xorshift(&mut rng) % 3,
        };
        let timer = (xorshift(&mut rng) % 5) as u8;
        if xorshift(&mut rng) % 2 == 0 {
            let _ = t.write_config(timer, value);
        } else {
            t.write_count(timer, value);
        }
        let now = match xorshift(&mut rng) % 3 {
            0 => u64::MAX - xorshift(&mut rng) % 1000,
            _ => xorshift(&mut rng),
        };
        let mut vp = Vp::new();
        vp.slot = match xorshift(&mut rng) % 3 {
            0 => Posted::Busy,
            1 => Posted::Off,
            _ => Posted::Delivered,
        };
        let next = t.run(now, &mut vp);
        assert!(next > now || next == NEVER, "{next} at {now}: {t:?}");
        assert!(vp.interrupts.len() <= 4 && vp.messages.len() <= 4);
        assert!(Stimers::restore(&t.save()).is_ok());
    }
}

/// A VMM cannot restore what a guest could not have set.
#[test]
fn restore_checks() {
    let mut state = HvSyntheticTimersState::ZERO;
    state.timers[1].config = 1 << 20;
    assert!(Stimers::restore(&state).is_err());
    state.timers[1].config = HV_STIMER_ENABLE | (1 << HV_STIMER_SINT_SHIFT);
    state.timers[1].count = 77;
    state.timers[1].flags = HV_STIMER_UNDELIVERED;
    state.timers[1].undelivered_exp_time = 50;
    let mut t = Stimers::restore(&state).unwrap();
    assert_eq!(t.save().timers[1], state.timers[1]);
    let mut vp = Vp::new();
    t.run(60, &mut vp);
    assert_eq!(vp.messages[0].1.expiration_time, 50);
}
