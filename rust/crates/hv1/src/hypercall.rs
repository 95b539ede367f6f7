// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Hypercalls (section 3 of the matrix): from the registers at VMCALL to an answer.
//!
//! One table of calls, two doors: the guest's ([`dispatch`]) and the VMM's ([`check_parent_call`]).

mod abi;
mod flush;
mod input;
mod ipi;
mod page;
mod start;
mod table;
mod target;

pub use abi::{Arguments, Caller, Convention};
pub use flush::{FlushRequest, FLUSH_PAGES};
pub use input::{Stop, Words, FAST_WORDS};
pub use ipi::ClusterIpi;
pub use page::HYPERCALL_PAGE_VMX;
pub use start::{ContextLimits, InitialVpContext, StartSlot, CONTEXT_WORDS};
pub use table::{call, CallId, CallRow, Doors, Kind, Size, TABLE};
pub use target::Requester;

use crate::PartitionFeatures;
use hvdef::{
    HvCallCode, HvHypercallInput, HvHypercallResult, HvStatus, HV_HYP_PAGE_SIZE,
    HV_STATUS_ACCESS_DENIED, HV_STATUS_INVALID_ALIGNMENT, HV_STATUS_INVALID_HYPERCALL_CODE,
    HV_STATUS_INVALID_HYPERCALL_INPUT, HV_STATUS_INVALID_PARAMETER, HV_STATUS_SUCCESS,
};

/// What is to be done for a guest's hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// #UD; no register changes.
    Undefined,
    /// Give the answer and go on behind the VMCALL.
    Done(HvHypercallResult),
    /// Give the answer, go on behind the VMCALL, and let others run first.
    Yield(HvHypercallResult),
    /// Everything but the input is right: read it and do the call.
    Call(&'static CallRow),
}

/// Answers a guest's hypercall. Guest memory is not touched.
///
/// Order of the checks: A-26.
#[inline(always)]
pub fn dispatch(
    arguments: &Arguments,
    caller: &Caller,
    guest_os_id: u64,
    features: &PartitionFeatures,
) -> Dispatch {
    // before the guest has told its identity there are no hypercalls.
    if !caller.may_call() || guest_os_id == 0 || !features.hv1() {
        return Dispatch::Undefined;
    }
    let control = arguments.control;
    let row = call(control.code()).filter(|row| row.doors.guest);
    let uses =
        |needs: fn(&CallRow, HvHypercallInput) -> bool| row.is_some_and(|row| needs(row, control));
    if uses(needs_xmm) && !features.xmm_input() || uses(has_fast_output) && !features.xmm_output() {
        return Dispatch::Undefined;
    }
    let status = match row {
        Some(row) => check(row, arguments, features),
        None if control.0 & HvHypercallInput::RESERVED != 0 => HV_STATUS_INVALID_HYPERCALL_INPUT,
        None => HV_STATUS_INVALID_HYPERCALL_CODE,
    };
    let answer = HvHypercallResult::simple(status);
    match row {
        Some(row) if status.is_success() => match row.id {
            // H-08: the count is a hint that needs not be looked at; there is no failure.
            CallId::NotifyLongSpinWait => Dispatch::Yield(answer),
            _ => Dispatch::Call(row),
        },
        _ => Dispatch::Done(answer),
    }
}

/// Whether general registers do not hold the input.
#[inline(always)]
fn needs_xmm(row: &CallRow, control: HvHypercallInput) -> bool {
    control.fast() && row.fast && row.input.announced(control) > 16
}

/// Whether registers are to hold output.
#[inline(always)]
fn has_fast_output(row: &CallRow, control: HvHypercallInput) -> bool {
    control.fast() && row.fast && row.output.announced(control) != 0
}

/// Bytes of registers that a fast call's input takes: output begins with the next register of 16 bytes.
#[inline(always)]
pub fn fast_input_size(row: &CallRow, control: HvHypercallInput) -> usize {
    row.input.announced(control).next_multiple_of(16)
}

/// Bytes of registers that a fast call needs.
#[inline(always)]
fn fast_size(row: &CallRow, control: HvHypercallInput) -> usize {
    match row.output.announced(control) {
        0 => row.input.announced(control),
        output => fast_input_size(row, control) + output,
    }
}

/// Privilege, control word, place of the parameters.
#[inline(always)]
fn check(row: &CallRow, arguments: &Arguments, features: &PartitionFeatures) -> HvStatus {
    if !features.privileges.contains(row.privilege) || !features.synthetic.contains(row.feature) {
        return HV_STATUS_ACCESS_DENIED;
    }
    let status = check_control(row, arguments.control);
    if !status.is_success() || arguments.control.fast() {
        return status;
    }
    let control = arguments.control;
    let (input, output) = (row.input.announced(control), row.output.announced(control));
    for (gpa, size) in [(arguments.input, input), (arguments.output, output)] {
        if !block_is_legal(gpa, size, features) {
            return HV_STATUS_INVALID_ALIGNMENT;
        }
    }
    let (first, second) = (arguments.input, arguments.output);
    let overlap = input != 0
        && output != 0
        && first < second.saturating_add(output as u64)
        && second < first.saturating_add(input as u64);
    if overlap {
        return HV_STATUS_INVALID_ALIGNMENT;
    }
    HV_STATUS_SUCCESS
}

/// and bit 31: there is no hypervisor below.
#[inline(always)]
fn check_control(row: &CallRow, control: HvHypercallInput) -> HvStatus {
    let (count, start) = (control.rep_count(), control.rep_start());
    let reps_are_legal = match row.kind {
        Kind::Simple => count == 0 && start == 0,
        Kind::Rep => start < count,
    };
    let legal = control.0 & HvHypercallInput::RESERVED == 0
        && !control.nested()
        && (row.input.variable || control.variable_header_size() == 0)
        && reps_are_legal
        && (!control.fast() || row.fast && fast_size(row, control) <= FAST_WORDS * 8);
    if legal {
        HV_STATUS_SUCCESS
    } else {
        HV_STATUS_INVALID_HYPERCALL_INPUT
    }
}

/// aligned, in one page, inside the address space (that input and output lie apart is the caller's); where there is no block the address does not matter.
#[inline(always)]
fn block_is_legal(gpa: u64, size: usize, features: &PartitionFeatures) -> bool {
    let in_page = (gpa as usize) & (HV_HYP_PAGE_SIZE - 1);
    size == 0
        || gpa % 8 == 0 && in_page + size <= HV_HYP_PAGE_SIZE && features.gpn_in_range(gpa >> 12)
}

/// Judges a call that a VMM makes on behalf of a partition's parent: the row, or the status to return.
///
/// Input and output are buffers of the VMM, `input_size` and `output_size` bytes long.
pub fn check_parent_call(
    code: HvCallCode,
    reps: u16,
    input_size: usize,
    output_size: usize,
) -> Result<&'static CallRow, HvStatus> {
    let row = call(code)
        .filter(|row| row.doors.parent)
        .ok_or(HV_STATUS_INVALID_HYPERCALL_CODE)?;
    if reps >= HvHypercallInput::MAX_REPS || (row.kind == Kind::Simple) != (reps == 0) {
        return Err(HV_STATUS_INVALID_HYPERCALL_INPUT);
    }
    if input_size < row.input.total(reps) || output_size < row.output.total(reps) {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    Ok(row)
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod processor_tests;
#[cfg(test)]
mod tests;
