// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Inputs of the calls for sets of processors: flushes (rows H-02, H-03, H-13, H-14) and IPIs (H-0B, H-15).
//!
//! Each input is a row of 64-bit words; these are their positions and the meaning of their bits.

numbers! { u64;
    HV_GENERIC_SET_SPARSE_4K = 0,
    HV_GENERIC_SET_ALL = 1,
}

bit_set! {
    /// `HV_FLUSH_FLAGS`.
    pub struct HvFlushFlags: u64 {
        ALL_PROCESSORS = 1 << 0,
        ALL_VIRTUAL_ADDRESS_SPACES = 1 << 1,
        NON_GLOBAL_MAPPINGS_ONLY = 1 << 2,
        USE_EXTENDED_RANGE_FORMAT = 1 << 3,
    }
}

/// `HV_INPUT_VTL`: the level that a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvInputVtl(pub u8);

impl HvInputVtl {
    const TARGET: u8 = 0xf;
    const USE_TARGET: u8 = 1 << 4;
    const RESERVED: u8 = 0xe0;

    /// Whether it names level 0, or the caller's, where there is no other.
    #[inline]
    pub const fn is_level_0(self) -> bool {
        self.0 & Self::RESERVED == 0
            && (self.0 & Self::USE_TARGET == 0 || self.0 & Self::TARGET == 0)
    }
}

/// `HV_GVA_RANGE`: pages of linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvGvaRange(pub u64);

impl HvGvaRange {
    const ADDITIONAL_PAGES: u64 = 0xfff;
    /// In the extended format: pages of 2 MiB or 1 GiB.
    const LARGE_PAGE: u64 = 1 << 11;

    /// First address and number of pages of 4 KiB; `None`: large pages, of the extended format only.
    #[inline]
    pub const fn pages(self, extended: bool) -> Option<(u64, u64)> {
        let first = self.0 & !Self::ADDITIONAL_PAGES;
        if !extended {
            return Some((first, (self.0 & Self::ADDITIONAL_PAGES) + 1));
        }
        if self.0 & Self::LARGE_PAGE != 0 {
            return None;
        }
        Some((first, (self.0 & (Self::LARGE_PAGE - 1)) + 1))
    }
}
