// SPDX-License-Identifier: GPL-2.0

//! VMCALL: the guest's door to the hypercalls. Calls for sets of VPs are done here; their input is
//! in registers, or in guest memory, which is read where it is.

use super::{advance, count, cpl, fault, ipi, leave, spin, Leave};
use crate::partition::space::Space;
use crate::vmx::insn::xmm_0_to_5;
use crate::vp::entry::Running;
use hv1::hypercall::{
    dispatch, Arguments, CallId, CallRow, Caller, ClusterIpi, Convention, Dispatch, FlushRequest,
    Stop, Words, FAST_WORDS,
};
use hvdef::{
    HvCallCode, HvHypercallResult, HvVpCounter, HV_STATUS_INVALID_HYPERCALL_CODE, HV_STATUS_SUCCESS,
};
use vapic::{DeliveryMode, Trigger};
use vmxdef::exit::EptViolation;
use vmxdef::field::*;
use x86def::cr::CR0_PE;
use x86def::segment::ar;
use x86def::vector;

/// By what rules the guest calls now, and whether in protected mode.
#[inline(always)]
fn convention(r: &Running<'_>) -> (Convention, bool) {
    let vmcs = &r.window.vmcs;
    let long_mode = vmcs.read(VM_ENTRY_CONTROLS) & super::IA32E != 0;
    match Convention::select(long_mode, vmcs.read(GUEST_CS_AR_BYTES) & ar::L != 0) {
        Convention::Bits64 => (Convention::Bits64, true),
        Convention::Bits32 => (
            Convention::Bits32,
            long_mode || vmcs.read(GUEST_CR0) & CR0_PE != 0,
        ),
    }
}

/// What the guest calls, and what is to be said to it.
#[inline(always)]
fn decode(r: &Running<'_>, convention: Convention, protected_mode: bool) -> (Arguments, Dispatch) {
    let caller = Caller {
        cpl: cpl(r),
        protected_mode,
    };
    let arguments = convention.arguments(&r.core.gprs);
    let os_id = r.partition.guest_os_id();
    let what = dispatch(&arguments, &caller, os_id, &r.config.features);
    (arguments, what)
}

/// Whether the call is a right one that hvrs does not know and `wanted` is.
pub(super) fn is_unknown(r: &Running<'_>, wanted: impl FnOnce(HvCallCode) -> bool) -> bool {
    let (convention, protected_mode) = convention(r);
    let (arguments, what) = decode(r, convention, protected_mode);
    let unknown = HvHypercallResult::simple(HV_STATUS_INVALID_HYPERCALL_CODE);
    what == Dispatch::Done(unknown) && wanted(arguments.control.code())
}

#[inline(always)]
pub(super) fn handle(r: &mut Running<'_>) -> bool {
    match convention(r) {
        (Convention::Bits64, _) => handle_by(r, Convention::Bits64, true),
        (Convention::Bits32, protected_mode) => handle_32(r, protected_mode),
    }
}

/// Apart, so that 64-bit mode has no choices left.
#[inline(never)]
fn handle_32(r: &mut Running<'_>, protected_mode: bool) -> bool {
    handle_by(r, Convention::Bits32, protected_mode)
}

#[inline(always)]
fn handle_by(r: &mut Running<'_>, convention: Convention, protected_mode: bool) -> bool {
    let (arguments, what) = decode(r, convention, protected_mode);
    match what {
        Dispatch::Undefined => fault(r, vector::UD, 0),
        Dispatch::Done(result) => answer(r, convention, result),
        Dispatch::Yield(result) => {
            count(r, HvVpCounter::LongSpinWaitHypercalls);
            answer(r, convention, result);
            spin(r)
        }
        Dispatch::Call(row) => call(r, row, &arguments, convention),
    }
}

/// Gives the answer and goes on behind the VMCALL.
#[inline(always)]
fn answer(r: &mut Running<'_>, convention: Convention, result: HvHypercallResult) -> bool {
    convention.set_result(&mut r.core.gprs, result);
    advance(r);
    true
}

fn call(
    r: &mut Running<'_>,
    row: &'static CallRow,
    arguments: &Arguments,
    convention: Convention,
) -> bool {
    count(r, row.counter);
    let control = arguments.control;
    let mut input = Input::find(&r.partition.memory.space, row, arguments);
    let features = &r.config.features;
    let mut flush = |list, ex| FlushRequest::read(&mut input, control, features, list, ex);
    let request = match row.id {
        CallId::SendSyntheticClusterIpi => {
            ClusterIpi::read(&mut input, control, false).map(Request::Ipi)
        }
        CallId::SendSyntheticClusterIpiEx => {
            ClusterIpi::read(&mut input, control, true).map(Request::Ipi)
        }
        CallId::FlushVirtualAddressSpace => flush(false, false).map(Request::Flush),
        CallId::FlushVirtualAddressList => flush(true, false).map(Request::Flush),
        CallId::FlushVirtualAddressSpaceEx => flush(false, true).map(Request::Flush),
        CallId::FlushVirtualAddressListEx => flush(true, true).map(Request::Flush),
        // `vp/hypercall.rs` has the rest.
        _ => return leave(r, Leave::Call(row, convention)),
    };
    let request = match request {
        Ok(request) => request,
        Err(Stop::Status(status)) => {
            let done = HvHypercallResult::rep(status, control.rep_start());
            return answer(r, convention, done);
        }
        // As if the guest had read it: the page comes and the VMCALL runs again, or the VMM is
        // told that there is none.
        Err(Stop::Unreadable) => {
            let read = Leave::Memory {
                gpa: arguments.input,
                gla: 0,
                qualification: EptViolation::READ,
            };
            return leave(r, read);
        }
    };
    // The list was done in one go, however long it is.
    let done = HvHypercallResult::rep(HV_STATUS_SUCCESS, control.rep_count());
    answer(r, convention, done);
    match request {
        Request::Ipi(ipi) => send(r, &ipi),
        Request::Flush(flush) => flush_vps(r, &flush),
    }
}

enum Request {
    Ipi(ClusterIpi),
    Flush(FlushRequest),
}

/// Posts an interrupt to the targets. Kicks need the kernel: out of guest context, then on.
#[inline(always)]
fn send(r: &mut Running<'_>, ipi: &ClusterIpi) -> bool {
    for (index, target) in r.partition.shared_vps() {
        if !ipi.targets.contains(index) {
            continue;
        }
        ipi::deliver(target, DeliveryMode::Fixed, ipi.vector, Trigger::Edge, true);
        // What this VP has for itself is taken before the next entry.
        let space = &r.partition.memory.space;
        if !core::ptr::eq(target, r.shared) && target.needs_kick(space, index) {
            r.kicks.insert(index);
        }
    }
    r.kicks.is_empty()
}

/// Asks the targets to flush. Those in guest mode must be kicked and waited for.
#[inline(always)]
fn flush_vps(r: &mut Running<'_>, flush: &FlushRequest) -> bool {
    let by_page = r.has_invvpid_address;
    let pages = flush.pages().filter(|_| by_page);
    for (index, target) in r.partition.shared_vps() {
        if !flush.targets.contains(index) {
            continue;
        }
        target.linear_flush.request(pages);
        let mode = r.partition.memory.space.guest_mode(index);
        if !core::ptr::eq(target, r.shared) && mode.is_some_and(|m| m.running_on().is_some()) {
            r.flushes.insert(index);
        }
    }
    r.flushes.is_empty()
}

/// Where a call's input is.
enum Input<'a> {
    Registers([u64; FAST_WORDS]),
    /// At this address of the machine, which the VP, being in guest mode, keeps.
    Memory(&'a Space, u64),
    /// Nowhere that could be read now.
    Missing,
}

impl<'a> Input<'a> {
    #[inline(always)]
    fn find(space: &'a Space, row: &CallRow, arguments: &Arguments) -> Self {
        if !arguments.control.fast() {
            return match space.readable_page(arguments.input) {
                Some(page) => Self::Memory(space, page + (arguments.input & 0xfff)),
                None => Self::Missing,
            };
        }
        let mut words = [0; FAST_WORDS];
        words[0] = arguments.input;
        words[1] = arguments.output;
        if row.input.announced(arguments.control) > 16 {
            for (to, from) in words.iter_mut().skip(2).zip(xmm_0_to_5()) {
                *to = from;
            }
        }
        Self::Registers(words)
    }
}

impl Words for Input<'_> {
    #[inline(always)]
    fn word(&mut self, index: usize) -> Result<u64, Stop> {
        let word = match self {
            Self::Registers(words) => words.get(index).copied(),
            Self::Memory(space, spa) => space.read_word(*spa + index as u64 * 8),
            Self::Missing => None,
        };
        word.ok_or(Stop::Unreadable)
    }
}
