// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Monitored notifications (F-SY11): a page that two partitions share, with 4 groups of 32 triggers. The one that sends sets
//! bits of `Pending`; the hypervisor looks at them now and then, and signals the event that belongs to a bit, as
//! HvCallSignalEvent would, without an exit of the sender's.
//!
//! A trigger that is seen is first armed, and signalled when it is seen again, so that it waits for at least the latency
//! and a batch can build up behind it. Both partitions write the page as they like: every word of it is judged when read.

use crate::port::SignalEvent;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hvdef::{
    HV_MONITOR_GROUPS, HV_MONITOR_LATENCY_WORD, HV_MONITOR_PARAMETER_WORD, HV_MONITOR_TRIGGERS,
};

/// A monitor page, as 32-bit words.
pub type MonitorPage = [AtomicU32; 1024];

/// Latency where the page says nothing: 100 µs, in 100 ns.
pub const DEFAULT_LATENCY_100NS: u64 = 1000;
/// No shorter one is followed: 50 µs.
pub const LEAST_LATENCY_100NS: u64 = 500;

/// Words of a group: pending and armed.
const GROUPS_WORD: usize = 2;

fn word(page: &MonitorPage, at: usize) -> u32 {
    page.get(at).map_or(0, |w| w.load(Ordering::Relaxed))
}

/// Groups that are enabled, as bits.
fn enabled(page: &MonitorPage) -> u32 {
    word(page, 0) & ((1 << HV_MONITOR_GROUPS) - 1)
}

/// Whether a group is enabled at all; without one there is nothing to look at.
pub fn is_enabled(page: &MonitorPage) -> bool {
    enabled(page) != 0
}

/// Time until the page is to be looked at again: the lowest latency in the groups that are enabled, in 100 ns.
pub fn latency_100ns(page: &MonitorPage) -> u64 {
    let enabled = enabled(page);
    let mut least = u64::MAX;
    for group in (0..HV_MONITOR_GROUPS).filter(|g| (enabled >> g) & 1 != 0) {
        // Two latencies in each word.
        let first = HV_MONITOR_LATENCY_WORD + group * HV_MONITOR_TRIGGERS / 2;
        for at in first..first + HV_MONITOR_TRIGGERS / 2 {
            let both = word(page, at);
            for latency in [both & 0xffff, both >> 16] {
                if latency != 0 {
                    least = least.min(u64::from(latency));
                }
            }
        }
    }
    match least {
        u64::MAX => DEFAULT_LATENCY_100NS,
        least => least.max(LEAST_LATENCY_100NS),
    }
}

/// Whether a trigger waits in a group that is enabled.
pub fn waits(page: &MonitorPage) -> bool {
    let enabled = enabled(page);
    (0..HV_MONITOR_GROUPS).any(|g| (enabled >> g) & 1 != 0 && word(page, GROUPS_WORD + 2 * g) != 0)
}

/// Looks at the page once: arms what is new, and gives `signal` what fires.
pub fn scan(page: &MonitorPage, mut signal: impl FnMut(SignalEvent)) {
    let enabled = enabled(page);
    for group in (0..HV_MONITOR_GROUPS).filter(|g| (enabled >> g) & 1 != 0) {
        let at = GROUPS_WORD + 2 * group;
        let (Some(pending), Some(armed)) = (page.get(at), page.get(at + 1)) else {
            return;
        };
        let now = pending.load(Ordering::Acquire);
        if now == 0 {
            continue;
        }
        let fire = now & armed.load(Ordering::Relaxed);
        armed.store(now & !fire, Ordering::Relaxed);
        // One that is set again before this is signalled by this, which comes later.
        pending.fetch_and(!fire, Ordering::AcqRel);
        let mut rest = fire;
        while rest != 0 {
            let trigger = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let parameter = HV_MONITOR_PARAMETER_WORD + 2 * (group * HV_MONITOR_TRIGGERS + trigger);
            let (connection, flag) = (word(page, parameter), word(page, parameter + 1));
            signal(SignalEvent::new(connection, flag));
        }
    }
}

/// When the pages of a partition are looked at next, by whichever of its VPs comes first.
#[derive(Debug)]
pub struct MonitorSchedule {
    /// TSC; [`u64::MAX`]: there are none.
    due: AtomicU64,
}

impl MonitorSchedule {
    /// There are no pages.
    pub const fn new() -> Self {
        Self {
            due: AtomicU64::new(u64::MAX),
        }
    }

    /// Pages came or went.
    pub fn set(&self, any: bool) {
        let due = if any { 0 } else { u64::MAX };
        self.due.store(due, Ordering::SeqCst);
    }

    /// TSC when it is time; [`u64::MAX`]: never.
    #[inline]
    pub fn due(&self) -> u64 {
        self.due.load(Ordering::SeqCst)
    }

    /// Whether the caller is the one that looks now; until it says when again, in a millisecond at most, nobody else does.
    pub fn claim(&self, now: u64, tsc_khz: u64) -> bool {
        let due = self.due();
        let later = now.saturating_add(tsc_khz);
        due != u64::MAX
            && due <= now
            && self
                .due
                .compare_exchange(due, later, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    /// After a look: the next one is due at `next`, unless the pages went meanwhile.
    pub fn next(&self, next: u64) {
        let _ = self
            .due
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |due| {
                (due != u64::MAX).then_some(next.min(u64::MAX - 1))
            });
    }
}

impl Default for MonitorSchedule {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::xorshift;
    use std::boxed::Box;
    use std::vec::Vec;

    fn page() -> Box<MonitorPage> {
        Box::new([const { AtomicU32::new(0) }; 1024])
    }

    fn set(page: &MonitorPage, byte: usize, value: u32) {
        page[byte / 4].store(value, Ordering::Relaxed);
    }

    fn scanned(page: &MonitorPage) -> Vec<SignalEvent> {
        let mut events = Vec::new();
        scan(page, |event| events.push(event));
        events
    }

    /// F-SY11: first armed, then signalled, with the parameters of its trigger.
    #[test]
    fn twice_seen() {
        let p = page();
        set(&p, 0, 1 << 2);
        // Group 2, trigger 5.
        set(&p, 8 + 8 * 2, 1 << 5);
        set(&p, 0x440 + 8 * (2 * 32 + 5), 77);
        set(&p, 0x444 + 8 * (2 * 32 + 5), 9);
        assert!(waits(&p));
        assert_eq!(scanned(&p), []);
        assert_eq!(p[2 + 2 * 2 + 1].load(Ordering::Relaxed), 1 << 5, "armed");
        assert_eq!(scanned(&p), [SignalEvent::new(77, 9)]);
        assert!(!waits(&p));
        assert_eq!(scanned(&p), []);
        // Once more: it is deferred again.
        set(&p, 8 + 8 * 2, 1 << 5);
        assert_eq!(scanned(&p), []);
        assert_eq!(scanned(&p).len(), 1);
    }

    #[test]
    fn disabled_groups_wait() {
        let p = page();
        set(&p, 8, !0);
        assert!(!waits(&p) && !is_enabled(&p));
        assert_eq!(scanned(&p).len() + scanned(&p).len(), 0);
        set(&p, 0, 0xffff_fff0);
        assert!(!is_enabled(&p), "reserved bits");
        set(&p, 0, 1);
        scan(&p, |_| ());
        assert_eq!(scanned(&p).len(), 32);
    }

    #[test]
    fn lowest_latency() {
        let p = page();
        set(&p, 0, 0b1001);
        assert_eq!(latency_100ns(&p), DEFAULT_LATENCY_100NS);
        // Group 3, triggers 30 and 31.
        set(&p, 0x240 + 2 * (3 * 32 + 30), 3000 | (2000 << 16));
        assert_eq!(latency_100ns(&p), 2000);
        // Group 1 is not enabled.
        set(&p, 0x240 + 2 * 32, 700);
        assert_eq!(latency_100ns(&p), 2000);
        set(&p, 0x240, 1);
        assert_eq!(latency_100ns(&p), LEAST_LATENCY_100NS);
    }

    /// Whatever is in the page: no trigger is lost, and none fires that was not set.
    #[test]
    fn random_pages() {
        let mut rng = 11;
        let p = page();
        for word in p.iter() {
            word.store(xorshift(&mut rng) as u32, Ordering::Relaxed);
        }
        set(&p, 0, 0xf);
        for group in 0..4 {
            set(&p, 8 + 8 * group, 0);
        }
        for _ in 0..2000 {
            let bits: [u32; 4] =
                [0; 4].map(|_: u32| (xorshift(&mut rng) & xorshift(&mut rng)) as u32);
            for (group, bits) in bits.iter().enumerate() {
                p[2 + 2 * group].fetch_or(*bits, Ordering::Relaxed);
            }
            let fired = scanned(&p).len() + scanned(&p).len();
            assert_eq!(fired, bits.iter().map(|b| b.count_ones() as usize).sum());
            assert!(!waits(&p));
        }
    }

    #[test]
    fn one_vp_looks() {
        let s = MonitorSchedule::new();
        assert!(!s.claim(u64::MAX, 1000));
        s.set(true);
        assert!(s.claim(5000, 1000));
        assert!(!s.claim(5000, 1000), "the other is at it");
        s.next(7000);
        assert!(!s.claim(6999, 1000));
        assert!(s.claim(7000, 1000));
        s.set(false);
        s.next(8000);
        assert_eq!(s.due(), u64::MAX);
    }
}
