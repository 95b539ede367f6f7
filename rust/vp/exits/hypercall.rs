// SPDX-License-Identifier: GPL-2.0

//! VMCALL: the guest's door to the hypercalls.

use super::{advance, cpl, fault, leave, Leave};
use crate::vp::entry::Running;
use hv1::hypercall::{dispatch, Caller, Convention, Dispatch};
use vmxdef::field::*;
use x86def::cr::CR0_PE;
use x86def::segment::ar;
use x86def::vector;

#[inline(always)]
pub(super) fn handle(r: &mut Running<'_>) -> bool {
    let vmcs = &r.window.vmcs;
    let long_mode = vmcs.read(VM_ENTRY_CONTROLS) & super::IA32E != 0;
    let convention = Convention::select(long_mode, vmcs.read(GUEST_CS_AR_BYTES) & ar::L != 0);
    let caller = Caller {
        cpl: cpl(r),
        protected_mode: vmcs.read(GUEST_CR0) & CR0_PE != 0,
    };
    let arguments = convention.arguments(&r.core.gprs);
    let os_id = r.partition.guest_os_id();
    match dispatch(&arguments, &caller, os_id, &r.config.features) {
        Dispatch::Undefined => fault(r, vector::UD, 0),
        Dispatch::Done(result) => {
            convention.set_result(&mut r.core.gprs, result);
            advance(r);
            true
        }
        Dispatch::Yield(result) => {
            convention.set_result(&mut r.core.gprs, result);
            advance(r);
            leave(r, Leave::Yield)
        }
    }
}
