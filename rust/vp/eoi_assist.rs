// SPDX-License-Identifier: GPL-2.0

//! EOIs without an exit (F-AP2): while "no EOI required" is set in the VP assist page, the guest may clear that bit in
//! place of its next EOI, and the local APIC hears of it at the next exit.

use super::core::VpCore;
use super::shared::VpShared;
use core::sync::atomic::{AtomicU32, Ordering};

/// `HV_VP_ASSIST_PAGE.ApicAssist`.
const NO_EOI_REQUIRED: u32 = 1 << 0;

impl VpCore {
    fn apic_assist(&self) -> &AtomicU32 {
        let [apic_assist, ..] = self.assist_page.words();
        apic_assist
    }

    /// Offered for an interrupt on whose end nothing waits. Before an entry, when nothing more is to be injected.
    #[inline]
    pub(super) fn offer_no_eoi(&mut self) {
        if self.synthetic.has_assist_page() && self.lapic.can_skip_eoi() {
            self.eoi_offered = true;
            self.apic_assist()
                .fetch_or(NO_EOI_REQUIRED, Ordering::Relaxed);
        }
    }

    /// The offer ends: the interrupt in service may be another one from here on, or one waits for its end.
    #[inline]
    pub(super) fn withdraw_no_eoi(&mut self) {
        if core::mem::take(&mut self.eoi_offered) {
            self.apic_assist()
                .fetch_and(!NO_EOI_REQUIRED, Ordering::Relaxed);
        }
    }

    /// After an exit with an offer, before anything looks at the local APIC.
    #[inline]
    pub(super) fn take_no_eoi(&mut self, shared: &VpShared) {
        if self.apic_assist().load(Ordering::Relaxed) & NO_EOI_REQUIRED == 0 {
            self.eoi_offered = false;
            // It was edge-triggered: there is nobody to tell.
            let _ = self.lapic.eoi();
            self.interrupt_ended(shared);
        }
    }

    /// F-SY4: a message that waits for its slot is looked at again.
    #[inline]
    pub(super) fn interrupt_ended(&mut self, shared: &VpShared) {
        if self.synthetic.stimers.message_waits() {
            self.run_stimers_soon();
        }
        shared.rescan_messages();
    }
}
