// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The register page.

/// The registers of a local APIC in hardware's layout: a 32-bit register at each multiple of 16.
///
/// The same page can be the *virtual-APIC page* of VMX (SDM Vol. 3, 31.1). Any content is valid,
/// so that a zeroed page from the kernel may be used as one.
#[repr(C, align(4096))]
pub struct ApicPage {
    regs: [u32; 1024],
}

impl ApicPage {
    /// A page of zeros; [`crate::Lapic::new`] gives it the state after RESET.
    pub const fn new() -> Self {
        Self { regs: [0; 1024] }
    }

    /// The 32-bit register at `offset`.
    #[inline]
    pub fn get(&self, offset: u16) -> u32 {
        self.regs[(offset >> 2) as usize & 1023]
    }

    /// Stores the 32-bit register at `offset`.
    #[inline]
    pub fn set(&mut self, offset: u16, value: u32) {
        self.regs[(offset >> 2) as usize & 1023] = value;
    }

    /// Word `i` of the 256-bit register that begins at `base`.
    #[inline]
    pub(crate) fn word(&self, base: u16, i: u8) -> u32 {
        self.get(base | (u16::from(i & 7) << 4))
    }

    /// Stores word `i` of the 256-bit register that begins at `base`.
    #[inline]
    pub(crate) fn set_word(&mut self, base: u16, i: u8, value: u32) {
        self.set(base | (u16::from(i & 7) << 4), value);
    }

    /// Whether bit `vector` of the 256-bit register that begins at `base` is set.
    #[inline]
    pub(crate) fn bit(&self, base: u16, vector: u8) -> bool {
        self.word(base, vector >> 5) & (1 << (vector & 31)) != 0
    }

    /// Sets or clears bit `vector` of the 256-bit register that begins at `base`.
    #[inline]
    pub(crate) fn set_bit(&mut self, base: u16, vector: u8, value: bool) {
        let bit = 1 << (vector & 31);
        let word = self.word(base, vector >> 5);
        self.set_word(
            base,
            vector >> 5,
            if value { word | bit } else { word & !bit },
        );
    }

    /// The highest bit set in the 256-bit register at `base`, of which only the words in `words`
    /// can be other than zero.
    #[inline]
    pub(crate) fn highest(&self, base: u16, words: u8) -> Option<u8> {
        if words == 0 {
            return None;
        }
        let i = 7 ^ words.leading_zeros() as u8;
        let word = self.word(base, i);
        if word == 0 {
            return None;
        }
        Some((i << 5) | (31 ^ word.leading_zeros() as u8))
    }

    /// Which of the eight words at `base` are not zero.
    pub(crate) fn summary(&self, base: u16) -> u8 {
        (0..8).fold(0, |words, i| {
            words | (u8::from(self.word(base, i) != 0) << i)
        })
    }

    /// Zeroes the 256-bit register at `base`.
    pub(crate) fn clear(&mut self, base: u16) {
        for i in 0..8 {
            self.set_word(base, i, 0);
        }
    }
}

impl Default for ApicPage {
    fn default() -> Self {
        Self::new()
    }
}
