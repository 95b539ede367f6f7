// SPDX-License-Identifier: GPL-2.0

//! The host-state table: what of the host a guest run displaces.
//!
//! Each item is read when the window opens and written back exactly as read when it closes: never
//! from a value cached at load, because KVM leaves its guests' values in some of them and caches
//! what it wrote.
//!
//! | item | VM exit does | here |
//! |---|---|---|
//! | STAR, LSTAR, CSTAR, FMASK, TSC_AUX, KERNEL_GS_BASE | nothing | swapped if different |
//! | FS, GS base | load from VMCS | HOST_FS_BASE, HOST_GS_BASE written at opening |
//! | SYSENTER, PAT, EFER | load from VMCS | written at opening |
//! | DS, ES, FS, GS, LDTR selectors | become 0 | reloaded if they were not 0 |
//! | GDTR, IDTR, TR limits | become maximal | IDTR here, GDTR and TSS by the kernel |
//! | SPEC_CTRL | nothing | swapped at each entry and exit if different, see [`SpecCtrl`] |
//! | PERF_GLOBAL_CTRL | load from VMCS; 0 in the guest, so that the host's PEBS does not write there | written at opening |
//! | DR7, DEBUGCTL | 0x400, 0 | written back |
//! | DR0 to DR3 | nothing | swapped while the guest has breakpoints |
//! | XCR0, PKRU | nothing | swapped |
//! | CR2 | nothing | the guest's loaded and saved; the host's is dead between faults |

use super::capabilities::Capabilities;
use super::insn;
use super::insn::displaced::{gdtr_base, Breakpoints, Debugctl, Idtr, Selectors, SwappedMsr};
use super::insn::xsave::{Pkru, Xcr0, XsaveArea};
use super::vmcs::CurrentVmcs;
use crate::sys::window::RunWindow;
use vmxdef::field::*;
use x86def::msr::*;

/// Guest values of MSRs that VMX does not switch.
#[derive(Clone, Copy, Default)]
pub(crate) struct GuestMsrs {
    /// IA32_STAR.
    pub(crate) star: u64,
    /// IA32_LSTAR.
    pub(crate) lstar: u64,
    /// IA32_CSTAR.
    pub(crate) cstar: u64,
    /// IA32_FMASK.
    pub(crate) fmask: u64,
    /// IA32_KERNEL_GS_BASE: SWAPGS changes it without an exit.
    pub(crate) kernel_gs_base: u64,
    /// IA32_TSC_AUX.
    pub(crate) tsc_aux: u64,
}

/// IA32_SPEC_CTRL: the guest's is in the CPU only while the guest runs, because the host's branch
/// protection is in it too. Every write of it exits, so it is never read back.
#[derive(Clone, Copy)]
pub(crate) struct SpecCtrl {
    /// The host's value in this window.
    host: u64,
    /// The guest's.
    pub(crate) guest: u64,
}

impl SpecCtrl {
    /// After RESET.
    pub(crate) const fn new() -> Self {
        Self { host: 0, guest: 0 }
    }

    /// Notes the host's value; where there is no such MSR both stay 0.
    #[inline]
    pub(crate) fn open(&mut self, caps: &Capabilities) {
        if caps.spec_ctrl {
            self.host = insn::rdmsr(IA32_SPEC_CTRL);
        }
    }

    /// Just before the guest runs.
    #[inline(always)]
    pub(crate) fn enter_guest(&self) {
        if self.guest != self.host {
            // The MSR exists, or both would be 0; reserved bits were checked.
            insn::write_spec_ctrl(self.guest);
        }
    }

    /// Just after it ran.
    #[inline(always)]
    pub(crate) fn leave_guest(&self) {
        if self.guest != self.host {
            insn::write_spec_ctrl(self.host);
        }
    }
}

/// Guest values of the registers that a window swaps.
pub(crate) struct GuestState {
    /// MSRs.
    pub(crate) msrs: GuestMsrs,
    /// XCR0.
    pub(crate) xcr0: u64,
    /// CR2.
    pub(crate) cr2: u64,
    /// DR0 to DR3.
    pub(crate) dr: [u64; 4],
    /// DR6. Only here: #DB exits before the CPU sets it, and MOV DR exits.
    pub(crate) dr6: u64,
    /// DR0 to DR3 are in the hardware registers while the guest runs.
    pub(crate) dr_loaded: bool,
    /// x87 state and all that came after it.
    pub(crate) xsave: XsaveArea,
}

/// The host's values, while a window has displaced them. Dropped, they come back, in the order of the fields.
pub(crate) struct HostState {
    xcr0: Xcr0,
    _pkru: Option<Pkru>,
    breakpoints: Breakpoints,
    _debugctl: Debugctl,
    _idtr: Idtr,
    _selectors: Selectors,
    star: SwappedMsr<IA32_STAR>,
    lstar: SwappedMsr<IA32_LSTAR>,
    cstar: SwappedMsr<IA32_CSTAR>,
    fmask: SwappedMsr<IA32_FMASK>,
    kernel_gs_base: SwappedMsr<IA32_KERNEL_GS_BASE>,
    tsc_aux: Option<SwappedMsr<IA32_TSC_AUX>>,
}

impl HostState {
    /// Reads the host's values, writes those that VM exits load into the VMCS, loads the guest's.
    #[inline]
    pub(crate) fn open(
        caps: &Capabilities,
        vmcs: &CurrentVmcs<'_>,
        window: &RunWindow,
        guest: &GuestState,
        same_cpu: bool,
    ) -> Self {
        let selectors = Selectors::read(vmcs);
        let idtr = Idtr::read(vmcs);
        vmcs.write(HOST_FS_BASE, selectors.fs_base);
        vmcs.write(HOST_CR3, insn::read_cr3());
        vmcs.write(HOST_CR4, insn::read_cr4());
        if caps.perf_global_ctrl {
            // perf may have changed it since the last window.
            let value = insn::rdmsr(IA32_PERF_GLOBAL_CTRL);
            vmcs.write(HOST_IA32_PERF_GLOBAL_CTRL, value);
        }
        if !same_cpu {
            vmcs.write(HOST_CR0, insn::read_cr0());
            vmcs.write(HOST_GS_BASE, selectors.gs_base);
            vmcs.write(HOST_TR_BASE, crate::sys::host::tss_base(window.cpu()));
            vmcs.write(HOST_GDTR_BASE, gdtr_base());
            vmcs.write(HOST_IDTR_BASE, idtr.base());
            vmcs.write(HOST_IA32_SYSENTER_CS, insn::rdmsr(IA32_SYSENTER_CS) as u32);
            vmcs.write(HOST_IA32_SYSENTER_ESP, insn::rdmsr(IA32_SYSENTER_ESP));
            vmcs.write(HOST_IA32_SYSENTER_EIP, insn::rdmsr(IA32_SYSENTER_EIP));
            vmcs.write(HOST_IA32_PAT, insn::rdmsr(IA32_PAT));
            vmcs.write(HOST_IA32_EFER, insn::rdmsr(IA32_EFER));
        }
        let mut host = Self {
            xcr0: Xcr0::read(vmcs),
            _pkru: caps.pku.then(|| Pkru::read(vmcs)),
            breakpoints: Breakpoints::disable(vmcs),
            _debugctl: Debugctl::read(vmcs),
            _idtr: idtr,
            _selectors: selectors,
            star: SwappedMsr::read(vmcs),
            lstar: SwappedMsr::read(vmcs),
            cstar: SwappedMsr::read(vmcs),
            fmask: SwappedMsr::read(vmcs),
            kernel_gs_base: SwappedMsr::read(vmcs),
            tsc_aux: caps.tsc_aux.then(|| SwappedMsr::read(vmcs)),
        };
        if guest.dr_loaded {
            host.load_debug_registers(&guest.dr);
        }
        // Before the guest's XCR0: XRSTOR takes the components that XCR0 enables.
        guest.xsave.restore(window);
        host.load_xcr0(guest.xcr0);
        insn::write_cr2(guest.cr2);
        host.load_msrs(&guest.msrs);
        if caps.l1d_flush {
            insn::l1d_flush();
        }
        host
    }

    /// Loads MSRs that differ from what is loaded: at opening, and when the guest writes one. The values were checked
    /// when the guest wrote them: canonical addresses, reserved bits 0.
    #[inline]
    pub(crate) fn load_msrs(&mut self, guest: &GuestMsrs) {
        self.star.load(guest.star);
        self.lstar.load(guest.lstar);
        self.cstar.load(guest.cstar);
        self.fmask.load(guest.fmask);
        self.kernel_gs_base.load(guest.kernel_gs_base);
        if let Some(tsc_aux) = &mut self.tsc_aux {
            tsc_aux.load(guest.tsc_aux);
        }
    }

    /// The guest's KERNEL_GS_BASE, which SWAPGS changes in place.
    #[inline]
    pub(crate) fn kernel_gs_base(&mut self) -> u64 {
        self.kernel_gs_base.current()
    }

    /// Puts the guest's DR0 to DR3 into the registers: it has breakpoints enabled.
    pub(crate) fn load_debug_registers(&mut self, dr: &[u64; 4]) {
        self.breakpoints.load(dr);
    }

    /// Sets XCR0 for the guest; the caller checked it against the host's and the SDM's rules.
    #[inline]
    pub(crate) fn load_xcr0(&mut self, value: u64) {
        self.xcr0.load(value);
    }

    /// Takes the guest's values out of the registers, before this is dropped.
    #[inline]
    pub(crate) fn save(&mut self, window: &RunWindow, guest: &mut GuestState) {
        guest.cr2 = insn::read_cr2();
        guest.msrs.kernel_gs_base = self.kernel_gs_base();
        // All components, not those alone that the guest enables.
        self.xcr0.restore();
        guest.xsave.save(window);
    }
}
