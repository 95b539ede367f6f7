// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Cluster IPIs and flushes by hypercall.

use core::sync::atomic::{AtomicU32, Ordering};
use guest::measure::measure;
use guest::{apic, cpu, cpuid, hv, idt, paging, require, smp, Pass, Verdict};

/// Names of the rows: an IPI, a flush of everything, a flush of a page.
pub type Names = [&'static str; 3];

/// What the sender of a cluster IPI and of a flush for `targets` VPs waits; they run, or are preempted where VPs share a CPU.
pub fn processor_calls(targets: usize, [ipi, flush, flush_page]: Names) -> Verdict {
    const VECTOR: u8 = 0x64;
    require!(hv::present(), "no Hv#1");
    let hints = cpuid::leaf(0x4000_0004).eax;
    require!(hints & (1 << 2 | 1 << 10) != 0, "no calls for sets of VPs");
    apic::init_best();
    require!(smp::start() > targets, "too few processors");
    static STOP: AtomicU32 = AtomicU32::new(0);
    extern "C" fn spin(_: u64) {
        cpu::sti();
        while STOP.load(Ordering::Acquire) == 0 {
            cpu::pause();
        }
        cpu::cli();
    }
    idt::hook(VECTOR, |_| apic::eoi());
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    STOP.store(0, Ordering::Release);
    let mut mask = 0;
    for target in 1..=targets {
        smp::post(target, spin, 0);
        mask |= 1u64 << smp::apic_id(target);
    }
    if hints & 1 << 10 != 0 {
        let fast = 0x0b | 1 << 16;
        assert_eq!(hv::vmcall(fast, u64::from(VECTOR), mask), Ok(hv::SUCCESS));
        measure(ipi, || {
            let _ = core::hint::black_box(hv::vmcall(fast, u64::from(VECTOR), mask));
        });
    }
    if hints & 1 << 2 != 0 {
        let page = paging::frame();
        // SAFETY: the test's page.
        unsafe { (page as *mut [u64; 4]).write_volatile([cpu::cr3(), 0, mask, 0x1000]) };
        assert_eq!(hv::vmcall(0x02, page, 0), Ok(hv::SUCCESS));
        measure(flush, || {
            let _ = core::hint::black_box(hv::vmcall(0x02, page, 0));
        });
        assert_eq!(
            hv::vmcall(0x03 | 1 << 32, page, 0),
            Ok(hv::SUCCESS | 1 << 32)
        );
        measure(flush_page, || {
            let _ = core::hint::black_box(hv::vmcall(0x03 | 1 << 32, page, 0));
        });
    }
    STOP.store(1, Ordering::Release);
    for target in 1..=targets {
        smp::join(target);
    }
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}
