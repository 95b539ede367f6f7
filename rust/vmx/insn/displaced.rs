// SPDX-License-Identifier: GPL-2.0

//! Registers of the host that a window displaces: a guest's value is in them, or a VM exit spoils them.
//!
//! Each type here is the host's value of one of them: read in VMX root operation, and **written back when it is dropped**,
//! which cannot be forgotten. What is written back was read from the same register, so it is right whatever
//! happened in between; what guests may put there does not matter to a kernel with interrupts off.

use super::{rdmsr, read_dr7, write_dr7, wrmsr, CurrentVmcs};
use super::{read_dr0, read_dr1, read_dr2, read_dr3, write_dr0, write_dr1, write_dr2, write_dr3};
use core::arch::asm;
use x86def::cr;
use x86def::msr::*;

/// An MSR that matters only to user mode and to the way there and back.
pub(crate) struct SwappedMsr<const MSR: u32> {
    host: u64,
    /// What is in it now.
    loaded: u64,
}

impl<const MSR: u32> SwappedMsr<MSR> {
    const MATTERS_TO_USER_MODE_ONLY: () = assert!(matches!(
        MSR,
        IA32_STAR | IA32_LSTAR | IA32_CSTAR | IA32_FMASK | IA32_KERNEL_GS_BASE | IA32_TSC_AUX
    ));

    /// The host's.
    #[inline(always)]
    pub(crate) fn read(_root: &CurrentVmcs<'_>) -> Self {
        let () = Self::MATTERS_TO_USER_MODE_ONLY;
        let host = rdmsr(MSR);
        Self { host, loaded: host }
    }

    /// Puts a guest's value there: one that the MSR takes.
    #[inline(always)]
    pub(crate) fn load(&mut self, value: u64) {
        if self.loaded != value {
            // SAFETY: The kernel does not need it before the host's value comes back.
            unsafe { wrmsr(MSR, value) };
            self.loaded = value;
        }
    }

    /// What is there now: the guest may have changed it in place.
    #[inline(always)]
    pub(crate) fn current(&mut self) -> u64 {
        self.loaded = rdmsr(MSR);
        self.loaded
    }
}

impl<const MSR: u32> Drop for SwappedMsr<MSR> {
    #[inline(always)]
    fn drop(&mut self) {
        self.load(self.host);
    }
}

/// IA32_DEBUGCTL: 0 after a VM exit.
pub(crate) struct Debugctl(u64);

impl Debugctl {
    #[inline(always)]
    pub(crate) fn read(_root: &CurrentVmcs<'_>) -> Self {
        Self(rdmsr(IA32_DEBUGCTL))
    }
}

impl Drop for Debugctl {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0 != 0 {
            // SAFETY: Read from it.
            unsafe { wrmsr(IA32_DEBUGCTL, self.0) };
        }
    }
}

/// DR0 to DR3, and DR7, which enables none of them after a VM exit.
pub(crate) struct Breakpoints {
    dr7: u64,
    /// The host's DR0 to DR3, while the guest's are there.
    dr: Option<[u64; 4]>,
}

impl Breakpoints {
    /// The host's, which must not fire on our way into the guest.
    #[inline(always)]
    pub(crate) fn disable(_root: &CurrentVmcs<'_>) -> Self {
        let dr7 = read_dr7();
        if dr7 & cr::DR7_ENABLES != 0 {
            // SAFETY: The host's comes back.
            unsafe { write_dr7(cr::DR7_RESET) };
        }
        Self { dr7, dr: None }
    }

    /// Puts a guest's addresses into DR0 to DR3.
    pub(crate) fn load(&mut self, guest: &[u64; 4]) {
        if self.dr.is_none() {
            self.dr = Some([read_dr0(), read_dr1(), read_dr2(), read_dr3()]);
        }
        write_addresses(guest);
    }
}

fn write_addresses(dr: &[u64; 4]) {
    // SAFETY: Whose the addresses are, DR7 is, too: while the host runs with a guest's, it enables none.
    unsafe {
        write_dr0(dr[0]);
        write_dr1(dr[1]);
        write_dr2(dr[2]);
        write_dr3(dr[3]);
    }
}

impl Drop for Breakpoints {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(host) = &self.dr {
            write_addresses(host);
        }
        if self.dr7 & cr::DR7_ENABLES != 0 {
            // SAFETY: Read from it, and its addresses are back.
            unsafe { write_dr7(self.dr7) };
        }
    }
}

#[repr(C, packed)]
#[derive(Default, Clone, Copy)]
struct TableRegister {
    limit: u16,
    base: u64,
}

/// GDTR's base. Its limit, which a VM exit makes maximal, the kernel restores (`hvrs_window_end`).
pub(crate) fn gdtr_base() -> u64 {
    let mut r = TableRegister::default();
    // SAFETY: Stores ten bytes.
    unsafe { asm!("sgdt [{}]", in(reg) &mut r, options(nostack)) };
    r.base
}

/// IDTR, whose limit a VM exit makes maximal.
pub(crate) struct Idtr(TableRegister);

impl Idtr {
    #[inline(always)]
    pub(crate) fn read(_root: &CurrentVmcs<'_>) -> Self {
        let mut r = TableRegister::default();
        // SAFETY: Stores ten bytes.
        unsafe { asm!("sidt [{}]", in(reg) &mut r, options(nostack)) };
        Self(r)
    }

    #[inline(always)]
    pub(crate) fn base(&self) -> u64 {
        self.0.base
    }
}

impl Drop for Idtr {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: What SIDT gave.
        unsafe { asm!("lidt [{}]", in(reg) &self.0, options(nostack)) };
    }
}

macro_rules! selector {
    ($read:ident, $insn:literal) => {
        #[inline(always)]
        fn $read() -> u16 {
            let value: u16;
            // SAFETY: Reading has no effect.
            unsafe { asm!($insn, out(reg) value, options(nomem, nostack)) };
            value
        }
    };
}

selector!(read_ds, "mov {:x}, ds");
selector!(read_es, "mov {:x}, es");
selector!(read_fs, "mov {:x}, fs");
selector!(read_gs, "mov {:x}, gs");
selector!(read_ldtr, "sldt {:x}");

/// DS, ES, FS, GS and LDTR, whose selectors are 0 after a VM exit, and the bases of FS and GS.
pub(crate) struct Selectors {
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    ds: u16,
    es: u16,
    fs: u16,
    gs: u16,
    ldtr: u16,
}

impl Selectors {
    #[inline(always)]
    pub(crate) fn read(_root: &CurrentVmcs<'_>) -> Self {
        Self {
            fs_base: rdmsr(IA32_FS_BASE),
            gs_base: rdmsr(IA32_GS_BASE),
            ds: read_ds(),
            es: read_es(),
            fs: read_fs(),
            gs: read_gs(),
            ldtr: read_ldtr(),
        }
    }
}

impl Drop for Selectors {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: They are what this task had before the VM exit; the bases, which loading a selector changes, are
        // written afterwards. Interrupts are off between the two SWAPGS.
        unsafe {
            if self.ldtr != 0 {
                asm!("lldt {:x}", in(reg) self.ldtr, options(nostack));
            }
            if self.ds | self.es != 0 {
                asm!("mov ds, {:x}", "mov es, {:x}", in(reg) self.ds, in(reg) self.es,
                     options(nostack));
            }
            if self.fs != 0 {
                asm!("mov fs, {:x}", in(reg) self.fs, options(nostack));
                wrmsr(IA32_FS_BASE, self.fs_base);
            }
            if self.gs != 0 {
                // The kernel's base is parked where the load does not reach it.
                let parked = rdmsr(IA32_KERNEL_GS_BASE);
                asm!("swapgs", "mov gs, {:x}", "swapgs", in(reg) self.gs, options(nostack));
                wrmsr(IA32_KERNEL_GS_BASE, parked);
                wrmsr(IA32_GS_BASE, self.gs_base);
            }
        }
    }
}
