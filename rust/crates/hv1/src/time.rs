// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reference time: counter (M-20) and reference TSC page (F-TM9, F-TM10), from one formula, so they always agree.

use hvdef::{HvReferenceTscPage, HV_CLOCK_HZ, HV_REFERENCE_TSC_SEQUENCE_INVALID};

/// Reference time of a partition, as a function of its TSC.
///
/// `time = (tsc * scale >> 64) + offset`. The TSC meant is that of the partition before a VP's own adjustments
/// (IA32_TSC_ADJUST and writes of IA32_TIME_STAMP_COUNTER); freezing a partition's time stops that TSC, and so the
/// counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefTime {
    scale: u64,
    /// TSC ticks in 100 ns, rounded up, with 32 binary digits.
    ticks_q32: u64,
    offset: i64,
    reliable: bool,
}

/// `(high << 64) / divisor`, for `high < divisor`: bit by bit, because the kernel has no 128-bit division.
const fn div_2_64(high: u64, divisor: u64) -> u64 {
    let mut remainder = high;
    let mut quotient = 0;
    let mut bit = 0;
    while bit < 64 {
        let carry = remainder >> 63 != 0;
        remainder <<= 1;
        quotient <<= 1;
        if carry || remainder >= divisor {
            remainder = remainder.wrapping_sub(divisor);
            quotient |= 1;
        }
        bit += 1;
    }
    quotient
}

impl RefTime {
    /// A counter that reads 0 at TSC value `tsc`; `None` if the TSC is not faster than the counter.
    ///
    /// `tsc_reliable`: the TSC runs at that rate for ever and is the same on all CPUs; if not, the page tells the
    /// guest to use the MSR (F-TM10).
    pub const fn new(tsc_hz: u64, tsc: u64, tsc_reliable: bool) -> Option<Self> {
        if tsc_hz <= HV_CLOCK_HZ {
            return None;
        }
        let mut time = Self {
            scale: div_2_64(HV_CLOCK_HZ, tsc_hz),
            ticks_q32: ((tsc_hz / HV_CLOCK_HZ) << 32)
                | (((tsc_hz % HV_CLOCK_HZ) << 32) / HV_CLOCK_HZ + 1),
            offset: 0,
            reliable: tsc_reliable,
        };
        time.offset = time.offset_for(tsc, 0);
        Some(time)
    }

    /// 100 ns per TSC tick as a 64-bit binary fraction.
    #[inline(always)]
    pub const fn scale(&self) -> u64 {
        self.scale
    }

    #[inline(always)]
    const fn scaled(&self, tsc: u64) -> u64 {
        ((tsc as u128 * self.scale as u128) >> 64) as u64
    }

    const fn offset_for(&self, tsc: u64, time: u64) -> i64 {
        time.wrapping_sub(self.scaled(tsc)) as i64
    }

    /// The reference counter at TSC value `tsc`, in units of 100 ns.
    #[inline(always)]
    pub const fn now_100ns(&self, tsc: u64) -> u64 {
        self.scaled(tsc).wrapping_add(self.offset as u64)
    }

    /// This counter, ahead by `moved_100ns` (property `HV_PARTITION_PROPERTY_REFERENCE_TIME`).
    pub const fn moved(&self, moved_100ns: u64) -> Self {
        Self {
            offset: self.offset.wrapping_add(moved_100ns as i64),
            ..*self
        }
    }

    /// TSC ticks from TSC value `tsc` on after which the counter has reached `time`: at least so many, and hardly more.
    /// 0: it has.
    #[inline]
    pub const fn ticks_until(&self, tsc: u64, time: u64) -> u64 {
        self.ticks_in(time.saturating_sub(self.now_100ns(tsc)))
    }

    /// TSC ticks in which at least `time_100ns` pass, and hardly more.
    pub const fn ticks_in(&self, time_100ns: u64) -> u64 {
        if time_100ns == 0 {
            return 0;
        }
        let ticks = (time_100ns as u128 * self.ticks_q32 as u128) >> 32;
        if ticks >= u64::MAX as u128 {
            u64::MAX
        } else {
            ticks as u64 + 1
        }
    }

    /// Contents of the reference TSC page. When it is written anew, `sequence` is [`next_sequence`] of the old one.
    pub const fn page(&self, sequence: u32) -> HvReferenceTscPage {
        HvReferenceTscPage {
            tsc_sequence: if self.reliable {
                sequence
            } else {
                HV_REFERENCE_TSC_SEQUENCE_INVALID
            },
            reserved1: 0,
            tsc_scale: self.scale,
            tsc_offset: self.offset,
        }
    }
}

/// The page's next sequence; the two values that mean "not valid" are left out (correction E6).
pub const fn next_sequence(sequence: u32) -> u32 {
    match sequence.wrapping_add(1) {
        HV_REFERENCE_TSC_SEQUENCE_INVALID | u32::MAX => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::xorshift;

    /// What a guest computes from the page.
    fn from_page(p: &HvReferenceTscPage, tsc: u64) -> u64 {
        (((u128::from(tsc) * u128::from(p.tsc_scale)) >> 64) as u64)
            .wrapping_add(p.tsc_offset as u64)
    }

    /// The scale is the exact quotient rounded down, for rates from 10 MHz to 10 GHz.
    #[test]
    fn scale_is_exact() {
        let mut rng = 7;
        for _ in 0..20_000 {
            let hz = HV_CLOCK_HZ + 1 + xorshift(&mut rng) % 10_000_000_000;
            let t = RefTime::new(hz, 0, true).unwrap();
            assert_eq!(
                u128::from(t.scale()),
                (u128::from(HV_CLOCK_HZ) << 64) / u128::from(hz)
            );
        }
        assert_eq!(div_2_64(u64::MAX - 1, u64::MAX), u64::MAX - 1);
        assert!(RefTime::new(HV_CLOCK_HZ, 0, true).is_none());
        assert!(RefTime::new(0, 0, true).is_none());
    }

    /// F-TM1: never early, and late by less than a unit and a billionth of the way.
    #[test]
    fn ticks_until() {
        let mut rng = 3;
        for _ in 0..20_000 {
            let hz = HV_CLOCK_HZ + 1 + xorshift(&mut rng) % 10_000_000_000;
            let tsc = xorshift(&mut rng) >> 4;
            let t = RefTime::new(hz, tsc - tsc % 1000, true).unwrap();
            let way = xorshift(&mut rng) >> (24 + xorshift(&mut rng) % 40);
            let time = t.now_100ns(tsc) + way;
            let ticks = t.ticks_until(tsc, time);
            let then = t.now_100ns(tsc + ticks);
            assert!(then >= time, "{then} before {time} at {hz} Hz");
            assert!(
                then <= time + 1 + way / 1_000_000_000,
                "{then} after {time}"
            );
            assert_eq!(t.ticks_until(tsc, time - way), 0);
        }
        let t = RefTime::new(20_000_000_000, 0, true).unwrap();
        assert_eq!(t.ticks_until(0, u64::MAX), u64::MAX);
    }

    /// A year at 3 GHz is off by less than a microsecond.
    #[test]
    fn accuracy() {
        let hz = 3_000_000_000;
        let year = 365 * 86_400;
        let t = RefTime::new(hz, 0, true).unwrap();
        let got = t.now_100ns(hz * year);
        assert!(HV_CLOCK_HZ * year - got <= 10, "{got}");
    }

    #[test]
    fn starts_at_zero() {
        for start in [0, 1, 12_345_678_901, u64::MAX / 3] {
            let t = RefTime::new(2_400_000_000, start, true).unwrap();
            assert_eq!(t.now_100ns(start), 0);
            assert_eq!(
                t.now_100ns(start + 2_400_000_000) / 10,
                1_000_000 - u64::from(t.now_100ns(start + 2_400_000_000) < 10_000_000)
            );
        }
    }

    /// M-20, F-TM9, F-TM10: over random sequences of running and moving, the counter never goes back, and the page, when
    /// valid, says the same.
    #[test]
    fn monotone() {
        let mut rng = 42;
        for round in 0..200 {
            let hz = 20_000_000 + xorshift(&mut rng) % 5_000_000_000;
            let mut tsc = xorshift(&mut rng) >> 8;
            let mut t = RefTime::new(hz, tsc, round % 2 == 0).unwrap();
            let mut last = 0;
            for _ in 0..300 {
                match xorshift(&mut rng) % 4 {
                    0 => t = t.moved(xorshift(&mut rng) % 1000),
                    _ => tsc += xorshift(&mut rng) % hz,
                }
                let now = t.now_100ns(tsc);
                assert!(now >= last, "{now} after {last}");
                last = now;
                let page = t.page(7);
                assert_eq!(page.tsc_sequence, if round % 2 == 0 { 7 } else { 0 });
                assert_eq!(from_page(&page, tsc), now);
            }
        }
    }

    /// E6: the sequence never becomes 0 or 0xffffffff by counting.
    #[test]
    fn sequence_skips_the_invalid() {
        assert_eq!(next_sequence(1), 2);
        assert_eq!(next_sequence(u32::MAX - 2), u32::MAX - 1);
        assert_eq!(next_sequence(u32::MAX - 1), 1);
        assert_eq!(next_sequence(u32::MAX), 1);
        assert_eq!(next_sequence(0), 1);
    }
}
