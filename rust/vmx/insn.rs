// SPDX-License-Identifier: GPL-2.0

//! The privileged instructions that hvrs uses, one function each.

#![allow(unsafe_code)] // UNSAFETY: instruction layer.

use super::counts::{count, Counted};
use crate::sys::bindings;
use core::arch::asm;

/// A VMX instruction failed: VMfailInvalid or VMfailValid (SDM 31.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VmFail;

macro_rules! vmx {
    ($(#[$meta:meta])* $name:ident, $insn:literal, $counted:ident) => {
        $(#[$meta])*
        #[inline(always)]
        pub(super) unsafe fn $name(phys: u64) -> Result<(), VmFail> {
            count(Counted::$counted);
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
    vmxon, "vmxon", Vmxon
);
vmx!(
    /// # Safety
    ///
    /// In VMX root operation; `phys` is a VMCS that no other CPU uses.
    vmclear, "vmclear", Vmclear
);
vmx!(
    /// # Safety
    ///
    /// As for VMCLEAR.
    vmptrld, "vmptrld", Vmptrld
);

/// # Safety
///
/// In VMX root operation that this code entered by VMXON.
#[inline(always)]
pub(super) unsafe fn vmxoff() {
    count(Counted::Vmxoff);
    // SAFETY: By the contract.
    unsafe { asm!("vmxoff") }
}

/// The current VMCS, or None outside of VMX operation. All ones: there is none.
pub(super) fn vmptrst() -> Option<u64> {
    let mut vmcs = 0;
    // SAFETY: #UD is caught by the exception table.
    unsafe { bindings::hvrs_vmptrst_safe(&mut vmcs) }.then_some(vmcs)
}

/// # Safety
///
/// In VMX root operation with a current VMCS that has the field.
#[inline(always)]
pub(super) unsafe fn vmread(field: u64) -> u64 {
    count(Counted::Vmread);
    let value;
    // SAFETY: By the contract.
    unsafe { asm!("vmread {}, {}", out(reg) value, in(reg) field, options(nomem, nostack)) };
    value
}

/// # Safety
///
/// As for [`vmread`]; the caller answers for what the next VM entry makes of the value.
#[inline(always)]
pub(super) unsafe fn vmwrite(field: u64, value: u64) {
    count(Counted::Vmwrite);
    // SAFETY: By the contract.
    unsafe { asm!("vmwrite {}, {}", in(reg) field, in(reg) value, options(nomem, nostack)) };
}

#[repr(C)]
struct InvDescriptor(u64, u64);

/// Invalidates what is cached of the EPT root `eptp` on this CPU (SDM 31.3, INVEPT type 1).
///
/// # Safety
///
/// In VMX root operation.
pub(super) unsafe fn invept_single(eptp: u64) {
    count(Counted::Invept);
    let descriptor = InvDescriptor(eptp, 0);
    // SAFETY: By the contract; single-context INVEPT is required at load.
    unsafe { asm!("invept {}, [{}]", in(reg) 1u64, in(reg) &descriptor, options(nostack)) };
}

/// Invalidates what is cached of `vpid` on this CPU (INVVPID type 1).
///
/// # Safety
///
/// In VMX root operation; `vpid` is not 0.
pub(super) unsafe fn invvpid_single(vpid: u16) {
    count(Counted::Invvpid);
    let descriptor = InvDescriptor(u64::from(vpid), 0);
    // SAFETY: By the contract; single-context INVVPID is required at load.
    unsafe { asm!("invvpid {}, [{}]", in(reg) 1u64, in(reg) &descriptor, options(nostack)) };
}

/// Invalidates what is cached of the page of the linear address `gva` under `vpid` on this CPU
/// (INVVPID type 0), in all address spaces. An address that is not canonical is not cached.
///
/// # Safety
///
/// In VMX root operation; `vpid` is not 0; the CPU has individual-address INVVPID.
pub(super) unsafe fn invvpid_address(vpid: u16, gva: u64) {
    count(Counted::Invvpid);
    let descriptor = InvDescriptor(u64::from(vpid), gva);
    // SAFETY: By the contract.
    unsafe { asm!("invvpid {}, [{}]", in(reg) 0u64, in(reg) &descriptor, options(nostack)) };
}

/// XMM0 to XMM5, low halves first: the guest's, while a window is open, because the kernel's code
/// does not use them.
pub(crate) fn xmm_0_to_5() -> [u64; 12] {
    let mut words = [0; 12];
    // SAFETY: Stores 96 bytes; the kernel runs with SSE on.
    unsafe {
        asm!("movups [{0}], xmm0", "movups [{0} + 16], xmm1", "movups [{0} + 32], xmm2",
             "movups [{0} + 48], xmm3", "movups [{0} + 64], xmm4", "movups [{0} + 80], xmm5",
             in(reg) words.as_mut_ptr(), options(nostack))
    };
    words
}

macro_rules! control_register {
    ($read:ident, $write:ident, $name:literal) => {
        /// Reads the register.
        #[inline(always)]
        pub(crate) fn $read() -> u64 {
            let value;
            // SAFETY: Reading has no effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }
        /// # Safety
        ///
        /// The value keeps the kernel running, or is undone before it notices.
        #[inline(always)]
        #[allow(dead_code)] // One macro for registers that are only read.
        pub(super) unsafe fn $write(value: u64) {
            count(Counted::CrWrite);
            // SAFETY: By the contract.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

control_register!(read_cr0, write_cr0, "cr0");
control_register!(read_cr2, write_cr2, "cr2");
control_register!(read_cr3, write_cr3, "cr3");
control_register!(read_cr4, write_cr4, "cr4");
control_register!(read_dr0, write_dr0, "dr0");
control_register!(read_dr1, write_dr1, "dr1");
control_register!(read_dr2, write_dr2, "dr2");
control_register!(read_dr3, write_dr3, "dr3");
control_register!(read_dr7, write_dr7, "dr7");

/// # Safety
///
/// The MSR exists.
#[inline(always)]
pub(super) unsafe fn rdmsr(msr: u32) -> u64 {
    count(Counted::Rdmsr);
    let (low, high): (u32, u32);
    // SAFETY: By the contract.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
///
/// The MSR exists and takes the value; the kernel's value comes back before it notices.
#[inline(always)]
pub(super) unsafe fn wrmsr(msr: u32, value: u64) {
    count(Counted::Wrmsr);
    // SAFETY: By the contract.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack))
    };
}

/// The MSR, or None where RDMSR faults.
pub(crate) fn rdmsr_safe(msr: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: #GP is caught by the exception table.
    unsafe { bindings::hvrs_rdmsr_safe(msr, &mut value) }.then_some(value)
}

/// Indirect branch prediction barrier; the CPU must have it.
pub(super) fn ibpb() {
    // SAFETY: The caller checked CPUID; a command without other effect.
    unsafe { wrmsr(x86def::msr::IA32_PRED_CMD, 1) }
}

/// Bit 0 of IA32_PRED_CMD or IA32_FLUSH_CMD for a guest, whose CPUID shows it only if the CPU has it.
pub(crate) fn speculation_command(msr: u32) {
    if matches!(
        msr,
        x86def::msr::IA32_PRED_CMD | x86def::msr::IA32_FLUSH_CMD
    ) {
        // SAFETY: Exists; a command without other effect.
        unsafe { wrmsr(msr, 1) }
    }
}

/// IA32_RTIT_CTL.TraceEn; the CPU must have Intel PT.
pub(super) fn pt_is_tracing() -> bool {
    // SAFETY: The caller checked CPUID.
    unsafe { rdmsr(x86def::msr::IA32_RTIT_CTL) & 1 != 0 }
}

/// The TSC.
#[inline(always)]
pub(crate) fn rdtsc() -> u64 {
    // SAFETY: Always there on this architecture.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    // SAFETY: Always there on this architecture.
    let r = unsafe { core::arch::x86_64::__cpuid_count(leaf, subleaf) };
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// XCR0.
#[inline(always)]
pub(super) fn xgetbv0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CR4.OSXSAVE is set by the kernel where XSAVE exists, which is checked at load.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
///
/// `value` is valid for XCR0; the kernel's comes back before it notices.
#[inline(always)]
pub(super) unsafe fn xsetbv0(value: u64) {
    count(Counted::Xsetbv);
    // SAFETY: By the contract.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack))
    };
}

/// # Safety
///
/// `area` is 64-byte aligned and large enough for `mask`; the FPU is ours.
#[inline(always)]
pub(super) unsafe fn xsave(area: *mut u8, mask: u64) {
    count(Counted::Xsave);
    // SAFETY: By the contract.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
             options(nostack))
    };
}

/// # Safety
///
/// As for [`xsave`]; the area's header is valid for XRSTOR in standard format.
#[inline(always)]
pub(super) unsafe fn xrstor(area: *const u8, mask: u64) {
    count(Counted::Xrstor);
    // SAFETY: By the contract.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
             options(nostack))
    };
}

/// PKRU; CR4.PKE must be set.
#[inline(always)]
pub(super) fn rdpkru() -> u32 {
    let value;
    // SAFETY: The caller checked CR4.PKE.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") value, out("edx") _, options(nomem, nostack)) };
    value
}

/// Writes PKRU; CR4.PKE must be set.
#[inline(always)]
pub(super) fn wrpkru(value: u32) {
    // SAFETY: The caller checked CR4.PKE; it gives back what it read.
    unsafe { asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0, options(nostack)) };
}

/// Raises the host's NMI handler for an NMI that caused a VM exit. NMIs are blocked until its IRET.
#[inline(always)]
pub(crate) fn int_nmi() {
    // SAFETY: The handler of vector 2 runs as for a hardware NMI; FRED is refused at load.
    unsafe { asm!("int 2") }
}

/// Raises the host's machine-check handler for a #MC that caused a VM exit.
pub(crate) fn int_machine_check() {
    // SAFETY: The handler of vector 18 runs as for a hardware machine check.
    unsafe { asm!("int 18") }
}

#[repr(C, packed)]
#[derive(Default, Clone, Copy)]
pub(super) struct TableRegister {
    pub(super) limit: u16,
    pub(super) base: u64,
}

/// GDTR.
pub(super) fn sgdt() -> TableRegister {
    let mut r = TableRegister::default();
    // SAFETY: Stores ten bytes.
    unsafe { asm!("sgdt [{}]", in(reg) &mut r, options(nostack)) };
    r
}

/// IDTR.
pub(super) fn sidt() -> TableRegister {
    let mut r = TableRegister::default();
    // SAFETY: Stores ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) &mut r, options(nostack)) };
    r
}

/// # Safety
///
/// `r` is the IDT that SIDT gave.
pub(super) unsafe fn lidt(r: &TableRegister) {
    // SAFETY: By the contract.
    unsafe { asm!("lidt [{}]", in(reg) r, options(nostack)) };
}

macro_rules! selector {
    ($read:ident, $insn:literal) => {
        /// Reads the selector.
        #[inline(always)]
        pub(super) fn $read() -> u16 {
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

/// # Safety
///
/// The selectors are what this task had before the VM exit.
pub(super) unsafe fn load_ds_es(ds: u16, es: u16) {
    // SAFETY: By the contract.
    unsafe { asm!("mov ds, {:x}", "mov es, {:x}", in(reg) ds, in(reg) es, options(nostack)) };
}

/// # Safety
///
/// As for [`load_ds_es`]; the caller restores the base afterwards.
pub(super) unsafe fn load_fs(fs: u16) {
    // SAFETY: By the contract.
    unsafe { asm!("mov fs, {:x}", in(reg) fs, options(nostack)) };
}

/// Loads GS without losing the kernel's base, which SWAPGS parks.
///
/// # Safety
///
/// As for [`load_ds_es`]; KERNEL_GS_BASE is restored afterwards.
pub(super) unsafe fn load_gs_index(gs: u16) {
    // SAFETY: By the contract; interrupts are off.
    unsafe { asm!("swapgs", "mov gs, {:x}", "swapgs", in(reg) gs, options(nostack)) };
}

/// # Safety
///
/// The selector is what this task had before the VM exit.
pub(super) unsafe fn load_ldtr(ldtr: u16) {
    // SAFETY: By the contract.
    unsafe { asm!("lldt {:x}", in(reg) ldtr, options(nostack)) };
}
