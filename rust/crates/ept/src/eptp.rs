// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The extended-page-table pointer (SDM 25.6.11, table 25-9).

use crate::addr::Spa;

/// The value of the VMCS field "EPT pointer", and of an INVEPT descriptor.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eptp(pub u64);

/// Bits 2:0: write-back paging structures.
const WRITE_BACK: u64 = 6;
/// Bits 5:3: page-walk length minus one.
const WALK_LENGTH_4: u64 = 3 << 3;
/// Bit 6: accessed and dirty flags.
const ACCESSED_DIRTY: u64 = 1 << 6;

impl Eptp {
    /// The pointer to a 4-level tree in write-back memory.
    #[inline]
    pub const fn new(root: Spa, accessed_dirty: bool) -> Eptp {
        let flags = if accessed_dirty { ACCESSED_DIRTY } else { 0 };
        Eptp(root.0 & 0x000f_ffff_ffff_f000 | WALK_LENGTH_4 | WRITE_BACK | flags)
    }

    /// The frame of the root: what tags cached translations (EP4TA, SDM 29.4.1).
    #[inline]
    pub const fn root(self) -> Spa {
        Spa(self.0 & 0x000f_ffff_ffff_f000)
    }
}
