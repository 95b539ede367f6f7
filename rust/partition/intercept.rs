// SPDX-License-Identifier: GPL-2.0

//! Intercepts that the VMM installs (HvCallInstallIntercept, H-P13). Accesses to ports and to memory
//! that is not there go to the VMM in any case.

use super::Partition;
use crate::machine::Machine;
use crate::sys::pages::Pages;
use crate::vp::shared::event;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hvdef::*;
use kernel::sync::SetOnce;

/// Leaves and MSRs that can be intercepted, each.
const ENTRIES: usize = 32;

/// Numbers with access masks, read without a lock.
struct Table {
    /// The access mask above the number; 0: free.
    entries: [AtomicU64; ENTRIES],
    /// No entry from here on was ever in use.
    used: AtomicU32,
}

impl Table {
    const fn new() -> Self {
        Self {
            entries: [const { AtomicU64::new(0) }; ENTRIES],
            used: AtomicU32::new(0),
        }
    }

    /// Those that were ever in use.
    fn entries(&self) -> impl Iterator<Item = &AtomicU64> {
        let used = self.used.load(Ordering::Acquire) as usize;
        self.entries.iter().take(used)
    }

    /// The access mask of `number`.
    fn get(&self, number: u32) -> u32 {
        let mut values = self.entries().map(|e| e.load(Ordering::Relaxed));
        let found = values.find(|e| *e as u32 == number && *e != 0);
        (found.unwrap_or(0) >> 32) as u32
    }

    /// The numbers in use.
    fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let values = self.entries().map(|e| e.load(Ordering::Relaxed));
        values.filter(|e| *e != 0).map(|e| e as u32)
    }

    /// Under a lock of the caller's: exits only read. An entry stays where it is, so that none is
    /// missed meanwhile.
    fn set(&self, number: u32, access: u32) -> HvResult<()> {
        let value = match access {
            0 => 0,
            _ => u64::from(access) << 32 | u64::from(number),
        };
        let is = |e: &AtomicU64, number: u64| {
            let old = e.load(Ordering::Relaxed);
            old != 0 && old & u64::from(u32::MAX) == number
        };
        if let Some(entry) = self.entries().find(|e| is(e, number.into())) {
            entry.store(value, Ordering::Relaxed);
            return Ok(());
        }
        if value == 0 {
            return Ok(());
        }
        let mut all = (0..).zip(&self.entries);
        let free = all.find(|(_, e)| e.load(Ordering::Relaxed) == 0);
        let (at, entry) = free.ok_or(HV_STATUS_INSUFFICIENT_MEMORY)?;
        entry.store(value, Ordering::Relaxed);
        self.used.fetch_max(at + 1, Ordering::Release);
        Ok(())
    }
}

/// Sets of hypercalls that can be the VMM's.
mod calls {
    /// Those that hvrs does not know.
    pub(super) const UNKNOWN: u32 = 1 << 0;
    /// Messages and events for connections that hvrs does not know, which are all.
    pub(super) const CONNECTION: u32 = 1 << 1;
    /// HvCallRetargetDeviceInterrupt of devices that hvrs does not know, which are all.
    pub(super) const RETARGET: u32 = 1 << 2;
}

/// What is intercepted. Exits look at it without a lock.
pub(crate) struct Intercepts {
    leaves: Table,
    msrs: Table,
    /// Access mask for MSRs that nobody implements.
    unimplemented_msrs: AtomicU32,
    /// A bit for each vector.
    exceptions: AtomicU32,
    /// Bits of [`calls`].
    calls: AtomicU32,
    /// The machine's MSR bitmap with what the CPU would let the guest access.
    msr_bitmap: SetOnce<Pages>,
}

impl Intercepts {
    /// None.
    pub(super) const fn new() -> Self {
        Self {
            leaves: Table::new(),
            msrs: Table::new(),
            unimplemented_msrs: AtomicU32::new(0),
            exceptions: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            msr_bitmap: SetOnce::new(),
        }
    }

    /// Whether there is one that exits must look for. What comes with exits that happen for it
    /// alone is not counted, nor are the crash MSRs, which leave the hot tier in any case: a VMM
    /// that wants to hear of a crash does not make other exits dearer.
    pub(crate) fn any(&self) -> bool {
        let crash = HV_X64_MSR_CRASH_P0..=HV_X64_MSR_CRASH_CTL;
        self.leaves.numbers().next().is_some()
            || self.msrs.numbers().any(|msr| !crash.contains(&msr))
            || self.calls.load(Ordering::Relaxed) != 0
    }

    /// Whether CPUID of `leaf` is the VMM's.
    pub(crate) fn cpuid(&self, leaf: u32) -> bool {
        self.leaves.get(leaf) != 0
    }

    /// Whether this access to `msr` is the VMM's.
    pub(crate) fn msr(&self, msr: u32, write: bool) -> bool {
        self.msrs.get(msr) & access_mask(write) != 0
    }

    /// Whether this access to an MSR that nobody implements is.
    pub(crate) fn unimplemented_msr(&self, write: bool) -> bool {
        self.unimplemented_msrs.load(Ordering::Relaxed) & access_mask(write) != 0
    }

    /// The vectors of exceptions that are.
    pub(crate) fn exceptions(&self) -> u32 {
        self.exceptions.load(Ordering::Relaxed)
    }

    /// Whether a hypercall that hvrs does not know is.
    pub(crate) fn call(&self, code: HvCallCode) -> bool {
        let sets = match code {
            HvCallCode::HvCallPostMessage | HvCallCode::HvCallSignalEvent => {
                calls::CONNECTION | calls::UNKNOWN
            }
            HvCallCode::HvCallRetargetDeviceInterrupt => calls::RETARGET | calls::UNKNOWN,
            _ => calls::UNKNOWN,
        };
        self.calls.load(Ordering::Relaxed) & sets != 0
    }

    /// Address of the MSR bitmap for the partition's VPs.
    pub(crate) fn msr_bitmap(&self, machine: &Machine) -> u64 {
        match self.msr_bitmap.as_ref() {
            Some(own) => own.phys(),
            None => machine.msr_bitmap.phys(),
        }
    }

    /// Makes accesses to `msr` exit, or not, if the CPU would let the guest have them.
    fn set_in_bitmap(&self, machine: &Machine, msr: u32, access: u32) -> HvResult<()> {
        for write in [false, true] {
            let Some((word, bit)) = Machine::msr_bit(msr, write) else {
                return Ok(());
            };
            let common = machine.msr_bitmap.words().get(word);
            if common.is_none_or(|w| w.load(Ordering::Relaxed) & bit != 0) {
                continue;
            }
            let wanted = access & access_mask(write) != 0;
            if wanted && self.msr_bitmap.as_ref().is_none() {
                let page = Pages::new(0).map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)?;
                for (to, from) in page.words().iter().zip(machine.msr_bitmap.words()) {
                    to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                self.msr_bitmap.populate(page);
            }
            let own = self.msr_bitmap.as_ref().and_then(|p| p.words().get(word));
            match own {
                Some(own) if wanted => own.fetch_or(bit, Ordering::Relaxed),
                Some(own) => own.fetch_and(!bit, Ordering::Relaxed),
                None => 0,
            };
        }
        Ok(())
    }

    fn set_msr(&self, machine: &Machine, msr: u32, access: u32) -> HvResult<()> {
        // What goes, goes from the bitmap first: an exit that does not find it in the table is then
        // repeated, and does not exit again.
        let before = self.msrs.get(msr);
        if before & !access != 0 {
            self.set_in_bitmap(machine, msr, access & before)?;
        }
        self.msrs.set(msr, access)?;
        self.set_in_bitmap(machine, msr, access)
    }
}

const fn access_mask(write: bool) -> u32 {
    if write {
        HV_INTERCEPT_ACCESS_MASK_WRITE
    } else {
        HV_INTERCEPT_ACCESS_MASK_READ
    }
}

/// Sets or clears `bits`.
fn set_bits(word: &AtomicU32, bits: u32, on: bool) -> HvResult<()> {
    if on {
        word.fetch_or(bits, Ordering::Relaxed);
    } else {
        word.fetch_and(!bits, Ordering::Relaxed);
    }
    Ok(())
}

/// HvCallInstallIntercept.
pub(super) fn install(partition: &Partition, input: &[u8]) -> HvResult<()> {
    const READ_WRITE: u32 = HV_INTERCEPT_ACCESS_MASK_READ | HV_INTERCEPT_ACCESS_MASK_WRITE;
    let bad = HV_STATUS_INVALID_PARAMETER;
    let request = HvInputInstallIntercept::read(input).ok_or(bad)?;
    let (kind, access) = (request.intercept_type, request.access_type);
    let parameter = u32::try_from(request.intercept_parameter).map_err(|_| bad)?;
    let (legal, number) = match kind {
        HV_INTERCEPT_TYPE_X64_IO_PORT => (READ_WRITE, parameter < 1 << 16),
        HV_INTERCEPT_TYPE_X64_MSR => (READ_WRITE, parameter == 0),
        HV_INTERCEPT_TYPE_X64_MSR_INDEX => (READ_WRITE, true),
        // The hypervisor's own leaves are nobody's to answer.
        HV_INTERCEPT_TYPE_X64_CPUID => (
            HV_INTERCEPT_ACCESS_MASK_EXECUTE,
            !HYPERV_CPUID_RANGE.contains(&parameter),
        ),
        // Vector 2 is no exception, and machine checks are the host's.
        HV_INTERCEPT_TYPE_EXCEPTION => (
            HV_INTERCEPT_ACCESS_MASK_EXECUTE,
            parameter < 32 && !matches!(parameter, 2 | 18),
        ),
        HV_INTERCEPT_TYPE_HYPERCALL
        | HV_INTERCEPT_TYPE_UNKNOWN_SYNIC_CONNECTION
        | HV_INTERCEPT_TYPE_RETARGET_INTERRUPT_WITH_UNKNOWN_DEVICE_ID => {
            (HV_INTERCEPT_ACCESS_MASK_EXECUTE, parameter == 0)
        }
        _ => return Err(bad),
    };
    if !number || access & !legal != 0 {
        return Err(bad);
    }
    if partition.config().is_err() {
        return Err(HV_STATUS_INVALID_PARTITION_STATE);
    }
    let _setup = partition.setup.lock();
    let on = access != HV_INTERCEPT_ACCESS_MASK_NONE;
    let intercepts = &partition.intercepts;
    let sets = &intercepts.calls;
    match kind {
        // They always come to the VMM.
        HV_INTERCEPT_TYPE_X64_IO_PORT if on => return Ok(()),
        HV_INTERCEPT_TYPE_X64_IO_PORT => return Err(HV_STATUS_OPERATION_DENIED),
        HV_INTERCEPT_TYPE_X64_MSR => intercepts
            .unimplemented_msrs
            .store(access, Ordering::Relaxed),
        HV_INTERCEPT_TYPE_X64_MSR_INDEX => {
            intercepts.set_msr(&partition.machine, parameter, access)?
        }
        HV_INTERCEPT_TYPE_X64_CPUID => intercepts.leaves.set(parameter, access)?,
        HV_INTERCEPT_TYPE_EXCEPTION => set_bits(&intercepts.exceptions, 1 << parameter, on)?,
        HV_INTERCEPT_TYPE_HYPERCALL => set_bits(sets, calls::UNKNOWN, on)?,
        HV_INTERCEPT_TYPE_UNKNOWN_SYNIC_CONNECTION => set_bits(sets, calls::CONNECTION, on)?,
        _ => set_bits(sets, calls::RETARGET, on)?,
    }
    // Each takes it over before its next entry.
    for (index, vp) in partition.shared_vps() {
        vp.set_event(event::PARTITION);
        vp.kick(&partition.memory.space, index);
    }
    Ok(())
}
