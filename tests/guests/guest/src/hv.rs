// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The TLFS as a guest sees it: leaves, synthetic MSRs, hypercalls.

use crate::cpuid;
use crate::probe::{self, Fault};
use core::arch::asm;

macro_rules! msrs {
    ($($name:ident = $number:literal;)*) => {
        $(#[doc = concat!("Synthetic MSR ", stringify!($number), ".")]
          pub const $name: u32 = $number;)*
    };
}
msrs! {
    HV_X64_MSR_GUEST_OS_ID = 0x4000_0000;
    HV_X64_MSR_HYPERCALL = 0x4000_0001;
    HV_X64_MSR_VP_INDEX = 0x4000_0002;
    HV_X64_MSR_RESET = 0x4000_0003;
    HV_X64_MSR_VP_RUNTIME = 0x4000_0010;
    HV_X64_MSR_TIME_REF_COUNT = 0x4000_0020;
    HV_X64_MSR_REFERENCE_TSC = 0x4000_0021;
    HV_X64_MSR_TSC_FREQUENCY = 0x4000_0022;
    HV_X64_MSR_APIC_FREQUENCY = 0x4000_0023;
    HV_X64_MSR_EOI = 0x4000_0070;
    HV_X64_MSR_ICR = 0x4000_0071;
    HV_X64_MSR_TPR = 0x4000_0072;
    HV_X64_MSR_VP_ASSIST_PAGE = 0x4000_0073;
    HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG = 0x4000_0114;
    HV_X64_MSR_STIME_UNHALTED_TIMER_COUNT = 0x4000_0115;
}

/// AccessVpRunTime.
pub const ACCESS_VP_RUNTIME: u32 = 0;
/// AccessPartitionReferenceCounter.
pub const ACCESS_REF_COUNTER: u32 = 1;
/// AccessHypercallMsrs.
pub const ACCESS_HYPERCALL_MSRS: u32 = 5;
/// AccessVpIndex.
pub const ACCESS_VP_INDEX: u32 = 6;
/// AccessReset.
pub const ACCESS_RESET: u32 = 7;
/// AccessPartitionReferenceTsc.
pub const ACCESS_REF_TSC: u32 = 9;
/// AccessFrequencyRegs.
pub const ACCESS_FREQUENCY: u32 = 11;

/// HV_STATUS_SUCCESS.
pub const SUCCESS: u64 = 0;
/// HV_STATUS_INVALID_ALIGNMENT.
pub const INVALID_ALIGNMENT: u64 = 4;
/// HV_STATUS_INVALID_PARAMETER.
pub const INVALID_PARAMETER: u64 = 5;
/// HV_STATUS_INVALID_HYPERCALL_CODE.
pub const INVALID_HYPERCALL_CODE: u64 = 2;
/// HV_STATUS_INVALID_HYPERCALL_INPUT.
pub const INVALID_HYPERCALL_INPUT: u64 = 3;

/// A guest OS id of the open-source form (bit 63), type 0x7f.
pub const OS_ID: u64 = 0xff00_0000_0000_0001;

/// Whether CPUID shows Microsoft's interface (`Hv#1`).
pub fn present() -> bool {
    cpuid::HYPERVISOR.present()
        && cpuid::leaf(0x4000_0000).eax >= 0x4000_0005
        && cpuid::leaf(0x4000_0001).eax == 0x3123_7648
}

/// Whether this is QEMU's emulator, some of whose faults tests step around.
pub fn tcg() -> bool {
    cpuid::HYPERVISOR.present() && cpuid::leaf(0x4000_0000).ebx == u32::from_le_bytes(*b"TCGT")
}

/// Whether the partition has privilege `bit` (leaf 0x40000003 EAX).
pub fn privilege(bit: u32) -> bool {
    present() && (cpuid::leaf(0x4000_0003).eax >> bit) & 1 != 0
}

/// VMCALL by the 64-bit convention, straight from here.
pub fn vmcall(control: u64, input: u64, output: u64) -> Result<u64, Fault> {
    let mut result = control;
    // SAFETY: no call used here writes memory but the caller's output page.
    unsafe {
        crate::guarded_asm!("vmcall", inout("rax") 0u64 => result, in("rcx") result, in("rdx") input, in("r8") output)
    }?;
    Ok(result)
}

/// Words of input that registers hold: RDX, R8, XMM0 to XMM5.
pub const FAST_WORDS: usize = 14;

/// VMCALL with input in registers (bit 16 of `control` is the caller's).
pub fn vmcall_fast(control: u64, input: &[u64; FAST_WORDS]) -> Result<u64, Fault> {
    let mut result = 0u64;
    let xmm = &input[2..];
    // SAFETY: a fast call without output touches no memory.
    unsafe {
        crate::guarded_sequence!(
            [
                "movups xmm0, [{xmm}]", "movups xmm1, [{xmm} + 16]", "movups xmm2, [{xmm} + 32]",
                "movups xmm3, [{xmm} + 48]", "movups xmm4, [{xmm} + 64]", "movups xmm5, [{xmm} + 80]"
            ],
            "vmcall",
            [],
            xmm = in(reg) xmm.as_ptr(), inout("rax") result, in("rcx") control,
            in("rdx") input[0], in("r8") input[1],
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _
        )
    }?;
    Ok(result)
}

/// Hypercall by the page at `page`.
///
/// # Safety
/// `page` is mapped executable and is the hypercall page.
pub unsafe fn call_page(page: u64, control: u64, input: u64, output: u64) -> u64 {
    let result;
    // SAFETY: by the caller's promise; the calling convention keeps all but RAX and RCX.
    unsafe {
        asm!("call {page}", page = in(reg) page, out("rax") result, inout("rcx") control => _,
             in("rdx") input, in("r8") output, clobber_abi("sysv64"));
    }
    result
}

/// Sets the guest OS id and enables the hypercall page at `gpa`.
pub fn enable_page(gpa: u64) -> Result<(), Fault> {
    probe::wrmsr(HV_X64_MSR_GUEST_OS_ID, OS_ID)?;
    probe::wrmsr(HV_X64_MSR_HYPERCALL, gpa | 1)
}

/// Disables the hypercall page and clears the guest OS id.
pub fn disable_page() -> Result<(), Fault> {
    probe::wrmsr(HV_X64_MSR_HYPERCALL, 0)?;
    probe::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0)
}

/// Takes back what a failed test of this processor may have left on.
pub(crate) fn forget() {
    if !present() {
        return;
    }
    let timers = (0x4000_00b0..=0x4000_00b7).map(|msr| (msr, 0));
    let sints = (0x4000_0090..=0x4000_009f).map(|msr| (msr, 1 << 16));
    let stats = (0x4000_00e0..=0x4000_00e3).map(|msr| (msr, 0));
    let others = [0x80, 0x82, 0x83, 0x73, 0x21, 0x01, 0x00].map(|low| (0x4000_0000 | low, 0));
    for (msr, value) in timers.chain(sints).chain(stats).chain(others) {
        // Those without a privilege are not there.
        let _ = probe::wrmsr(msr, value);
    }
}
