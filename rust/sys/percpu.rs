// SPDX-License-Identifier: GPL-2.0

//! A value for each CPU, which code with interrupts off has to itself.

use super::host;
use super::oops::Dying;
use super::window::IrqOff;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};
use kernel::alloc::{flags::GFP_KERNEL, KVec};
use kernel::error::Result;

struct Cell<T> {
    /// There is a [`Guard`].
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: Who has the value is decided by `taken`: one at a time.
unsafe impl<T: Send> Sync for Cell<T> {}

/// One `T` for each possible CPU.
pub(crate) struct PerCpu<T>(KVec<Cell<T>>);

impl<T> PerCpu<T> {
    /// Makes each by `new`.
    pub(crate) fn new(mut new: impl FnMut() -> Result<T>) -> Result<Self> {
        let mut cells = KVec::new();
        for _ in 0..host::nr_cpu_ids() {
            let cell = Cell {
                taken: AtomicBool::new(false),
                value: UnsafeCell::new(new()?),
            };
            cells.push(cell, GFP_KERNEL)?;
        }
        Ok(Self(cells))
    }

    /// Takes the calling CPU's. None: it is taken already.
    #[inline]
    pub(crate) fn take<'a>(&'a self, _irq: IrqOff<'a>) -> Option<Guard<'a, T>> {
        let cell = self.0.get(host::cpu_id() as usize)?;
        // Whoever else takes it does so on this CPU: no read-modify-write is needed.
        if cell.taken.load(Ordering::Relaxed) {
            return None;
        }
        cell.taken.store(true, Ordering::Relaxed);
        Some(Guard {
            cell,
            _this_cpu: PhantomData,
        })
    }

    /// Takes the calling CPU's from whoever has it. None: nobody has.
    pub(crate) fn steal<'a>(&'a self, dying: &'a Dying<'_>) -> Option<Guard<'a, T>> {
        let cell = self.0.get(host::cpu_id() as usize)?;
        if !cell.taken.load(Ordering::Relaxed) {
            return None;
        }
        // Who has it is below us on this CPU's stack.
        dying.must_not_return();
        Some(Guard {
            cell,
            _this_cpu: PhantomData,
        })
    }
}

/// This CPU's value.
///
/// # Invariants
///
/// `taken` is set, and no other guard of the cell is in use: [`PerCpu::take`] made this one when there was none, or
/// [`PerCpu::steal`] when the one that there was can never be used again.
pub(crate) struct Guard<'a, T> {
    cell: &'a Cell<T>,
    _this_cpu: PhantomData<IrqOff<'a>>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type's invariant.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type's invariant.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.taken.store(false, Ordering::Relaxed);
    }
}
