// SPDX-License-Identifier: GPL-2.0 OR MIT

//! EPT entries (SDM 29.3.2, tables 29-1 to 29-7).

use crate::addr::{Gpa, PageSize, Spa};

/// What a guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Read.
    pub read: bool,
    /// Write. Not without read: that is an EPT misconfiguration (SDM 29.3.3.1).
    pub write: bool,
    /// Fetch instructions.
    pub execute: bool,
}

impl Rights {
    /// Everything.
    pub const RWX: Rights = Rights {
        read: true,
        write: true,
        execute: true,
    };
    /// Read and execute.
    pub const RX: Rights = Rights {
        read: true,
        write: false,
        execute: true,
    };
    /// Read and write.
    pub const RW: Rights = Rights {
        read: true,
        write: true,
        execute: false,
    };
    /// Read.
    pub const R: Rights = Rights {
        read: true,
        write: false,
        execute: false,
    };

    /// Whether everything that `other` allows is allowed here.
    #[inline]
    pub fn contains(self, other: Rights) -> bool {
        self.bits() & other.bits() == other.bits()
    }

    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.read as u64 | ((self.write as u64) << 1) | ((self.execute as u64) << 2)
    }

    #[inline]
    const fn from_bits(bits: u64) -> Rights {
        Rights {
            read: bits & 1 != 0,
            write: bits & 2 != 0,
            execute: bits & 4 != 0,
        }
    }
}

/// EPT memory types (SDM 29.3.7.2); the values are those of the PAT and the MTRRs.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryType {
    /// UC.
    Uncacheable = 0,
    /// WC.
    WriteCombining = 1,
    /// WT.
    WriteThrough = 4,
    /// WP.
    WriteProtected = 5,
    /// WB.
    WriteBack = 6,
}

impl MemoryType {
    #[inline]
    const fn from_bits(bits: u64) -> MemoryType {
        match bits & 7 {
            1 => MemoryType::WriteCombining,
            4 => MemoryType::WriteThrough,
            5 => MemoryType::WriteProtected,
            6 => MemoryType::WriteBack,
            _ => MemoryType::Uncacheable,
        }
    }
}

/// One page that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first guest-physical address.
    pub gpa: Gpa,
    /// Its first system-physical address.
    pub spa: Spa,
    /// Its size.
    pub size: PageSize,
    /// What the guest may do; for a leaf whose accesses are tracked, what it may do after the
    /// next access was noticed.
    pub rights: Rights,
    /// The memory type.
    pub memory_type: MemoryType,
    /// The guest's PAT is ignored.
    pub ignore_pat: bool,
    /// An overlay page, not the VMM's memory.
    pub overlay: bool,
    /// Accessed since mapped or since the flag was cleared.
    pub accessed: bool,
    /// Written since mapped or since the flag was cleared; on a CPU without dirty flags: was
    /// writable since then.
    pub dirty: bool,
}

const RIGHTS: u64 = 7;
const MEMORY_TYPE_SHIFT: u32 = 3;
const IGNORE_PAT: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
/// User-mode execute. Ignored without mode-based execute control; with it, X alone is not enough.
const EXECUTE_USER: u64 = 1 << 10;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Software: bits 56:52 are ignored by the CPU in every format.
const OVERLAY: u64 = 1 << 52;
/// Software: rights put aside while the CPU must fault on the next access.
const TRACKED_SHIFT: u32 = 54;
const TRACKED: u64 = RIGHTS << TRACKED_SHIFT;

/// One entry, by value.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    pub(crate) const ABSENT: Entry = Entry(0);

    /// An entry that points to a table. The rights are those of the leaves.
    #[inline]
    pub(crate) const fn table(spa: Spa) -> Entry {
        Entry(spa.0 & ADDRESS | RIGHTS | EXECUTE_USER)
    }

    #[inline]
    pub(crate) fn leaf(leaf: &Leaf) -> Entry {
        let mut bits = leaf.spa.0 & ADDRESS
            | leaf.rights.bits()
            | ((leaf.memory_type as u64) << MEMORY_TYPE_SHIFT);
        let mut set = |on: bool, mask: u64| {
            if on {
                bits |= mask;
            }
        };
        set(leaf.rights.execute, EXECUTE_USER);
        set(leaf.size != PageSize::Size4K, LARGE);
        set(leaf.ignore_pat, IGNORE_PAT);
        set(leaf.overlay, OVERLAY);
        set(leaf.accessed, ACCESSED);
        set(leaf.dirty, DIRTY);
        Entry(bits)
    }

    #[inline]
    pub(crate) const fn is_absent(self) -> bool {
        self.0 & (RIGHTS | TRACKED) == 0
    }

    /// Whether it maps a page, in a table of `level`.
    #[inline]
    pub(crate) const fn is_leaf(self, level: u32) -> bool {
        !self.is_absent() && (level == 1 || self.0 & LARGE != 0)
    }

    /// Whether it points to a table, in a table of `level`.
    #[inline]
    pub(crate) const fn is_table(self, level: u32) -> bool {
        !self.is_absent() && level > 1 && self.0 & LARGE == 0
    }

    #[inline]
    pub(crate) const fn spa(self) -> Spa {
        Spa(self.0 & ADDRESS)
    }

    #[inline]
    pub(crate) const fn is_tracked(self) -> bool {
        self.0 & TRACKED != 0
    }

    #[inline]
    pub(crate) const fn rights(self) -> Rights {
        Rights::from_bits(self.0 | (self.0 >> TRACKED_SHIFT))
    }

    /// What this entry maps when it is a leaf of `level` that translates `gpa`.
    #[inline]
    pub(crate) const fn to_leaf(self, gpa: Gpa, level: u32) -> Leaf {
        let size = PageSize::from_level(level);
        Leaf {
            gpa: gpa.align_down(size),
            spa: self.spa(),
            size,
            rights: self.rights(),
            memory_type: MemoryType::from_bits(self.0 >> MEMORY_TYPE_SHIFT),
            ignore_pat: self.0 & IGNORE_PAT != 0,
            overlay: self.0 & OVERLAY != 0,
            accessed: self.0 & ACCESSED != 0,
            dirty: self.0 & DIRTY != 0,
        }
    }

    /// The leaf `index` of the table that replaces this larger leaf of `level`.
    #[inline]
    pub(crate) const fn split_child(self, index: u64, level: u32) -> Entry {
        let step = PageSize::from_level(level - 1).bytes();
        let large = if level - 1 == 1 { 0 } else { LARGE };
        Entry(self.0 & !LARGE | large).offset(index * step)
    }

    #[inline]
    const fn offset(self, bytes: u64) -> Entry {
        Entry(self.0 & !ADDRESS | (self.0 & ADDRESS).wrapping_add(bytes) & ADDRESS)
    }

    #[inline]
    pub(crate) const fn accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    #[inline]
    pub(crate) const fn dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    #[inline]
    pub(crate) const fn writable(self) -> bool {
        self.rights().write
    }

    /// With more rights, and marked as a fresh access; ends tracking.
    #[inline]
    pub(crate) const fn with_rights(self, rights: Rights, mark_dirty: bool) -> Entry {
        let bits = self.rights().bits() | rights.bits();
        let user = if bits & 4 != 0 { EXECUTE_USER } else { 0 };
        let dirty = if mark_dirty && bits & 2 != 0 {
            DIRTY
        } else {
            0
        };
        Entry(self.0 & !TRACKED | bits | user | ACCESSED | dirty)
    }

    #[inline]
    pub(crate) const fn without_write(self) -> Entry {
        Entry(self.0 & !(2 | (2 << TRACKED_SHIFT)))
    }

    #[inline]
    pub(crate) const fn without_accessed(self) -> Entry {
        Entry(self.0 & !ACCESSED)
    }

    #[inline]
    pub(crate) const fn without_dirty(self) -> Entry {
        Entry(self.0 & !DIRTY)
    }

    /// With the rights put aside, so that the next access faults (CPUs without accessed flags).
    #[inline]
    pub(crate) const fn with_tracking(self) -> Entry {
        let aside = (self.0 & RIGHTS) << TRACKED_SHIFT;
        Entry(self.0 & !(RIGHTS | EXECUTE_USER) | aside)
    }
}
