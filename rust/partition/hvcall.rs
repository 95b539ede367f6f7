// SPDX-License-Identifier: GPL-2.0

//! MSHV_ROOT_HVCALL: hypercalls of a partition's parent, made for it by the VMM.
//!
//! The same table of calls as the guest's door. The status is copied back even on failure; its
//! errno is what `mshv-abi` says clients expect.

use super::{cpuid, gpa, intercept, ports, property, synic, Partition};
use crate::machine::Machine;
use crate::sys::bindings::mshv_root_hvcall;
use crate::sys::user::{self, Room};
use crate::vp::registers;
use crate::vp::Vp;
use hv1::hypercall::{check_parent_call, CallId};
use hvdef::*;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Largest input or output.
const PAGE: u16 = 4096;

/// Whom the file stands for.
enum Subject<'a> {
    Device(&'a Machine),
    Partition(&'a Arc<Partition>),
    Vp(&'a Partition, &'a Vp),
}

/// On /dev/mshv: the host's own properties.
pub(crate) fn on_device(machine: &Machine, arg: usize) -> Result<isize> {
    run(&Subject::Device(machine), arg)
}

/// On a partition.
pub(crate) fn on_partition(partition: &Arc<Partition>, arg: usize) -> Result<isize> {
    run(&Subject::Partition(partition), arg)
}

/// On a VP.
pub(crate) fn on_vp(partition: &Partition, vp: &Vp, arg: usize) -> Result<isize> {
    run(&Subject::Vp(partition, vp), arg)
}

fn run(subject: &Subject<'_>, arg: usize) -> Result<isize> {
    let mut call: mshv_root_hvcall = user::read(arg)?;
    if call.status != 0
        || call.rsvd != [0; 6]
        || call.in_ptr == 0
        || call.in_sz < 8
        || call.in_sz > PAGE
        || call.out_sz > PAGE
        || (call.out_ptr == 0) != (call.out_sz == 0)
    {
        return Err(EINVAL);
    }
    let (mut input, mut output) = (Room::new(), Room::new());
    let input = input.read(call.in_ptr as usize, call.in_sz as usize)?;
    let output = output.zeroed(call.out_sz as usize)?;
    let mut done = 0;
    let result = dispatch(subject, &call, input, output, &mut done);
    let status = match result {
        Ok(()) => HV_STATUS_SUCCESS,
        Err(status) => status,
    };
    call.status = status.0;
    call.reps = if status.is_success() { call.reps } else { done };
    user::write(arg, &call)?;
    if status.is_success() {
        if call.out_sz != 0 {
            user::write_bytes(call.out_ptr as usize, output)?;
        }
        return Ok(0);
    }
    Err(errno(status))
}

/// The errno that goes with a status: Linux's (`hv_result_to_errno`).
fn errno(status: HvStatus) -> Error {
    match status {
        HV_STATUS_INVALID_HYPERCALL_CODE
        | HV_STATUS_INVALID_HYPERCALL_INPUT
        | HV_STATUS_INVALID_PARAMETER
        | HV_STATUS_INVALID_PARTITION_ID
        | HV_STATUS_INVALID_VP_INDEX
        | HV_STATUS_INVALID_PORT_ID
        | HV_STATUS_INVALID_CONNECTION_ID => EINVAL,
        HV_STATUS_INSUFFICIENT_MEMORY => ENOMEM,
        _ => EIO,
    }
}

fn dispatch(
    subject: &Subject<'_>,
    call: &mshv_root_hvcall,
    input: &[u8],
    output: &mut [u8],
    done: &mut u16,
) -> HvResult<()> {
    let code = HvCallCode(call.code);
    // As in Linux, few calls are the device's, and properties are the partition's file's to set.
    let is_of_file = match subject {
        Subject::Device(_) => matches!(
            code,
            HvCallCode::HvCallGetPartitionProperty | HvCallCode::HvCallGetPartitionPropertyEx
        ),
        Subject::Partition(_) => true,
        Subject::Vp(..) => code != HvCallCode::HvCallSetPartitionProperty,
    };
    if !is_of_file {
        return Err(HV_STATUS_INVALID_HYPERCALL_CODE);
    }
    let row = check_parent_call(code, call.reps, input.len(), output.len())?;
    let partition = match subject {
        Subject::Device(machine) => {
            return match row.id {
                CallId::GetPartitionProperty => property::get_host(machine, input, output),
                _ => property::get_host_ex(input, output),
            }
        }
        Subject::Partition(p) => p,
        Subject::Vp(p, _) => *p,
    };
    match row.id {
        CallId::GetPartitionProperty => property::get(partition, input, output),
        CallId::SetPartitionProperty => property::set(partition, input),
        // What has more than a word are the host's.
        CallId::GetPartitionPropertyEx => Err(HV_STATUS_UNKNOWN_PROPERTY),
        CallId::AssertVirtualInterrupt => assert_interrupt(partition, input),
        CallId::ClearVirtualInterrupt => clear_interrupt(partition),
        CallId::GetVpRegisters => {
            let vp = target(subject, partition, input)?;
            registers::get(
                partition,
                &mut { vp },
                list(input, call.reps, 4),
                output,
                done,
            )
        }
        CallId::SetVpRegisters => {
            let vp = target(subject, partition, input)?;
            let list = list(input, call.reps, HvRegisterAssoc::SIZE);
            registers::set(partition, &mut { vp }, list, done)
        }
        CallId::SignalEventDirect => synic::signal_event(partition, input, output),
        CallId::PostMessageDirect => synic::post_message(partition, input),
        CallId::CreatePort => match subject {
            Subject::Partition(partition) => ports::create(partition, input),
            // The port ends with the partition's file, which may be closed.
            _ => Err(HV_STATUS_ACCESS_DENIED),
        },
        CallId::DeletePort => ports::delete(partition, input),
        CallId::ConnectPort => match subject {
            Subject::Partition(partition) => ports::connect(partition, input),
            _ => Err(HV_STATUS_ACCESS_DENIED),
        },
        CallId::DisconnectPort => ports::disconnect(partition, input),
        CallId::GetPortProperty => ports::get_property(partition, input, output),
        CallId::SetPortProperty => ports::set_property(partition, input),
        CallId::TranslateVirtualAddress => translate(subject, partition, input, output),
        CallId::ReadGpa => {
            let request: HvInputReadGpa = read(input)?;
            named_vp(subject, partition, request.vp_index)?;
            put(gpa::read(partition, &request)?, output)
        }
        CallId::WriteGpa => {
            let request: HvInputWriteGpa = read(input)?;
            named_vp(subject, partition, request.place.vp_index)?;
            put(gpa::write(partition, &request)?, output)
        }
        CallId::GetGpaPagesAccessStates => {
            gpa::access_states(partition, &read(input)?, output)?;
            *done = call.reps;
            Ok(())
        }
        CallId::InstallIntercept => intercept::install(partition, input),
        CallId::RegisterInterceptResult => cpuid::register(partition, input),
        CallId::GetVpCpuidValues => {
            let header: HvInputGetVpCpuidValues = read(input)?;
            let vp = named_vp(subject, partition, header.vp_index)?;
            let start = HvInputGetVpCpuidValues::SIZE;
            let end = start + HvCpuidLeafInfo::SIZE * call.reps as usize;
            let list = input.get(start..end).unwrap_or(&[]);
            cpuid::get(partition, vp, header.flags, list, output, done)
        }
        // In the table because they have their place there; not made yet.
        _ => Err(HV_STATUS_INVALID_HYPERCALL_CODE),
    }
}

pub(super) fn read<T: Wire>(input: &[u8]) -> HvResult<T> {
    T::read(input).ok_or(HV_STATUS_INVALID_PARAMETER)
}

fn put<T: Wire>(value: T, output: &mut [u8]) -> HvResult<()> {
    value.write(output).ok_or(HV_STATUS_INVALID_PARAMETER)
}

/// The list behind the header: `reps` elements, however long the buffer is.
fn list(input: &[u8], reps: u16, element: usize) -> &[u8] {
    let start = HvInputGetVpRegisters::SIZE;
    let end = start + element * reps as usize;
    input.get(start..end).unwrap_or(&[])
}

/// The VP that a register call names; on a VP's file, that VP (also by HV_VP_INDEX_SELF).
fn target<'a>(subject: &Subject<'a>, partition: &'a Partition, input: &[u8]) -> HvResult<&'a Vp> {
    let header: HvInputGetVpRegisters = read(input)?;
    if header.input_vtl != 0 || header.rsvd_z8 != 0 || header.rsvd_z16 != 0 {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    named_vp(subject, partition, header.vp_index)
}

/// The VP `index`; on a VP's file, that VP also by HV_VP_INDEX_SELF.
fn named_vp<'a>(subject: &Subject<'a>, partition: &'a Partition, index: u32) -> HvResult<&'a Vp> {
    match subject {
        Subject::Vp(_, vp) if index == HV_VP_INDEX_SELF => Ok(vp),
        _ => partition.vp(index).ok_or(HV_STATUS_INVALID_VP_INDEX),
    }
}

/// HvCallTranslateVirtualAddress. The result code tells why there is no address; the call itself
/// succeeds.
fn translate(
    subject: &Subject<'_>,
    partition: &Partition,
    input: &[u8],
    output: &mut [u8],
) -> HvResult<()> {
    let request: HvInputTranslateVirtualAddress = read(input)?;
    let vp = named_vp(subject, partition, request.vp_index)?;
    partition
        .check_creator()
        .map_err(|_| HV_STATUS_ACCESS_DENIED)?;
    let gva = request
        .gva_page
        .checked_mul(4096)
        .ok_or(HV_STATUS_INVALID_PARAMETER)?;
    let flags = translate_flags(request.control_flags)?;
    let answer = match vp
        .translate(partition, gva, flags)
        .map_err(|_| HV_STATUS_OPERATION_FAILED)?
    {
        Ok(gpa) => HvOutputTranslateVirtualAddress {
            result_code: HV_TRANSLATE_GVA_SUCCESS,
            result_attributes: HV_CACHE_TYPE_X64_WRITE_BACK
                | if partition.memory.space.has_overlay(gpa >> 12, 1) {
                    HV_TRANSLATE_GVA_RESULT_OVERLAY_PAGE
                } else {
                    0
                },
            gpa_page: gpa >> 12,
        },
        Err(failure) => HvOutputTranslateVirtualAddress {
            result_code: failure.code,
            gpa_page: failure.gpa >> 12,
            ..Wire::ZERO
        },
    };
    put(answer, output)
}

/// The flags of HvCallTranslateVirtualAddress without the VTL, which can be VTL 0. There are no shadow stacks, and no flag
/// of a VP that keeps others from flushing its translations.
fn translate_flags(flags: u64) -> HvResult<u64> {
    const ACCESS: u64 = HV_TRANSLATE_GVA_VALIDATE_READ
        | HV_TRANSLATE_GVA_VALIDATE_WRITE
        | HV_TRANSLATE_GVA_VALIDATE_EXECUTE;
    const MODE: u64 = HV_TRANSLATE_GVA_SUPERVISOR_ACCESS | HV_TRANSLATE_GVA_USER_ACCESS;
    const KNOWN: u64 = ACCESS
        | MODE
        | HV_TRANSLATE_GVA_PRIVILEGE_EXEMPT
        | HV_TRANSLATE_GVA_SET_PAGE_TABLE_BITS
        | HV_TRANSLATE_GVA_ENFORCE_SMAP
        | HV_TRANSLATE_GVA_OVERRIDE_SMAP;
    let (vtl, flags) = (flags >> 56, flags & u64::MAX >> 8);
    if !matches!(vtl, 0 | HV_INPUT_VTL_USE_TARGET_VTL)
        || flags & !KNOWN != 0
        || flags & ACCESS == 0
        || flags & MODE == MODE
    {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    Ok(flags)
}

/// HvCallAssertVirtualInterrupt: a message on the APIC bus.
fn assert_interrupt(partition: &Partition, input: &[u8]) -> HvResult<()> {
    use vapic::{DeliveryMode, Destination, Trigger};
    let request: HvInputAssertVirtualInterrupt = read(input)?;
    if !partition.has_lapic {
        return Err(HV_STATUS_INVALID_PARTITION_STATE);
    }
    if request.target_vtl != 0
        || request.rsvd_z0 != 0
        || request.rsvd_z1 != 0
        || request.control & !3 != 0
        || request.interrupt_type > 7
        || request.vector > 255
        || request.dest_addr > u64::from(u32::MAX)
    {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let mode = DeliveryMode::from_bits(request.interrupt_type);
    if mode.has_vector() && request.vector < 16 {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let destination = Destination {
        id: request.dest_addr as u32,
        logical: request.control & 2 != 0,
        x2apic: request.dest_addr > 0xff,
    };
    let trigger = if request.level_triggered() {
        Trigger::Level
    } else {
        Trigger::Edge
    };
    let vector = request.vector as u8;
    if super::interrupt::send(partition, destination, mode, vector, trigger) {
        Ok(())
    } else {
        Err(HV_STATUS_ACKNOWLEDGED)
    }
}

/// HvCallClearVirtualInterrupt: after an ExtINT that the guest has taken, the next may come.
fn clear_interrupt(partition: &Partition) -> HvResult<()> {
    partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    let cleared = partition
        .shared_vps()
        .filter(|(_, vp)| vp.clear_extint())
        .count();
    if cleared == 0 {
        return Err(HV_STATUS_NOT_ACKNOWLEDGED);
    }
    Ok(())
}
