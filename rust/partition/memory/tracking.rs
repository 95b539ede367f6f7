// SPDX-License-Identifier: GPL-2.0

//! Which pages the guest accessed and wrote: HV_PARTITION_PROPERTY_GPA_PAGE_ACCESS_TRACKING and
//! MSHV_GET_GPAP_ACCESS_BITMAP.
//!
//! By faults, so it is the same on every CPU, and nothing must be saved when a translation goes away:
//! while tracking is on, a page of 4 KiB that is mapped has its bit of `accessed` set, one that is
//! mapped writable its bit of `dirty`. Clearing a bit takes the translation, or its right to write,
//! away first. What the VMM writes by its own mapping is not noticed; overlays are not the VMM's memory.

use super::{Memory, Region, MAX_GPA, PAGE_SIZE};
use crate::sys::bindings::*;
use crate::sys::user;
use crate::sys::window::handle_work;
use core::sync::atomic::{AtomicU64, Ordering};
use hvdef::HV_GPA_PAGE_DIRTY;
use kernel::error::{code::*, Result};
use kernel::prelude::*;

/// Pages for which one round of the ioctl holds locks.
const BATCH: u64 = 4096;
const WORDS: usize = BATCH as usize / 64;

/// One bit for each page of a region.
struct Bits(KVVec<AtomicU64>);

/// Largest region that can be tracked: 16 TiB, half a GiB of bits.
const MAX_PAGES: u64 = 1 << 32;

impl Bits {
    fn new(pages: u64) -> Result<Self> {
        if pages > MAX_PAGES {
            return Err(ENOMEM);
        }
        let words = usize::try_from(pages.div_ceil(64)).map_err(|_| ENOMEM)?;
        let mut bits = KVVec::with_capacity(words, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..words {
            bits.push(AtomicU64::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self(bits))
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        self.0.get((page / 64) as usize)
    }

    fn set(&self, page: u64) {
        if let Some(word) = self.word(page) {
            word.fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    fn test(&self, page: u64) -> bool {
        self.word(page)
            .is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (page % 64) != 0)
    }

    fn reset(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn clear(&self, page: u64) {
        if let Some(word) = self.word(page) {
            word.fetch_and(!(1 << (page % 64)), Ordering::Relaxed);
        }
    }
}

/// What is known of a region's pages.
pub(super) struct Log {
    accessed: Bits,
    dirty: Bits,
}

impl Log {
    fn new(pages: u64) -> Result<Self> {
        Ok(Self {
            accessed: Bits::new(pages)?,
            dirty: Bits::new(pages)?,
        })
    }
}

impl Region {
    /// Notes an access; under the map lock, before the page is mapped for it.
    pub(super) fn note(&self, gpa: u64, write: bool) {
        if let Some(log) = self.log.as_ref() {
            let page = gpa.wrapping_sub(self.gpa) / PAGE_SIZE;
            log.accessed.set(page);
            if write {
                log.dirty.set(page);
            }
        }
    }

    /// Makes room for the log of a region that appears, or is there when tracking begins.
    pub(super) fn start_log(&self) -> Result {
        if self.log.as_ref().is_none() {
            self.log.populate(Log::new(self.len / PAGE_SIZE)?);
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
        self.space.set_tracking(on);
        for mapped in regions.iter() {
            let region = &mapped.region;
            self.space.zap(region.gpa, region.len, || {
                if let Some(log) = region.log.as_ref() {
                    log.accessed.reset();
                    log.dirty.reset();
                }
            });
        }
        Ok(())
    }

    /// MSHV_GET_GPAP_ACCESS_BITMAP: bits as they were, then what the operation makes of them. Pages
    /// without memory read as 0.
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
            || kind >= MSHV_GPAP_ACCESS_TYPE_COUNT
            || op >= MSHV_GPAP_ACCESS_OP_COUNT
        {
            return Err(EINVAL);
        }
        let mut from = request.gpap_base;
        let mut to = request.bitmap_ptr as usize;
        while from < end {
            let pages = (end - from).min(BATCH);
            let mut bitmap = [0u64; WORDS];
            self.batch(from, pages, kind, op, &mut bitmap)?;
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
            MSHV_GPAP_ACCESS_TYPE_DIRTY
        } else {
            MSHV_GPAP_ACCESS_TYPE_ACCESSED
        };
        let op = match change {
            None => MSHV_GPAP_ACCESS_OP_NOOP,
            Some(false) => MSHV_GPAP_ACCESS_OP_CLEAR,
            Some(true) => MSHV_GPAP_ACCESS_OP_SET,
        };
        let mut bitmap = [0u64; WORDS];
        // One call's pages, a page of output, are fewer than a batch.
        self.batch(first, states.len() as u64, kind, op, &mut bitmap)?;
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

    fn batch(
        &self,
        from: u64,
        pages: u64,
        kind: u32,
        op: u32,
        bitmap: &mut [u64; WORDS],
    ) -> Result {
        let regions = self.regions.lock();
        if !self.space.is_tracking() {
            return Err(EIO);
        }
        for mapped in regions.iter() {
            let region = &mapped.region;
            let Some(log) = region.log.as_ref() else {
                continue;
            };
            let dirty = kind == MSHV_GPAP_ACCESS_TYPE_DIRTY;
            let bits = if dirty { &log.dirty } else { &log.accessed };
            let base = region.gpa / PAGE_SIZE;
            let first = from.max(base);
            let last = (from + pages).min(base + region.len / PAGE_SIZE);
            if first >= last {
                continue;
            }
            let mut take = || {
                let mut any = false;
                for page in first..last {
                    if bits.test(page - base) {
                        any = true;
                        let at = page - from;
                        if let Some(word) = bitmap.get_mut((at / 64) as usize) {
                            *word |= 1 << (at % 64);
                        }
                        if op == MSHV_GPAP_ACCESS_OP_CLEAR {
                            bits.clear(page - base);
                        }
                    }
                    if op == MSHV_GPAP_ACCESS_OP_SET {
                        bits.set(page - base);
                    }
                }
                any
            };
            let (gpa, len) = (first * PAGE_SIZE, (last - first) * PAGE_SIZE);
            if op != MSHV_GPAP_ACCESS_OP_CLEAR {
                take();
            } else if dirty {
                self.space.protect(gpa, len, take);
            } else {
                self.space.zap(gpa, len, || {
                    take();
                });
            }
        }
        Ok(())
    }
}
