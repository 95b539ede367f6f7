// SPDX-License-Identifier: GPL-2.0 OR MIT

//! XSAVE areas as bytes: between the standard format, in which the module keeps a VP's state, and the compacted one, in
//! which GET_VP_STATE and SET_VP_STATE move it (SDM volume 1, sections 13.4 and 13.8).

use super::{XsaveModel, FIRST, XSAVE_MIN_SIZE};
use hvdef::Wire;

const MXCSR: usize = 24;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const HEADER_RESERVED: core::ops::Range<usize> = 528..576;
const HEADER_END: usize = XSAVE_MIN_SIZE as usize;
const COMPACTED: u64 = 1 << 63;

/// An area that XRSTOR would refuse, or a buffer that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadArea;

fn word(area: &[u8], at: usize) -> Result<u64, BadArea> {
    area.get(at..).and_then(u64::read).ok_or(BadArea)
}

fn put_word(area: &mut [u8], at: usize, value: u64) -> Result<(), BadArea> {
    area.get_mut(at..)
        .and_then(|rest| value.write(rest))
        .ok_or(BadArea)
}

/// Copies `size` bytes; zeroes if `from` is `None`.
fn copy(
    out: &mut [u8],
    to: usize,
    area: &[u8],
    from: Option<usize>,
    size: usize,
) -> Result<(), BadArea> {
    let target = out
        .get_mut(to..)
        .and_then(|rest| rest.get_mut(..size))
        .ok_or(BadArea)?;
    match from {
        Some(from) => {
            let source = area
                .get(from..)
                .and_then(|rest| rest.get(..size))
                .ok_or(BadArea)?;
            target.copy_from_slice(source);
        }
        None => target.fill(0),
    }
    Ok(())
}

impl XsaveModel {
    /// Whether XRSTOR of all the guest's components takes `area`, which is in the standard format. `mxcsr_mask` is
    /// the host's.
    pub fn check(&self, area: &[u8], mxcsr_mask: u32) -> Result<(), BadArea> {
        let components = word(area, XSTATE_BV)?;
        let mxcsr = area.get(MXCSR..).and_then(u32::read).ok_or(BadArea)?;
        let reserved = area.get(HEADER_RESERVED).ok_or(BadArea)?;
        if components & !self.xcr0 != 0
            || word(area, XCOMP_BV)? != 0
            || mxcsr & !mxcsr_mask != 0
            || reserved.iter().any(|&b| b != 0)
            || area.len() < self.standard_size(self.xcr0) as usize
        {
            return Err(BadArea);
        }
        Ok(())
    }

    /// Components from the third on that are in `mask`: number, offset in the compacted format, offset in the standard
    /// format, size.
    fn layout(&self, mask: u64) -> impl Iterator<Item = (u32, usize, usize, usize)> + '_ {
        let mut next = XSAVE_MIN_SIZE;
        (0u32..)
            .zip(self.components.iter())
            .filter_map(move |(i, c)| {
                if i < FIRST || (mask & self.xcr0) & (1 << i) == 0 {
                    return None;
                }
                if c.align64 {
                    next = next.saturating_add(63) & !63;
                }
                let at = next;
                next = next.saturating_add(c.size);
                Some((i, at as usize, c.offset as usize, c.size as usize))
            })
    }

    /// Writes `area`, which is in the standard format, into `out` in the compacted format, with all the guest's
    /// components; returns the size.
    pub fn compact(&self, area: &[u8], out: &mut [u8]) -> Result<usize, BadArea> {
        let present = word(area, XSTATE_BV)? & self.xcr0;
        copy(out, 0, area, Some(0), XSTATE_BV)?;
        copy(out, XSTATE_BV, area, None, HEADER_END - XSTATE_BV)?;
        put_word(out, XSTATE_BV, present)?;
        put_word(out, XCOMP_BV, COMPACTED | self.xcr0)?;
        let mut end = HEADER_END;
        for (i, to, from, size) in self.layout(self.xcr0) {
            let from = (present & (1 << i) != 0).then_some(from);
            // What alignment leaves between two components is zero too.
            copy(out, end, area, None, to.saturating_sub(end))?;
            copy(out, to, area, from, size)?;
            end = to.saturating_add(size);
        }
        Ok(end)
    }

    /// Writes `area`, which is in the compacted or the standard format, into `out` in the standard format, if XRSTOR
    /// takes it; if not, `out` holds rubbish.
    pub fn expand(&self, area: &[u8], out: &mut [u8], mxcsr_mask: u32) -> Result<(), BadArea> {
        let format = word(area, XCOMP_BV)?;
        let present = word(area, XSTATE_BV)?;
        let components = format & !COMPACTED;
        let compacted = format & COMPACTED != 0;
        let legal = if compacted {
            components & !self.xcr0 == 0 && present & !components == 0
        } else {
            format == 0
        };
        if !legal {
            return Err(BadArea);
        }
        let end = self.standard_size(self.xcr0) as usize;
        copy(out, 0, area, Some(0), HEADER_END)?;
        copy(out, HEADER_END, area, None, end.saturating_sub(HEADER_END))?;
        put_word(out, XCOMP_BV, 0)?;
        for (i, at, to, size) in self.layout(if compacted { components } else { self.xcr0 }) {
            if present & (1 << i) != 0 {
                copy(out, to, area, Some(if compacted { at } else { to }), size)?;
            }
        }
        self.check(out, mxcsr_mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{build, everything, machine, xorshift};
    use std::vec;
    use std::vec::Vec;

    const MASK: u32 = 0xffff;

    /// A standard area with random contents of the components `present`.
    fn random_area(model: &XsaveModel, present: u64, rng: &mut u64) -> Vec<u8> {
        let mut area = vec![0u8; model.standard_size(model.xcr0()) as usize];
        for b in &mut area[..XSTATE_BV] {
            *b = xorshift(rng) as u8;
        }
        area[MXCSR + 2..MXCSR + 4].fill(0);
        put_word(&mut area, XSTATE_BV, present).unwrap();
        for (i, _, at, size) in model.layout(model.xcr0()) {
            if present & (1 << i) != 0 {
                for b in &mut area[at..at + size] {
                    *b = xorshift(rng) as u8;
                }
            }
        }
        area
    }

    #[test]
    fn there_and_back() {
        let m = build(&everything, &machine());
        let x = m.xsave();
        let mut rng = 17;
        for _ in 0..500 {
            let present = xorshift(&mut rng) & x.xcr0();
            let area = random_area(x, present, &mut rng);
            let mut compacted = vec![0xaa; 4096];
            let size = x.compact(&area, &mut compacted).unwrap();
            assert_eq!(size, x.compacted_size(x.xcr0()) as usize);
            let mut back = vec![0x55; 4096];
            x.expand(&compacted[..size], &mut back, MASK).unwrap();
            assert_eq!(back[..area.len()], area);
            // The standard format is taken too.
            x.expand(&area, &mut back, MASK).unwrap();
            assert_eq!(back[..area.len()], area);
            assert_eq!(x.compact(&area, &mut compacted[..size - 1]), Err(BadArea));
        }
    }

    /// A compacted area need not have room for all components.
    #[test]
    fn fewer_components() {
        let m = build(&everything, &machine());
        let x = m.xsave();
        let mut area = vec![0u8; 576 + 8];
        put_word(&mut area, XSTATE_BV, 0x200).unwrap();
        put_word(&mut area, XCOMP_BV, COMPACTED | 0x203).unwrap();
        area[576] = 0x55;
        let mut out = vec![0; 4096];
        x.expand(&area, &mut out, MASK).unwrap();
        assert_eq!(out[2688], 0x55);
    }

    #[test]
    fn refused() {
        let m = build(&everything, &machine());
        let x = m.xsave();
        let good = random_area(x, 7, &mut 5);
        let mut out = vec![0; 4096];
        let mut bad = |at: usize, value: u8| {
            let mut area = good.clone();
            area[at] = value;
            x.expand(&area, &mut out, MASK)
        };
        assert_eq!(bad(XSTATE_BV, 7), Ok(()));
        assert_eq!(bad(XSTATE_BV, 0x1f), Err(BadArea));
        assert_eq!(bad(XSTATE_BV + 7, 0x80), Err(BadArea));
        assert_eq!(bad(XCOMP_BV, 1), Err(BadArea));
        assert_eq!(bad(XCOMP_BV + 7, 0x80), Err(BadArea));
        assert_eq!(bad(HEADER_RESERVED.start, 1), Err(BadArea));
        assert_eq!(bad(HEADER_RESERVED.end - 1, 1), Err(BadArea));
        assert_eq!(bad(MXCSR + 2, 1), Err(BadArea));
        for len in [0, 24, 512, 519, 575] {
            assert_eq!(
                x.expand(&good[..len], &mut out, MASK),
                Err(BadArea),
                "{len}"
            );
        }
        assert_eq!(x.expand(&good, &mut [0; 600], MASK), Err(BadArea));
    }

    /// Random bytes never panic, and what is accepted passes the check.
    #[test]
    fn garbage() {
        let m = build(&everything, &machine());
        let x = m.xsave();
        let mut rng = 3;
        let mut out = vec![0; 4096];
        for _ in 0..2000 {
            let len = xorshift(&mut rng) as usize % 4097;
            let mut area: Vec<u8> = (0..len).map(|_| xorshift(&mut rng) as u8).collect();
            if len >= 576 && xorshift(&mut rng) & 1 == 0 {
                area[528..576].fill(0);
                area[26..28].fill(0);
                let xcomp = COMPACTED | xorshift(&mut rng) & x.xcr0();
                put_word(&mut area, XCOMP_BV, xcomp).unwrap();
                put_word(
                    &mut area,
                    XSTATE_BV,
                    xorshift(&mut rng) & xcomp & !COMPACTED,
                )
                .unwrap();
            }
            if x.expand(&area, &mut out, MASK).is_ok() {
                assert!(x.check(&out, MASK).is_ok());
            }
        }
    }
}
