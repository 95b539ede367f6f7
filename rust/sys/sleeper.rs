// SPDX-License-Identifier: GPL-2.0

//! A VP's thread waits here while the VP is halted.

use super::bindings;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use kernel::alloc::AllocError;
use kernel::error::{to_result, Result};
use kernel::sync::Arc;

/// Sleep until an event word is not zero, with a timer.
pub(crate) struct Sleeper {
    sleeper: NonNull<bindings::hvrs_sleeper>,
    _events: Arc<AtomicU32>,
}

// SAFETY: Waking is allowed from any context; waiting takes `&self` of the VP's thread only, which
// the VP's mutex ensures.
unsafe impl Send for Sleeper {}
// SAFETY: As above.
unsafe impl Sync for Sleeper {}

impl Sleeper {
    /// A sleeper on `events`, into which its timer ORs `timer_event`.
    pub(crate) fn new(events: Arc<AtomicU32>, timer_event: u32) -> Result<Self, AllocError> {
        // SAFETY: `events` is kept with the sleeper.
        let p = unsafe { bindings::hvrs_sleeper_new(events.as_ptr(), timer_event) };
        Ok(Self {
            sleeper: NonNull::new(p).ok_or(AllocError)?,
            _events: events,
        })
    }

    /// Sleeps until an event or `timeout_ns` (u64::MAX: none). EINTR on a signal.
    pub(crate) fn wait(&self, timeout_ns: u64) -> Result {
        // SAFETY: A live sleeper, task context.
        to_result(unsafe { bindings::hvrs_sleeper_wait(self.sleeper.as_ptr(), timeout_ns) })
    }

    /// Wakes the waiter, if there is one. The event must be set before.
    pub(crate) fn wake(&self) {
        // SAFETY: A live sleeper.
        unsafe { bindings::hvrs_sleeper_wake(self.sleeper.as_ptr()) }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // SAFETY: Created by `new`, freed once.
        unsafe { bindings::hvrs_sleeper_free(self.sleeper.as_ptr()) }
    }
}
