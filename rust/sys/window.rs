// SPDX-License-Identifier: GPL-2.0

//! The kernel's side of a root window: interrupts, FPU, guest context, work of the task.

use super::bindings;
use core::cell::Cell;
use core::marker::PhantomData;
use kernel::error::{to_result, Result};

/// Proof that interrupts are off on this CPU.
#[derive(Clone, Copy)]
pub(crate) struct IrqOff<'a>(PhantomData<(&'a (), *mut ())>);

/// Runs `f` with interrupts off.
pub(crate) fn irqs_off<R>(f: impl FnOnce(IrqOff<'_>) -> R) -> R {
    let flags: u64;
    // SAFETY: Saves RFLAGS and masks interrupts.
    unsafe { core::arch::asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    let r = f(IrqOff(PhantomData));
    if flags & 1 << 9 != 0 {
        // SAFETY: Interrupts were on before.
        unsafe { core::arch::asm!("sti") };
    }
    r
}

/// A run window: interrupts off, FPU the kernel's to give away, guest time accounted.
pub(crate) struct RunWindow {
    cpu: u32,
    had_exit: Cell<bool>,
    _not_send: PhantomData<*mut ()>,
}

impl RunWindow {
    /// Begins; task context with interrupts on.
    pub(crate) fn begin() -> Self {
        // SAFETY: Called in task context; ended by `end`.
        let cpu = unsafe { bindings::hvrs_window_begin() };
        Self {
            cpu,
            had_exit: Cell::new(false),
            _not_send: PhantomData,
        }
    }

    /// This CPU, for as long as the window is open.
    #[inline]
    pub(crate) fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Interrupts are off here.
    #[inline]
    pub(crate) fn irq_off(&self) -> IrqOff<'_> {
        IrqOff(PhantomData)
    }

    /// Runs `f` in guest context: the kernel believes that a guest runs, RCU may not watch.
    /// Nothing in `f` may call the kernel.
    #[inline]
    pub(crate) fn guest_context<R>(&self, f: impl FnOnce() -> R) -> R {
        self.had_exit.set(true);
        // SAFETY: Interrupts are off.
        unsafe { bindings::hvrs_guest_state_enter() };
        let r = f();
        // SAFETY: Pairs with the above.
        unsafe { bindings::hvrs_guest_state_exit() };
        r
    }

    /// Ends; the host's pending interrupts are taken here.
    pub(crate) fn end(self) {
        // SAFETY: Pairs with `begin`.
        unsafe { bindings::hvrs_window_end(self.cpu, self.had_exit.get()) }
    }
}

/// Whether the task has a signal, must reschedule or has other work before a guest may run.
#[inline]
pub(crate) fn work_pending() -> bool {
    // SAFETY: Reads the thread's flags.
    unsafe { bindings::hvrs_work_pending() }
}

/// Does that work. EINTR: a signal for the task.
pub(crate) fn handle_work() -> Result {
    // SAFETY: Task context, interrupts on.
    to_result(unsafe { bindings::hvrs_handle_work() })
}
