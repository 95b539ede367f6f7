// SPDX-License-Identifier: GPL-2.0

//! A mutex whose waiter a signal can end: a VP's is held for as long as RUN_VP runs.

use core::cell::UnsafeCell;
use kernel::bindings;
use kernel::error::{code::EINTR, Result};
use kernel::prelude::*;
use kernel::sync::LockClassKey;
use kernel::types::Opaque;

/// A mutex around a `T`.
#[pin_data]
pub(crate) struct InterruptibleMutex<T> {
    #[pin]
    mutex: Opaque<bindings::mutex>,
    value: UnsafeCell<T>,
}

// SAFETY: As for any mutex.
unsafe impl<T: Send> Send for InterruptibleMutex<T> {}
// SAFETY: As for any mutex.
unsafe impl<T: Send> Sync for InterruptibleMutex<T> {}

impl<T> InterruptibleMutex<T> {
    /// An unlocked one.
    pub(crate) fn new(
        value: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            mutex <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is ours to initialise; name and key are static.
                unsafe { bindings::__mutex_init(slot, name.as_char_ptr(), key.as_ptr()) }
            }),
            value: UnsafeCell::new(value),
        })
    }

    /// Locks; may sleep.
    ///
    /// # Errors
    ///
    /// EINTR on a signal.
    pub(crate) fn lock(&self) -> Result<Guard<'_, T>> {
        // SAFETY: Initialised; task context.
        if unsafe { bindings::mutex_lock_interruptible(self.mutex.get()) } != 0 {
            return Err(EINTR);
        }
        Ok(Guard(self))
    }

    /// Locks if nobody has.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // SAFETY: Initialised; task context.
        (unsafe { bindings::mutex_trylock(self.mutex.get()) } != 0).then_some(Guard(self))
    }
}

/// The lock is held.
pub(crate) struct Guard<'a, T>(&'a InterruptibleMutex<T>);

impl<T> core::ops::Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: The lock is held.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> core::ops::DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The lock is held.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The lock is held by this task.
        unsafe { bindings::mutex_unlock(self.0.mutex.get()) };
    }
}
