// SPDX-License-Identifier: GPL-2.0

//! A VP spins: it waits for something that another VP of its partition does. If that one has no CPU, it gets this one
//! (directed yield; F-SP1, SDM 26.1.3).

use super::Partition;
use crate::vp::shared::VpShared;
use core::sync::atomic::Ordering;

/// Whether some other VP of the partition may wait for a CPU. If none does, whatever `spinning` waits for is being done, or
/// is the VMM's.
#[inline]
pub(crate) fn somebody_waits(partition: &Partition, spinning: &VpShared) -> bool {
    partition
        .shared_vps()
        .any(|(index, vp)| !core::ptr::eq(vp, spinning) && waits(partition, index, vp))
}

fn waits(partition: &Partition, index: u32, vp: &VpShared) -> bool {
    vp.is_run() && !vp.needs_kick(&partition.memory.space, index)
}

/// Gives this CPU to a VP of the partition that waits for one, to each in turn. Task context.
pub(crate) fn yield_to_another(partition: &Partition, spinning: u32) {
    let last = partition.yielded_to.load(Ordering::Relaxed);
    let behind = partition.vps().filter(|vp| vp.index > last);
    let before = partition.vps().filter(|vp| vp.index <= last);
    let gets_it = behind
        .chain(before)
        .find(|vp| vp.index != spinning && waits(partition, vp.index, &vp.shared) && vp.yield_to());
    if let Some(vp) = gets_it {
        partition.yielded_to.store(vp.index, Ordering::Relaxed);
    }
}
