// SPDX-License-Identifier: GPL-2.0

//! Messages and events that a partition's parent has for one of its VPs.

use super::hvcall::read;
use super::Partition;
use crate::vp::shared::VpShared;
use hv1::synic::Outcome;
use hvdef::*;
use vapic::Trigger;

/// HvCallSignalEventDirect.
pub(super) fn signal_event(partition: &Partition, input: &[u8], output: &mut [u8]) -> HvResult<()> {
    let request: HvInputSignalEventDirect = read(input)?;
    let sint = u32::from(request.target_sint);
    let shared = target(partition, request.target_vp, request.target_vtl, sint)?;
    if request.flag_number >= HV_EVENT_FLAGS_COUNT {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let page = shared.siefp.words();
    let (outcome, newly) = shared
        .synic
        .signal(page, request.target_sint, request.flag_number);
    finish(partition, shared, request.target_vp, outcome)?;
    HvOutputSignalEventDirect {
        newly_signaled: newly.into(),
        reserved: [0; 7],
    }
    .write(output)
    .ok_or(HV_STATUS_INVALID_PARAMETER)
}

/// HvCallPostMessageDirect. A slot that is taken is HV_STATUS_OBJECT_IN_USE: nothing is queued here.
pub(super) fn post_message(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request: HvInputPostMessageDirect = read(input)?;
    let (vp, sint) = (request.vp_index, request.sint_index);
    let shared = target(partition, vp, request.vtl, sint)?;
    let message = request.message;
    let header: HvMessageHeader = read(&message)?;
    let payload = message
        .get(HvMessageHeader::SIZE..)
        .and_then(|p| p.get(..usize::from(header.payload_size)))
        .filter(|_| header.message_type != HVMSG_NONE)
        .ok_or(HV_STATUS_INVALID_PARAMETER)?;
    let page = shared.simp.words();
    let outcome = shared.synic.post(
        page,
        sint as u8,
        header.message_type,
        header.sender,
        payload,
    );
    finish(partition, shared, vp, outcome)
}

fn target(partition: &Partition, vp: u32, vtl: u8, sint: u32) -> HvResult<&VpShared> {
    if vtl != 0 || sint as usize >= HV_SYNIC_SINT_COUNT {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let vp = partition.vp(vp).ok_or(HV_STATUS_INVALID_VP_INDEX)?;
    Ok(&vp.shared)
}

/// Interrupts the VP, if the message or event is to.
pub(super) fn interrupt(partition: &Partition, shared: &VpShared, vp: u32, outcome: Outcome) {
    if let Outcome::Interrupt(vector) = outcome {
        shared.post(vector, Trigger::Edge);
        shared.kick(&partition.memory.space, vp);
    }
}

fn finish(partition: &Partition, shared: &VpShared, vp: u32, outcome: Outcome) -> HvResult<()> {
    interrupt(partition, shared, vp, outcome);
    match outcome {
        Outcome::Interrupt(_) | Outcome::Silent => Ok(()),
        Outcome::Busy => Err(HV_STATUS_OBJECT_IN_USE),
        Outcome::Off => Err(HV_STATUS_INVALID_SYNIC_STATE),
    }
}
