// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Memory type range registers (SDM volume 3, section 13.11): a place for each, and which values they take.

/// Registers to keep.
pub const MTRR_SLOTS: usize = 28;
const DEF_TYPE: u8 = 0;
const FIRST_FIXED: u8 = 17;

/// A register: 0 IA32_MTRR_DEF_TYPE, 1 to 16 the variable ranges (PHYSBASE0, PHYSMASK0, PHYSBASE1, …), 17 to 27 the
/// fixed ranges in order of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MtrrSlot(u8);

impl MtrrSlot {
    pub(super) const fn new(slot: u8) -> Self {
        assert!((slot as usize) < MTRR_SLOTS);
        Self(slot)
    }

    /// Number below [`MTRR_SLOTS`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// PHYSBASE or PHYSMASK of variable range `range`, of which there are eight.
    pub const fn variable(range: u8, mask: bool) -> Option<Self> {
        if range < 8 {
            Some(Self(1 + 2 * range + mask as u8))
        } else {
            None
        }
    }

    /// Whether the register takes `value`.
    pub(super) const fn is_legal(self, value: u64, physical_address_bits: u8) -> bool {
        let address = match physical_address_bits {
            bits if bits < 64 => (1 << bits) - 1,
            _ => u64::MAX,
        };
        match self.0 {
            DEF_TYPE => is_type(value as u8) && value & !0xcff == 0,
            FIRST_FIXED.. => {
                let mut ok = true;
                let mut i = 0;
                while i < 8 {
                    ok = ok && is_type((value >> (8 * i)) as u8);
                    i += 1;
                }
                ok
            }
            slot if slot % 2 == 1 => {
                is_type(value as u8) && value & !address == 0 && value & 0xf00 == 0
            }
            _ => value & !address == 0 && value & 0x7ff == 0,
        }
    }
}

/// Memory types that MTRRs know: UC, WC, WT, WP, WB.
const fn is_type(value: u8) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}
