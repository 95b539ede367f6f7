// SPDX-License-Identifier: GPL-2.0

//! The guest-physical address space as the CPU sees it: one EPT, its flushes, its overlays.
//!
//! What takes a translation away bumps the root's generation, kicks the VPs that are in guest
//! mode and waits until each has left it once; only then are pages and tables reused. VPs take
//! the lock only outside of windows, so that waiting for them under it cannot deadlock.

mod tracking;

pub(crate) use self::tracking::AccessKind;
use super::access_log::Log;
use crate::sys::direct_map::DirectMap;
use crate::sys::ept_frames::{Refill, TableFrames, ZAP_BUDGET};
use crate::sys::guest_memory::Age;
use crate::sys::host;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use ept::{
    Change, Ept, EptConfig, Eptp, Gpa, GpaRange, GuestMode, MapError, Mapping, PageSize, Rights,
    RootGeneration, Spa,
};
use hv1::MAX_VPS;
use kernel::error::{code::*, Result};
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, SpinLock};

/// Overlay pages of a partition: four, five of each VP, and those of 8 monitor ports and of 8 connections to such.
const MAX_OVERLAYS: usize = 5 * MAX_VPS as usize + 4 + 2 * super::ports::MOST_MONITORS;

static NEXT_ROOT: AtomicU64 = AtomicU64::new(1);

struct Overlay {
    gpn: u64,
    spa: u64,
    rights: Rights,
}

/// Memory of the VMM's that is the guest's.
pub(crate) struct UserRange {
    pub(crate) uaddr: u64,
    pub(crate) gpa: u64,
    pub(crate) len: u64,
    pub(crate) writable: bool,
    /// While accesses are tracked, and afterwards.
    pub(crate) log: Option<Arc<Log>>,
}

impl UserRange {
    /// Where [start, end) of the process is in the guest.
    fn guest(&self, start: u64, end: u64) -> Option<GpaRange> {
        let start = start.max(self.uaddr);
        let end = end.min(self.uaddr + self.len);
        let len = end.checked_sub(start).filter(|len| *len != 0)?;
        Some(GpaRange::from_len(
            Gpa(self.gpa + (start - self.uaddr)),
            len,
        ))
    }
}

struct Tree {
    /// Taken out by drop.
    ept: Option<Ept>,
    frames: TableFrames,
    /// For who has an address of the VMM's and must not sleep.
    user: KVec<UserRange>,
    /// Has capacity for [`MAX_OVERLAYS`]: it grows under a spinlock. Later ones lie on top.
    overlays: KVVec<Overlay>,
}

/// A page of which a VP knows that the guest can write to no memory there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMemory {
    gpn: u64,
    layout: u64,
}

impl NoMemory {
    /// It knows none.
    pub(crate) const UNKNOWN: Self = Self {
        gpn: u64::MAX,
        layout: 0,
    };
}

/// What is done to many leaves.
#[derive(Clone, Copy)]
enum Sweep {
    /// They go; while accesses are tracked, what they know of those is noted.
    Zap,
    /// They go.
    Forget,
    /// They tell of accesses from now on.
    BeginTracking,
}

/// One guest-physical address space.
#[pin_data]
pub(crate) struct Space {
    #[pin]
    tree: SpinLock<Tree>,
    /// Value of EPT_POINTER.
    pub(crate) eptp: u64,
    /// Flush generation of the root.
    pub(crate) generation: RootGeneration,
    /// Per VP: whether it is in guest mode, and where.
    /// Those with an index below this may be.
    vps_end: AtomicU32,
    guest_mode: [GuestMode; MAX_VPS as usize],
    max_leaf: PageSize,
    /// The CPU has accessed and dirty flags in the EPT.
    has_access_flags: bool,
    /// Changes with what is the VMM's memory or an overlay.
    layout: AtomicU64,
    /// Accesses are tracked, by pages of 4 KiB.
    tracking: AtomicBool,
    /// ITLB_MULTIHIT: code runs from 4 KiB pages only.
    code_in_small_pages: bool,
    direct_map: DirectMap,
}

/// Outcome of [`Space::map`].
#[derive(PartialEq, Eq, Clone, Copy)]
pub(crate) enum MapOutcome {
    /// The access can be tried again.
    Done,
    /// The frames ran out, or the page moved: fault it in again.
    Retry,
    /// Smaller pages are mapped there: map a small one.
    Occupied,
}

impl Space {
    /// An empty space.
    pub(crate) fn new(config: EptConfig) -> Result<Arc<Self>> {
        let mut frames = TableFrames::new(Refill::new()?)?;
        let overlays = KVVec::with_capacity(MAX_OVERLAYS, GFP_KERNEL_ACCOUNT)?;
        let ept = Ept::new(&mut frames, config).map_err(|_| ENOMEM)?;
        let eptp = ept.eptp().0;
        Arc::pin_init(
            try_pin_init!(Self {
                tree <- new_spinlock!(Tree {
                    ept: Some(ept),
                    frames,
                    user: KVec::new(),
                    overlays,
                }),
                eptp,
                generation: RootGeneration::new(NEXT_ROOT.fetch_add(1, Ordering::Relaxed)),
                vps_end: AtomicU32::new(0),
                guest_mode: [const { GuestMode::new() }; MAX_VPS as usize],
                max_leaf: config.max_leaf,
                has_access_flags: config.accessed_dirty,
                layout: AtomicU64::new(0),
                tracking: AtomicBool::new(false),
                code_in_small_pages: host::itlb_multihit(),
                direct_map: DirectMap::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Before the VP runs.
    pub(crate) fn add_vp(&self, index: u32) {
        self.vps_end.fetch_max(index + 1, Ordering::SeqCst);
    }

    /// All VPs have an index below this.
    #[inline]
    pub(crate) fn vps_end(&self) -> u32 {
        // SeqCst: a flush that misses a new VP has bumped the generation before that VP announces guest mode.
        self.vps_end.load(Ordering::SeqCst)
    }

    /// The guest-mode word of a VP.
    #[inline]
    pub(crate) fn guest_mode(&self, vp: u32) -> Option<&GuestMode> {
        self.guest_mode.get(vp as usize)
    }

    /// Where the page at `gpa` is in the machine, if the guest could read it now. Without the lock,
    /// and only by a VP that announced guest mode: the page stays there until it leaves.
    #[inline]
    pub(crate) fn readable_page(&self, gpa: u64) -> Option<u64> {
        let look = |at: Spa| self.direct_map.word(at.0);
        let (page, rights) = ept::lookup(Eptp(self.eptp), Gpa(gpa), look)?;
        rights.read.then_some(page.0)
    }

    /// The word at `spa`, which is in a page of [`Self::readable_page`].
    #[inline]
    pub(crate) fn read_word(&self, spa: u64) -> Option<u64> {
        self.direct_map.word(spa)
    }

    /// Whether only a fault tells of a write.
    pub(crate) fn tracks_by_faults(&self) -> bool {
        self.is_tracking() && !self.has_access_flags
    }

    /// The largest leaf for memory that the guest may, or may not, execute.
    pub(crate) fn max_leaf(&self, execute: bool) -> PageSize {
        if self.is_tracking() || execute && self.code_in_small_pages {
            PageSize::Size4K
        } else {
            self.max_leaf
        }
    }

    /// Whether a leaf of this size may be executable.
    pub(crate) fn may_execute(&self, size: PageSize) -> bool {
        size == PageSize::Size4K || !self.code_in_small_pages
    }

    /// Maps `mapping` at `gpa` unless `moved()`, asked under the lock, says that it is stale.
    ///
    /// # Errors
    ///
    /// ENOMEM; EIO if the tree refuses what no caller should ask for.
    pub(crate) fn map(
        &self,
        gpa: u64,
        mapping: Mapping,
        moved: impl FnOnce() -> bool,
    ) -> Result<MapOutcome> {
        let mut refill = if self.tree.lock().frames.is_low() {
            Some(Refill::new()?)
        } else {
            None
        };
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        if let Some(refill) = &mut refill {
            tree.frames.refill(refill);
        }
        if moved() {
            return Ok(MapOutcome::Retry);
        }
        let Some(ept) = &mut tree.ept else {
            return Err(EIO);
        };
        // An overlay hides the page under it: nothing larger, and nothing else, may cover it.
        let pages = mapping.size.bytes() >> 12;
        let base = gpa >> 12;
        if let Some(o) = tree
            .overlays
            .iter()
            .rfind(|o| o.gpn.wrapping_sub(base) < pages)
        {
            if pages > 1 || o.spa != mapping.spa.0 {
                return Ok(MapOutcome::Retry);
            }
        }
        match ept.map(&mut tree.frames, Gpa(gpa), &mapping) {
            Ok(mapped) => {
                if mapped.flush {
                    self.flush();
                    tree.frames.free_retired();
                }
                let _: Change = mapped.change;
                Ok(MapOutcome::Done)
            }
            Err(MapError::NoFrame) => Ok(MapOutcome::Retry),
            Err(MapError::Occupied) => Ok(MapOutcome::Occupied),
            // An overlay came or went.
            Err(MapError::Conflict(_)) => {
                self.zap_locked(tree, GpaRange::from_len(Gpa(gpa), mapping.size.bytes()));
                Ok(MapOutcome::Retry)
            }
            Err(_) => Err(EIO),
        }
    }

    /// Takes all translations of [gpa, gpa + len) away; when it returns, no VP uses them.
    /// `under_lock` runs first, under the map lock.
    pub(crate) fn zap(&self, gpa: u64, len: u64, under_lock: impl FnOnce()) {
        let mut guard = self.tree.lock();
        under_lock();
        self.zap_locked(&mut guard, GpaRange::from_len(Gpa(gpa), len));
    }

    fn zap_locked(&self, tree: &mut Tree, range: GpaRange) {
        self.sweep_locked(tree, range, Sweep::Zap, usize::MAX);
    }

    /// Does that to the leaves of `range`, in at most so many steps of [`ZAP_BUDGET`]. Where to go on.
    fn sweep_locked(
        &self,
        tree: &mut Tree,
        range: GpaRange,
        what: Sweep,
        steps: usize,
    ) -> Option<Gpa> {
        let ept = tree.ept.as_mut()?;
        let user = &tree.user;
        let notes = matches!(what, Sweep::Zap) && self.is_tracking();
        let mut from = range.start();
        let mut next = None;
        let mut changed = false;
        for _ in 0..steps {
            let rest = GpaRange::new(from, range.end());
            let progress = match what {
                Sweep::Zap | Sweep::Forget => {
                    ept.unmap(&mut tree.frames, rest, ZAP_BUDGET, |leaf| {
                        if notes {
                            tracking::note(user, leaf);
                        }
                    })
                }
                Sweep::BeginTracking => ept.begin_tracking(&mut tree.frames, rest, ZAP_BUDGET),
            };
            changed |= progress.any;
            next = progress.next;
            if changed && tree.frames.retired_full() {
                self.flush();
                tree.frames.free_retired();
                changed = false;
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        if changed || tree.frames.has_retired() {
            self.flush();
            tree.frames.free_retired();
        }
        next
    }

    /// Waits until no VP can use a translation that was taken away before the call. Under the map
    /// lock: a second zap must not return before the first has waited.
    fn flush(&self) {
        // Asked for each time, so not before the generation has changed.
        let vps = (0..MAX_VPS).take_while(|vp| *vp < self.vps_end());
        ept::flush(
            &self.generation,
            vps.filter_map(|vp| self.guest_mode(vp)),
            host::kick_cpu,
            host::cpu_relax,
        );
    }

    /// Tells what is now the guest's of the VMM's memory.
    pub(crate) fn set_user_ranges(&self, mut ranges: KVec<UserRange>) {
        let mut tree = self.tree.lock();
        ::core::mem::swap(&mut tree.user, &mut ranges);
        self.layout.fetch_add(1, Ordering::Relaxed);
        drop(tree);
        // The old ones are freed without the lock.
    }

    /// Whether the guest can write to memory at `gpa`, mapped now or not. In a window, too: it does not wait for the lock; None: ask
    /// again. `known`: what the VP learnt the last time.
    pub(crate) fn is_memory(&self, gpa: u64, known: &mut NoMemory) -> Option<bool> {
        let asked = NoMemory {
            gpn: gpa >> 12,
            layout: self.layout.load(Ordering::Relaxed),
        };
        if asked == *known {
            return Some(false);
        }
        let tree = self.tree.try_lock()?;
        let here = |r: &UserRange| r.writable && gpa.wrapping_sub(r.gpa) < r.len;
        let memory = tree.user.iter().any(here) || tree.overlays.iter().any(|o| o.gpn == asked.gpn);
        if !memory {
            *known = asked;
        }
        Some(memory)
    }

    /// Whether accesses are tracked. What depends on it is asked again under the map lock.
    pub(crate) fn is_tracking(&self) -> bool {
        self.tracking.load(Ordering::Relaxed)
    }

    /// Runs `write`, which writes to the memory at `gpa`, under the map lock: who takes the memory away waits. None: it
    /// failed, or an overlay is there.
    pub(crate) fn write(&self, gpa: u64, write: impl FnOnce() -> bool) -> Option<()> {
        let tree = self.tree.lock();
        let hidden = tree.overlays.iter().any(|o| o.gpn == gpa >> 12);
        if hidden || !write() {
            return None;
        }
        if self.is_tracking() {
            tracking::note_page(&tree.user, gpa, true, true);
        }
        Some(())
    }

    /// Returns when every VP has left guest mode once.
    pub(crate) fn drive_out(&self) {
        let _tree = self.tree.lock();
        self.flush();
    }

    /// The overlay page at `gpn`, if there is one.
    pub(crate) fn overlay(&self, gpn: u64) -> Option<Mapping> {
        let tree = self.tree.lock();
        tree.overlays
            .iter()
            .rfind(|o| o.gpn == gpn)
            .map(|o| Mapping::overlay(Spa(o.spa), o.rights))
    }

    /// Whether an overlay is in the `pages` pages from `gpn`.
    pub(crate) fn has_overlay(&self, gpn: u64, pages: u64) -> bool {
        let tree = self.tree.lock();
        tree.overlays
            .iter()
            .any(|o| o.gpn.wrapping_sub(gpn) < pages)
    }

    /// Shows the page `spa` at `gpn`, above whatever is there, or (`None`) nowhere.
    ///
    /// # Errors
    ///
    /// ENOSPC.
    pub(crate) fn place_overlay(&self, spa: u64, gpn: Option<u64>, rights: Rights) -> Result {
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        self.layout.fetch_add(1, Ordering::Relaxed);
        if let Some(i) = tree.overlays.iter().position(|o| o.spa == spa) {
            if let Ok(old) = tree.overlays.remove(i) {
                self.zap_locked(tree, GpaRange::from_len(Gpa(old.gpn << 12), 4096));
            }
        }
        let Some(gpn) = gpn else {
            return Ok(());
        };
        let overlay = Overlay { gpn, spa, rights };
        tree.overlays
            .push_within_capacity(overlay)
            .map_err(|_| ENOSPC)?;
        self.zap_locked(tree, GpaRange::from_len(Gpa(gpn << 12), 4096));
        Ok(())
    }
}

impl Age for Space {
    /// By the accessed flags of the CPU; where it has none, what was looked at faults when it is accessed again.
    fn age(&self, start: u64, end: u64, clear: bool) -> bool {
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        let Some(ept) = &mut tree.ept else {
            return false;
        };
        let tracking = self.is_tracking();
        let mut accessed = false;
        for range in tree.user.iter().filter_map(|user| user.guest(start, end)) {
            let mut from = range.start();
            loop {
                let rest = GpaRange::new(from, range.end());
                let progress = if clear {
                    ept.clear_accessed(&tree.frames, rest, 512, |leaf| {
                        if tracking {
                            tracking::note(&tree.user, leaf);
                        }
                    })
                } else {
                    ept.test_accessed(&tree.frames, rest, 512)
                };
                accessed |= progress.any;
                match progress.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        accessed
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // No VP is left: nothing runs on this root, and its id is never used again.
        let Some(mut ept) = self.ept.take() else {
            return;
        };
        let mut from = Gpa(0);
        loop {
            let rest = GpaRange::new(from, GpaRange::ALL.end());
            let progress = ept.unmap(&mut self.frames, rest, ZAP_BUDGET, |_| ());
            self.frames.free_retired();
            match progress.next {
                Some(next) => from = next,
                None => break,
            }
        }
        ept.destroy(&mut self.frames, |_| ());
        self.frames.free_retired();
    }
}
