// SPDX-License-Identifier: GPL-2.0

//! The VMM's memory as guest-physical memory: regions, and faults on them.
//!
//! Nothing is pinned. A fault asks the VMM's page tables (HMM), maps what it finds, and an
//! interval notifier takes it away again when the VMM's memory changes.

mod tracking;

use super::access_log::Log;
use super::space::{MapOutcome, Space, UserRange};
use crate::sys::bindings::mshv_user_mem_region;
use crate::sys::guest_memory::{self, Ageing, Fault, Invalidate, Invalidation, Mapping};
use crate::sys::user;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ept::{PageSize, Rights, Spa};
use kernel::error::{code::*, Result};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex, SetOnce};

const PAGE_SIZE: u64 = 4096;
/// Regions that a partition may have; more than any VMM uses, and a bound for the search.
const MAX_REGIONS: usize = 512;
/// Guest-physical addresses are at most this wide: 4 EPT levels.
const MAX_GPA: u64 = 1 << 48;

const WRITABLE: u8 = 1;
const EXECUTABLE: u8 = 2;
const UNMAP: u8 = 4;

/// What a guest did to a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

/// What became of a guest's access.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The instruction can run again.
    Mapped,
    /// No memory there.
    Unmapped,
    /// Memory without that right.
    Denied,
}

/// One SET_GUEST_MEMORY.
struct Region {
    gpa: u64,
    len: u64,
    uaddr: u64,
    writable: bool,
    executable: bool,
    removed: AtomicBool,
    /// Made when accesses are tracked.
    log: SetOnce<Arc<Log>>,
    space: Arc<Space>,
}

impl Region {
    fn contains(&self, gpa: u64) -> bool {
        gpa.wrapping_sub(self.gpa) < self.len
    }
}

impl Invalidate for Region {
    fn invalidate(&self, change: &Invalidation) {
        let start = (change.start as u64).max(self.uaddr);
        let end = (change.end as u64).min(self.uaddr + self.len);
        let len = end.saturating_sub(start);
        let gpa = self.gpa + start.saturating_sub(self.uaddr);
        self.space.zap(gpa, len, || change.record());
    }
}

/// A region and the notifier that follows its memory.
struct Mapped {
    // Dropped first: the notifier calls into the region.
    mapping: Mapping,
    region: Pin<KBox<Region>>,
}

/// Where all regions, and one more, are in the VMM; in their order.
fn user_ranges(regions: &[Arc<Mapped>], more: Option<&Region>) -> Result<KVec<UserRange>> {
    let mut ranges = KVec::with_capacity(regions.len() + 1, GFP_KERNEL_ACCOUNT)?;
    let regions = regions.iter().map(|mapped| &*mapped.region);
    for r in Iterator::chain(regions, more) {
        let range = UserRange {
            uaddr: r.uaddr,
            gpa: r.gpa,
            len: r.len,
            writable: r.writable,
            log: r.log.as_ref().cloned(),
        };
        ranges.push(range, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(ranges)
}

/// The regions of a partition.
#[pin_data]
pub(crate) struct Memory {
    /// The address space they are mapped into.
    pub(crate) space: Arc<Space>,
    #[pin]
    regions: Mutex<KVec<Arc<Mapped>>>,
    /// Bytes in regions.
    pub(crate) bytes: AtomicU64,
    /// So that the kernel takes the memory that the guest does not use.
    _ageing: Ageing<Space>,
}

impl Memory {
    /// No regions yet, of the calling process's memory.
    pub(crate) fn new(space: Arc<Space>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _ageing: Ageing::begin(space.clone())?,
            space,
            regions <- new_mutex!(KVec::new()),
            bytes: AtomicU64::new(0),
        }? Error)
    }

    /// SET_GUEST_MEMORY. EINVAL for a malformed one, for one that begins where the caller has no
    /// memory, and for an unmap of another region than there is; EEXIST for an overlap; ENOENT for
    /// an unmap where no region is.
    pub(crate) fn set(&self, r: &mshv_user_mem_region) -> Result {
        if r.flags & !(WRITABLE | EXECUTABLE | UNMAP) != 0 || r.rsvd != [0; 7] {
            return Err(EINVAL);
        }
        let gpa = r
            .guest_pfn
            .checked_mul(PAGE_SIZE)
            .filter(|gpa| *gpa < MAX_GPA)
            .ok_or(EINVAL)?;
        let aligned = (r.size | r.userspace_addr) % PAGE_SIZE == 0 && r.size != 0;
        let ends = (
            gpa.checked_add(r.size),
            r.userspace_addr.checked_add(r.size),
        );
        let (true, (Some(end), Some(_))) = (aligned, ends) else {
            return Err(EINVAL);
        };
        if end > MAX_GPA {
            return Err(EINVAL);
        }
        if r.flags & UNMAP != 0 {
            self.remove(gpa, r)
        } else {
            self.add(gpa, r)
        }
    }

    fn add(&self, gpa: u64, r: &mshv_user_mem_region) -> Result {
        if !guest_memory::caller_has(r.userspace_addr as usize) {
            return Err(EINVAL);
        }
        let region = KBox::pin(
            Region {
                gpa,
                len: r.size,
                uaddr: r.userspace_addr,
                writable: r.flags & WRITABLE != 0,
                executable: r.flags & EXECUTABLE != 0,
                removed: AtomicBool::new(false),
                log: SetOnce::new(),
                space: self.space.clone(),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let mut regions = self.regions.lock();
        if regions
            .iter()
            .any(|o| gpa < o.region.gpa + o.region.len && o.region.gpa < gpa + r.size)
        {
            return Err(EEXIST);
        }
        if regions.len() >= MAX_REGIONS {
            return Err(ENOSPC);
        }
        if self.space.is_tracking() {
            region.start_log()?;
        }
        let mapping = Mapping::follow(r.userspace_addr as usize, r.size as usize, &region)?;
        let mapped = Arc::new(Mapped { mapping, region }, GFP_KERNEL_ACCOUNT)?;
        regions.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let ranges = user_ranges(&regions, Some(&mapped.region))?;
        regions.push(mapped, GFP_KERNEL_ACCOUNT)?;
        self.space.set_user_ranges(ranges);
        self.bytes.fetch_add(r.size, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, gpa: u64, r: &mshv_user_mem_region) -> Result {
        let removed = {
            let mut regions = self.regions.lock();
            let mut all = regions.iter();
            let index = all.position(|o| o.region.contains(gpa)).ok_or(ENOENT)?;
            let is_it = regions.get(index).is_some_and(|o| {
                let o = &o.region;
                o.gpa == gpa && o.len == r.size && o.uaddr == r.userspace_addr
            });
            if !is_it {
                return Err(EINVAL);
            }
            let mut ranges = user_ranges(&regions, None)?;
            let _ = ranges.remove(index);
            self.space.set_user_ranges(ranges);
            regions.remove(index).map_err(|_| ENOENT)?
        };
        self.bytes.fetch_sub(r.size, Ordering::Relaxed);
        self.space.zap(gpa, r.size, || {
            removed.region.removed.store(true, Ordering::Relaxed)
        });
        Ok(())
    }

    fn find(&self, gpa: u64) -> Option<Arc<Mapped>> {
        let regions = self.regions.lock();
        regions.iter().find(|m| m.region.contains(gpa)).cloned()
    }

    /// Makes the access to `gpa` possible, or says why not; `ram` becomes the region around it. May sleep.
    ///
    /// # Errors
    ///
    /// EFAULT: the VMM has no such memory (any more); ENOMEM; EINTR.
    pub(crate) fn resolve(
        &self,
        gpa: u64,
        access: Access,
        ram: &mut Range<u64>,
    ) -> Result<Resolved> {
        let mut small = false;
        loop {
            if let Some(overlay) = self.space.overlay(gpa >> 12) {
                if access == Access::Write && !overlay.rights.write {
                    return Ok(Resolved::Denied);
                }
                if self.space.map(gpa & !0xfff, overlay, || false)? == MapOutcome::Done {
                    return Ok(Resolved::Mapped);
                }
                continue;
            }
            let Some(mapped) = self.find(gpa) else {
                return Ok(Resolved::Unmapped);
            };
            let region = &mapped.region;
            let denied = match access {
                Access::Read => false,
                Access::Write => !region.writable,
                Access::Execute => !region.executable,
            };
            if denied {
                return Ok(Resolved::Denied);
            }
            let uaddr = region.uaddr + (gpa - region.gpa);
            let fault = match mapped
                .mapping
                .fault(uaddr as usize, access == Access::Write)
            {
                Err(EAGAIN) => {
                    crate::sys::window::handle_work()?;
                    continue;
                }
                other => other?,
            };
            let tracking = self.space.is_tracking();
            let write = access == Access::Write || !self.space.tracks_by_faults();
            let rights = Rights {
                read: true,
                write: region.writable && fault.writable && write,
                execute: region.executable,
            };
            let largest = if small {
                PageSize::Size4K
            } else {
                self.space.max_leaf(access == Access::Execute)
            };
            let (base, mapping) = self.leaf(region, gpa, uaddr, &fault, rights, largest);
            let moved = || {
                mapped.mapping.retry(fault.seq)
                    || region.removed.load(Ordering::Relaxed)
                    || self.space.is_tracking() != tracking
            };
            match self.space.map(base, mapping, moved)? {
                MapOutcome::Done => {
                    *ram = region.gpa..region.gpa + region.len;
                    return Ok(Resolved::Mapped);
                }
                MapOutcome::Retry => {}
                MapOutcome::Occupied => small = true,
            }
            crate::sys::window::handle_work()?;
        }
    }

    /// The largest leaf around `gpa` for which guest-physical, user and system addresses agree.
    fn leaf(
        &self,
        region: &Region,
        gpa: u64,
        uaddr: u64,
        fault: &Fault,
        rights: Rights,
        largest: PageSize,
    ) -> (u64, ept::Mapping) {
        let spa = fault.pfn << 12;
        for (size, order) in [(PageSize::Size1G, 18), (PageSize::Size2M, 9)] {
            if size > largest || fault.order < order {
                continue;
            }
            let mask = size.bytes() - 1;
            let base = gpa & !mask;
            let inside = base >= region.gpa && base + size.bytes() <= region.gpa + region.len;
            if inside
                && gpa & mask == uaddr & mask
                && (gpa & mask & !0xfff) == spa & mask
                && !self.space.has_overlay(base >> 12, size.bytes() >> 12)
            {
                let rights = Rights {
                    execute: rights.execute && self.space.may_execute(size),
                    ..rights
                };
                return (base, ept::Mapping::ram(Spa(spa & !mask), size, rights));
            }
        }
        (
            gpa & !0xfff,
            ept::Mapping::ram(Spa(spa), PageSize::Size4K, rights),
        )
    }

    /// Reads guest memory below overlays, in the VMM's process; None where there is none.
    pub(crate) fn read(&self, gpa: u64, to: &mut [u8]) -> Option<()> {
        let (addr, len) = self.user_address(gpa)?;
        if len < to.len() {
            return None;
        }
        user::read_bytes(addr, to).ok()
    }

    /// Writes guest memory in one page, in the VMM's process; None where there is none that the guest could write, where
    /// an overlay is, and where [`Self::resolve`] must bring it in first.
    ///
    /// Under the map lock, and so before or after UNMAP, not in the middle.
    pub(crate) fn write(&self, gpa: u64, from: &[u8]) -> Option<()> {
        self.change(gpa, from.len() as u64, |addr| {
            user::write_bytes_nofault(addr, from)
        })
    }

    /// Atomically makes `new` of `old`, an entry of page tables of 8 bytes if `wide`, else 4. False: it was not `old`. None
    /// as for [`Self::write`].
    pub(crate) fn exchange(&self, gpa: u64, wide: bool, old: u64, new: u64) -> Option<bool> {
        let mut exchanged = false;
        self.change(gpa, if wide { 8 } else { 4 }, |addr| {
            let outcome = user::exchange_nofault(addr, wide, old, new);
            exchanged = outcome == Some(true);
            outcome.is_some()
        })?;
        Some(exchanged)
    }

    fn change(&self, gpa: u64, len: u64, change: impl FnOnce(usize) -> bool) -> Option<()> {
        let mapped = self.find(gpa)?;
        let region = &mapped.region;
        let offset = gpa - region.gpa;
        if !region.writable || region.len - offset < len {
            return None;
        }
        let addr = (region.uaddr + offset) as usize;
        self.space.write(gpa, || {
            !region.removed.load(Ordering::Relaxed) && change(addr)
        })
    }

    /// The VMM's address of the guest's memory at `gpa`, and how many bytes follow in one piece.
    pub(crate) fn user_address(&self, gpa: u64) -> Option<(usize, usize)> {
        let mapped = self.find(gpa)?;
        let offset = gpa - mapped.region.gpa;
        Some((
            (mapped.region.uaddr + offset) as usize,
            (mapped.region.len - offset) as usize,
        ))
    }
}
