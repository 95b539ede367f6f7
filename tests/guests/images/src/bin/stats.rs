// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Statistics pages (TLFS 2.0A, chapter 17): groups of counters, read-only, one page for each object.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::{
    apic, cpu, cpuid, hv, idt, image, paging, probe, require, smp, test, time, Pass, Verdict,
};

const PARTITION: u32 = 0x4000_00e0;
const PARTITION_INTERNAL: u32 = 0x4000_00e1;
const VP: u32 = 0x4000_00e2;
const VP_INTERNAL: u32 = 0x4000_00e3;

/// Counters by the words of their pages.
const VIRTUAL_PROCESSORS: u64 = 1;
const GPA_PAGES: u64 = 6;
const TOTAL_RUN_TIME: u64 = 1;
const HYPERCALLS: u64 = 7;
const IO_INSTRUCTIONS: u64 = 13;
const HLT_INSTRUCTIONS: u64 = 15;
const CPUID_INSTRUCTIONS: u64 = 19;
const MSR_ACCESSES: u64 = 21;
const DEBUG_REGISTERS: u64 = 31;
const IO_MESSAGES: u64 = 40;
const VIRTUAL_INTERRUPTS: u64 = 59;
const IPIS_SENT: u64 = 60;

fn there() -> bool {
    hv::privilege(8)
}

fn word(page: u64, word: u64) -> u64 {
    // SAFETY: a page of this test, or the overlay on it.
    unsafe { ((page + 8 * word) as *const u64).read_volatile() }
}

/// Enables a page and gives its address.
fn enable(msr: u32) -> u64 {
    let page = paging::frame();
    // SAFETY: a page of this test.
    unsafe { ((page + 0xff8) as *mut u64).write_volatile(0x1234_5678) };
    cpu::wrmsr(msr, page | 1);
    assert_eq!(cpu::rdmsr(msr), page | 1);
    page
}

fn disable(msr: u32, page: u64) {
    cpu::wrmsr(msr, 0);
    assert_eq!(word(page, 511), 0x1234_5678, "the RAM below was changed");
}

/// Goes through the groups: type 2, then type 3, with at least so many counters; then a header of 0.
fn groups(page: u64, first: u64, second: u64) {
    let header = |at: u64| {
        let header = word(page, at);
        assert_eq!(header >> 16 & 0xffff_ffff, 0x1_0000, "version at word {at}");
        (header & 0xffff, (header >> 48) / 8)
    };
    let (kind, counters) = header(0);
    assert_eq!((kind, counters), (2, first));
    let next = 1 + counters;
    let (kind, counters) = header(next);
    assert_eq!(kind, 3);
    assert!(counters >= second, "{counters} counters");
    assert_eq!(word(page, next + 1 + counters), 0, "no end of the list");
}

/// What `f` adds to counter `at` of the VP's page.
fn added(page: u64, at: u64, f: impl FnOnce()) -> u64 {
    let before = word(page, at);
    f();
    word(page, at) - before
}

fn vp_page() -> Verdict {
    require!(there(), "no AccessStatsReg");
    assert_eq!(cpu::rdmsr(VP), 0);
    let page = enable(VP);
    // Linux numbers words: hypercalls are 7, so the second group begins at 6.
    groups(page, 5, 70);
    disable(VP, page);
    Pass
}

/// Each instruction that exits is counted, at once and exactly.
fn vp_counters() -> Verdict {
    require!(there(), "no AccessStatsReg");
    let page = enable(VP);
    let times = |n: u32, f: fn()| move || (0..n).for_each(|_| f());
    let read = || {
        let _ = cpu::rdmsr(hv::HV_X64_MSR_VP_INDEX);
    };
    let cpuids = added(
        page,
        CPUID_INSTRUCTIONS,
        times(100, || {
            cpuid::leaf(0);
        }),
    );
    let msrs = added(page, MSR_ACCESSES, times(50, read));
    let debug = added(page, DEBUG_REGISTERS, times(30, || cpu::set_dr7(0x400)));
    let messages = word(page, IO_MESSAGES);
    let ports = added(page, IO_INSTRUCTIONS, times(20, || cpu::outb(0x80, 0)));
    let messages = word(page, IO_MESSAGES) - messages;
    let calls = added(
        page,
        HYPERCALLS,
        times(10, || {
            let _ = hv::vmcall(0, 0, 0);
        }),
    );
    disable(VP, page);
    assert_eq!((cpuids, msrs, debug), (100, 50, 30));
    assert_eq!((ports, messages), (20, 20));
    assert_eq!(calls, 10);
    Pass
}

fn vp_interrupts() -> Verdict {
    require!(there(), "no AccessStatsReg");
    apic::init();
    let page = enable(VP);
    idt::hook(0x51, |_| apic::eoi());
    let id = apic::id();
    let before = [VIRTUAL_INTERRUPTS, IPIS_SENT].map(|c| word(page, c));
    for _ in 0..25 {
        apic::send(id, 0x51 | apic::ICR_ASSERT);
        cpu::take_interrupts();
    }
    let after = [VIRTUAL_INTERRUPTS, IPIS_SENT].map(|c| word(page, c));
    let halts = added(page, HLT_INSTRUCTIONS, || {
        apic::send_self(0x51);
        cpu::sti_hlt();
        cpu::cli();
    });
    disable(VP, page);
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(after - before, 25, "{before}, {after}");
    }
    // The interrupt comes behind the HLT, or before it and then nothing ends it but the next: one either way.
    assert_eq!(halts, 1);
    Pass
}

fn vp_run_time() -> Verdict {
    require!(there(), "no AccessStatsReg");
    require!(hv::privilege(hv::ACCESS_VP_RUNTIME), "no VP_RUNTIME");
    let page = enable(VP);
    time::spin(1_000_000);
    cpu::outb(0x80, 0);
    // It is brought up to date where the VP leaves the guest for longer, as the OUT does.
    let (total, now) = (
        word(page, TOTAL_RUN_TIME),
        cpu::rdmsr(hv::HV_X64_MSR_VP_RUNTIME),
    );
    disable(VP, page);
    assert!(total != 0 && total <= now, "{total}, and now {now}");
    assert!(total > now / 2, "{total} of {now}");
    Pass
}

/// Each VP's page has that VP's counters, wherever the other's lies.
fn vp_pages_of_others() -> Verdict {
    require!(there(), "no AccessStatsReg");
    require!(smp::start() > 1, "one processor");
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn other(_: u64) {
        let page = enable(VP);
        SEEN.store(
            added(page, CPUID_INSTRUCTIONS, || {
                (0..7).for_each(|_| {
                    cpuid::leaf(0);
                });
            }),
            Ordering::Release,
        );
        disable(VP, page);
    }
    let page = enable(VP);
    let mine = added(page, CPUID_INSTRUCTIONS, || smp::on(1, other, 0));
    disable(VP, page);
    assert_eq!((mine, SEEN.load(Ordering::Acquire)), (0, 7));
    Pass
}

fn partition_page() -> Verdict {
    require!(there(), "no AccessStatsReg");
    let vps = smp::start() as u64;
    let page = enable(PARTITION);
    groups(page, 1, 5);
    let (counted, pages) = (word(page, VIRTUAL_PROCESSORS), word(page, GPA_PAGES));
    disable(PARTITION, page);
    assert_eq!(counted, vps);
    assert!(pages >= 0x1000, "{pages} pages");
    Pass
}

/// There are no internal counters: the list of groups is empty.
fn internal_pages() -> Verdict {
    require!(there(), "no AccessStatsReg");
    for msr in [PARTITION_INTERNAL, VP_INTERNAL] {
        let page = enable(msr);
        let (first, last) = (word(page, 0), word(page, 511));
        disable(msr, page);
        assert_eq!((first, last), (0, 0));
    }
    Pass
}

fn read_only() -> Verdict {
    require!(there(), "no AccessStatsReg");
    idt::hook(idt::MC, |_| idt::leave(idt::MC.into()));
    extern "C" fn write(page: u64) {
        // SAFETY: the page is this test's.
        unsafe { ((page + 8 * 100) as *mut u64).write_volatile(1) };
    }
    cpu::set_cr4(cpu::cr4() | 1 << 6); // MCE, or a machine check shuts down
    for msr in PARTITION..=VP_INTERNAL {
        let page = enable(msr);
        let outcome = idt::guarded(write, page);
        let after = word(page, 100);
        disable(msr, page);
        assert_eq!(outcome, idt::Outcome::Left(idt::MC.into()), "MSR {msr:#x}");
        assert_eq!(after, 0);
    }
    cpu::set_cr4(cpu::cr4() & !(1 << 6));
    Pass
}

fn out_of_range() -> Verdict {
    require!(there(), "no AccessStatsReg");
    let above = 1u64 << cpuid::physical_address_bits().min(51);
    for msr in PARTITION..=VP_INTERNAL {
        assert_eq!(probe::wrmsr(msr, above | 1), Ok(()));
        assert_eq!(cpu::rdmsr(msr), above | 1);
        cpu::wrmsr(msr, 0);
    }
    Pass
}

image!(
    "stats",
    [
        test!(vp_page, "C-3A8 M-E2 F-ST1 F-ST2", vp_page),
        test!(vp_counters, "M-E2 F-ST7", vp_counters),
        test!(vp_interrupts, "F-ST7", vp_interrupts),
        test!(vp_run_time, "F-ST7", vp_run_time),
        test!(vp_pages_of_others, "M-E2 F-ST1", vp_pages_of_others),
        test!(partition_page, "M-E0 F-ST2 F-ST6", partition_page),
        test!(internal_pages, "M-E1 M-E3", internal_pages),
        test!(read_only, "F-ST1 F-OV3 F-OV9", read_only),
        test!(out_of_range, "M-E0 M-E2 F-OV5", out_of_range),
    ]
);
