// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The synthetic time-unhalted timer of a VP (M-114, F-TM16), which profilers use: it interrupts each time the VP has
//! executed for so long. Its time is the VP's run time in units of 100 ns, which stands still in HLT.

use crate::msr::MsrError;
use hvdef::{HV_UNHALTED_TIMER_ENABLED, HV_UNHALTED_TIMER_RESERVED, HV_UNHALTED_TIMER_VECTOR};

/// Vector of an NMI.
const NMI: u8 = 2;
/// Two interrupts are at least this far apart: a guest must get on between them.
const SHORTEST_100NS: u64 = 500;

/// What an expiration raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiration {
    /// An NMI.
    Nmi,
    /// A fixed, edge-triggered interrupt.
    Interrupt(u8),
}

/// The timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnhaltedTimer {
    config: u64,
    count: u64,
    /// Run time of the next expiration; `None`: not known yet.
    due: Option<u64>,
}

impl UnhaltedTimer {
    /// State after creation and reset.
    pub const fn new() -> Self {
        Self {
            config: 0,
            count: 0,
            due: None,
        }
    }

    /// HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG.
    pub const fn config(&self) -> u64 {
        self.config
    }

    /// HV_X64_MSR_STIME_UNHALTED_TIMER_COUNT: the period in 100 ns.
    pub const fn count(&self) -> u64 {
        self.count
    }

    const fn vector(&self) -> u8 {
        (self.config & HV_UNHALTED_TIMER_VECTOR) as u8
    }

    /// Writes the configuration; a period begins. The vector is judged only where the timer is enabled, for 0 disables it.
    ///
    /// # Errors
    ///
    /// A reserved bit; a vector below 16 that is not the NMI's.
    pub const fn write_config(&mut self, value: u64) -> Result<(), MsrError> {
        let vector = (value & HV_UNHALTED_TIMER_VECTOR) as u8;
        let enabled = value & HV_UNHALTED_TIMER_ENABLED != 0;
        if value & HV_UNHALTED_TIMER_RESERVED != 0 || enabled && vector != NMI && vector < 16 {
            return Err(MsrError::GeneralProtection);
        }
        self.config = value;
        self.due = None;
        Ok(())
    }

    /// Writes the period; it begins.
    pub const fn write_count(&mut self, value: u64) {
        self.count = value;
        self.due = None;
    }

    /// Whether it runs while the VP does.
    pub const fn runs(&self) -> bool {
        self.config & HV_UNHALTED_TIMER_ENABLED != 0 && self.count != 0
    }

    /// The run time of the next expiration, if one is to come; at run time `now` a period begins if none has.
    pub fn due(&mut self, now: u64) -> Option<u64> {
        if !self.runs() {
            return None;
        }
        Some(*self.due.get_or_insert(now.saturating_add(self.period())))
    }

    fn period(&self) -> u64 {
        self.count.max(SHORTEST_100NS)
    }

    /// Expires at run time `now` if it is due. Periods that were missed are left out.
    pub fn expire(&mut self, now: u64) -> Option<Expiration> {
        let due = self.due(now).filter(|due| *due <= now)?;
        let period = self.period();
        let missed = (now - due) / period;
        self.due = Some(due.saturating_add((missed + 1).saturating_mul(period)));
        Some(match self.vector() {
            NMI => Expiration::Nmi,
            vector => Expiration::Interrupt(vector),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(config: u64, count: u64) -> UnhaltedTimer {
        let mut timer = UnhaltedTimer::new();
        timer.write_config(config).unwrap();
        timer.write_count(count);
        timer
    }

    #[test]
    fn vectors() {
        let mut timer = UnhaltedTimer::new();
        for vector in 0..256 {
            let legal = vector == 2 || vector >= 16;
            let result = timer.write_config(vector | HV_UNHALTED_TIMER_ENABLED);
            assert_eq!(result.is_ok(), legal, "{vector}");
            timer.write_config(vector).unwrap();
        }
        for bit in 9..64 {
            assert!(timer.write_config(1 << bit).is_err());
        }
        assert_eq!(timer.config(), 255);
    }

    #[test]
    fn periods() {
        let mut t = timer(0x40 | HV_UNHALTED_TIMER_ENABLED, 10_000);
        assert_eq!(t.due(5), Some(10_005));
        assert_eq!(t.expire(10_004), None);
        assert_eq!(t.expire(10_005), Some(Expiration::Interrupt(0x40)));
        assert_eq!(t.due(10_005), Some(20_005));
        assert_eq!(t.expire(45_000), Some(Expiration::Interrupt(0x40)));
        assert_eq!(t.due(45_000), Some(50_005));
        t.write_count(20_000);
        assert_eq!(t.due(50_000), Some(70_000));
        t.write_config(2).unwrap();
        assert_eq!((t.due(80_000), t.expire(80_000)), (None, None));
        t.write_config(2 | HV_UNHALTED_TIMER_ENABLED).unwrap();
        assert_eq!(t.due(80_000), Some(100_000));
        assert_eq!(t.expire(u64::MAX), Some(Expiration::Nmi));
    }

    #[test]
    fn without_a_period_it_does_not_run() {
        let mut t = timer(0x40 | HV_UNHALTED_TIMER_ENABLED, 0);
        assert_eq!((t.due(0), t.expire(u64::MAX)), (None, None));
        t.write_count(1);
        assert_eq!(t.due(0), Some(SHORTEST_100NS));
        t.write_count(u64::MAX);
        assert_eq!(t.due(7), Some(u64::MAX));
    }
}
