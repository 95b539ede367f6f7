// SPDX-License-Identifier: GPL-2.0

//! What is known of the pages of a region whose accesses are tracked: what leaves of the EPT do not show any more.

use core::sync::atomic::{AtomicU64, Ordering};
use kernel::error::{code::*, Result};
use kernel::prelude::*;

/// One bit for each page of a region.
pub(crate) struct Bits(KVVec<AtomicU64>);

/// Largest region that can be tracked: 16 TiB, half a GiB of bits.
const MAX_PAGES: u64 = 1 << 32;

impl Bits {
    fn new(pages: u64) -> Result<Self> {
        if pages > MAX_PAGES {
            return Err(ENOMEM);
        }
        let words = usize::try_from(pages.div_ceil(64)).map_err(|_| ENOMEM)?;
        let mut bits = KVVec::with_capacity(words, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..words {
            bits.push(AtomicU64::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self(bits))
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        self.0.get((page / 64) as usize)
    }

    /// Sets a page's.
    pub(crate) fn set(&self, page: u64) {
        if let Some(word) = self.word(page) {
            word.fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    /// A page's.
    pub(crate) fn test(&self, page: u64) -> bool {
        self.word(page)
            .is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (page % 64) != 0)
    }

    fn reset(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Clears a page's.
    pub(crate) fn clear(&self, page: u64) {
        if let Some(word) = self.word(page) {
            word.fetch_and(!(1 << (page % 64)), Ordering::Relaxed);
        }
    }
}

/// What is known of a region's pages.
pub(crate) struct Log {
    pub(crate) accessed: Bits,
    pub(crate) dirty: Bits,
}

impl Log {
    /// Of that many pages; nothing is known of them.
    pub(crate) fn new(pages: u64) -> Result<Self> {
        Ok(Self {
            accessed: Bits::new(pages)?,
            dirty: Bits::new(pages)?,
        })
    }

    /// Notes an access of a page.
    pub(crate) fn note(&self, page: u64, accessed: bool, dirty: bool) {
        if accessed {
            self.accessed.set(page);
        }
        if dirty {
            self.dirty.set(page);
        }
    }

    /// Forgets all.
    pub(crate) fn reset(&self) {
        self.accessed.reset();
        self.dirty.reset();
    }
}
