// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Synthetic interrupt controller: registers and pages (TLFS 11).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::expect::{wrmsr_gp, wrmsr_sticks};
use guest::synic::*;
use guest::{cpu, image, paging, probe, require, smp, test, Pass, Verdict};

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

image!(
    "synic",
    [
        test!(reset_values, "M-80 M-81 M-82 M-83 M-84 M-90", reset_values),
        test!(sint_values, "M-90 F-SY12", sint_values),
        test!(pages_are_overlays, "M-82 M-83 F-OV2", pages_are_overlays),
        test!(pages_on_each_other, "F-OV4 F-OV6", pages_on_each_other),
        test!(out_of_range, "F-OV5", out_of_range),
        test!(private, "M-80 F-OV7", private),
    ]
);
