// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Flushes of linear translations that one VP of a guest asks another VP for.
//!
//! The asker changed page tables and must not go on before no VP uses old translations. The VP
//! that is asked executes INVVPID (SDM 31.3) itself, before its next guest instruction. So only a
//! VP in guest mode must be kicked and waited for; one that does not run is left alone. What a VP
//! left behind on CPUs where it ran before is flushed when it comes back ([`crate::Placement`]).

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::guest_mode::GuestMode;

/// Pages that wait for their INVVPID one by one.
const SLOTS: usize = 16;
const EMPTY: u64 = 0;
/// In a slot, where page addresses have zeros: it is in use.
const IN_USE: u64 = 1;

/// What one VP still has to flush.
pub struct LinearFlush {
    /// Counts requests. Raised after what is to be flushed was noted below.
    requested: AtomicU64,
    /// The count up to which the VP has flushed.
    done: AtomicU64,
    everything: AtomicBool,
    pages: [AtomicU64; SLOTS],
}

impl LinearFlush {
    /// Nothing to flush.
    pub const fn new() -> LinearFlush {
        LinearFlush {
            requested: AtomicU64::new(0),
            done: AtomicU64::new(0),
            everything: AtomicBool::new(false),
            pages: [const { AtomicU64::new(EMPTY) }; SLOTS],
        }
    }

    /// Asks the VP to forget the pages at these addresses; `None`: everything.
    ///
    /// Afterwards the caller looks whether the VP is in guest mode, and if so calls [`finish`].
    #[inline]
    pub fn request(&self, pages: Option<&[u64]>) {
        let noted = match pages {
            Some(pages) => pages.iter().all(|page| self.note(page & !0xfff | IN_USE)),
            None => false,
        };
        if !noted {
            self.everything.store(true, Ordering::Relaxed);
        }
        // SeqCst, against GuestMode::enter: either the asker sees the VP in guest mode or the VP
        // sees the request.
        self.requested.fetch_add(1, Ordering::SeqCst);
    }

    fn note(&self, page: u64) -> bool {
        self.pages.iter().any(|slot| {
            match slot.compare_exchange(EMPTY, page, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => true,
                // Noted already, and not yet flushed.
                Err(other) => other == page,
            }
        })
    }

    /// Whether [`LinearFlush::take`] has something to do. After guest mode was announced, before
    /// each entry.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.requested.load(Ordering::SeqCst) != self.done.load(Ordering::Relaxed)
    }

    /// Does what was asked for, by `invalidate` of one page's address or (`None`) of everything.
    /// By the VP's thread, on the CPU where it runs.
    pub fn take(&self, mut invalidate: impl FnMut(Option<u64>)) {
        // Before the notes are read: what is noted later is counted later.
        let requested = self.requested.load(Ordering::SeqCst);
        let everything = self.everything.swap(false, Ordering::Relaxed);
        for slot in &self.pages {
            if slot.load(Ordering::Relaxed) != EMPTY {
                let page = slot.swap(EMPTY, Ordering::Relaxed);
                if !everything {
                    invalidate(Some(page & !IN_USE));
                }
            }
        }
        if everything {
            // After the slots were emptied: pages noted before that are part of everything.
            invalidate(None);
        }
        self.done.store(requested, Ordering::Release);
    }

    /// What was requested so far, for [`LinearFlush::is_finished`].
    #[inline]
    pub fn requested(&self) -> u64 {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether the VP has flushed all of `requested`, or is out of guest mode, so that it will
    /// before its next guest instruction.
    #[inline]
    pub fn is_finished(&self, requested: u64, mode: &GuestMode) -> bool {
        let ahead = self.done.load(Ordering::Acquire).wrapping_sub(requested);
        ahead <= u64::MAX / 2 || mode.running_on().is_none()
    }
}

impl Default for LinearFlush {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns when each of `vps` has finished what it was asked for before.
///
/// `kick` makes a CPU leave guest mode and must not wait; `relax` is called while waiting. The
/// caller is out of guest mode: two that ask each other do not wait for each other.
pub fn finish<'a>(
    vps: impl Iterator<Item = (&'a LinearFlush, &'a GuestMode)> + Clone,
    mut kick: impl FnMut(u32),
    mut relax: impl FnMut(),
) {
    for (_, mode) in vps.clone() {
        if let Some(cpu) = mode.running_on() {
            kick(cpu);
        }
    }
    for (flush, mode) in vps {
        // Later requests are their askers' business, who kick, too.
        let requested = flush.requested();
        while !flush.is_finished(requested, mode) {
            relax();
        }
    }
}
