// SPDX-License-Identifier: GPL-2.0

//! The VMM's calls about guest memory: HvCallReadGpa, HvCallWriteGpa, HvCallGetGpaPagesAccessStates.

use super::memory::{Access, Resolved};
use super::Partition;
use crate::sys::window::handle_work;
use hvdef::*;
use kernel::error::code::EIO;

/// HV_CACHE_TYPE_X64_*: uncached, write combining, write through, write protected, write back.
const CACHE_TYPES: [u64; 5] = [0, 1, 4, 5, 6];
const MAX_BYTES: u32 = 16;

/// Judges the arguments: how many bytes, or the result that says why there are none.
fn check(
    partition: &Partition,
    place: &HvInputReadGpa,
    access: Access,
) -> HvResult<Result<usize, u32>> {
    let (gpa, count) = (place.base_gpa, place.byte_count);
    if count == 0
        || count > MAX_BYTES
        || (gpa & 0xfff) + u64::from(count) > 4096
        || !CACHE_TYPES.contains(&place.control_flags)
    {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    partition
        .check_creator()
        .map_err(|_| HV_STATUS_ACCESS_DENIED)?;
    if partition.memory.space.has_overlay(gpa >> 12, 1) {
        return Ok(Err(HV_ACCESS_GPA_ILLEGAL_OVERLAY_ACCESS));
    }
    Ok(match resolve(partition, gpa, access)? {
        Resolved::Mapped => Ok(count as usize),
        Resolved::Unmapped => Err(HV_ACCESS_GPA_UNMAPPED),
        Resolved::Denied => Err(HV_ACCESS_GPA_WRITE_INTERCEPT),
    })
}

fn resolve(partition: &Partition, gpa: u64, access: Access) -> HvResult<Resolved> {
    let outcome = partition.memory.resolve(gpa, access, &mut (0..0));
    outcome.map_err(|_| HV_STATUS_OPERATION_FAILED)
}

/// HvCallReadGpa.
pub(super) fn read(partition: &Partition, place: &HvInputReadGpa) -> HvResult<HvOutputReadGpa> {
    let mut bytes = [0; MAX_BYTES as usize];
    let result_code = match check(partition, place, Access::Read)? {
        Err(code) => code,
        Ok(count) => bytes
            .get_mut(..count)
            .and_then(|to| partition.memory.read(place.base_gpa, to))
            .map_or(HV_ACCESS_GPA_UNMAPPED, |()| HV_ACCESS_GPA_SUCCESS),
    };
    Ok(HvOutputReadGpa {
        result_code,
        reserved: 0,
        data: HvU128::read(&bytes).unwrap_or(Wire::ZERO),
    })
}

/// HvCallWriteGpa.
pub(super) fn write(
    partition: &Partition,
    request: &HvInputWriteGpa,
) -> HvResult<HvOutputWriteGpa> {
    let place = &request.place;
    let mut bytes = [0; MAX_BYTES as usize];
    let _ = request.data.write(&mut bytes);
    let result_code = loop {
        let count = match check(partition, place, Access::Write)? {
            Err(code) => break code,
            Ok(count) => count,
        };
        let from = bytes.get(..count).unwrap_or(&[]);
        if partition.memory.write(place.base_gpa, from).is_some() {
            break HV_ACCESS_GPA_SUCCESS;
        }
        // It went away since the check.
        handle_work().map_err(|_| HV_STATUS_OPERATION_FAILED)?;
    };
    Ok(HvOutputWriteGpa {
        result_code,
        reserved: 0,
    })
}

/// HvCallGetGpaPagesAccessStates: one byte of `output` for each page.
pub(super) fn access_states(
    partition: &Partition,
    request: &HvInputGetGpaPagesAccessStates,
    output: &mut [u8],
) -> HvResult<()> {
    use HV_GPA_PAGE_ACCESS_STATE_CLEAR_ACCESSED as CLEAR_ACCESSED;
    use HV_GPA_PAGE_ACCESS_STATE_CLEAR_DIRTY as CLEAR_DIRTY;
    use HV_GPA_PAGE_ACCESS_STATE_SET_ACCESSED as SET_ACCESSED;
    use HV_GPA_PAGE_ACCESS_STATE_SET_DIRTY as SET_DIRTY;
    let flags = request.flags;
    let (accessed, dirty) = (CLEAR_ACCESSED | SET_ACCESSED, CLEAR_DIRTY | SET_DIRTY);
    if flags & !(accessed | dirty) != 0 || flags & accessed == accessed || flags & dirty == dirty {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    output.fill(0);
    for (state, clear, set) in [
        (HV_GPA_PAGE_ACCESSED, CLEAR_ACCESSED, SET_ACCESSED),
        (HV_GPA_PAGE_DIRTY, CLEAR_DIRTY, SET_DIRTY),
    ] {
        let change = match (flags & clear != 0, flags & set != 0) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        };
        partition
            .memory
            .access_states(request.gpa_page, state, change, output)
            .map_err(|e| match e {
                // Tracking is off.
                EIO => HV_STATUS_INVALID_PARTITION_STATE,
                _ => HV_STATUS_INVALID_PARAMETER,
            })?;
    }
    Ok(())
}
