// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether a VP is in guest mode: what a flush waits for.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::generation::RootGeneration;

const OUT: u64 = u64::MAX;

/// On which CPU a VP is in guest mode, if it is, and on translations of which generation. Stored
/// by the VP's CPU, read by those who flush or kick.
///
/// Bits 31:0 are the CPU, bits 63:32 the low half of the generation.
pub struct GuestMode(AtomicU64);

impl GuestMode {
    /// Not in guest mode.
    pub const fn new() -> GuestMode {
        GuestMode(AtomicU64::new(OUT))
    }

    /// Announces guest mode on `cpu` and says whether `root` is still at `generation`, up to which
    /// this CPU has flushed. If not, takes the announcement back: check and flush again.
    ///
    /// Before each entry, also between two entries of one window. `cpu` is not `u32::MAX`.
    #[inline]
    pub fn enter(&self, cpu: u32, root: &RootGeneration, generation: u64) -> bool {
        let announced = (generation << 32) | u64::from(cpu);
        // SeqCst: the store before the load, against bump() before behind().
        self.0.store(announced, Ordering::SeqCst);
        if root.current() == generation {
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

    /// The CPU on which the VP is in guest mode: for kicks that bring news.
    #[inline]
    pub fn running_on(&self) -> Option<u32> {
        match self.0.load(Ordering::SeqCst) {
            OUT => None,
            announced => Some(announced as u32),
        }
    }

    /// The CPU on which the VP is in guest mode with translations from before `generation`.
    ///
    /// A VP that left and entered again does not count, so a flush that polls this cannot miss
    /// that it was out.
    #[inline]
    pub fn behind(&self, generation: u64) -> Option<u32> {
        let announced = self.0.load(Ordering::SeqCst);
        let lag = (generation as u32).wrapping_sub((announced >> 32) as u32);
        // Half of all generations cannot pass during one stay in the guest.
        let old = lag != 0 && lag < 1 << 31;
        (announced != OUT && old).then_some(announced as u32)
    }
}

impl Default for GuestMode {
    fn default() -> Self {
        Self::new()
    }
}
