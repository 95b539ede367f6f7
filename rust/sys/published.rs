// SPDX-License-Identifier: GPL-2.0

//! A value that many read without a lock and few replace (RCU).

use core::marker::PhantomData;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::rcu;

/// A published `T`, or none.
pub(crate) struct Published<T: Send + Sync> {
    current: AtomicPtr<T>,
    _owns: PhantomData<KBox<T>>,
}

impl<T: Send + Sync> Published<T> {
    /// None.
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(core::ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// Whether there is none at this moment.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.current.load(Ordering::Relaxed).is_null()
    }

    /// Runs `f`, which must not sleep, on the value. None: there is none.
    #[inline]
    pub(crate) fn read<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let _guard = rcu::read_lock();
        // SAFETY: Null, or a box of ours that `replace` frees after a grace period only.
        unsafe { self.current.load(Ordering::Acquire).as_ref() }.map(f)
    }

    /// Publishes `new` and waits until nobody reads the old value; may sleep.
    pub(crate) fn replace(&self, new: Option<KBox<T>>) {
        let new = new.map_or(core::ptr::null_mut(), KBox::into_raw);
        let old = self.current.swap(new, Ordering::AcqRel);
        if old.is_null() {
            return;
        }
        // SAFETY: Task context.
        unsafe { bindings::synchronize_rcu_expedited() };
        // SAFETY: It was published by `replace`, and no reader has it any more.
        drop(unsafe { KBox::from_raw(old) });
    }
}

impl<T: Send + Sync> Drop for Published<T> {
    fn drop(&mut self) {
        if let Some(last) = core::ptr::NonNull::new(*self.current.get_mut()) {
            // SAFETY: Published by `replace`; nobody has a reference to `self`, so none reads.
            drop(unsafe { KBox::from_raw(last.as_ptr()) });
        }
    }
}
