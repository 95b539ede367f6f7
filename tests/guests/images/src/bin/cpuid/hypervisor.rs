// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Leaves 0x40000000 and up.

use core::sync::atomic::{AtomicU32, Ordering};
use guest::cpuid::{self, leaf};
use guest::{cpu, hv, probe, require, smp, Pass, Verdict};

pub fn bit() -> Verdict {
    require!(hv::present(), "no Hv#1");
    assert!(cpuid::HYPERVISOR.present());
    Pass
}

pub fn leaves() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let l = leaf(0x4000_0000);
    assert!(
        (0x4000_0005..=0x4000_00ff).contains(&l.eax),
        "maximum leaf {:#x}",
        l.eax
    );
    assert_eq!(
        (l.ebx, l.ecx, l.edx),
        (0x7263_694d, 0x666f_736f, 0x7648_2074),
        "not Microsoft Hv"
    );
    let l = leaf(0x4000_0001);
    assert_eq!((l.eax, l.ebx, l.ecx, l.edx), (0x3123_7648, 0, 0, 0));
    Pass
}

pub fn required_privileges() -> Verdict {
    require!(hv::present(), "no Hv#1");
    assert!(hv::privilege(hv::ACCESS_HYPERCALL_MSRS));
    assert!(hv::privilege(hv::ACCESS_VP_INDEX));
    Pass
}

/// Privileges that HV#1 denies an ordinary guest of a third-party hypervisor.
pub fn masked_privileges() -> Verdict {
    require!(hv::present(), "no Hv#1");
    const MUST_BE_CLEAR: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 12 | 1 << 13;
    assert_eq!(leaf(0x4000_0003).ebx & MUST_BE_CLEAR, 0);
    Pass
}

pub fn undocumented_bits() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let l = leaf(0x4000_0003);
    assert_eq!(l.eax >> 16, 0, "leaf 3 EAX {:#x}", l.eax);
    assert_eq!(l.ebx & !0x007b_f9ff, 0, "leaf 3 EBX {:#x}", l.ebx);
    assert_eq!(l.ecx & !0x7ff, 0, "leaf 3 ECX {:#x}", l.ecx);
    assert_eq!(l.edx & 1 << 16, 0, "leaf 3 EDX {:#x}", l.edx);
    let l = leaf(0x4000_0004);
    assert_eq!((l.ecx & !0x7f, l.edx), (0, 0), "leaf 4 ECX, EDX");
    assert_eq!(leaf(0x4000_0005).edx, 0, "leaf 5 EDX");
    Pass
}

/// What guests are told to do, how often to tell of a long wait, and the leaves that are not documented.
pub fn recommendations() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let l = leaf(0x4000_0004);
    assert_ne!(l.eax & 1 << 5, 0, "no relaxed timing");
    // CR3 switches and local flushes by hypercall, remapping, x2APIC, a hypervisor below, MBEC; enlightened VMCS without VMX.
    let evmcs = u32::from(!cpuid::VMX.present()) << 14;
    let not = 1 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | evmcs;
    assert_eq!(l.eax & not, 0, "{:#x}", l.eax);
    assert_ne!(l.ebx, 0, "no spins at all before a long wait");
    let max = leaf(0x4000_0000).eax;
    for number in max + 1..=0x4000_00ff {
        let l = leaf(number);
        assert_eq!((l.eax, l.ebx, l.ecx, l.edx), (0, 0, 0, 0), "{number:#x}");
    }
    let six = leaf(0x4000_0006);
    // Bits 31:25 and the other registers are not documented; patrol scrubber, HPET and the like are of the machine.
    let rest = (six.eax >> 25, six.ebx, six.ecx, six.edx);
    assert_eq!(rest, (0, 0, 0, 0), "leaf 6");
    assert_eq!(
        l.ecx,
        cpuid::physical_address_bits(),
        "physical address bits"
    );
    Pass
}

pub fn vp_limit() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let limit = leaf(0x4000_0005).eax;
    if limit == u32::MAX {
        assert_eq!(
            leaf(0x4000_0004).eax & 6,
            0,
            "flush by hypercall with no VP limit"
        );
    } else if limit != 0 {
        assert!(smp::start() as u32 <= limit, "more than {limit} VPs");
    }
    Pass
}

/// Leaf 2 tells the version, whether the guest has told who it is or not.
pub fn identity() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let version = |id| {
        cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, id);
        let l = leaf(0x4000_0002);
        [l.eax, l.ebx, l.ecx, l.edx]
    };
    let (before, after) = (version(0), version(hv::OS_ID));
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, 0);
    assert_eq!(before, after);
    assert!(before[0] != 0 && before[1] != 0, "no version: {before:x?}");
    Pass
}

fn digest() -> u32 {
    let mut sum = 0u32;
    for number in [0x4000_0003, 0x4000_0004, 0x4000_0005] {
        let l = leaf(number);
        for word in [l.eax, l.ebx, l.ecx, l.edx] {
            sum = sum.rotate_left(5) ^ word;
        }
    }
    sum
}

pub fn same_on_all_vps() -> Verdict {
    require!(hv::present(), "no Hv#1");
    static SUM: AtomicU32 = AtomicU32::new(0);
    extern "C" fn store(_: u64) {
        SUM.store(digest(), Ordering::Release);
    }
    let here = digest();
    for other in 1..smp::start() {
        SUM.store(!here, Ordering::Release);
        smp::on(other, store, 0);
        assert_eq!(
            SUM.load(Ordering::Acquire),
            here,
            "leaves 3 to 5 differ on CPU {other}"
        );
    }
    Pass
}

/// Each privilege shown opens its MSRs.
pub fn privileges_open_msrs() -> Verdict {
    require!(hv::present(), "no Hv#1");
    for (bit, msr) in [
        (hv::ACCESS_VP_RUNTIME, hv::HV_X64_MSR_VP_RUNTIME),
        (hv::ACCESS_REF_COUNTER, hv::HV_X64_MSR_TIME_REF_COUNT),
        (2, 0x4000_0080),
        (2, 0x4000_0081),
        (3, 0x4000_00b0),
        (4, 0x4000_0072),
        (4, 0x4000_0073),
        (hv::ACCESS_HYPERCALL_MSRS, hv::HV_X64_MSR_GUEST_OS_ID),
        (hv::ACCESS_HYPERCALL_MSRS, hv::HV_X64_MSR_HYPERCALL),
        (hv::ACCESS_VP_INDEX, hv::HV_X64_MSR_VP_INDEX),
        (hv::ACCESS_RESET, hv::HV_X64_MSR_RESET),
        (hv::ACCESS_REF_TSC, hv::HV_X64_MSR_REFERENCE_TSC),
        (hv::ACCESS_FREQUENCY, hv::HV_X64_MSR_TSC_FREQUENCY),
        (hv::ACCESS_FREQUENCY, hv::HV_X64_MSR_APIC_FREQUENCY),
    ] {
        if hv::privilege(bit) {
            assert!(
                probe::rdmsr(msr).is_ok(),
                "privilege {bit} but MSR {msr:#x} faults"
            );
        }
    }
    Pass
}

pub fn frequency_bits_agree() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let l = leaf(0x4000_0003);
    assert_eq!(
        l.eax >> 11 & 1,
        l.edx >> 8 & 1,
        "privilege and availability differ"
    );
    Pass
}
