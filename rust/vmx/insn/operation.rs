// SPDX-License-Identifier: GPL-2.0

//! The VMX instructions, as methods of what proves that they may be executed: a CPU's [`CpuVmx`] is entered
//! ([`VmxRoot`]), a VMCS is loaded there ([`CurrentVmcs`]), and dropping that leaves VMX operation as it was.

use super::{read_cr4, write_cr4};
use crate::sys::bindings;
use crate::sys::oops::Dying;
use crate::sys::pages::Pages;
use crate::sys::window::IrqOff;
use crate::vmx::vmcs::Vmcs;
use core::arch::asm;
use core::marker::PhantomData;
use kernel::error::Result;
use x86def::cr::CR4_VMXE;

/// A VMX instruction failed: VMfailInvalid or VMfailValid (SDM 31.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VmFail;

/// How a CPU came into VMX root operation.
#[derive(Clone, Copy)]
enum Mode {
    /// It is not in it, as far as hvrs is concerned.
    Out,
    /// By our VMXON; CR4 as it was.
    Own { cr4: u64 },
    /// Another hypervisor (KVM) holds it; its current VMCS, all ones: none.
    Borrowed { vmcs: u64 },
}

/// VMX of one CPU, reached only there (`sys::percpu`).
pub(crate) struct CpuVmx {
    vmxon: Pages,
    mode: Mode,
    /// The region of the VMCS that hvrs has loaded.
    vmcs: Option<u64>,
}

impl CpuVmx {
    /// With a VMXON region of `revision`.
    pub(crate) fn new(revision: u32) -> Result<Self> {
        Ok(Self {
            vmxon: region(revision)?,
            mode: Mode::Out,
            vmcs: None,
        })
    }

    /// Enters VMX root operation, or borrows it from who is in it.
    #[inline]
    pub(crate) fn enter<'a>(&'a mut self, _irq: IrqOff<'a>) -> Result<VmxRoot<'a>, VmFail> {
        let cr4 = read_cr4();
        let borrowed = if cr4 & CR4_VMXE != 0 { vmptrst() } else { None };
        self.mode = match borrowed {
            Some(vmcs) => Mode::Borrowed { vmcs },
            None => {
                // SAFETY: Interrupts are off; `leave` writes the old value back before they come on, so that the
                // kernel's CR4 shadow is never seen to be wrong. The region is this CPU's.
                unsafe {
                    write_cr4(cr4 | CR4_VMXE);
                    if let Err(e) = vmxon(self.vmxon.phys()) {
                        write_cr4(cr4);
                        return Err(e);
                    }
                }
                Mode::Own { cr4 }
            }
        };
        Ok(VmxRoot {
            cpu: self,
            _irq: PhantomData,
        })
    }

    /// Leaves VMX root operation in place of code that died in it.
    pub(crate) fn abandon(&mut self, _dying: &Dying<'_>) {
        self.leave();
    }

    #[inline]
    fn leave(&mut self) {
        if let Some(vmcs) = self.vmcs.take() {
            // SAFETY: In VMX root operation; nothing of the region stays cached on this CPU.
            let _ = unsafe { vmclear(vmcs) };
        }
        match core::mem::replace(&mut self.mode, Mode::Out) {
            Mode::Out => {}
            // SAFETY: Undoes what `enter` did.
            Mode::Own { cr4 } => unsafe {
                vmxoff();
                write_cr4(cr4);
            },
            Mode::Borrowed { vmcs } if vmcs != !0 => {
                // SAFETY: It was current before, and its owner changes that only by code that does not run while
                // interrupts are off here.
                let _ = unsafe { vmptrld(vmcs) };
            }
            Mode::Borrowed { .. } => {}
        }
    }
}

/// A region that begins with VMX's `revision`: for VMXON, or a VMCS.
pub(crate) fn region(revision: u32) -> Result<Pages> {
    let mut pages = Pages::new(0)?;
    pages.bytes_mut()[..4].copy_from_slice(&revision.to_le_bytes());
    Ok(pages)
}

/// Proof that this CPU is in VMX root operation, with interrupts off. Dropped, it leaves.
pub(crate) struct VmxRoot<'a> {
    cpu: &'a mut CpuVmx,
    _irq: PhantomData<IrqOff<'a>>,
}

impl<'a> VmxRoot<'a> {
    /// Makes `vmcs` current until the result is dropped, and clear then.
    #[inline]
    pub(crate) fn load(self, vmcs: &'a mut Vmcs) -> Result<CurrentVmcs<'a>, VmFail> {
        let region = vmcs.region();
        self.cpu.vmcs = Some(region);
        // SAFETY: In VMX root operation. The region is borrowed exclusively, and clear since its last use.
        unsafe {
            if vmcs.is_new() {
                // What its launch state is, only VMCLEAR determines (SDM 25.11.3).
                vmclear(region)?;
            }
            vmptrld(region)?;
        }
        Ok(CurrentVmcs { _root: self })
    }
}

impl Drop for VmxRoot<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cpu.leave();
    }
}

/// Proof that a VMCS is current on this CPU, in VMX root operation, with interrupts off.
pub(crate) struct CurrentVmcs<'a> {
    _root: VmxRoot<'a>,
}

impl CurrentVmcs<'_> {
    /// VMREAD. A field that the CPU does not have reads as anything.
    #[inline(always)]
    pub(in crate::vmx) fn vmread(&self, field: u64) -> u64 {
        let value;
        // SAFETY: A VMCS is current.
        unsafe { asm!("vmread {}, {}", out(reg) value, in(reg) field, options(nomem, nostack)) };
        value
    }

    /// VMWRITE. What becomes of the value only a VM entry shows (`vmx/entry.rs`).
    #[inline(always)]
    pub(in crate::vmx) fn vmwrite(&self, field: u64, value: u64) {
        // SAFETY: A VMCS is current.
        unsafe { asm!("vmwrite {}, {}", in(reg) field, in(reg) value, options(nomem, nostack)) };
    }

    /// Forgets this CPU's translations by the EPT root `eptp` (INVEPT type 1, SDM 31.3).
    pub(crate) fn invept(&self, eptp: u64) {
        let descriptor = InvDescriptor(eptp, 0);
        // SAFETY: In VMX root operation; single-context INVEPT is required at load.
        unsafe { asm!("invept {}, [{}]", in(reg) 1u64, in(reg) &descriptor, options(nostack)) };
    }

    /// Forgets this CPU's translations of `vpid`, which is not 0 (INVVPID type 1).
    pub(crate) fn invvpid(&self, vpid: u16) {
        self.invalidate_vpid(1, InvDescriptor(u64::from(vpid), 0));
    }

    /// Forgets this CPU's translations of one linear address of `vpid`, in all address spaces (INVVPID type 0); the
    /// CPU must have that. An address that is not canonical is not cached.
    pub(crate) fn invvpid_address(&self, vpid: u16, gva: u64) {
        self.invalidate_vpid(0, InvDescriptor(u64::from(vpid), gva));
    }

    #[inline(always)]
    fn invalidate_vpid(&self, kind: u64, descriptor: InvDescriptor) {
        // SAFETY: In VMX root operation; INVVPID is required at load, and fails where the CPU has not this kind.
        unsafe { asm!("invvpid {}, [{}]", in(reg) kind, in(reg) &descriptor, options(nostack)) };
    }
}

#[repr(C)]
struct InvDescriptor(u64, u64);

macro_rules! vmx {
    ($(#[$meta:meta])* $name:ident, $insn:literal) => {
        $(#[$meta])*
        #[inline(always)]
        unsafe fn $name(phys: u64) -> Result<(), VmFail> {
            let failed: u8;
            // SAFETY: By the caller's contract; the operand is on the stack.
            unsafe {
                asm!(concat!($insn, " qword ptr [{}]"), "setbe {}", in(reg) &phys,
                     lateout(reg_byte) failed)
            };
            if failed == 0 { Ok(()) } else { Err(VmFail) }
        }
    };
}

vmx!(
    /// # Safety
    ///
    /// CR4.VMXE is set, not in VMX operation, `phys` is a VMXON region of this CPU's own.
    vmxon, "vmxon"
);
vmx!(
    /// # Safety
    ///
    /// In VMX root operation; `phys` is a VMCS that no other CPU uses.
    vmclear, "vmclear"
);
vmx!(
    /// # Safety
    ///
    /// As for VMCLEAR.
    vmptrld, "vmptrld"
);

/// # Safety
///
/// In VMX root operation that this code entered by VMXON.
#[inline(always)]
unsafe fn vmxoff() {
    // SAFETY: By the contract.
    unsafe { asm!("vmxoff") }
}

/// The current VMCS, or None outside of VMX operation. All ones: there is none.
fn vmptrst() -> Option<u64> {
    let mut vmcs = 0;
    // SAFETY: #UD is caught by the exception table.
    unsafe { bindings::hvrs_vmptrst_safe(&mut vmcs) }.then_some(vmcs)
}
