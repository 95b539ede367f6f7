// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Synthetic interrupt controller: registers and pages (TLFS 11).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::expect::{wrmsr_gp, wrmsr_sticks};
use guest::synic::*;
use guest::{cpu, hv, idt, image, paging, probe, require, smp, test, Pass, Verdict};

fn reset_values() -> Verdict {
    require!(there(), "no SynIC");
    for (msr, value) in [
        (SCONTROL, 0),
        (SVERSION, 1),
        (SIEFP, 0),
        (SIMP, 0),
        (EOM, 0),
    ] {
        assert_eq!(probe::rdmsr(msr), Ok(value), "MSR {msr:#x}");
    }
    for sint in SINT0..SINT0 + 16 {
        assert_eq!(probe::rdmsr(sint), Ok(MASKED), "MSR {sint:#x}");
    }
    wrmsr_gp(SVERSION, 1);
    wrmsr_gp(SVERSION, 0);
    assert_eq!(probe::wrmsr(EOM, 0), Ok(()));
    for value in [1, 0] {
        wrmsr_sticks(SCONTROL, value);
    }
    Pass
}

fn sint_values() -> Verdict {
    require!(there(), "no SynIC");
    for sint in SINT0..SINT0 + 16 {
        for vector in 0..16 {
            wrmsr_gp(sint, vector);
            wrmsr_gp(sint, vector | AUTO_EOI);
            wrmsr_sticks(sint, vector | MASKED);
        }
        for value in [
            16,
            255,
            0x55 | AUTO_EOI,
            0x55 | POLLING,
            0x55 | MASKED,
            MASKED,
        ] {
            wrmsr_sticks(sint, value);
        }
    }
    Pass
}

/// Readable, writable; what lies below comes back, and so does what was in the page.
fn pages_are_overlays() -> Verdict {
    require!(there(), "no SynIC");
    for msr in [SIMP, SIEFP] {
        let (first, second) = (paging::frame(), paging::frame());
        for page in [first, second] {
            // SAFETY: a page of this test.
            unsafe { ((page + 0x800) as *mut u64).write_volatile(0x1111) };
        }
        wrmsr_sticks(msr, first | 1);
        // SAFETY: a page of this test, overlaid.
        let write = unsafe { probe::write(first + 0x800, 0x2222) };
        let read = probe::read(first + 0x800);
        wrmsr_sticks(msr, second | 1);
        let (below, moved) = (probe::read(first + 0x800), probe::read(second + 0x800));
        wrmsr_sticks(msr, second);
        let off = probe::read(second + 0x800);
        wrmsr_sticks(msr, first | 1);
        let again = probe::read(first + 0x800);
        // SAFETY: as above.
        let clean = unsafe { probe::write(first + 0x800, 0) };
        wrmsr_sticks(msr, 0);
        assert_eq!((write, read), (Ok(()), Ok(0x2222)), "MSR {msr:#x}");
        assert_eq!(below, Ok(0x1111), "the RAM below was changed");
        assert_eq!(moved, Ok(0x2222), "the page did not move");
        assert_eq!(off, Ok(0x1111), "still there");
        assert_eq!((again, clean), (Ok(0x2222), Ok(())), "it was cleared");
    }
    Pass
}

/// Both start zeroed, and lie where they please: also on each other.
fn pages_on_each_other() -> Verdict {
    require!(there(), "no SynIC");
    let page = paging::frame();
    // SAFETY: a page of this test, overlaid by turns.
    let write = |value| unsafe { ((page + 0xff8) as *mut u64).write_volatile(value) };
    write(1);
    cpu::wrmsr(SIMP, page | 1);
    let simp = probe::read(page + 0xff8);
    write(2);
    cpu::wrmsr(SIEFP, page | 1);
    let siefp = probe::read(page + 0xff8);
    write(3);
    cpu::wrmsr(SIEFP, 0);
    let under = probe::read(page + 0xff8);
    write(0);
    cpu::wrmsr(SIMP, 0);
    let ram = probe::read(page + 0xff8);
    cpu::wrmsr(SIEFP, page | 1);
    write(0);
    cpu::wrmsr(SIEFP, 0);
    assert_eq!((simp, siefp), (Ok(0), Ok(0)), "not zero at first");
    assert_eq!((under, ram), (Ok(2), Ok(1)));
    Pass
}

/// Where an overlay hides a page table, a walk may find one or the other or nothing; the guest goes on, and finds the
/// table again afterwards.
fn page_table_hidden() -> Verdict {
    require!(there(), "no SynIC");
    const VA: u64 = paging::WINDOW + 0x4000_0000;
    const HIDDEN: u64 = 0x1111;
    const SHOWN: u64 = 0x2222;
    let (hidden, shown) = (paging::frame(), paging::frame());
    // SAFETY: pages of this test.
    unsafe {
        (hidden as *mut u64).write_volatile(HIDDEN);
        (shown as *mut u64).write_volatile(SHOWN);
    }
    let rights = paging::P | paging::RW;
    paging::map(VA, hidden, rights);
    let entry = paging::entry(paging::root(), VA, 1);
    let table = entry as *const AtomicU64 as u64 & !0xfff;
    let walk = |what: &str| {
        cpu::invlpg(VA);
        match probe::read(VA) {
            Ok(HIDDEN | SHOWN) => {}
            Err(fault) if fault.vector == idt::PF => {}
            other => panic!("{what}: {other:?}"),
        }
    };
    walk("no overlay");
    // Writable: empty, then with another entry.
    cpu::wrmsr(SIMP, table | 1);
    walk("an empty message page");
    entry.store(shown | rights, Ordering::Release);
    walk("a message page");
    entry.store(0, Ordering::Release);
    cpu::wrmsr(SIMP, 0);
    // Read-only, and the first word may be a valid entry whose Accessed bit cannot be set.
    const REFERENCE_TSC: u32 = hv::HV_X64_MSR_REFERENCE_TSC;
    if hv::privilege(hv::ACCESS_REF_TSC) {
        // What it may map then.
        let zero = probe::read(0);
        cpu::wrmsr(REFERENCE_TSC, table | 1);
        cpu::invlpg(VA);
        let read = probe::read(VA);
        cpu::wrmsr(REFERENCE_TSC, 0);
        match read {
            Err(fault) if fault.vector == idt::PF => {}
            Ok(HIDDEN) => {}
            other if other == zero => {}
            other => panic!("the reference TSC page: {other:?}"),
        }
    }
    hv::enable_page(table).expect("enable");
    cpu::invlpg(VA);
    let read = probe::read(VA);
    hv::disable_page().expect("disable");
    assert!(
        !matches!(read, Err(fault) if fault.vector != idt::PF),
        "the hypercall page: {read:?}"
    );
    cpu::invlpg(VA);
    assert_eq!(probe::read(VA), Ok(HIDDEN), "the table did not come back");
    paging::unmap(VA);
    Pass
}

fn out_of_range() -> Verdict {
    require!(there(), "no SynIC");
    let above = 1u64 << guest::cpuid::physical_address_bits().min(51);
    for msr in [SIMP, SIEFP] {
        wrmsr_sticks(msr, above | 1);
        wrmsr_sticks(msr, 0);
    }
    Pass
}

/// Registers and pages are each VP's own.
fn private() -> Verdict {
    require!(there(), "no SynIC");
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    static FRAMES: AtomicU64 = AtomicU64::new(0);
    FRAMES.store(paging::frames(cpus as u64), Ordering::Release);
    extern "C" fn set(cpu: u64) {
        let page = FRAMES.load(Ordering::Acquire) + (cpu << 12);
        cpu::wrmsr(SIMP, page | 1);
        cpu::wrmsr(SINT0 + 2, 0x40 + cpu);
        // SAFETY: this VP's page.
        unsafe { (page as *mut u64).write_volatile(!cpu) };
    }
    extern "C" fn check(cpu: u64) {
        let page = FRAMES.load(Ordering::Acquire) + (cpu << 12);
        assert_eq!(cpu::rdmsr(SIMP), page | 1);
        assert_eq!(cpu::rdmsr(SINT0 + 2), 0x40 + cpu);
        // One VP's page can be seen by all.
        for other in 0..smp::count() as u64 {
            let page = FRAMES.load(Ordering::Acquire) + (other << 12);
            assert_eq!(probe::read(page), Ok(!other));
        }
    }
    extern "C" fn clear(cpu: u64) {
        let page = FRAMES.load(Ordering::Acquire) + (cpu << 12);
        // SAFETY: this VP's page.
        unsafe { (page as *mut u64).write_volatile(0) };
        Messages::disable();
    }
    for job in [set, check, clear] {
        for other in 1..cpus {
            smp::on(other, job, other as u64);
        }
        job(0);
    }
    Pass
}

/// INIT is a way to reset a VP (TLFS 15.5.1.4): registers, pages and timers are as at its creation.
fn init_resets() -> Verdict {
    require!(there(), "no SynIC");
    require!(
        guest::cpuid::leaf(0x4000_0000).ebx == u32::from_le_bytes(*b"Micr"),
        "not Hyper-V"
    );
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    static FRAMES: AtomicU64 = AtomicU64::new(0);
    FRAMES.store(paging::frames(2 * cpus as u64), Ordering::Release);
    fn frames(cpu: u64) -> (u64, u64) {
        let first = FRAMES.load(Ordering::Acquire) + (2 * cpu << 12);
        (first, first + 0x1000)
    }
    extern "C" fn spoil(cpu: u64) {
        let (messages, flags) = frames(cpu);
        for page in [messages, flags] {
            // SAFETY: this VP's pages, which are about to be hidden.
            unsafe { (page as *mut u64).write_volatile(0x1111) };
        }
        cpu::wrmsr(SIMP, messages | 1);
        cpu::wrmsr(SIEFP, flags | 1);
        cpu::wrmsr(SINT0 + 3, 0x43);
        cpu::wrmsr(SCONTROL, 1);
        cpu::wrmsr(config(1), direct(0x44));
        cpu::wrmsr(count(1), now() + 1_000_000_000_000);
        cpu::wrmsr(config(1), direct(0x44) | ENABLE);
        for page in [messages, flags] {
            // SAFETY: this VP's overlays.
            unsafe { ((page + 0x800) as *mut u64).write_volatile(0x2222) };
        }
    }
    extern "C" fn look(cpu: u64) {
        for (msr, value) in [
            (SCONTROL, 0),
            (SIMP, 0),
            (SIEFP, 0),
            (SINT0 + 3, MASKED),
            (config(1), 0),
            (count(1), 0),
        ] {
            assert_eq!(cpu::rdmsr(msr), value, "MSR {msr:#x}");
        }
        let (messages, flags) = frames(cpu);
        for (msr, page) in [(SIMP, messages), (SIEFP, flags)] {
            assert_eq!(probe::read(page), Ok(0x1111), "still hidden");
            cpu::wrmsr(msr, page | 1);
            let content = (probe::read(page), probe::read(page + 0x800));
            cpu::wrmsr(msr, 0);
            assert_eq!(content, (Ok(0), Ok(0)), "page of MSR {msr:#x}");
        }
    }
    for other in 1..cpus {
        smp::on(other, spoil, other as u64);
    }
    smp::restart();
    assert_eq!(smp::count(), cpus, "some did not come back");
    for other in 1..cpus {
        smp::on(other, look, other as u64);
    }
    Pass
}

image!(
    "synic",
    [
        test!(reset_values, "M-80 M-81 M-82 M-83 M-84 M-90", reset_values),
        test!(sint_values, "M-90 F-SY12", sint_values),
        test!(pages_are_overlays, "M-82 M-83 F-OV2", pages_are_overlays),
        test!(pages_on_each_other, "F-OV4 F-OV6", pages_on_each_other),
        test!(page_table_hidden, "F-OV8", page_table_hidden),
        test!(out_of_range, "F-OV5", out_of_range),
        test!(private, "M-80 F-OV7", private),
        test!(
            init_resets,
            "M-80 M-82 M-83 M-90 M-B0 M-B1 F-OV6 F-TM1",
            init_resets
        ),
    ]
);
