// SPDX-License-Identifier: GPL-2.0

//! What other threads may do to a VP: set a bit, post a vector, wake or kick it. The VP's own
//! thread alone changes the VP's state.

use crate::partition::space::Space;
use crate::sys::host;
use crate::sys::pages::Pages;
use crate::sys::sleeper::Sleeper;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use ept::LinearFlush;
use hv1::hypercall::StartSlot;
use hv1::synic::SynicShared;
use kernel::error::Result;
use kernel::prelude::*;
use kernel::sync::Arc;
use vapic::{DestinationView, Trigger};

/// Bits of [`VpShared::events`].
pub(crate) mod event {
    /// Vectors were posted.
    pub(crate) const VECTOR: u32 = 1 << 0;
    /// An NMI.
    pub(crate) const NMI: u32 = 1 << 1;
    /// An INIT.
    pub(crate) const INIT: u32 = 1 << 2;
    /// A start-up IPI; its vector is in `sipi_vector`.
    pub(crate) const SIPI: u32 = 1 << 3;
    /// The sleeper's timer fired.
    pub(crate) const TIMER: u32 = 1 << 4;
    /// An ExtINT was asserted; its vector is in `extint_vector`.
    pub(crate) const EXTINT: u32 = 1 << 5;
    /// The partition's state changed: look at it before the next entry.
    pub(crate) const PARTITION: u32 = 1 << 6;
    /// HvCallStartVirtualProcessor; the context is in `start`.
    pub(crate) const START: u32 = 1 << 7;
    /// A message slot may be free for a message that waits in a port.
    pub(crate) const MESSAGES: u32 = 1 << 8;
}

/// Bits of `VpShared::extint`.
mod extint {
    /// Posted.
    pub(super) const ASSERTED: u32 = 1 << 8;
    /// Taken by the guest.
    pub(super) const ACKNOWLEDGED: u32 = 1 << 9;
}

/// The part of a VP that other threads reach.
pub(crate) struct VpShared {
    /// Bits of [`event`]. Set before the VP is woken or kicked.
    events: Arc<AtomicU32>,
    posted: [AtomicU32; 8],
    posted_level: [AtomicU32; 8],
    sipi_vector: AtomicU32,
    /// HvCallStartVirtualProcessor.
    pub(crate) start: StartSlot,
    /// 0, or bits of [`extint`] with the vector.
    extint: AtomicU32,
    destination: AtomicU64,
    /// A thread is in RUN_VP.
    run: AtomicBool,
    blocked: AtomicBool,
    sleeper: Sleeper,
    /// Linear translations that the VP must forget.
    pub(crate) linear_flush: LinearFlush,
    /// What the SynIC takes.
    pub(crate) synic: SynicShared,
    /// Messages for the VP wait in ports.
    messages_wait: AtomicBool,
    /// Synthetic interrupt message page.
    pub(crate) simp: Pages,
    /// Synthetic interrupt event flags page.
    pub(crate) siefp: Pages,
}

impl VpShared {
    pub(crate) fn new(view: DestinationView) -> Result<Self> {
        let events = Arc::new(AtomicU32::new(0), GFP_KERNEL_ACCOUNT)?;
        let sleeper = Sleeper::new(events.clone(), event::TIMER)?;
        Ok(Self {
            events,
            posted: [const { AtomicU32::new(0) }; 8],
            posted_level: [const { AtomicU32::new(0) }; 8],
            sipi_vector: AtomicU32::new(0),
            start: StartSlot::new(),
            extint: AtomicU32::new(0),
            destination: AtomicU64::new(view.to_bits()),
            run: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            sleeper,
            linear_flush: LinearFlush::new(),
            synic: SynicShared::new(),
            messages_wait: AtomicBool::new(false),
            simp: Pages::new(0)?,
            siefp: Pages::new(0)?,
        })
    }

    /// Whether an event waits.
    #[inline(always)]
    pub(crate) fn has_events(&self) -> bool {
        self.events.load(Ordering::Relaxed) != 0
    }

    /// Takes all events.
    #[inline]
    pub(crate) fn take_events(&self) -> u32 {
        self.events.swap(0, Ordering::AcqRel)
    }

    /// Sets an event; the caller kicks afterwards.
    #[inline]
    pub(crate) fn set_event(&self, bits: u32) {
        // SeqCst, against GuestMode::enter: either the kick sees the VP in guest mode or the VP
        // sees the event.
        self.events.fetch_or(bits, Ordering::SeqCst);
    }

    /// Posts a vector; the caller kicks afterwards.
    #[inline]
    pub(crate) fn post(&self, vector: u8, trigger: Trigger) {
        let words = match trigger {
            Trigger::Edge => &self.posted,
            Trigger::Level => &self.posted_level,
        };
        if let Some(word) = words.get(vector as usize >> 5) {
            word.fetch_or(1 << (vector & 31), Ordering::Relaxed);
        }
        self.set_event(event::VECTOR);
    }

    /// Posts a start-up IPI.
    pub(crate) fn post_sipi(&self, vector: u8) {
        self.sipi_vector.store(u32::from(vector), Ordering::Relaxed);
        self.set_event(event::SIPI);
    }

    /// The vector of the last start-up IPI.
    pub(crate) fn sipi_vector(&self) -> u8 {
        self.sipi_vector.load(Ordering::Relaxed) as u8
    }

    /// Posts an ExtINT. False: the guest has taken the last one, and HvCallClearVirtualInterrupt
    /// must come first.
    pub(crate) fn post_extint(&self, vector: u8) -> bool {
        let asserted = extint::ASSERTED | u32::from(vector);
        let posted = self
            .extint
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
                (old != extint::ACKNOWLEDGED).then_some(asserted)
            })
            .is_ok();
        if posted {
            self.set_event(event::EXTINT);
        }
        posted
    }

    /// The vector of the last ExtINT.
    pub(crate) fn extint_vector(&self) -> u8 {
        self.extint.load(Ordering::Relaxed) as u8
    }

    /// The guest takes the ExtINT.
    #[inline]
    pub(crate) fn acknowledge_extint(&self) {
        self.extint.store(extint::ACKNOWLEDGED, Ordering::Relaxed);
    }

    /// HvCallClearVirtualInterrupt. False: the guest has taken none since the last time.
    pub(crate) fn clear_extint(&self) -> bool {
        let relaxed = Ordering::Relaxed;
        self.extint
            .compare_exchange(extint::ACKNOWLEDGED, 0, relaxed, relaxed)
            .is_ok()
    }

    /// Takes the posted vectors, edge and level.
    #[inline]
    pub(crate) fn take_posted(&self) -> ([u32; 8], [u32; 8]) {
        let take = |words: &[AtomicU32; 8]| {
            let mut taken = [0; 8];
            for (to, from) in taken.iter_mut().zip(words) {
                if from.load(Ordering::Relaxed) != 0 {
                    *to = from.swap(0, Ordering::Relaxed);
                }
            }
            taken
        };
        (take(&self.posted), take(&self.posted_level))
    }

    /// Which messages the VP's local APIC takes.
    #[inline]
    pub(crate) fn destination(&self) -> DestinationView {
        DestinationView::from_bits(self.destination.load(Ordering::Relaxed))
    }

    /// Publishes that.
    #[inline]
    pub(crate) fn set_destination(&self, view: DestinationView) {
        self.destination.store(view.to_bits(), Ordering::Relaxed);
    }

    /// Whether the SynIC takes messages.
    pub(crate) fn takes_messages(&self) -> bool {
        self.synic.takes_messages()
    }

    /// Whether the SynIC takes events.
    pub(crate) fn takes_events(&self) -> bool {
        self.synic.takes_events()
    }

    /// A message waits for a slot of this VP's; the caller tries once more afterwards.
    pub(crate) fn set_messages_wait(&self) {
        self.messages_wait.store(true, Ordering::SeqCst);
    }

    /// Whoever delivers begins.
    pub(crate) fn clear_messages_wait(&self) {
        self.messages_wait.store(false, Ordering::SeqCst);
    }

    /// A slot may be free, or the SynIC changed: the VP's thread is to look (F-SY4).
    #[inline]
    pub(crate) fn rescan_messages(&self) {
        if self.messages_wait.load(Ordering::SeqCst) {
            self.set_event(event::MESSAGES);
        }
    }

    /// RUN_VP begins or ends.
    pub(crate) fn set_run(&self, run: bool) {
        self.run.store(run, Ordering::Relaxed);
    }

    /// Whether a thread is in RUN_VP.
    #[inline]
    pub(crate) fn is_run(&self) -> bool {
        self.run.load(Ordering::Relaxed)
    }

    /// Whether [`Self::kick`] would do anything: if not, the VP looks at its events by itself before it
    /// enters the guest or sleeps.
    #[inline]
    pub(crate) fn needs_kick(&self, space: &Space, index: u32) -> bool {
        self.blocked.load(Ordering::SeqCst)
            || space
                .guest_mode(index)
                .is_some_and(|mode| mode.running_on().is_some())
    }

    /// Makes the VP look at its events: out of guest mode, or awake. Not in guest context.
    pub(crate) fn kick(&self, space: &Space, index: u32) {
        if self.blocked.load(Ordering::SeqCst) {
            self.sleeper.wake();
        } else if let Some(cpu) = space.guest_mode(index).and_then(|m| m.running_on()) {
            if cpu != host::cpu_id() {
                host::kick_cpu(cpu);
            }
        }
    }

    /// Sleeps until an event, a signal (EINTR) or the time-out in ns (u64::MAX: none).
    pub(crate) fn block(&self, timeout_ns: u64) -> Result {
        self.blocked.store(true, Ordering::SeqCst);
        let r = self.sleeper.wait(timeout_ns);
        self.blocked.store(false, Ordering::Relaxed);
        r
    }
}
