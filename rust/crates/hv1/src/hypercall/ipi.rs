// SPDX-License-Identifier: GPL-2.0 OR MIT

//! HvCallSendSyntheticClusterIpi and its Ex form (H-0B, H-15).

use super::input::{vp_set, Stop, Words};
use crate::VpMask;
use hvdef::{HvHypercallInput, HvInputVtl, HV_STATUS_INVALID_PARAMETER};

/// An interrupt to VPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterIpi {
    /// Its vector.
    pub vector: u8,
    /// The VPs; those that do not exist are ignored.
    pub targets: VpMask,
}

impl ClusterIpi {
    /// Reads and judges the input.
    #[inline(always)]
    pub fn read(input: &mut impl Words, control: HvHypercallInput, ex: bool) -> Result<Self, Stop> {
        let word = input.word(0)?;
        let targets = if ex {
            vp_set(input, 1, control)?
        } else {
            VpMask::first_bank(input.word(1)?)
        };
        // Bits 63:40 are padding.
        let vector = word as u32;
        if !(0x10..=0xff).contains(&vector) || !HvInputVtl((word >> 32) as u8).is_level_0() {
            return Err(HV_STATUS_INVALID_PARAMETER.into());
        }
        Ok(Self {
            vector: vector as u8,
            targets,
        })
    }
}
