// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tables and where their frames come from.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Spa;
use crate::entry::Entry;

/// One EPT paging structure: a page of 512 entries.
#[repr(transparent)]
pub struct Table([AtomicU64; 512]);

impl Table {
    /// A table without entries.
    pub const fn new() -> Table {
        Table([const { AtomicU64::new(0) }; 512])
    }

    /// Whether no entry is in use.
    pub fn is_empty(&self) -> bool {
        self.0
            .iter()
            .all(|e| Entry(e.load(Ordering::Relaxed)).is_absent())
    }

    /// The raw entry `index`; `None` beyond the end.
    #[inline]
    pub fn raw(&self, index: usize) -> Option<u64> {
        self.0.get(index).map(|e| e.load(Ordering::Acquire))
    }

    /// Sets accessed and dirty flags (bits 8 and 9) in entry `index`, as the CPU does: for
    /// software that stands in for one.
    pub fn set_hardware_flags(&self, index: usize, flags: u64) {
        if let Some(slot) = self.0.get(index) {
            slot.fetch_or(flags & 0x300, Ordering::AcqRel);
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Entry {
        Entry(self.raw(index).unwrap_or(0))
    }

    #[inline]
    pub(crate) fn set(&self, index: usize, entry: Entry) {
        if let Some(slot) = self.0.get(index) {
            // Release: the CPU that walks to a new table must find it initialized.
            slot.store(entry.0, Ordering::Release);
        }
    }

    /// Replaces entry `index` and returns what was there, with the flags that the CPU had set.
    #[inline]
    pub(crate) fn swap(&self, index: usize, entry: Entry) -> Entry {
        match self.0.get(index) {
            Some(slot) => Entry(slot.swap(entry.0, Ordering::AcqRel)),
            None => Entry::ABSENT,
        }
    }

    /// Changes entry `index` by `change` without losing a flag that the CPU sets meanwhile.
    /// Returns the old entry.
    #[inline]
    pub(crate) fn update(&self, index: usize, change: impl Fn(Entry) -> Entry) -> Entry {
        let mut old = self.get(index);
        let Some(slot) = self.0.get(index) else {
            return old;
        };
        // Under the map lock only the CPU competes, and it sets two flags once each: this ends.
        loop {
            let new = change(old);
            match slot.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return old,
                Err(now) => old = Entry(now),
            }
        }
    }

    /// Puts `new` in place of `old`; returns what is there instead when it is not `old`.
    #[inline]
    pub(crate) fn replace(&self, index: usize, old: Entry, new: Entry) -> Result<(), Entry> {
        let Some(slot) = self.0.get(index) else {
            return Ok(());
        };
        slot.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Entry)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

/// No frame for a table: fill the cache without the lock and try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFrame;

/// Where the frames of tables come from and go to.
pub trait Frames {
    /// The table in frame `table`; `None` when that is not one of ours, which ends a walk there.
    fn entries(&self, table: Spa) -> Option<&Table>;

    /// A zeroed frame, from a cache that was filled before the lock was taken: it must not sleep.
    /// [`crate::Ept::map`] needs at most three.
    fn alloc(&mut self) -> Result<Spa, NoFrame>;

    /// Takes back a table that is unlinked and empty. Another CPU may still hold
    /// paging-structure-cache entries that point to it (SDM 29.4.1): it must stay all zero and
    /// must not be reused before the flush that the same operation demanded is done.
    fn free(&mut self, table: Spa);
}
