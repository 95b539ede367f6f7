// SPDX-License-Identifier: GPL-2.0 OR MIT

//! CPUID results that the VMM registered (HvCallRegisterInterceptResult).

use hvdef::HvRegisterX64CpuidResultParameters as Parameters;

/// Results that a table holds: more than the 100 that QEMU registers at most.
pub const MAX_OVERRIDES: usize = 128;

/// There is no room for another result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The registered results of one VP, or of all. Bytes of zero are [`Overrides::new`].
#[derive(Clone, Debug)]
pub struct Overrides {
    /// Ordered by leaf; of one leaf the result for all subleaves comes first.
    entries: [Parameters; MAX_OVERRIDES],
    len: usize,
    /// By [`slot`]: number of a leaf's first entry plus one; 0: it has none.
    first: [u8; 64],
}

/// The place in `first` of leaves that guests ask for again and again.
#[inline(always)]
const fn slot(leaf: u32) -> Option<usize> {
    match leaf {
        0..=0x1f => Some(leaf as usize),
        0x8000_0000..=0x8000_001f => Some(32 + (leaf & 0x1f) as usize),
        _ => None,
    }
}

/// What entries are ordered by and unique in.
#[inline(always)]
const fn key(p: &Parameters) -> (u32, bool, u32) {
    let specific = p.subleaf_specific != 0;
    (
        p.input_eax,
        specific,
        if specific { p.input_ecx } else { 0 },
    )
}

impl Overrides {
    /// No result.
    pub const fn new() -> Self {
        Self {
            entries: [<Parameters as hvdef::Wire>::ZERO; MAX_OVERRIDES],
            len: 0,
            first: [0; 64],
        }
    }

    #[inline(always)]
    fn used(&self) -> &[Parameters] {
        self.entries.get(..self.len).unwrap_or_default()
    }

    /// Registers a result; it takes the place of an earlier one for the same leaf and subleaf.
    pub fn register(&mut self, parameters: &Parameters) -> Result<(), Full> {
        let at = self.used().partition_point(|p| key(p) < key(parameters));
        let same = self
            .used()
            .get(at)
            .is_some_and(|p| key(p) == key(parameters));
        if !same {
            if self.len == MAX_OVERRIDES {
                return Err(Full);
            }
            self.len += 1;
            if let Some(moved) = self.entries.get_mut(at..self.len) {
                moved.rotate_right(1);
            }
        }
        *self.entries.get_mut(at).ok_or(Full)? = *parameters;
        // From the end, so that a leaf's first entry stays.
        for number in (0..self.len).rev() {
            let leaf = self.entries.get(number).map(|p| p.input_eax);
            let first = leaf
                .and_then(slot)
                .and_then(|slot| self.first.get_mut(slot));
            if let Some(first) = first {
                *first = number as u8 + 1;
            }
        }
        Ok(())
    }

    /// Registers all that `other` holds. In place: a table is too large for the stack.
    pub fn copy_from(&mut self, other: &Self) {
        self.entries.copy_from_slice(&other.entries);
        self.len = other.len;
        self.first = other.first;
    }

    /// Forgets all results.
    pub fn clear(&mut self) {
        self.len = 0;
        self.first = [0; 64];
    }

    /// Whether nothing is registered.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `result` with what is registered for the leaf put over it; `None` if nothing is. A result for the very subleaf
    /// comes after one for all of them.
    #[inline(always)]
    pub fn apply(&self, leaf: u32, subleaf: u32, mut result: [u32; 4]) -> Option<[u32; 4]> {
        let used = self.used();
        let first = match slot(leaf).and_then(|slot| self.first.get(slot)) {
            Some(0) => return None,
            Some(number) => usize::from(*number) - 1,
            None => used.partition_point(|p| p.input_eax < leaf),
        };
        let mut found = false;
        for p in used.iter().skip(first).take_while(|p| p.input_eax == leaf) {
            if p.subleaf_specific != 0 && p.input_ecx != subleaf {
                continue;
            }
            found = true;
            let [eax, ebx, ecx, edx] = &mut result;
            for (reg, value, mask) in [
                (eax, p.eax, p.eax_mask),
                (ebx, p.ebx, p.ebx_mask),
                (ecx, p.ecx, p.ecx_mask),
                (edx, p.edx, p.edx_mask),
            ] {
                *reg = *reg & !mask | value & mask;
            }
        }
        found.then_some(result)
    }
}

impl Default for Overrides {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ebx(leaf: u32, subleaf: Option<u32>, value: u32, mask: u32) -> Parameters {
        Parameters {
            input_eax: leaf,
            input_ecx: subleaf.unwrap_or(0),
            subleaf_specific: u8::from(subleaf.is_some()),
            ebx: value,
            ebx_mask: mask,
            ..Default::default()
        }
    }

    #[test]
    fn masks() {
        let mut o = Overrides::new();
        assert_eq!(o.apply(1, 0, [1, 2, 3, 4]), None);
        o.register(&ebx(1, None, 0xff00, 0x0f00)).unwrap();
        assert_eq!(
            o.apply(1, 9, [1, 0xffff_ffff, 3, 4]),
            Some([1, 0xffff_ffff, 3, 4])
        );
        assert_eq!(o.apply(1, 9, [1, 0, 3, 4]), Some([1, 0xf00, 3, 4]));
        assert_eq!(o.apply(2, 0, [0; 4]), None);
    }

    #[test]
    fn subleaves_and_replacement() {
        let mut o = Overrides::new();
        o.register(&ebx(7, Some(1), 1, !0)).unwrap();
        o.register(&ebx(7, None, 2, !0)).unwrap();
        assert_eq!(o.apply(7, 0, [0; 4]), Some([0, 2, 0, 0]));
        assert_eq!(o.apply(7, 1, [0; 4]), Some([0, 1, 0, 0]));
        o.register(&ebx(7, Some(1), 3, !0)).unwrap();
        assert_eq!(o.apply(7, 1, [0; 4]), Some([0, 3, 0, 0]));
        let mut copy = Overrides::new();
        copy.copy_from(&o);
        assert_eq!(copy.apply(7, 1, [0; 4]), Some([0, 3, 0, 0]));
        assert_eq!(copy.apply(7, 2, [0; 4]), Some([0, 2, 0, 0]));
        o.clear();
        assert!(o.is_empty());
    }

    /// Leaves with and without a slot, registered in any order, with subleaves before and after.
    #[test]
    fn every_leaf_is_found() {
        let leaves = [
            0x1f,
            0,
            0x4000_0000,
            0x8000_0008,
            0x20,
            4,
            0x8000_0000,
            0x8000_001f,
        ];
        let mut o = Overrides::new();
        for (i, &leaf) in leaves.iter().enumerate() {
            for subleaf in [Some(2), None, Some(1)] {
                let value = 16 * i as u32 + subleaf.unwrap_or(0);
                o.register(&ebx(leaf, subleaf, value, !0)).unwrap();
            }
        }
        for (i, &leaf) in leaves.iter().enumerate() {
            for (subleaf, own) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
                let wanted = 16 * i as u32 + own;
                assert_eq!(o.apply(leaf, subleaf, [0; 4]), Some([0, wanted, 0, 0]));
            }
            assert_eq!(
                o.apply(leaf + 1, 0, [0; 4]).is_some(),
                leaves.contains(&(leaf + 1))
            );
        }
        o.clear();
        assert_eq!(o.apply(4, 0, [0; 4]), None);
    }

    #[test]
    fn capacity() {
        let mut o = Overrides::new();
        for i in 0..MAX_OVERRIDES as u32 {
            o.register(&ebx(i, None, i, !0)).unwrap();
        }
        assert_eq!(o.register(&ebx(0x100, None, 0, 0)), Err(Full));
        assert_eq!(o.register(&ebx(5, None, 99, !0)), Ok(()));
        assert_eq!(o.apply(5, 0, [0; 4]), Some([0, 99, 0, 0]));
    }
}
