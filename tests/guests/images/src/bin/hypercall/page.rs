// SPDX-License-Identifier: GPL-2.0 OR MIT
//! HV_X64_MSR_HYPERCALL and the page behind it.

use core::sync::atomic::{AtomicU64, Ordering};
use guest::expect::wrmsr_gp;
use guest::hv::*;
use guest::paging;
use guest::{cpu, cpuid, hv, idt, probe, require, smp, Pass, Verdict};

/// Address without memory below 4 GiB: between RAM and the devices.
const UNMAPPED: u64 = 0xe100_0000;

/// A page of RAM filled by a pattern.
fn patterned() -> u64 {
    let page = paging::frame();
    for i in 0..512 {
        // SAFETY: a fresh page of this test.
        unsafe { ((page + i * 8) as *mut u64).write_volatile(pattern(i)) };
    }
    page
}

fn pattern(i: u64) -> u64 {
    0x0101_0101_0101_0101 * (i & 0xff) ^ 0xa5a5_0000_5a5a_ffff
}

fn word(page: u64, i: u64) -> u64 {
    // SAFETY: identity-mapped RAM or an overlay on it.
    unsafe { ((page + i * 8) as *const u64).read_volatile() }
}

/// How many words of a page hold the pattern.
fn intact(page: u64) -> usize {
    (0..512).filter(|&i| word(page, i) == pattern(i)).count()
}

fn checksum(page: u64) -> u64 {
    (0..512).fold(0, |sum: u64, i| sum.rotate_left(9) ^ word(page, i))
}

fn unknown(page: u64) -> u64 {
    // SAFETY: the hypercall page is there.
    unsafe { hv::call_page(page, 0x7777, 0, 0) }
}

pub fn needs_os_id() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let page = patterned();
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    assert_eq!(probe::wrmsr(HV_X64_MSR_HYPERCALL, page | 1), Ok(()));
    assert_eq!(
        cpu::rdmsr(HV_X64_MSR_HYPERCALL) & 1,
        0,
        "enabled without a guest OS id"
    );
    assert_eq!(intact(page), 512);
    Pass
}

pub fn enable_and_call() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let page = paging::frame();
    hv::enable_page(page).expect("enable");
    assert_eq!(cpu::rdmsr(HV_X64_MSR_HYPERCALL), page | 1);
    let status = unknown(page);
    hv::disable_page().expect("disable");
    assert_eq!(status, INVALID_HYPERCALL_CODE);
    Pass
}

pub fn hides_memory() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let page = patterned();
    hv::enable_page(page).expect("enable");
    let (hidden, status) = (intact(page), unknown(page));
    hv::disable_page().expect("disable");
    assert!(hidden < 512, "the RAM shows through");
    assert_eq!(status, INVALID_HYPERCALL_CODE);
    assert_eq!(intact(page), 512, "the RAM below was changed");
    Pass
}

/// An overlay may lie where no memory is.
pub fn over_unmapped_address() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let before = probe::read(UNMAPPED);
    hv::enable_page(UNMAPPED).expect("enable");
    let status = unknown(UNMAPPED);
    hv::disable_page().expect("disable");
    assert_eq!(status, INVALID_HYPERCALL_CODE);
    assert_eq!(probe::read(UNMAPPED), before);
    Pass
}

pub fn write_faults() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let page = patterned();
    hv::enable_page(page).expect("enable");
    let before = checksum(page);
    // SAFETY: the page is this test's.
    let result = unsafe { probe::write(page + 0x800, 0) };
    let after = checksum(page);
    hv::disable_page().expect("disable");
    assert_eq!(result.map_err(|f| (f.vector, f.error)), Err((idt::GP, 0)));
    assert_eq!(before, after);
    assert_eq!(intact(page), 512, "the write reached the RAM below");
    Pass
}

pub fn moves() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let (first, second) = (patterned(), patterned());
    hv::enable_page(first).expect("enable");
    for _ in 0..20 {
        cpu::wrmsr(HV_X64_MSR_HYPERCALL, second | 1);
        assert_eq!(intact(first), 512, "left behind");
        assert_eq!(unknown(second), INVALID_HYPERCALL_CODE);
        cpu::wrmsr(HV_X64_MSR_HYPERCALL, first | 1);
        assert_eq!(intact(second), 512, "left behind");
        assert_eq!(unknown(first), INVALID_HYPERCALL_CODE);
    }
    // Enable off, page number kept.
    cpu::wrmsr(HV_X64_MSR_HYPERCALL, first);
    assert_eq!(intact(first), 512);
    hv::disable_page().expect("disable");
    Pass
}

pub fn os_id_zero_disables() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let page = patterned();
    hv::enable_page(page).expect("enable");
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    let (msr, words) = (cpu::rdmsr(HV_X64_MSR_HYPERCALL), intact(page));
    hv::disable_page().expect("disable");
    assert_eq!(msr & 1, 0, "still enabled");
    assert_eq!(words, 512, "still visible");
    Pass
}

pub fn content_is_constant() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let page = paging::frame();
    hv::enable_page(page).expect("enable");
    let before = checksum(page);
    for _ in 0..100 {
        unknown(page);
    }
    let after = checksum(page);
    hv::disable_page().expect("disable");
    assert_eq!(before, after);
    Pass
}

pub fn out_of_range() -> Verdict {
    require!(hv::present(), "no Hv#1");
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    let above = 1u64 << cpuid::physical_address_bits().min(51);
    wrmsr_gp(HV_X64_MSR_HYPERCALL, above | 1);
    wrmsr_gp(HV_X64_MSR_HYPERCALL, 1 << 63 | 1);
    assert_eq!(cpu::rdmsr(HV_X64_MSR_HYPERCALL) & 1, 0);
    hv::disable_page().expect("disable");
    Pass
}

/// Two overlays on one page: one shows, and when it goes the other does.
pub fn under_reference_tsc() -> Verdict {
    require!(hv::privilege(ACCESS_REF_TSC), "no reference TSC page");
    let page = patterned();
    hv::enable_page(page).expect("enable");
    let hypercall = checksum(page);
    cpu::wrmsr(HV_X64_MSR_REFERENCE_TSC, page | 1);
    let both = probe::read(page);
    cpu::wrmsr(HV_X64_MSR_REFERENCE_TSC, 0);
    let again = checksum(page);
    hv::disable_page().expect("disable");
    assert!(both.is_ok());
    assert_eq!(hypercall, again);
    assert_eq!(intact(page), 512);
    Pass
}

pub fn seen_by_all_vps() -> Verdict {
    require!(hv::present(), "no Hv#1");
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    static STATUS: AtomicU64 = AtomicU64::new(0);
    static WORDS: AtomicU64 = AtomicU64::new(0);
    extern "C" fn call(page: u64) {
        STATUS.store(unknown(page), Ordering::Release);
    }
    extern "C" fn look(page: u64) {
        WORDS.store(intact(page) as u64, Ordering::Release);
    }
    let page = patterned();
    for round in 0..20 {
        for other in 1..cpus {
            smp::on(other, look, page); // the translation to the RAM is in its TLB
            assert_eq!(WORDS.load(Ordering::Acquire), 512, "round {round}");
        }
        hv::enable_page(page).expect("enable");
        for other in 1..cpus {
            STATUS.store(0, Ordering::Release);
            smp::on(other, call, page);
            assert_eq!(
                STATUS.load(Ordering::Acquire),
                INVALID_HYPERCALL_CODE,
                "round {round}"
            );
        }
        hv::disable_page().expect("disable");
    }
    Pass
}

pub fn locked() -> Verdict {
    require!(hv::present(), "no Hv#1");
    require!(cpuid::leaf(0x4000_0003).edx >> 18 & 1 != 0, "no lock");
    let page = patterned();
    hv::enable_page(page).expect("enable");
    cpu::wrmsr(HV_X64_MSR_HYPERCALL, page | 3);
    assert_eq!(cpu::rdmsr(HV_X64_MSR_HYPERCALL), page | 3);
    wrmsr_gp(HV_X64_MSR_HYPERCALL, 0);
    wrmsr_gp(HV_X64_MSR_HYPERCALL, page | 1);
    assert_eq!(unknown(page), INVALID_HYPERCALL_CODE);
    Pass
}
