// SPDX-License-Identifier: GPL-2.0

//! Which pages the guest accessed and wrote: HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING and
//! MSHV_GET_GPAP_ACCESS_BITMAP.
//!
//! What the VMM writes by its own mapping is not noticed; overlays are not the VMM's memory.

use super::{user_ranges, Memory, Region, MAX_GPA, PAGE_SIZE};
use crate::partition::access_log::Log;
use crate::partition::space::AccessKind;
use crate::sys::bindings::*;
use crate::sys::user;
use crate::sys::window::handle_work;
use hvdef::HV_GPA_PAGE_DIRTY;
use kernel::error::{code::*, Result};
use kernel::prelude::*;
use kernel::sync::Arc;

/// Pages for which one round of the ioctl holds locks.
const BATCH: u64 = 4096;
const WORDS: usize = BATCH as usize / 64;

impl Region {
    /// Makes room for the log of a region that appears, or is there when tracking begins.
    pub(super) fn start_log(&self) -> Result {
        if self.log.as_ref().is_none() {
            let log = Arc::new(Log::new(self.len / PAGE_SIZE)?, GFP_KERNEL_ACCOUNT)?;
            self.log.populate(log);
        }
        Ok(())
    }
}

impl Memory {
    /// Sets HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING. Bits begin as 0; large pages come back
    /// when it ends.
    pub(crate) fn track(&self, on: bool) -> Result {
        let regions = self.regions.lock();
        if self.space.is_tracking() == on {
            return Ok(());
        }
        if on {
            for mapped in regions.iter() {
                mapped.region.start_log()?;
            }
        }
        self.space.set_user_ranges(user_ranges(&regions, None)?);
        self.space.track(on);
        Ok(())
    }

    /// MSHV_GET_GPAP_ACCESS_BITMAP: bits as they were, then what the operation makes of them: as in
    /// Linux, a page that is not accessed is not dirty, one that is dirty is accessed. Pages without
    /// memory read as 0.
    ///
    /// # Errors
    ///
    /// EINVAL: a malformed argument; EIO: tracking is off; EFAULT; EINTR.
    pub(crate) fn access_bitmap(&self, arg: usize) -> Result {
        let request: mshv_gpap_access_bitmap = user::read(arg)?;
        let (kind, op) = (u32::from(request.access_type), u32::from(request.access_op));
        let end = request.gpap_base.checked_add(request.page_count);
        let end = end
            .filter(|end| *end <= MAX_GPA / PAGE_SIZE)
            .ok_or(EINVAL)?;
        if request.rsvd != [0; 6]
            || request.page_count == 0
            || request.bitmap_ptr == 0
            || kind >= MSHV_GPAP_ACCESS_TYPE_COUNT
            || op >= MSHV_GPAP_ACCESS_OP_COUNT
        {
            return Err(EINVAL);
        }
        let kind = if kind == MSHV_GPAP_ACCESS_TYPE_DIRTY {
            AccessKind::Dirty
        } else {
            AccessKind::Accessed
        };
        let change = match op {
            MSHV_GPAP_ACCESS_OP_CLEAR => Some(false),
            MSHV_GPAP_ACCESS_OP_SET => Some(true),
            _ => None,
        };
        let implied = match (kind, change) {
            (AccessKind::Accessed, Some(false)) => Some(AccessKind::Dirty),
            (AccessKind::Dirty, Some(true)) => Some(AccessKind::Accessed),
            _ => None,
        };
        let mut from = request.gpap_base;
        let mut to = request.bitmap_ptr as usize;
        while from < end {
            let pages = (end - from).min(BATCH);
            let mut bitmap = [0u64; WORDS];
            self.space
                .accesses(from, pages, kind, change, &mut bitmap)?;
            if let Some(kind) = implied {
                self.space.accesses(from, pages, kind, change, &mut [])?;
            }
            let mut bytes = [0u8; WORDS * 8];
            for (out, word) in bytes.chunks_exact_mut(8).zip(&bitmap) {
                out.copy_from_slice(&word.to_le_bytes());
            }
            let len = pages.div_ceil(8) as usize;
            user::write_bytes(to, bytes.get(..len).ok_or(EINVAL)?)?;
            to = to.checked_add(len).ok_or(EFAULT)?;
            from += pages;
            handle_work()?;
        }
        Ok(())
    }

    /// HvCallGetGpaPagesAccessStates for one kind of bit: adds `state` to the bytes of pages that have it, then makes
    /// it what `change` says.
    ///
    /// # Errors
    ///
    /// EINVAL: there are no such pages; EIO: tracking is off.
    pub(crate) fn access_states(
        &self,
        first: u64,
        state: u8,
        change: Option<bool>,
        states: &mut [u8],
    ) -> Result {
        let end = first.checked_add(states.len() as u64);
        end.filter(|end| *end <= MAX_GPA / PAGE_SIZE)
            .ok_or(EINVAL)?;
        let kind = if state == HV_GPA_PAGE_DIRTY {
            AccessKind::Dirty
        } else {
            AccessKind::Accessed
        };
        let mut bitmap = [0u64; WORDS];
        // One call's pages, a page of output, are fewer than a batch.
        let pages = states.len() as u64;
        self.space
            .accesses(first, pages, kind, change, &mut bitmap)?;
        for (page, out) in states.iter_mut().enumerate() {
            if bitmap
                .get(page / 64)
                .is_some_and(|w| w >> (page % 64) & 1 != 0)
            {
                *out |= state;
            }
        }
        Ok(())
    }
}
