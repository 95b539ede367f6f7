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

#![allow(unsafe_code)] // UNSAFETY: instruction layer.

use super::capabilities::Capabilities;
use super::insn;
use super::vmcs::CurrentVmcs;
use x86def::cr;
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
            // SAFETY: Exists.
            self.host = unsafe { insn::rdmsr(IA32_SPEC_CTRL) };
        }
    }

    /// Just before the guest runs.
    #[inline(always)]
    pub(crate) fn enter_guest(&self) {
        if self.guest != self.host {
            // SAFETY: The MSR exists, or both would be 0; reserved bits were checked.
            unsafe { insn::wrmsr(IA32_SPEC_CTRL, self.guest) };
        }
    }

    /// Just after it ran.
    #[inline(always)]
    pub(crate) fn leave_guest(&self) {
        if self.guest != self.host {
            // SAFETY: The value was read from it.
            unsafe { insn::wrmsr(IA32_SPEC_CTRL, self.host) };
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
    /// XSAVE area, standard format.
    pub(crate) xsave: crate::sys::pages::Pages,
}

/// MSRs of the table that exist on every CPU, with their place in [`GuestMsrs`].
macro_rules! swapped_msrs {
    ($m:ident) => {
        $m!(IA32_STAR, star);
        $m!(IA32_LSTAR, lstar);
        $m!(IA32_CSTAR, cstar);
        $m!(IA32_FMASK, fmask);
        $m!(IA32_KERNEL_GS_BASE, kernel_gs_base);
    };
}

/// The host's values, while a window has displaced them.
pub(crate) struct HostState {
    msrs: GuestMsrs,
    /// What is in the MSRs now: differs from `msrs` while the guest's are loaded.
    loaded: GuestMsrs,
    debugctl: u64,
    dr7: u64,
    dr: [u64; 4],
    dr_swapped: bool,
    xcr0: u64,
    pkru: Option<u32>,
    idtr: insn::TableRegister,
    fs_base: u64,
    gs_base: u64,
    ds: u16,
    es: u16,
    fs: u16,
    gs: u16,
    ldtr: u16,
    tsc_aux: bool,
}

impl HostState {
    /// Reads the host's values, writes those that VM exits load into the VMCS, loads the guest's.
    #[inline]
    pub(crate) fn open(
        caps: &Capabilities,
        vmcs: &CurrentVmcs<'_>,
        guest: &GuestState,
        same_cpu: bool,
        cpu: u32,
    ) -> Self {
        use vmxdef::field::*;
        // SAFETY: All of these MSRs exist on a CPU with VMX and long mode; TSC_AUX where
        // `caps.tsc_aux` says so. Their values come back in `close`.
        unsafe {
            let mut msrs = GuestMsrs::default();
            macro_rules! read {
                ($msr:ident, $field:ident) => {
                    msrs.$field = insn::rdmsr($msr);
                };
            }
            swapped_msrs!(read);
            if caps.tsc_aux {
                msrs.tsc_aux = insn::rdmsr(IA32_TSC_AUX);
            }
            let gs_base = insn::rdmsr(IA32_GS_BASE);
            let fs_base = insn::rdmsr(IA32_FS_BASE);
            vmcs.write(HOST_FS_BASE, fs_base);
            vmcs.write(HOST_CR3, insn::read_cr3());
            vmcs.write(HOST_CR4, insn::read_cr4());
            if caps.perf_global_ctrl {
                // perf may have changed it since the last window.
                vmcs.write(
                    HOST_IA32_PERF_GLOBAL_CTRL,
                    insn::rdmsr(IA32_PERF_GLOBAL_CTRL),
                );
            }
            let idtr = insn::sidt();
            if !same_cpu {
                vmcs.write(HOST_CR0, insn::read_cr0());
                vmcs.write(HOST_GS_BASE, gs_base);
                vmcs.write(HOST_TR_BASE, crate::sys::host::tss_base(cpu));
                vmcs.write(HOST_GDTR_BASE, insn::sgdt().base);
                vmcs.write(HOST_IDTR_BASE, idtr.base);
                vmcs.write(HOST_IA32_SYSENTER_CS, insn::rdmsr(IA32_SYSENTER_CS) as u32);
                vmcs.write(HOST_IA32_SYSENTER_ESP, insn::rdmsr(IA32_SYSENTER_ESP));
                vmcs.write(HOST_IA32_SYSENTER_EIP, insn::rdmsr(IA32_SYSENTER_EIP));
                vmcs.write(HOST_IA32_PAT, insn::rdmsr(IA32_PAT));
                vmcs.write(HOST_IA32_EFER, insn::rdmsr(IA32_EFER));
            }
            let mut host = Self {
                loaded: msrs,
                msrs,
                debugctl: insn::rdmsr(IA32_DEBUGCTL),
                dr7: insn::read_dr7(),
                dr: [0; 4],
                dr_swapped: false,
                xcr0: insn::xgetbv0(),
                pkru: caps.pku.then(insn::rdpkru),
                idtr,
                fs_base,
                gs_base,
                ds: insn::read_ds(),
                es: insn::read_es(),
                fs: insn::read_fs(),
                gs: insn::read_gs(),
                ldtr: insn::read_ldtr(),
                tsc_aux: caps.tsc_aux,
            };
            // The host's breakpoints must not fire on our way into the guest.
            if host.dr7 & cr::DR7_ENABLES != 0 {
                insn::write_dr7(cr::DR7_RESET);
            }
            if guest.dr_loaded {
                host.swap_in_debug_registers(guest);
            }
            // Before the guest's XCR0: XRSTOR takes the components that XCR0 enables.
            insn::xrstor(guest.xsave.as_ptr(), caps.xcr0);
            if guest.xcr0 != host.xcr0 {
                insn::xsetbv0(guest.xcr0);
            }
            insn::write_cr2(guest.cr2);
            host.load_msrs(&guest.msrs);
            if caps.l1d_flush {
                insn::wrmsr(IA32_FLUSH_CMD, 1);
            }
            host
        }
    }

    /// Loads MSRs that differ from what is loaded: at opening, and when the guest writes one.
    #[inline]
    pub(crate) fn load_msrs(&mut self, guest: &GuestMsrs) {
        macro_rules! load {
            ($msr:ident, $field:ident) => {
                if self.loaded.$field != guest.$field {
                    // SAFETY: Guest values are checked when the guest writes them: canonical
                    // addresses, reserved bits 0.
                    unsafe { insn::wrmsr($msr, guest.$field) };
                    self.loaded.$field = guest.$field;
                }
            };
        }
        swapped_msrs!(load);
        if self.tsc_aux {
            load!(IA32_TSC_AUX, tsc_aux);
        }
    }

    /// The guest's KERNEL_GS_BASE, which SWAPGS changes in place.
    #[inline]
    pub(crate) fn kernel_gs_base(&mut self) -> u64 {
        // SAFETY: Exists in long mode.
        self.loaded.kernel_gs_base = unsafe { insn::rdmsr(IA32_KERNEL_GS_BASE) };
        self.loaded.kernel_gs_base
    }

    /// Puts the guest's DR0 to DR3 into the registers: it has breakpoints enabled.
    pub(crate) fn swap_in_debug_registers(&mut self, guest: &GuestState) {
        // SAFETY: The host's come back in `close`; DR7 enables none of them on the host's side.
        unsafe {
            if !self.dr_swapped {
                self.dr = [
                    insn::read_dr0(),
                    insn::read_dr1(),
                    insn::read_dr2(),
                    insn::read_dr3(),
                ];
                self.dr_swapped = true;
            }
            insn::write_dr0(guest.dr[0]);
            insn::write_dr1(guest.dr[1]);
            insn::write_dr2(guest.dr[2]);
            insn::write_dr3(guest.dr[3]);
        }
    }

    /// Sets XCR0 for the running guest.
    #[inline]
    pub(crate) fn set_guest_xcr0(&self, value: u64) {
        // SAFETY: The caller checked it against the host's XCR0 and the SDM's rules.
        unsafe { insn::xsetbv0(value) }
    }

    /// Saves the guest's values and writes the host's back.
    #[inline]
    pub(crate) fn close(mut self, caps: &Capabilities, guest: &mut GuestState) {
        guest.cr2 = insn::read_cr2();
        guest.msrs.kernel_gs_base = self.kernel_gs_base();
        // SAFETY: The area is the guest's, of `caps.xsave_size`; XCR0 is the host's again so that
        // all components are saved.
        unsafe {
            if guest.xcr0 != self.xcr0 {
                insn::xsetbv0(self.xcr0);
            }
            insn::xsave(guest.xsave.as_ptr(), caps.xcr0);
        }
        self.restore();
    }

    /// Writes the host's values back; also what an oops does.
    pub(crate) fn restore(&mut self) {
        // SAFETY: Each value was read from the same register when the window opened.
        unsafe {
            if insn::xgetbv0() != self.xcr0 {
                insn::xsetbv0(self.xcr0);
            }
            if let Some(pkru) = self.pkru {
                insn::wrpkru(pkru);
            }
            if self.dr_swapped {
                insn::write_dr0(self.dr[0]);
                insn::write_dr1(self.dr[1]);
                insn::write_dr2(self.dr[2]);
                insn::write_dr3(self.dr[3]);
            }
            if self.dr7 & cr::DR7_ENABLES != 0 {
                insn::write_dr7(self.dr7);
            }
            if self.debugctl != 0 {
                insn::wrmsr(IA32_DEBUGCTL, self.debugctl);
            }
            insn::lidt(&self.idtr);
            if self.ldtr != 0 {
                insn::load_ldtr(self.ldtr);
            }
            if self.ds | self.es != 0 {
                insn::load_ds_es(self.ds, self.es);
            }
            if self.fs != 0 {
                insn::load_fs(self.fs);
                insn::wrmsr(IA32_FS_BASE, self.fs_base);
            }
            if self.gs != 0 {
                insn::load_gs_index(self.gs);
                insn::wrmsr(IA32_GS_BASE, self.gs_base);
                // SWAPGS and the load changed it behind our back.
                self.loaded.kernel_gs_base = !self.msrs.kernel_gs_base;
            }
        }
        let host = self.msrs;
        self.load_msrs(&host);
    }
}
