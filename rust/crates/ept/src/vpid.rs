// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Virtual-processor identifiers (SDM 29.1).

use core::sync::atomic::{AtomicU64, Ordering};

/// Hands out VPIDs from 1 to `64 * WORDS - 1`, at most 65535.
///
/// KVM's VPIDs are not known here and may be the same: translations are tagged with the EPT root
/// too (SDM 29.4.1), and those of a former use are flushed because a VP that never ran flushes
/// its VPID first ([`crate::Placement`]).
pub struct VpidPool<const WORDS: usize> {
    used: [AtomicU64; WORDS],
}

impl<const WORDS: usize> VpidPool<WORDS> {
    /// All free but 0, which is the host's.
    pub const fn new() -> Self {
        VpidPool {
            used: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// A free VPID. `None`: run the VP without "enable VPID".
    pub fn alloc(&self) -> Option<u16> {
        for (i, word) in self.used.iter().enumerate().take(1024) {
            let host = u64::from(i == 0);
            let mut now = word.load(Ordering::Relaxed);
            while let free @ 0..=63 = (!(now | host)).trailing_zeros() {
                let new = now | (1 << free);
                match word.compare_exchange(now, new, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return u16::try_from(i * 64 + free as usize).ok(),
                    Err(other) => now = other,
                }
            }
        }
        None
    }

    /// Gives a VPID back.
    pub fn free(&self, vpid: u16) {
        if let Some(word) = self.used.get(usize::from(vpid / 64)) {
            word.fetch_and(!(1 << (vpid % 64)), Ordering::AcqRel);
        }
    }
}

impl<const WORDS: usize> Default for VpidPool<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}
