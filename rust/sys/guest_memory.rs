// SPDX-License-Identifier: GPL-2.0

//! Follows a range of a process's memory without pinning it (HMM and interval notifiers), and tells the kernel what of it is
//! used (an MMU notifier).

use super::bindings;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::error::{to_result, Result};
use kernel::prelude::*;
use kernel::sync::Arc;

/// A change of the process's memory that a mapping's owner is told of.
pub(crate) struct Invalidation {
    mapping: *mut bindings::hvrs_mapping,
    seq: usize,
    /// First byte.
    pub(crate) start: usize,
    /// First byte behind it.
    pub(crate) end: usize,
}

impl Invalidation {
    /// Makes [`Mapping::retry`] true for faults that began before. Under the owner's lock.
    pub(crate) fn record(&self) {
        // SAFETY: The mapping lives while its callback runs.
        unsafe { bindings::hvrs_mapping_set_seq(self.mapping, self.seq) }
    }
}

/// What a mapping tells its owner.
pub(crate) trait Invalidate: Send + Sync {
    /// Forget [change.start, change.end) before returning; never sleeps. The owner calls
    /// [`Invalidation::record`] under the lock under which it asks [`Mapping::retry`].
    fn invalidate(&self, change: &Invalidation);
}

/// A page of the process, as found by [`Mapping::fault`].
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// For [`Mapping::retry`].
    pub(crate) seq: usize,
    /// System page number.
    pub(crate) pfn: u64,
    /// The process maps `1 << order` pages around it by one entry.
    pub(crate) order: u32,
    /// It may be written.
    pub(crate) writable: bool,
}

/// An interval notifier over [start, start + len) of the creating process.
pub(crate) struct Mapping(NonNull<bindings::hvrs_mapping>);

// SAFETY: The C object is used under its own locking rules from any thread.
unsafe impl Send for Mapping {}
// SAFETY: As above.
unsafe impl Sync for Mapping {}

/// Whether the caller has memory at `addr`, in use or not.
pub(crate) fn caller_has(addr: usize) -> bool {
    let task = kernel::current!();
    task.mm()
        .is_some_and(|mm| mm.mmap_read_lock().vma_lookup(addr).is_some())
}

impl Mapping {
    /// Starts following [start, start + len) of the caller's memory; `owner`, which must live
    /// longer than the mapping (a field declared after it), is told of changes.
    pub(crate) fn follow<T: Invalidate>(
        start: usize,
        len: usize,
        owner: &Pin<KBox<T>>,
    ) -> Result<Self> {
        extern "C" fn call<T: Invalidate>(
            context: *mut c_void,
            mapping: *mut bindings::hvrs_mapping,
            start: usize,
            end: usize,
            seq: usize,
        ) {
            // SAFETY: `context` is the owner, which outlives the mapping.
            unsafe { &*(context as *const T) }.invalidate(&Invalidation {
                mapping,
                seq,
                start,
                end,
            });
        }
        let mut out = core::ptr::null_mut();
        // SAFETY: Task context; `out` is written on success.
        to_result(unsafe {
            bindings::hvrs_mapping_new(
                start,
                len,
                Some(call::<T>),
                core::ptr::from_ref(&**owner).cast_mut().cast(),
                &mut out,
            )
        })?;
        // SAFETY: Not null after success.
        Ok(Self(unsafe { NonNull::new_unchecked(out) }))
    }

    /// Faults the page at `addr` in; may sleep. EAGAIN: it moved, try again.
    pub(crate) fn fault(&self, addr: usize, write: bool) -> Result<Fault> {
        let mut out = bindings::hvrs_fault::default();
        // SAFETY: A live mapping, task context, `addr` inside by the caller's region look-up; HMM
        // checks it against the VMAs.
        to_result(unsafe { bindings::hvrs_mapping_fault(self.0.as_ptr(), addr, write, &mut out) })?;
        Ok(Fault {
            seq: out.seq,
            pfn: out.pfn,
            order: out.order,
            writable: out.writable,
        })
    }

    /// Whether an invalidation came between [`Self::fault`] and now. Under the owner's lock.
    pub(crate) fn retry(&self, seq: usize) -> bool {
        // SAFETY: A live mapping; the caller holds the lock that `invalidate` takes.
        unsafe { bindings::hvrs_mapping_retry(self.0.as_ptr(), seq) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: Created by `new`; removal waits for running callbacks.
        unsafe { bindings::hvrs_mapping_free(self.0.as_ptr()) }
    }
}

/// What the kernel asks about a process's memory before it takes some of it.
pub(crate) trait Age: Send + Sync {
    /// Whether memory in [start, end) was accessed; if `clear`, as if it never had been from now on. Never sleeps.
    fn age(&self, start: u64, end: u64, clear: bool) -> bool;
}

/// Lets `T` answer for the memory of the process that creates this.
pub(crate) struct Ageing<T: Age> {
    ager: NonNull<bindings::hvrs_ager>,
    /// Called until the notifier is gone.
    _target: Arc<T>,
}

// SAFETY: The C object is only freed, which any thread may do.
unsafe impl<T: Age> Send for Ageing<T> {}
// SAFETY: As above.
unsafe impl<T: Age> Sync for Ageing<T> {}

impl<T: Age> Ageing<T> {
    /// Begins, for the caller's process.
    pub(crate) fn begin(target: Arc<T>) -> Result<Self> {
        extern "C" fn call<T: Age>(
            target: *mut c_void,
            start: usize,
            end: usize,
            clear: bool,
        ) -> bool {
            // SAFETY: The notifier keeps its target until no more calls come.
            let target = unsafe { &*target.cast_const().cast::<T>() };
            target.age(start as u64, end as u64, clear)
        }
        let mut out = core::ptr::null_mut();
        let context = Arc::as_ptr(&target).cast_mut().cast();
        // SAFETY: Task context; `out` is written on success; the target is kept.
        to_result(unsafe { bindings::hvrs_ager_new(Some(call::<T>), context, &mut out) })?;
        Ok(Self {
            ager: NonNull::new(out).ok_or(ENOMEM)?,
            _target: target,
        })
    }
}

impl<T: Age> Drop for Ageing<T> {
    fn drop(&mut self) {
        // SAFETY: Made by `begin`, freed once; waits for running calls.
        unsafe { bindings::hvrs_ager_free(self.ager.as_ptr()) }
    }
}
