// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Mapping and splitting.

use crate::addr::{index, Gpa, GpaRange, PageSize, Spa};
use crate::entry::{Entry, Leaf, MemoryType, Rights};
use crate::table::{Frames, NoFrame};
use crate::tree::{with_table, Ept, Slot};

/// What to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the page is.
    pub spa: Spa,
    /// How large it is.
    pub size: PageSize,
    /// What the guest may do with it.
    pub rights: Rights,
    /// The memory type.
    pub memory_type: MemoryType,
    /// Ignore the guest's PAT.
    pub ignore_pat: bool,
    /// An overlay page.
    pub overlay: bool,
}

impl Mapping {
    /// Write-back RAM of the VMM.
    #[inline]
    pub const fn ram(spa: Spa, size: PageSize, rights: Rights) -> Mapping {
        Mapping {
            spa,
            size,
            rights,
            memory_type: MemoryType::WriteBack,
            ignore_pat: true,
            overlay: false,
        }
    }

    /// An overlay page: 4 KiB of the module's own memory.
    #[inline]
    pub const fn overlay(spa: Spa, rights: Rights) -> Mapping {
        Mapping {
            overlay: true,
            ..Mapping::ram(spa, PageSize::Size4K, rights)
        }
    }
}

/// What [`Ept::map`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The same page was mapped with these rights or more (another VP's fault was first).
    None,
    /// The page was absent.
    New,
    /// The page was mapped and got more rights.
    Upgraded,
}

/// The outcome of [`Ept::map`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What changed.
    pub change: Change,
    /// An empty table made room for a larger leaf: flush before its frame is reused.
    pub flush: bool,
}

/// Why [`Ept::map`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No frame for a table. Fill the cache and fault again; what was built so far stays.
    NoFrame,
    /// Beyond 48 bits.
    OutOfRange,
    /// Address not aligned to the size, or a size that the CPU does not have.
    BadSize,
    /// Rights that would be an EPT misconfiguration (SDM 29.3.3.1), or none.
    BadRights,
    /// Smaller leaves are there: map a smaller page, or unmap first.
    Occupied,
    /// Another page is mapped there: unmap and flush first.
    Conflict(Leaf),
}

impl From<NoFrame> for MapError {
    fn from(_: NoFrame) -> Self {
        MapError::NoFrame
    }
}

impl Ept {
    /// Maps a page at `gpa`.
    ///
    /// The same page again is no error, so that two VPs may fault on it at once; rights only
    /// grow (use [`Ept::protect`] to take write away). A larger leaf of which this page is a part
    /// is split only when the part needs more rights than the whole has.
    pub fn map(
        &mut self,
        frames: &mut impl Frames,
        gpa: Gpa,
        mapping: &Mapping,
    ) -> Result<Mapped, MapError> {
        self.check(gpa, mapping)?;
        let level = mapping.size.level();
        loop {
            let slot = self.slot(frames, gpa);
            if slot.entry.is_absent() {
                if slot.level < level {
                    return self.map_over_table(frames, gpa, mapping);
                }
                if slot.level == level {
                    let entry = Entry::leaf(&self.new_leaf(gpa, mapping));
                    set(frames, &slot, gpa, entry);
                    return Ok(Mapped {
                        change: Change::New,
                        flush: false,
                    });
                }
                let table = frames.alloc()?;
                set(frames, &slot, gpa, Entry::table(table));
                continue;
            }
            // A leaf is there.
            let old = slot.entry.to_leaf(gpa, slot.level);
            if slot.level < level {
                return self.map_over_table(frames, gpa, mapping);
            }
            if !same_page(&old, gpa, mapping) {
                return Err(MapError::Conflict(old));
            }
            if slot.entry.rights().contains(mapping.rights) && !slot.entry.is_tracked() {
                return Ok(Mapped {
                    change: Change::None,
                    flush: false,
                });
            }
            if slot.level > level && !slot.entry.rights().contains(mapping.rights) {
                split(frames, gpa, &slot)?;
                continue;
            }
            let mark_dirty = !self.config.accessed_dirty;
            with_table(frames, slot.table(slot.level), |t| {
                t.update(index(gpa, slot.level), |e| {
                    e.with_rights(mapping.rights, mark_dirty)
                })
            });
            return Ok(Mapped {
                change: Change::Upgraded,
                flush: false,
            });
        }
    }

    /// Splits leaves until the one at `gpa` is not larger than `size`. Translations, rights and
    /// flags stay as they are, so no flush is needed. Absent pages are left alone.
    pub fn split(
        &mut self,
        frames: &mut impl Frames,
        gpa: Gpa,
        size: PageSize,
    ) -> Result<(), MapError> {
        if gpa >= GpaRange::ALL.end() {
            return Err(MapError::OutOfRange);
        }
        loop {
            let slot = self.slot(frames, gpa);
            if slot.entry.is_absent() || slot.level <= size.level() {
                return Ok(());
            }
            split(frames, gpa, &slot)?;
        }
    }

    fn check(&self, gpa: Gpa, mapping: &Mapping) -> Result<(), MapError> {
        if gpa >= GpaRange::ALL.end() {
            return Err(MapError::OutOfRange);
        }
        let aligned = gpa.is_aligned(mapping.size) && mapping.spa.is_aligned(mapping.size);
        if !aligned || mapping.size > self.config.max_leaf {
            return Err(MapError::BadSize);
        }
        let rights = mapping.rights;
        let execute_only = rights.execute && !rights.write && self.config.execute_only;
        if !rights.read && !execute_only {
            return Err(MapError::BadRights);
        }
        Ok(())
    }

    fn new_leaf(&self, gpa: Gpa, mapping: &Mapping) -> Leaf {
        Leaf {
            gpa,
            spa: mapping.spa,
            size: mapping.size,
            rights: mapping.rights,
            memory_type: mapping.memory_type,
            ignore_pat: mapping.ignore_pat,
            overlay: mapping.overlay,
            // The fault is the access; it saves the CPU a locked update.
            accessed: true,
            dirty: !self.config.accessed_dirty && mapping.rights.write,
        }
    }

    /// Maps a large leaf where a table is, which must be empty all the way down.
    fn map_over_table(
        &mut self,
        frames: &mut impl Frames,
        gpa: Gpa,
        mapping: &Mapping,
    ) -> Result<Mapped, MapError> {
        let level = mapping.size.level();
        if !self.free_empty_below(frames, gpa, level) {
            return Err(MapError::Occupied);
        }
        // Only tables below `level` were freed, so the entry is there and no frame is needed.
        let slot = self.slot(frames, gpa);
        set(
            frames,
            &slot,
            gpa,
            Entry::leaf(&self.new_leaf(gpa, mapping)),
        );
        Ok(Mapped {
            change: Change::New,
            flush: true,
        })
    }
}

/// Whether `old` maps `gpa` to the page that `mapping` says, in the same way.
fn same_page(old: &Leaf, gpa: Gpa, mapping: &Mapping) -> bool {
    let offset = gpa.0 - old.gpa.0;
    old.spa.0 + offset == mapping.spa.0
        && old.memory_type == mapping.memory_type
        && old.ignore_pat == mapping.ignore_pat
        && old.overlay == mapping.overlay
}

fn set(frames: &impl Frames, slot: &Slot, gpa: Gpa, entry: Entry) {
    with_table(frames, slot.table(slot.level), |t| {
        t.set(index(gpa, slot.level), entry)
    });
}

/// Replaces the large leaf in `slot` by a table of the next smaller leaves.
fn split(frames: &mut impl Frames, gpa: Gpa, slot: &Slot) -> Result<(), MapError> {
    let spa = frames.alloc()?;
    let mut old = slot.entry;
    loop {
        with_table(frames, spa, |t| {
            for i in 0..512 {
                t.set(i, old.split_child(i as u64, slot.level));
            }
        });
        let done = with_table(frames, slot.table(slot.level), |t| {
            t.replace(index(gpa, slot.level), old, Entry::table(spa))
        });
        match done {
            // The CPU set a flag meanwhile, which the children must have too: at most two do.
            Some(Err(now)) => old = now,
            _ => return Ok(()),
        }
    }
}
