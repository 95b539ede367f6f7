// SPDX-License-Identifier: GPL-2.0

//! What a local APIC asks for after an access to it.

use super::{leave, Leave};
use crate::partition::Partition;
use crate::vp::core::VpCore;
use crate::vp::entry::Running;
use crate::vp::shared::{event, VpShared};
use hv1::VpMask;
use hvdef::HvVpCounter;
use vapic::{DeliveryMode, Effect, Icr, Trigger};

/// Carries out `effect`. True: enter the guest again.
#[inline]
pub(crate) fn apply(r: &mut Running<'_>, effect: Effect) -> bool {
    match effect_of(r.core, r.shared, r.partition, effect, &mut r.kicks) {
        Some(vector) => leave(r, Leave::Eoi(vector)),
        // Kicks need the kernel: out of guest context, then on.
        None => r.kicks.is_empty(),
    }
}

/// Carries out `effect`; sets in `kicks` the VPs to kick. Some: a level-triggered interrupt ended,
/// of which the VMM must be told.
#[inline]
pub(crate) fn effect_of(
    core: &mut VpCore,
    shared: &VpShared,
    partition: &Partition,
    effect: Effect,
    kicks: &mut VpMask,
) -> Option<u8> {
    match effect {
        Effect::None => {}
        Effect::InterruptPending => core.check_events = true,
        Effect::Eoi(eoi) => {
            core.check_events = true;
            core.interrupt_ended(shared);
            if eoi.level_triggered {
                return Some(eoi.vector);
            }
        }
        Effect::SendIpi(icr) => send(core, shared, partition, icr, kicks),
        Effect::TimerChanged => {
            core.update_timer();
            core.check_events = true;
        }
        Effect::DestinationChanged | Effect::BaseChanged => {
            shared.set_destination(core.lapic.view());
            core.update_timer();
            core.check_events = true;
        }
    }
    None
}

/// Delivers an IPI (SDM 11.6).
#[inline]
fn send(core: &mut VpCore, own: &VpShared, partition: &Partition, icr: Icr, kicks: &mut VpMask) {
    let mode = icr.delivery_mode();
    core.stats.count(HvVpCounter::ApicIpisSent);
    let one_of_them = mode == DeliveryMode::LowestPriority;
    for (index, target) in partition.shared_vps() {
        let is_sender = core::ptr::eq(target, own);
        if !icr.targets(target.destination(), is_sender) {
            continue;
        }
        if deliver(
            target,
            mode,
            icr.vector(),
            icr.trigger(),
            icr.level_assert(),
        ) {
            if is_sender {
                // Taken before the next entry.
                core.check_events = true;
            } else if target.needs_kick(&partition.memory.space, index) {
                kicks.insert(index);
            }
        }
        if one_of_them {
            // Any of the targets may be the one (SDM 11.6.2.4).
            break;
        }
    }
}

/// Posts a message to `target`. Whether it must be kicked.
pub(crate) fn deliver(
    target: &VpShared,
    mode: DeliveryMode,
    vector: u8,
    trigger: Trigger,
    assert: bool,
) -> bool {
    match mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
            target.post(vector, trigger);
            true
        }
        DeliveryMode::Nmi => {
            target.set_event(event::NMI);
            true
        }
        // INIT level de-assert does nothing on CPUs since the Pentium 4 (SDM 11.6.1).
        DeliveryMode::Init if assert => {
            target.set_event(event::INIT);
            true
        }
        DeliveryMode::StartUp => {
            target.post_sipi(vector);
            true
        }
        DeliveryMode::ExtInt => target.post_extint(vector),
        _ => false,
    }
}
