// SPDX-License-Identifier: GPL-2.0

//! What must be put in order when the kernel dies.

use super::bindings;
use super::window::{irqs_off, IrqOff};
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use kernel::alloc::{flags::GFP_KERNEL, KBox};
use kernel::error::{code::EBUSY, to_result, Result};
use kernel::sync::Arc;

/// The kernel dies on this CPU, and interrupts are off.
pub(crate) struct Dying<'a> {
    /// The code that died must not go on.
    is_final: Cell<bool>,
    _irq: PhantomData<IrqOff<'a>>,
}

impl Dying<'_> {
    /// Makes this the end of what runs on this CPU: an oops becomes a panic.
    pub(super) fn must_not_return(&self) {
        self.is_final.set(true);
    }
}

/// What is told when the kernel dies.
pub(crate) trait Emergency: Send + Sync {
    /// On the CPU where it happens, in any context.
    fn kernel_dies(&self, dying: &Dying<'_>);
}

type Target = Arc<dyn Emergency>;

/// What the notifiers, which have no context, tell.
static TARGET: AtomicPtr<Target> = AtomicPtr::new(ptr::null_mut());

/// The notifiers for oops and panic are registered.
pub(crate) struct Notifiers(());

impl Notifiers {
    /// Registers them to tell `target`.
    ///
    /// # Errors
    ///
    /// EBUSY: there are some already.
    pub(crate) fn register(target: Arc<dyn Emergency>) -> Result<Self> {
        let new = KBox::into_raw(KBox::new(target, GFP_KERNEL)?);
        let (none, order) = (ptr::null_mut(), Ordering::AcqRel);
        if TARGET
            .compare_exchange(none, new, order, Ordering::Relaxed)
            .is_err()
        {
            // SAFETY: It came from `into_raw` above and nobody else has it.
            drop(unsafe { KBox::from_raw(new) });
            return Err(EBUSY);
        }
        // Dropped, should it fail.
        let published = Published;
        // SAFETY: Once, because of `TARGET`.
        to_result(unsafe { bindings::hvrs_notifiers_register() })?;
        core::mem::forget(published);
        Ok(Self(()))
    }
}

impl Drop for Notifiers {
    fn drop(&mut self) {
        // SAFETY: They were registered. Waits until none runs.
        unsafe { bindings::hvrs_notifiers_unregister() };
        drop(Published);
    }
}

/// `TARGET` is set, and no notifier can run when this is dropped.
struct Published;

impl Drop for Published {
    fn drop(&mut self) {
        let old = TARGET.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: `register` put it there by `into_raw`; nobody reads it any more.
        drop(unsafe { KBox::from_raw(old) });
    }
}

/// The kernel dies on this CPU. Whether the shim must see to it that it does not go on.
#[no_mangle]
extern "C" fn hvrs_rs_emergency() -> bool {
    // SAFETY: Null, or there for as long as the notifiers are registered.
    let Some(target) = (unsafe { TARGET.load(Ordering::Acquire).as_ref() }) else {
        return false;
    };
    irqs_off(|_irq| {
        let dying = Dying {
            is_final: Cell::new(false),
            _irq: PhantomData,
        };
        target.kernel_dies(&dying);
        dying.is_final.get()
    })
}
