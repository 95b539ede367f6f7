// SPDX-License-Identifier: GPL-2.0 OR MIT

//! When a CPU must INVEPT (SDM 29.4.3.4).
//!
//! INVEPT runs only in a window, on the CPU it is for. So a zap bumps the root's generation, and
//! each CPU compares it with the one that it saw at its last flush when it opens a window.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The flush generation of one EPT root.
pub struct RootGeneration {
    id: u64,
    generation: AtomicU64,
}

impl RootGeneration {
    /// For a new root. `id` is not 0 and is never used again, not even when the root's frame is:
    /// a CPU may still cache translations of the frame's former life.
    pub const fn new(id: u64) -> RootGeneration {
        RootGeneration {
            id,
            generation: AtomicU64::new(1),
        }
    }

    /// Makes every CPU flush before it uses the root again, and returns the new generation. After
    /// the entries were changed, before one looks which VPs are in guest mode.
    #[inline]
    pub fn bump(&self) -> u64 {
        // SeqCst, with the store in GuestMode::enter: either the zap sees the VP in guest mode or
        // the VP sees the new generation.
        self.generation
            .fetch_add(1, Ordering::SeqCst)
            .wrapping_add(1)
    }

    /// The generation now.
    #[inline]
    pub fn current(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// A root that this CPU must flush before it uses it. Made by [`SeenGenerations::check`].
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    id: u64,
    generation: u64,
}

struct Seen {
    id: AtomicU64,
    generation: AtomicU64,
}

/// The generations that one CPU saw at its last flush of each root, for the `SLOTS` roots that
/// it flushed last; a root that fell out is flushed again, which is safe.
///
/// Used only by its CPU, with interrupts off.
pub struct SeenGenerations<const SLOTS: usize> {
    slots: [Seen; SLOTS],
    victim: AtomicUsize,
}

impl<const SLOTS: usize> SeenGenerations<SLOTS> {
    /// Nothing seen: each root is flushed before its first use.
    pub const fn new() -> Self {
        SeenGenerations {
            slots: [const {
                Seen {
                    id: AtomicU64::new(0),
                    generation: AtomicU64::new(0),
                }
            }; SLOTS],
            victim: AtomicUsize::new(0),
        }
    }

    /// Whether this CPU must flush `root`: then do a single-context INVEPT and call
    /// [`SeenGenerations::flushed`] with the answer.
    #[inline]
    pub fn check(&self, root: &RootGeneration) -> Option<Stale> {
        // Read before the flush: what is zapped after this read is found at the next check.
        let generation = root.current();
        let seen = self.slots.iter().any(|seen| {
            seen.id.load(Ordering::Relaxed) == root.id
                && seen.generation.load(Ordering::Relaxed) == generation
        });
        (!seen).then_some(Stale {
            id: root.id,
            generation,
        })
    }

    /// Notes that this CPU flushed the root after the check that gave `stale`.
    pub fn flushed(&self, stale: Stale) {
        let known = self
            .slots
            .iter()
            .find(|s| s.id.load(Ordering::Relaxed) == stale.id);
        let slot = match known {
            Some(slot) => Some(slot),
            None => {
                let victim = self.victim.fetch_add(1, Ordering::Relaxed);
                self.slots.get(victim.checked_rem(SLOTS).unwrap_or(0))
            }
        };
        if let Some(slot) = slot {
            slot.id.store(stale.id, Ordering::Relaxed);
            slot.generation.store(stale.generation, Ordering::Relaxed);
        }
    }

    /// Forgets everything: when the CPU comes online, or the roots' ids are unknown.
    pub fn forget(&self) {
        for seen in &self.slots {
            seen.id.store(0, Ordering::Relaxed);
        }
    }
}

impl<const SLOTS: usize> Default for SeenGenerations<SLOTS> {
    fn default() -> Self {
        Self::new()
    }
}
