// SPDX-License-Identifier: GPL-2.0

//! Monitored notifications (F-SY11): the pages by which this partition's guest sends are looked at by its VPs' threads, each
//! time that the lowest latency has passed: nobody else can set a trigger there but them and the receiver. While all of them
//! sleep, nothing is looked at but what already waits.

use super::ports::MOST_MONITORS;
use super::Partition;
use crate::sys::host;
use crate::sys::pages::Pages;
use crate::vp::shared::event;
use hv1::monitor;
use hvdef::HvPartitionPrivilege;
use kernel::sync::Arc;

/// How often pages are looked at in which no group is enabled: 10 ms, in 100 ns.
const IDLE_100NS: u64 = 100_000;

impl Partition {
    /// Connections to monitor ports came or went: tells the VPs.
    pub(super) fn watch_monitors(&self) {
        let connections = self.connections.lock();
        let any = connections.iter().any(|c| c.monitor().is_some());
        if !any && self.monitors.due() == u64::MAX {
            return;
        }
        self.monitors.set(any);
        drop(connections);
        for (index, vp) in self.shared_vps() {
            vp.set_event(event::PARTITION);
            vp.kick(&self.memory.space, index);
        }
    }

    /// The pages, without a lock.
    fn monitor_pages(&self) -> [Option<Arc<Pages>>; MOST_MONITORS] {
        let mut pages = [const { None }; MOST_MONITORS];
        let connections = self.connections.lock();
        let found = connections.iter().filter_map(|c| c.monitor().cloned());
        for (to, page) in pages.iter_mut().zip(found) {
            *to = Some(page);
        }
        pages
    }

    /// Looks at the pages at host TSC `now`, if it is time and no other VP does; when to come again ([`u64::MAX`]: there are
    /// none).
    pub(crate) fn look_at_monitors(&self, now: u64) -> u64 {
        let khz = u64::from(host::tsc_khz());
        if self.monitors.claim(now, khz) {
            let may = self.config().is_ok_and(|c| {
                c.features
                    .privileges
                    .contains(HvPartitionPrivilege::SIGNAL_EVENTS)
            });
            let mut latency = IDLE_100NS;
            for page in self.monitor_pages().iter().flatten() {
                let page = page.words();
                if monitor::is_enabled(page) {
                    latency = latency.min(monitor::latency_100ns(page));
                }
                // As if the guest had made the call, and did not look at the status.
                monitor::scan(page, |event| {
                    if may {
                        let _ = self.signal_event(&event);
                    }
                });
            }
            self.monitors
                .next(now.saturating_add(latency * khz / 10_000));
        }
        self.monitors.due()
    }

    /// When a VP that goes to sleep must look again: a trigger may wait.
    pub(crate) fn monitors_due_in_sleep(&self) -> u64 {
        let pages = self.monitor_pages();
        if pages
            .iter()
            .flatten()
            .any(|page| monitor::waits(page.words()))
        {
            self.monitors.due()
        } else {
            u64::MAX
        }
    }
}
