// SPDX-License-Identifier: GPL-2.0

//! Frames of EPT tables: a cache that is filled before the map lock is taken, and a list of
//! frames that wait for the flush after which they may be reused.

use super::bindings;
use super::pages::Pages;
use ept::{Frames, NoFrame, Spa, Table};
use kernel::alloc::AllocError;
use kernel::prelude::*;

/// Frames that one call of `Ept::map` can need.
const CACHE: usize = 4;
/// Frames that may wait for a flush.
const RETIRED: usize = 128;
/// Entries that one step of a zap may look at, so that what it frees fits.
pub(crate) const ZAP_BUDGET: usize = RETIRED / 4;

/// Frames taken out of the allocator, to be put into a [`TableFrames`] under the lock.
pub(crate) struct Refill([Option<Pages>; CACHE]);

impl Refill {
    /// Enough for one map; may sleep.
    pub(crate) fn new() -> Result<Self, AllocError> {
        let mut refill = Self([const { None }; CACHE]);
        for slot in &mut refill.0 {
            *slot = Some(Pages::new(0)?);
        }
        Ok(refill)
    }
}

/// The frames of one EPT.
pub(crate) struct TableFrames {
    cache: [Option<Pages>; CACHE],
    /// Has capacity for [`RETIRED`]: it grows under a spinlock.
    retired: KVec<Pages>,
    /// Tables in use.
    pub(crate) nr_tables: usize,
}

impl TableFrames {
    /// With a full cache.
    pub(crate) fn new(refill: Refill) -> Result<Self, AllocError> {
        Ok(Self {
            cache: refill.0,
            retired: KVec::with_capacity(RETIRED, GFP_KERNEL_ACCOUNT)?,
            nr_tables: 0,
        })
    }

    /// Whether a map could run out of frames.
    pub(crate) fn is_low(&self) -> bool {
        self.cache.iter().any(Option::is_none)
    }

    /// Takes frames from `refill`; what does not fit stays there, to be freed without the lock.
    pub(crate) fn refill(&mut self, refill: &mut Refill) {
        for (slot, new) in self.cache.iter_mut().zip(&mut refill.0) {
            if slot.is_none() {
                *slot = new.take();
            }
        }
    }

    /// Whether frames wait for a flush.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Whether another [`ZAP_BUDGET`] could find no room.
    pub(crate) fn retired_full(&self) -> bool {
        self.retired.len() + 3 * ZAP_BUDGET + 1 >= RETIRED
    }

    /// The flush is done: frees what waited for it.
    pub(crate) fn free_retired(&mut self) {
        self.retired.clear();
    }
}

impl Frames for TableFrames {
    #[inline]
    fn entries(&self, table: Spa) -> Option<&Table> {
        // SAFETY: Only the tree's own links are followed, which name frames of `alloc` that live
        // until `free_retired`; a Table is a page of atomics, any content is valid.
        unsafe {
            bindings::hvrs_phys_to_virt(table.0)
                .cast::<Table>()
                .cast_const()
                .as_ref()
        }
    }

    fn alloc(&mut self) -> Result<Spa, NoFrame> {
        let page = self
            .cache
            .iter_mut()
            .find_map(Option::take)
            .ok_or(NoFrame)?;
        self.nr_tables += 1;
        Ok(Spa(page.into_phys()))
    }

    fn free(&mut self, table: Spa) {
        self.nr_tables = self.nr_tables.saturating_sub(1);
        // SAFETY: The tree gives back each frame of `alloc` once.
        let page = unsafe { Pages::from_phys(table.0, 0) };
        if let Err(full) = self.retired.push_within_capacity(page) {
            // ZAP_BUDGET keeps it from happening; a leak is safe, an early free is not.
            core::mem::forget(full);
        }
    }
}
