// SPDX-License-Identifier: GPL-2.0

//! The time-unhalted timer of a VP: `hv1` decides, here are run time, local APIC and VP assist page.

use super::core::VpCore;
use crate::partition::clock::Clock;
use core::mem::offset_of;
use hv1::unhalted::Expiration;
use hvdef::HvVpAssistPage;
use vapic::Trigger;

impl VpCore {
    /// Takes over when the timer is due, at host TSC `now`: outside of windows never, because run time stands still.
    pub(super) fn follow_unhalted_timer(&mut self, now: u64, time: &Clock) {
        let run_time = time.ticks_100ns(self.runtime_at(now));
        self.unhalted_tsc = match self.synthetic.unhalted.due(run_time) {
            Some(due) if self.window_tsc != 0 => {
                let left = time.ticks_in(due.saturating_sub(run_time));
                now.saturating_add(left).min(u64::MAX - 1)
            }
            _ => u64::MAX,
        };
        self.update_timer();
    }

    /// Expires it if it is due at host TSC `now`.
    pub(super) fn run_unhalted_timer(&mut self, now: u64, time: &Clock) {
        let run_time = time.ticks_100ns(self.runtime_at(now));
        if let Some(expiration) = self.synthetic.unhalted.expire(run_time) {
            if self.synthetic.has_assist_page() {
                let at = offset_of!(HvVpAssistPage, synthetic_time_unhalted_timer_expired);
                self.assist_page.write_shared(at, &1u8);
            }
            match expiration {
                Expiration::Nmi => self.nmi_pending = true,
                // An APIC that takes none loses it, as any other.
                Expiration::Interrupt(vector) => {
                    let _ = self.lapic.accept(vector, Trigger::Edge);
                }
            }
        }
        self.follow_unhalted_timer(now, time);
    }
}
