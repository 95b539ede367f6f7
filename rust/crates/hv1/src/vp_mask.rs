// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Sets of VPs.

/// VPs that a partition can have, as in Linux.
pub const MAX_VPS: u32 = 256;

const BANKS: usize = MAX_VPS as usize / 64;

/// VPs by their index: 64 in each bank, as the TLFS has them (C-4A11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpMask([u64; BANKS]);

impl VpMask {
    /// None.
    pub const EMPTY: Self = Self([0; BANKS]);
    /// All.
    pub const ALL: Self = Self([u64::MAX; BANKS]);

    /// Those of the first 64 whose bits are set.
    #[inline(always)]
    pub const fn first_bank(bits: u64) -> Self {
        let mut mask = Self::EMPTY;
        mask.0[0] = bits;
        mask
    }

    /// Sets what a bank has. False: no VP can be in it.
    #[inline(always)]
    pub fn set_bank(&mut self, bank: u32, bits: u64) -> bool {
        let there = self.0.get_mut(bank as usize);
        there.map(|there| *there = bits).is_some()
    }

    /// Adds a VP.
    #[inline(always)]
    pub fn insert(&mut self, vp: u32) {
        if let Some(bank) = self.0.get_mut(vp as usize / 64) {
            *bank |= 1 << (vp % 64);
        }
    }

    /// Whether a VP is in it.
    #[inline(always)]
    pub fn contains(&self, vp: u32) -> bool {
        let bank = self.0.get(vp as usize / 64);
        bank.is_some_and(|bank| (bank >> (vp % 64)) & 1 != 0)
    }

    /// Whether none is.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, bank| all | bank) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        let mut mask = VpMask::first_bank(1 << 5);
        assert!(mask.set_bank(3, 1 << 63));
        assert!(!mask.set_bank(4, 1));
        mask.insert(64);
        mask.insert(MAX_VPS);
        let there: std::vec::Vec<u32> = (0..300).filter(|vp| mask.contains(*vp)).collect();
        assert_eq!(there, [5, 64, 255]);
        assert!(!mask.is_empty() && VpMask::EMPTY.is_empty());
        assert!((0..MAX_VPS).all(|vp| VpMask::ALL.contains(vp)));
    }
}
