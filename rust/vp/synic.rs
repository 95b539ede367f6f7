// SPDX-License-Identifier: GPL-2.0

//! SynIC and synthetic timers of a VP: `hv1` decides, here are clock, pages and local APIC.

use super::core::VpCore;
use super::shared::VpShared;
use crate::partition::clock::Clock;
use crate::partition::Partition;
use crate::sys::pages::PageBox;
use core::sync::atomic::Ordering;
use hv1::stimer::{Posted, Sink, NEVER};
use hv1::synic::Outcome;
use hv1::OverlayKind;
use hvdef::{HvTimerMessagePayload, Wire, HVMSG_TIMER_EXPIRED};
use vapic::{ApicPage, Lapic, Trigger};

/// Where the timers' expirations go.
struct Target<'a> {
    shared: &'a VpShared,
    lapic: &'a mut Lapic<PageBox<ApicPage>>,
}

impl Sink for Target<'_> {
    fn interrupt(&mut self, vector: u8) {
        // An APIC that takes none loses it, as any other.
        let _ = self.lapic.accept(vector, Trigger::Edge);
    }

    fn message(&mut self, sint: u8, payload: &HvTimerMessagePayload) -> Posted {
        let mut bytes = [0; HvTimerMessagePayload::SIZE];
        let _ = payload.write(&mut bytes);
        let page = self.shared.simp.words();
        let synic = &self.shared.synic;
        match synic.post(page, sint, HVMSG_TIMER_EXPIRED, 0, &bytes) {
            Outcome::Interrupt(vector) => {
                self.interrupt(vector);
                Posted::Delivered
            }
            Outcome::Silent => Posted::Delivered,
            Outcome::Busy => Posted::Busy,
            Outcome::Off => Posted::Off,
        }
    }
}

impl VpCore {
    /// Expires what is due of the synthetic timers at host TSC `now`, and delivers messages that wait.
    pub(super) fn run_stimers(&mut self, now: u64, time: &Clock, shared: &VpShared) {
        let tsc = self.partition_tsc(now);
        let mut target = Target {
            shared,
            lapic: &mut self.lapic,
        };
        let next = self.synthetic.stimers.run(time.now_100ns(tsc), &mut target);
        self.stimer_tsc = if next == NEVER {
            u64::MAX
        } else {
            let left = time.ticks_until(tsc, next);
            now.saturating_add(left).min(u64::MAX - 1)
        };
    }

    /// [`Self::run_stimers`] before the next entry: registers were written, or a message slot may be free.
    #[inline]
    pub(crate) fn run_stimers_soon(&mut self) {
        self.stimer_tsc = 0;
        self.timer_tsc = 0;
    }

    /// The SynIC's registers were written.
    pub(crate) fn synic_changed(&mut self, shared: &VpShared) {
        shared.synic.publish(&self.synthetic.synic);
        shared.rescan_messages();
        self.run_stimers_soon();
    }

    /// The synthetic registers as after RESET, when nothing waits for the VP and its pages are zero (F-OV6). Not in a
    /// window.
    pub(super) fn reset_synthetic(&mut self, partition: &Partition, shared: &VpShared, index: u32) {
        self.synthetic = hv1::msr::VpState::new();
        self.npiep_changed = true;
        for kind in [
            OverlayKind::VpAssistPage,
            OverlayKind::Simp,
            OverlayKind::Siefp,
            OverlayKind::Stats,
            OverlayKind::InternalStats,
        ] {
            self.place_overlay(partition, shared, kind, None);
        }
        partition.forget_messages(index);
        for page in [&self.assist_page, &shared.simp, &shared.siefp] {
            for word in page.words() {
                word.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Shows an overlay page of the VP at page `gpn`, or nowhere. Not in a window.
    pub(super) fn place_overlay(
        &mut self,
        partition: &Partition,
        shared: &VpShared,
        kind: OverlayKind,
        gpn: Option<u64>,
    ) {
        let page = match kind {
            OverlayKind::VpAssistPage => self.assist_page.phys(),
            OverlayKind::Simp => shared.simp.phys(),
            OverlayKind::Siefp => shared.siefp.phys(),
            OverlayKind::Stats => self.stats.pages().phys(0),
            OverlayKind::InternalStats => self.stats.pages().phys(1),
            // The partition's, or none.
            OverlayKind::HypercallPage
            | OverlayKind::ReferenceTsc
            | OverlayKind::ApicPage
            | OverlayKind::Monitor => return,
        };
        partition.place_page(page, kind, gpn);
        self.synic_changed(shared);
    }
}
