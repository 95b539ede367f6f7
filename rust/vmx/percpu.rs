// SPDX-License-Identifier: GPL-2.0

//! What each CPU has of its own: VMXON region, the open window, flush generations.

#![allow(unsafe_code)] // UNSAFETY: per-CPU interior mutability, proven by `IrqOff`.

use super::host_state::HostState;
use crate::sys::pages::Pages;
use crate::sys::window::IrqOff;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64};
use ept::SeenGenerations;
use kernel::alloc::{flags::GFP_KERNEL, KVec};
use kernel::error::Result;

/// How this CPU came into VMX root operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entered {
    /// By our VMXON; CR4 as it was.
    Own { cr4: u64 },
    /// Another hypervisor (KVM) holds it; its current VMCS, all ones: none.
    Borrowed { vmcs: u64 },
}

/// State of one CPU.
pub(crate) struct PerCpu {
    /// VMXON region.
    pub(crate) vmxon: Pages,
    /// This CPU is in a root window: an oops must close it first.
    pub(crate) in_window: AtomicBool,
    /// Flush generations of the EPT roots used here.
    pub(crate) seen: SeenGenerations<8>,
    /// VMCS that ran here last: another one needs IBPB first.
    pub(crate) last_vmcs: AtomicU64,
    open: UnsafeCell<Open>,
}

/// What closing the window must restore.
pub(crate) struct Open {
    pub(crate) entered: Entered,
    /// VMCS region that is current.
    pub(crate) vmcs: u64,
    /// Present while guest values may be in host registers.
    pub(crate) host: Option<HostState>,
}

// SAFETY: `open` is touched only by its own CPU with interrupts off.
unsafe impl Sync for PerCpu {}
// SAFETY: Plain data otherwise.
unsafe impl Send for PerCpu {}

impl PerCpu {
    fn new(revision: u32) -> Result<Self> {
        let mut vmxon = Pages::new(0)?;
        vmxon.bytes_mut()[..4].copy_from_slice(&revision.to_le_bytes());
        Ok(Self {
            vmxon,
            in_window: AtomicBool::new(false),
            seen: SeenGenerations::new(),
            last_vmcs: AtomicU64::new(!0),
            open: UnsafeCell::new(Open {
                entered: Entered::Own { cr4: 0 },
                vmcs: !0,
                host: None,
            }),
        })
    }

    /// The open window's record.
    ///
    /// # Safety
    ///
    /// This is the calling CPU's, and no other reference to it is alive.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub(super) unsafe fn open<'a>(&'a self, _irq: IrqOff<'a>) -> &'a mut Open {
        // SAFETY: By the contract; interrupts are off.
        unsafe { &mut *self.open.get() }
    }
}

/// All possible CPUs.
pub(crate) struct PerCpus(KVec<PerCpu>);

impl PerCpus {
    /// Allocates for every possible CPU.
    pub(crate) fn new(revision: u32) -> Result<Self> {
        let mut cpus = KVec::new();
        for _ in 0..crate::sys::host::nr_cpu_ids() {
            cpus.push(PerCpu::new(revision)?, GFP_KERNEL)?;
        }
        Ok(Self(cpus))
    }

    /// The calling CPU's.
    #[inline]
    pub(crate) fn this(&self, _irq: IrqOff<'_>) -> Option<&PerCpu> {
        self.0.get(crate::sys::host::cpu_id() as usize)
    }
}
