// SPDX-License-Identifier: GPL-2.0

//! A VP spins: it waits for something that another VP of its partition does. If that one has no CPU, it gets this one
//! (directed yield; F-SP1, SDM 26.1.3).

use super::Partition;
use crate::vp::Vp;
use core::sync::atomic::Ordering;

/// Gives this CPU to a VP of the partition that waits for one, to each in turn. If there is none, whatever `spinning`
/// waits for is being done. Task context.
pub(crate) fn yield_to_another(partition: &Partition, spinning: u32) {
    let last = partition.yielded_to.load(Ordering::Relaxed);
    let waits =
        |vp: &Vp| vp.index != spinning && !vp.shared.needs_kick(&partition.memory.space, vp.index);
    let behind = partition.vps().filter(|vp| vp.index > last);
    let before = partition.vps().filter(|vp| vp.index <= last);
    if let Some(vp) = behind.chain(before).find(|vp| waits(vp) && vp.yield_to()) {
        partition.yielded_to.store(vp.index, Ordering::Relaxed);
    }
}
