// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whom a guest's call is about: its own partition, one of its VPs, at level 0.

use super::input::{Stop, Words};
use hvdef::{
    HvInputVtl, HV_PARTITION_ID_SELF, HV_STATUS_INVALID_PARAMETER, HV_STATUS_INVALID_PARTITION_ID,
    HV_STATUS_INVALID_VTL_STATE, HV_VP_INDEX_SELF,
};

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Requester {
    /// Id of its partition.
    pub partition_id: u64,
    /// Its index.
    pub vp_index: u32,
}

impl Requester {
    /// A guest has no other partition (H-P2).
    #[inline]
    fn check_partition(&self, id: u64) -> Result<(), Stop> {
        if id == HV_PARTITION_ID_SELF || id == self.partition_id {
            Ok(())
        } else {
            Err(HV_STATUS_INVALID_PARTITION_ID.into())
        }
    }

    #[inline]
    fn resolve(&self, index: u32) -> u32 {
        if index == HV_VP_INDEX_SELF {
            self.vp_index
        } else {
            index
        }
    }

    /// Header of HvCallGetVpRegisters and HvCallSetVpRegisters (H-50, H-51): the VP.
    pub fn of_registers(&self, input: &mut impl Words) -> Result<u32, Stop> {
        let (partition, word) = (input.word(0)?, input.word(1)?);
        self.check_partition(partition)?;
        // Bits 63:40 must be zero.
        if word >> 40 != 0 || !HvInputVtl((word >> 32) as u8).is_level_0() {
            return Err(HV_STATUS_INVALID_PARAMETER.into());
        }
        Ok(self.resolve(word as u32))
    }

    /// Header of HvCallGetVpIndexFromApicId (H-9A).
    pub fn of_apic_ids(&self, input: &mut impl Words) -> Result<(), Stop> {
        let (partition, word) = (input.word(0)?, input.word(1)?);
        self.check_partition(partition)?;
        check_vtl(word as u8)
    }

    /// Header of HvCallStartVirtualProcessor (H-99): the VP, and the status should it exist.
    pub fn of_start(&self, input: &mut impl Words) -> Result<(u32, Result<(), Stop>), Stop> {
        let (partition, word) = (input.word(0)?, input.word(1)?);
        self.check_partition(partition)?;
        Ok((self.resolve(word as u32), check_vtl((word >> 32) as u8)))
    }
}

/// An `HV_VTL`: there is no level but 0.
#[inline]
fn check_vtl(vtl: u8) -> Result<(), Stop> {
    if vtl == 0 {
        Ok(())
    } else {
        Err(HV_STATUS_INVALID_VTL_STATE.into())
    }
}
