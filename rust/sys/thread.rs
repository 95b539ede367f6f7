// SPDX-License-Identifier: GPL-2.0

//! Threads that run VPs.

use kernel::bindings;
use kernel::sync::aref::ARef;
use kernel::task::Task;

/// A thread, also after its end.
#[derive(Clone)]
pub(crate) struct Thread(ARef<Task>);

/// Names a thread for as long as somebody keeps it as a [`Thread`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadId(usize);

impl ThreadId {
    /// No thread.
    pub(crate) const NONE: Self = Self(0);

    /// The calling thread's.
    #[inline]
    pub(crate) fn current() -> Self {
        Self(Task::current_raw() as usize)
    }
}

impl Thread {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        Self(ARef::from(&**kernel::current!()))
    }

    /// Gives this CPU to the thread, if it waits for one. Task context, no lock held.
    pub(crate) fn yield_to(&self) -> bool {
        // SAFETY: A task that `self` keeps; what keeps it from running meanwhile is checked there.
        unsafe { bindings::yield_to(self.0.as_ptr(), true) > 0 }
    }
}
