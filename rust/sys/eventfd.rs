// SPDX-License-Identifier: GPL-2.0

//! Eventfds: signalled from here, or watched.

use super::bindings;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::error::{to_result, Result};
use kernel::prelude::*;
use kernel::sync::Arc;

/// A reference to an eventfd.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: The kernel's object has its own lock.
unsafe impl Send for EventFd {}
// SAFETY: As above.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd that is the caller's descriptor `fd`. EBADF; EINVAL: it is none.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        let mut out = core::ptr::null_mut();
        // SAFETY: `out` is written on success.
        to_result(unsafe { bindings::hvrs_eventfd_get(fd, &mut out) })?;
        Ok(Self(NonNull::new(out).ok_or(EINVAL)?))
    }

    /// Adds 1 to its counter and wakes who waits for it. From any context but a [`Signalled`]'s.
    pub(crate) fn signal(&self) {
        // SAFETY: We hold a reference.
        unsafe { bindings::hvrs_eventfd_signal(self.0.as_ptr()) }
    }

    /// Whether both are the same eventfd.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: Our reference.
        unsafe { bindings::hvrs_eventfd_put(self.0.as_ptr()) }
    }
}

/// What an eventfd's signals do. Called in atomic context: no sleeping lock, no eventfd.
pub(crate) trait Signalled: Send + Sync + 'static {
    /// It was signalled.
    fn signalled(&self);
    /// Its last file was closed: no signal will come.
    fn hung_up(&self);
}

/// Takes the signals of an eventfd in place of its readers.
pub(crate) struct Watch<T: Signalled> {
    watch: NonNull<bindings::hvrs_watch>,
    target: Arc<T>,
}

// SAFETY: The C object is used by its owner only, but for the queue, which has its own lock.
unsafe impl<T: Signalled> Send for Watch<T> {}
// SAFETY: What takes `&self` only reads, or takes the queue's lock.
unsafe impl<T: Signalled> Sync for Watch<T> {}

impl<T: Signalled> Watch<T> {
    /// Of the caller's descriptor `fd`; not started. EBADF; EINVAL: not an eventfd.
    pub(crate) fn new(fd: i32, target: Arc<T>) -> Result<Self> {
        extern "C" fn call<T: Signalled>(target: *mut c_void, hung_up: bool) {
            // SAFETY: The watch keeps its target until no more calls come.
            let target = unsafe { &*target.cast_const().cast::<T>() };
            if hung_up {
                target.hung_up();
            } else {
                target.signalled();
            }
        }
        let mut out = core::ptr::null_mut();
        let context = Arc::as_ptr(&target).cast_mut().cast();
        // SAFETY: `out` is written on success; the target is kept with the watch.
        to_result(unsafe { bindings::hvrs_watch_new(fd, Some(call::<T>), context, &mut out) })?;
        Ok(Self {
            watch: NonNull::new(out).ok_or(EINVAL)?,
            target,
        })
    }

    /// Whether it watches `eventfd`.
    pub(crate) fn is_of(&self, eventfd: &EventFd) -> bool {
        self.identity() == eventfd.0.as_ptr()
    }

    /// Whether both watch the same eventfd.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    fn identity(&self) -> *mut bindings::eventfd_ctx {
        // SAFETY: A live watch.
        unsafe { bindings::hvrs_watch_eventfd(self.watch.as_ptr()) }
    }

    /// Starts it; a signal that came before counts. EBUSY: something else takes its signals.
    pub(crate) fn start(self) -> Result<Started<T>> {
        // SAFETY: A live watch, not started: `self` is consumed.
        let result = unsafe { bindings::hvrs_watch_start(self.watch.as_ptr()) };
        if result < 0 {
            return Err(Error::from_errno(result));
        }
        if result > 0 {
            self.target.signalled();
        }
        Ok(Started(self))
    }
}

impl<T: Signalled> Drop for Watch<T> {
    fn drop(&mut self) {
        // SAFETY: Created by `new`, freed once; no call of the target comes afterwards.
        unsafe { bindings::hvrs_watch_free(self.watch.as_ptr()) }
    }
}

/// A started [`Watch`].
pub(crate) struct Started<T: Signalled>(Watch<T>);

impl<T: Signalled> Started<T> {
    /// What its signals do.
    pub(crate) fn target(&self) -> &T {
        &self.0.target
    }

    /// The watch.
    pub(crate) fn watch(&self) -> &Watch<T> {
        &self.0
    }

    /// Waits until no call of the target that began before is still running.
    pub(crate) fn sync(&self) {
        // SAFETY: A live watch.
        unsafe { bindings::hvrs_watch_sync(self.0.watch.as_ptr()) }
    }
}
