// SPDX-License-Identifier: GPL-2.0

//! Which pages the guest accessed and wrote. Leaves of 4 KiB tell: by the CPU's flags, or, where it has none, because a page is
//! mapped, and mapped writable, only for an access that needs it. What a leaf tells goes to the region's log before the leaf
//! or its flags go, so that log and leaves together know all.

use super::{Space, Sweep, Tree, UserRange};
use core::sync::atomic::Ordering;
use ept::{Gpa, GpaRange, Leaf};
use kernel::error::{code::EIO, Result};

/// What is asked about a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessKind {
    Accessed,
    Dirty,
}

/// What a leaf knows. Overlays are not the VMM's memory.
pub(super) fn note(user: &[UserRange], leaf: &Leaf) {
    if !leaf.overlay {
        note_page(user, leaf.gpa.0, leaf.accessed, leaf.dirty);
    }
}

/// An access of the page at `gpa`.
pub(super) fn note_page(user: &[UserRange], gpa: u64, accessed: bool, dirty: bool) {
    let range = user.iter().find(|r| gpa.wrapping_sub(r.gpa) < r.len);
    if let Some((range, log)) = range.and_then(|r| Some((r, r.log.as_ref()?))) {
        log.note((gpa - range.gpa) >> 12, accessed, dirty);
    }
}

impl Space {
    /// Begins or ends tracking, for which all ranges have logs; of what was before, nothing is known then. Large pages come back
    /// when it ends.
    pub(crate) fn track(&self, on: bool) {
        let what = if on && self.has_access_flags {
            Sweep::BeginTracking
        } else {
            Sweep::Forget
        };
        let mut tree = self.tree.lock();
        self.tracking.store(on, Ordering::Relaxed);
        for log in tree.user.iter().filter_map(|r| r.log.as_ref()) {
            log.reset();
        }
        // What is mapped while the lock is free is as tracking wants it.
        const STEPS: usize = 64;
        let end = GpaRange::ALL.end();
        let mut from = self.sweep_locked(&mut tree, GpaRange::ALL, what, STEPS);
        while let Some(start) = from {
            drop(tree);
            tree = self.tree.lock();
            from = self.sweep_locked(&mut tree, GpaRange::new(start, end), what, STEPS);
        }
    }

    /// Sets the bits in `bitmap` of those of `pages` pages from page `first` on that were accessed in this way; then makes all their
    /// bits what `change` says. When it returns, an access that comes later is noticed.
    ///
    /// # Errors
    ///
    /// EIO: tracking is off.
    pub(crate) fn accesses(
        &self,
        first: u64,
        pages: u64,
        kind: AccessKind,
        change: Option<bool>,
        bitmap: &mut [u64],
    ) -> Result {
        let mut guard = self.tree.lock();
        let tree = &mut *guard;
        if !self.is_tracking() {
            return Err(EIO);
        }
        let range = GpaRange::from_len(Gpa(first << 12), pages << 12);
        self.ask_leaves(tree, range, kind, change == Some(false));
        for r in &tree.user {
            let Some(log) = &r.log else {
                continue;
            };
            let bits = match kind {
                AccessKind::Accessed => &log.accessed,
                AccessKind::Dirty => &log.dirty,
            };
            let base = r.gpa >> 12;
            for page in first.max(base)..(first + pages).min(base + (r.len >> 12)) {
                let at = page - first;
                if bits.test(page - base) {
                    if let Some(word) = bitmap.get_mut((at / 64) as usize) {
                        *word |= 1 << (at % 64);
                    }
                }
                match change {
                    None => {}
                    Some(true) => bits.set(page - base),
                    Some(false) => bits.clear(page - base),
                }
            }
        }
        Ok(())
    }

    /// Takes what the leaves of `range` know into the logs, and away from the leaves if `clear`.
    fn ask_leaves(&self, tree: &mut Tree, range: GpaRange, kind: AccessKind, clear: bool) {
        const BUDGET: usize = 512;
        let (user, frames) = (&tree.user, &tree.frames);
        let Some(ept) = &mut tree.ept else {
            return;
        };
        let (mut from, mut cleared) = (range.start(), false);
        loop {
            let rest = GpaRange::new(from, range.end());
            let note = |leaf: &Leaf| note(user, leaf);
            let progress = match (clear, kind) {
                (false, _) => ept.for_each_leaf(frames, rest, BUDGET, note),
                (true, AccessKind::Dirty) => ept.clear_dirty(frames, rest, BUDGET, note),
                (true, AccessKind::Accessed) => ept.clear_accessed(frames, rest, BUDGET, note),
            };
            cleared |= clear && progress.any;
            match progress.next {
                Some(next) => from = next,
                None => break,
            }
        }
        // A CPU that has the translation notices no access before it has forgotten it.
        if cleared {
            self.flush();
        }
    }
}
