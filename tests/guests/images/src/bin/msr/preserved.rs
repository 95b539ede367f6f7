// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the guest wrote is still there after exits, and is its own VP's.
//!
//! A hypervisor switches some of these MSRs lazily, so the exits here are of
//! all kinds: handled at once, by the VMM, and with the VP blocked in HLT.

use guest::msr::*;
use guest::{apic, cpu, cpuid, idt, require, smp, Pass, Verdict};

const TIMER: u8 = 0x40;

/// MSRs that software may fill freely, and values by which to tell VPs apart.
fn table(seed: u64) -> [(u32, u64); 10] {
    [
        (IA32_STAR, 0x0018_0008_0000_0000 | seed),
        (IA32_LSTAR, 0xffff_8000_0001_0000 + seed),
        (IA32_CSTAR, 0xffff_8000_0002_0000 + seed),
        (IA32_FMASK, 0x4_0000 | seed),
        (IA32_KERNEL_GS_BASE, 0xffff_8000_0003_0000 + seed),
        (IA32_FS_BASE, 0xffff_8000_0004_0000 + seed),
        (IA32_SYSENTER_CS, 0x100 + seed),
        (IA32_SYSENTER_ESP, 0xffff_8000_0005_0000 + seed),
        (IA32_SYSENTER_EIP, 0xffff_8000_0006_0000 + seed),
        (
            IA32_PAT,
            if seed & 1 == 0 {
                0x0007_0406_0007_0406
            } else {
                0x0007_0106_0007_0406
            },
        ),
    ]
}

fn fill(seed: u64) {
    for (msr, value) in table(seed) {
        cpu::wrmsr(msr, value);
    }
    if cpuid::RDTSCP.present() {
        cpu::wrmsr(IA32_TSC_AUX, 0x7000 + seed);
    }
}

fn check(seed: u64, when: &str) {
    for (msr, value) in table(seed) {
        let read = cpu::rdmsr(msr);
        assert!(
            read == value,
            "{when}: MSR {msr:#x} is {read:#x}, was {value:#x}"
        );
    }
    if cpuid::RDTSCP.present() {
        assert_eq!(
            u64::from(cpu::rdtscp().1),
            0x7000 + seed,
            "{when}: RDTSCP's TSC_AUX"
        );
    }
}

fn restore() {
    for (msr, _) in table(0) {
        cpu::wrmsr(msr, 0);
    }
    cpu::wrmsr(IA32_PAT, 0x0007_0406_0007_0406);
    if cpuid::RDTSCP.present() {
        cpu::wrmsr(IA32_TSC_AUX, 0);
    }
}

fn exits(seed: u64) {
    fill(seed);
    check(seed, "at once");
    for _ in 0..20 {
        let _ = core::hint::black_box(cpuid::leaf(0));
        check(seed, "after CPUID");
        let _ = core::hint::black_box(cpu::inb(0x3fd));
        check(seed, "after a port read");
        apic::write(apic::LVT_TIMER, u32::from(TIMER));
        apic::write(apic::TIMER_INITIAL, 30_000);
        cpu::sti_hlt();
        cpu::cli();
        check(seed, "after HLT");
    }
    restore();
}

pub fn across_exits() -> Verdict {
    apic::init_best();
    idt::hook(TIMER, |_| apic::eoi());
    exits(0x10);
    Pass
}

pub fn private() -> Verdict {
    apic::init_best();
    idt::hook(TIMER, |_| apic::eoi());
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    extern "C" fn job(seed: u64) {
        exits(seed);
    }
    for other in 1..cpus {
        smp::post(other, job, 0x20 + other as u64);
    }
    exits(0x20);
    for other in 1..cpus {
        smp::join(other);
    }
    Pass
}
