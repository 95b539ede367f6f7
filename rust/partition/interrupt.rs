// SPDX-License-Identifier: GPL-2.0

//! Interrupt messages from outside: the VMM's hypercall, and irqfds.

use super::Partition;
use crate::vp::exits::ipi::deliver;
use vapic::{DeliveryMode, Destination, Trigger};

/// Posts a message to the VPs that take it, and kicks them. False: it is an ExtINT and the last one
/// has not been cleared. From any context but a guest's: no lock is taken.
pub(super) fn send(
    partition: &Partition,
    destination: Destination,
    mode: DeliveryMode,
    vector: u8,
    trigger: Trigger,
) -> bool {
    let mut posted = true;
    for (index, target) in partition.shared_vps() {
        if !target.destination().accepts(destination, mode) {
            continue;
        }
        if deliver(target, mode, vector, trigger, true) {
            target.kick(&partition.memory.space, index);
        } else if mode == DeliveryMode::ExtInt {
            posted = false;
        }
        if mode == DeliveryMode::LowestPriority {
            // Any of the targets may be the one (SDM 11.6.2.4).
            break;
        }
    }
    posted
}
