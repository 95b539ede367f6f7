// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Addresses and page sizes.

/// A guest-physical address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpa(pub u64);

/// A system-physical address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spa(pub u64);

impl Gpa {
    /// The address rounded down to a page of `size`.
    #[inline]
    pub const fn align_down(self, size: PageSize) -> Gpa {
        Gpa(self.0 & !(size.bytes() - 1))
    }

    /// Whether the address is the start of a page of `size`.
    #[inline]
    pub const fn is_aligned(self, size: PageSize) -> bool {
        self.0 & (size.bytes() - 1) == 0
    }
}

impl Spa {
    /// Whether the address is the start of a page of `size`.
    #[inline]
    pub const fn is_aligned(self, size: PageSize) -> bool {
        self.0 & (size.bytes() - 1) == 0
    }
}

/// The size of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB, mapped by an EPT PTE.
    Size4K,
    /// 2 MiB, mapped by an EPT PDE.
    Size2M,
    /// 1 GiB, mapped by an EPT PDPTE.
    Size1G,
}

impl PageSize {
    /// Bytes in a page of this size.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << level_shift(self.level())
    }

    /// The level of the tables whose entries map pages of this size: 1 is the EPT page table.
    #[inline]
    pub(crate) const fn level(self) -> u32 {
        match self {
            PageSize::Size4K => 1,
            PageSize::Size2M => 2,
            PageSize::Size1G => 3,
        }
    }

    #[inline]
    pub(crate) const fn from_level(level: u32) -> PageSize {
        match level {
            1 => PageSize::Size4K,
            2 => PageSize::Size2M,
            _ => PageSize::Size1G,
        }
    }
}

/// Bits of a guest-physical address that four levels translate.
const WIDTH: u32 = 48;

/// The lowest bit of the index into a table of `level`.
#[inline]
pub(crate) const fn level_shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

/// The index of `gpa` in its table of `level`.
#[inline]
pub(crate) const fn index(gpa: Gpa, level: u32) -> usize {
    ((gpa.0 >> level_shift(level)) & 0x1ff) as usize
}

/// A range of guest-physical addresses, from `start` up to and without `end`, within the 48 bits
/// that a 4-level EPT translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaRange {
    start: Gpa,
    end: Gpa,
}

impl GpaRange {
    /// Everything that a 4-level EPT translates.
    pub const ALL: GpaRange = GpaRange {
        start: Gpa(0),
        end: Gpa(1 << WIDTH),
    };

    /// From `start` to `end`, cut to what can be translated; empty when `end` is not above `start`.
    #[inline]
    pub fn new(start: Gpa, end: Gpa) -> GpaRange {
        let end = end.min(Self::ALL.end);
        GpaRange {
            start: start.min(end),
            end,
        }
    }

    /// `bytes` from `start`, cut to what can be translated.
    #[inline]
    pub fn from_len(start: Gpa, bytes: u64) -> GpaRange {
        Self::new(start, Gpa(start.0.saturating_add(bytes)))
    }

    /// The first address.
    #[inline]
    pub fn start(self) -> Gpa {
        self.start
    }

    /// The address after the last one.
    #[inline]
    pub fn end(self) -> Gpa {
        self.end
    }

    /// Whether there is nothing in it.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }
}
