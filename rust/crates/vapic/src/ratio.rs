// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Conversion between clocks without a 128-bit division.

/// A ratio of two frequencies as `mult / 2^shift`, with 62 significant bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    mult: u64,
    shift: u32,
}

impl Ratio {
    /// `numerator / denominator`, rounded down; both from 1 to 2^43, and at most 2^22 apart, so
    /// that `shift` is between 40 and 84.
    pub(crate) fn new(numerator: u64, denominator: u64) -> Self {
        let denominator = denominator.max(1);
        let mut mult = numerator / denominator;
        let mut remainder = numerator % denominator;
        let mut shift = 0;
        // Long division: one more binary place in each step.
        while mult < 1 << 62 && shift < 96 {
            remainder <<= 1;
            mult <<= 1;
            shift += 1;
            if remainder >= denominator {
                remainder -= denominator;
                mult |= 1;
            }
        }
        Self { mult, shift }
    }

    /// `value` converted, with 32 fractional bits.
    #[inline]
    pub(crate) fn apply_q32(self, value: u64) -> u128 {
        (u128::from(value) * u128::from(self.mult)).wrapping_shr(self.shift.saturating_sub(32))
    }

    /// `value` converted and rounded up.
    #[inline]
    pub(crate) fn apply_ceil(self, value: u64) -> u64 {
        let product = u128::from(value) * u128::from(self.mult);
        let below_one = 1u128.wrapping_shl(self.shift).wrapping_sub(1);
        product.saturating_add(below_one).wrapping_shr(self.shift) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Ratio;

    #[test]
    fn agrees_with_128_bit_division() {
        let hz = [
            1_000u64,
            999_999,
            200_000_000,
            2_893_299_000,
            3_500_000_000,
            4_294_967_295,
        ];
        for a in hz {
            for b in hz.into_iter().filter(|b| a.max(*b) / a.min(*b) < 1 << 22) {
                let ratio = Ratio::new(a, b);
                for value in [1u64, 2, 3, 17, 12345, 0xFFFF_FFFF, 0xFFFF_FFFF << 7] {
                    let exact = u128::from(value) * u128::from(a) / u128::from(b);
                    let got = ratio.apply_q32(value) >> 32;
                    assert!(exact - got <= 1, "{value} * {a} / {b}: {got}, not {exact}");
                    let exact = (u128::from(value) * u128::from(a)).div_ceil(u128::from(b));
                    let got = u128::from(ratio.apply_ceil(value));
                    assert!(exact - got <= 1, "{value} * {a} / {b}: {got}, not {exact}");
                }
            }
        }
    }

    #[test]
    fn whole_ratios_are_exact() {
        let ratio = Ratio::new(3_000_000_000, 200_000_000);
        assert_eq!(ratio.apply_q32(1000), 15_000 << 32);
        assert_eq!(ratio.apply_ceil(1000), 15_000);
    }
}
