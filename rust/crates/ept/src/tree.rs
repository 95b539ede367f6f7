// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The tree: root, walks, end.

use crate::addr::{index, level_shift, Gpa, GpaRange, PageSize, Spa};
use crate::entry::{Entry, Leaf};
use crate::eptp::Eptp;
use crate::table::{Frames, NoFrame, Table};

/// What this CPU can do (IA32_VMX_EPT_VPID_CAP, SDM A.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptConfig {
    /// The largest leaf.
    pub max_leaf: PageSize,
    /// Accessed and dirty flags are supported and used. Without them the flags are kept by
    /// software: dirty means "was writable", and [`Ept::clear_accessed`] takes rights away.
    pub accessed_dirty: bool,
    /// Execute without read is supported.
    pub execute_only: bool,
}

/// One 4-level EPT. Its frames live in a [`Frames`] that every call is given: always the same.
#[derive(Debug)]
pub struct Ept {
    pub(crate) root: Spa,
    pub(crate) config: EptConfig,
}

/// Levels of tables: 4 is the EPT PML4 table.
pub(crate) const TOP: u32 = 4;

/// The lowest entry that a walk for some address comes to: a leaf or absent.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// The tables on the way, by level minus one; valid from `level` up.
    pub(crate) tables: [Spa; TOP as usize],
    pub(crate) level: u32,
    pub(crate) entry: Entry,
}

impl Slot {
    /// The table of `level` on the way.
    #[inline]
    pub(crate) fn table(&self, level: u32) -> Spa {
        match self.tables.get(level as usize - 1) {
            Some(&spa) => spa,
            None => Spa(0),
        }
    }

    /// The first address after what this slot translates.
    #[inline]
    pub(crate) fn next(&self, gpa: Gpa) -> Gpa {
        let shift = level_shift(self.level);
        Gpa(((gpa.0 >> shift) + 1) << shift)
    }
}

impl Ept {
    /// An empty tree.
    pub fn new(frames: &mut impl Frames, config: EptConfig) -> Result<Ept, NoFrame> {
        Ok(Ept {
            root: frames.alloc()?,
            config,
        })
    }

    /// The frame of the root.
    #[inline]
    pub fn root(&self) -> Spa {
        self.root
    }

    /// What it was made with.
    #[inline]
    pub fn config(&self) -> EptConfig {
        self.config
    }

    /// The value for the VMCS.
    #[inline]
    pub fn eptp(&self) -> Eptp {
        Eptp::new(self.root, self.config.accessed_dirty)
    }

    /// The page that is mapped at `gpa`.
    pub fn walk(&self, frames: &impl Frames, gpa: Gpa) -> Option<Leaf> {
        if gpa >= GpaRange::ALL.end() {
            return None;
        }
        let slot = self.slot(frames, gpa);
        slot.entry
            .is_leaf(slot.level)
            .then(|| slot.entry.to_leaf(gpa, slot.level))
    }

    /// Zaps what is left and frees every table. No VP may use the root any more, and the frames
    /// may be reused only after each CPU that used it has flushed or forgotten it: see
    /// [`crate::SeenGenerations`], where an unknown root is flushed before its first use.
    ///
    /// Not bounded: call [`Ept::unmap`] with a budget before it on large trees.
    pub fn destroy(mut self, frames: &mut impl Frames, on_leaf: impl FnMut(&Leaf)) {
        let _ = self.unmap(frames, GpaRange::ALL, usize::MAX, on_leaf);
        frames.free(self.root);
    }

    /// Walks to the lowest entry for `gpa`, which must be within [`GpaRange::ALL`].
    pub(crate) fn slot(&self, frames: &impl Frames, gpa: Gpa) -> Slot {
        let mut slot = Slot {
            tables: [self.root; TOP as usize],
            level: TOP,
            entry: Entry::ABSENT,
        };
        let mut table = self.root;
        for level in (1..=TOP).rev() {
            if let Some(place) = slot.tables.get_mut(level as usize - 1) {
                *place = table;
            }
            slot.level = level;
            slot.entry = frames
                .entries(table)
                .map_or(Entry::ABSENT, |t| t.get(index(gpa, level)));
            if !slot.entry.is_table(level) {
                break;
            }
            table = slot.entry.spa();
        }
        slot
    }
}

/// The table in `spa`, as a walk just found it.
#[inline]
pub(crate) fn with_table<R>(
    frames: &impl Frames,
    spa: Spa,
    f: impl FnOnce(&Table) -> R,
) -> Option<R> {
    frames.entries(spa).map(f)
}
