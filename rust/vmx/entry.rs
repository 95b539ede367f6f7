// SPDX-License-Identifier: GPL-2.0

//! The way into a guest and back: `hvrs_vmx_loop` (`shim/vmenter.S`), and what it calls at each exit.

#![allow(unsafe_code)] // UNSAFETY: the entry.

use super::root::OpenWindow;
use crate::sys::bindings;

/// Handles VM exits.
pub(crate) trait ExitHandler {
    /// One VM exit, in guest context: nothing in it may call the kernel. True: enter again.
    fn exit(&mut self) -> bool;

    /// The open window, whose VMCS describes the guest, and its general registers in the processor's order.
    fn guest(&mut self) -> (&OpenWindow<'_>, &mut [u64; 16]);
}

/// The module's one handler, which [`handles_exits`] makes it.
///
/// # Safety
///
/// `hvrs_rs_exit` takes this type.
pub(crate) unsafe trait TheExitHandler: ExitHandler {}

/// Makes `$handler` the type whose [`ExitHandler::exit`] the assembly calls, directly. The name that the linker sees is
/// why there can be one only.
macro_rules! handles_exits {
    ($handler:ty) => {
        #[allow(unsafe_code)]
        // SAFETY: The function below takes it.
        unsafe impl $crate::vmx::entry::TheExitHandler for $handler {}

        /// One VM exit. 0: enter again.
        ///
        /// # Safety
        ///
        /// Called by `hvrs_vmx_loop` only, with the handler that `enter` gave it.
        #[allow(unsafe_code)]
        #[no_mangle]
        #[link_section = ".noinstr.text"]
        unsafe extern "C" fn hvrs_rs_exit(handler: *mut ::core::ffi::c_void) -> i64 {
            // SAFETY: `enter` holds the only other reference and waits.
            let handler = unsafe { &mut *handler.cast::<$handler>() };
            i64::from(!$crate::vmx::entry::ExitHandler::exit(handler))
        }
    };
}
pub(crate) use handles_exits;

/// VM entry failed, with the reason in VM_INSTRUCTION_ERROR.
pub(crate) struct EntryFailed;

/// Enters the guest, again and again, until its handler wants no more. `launched`: it has been entered in this window.
#[inline]
pub(crate) fn enter<H: TheExitHandler>(handler: &mut H, launched: bool) -> Result<(), EntryFailed> {
    let context = core::ptr::from_mut(handler).cast();
    let (window, gprs) = handler.guest();
    let gprs = gprs.as_mut_ptr();
    let result = window.run().guest_context(|| {
        // SAFETY: A VMCS is current, interrupts are off, and the host's state is displaced: the window is open. The
        // handler's type is the one that `hvrs_rs_exit` expects.
        unsafe { bindings::hvrs_vmx_loop(gprs, context, launched) }
    });
    if result < 0 {
        return Err(EntryFailed);
    }
    Ok(())
}
