// SPDX-License-Identifier: GPL-2.0

//! The root window: VMX root operation for a stretch with interrupts off, and nothing of it left
//! afterwards (design: `docs/design.md`, "Root window").
//!
//! CR4.VMXE clear: set it behind the kernel's CR4 shadow, VMXON; undone at closing. CR4.VMXE set:
//! another hypervisor holds the mode (KVM's module does from its loading); its current VMCS is
//! noted by VMPTRST, and made current again at closing.

use super::capabilities::Capabilities;
use super::host_state::{GuestState, HostState};
use super::insn;
use super::percpu::Cpu;
use super::vmcs::{CurrentVmcs, Vmcs};
use crate::sys::oops::{Dying, Emergency};
use crate::sys::percpu::{Guard, PerCpu};
use crate::sys::window::{irqs_off, IrqOff, RunWindow};
use ept::{RootGeneration, SeenGenerations};
use kernel::error::code::{EBUSY, EIO};
use kernel::error::Result;

/// The machine's VMX, one for the module.
pub(crate) struct Root {
    /// Capabilities.
    pub(crate) caps: Capabilities,
    cpus: PerCpu<Cpu>,
}

/// This CPU's part of the machine's VMX, in which a window can be opened.
pub(crate) type ThisCpu<'a> = Guard<'a, Cpu>;

impl Root {
    /// Allocates what each CPU needs.
    pub(crate) fn new(caps: Capabilities) -> Result<Self> {
        let cpus = PerCpu::new(|| Cpu::new(caps.revision))?;
        Ok(Self { caps, cpus })
    }

    /// Takes this CPU's part.
    ///
    /// # Errors
    ///
    /// EBUSY: Intel PT traces, on a CPU where it may not in VMX operation.
    #[inline]
    pub(crate) fn this_cpu<'a>(&'a self, irq: IrqOff<'a>) -> Result<ThisCpu<'a>> {
        if self.caps.pt_excludes_vmx && insn::pt_is_tracing() {
            return Err(EBUSY);
        }
        // Windows do not nest.
        self.cpus.take(irq).ok_or(EIO)
    }

    /// Runs `f` with `vmcs` current; no guest runs.
    pub(crate) fn with_vmcs<R>(
        &self,
        vmcs: &mut Vmcs,
        f: impl FnOnce(&CurrentVmcs<'_>) -> R,
    ) -> Result<R> {
        irqs_off(|irq| {
            let mut cpu = self.this_cpu(irq)?;
            let root = cpu.vmx.enter(irq).map_err(|_| EIO)?;
            let current = root.load(vmcs).map_err(|_| EIO)?;
            Ok(f(&current))
        })
    }
}

/// A window in which a guest may run: VMX root operation with a VMCS current, the host's state displaced.
pub(crate) struct OpenWindow<'a> {
    run: &'a RunWindow,
    seen: &'a SeenGenerations<8>,
    /// In the CPU's record, where an oops finds it.
    host: &'a mut Option<HostState>,
    /// The current VMCS.
    pub(crate) vmcs: CurrentVmcs<'a>,
}

impl<'a> OpenWindow<'a> {
    /// Opens.
    ///
    /// # Errors
    ///
    /// EIO: VMX operation could not be entered.
    #[inline]
    pub(crate) fn open(
        cpu: &'a mut ThisCpu<'_>,
        caps: &Capabilities,
        run: &'a RunWindow,
        vmcs: &'a mut Vmcs,
        guest: &GuestState,
        same_cpu: bool,
    ) -> Result<Self> {
        let cpu = &mut **cpu;
        let region = vmcs.region();
        let root = cpu.vmx.enter(run.irq_off()).map_err(|_| EIO)?;
        let vmcs = root.load(vmcs).map_err(|_| EIO)?;
        if caps.ibpb && cpu.last_vmcs != region {
            cpu.last_vmcs = region;
            insn::ibpb();
        }
        cpu.host = Some(HostState::open(caps, &vmcs, run, guest, same_cpu));
        Ok(Self {
            run,
            seen: &cpu.seen,
            host: &mut cpu.host,
            vmcs,
        })
    }

    /// INVEPT, if this CPU has not flushed `eptp` since its last change.
    #[inline]
    pub(crate) fn flush_stale_root(&self, generation: &RootGeneration, eptp: u64) {
        if let Some(stale) = self.seen.check(generation) {
            self.vmcs.invept(eptp);
            self.seen.flushed(stale);
        }
    }

    /// The displaced host state.
    #[inline]
    pub(crate) fn host(&mut self) -> Option<&mut HostState> {
        self.host.as_mut()
    }

    /// The kernel's side of the window.
    #[inline]
    pub(crate) fn run(&self) -> &'a RunWindow {
        self.run
    }

    /// Closes, with the guest's values kept in `guest`.
    #[inline]
    pub(crate) fn close(mut self, guest: &mut GuestState) {
        let run = self.run;
        if let Some(host) = self.host() {
            host.save(run, guest);
        }
    }
}

impl Drop for OpenWindow<'_> {
    /// The host's state comes back; then the VMCS is cleared and VMX operation left.
    #[inline]
    fn drop(&mut self) {
        *self.host = None;
    }
}

/// If this CPU was in a window, the host's state comes back first, so that what the kernel still
/// does (print, dump) works.
impl Emergency for Root {
    fn kernel_dies(&self, dying: &Dying<'_>) {
        let Some(mut cpu) = self.cpus.steal(dying) else {
            return;
        };
        if let Some(host) = &mut cpu.host {
            // What is there, SWAPGS decides.
            host.kernel_gs_base();
        }
        cpu.host = None;
        cpu.vmx.abandon(dying);
    }
}
