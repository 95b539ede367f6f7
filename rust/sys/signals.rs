// SPDX-License-Identifier: GPL-2.0

//! How many signals a thread has handled. A signal that a VMM's thread handles outside of RUN_VP
//! leaves no trace in its task, so they are counted as the kernel delivers them (tracepoint
//! `signal_deliver`).

use super::bindings;
use kernel::error::{to_result, Result};

/// While it is kept, signals are counted.
pub(crate) struct Counting(());

impl Counting {
    /// Begins; there is one at a time.
    pub(crate) fn begin() -> Result<Self> {
        // SAFETY: Ended by drop, before the module goes.
        to_result(unsafe { bindings::hvrs_signals_begin() })?;
        Ok(Self(()))
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // SAFETY: Begun in `begin`.
        unsafe { bindings::hvrs_signals_end() };
    }
}

/// Changes if the calling thread has run a signal's handler since; not for a signal that ended
/// RUN_VP with EINTR. Threads share counters: it may change for another's signal, too.
#[inline]
pub(crate) fn handled_by_current() -> u32 {
    // SAFETY: Reads a counter.
    unsafe { bindings::hvrs_signals_handled() }
}
