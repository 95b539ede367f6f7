// SPDX-License-Identifier: GPL-2.0

//! The root window: VMX root operation for a stretch with interrupts off, and nothing of it left
//! afterwards (design: `docs/design.md`, "Root window").
//!
//! CR4.VMXE clear: set it behind the kernel's CR4 shadow, VMXON; undone at closing. CR4.VMXE set:
//! another hypervisor holds the mode (KVM's module does from its loading); its current VMCS is
//! noted by VMPTRST, and made current again at closing.

#![allow(unsafe_code)] // UNSAFETY: instruction layer.

use super::capabilities::Capabilities;
use super::host_state::{GuestState, HostState};
use super::insn;
use super::percpu::{Entered, PerCpu, PerCpus};
use super::vmcs::{CurrentVmcs, VmcsRegion};
use crate::sys::window::{irqs_off, IrqOff, RunWindow};
use core::sync::atomic::{AtomicPtr, Ordering};
use ept::RootGeneration;
use kernel::error::code::{EBUSY, EIO};
use kernel::error::Result;
use kernel::sync::Arc;
use x86def::cr::CR4_VMXE;

/// The machine's VMX, one for the module.
pub(crate) struct Root {
    /// Capabilities.
    pub(crate) caps: Capabilities,
    cpus: PerCpus,
}

/// For the oops notifier, which has no other way to find it.
static ROOT: AtomicPtr<Root> = AtomicPtr::new(core::ptr::null_mut());

/// See [`Root::publish`].
pub(crate) struct Published {
    /// Kept alive, not read.
    _root: Arc<Root>,
}

impl Drop for Published {
    fn drop(&mut self) {
        ROOT.store(core::ptr::null_mut(), Ordering::Release);
    }
}

impl Root {
    /// Allocates what each CPU needs.
    pub(crate) fn new(caps: Capabilities) -> Result<Self> {
        let cpus = PerCpus::new(caps.revision)?;
        Ok(Self { caps, cpus })
    }

    /// Makes `root` known to the oops notifier for as long as the result lives.
    pub(crate) fn publish(root: Arc<Root>) -> Published {
        ROOT.store(Arc::as_ptr(&root).cast_mut(), Ordering::Release);
        Published { _root: root }
    }

    /// Opens a window in which a guest may run.
    ///
    /// # Errors
    ///
    /// EBUSY: Intel PT traces, on a CPU where it may not in VMX operation; EIO: VMXON failed.
    #[inline]
    pub(crate) fn open_run<'a>(
        &'a self,
        window: &'a RunWindow,
        region: VmcsRegion,
        guest: &GuestState,
        same_cpu: bool,
    ) -> Result<OpenWindow<'a>> {
        let irq = window.irq_off();
        let open = OpenWindow::enter(self, irq, region)?;
        if self.caps.ibpb && open.cpu.last_vmcs.load(Ordering::Relaxed) != region.0 {
            open.cpu.last_vmcs.store(region.0, Ordering::Relaxed);
            insn::ibpb();
        }
        let host = HostState::open(&self.caps, &open.vmcs, guest, same_cpu, window.cpu());
        open.record().host = Some(host);
        Ok(open)
    }

    /// Runs `f` with `vmcs` current; no guest runs.
    pub(crate) fn with_vmcs<R>(
        &self,
        region: VmcsRegion,
        f: impl FnOnce(&CurrentVmcs<'_>) -> R,
    ) -> Result<R> {
        irqs_off(|irq| {
            let open = OpenWindow::enter(self, irq, region)?;
            let r = f(&open.vmcs);
            open.leave();
            Ok(r)
        })
    }
}

/// VMX root operation on this CPU with a VMCS current.
pub(crate) struct OpenWindow<'a> {
    cpu: &'a PerCpu,
    irq: IrqOff<'a>,
    /// The current VMCS.
    pub(crate) vmcs: CurrentVmcs<'a>,
}

impl<'a> OpenWindow<'a> {
    #[inline]
    fn enter(root: &'a Root, irq: IrqOff<'a>, region: VmcsRegion) -> Result<Self> {
        let cpu = root.cpus.this(irq).ok_or(EIO)?;
        if root.caps.pt_excludes_vmx && insn::pt_is_tracing() {
            return Err(EBUSY);
        }
        cpu.in_window.store(true, Ordering::Relaxed);
        let Ok(entered) = enter_root(cpu) else {
            cpu.in_window.store(false, Ordering::Relaxed);
            return Err(EIO);
        };
        // SAFETY: This CPU's, interrupts are off, windows do not nest.
        let open = unsafe { cpu.open(irq) };
        open.entered = entered;
        open.vmcs = region.0;
        open.host = None;
        // SAFETY: In VMX root operation; the region is used by this VP alone, whose lock is held.
        if unsafe { insn::vmptrld(region.0) }.is_err() {
            leave_root(entered);
            cpu.in_window.store(false, Ordering::Relaxed);
            return Err(EIO);
        }
        Ok(Self {
            cpu,
            irq,
            // SAFETY: Just loaded; cleared by `leave`.
            vmcs: unsafe { CurrentVmcs::new() },
        })
    }

    #[allow(clippy::mut_from_ref)]
    #[inline]
    fn record(&self) -> &mut super::percpu::Open {
        // SAFETY: This CPU's, interrupts are off; callers do not hold two.
        unsafe { self.cpu.open(self.irq) }
    }

    /// INVEPT, if this CPU has not flushed `eptp` since its last change.
    #[inline]
    pub(crate) fn flush_stale_root(&self, generation: &RootGeneration, eptp: u64) {
        if let Some(stale) = self.cpu.seen.check(generation) {
            self.vmcs.invept(eptp);
            self.cpu.seen.flushed(stale);
        }
    }

    /// The displaced host state, in a window that [`Root::open_run`] opened.
    #[inline]
    pub(crate) fn host(&mut self) -> Option<&mut HostState> {
        self.record().host.as_mut()
    }

    /// Closes a window of [`Root::open_run`].
    #[inline]
    pub(crate) fn close(self, caps: &Capabilities, guest: &mut GuestState) {
        if let Some(host) = self.record().host.take() {
            host.close(caps, guest);
        }
        self.leave();
    }

    #[inline]
    fn leave(self) {
        let open = self.record();
        // SAFETY: The region is current; nothing of it stays cached on this CPU.
        let _ = unsafe { insn::vmclear(open.vmcs) };
        leave_root(open.entered);
        self.cpu.in_window.store(false, Ordering::Relaxed);
    }
}

#[inline]
fn enter_root(cpu: &PerCpu) -> Result<Entered, insn::VmFail> {
    let cr4 = insn::read_cr4();
    if cr4 & CR4_VMXE != 0 {
        if let Some(vmcs) = insn::vmptrst() {
            return Ok(Entered::Borrowed { vmcs });
        }
    }
    // SAFETY: Interrupts are off; `leave_root` writes the old value back before they come on, so
    // that the kernel's CR4 shadow is never seen to be wrong. The region is this CPU's.
    unsafe {
        insn::write_cr4(cr4 | CR4_VMXE);
        if let Err(e) = insn::vmxon(cpu.vmxon.phys()) {
            insn::write_cr4(cr4);
            return Err(e);
        }
    }
    Ok(Entered::Own { cr4 })
}

#[inline]
fn leave_root(entered: Entered) {
    // SAFETY: Undoes what `enter_root` did; the borrowed VMCS was current before, and its owner
    // changes that only by code that does not run while interrupts are off here.
    unsafe {
        match entered {
            Entered::Own { cr4 } => {
                insn::vmxoff();
                insn::write_cr4(cr4);
            }
            Entered::Borrowed { vmcs } if vmcs != !0 => {
                let _ = insn::vmptrld(vmcs);
            }
            Entered::Borrowed { .. } => {}
        }
    }
}

/// The kernel dies on this CPU. If it was in a window, the host's state comes back first, so that
/// what the kernel still does (print, dump) works. Returns whether it was.
#[no_mangle]
extern "C" fn hvrs_rs_emergency() -> bool {
    // SAFETY: Published for as long as the notifiers are registered.
    let Some(root) = (unsafe { ROOT.load(Ordering::Acquire).as_ref() }) else {
        return false;
    };
    irqs_off(|irq| {
        let Some(cpu) = root.cpus.this(irq) else {
            return false;
        };
        if !cpu.in_window.swap(false, Ordering::Relaxed) {
            return false;
        }
        // SAFETY: This CPU's; whoever held the record does not run any more.
        let open = unsafe { cpu.open(irq) };
        if let Some(mut host) = open.host.take() {
            host.restore();
        }
        // SAFETY: As in `leave`.
        let _ = unsafe { insn::vmclear(open.vmcs) };
        leave_root(open.entered);
        true
    })
}
