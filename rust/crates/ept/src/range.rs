// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Operations on ranges: zap, write-protect, accessed and dirty flags, iteration.
//!
//! Each takes a budget of entries to look at and says where to go on, so that a caller can bound
//! the time under its lock. A leaf that only overlaps the range is treated as a whole: for
//! zapping and protecting that is always safe, because the next access faults it in again.

use core::ops::ControlFlow;

use crate::addr::{index, Gpa, GpaRange, PageSize};
use crate::entry::{Entry, Leaf};
use crate::table::{Frames, Table};
use crate::tree::{with_table, Ept, Slot, TOP};

/// How far an operation on a range came.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Something was found (query) or changed (all else). After a change: flush.
    pub any: bool,
    /// Where to go on; `None` when the range is done.
    pub next: Option<Gpa>,
}

impl Ept {
    /// Zaps every leaf that overlaps `range` and gives it to `on_leaf`, with its dirty flag as it
    /// was at that moment; frees tables that became empty.
    ///
    /// When `any` is set: flush before the pages or the freed tables are reused.
    pub fn unmap(
        &mut self,
        frames: &mut impl Frames,
        range: GpaRange,
        budget: usize,
        mut on_leaf: impl FnMut(&Leaf),
    ) -> Progress {
        self.sweep(frames, range, budget, |table, slot, gpa| {
            let old = table.swap(index(gpa, slot.level), Entry::ABSENT);
            on_leaf(&old.to_leaf(gpa, slot.level));
            true
        })
    }

    /// Makes the CPU's flags tell of accesses from now on, by pages of 4 KiB: clears those of small leaves and zaps large ones.
    /// Only where the CPU has them. As after [`Self::unmap`], flush when `any` is set.
    pub fn begin_tracking(
        &mut self,
        frames: &mut impl Frames,
        range: GpaRange,
        budget: usize,
    ) -> Progress {
        self.sweep(frames, range, budget, |table, slot, gpa| {
            let small = PageSize::from_level(slot.level) == PageSize::Size4K;
            table.update(index(gpa, slot.level), |e| match small {
                true => e.without_accessed().without_dirty(),
                false => Entry::ABSENT,
            });
            true
        })
    }

    /// Frees the empty tables of `range`. When `any` is set: flush before they are reused.
    pub fn prune(&mut self, frames: &mut impl Frames, range: GpaRange, budget: usize) -> Progress {
        self.sweep(frames, range, budget, |_, _, _| false)
    }

    /// Takes write access away from every leaf that overlaps `range`. When `any` is set: flush.
    pub fn protect(&mut self, frames: &impl Frames, range: GpaRange, budget: usize) -> Progress {
        self.visit(frames, range, budget, |table, slot, gpa| {
            if !slot.entry.writable() {
                return ControlFlow::Continue(false);
            }
            table.update(index(gpa, slot.level), Entry::without_write);
            ControlFlow::Continue(true)
        })
    }

    /// Whether a leaf that overlaps `range` was accessed. Ends at the first one.
    pub fn test_accessed(&self, frames: &impl Frames, range: GpaRange, budget: usize) -> Progress {
        self.visit(frames, range, budget, |_, slot, _| {
            match slot.entry.accessed() {
                true => ControlFlow::Break(true),
                false => ControlFlow::Continue(false),
            }
        })
    }

    /// Gives each accessed leaf of `range` to `on_accessed` and clears its flag; `any`: one was set.
    ///
    /// With accessed flags a CPU that caches the translation does not set the flag again before it
    /// is flushed. Without them the rights are put aside until [`Ept::map`] is called for the same
    /// page, and nothing is noticed before a flush. Neither endangers anything but the estimate.
    pub fn clear_accessed(
        &mut self,
        frames: &impl Frames,
        range: GpaRange,
        budget: usize,
        mut on_accessed: impl FnMut(&Leaf),
    ) -> Progress {
        let hardware = self.config.accessed_dirty;
        self.visit(frames, range, budget, |table, slot, gpa| {
            if !slot.entry.accessed() {
                return ControlFlow::Continue(false);
            }
            let old = table.update(index(gpa, slot.level), |e| {
                match hardware || e.is_tracked() {
                    true => e.without_accessed(),
                    false => e.without_accessed().with_tracking(),
                }
            });
            on_accessed(&old.to_leaf(gpa, slot.level));
            ControlFlow::Continue(true)
        })
    }

    /// Gives each dirty leaf of `range` to `on_dirty` and clears its flag; without dirty flags in
    /// the CPU also its write access. When `any` is set: flush, before the pages are read.
    pub fn clear_dirty(
        &mut self,
        frames: &impl Frames,
        range: GpaRange,
        budget: usize,
        mut on_dirty: impl FnMut(&Leaf),
    ) -> Progress {
        let hardware = self.config.accessed_dirty;
        self.visit(frames, range, budget, |table, slot, gpa| {
            if !slot.entry.dirty() {
                return ControlFlow::Continue(false);
            }
            let old = table.update(index(gpa, slot.level), |e| match hardware {
                true => e.without_dirty(),
                false => e.without_dirty().without_write(),
            });
            on_dirty(&old.to_leaf(gpa, slot.level));
            ControlFlow::Continue(true)
        })
    }

    /// Gives every leaf that overlaps `range` to `f`; `any`: there was one.
    pub fn for_each_leaf(
        &self,
        frames: &impl Frames,
        range: GpaRange,
        budget: usize,
        mut f: impl FnMut(&Leaf),
    ) -> Progress {
        self.visit(frames, range, budget, |_, slot, gpa| {
            f(&slot.entry.to_leaf(gpa, slot.level));
            ControlFlow::Continue(true)
        })
    }

    /// Frees the tables under the entry of `level` for `gpa` and clears that entry. `false` when
    /// there is a leaf, or when that is not known after looking at as many entries as two tables
    /// have.
    pub(crate) fn free_empty_below(
        &mut self,
        frames: &mut impl Frames,
        gpa: Gpa,
        level: u32,
    ) -> bool {
        let range = GpaRange::from_len(gpa, PageSize::from_level(level).bytes());
        let found = self.visit(frames, range, 1024, |_, _, _| ControlFlow::Break(true));
        if found.any || found.next.is_some() {
            return false;
        }
        let mut gpa = range.start();
        while gpa < range.end() {
            let slot = self.slot(frames, gpa);
            let next = slot.next(gpa);
            if index(next, slot.level) == 0 {
                free_empty(frames, gpa, &slot, level);
            }
            gpa = next;
        }
        true
    }

    /// Calls `f` for each leaf that overlaps `range`, skipping absent subtrees.
    fn visit(
        &self,
        frames: &impl Frames,
        range: GpaRange,
        budget: usize,
        mut f: impl FnMut(&Table, &Slot, Gpa) -> ControlFlow<bool, bool>,
    ) -> Progress {
        let mut gpa = range.start();
        let mut any = false;
        for _ in 0..budget {
            if gpa >= range.end() {
                return Progress { any, next: None };
            }
            let slot = self.slot(frames, gpa);
            if slot.entry.is_leaf(slot.level) {
                match with_table(frames, slot.table(slot.level), |t| f(t, &slot, gpa)) {
                    Some(ControlFlow::Break(found)) => {
                        return Progress {
                            any: any | found,
                            next: None,
                        };
                    }
                    Some(ControlFlow::Continue(found)) => any |= found,
                    None => {}
                }
            }
            gpa = slot.next(gpa);
        }
        Progress {
            any,
            next: (gpa < range.end()).then_some(gpa),
        }
    }

    /// Calls `zap` for each leaf that overlaps `range` and frees the tables that are empty then.
    fn sweep(
        &mut self,
        frames: &mut impl Frames,
        range: GpaRange,
        budget: usize,
        mut zap: impl FnMut(&Table, &Slot, Gpa) -> bool,
    ) -> Progress {
        let mut gpa = range.start();
        let mut any = false;
        for _ in 0..budget {
            if gpa >= range.end() {
                return Progress { any, next: None };
            }
            let slot = self.slot(frames, gpa);
            if slot.entry.is_leaf(slot.level) {
                let zapped = with_table(frames, slot.table(slot.level), |t| zap(t, &slot, gpa));
                any |= zapped == Some(true);
            }
            let next = slot.next(gpa);
            // Looking whether a table is empty costs a scan: once, on leaving it.
            if index(next, slot.level) == 0 || next >= range.end() {
                any |= free_empty(frames, gpa, &slot, TOP);
            }
            gpa = next;
        }
        Progress {
            any,
            next: (gpa < range.end()).then_some(gpa),
        }
    }
}

/// Unlinks and frees the table that `slot` is in, when it is empty, then its parents likewise, as
/// long as they are below `top`.
fn free_empty(frames: &mut impl Frames, gpa: Gpa, slot: &Slot, top: u32) -> bool {
    let mut any = false;
    for level in slot.level..top {
        let table = slot.table(level);
        if with_table(frames, table, Table::is_empty) != Some(true) {
            break;
        }
        with_table(frames, slot.table(level + 1), |t| {
            t.set(index(gpa, level + 1), Entry::ABSENT)
        });
        frames.free(table);
        any = true;
    }
    any
}
