// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether a VP is in guest mode: what a zap waits for.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::generation::{Fresh, RootGeneration};

const OUT: u32 = u32::MAX;

/// On which CPU a VP is in guest mode, if it is. Stored by the VP's CPU, read by those who zap.
pub struct GuestMode(AtomicU32);

impl GuestMode {
    /// Not in guest mode.
    pub const fn new() -> GuestMode {
        GuestMode(AtomicU32::new(OUT))
    }

    /// Announces guest mode and says whether what this CPU flushed is still all that `root` needs.
    /// If not, takes the announcement back: check and flush again.
    ///
    /// Before each entry, also between two entries of one window.
    #[inline]
    pub fn enter(&self, cpu: u32, root: &RootGeneration, fresh: Fresh) -> bool {
        // SeqCst: the store before the load, against bump() before running_on().
        self.0.store(cpu, Ordering::SeqCst);
        if root.id == fresh.id && root.current() == fresh.generation {
            return true;
        }
        self.leave();
        false
    }

    /// Out of guest mode, after a VM exit.
    #[inline]
    pub fn leave(&self) {
        self.0.store(OUT, Ordering::Release);
    }

    /// The CPU to kick. After [`RootGeneration::bump`], a zap kicks it and waits until this
    /// says `None` or another CPU once: whoever enters later sees the new generation.
    #[inline]
    pub fn running_on(&self) -> Option<u32> {
        match self.0.load(Ordering::SeqCst) {
            OUT => None,
            cpu => Some(cpu),
        }
    }
}

impl Default for GuestMode {
    fn default() -> Self {
        Self::new()
    }
}
