// SPDX-License-Identifier: GPL-2.0

//! Intercepts that the VMM installs (HvCallInstallIntercept): CPUID leaves. Accesses to ports and to
//! memory that is not there go to the VMM in any case.

use super::Partition;
use core::sync::atomic::{AtomicU32, Ordering};
use hvdef::*;

/// Leaves that can be intercepted.
const LEAVES: usize = 32;

/// What exits look at without a lock.
pub(crate) struct Intercepts {
    /// The first `nr_leaves` are in use.
    leaves: [AtomicU32; LEAVES],
    nr_leaves: AtomicU32,
}

impl Intercepts {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            leaves: [const { AtomicU32::new(0) }; LEAVES],
            nr_leaves: AtomicU32::new(0),
        }
    }

    /// Whether CPUID of `leaf` is the VMM's.
    #[inline(always)]
    pub(crate) fn cpuid(&self, leaf: u32) -> bool {
        let used = self.nr_leaves.load(Ordering::Acquire) as usize;
        used != 0
            && self
                .leaves
                .iter()
                .take(used)
                .any(|l| l.load(Ordering::Relaxed) == leaf)
    }

    /// Under a lock of the caller's: exits only read.
    fn install_cpuid(&self, leaf: u32) -> HvResult<()> {
        if self.cpuid(leaf) {
            return Ok(());
        }
        let used = self.nr_leaves.load(Ordering::Relaxed);
        let slot = self.leaves.get(used as usize);
        slot.ok_or(HV_STATUS_INSUFFICIENT_MEMORY)?
            .store(leaf, Ordering::Relaxed);
        self.nr_leaves.store(used + 1, Ordering::Release);
        Ok(())
    }

    fn remove_cpuid(&self, leaf: u32) {
        let used = self.nr_leaves.load(Ordering::Relaxed) as usize;
        let Some(last) = used.checked_sub(1) else {
            return;
        };
        let position = self
            .leaves
            .iter()
            .take(used)
            .position(|l| l.load(Ordering::Relaxed) == leaf);
        if let (Some(slot), Some(moved)) = (
            position.and_then(|at| self.leaves.get(at)),
            self.leaves.get(last),
        ) {
            slot.store(moved.load(Ordering::Relaxed), Ordering::Relaxed);
            self.nr_leaves.store(last as u32, Ordering::Release);
        }
    }
}

/// HvCallInstallIntercept. Types other than CPUID are not there.
pub(super) fn install(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request = HvInputInstallIntercept::read(input).ok_or(HV_STATUS_INVALID_PARAMETER)?;
    let leaf =
        u32::try_from(request.intercept_parameter).map_err(|_| HV_STATUS_INVALID_PARAMETER)?;
    // The hypervisor's own leaves are nobody's to answer.
    if request.intercept_type != HV_INTERCEPT_TYPE_X64_CPUID || HYPERV_CPUID_RANGE.contains(&leaf) {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    if partition.config().is_err() {
        return Err(HV_STATUS_INVALID_PARTITION_STATE);
    }
    let _setup = partition.setup.lock();
    match request.access_type {
        HV_INTERCEPT_ACCESS_MASK_EXECUTE => partition.intercepts.install_cpuid(leaf),
        HV_INTERCEPT_ACCESS_MASK_NONE => {
            partition.intercepts.remove_cpuid(leaf);
            Ok(())
        }
        _ => Err(HV_STATUS_INVALID_PARAMETER),
    }
}
