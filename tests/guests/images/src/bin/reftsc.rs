// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Reference time: the counter, the page, the frequencies (TLFS 12).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::hv::*;
use guest::{cpu, hv, idt, image, paging, probe, require, smp, test, time, Pass, Verdict};

/// HV_REFERENCE_TSC_PAGE.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    sequence: u32,
    scale: u64,
    offset: i64,
}

impl Page {
    fn read(page: u64) -> Page {
        // SAFETY: identity-mapped RAM or the overlay on it.
        unsafe {
            Page {
                sequence: (page as *const u32).read_volatile(),
                scale: ((page + 8) as *const u64).read_volatile(),
                offset: ((page + 16) as *const i64).read_volatile(),
            }
        }
    }

    fn time(self, tsc: u64) -> u64 {
        ((u128::from(tsc) * u128::from(self.scale) >> 64) as u64).wrapping_add(self.offset as u64)
    }
}

fn counter() -> u64 {
    cpu::rdmsr(HV_X64_MSR_TIME_REF_COUNT)
}

/// Enables the page at `gpa` and reads it.
fn enable(gpa: u64) -> Page {
    cpu::wrmsr(HV_X64_MSR_REFERENCE_TSC, gpa | 1);
    Page::read(gpa)
}

fn disable() {
    cpu::wrmsr(HV_X64_MSR_REFERENCE_TSC, 0);
}

fn counter_monotone() -> Verdict {
    require!(hv::privilege(ACCESS_REF_COUNTER), "no reference counter");
    let mut last = counter();
    assert!(last < 10_000_000 * 3600, "did not start at 0: {last}");
    let first = last;
    for _ in 0..2000 {
        let now = counter();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    time::spin(10_000_000);
    assert!(counter() > first, "stands still at {first}");
    Pass
}

/// One counter for all VPs: what one saw the other never falls behind.
fn counter_across_vps() -> Verdict {
    require!(hv::privilege(ACCESS_REF_COUNTER), "no reference counter");
    require!(smp::start() > 1, "one processor");
    across(counter)
}

static TURN: AtomicU64 = AtomicU64::new(0);
static LATEST: AtomicU64 = AtomicU64::new(0);
static CLOCK: AtomicU64 = AtomicU64::new(0);
const TURNS: u64 = 500;

/// Two processors read a clock in turns.
fn across(clock: fn() -> u64) -> Verdict {
    extern "C" fn answer(_: u64) {
        // SAFETY: `across` stored a `fn() -> u64`.
        let clock = unsafe {
            core::mem::transmute::<usize, fn() -> u64>(CLOCK.load(Ordering::Acquire) as usize)
        };
        take_turns(clock, 1);
    }
    TURN.store(0, Ordering::Release);
    LATEST.store(0, Ordering::Release);
    CLOCK.store(clock as usize as u64, Ordering::Release);
    smp::post(1, answer, 0);
    take_turns(clock, 0);
    smp::join(1);
    Pass
}

fn take_turns(clock: fn() -> u64, me: u64) {
    for turn in (me..TURNS).step_by(2) {
        assert!(
            time::reached(|| TURN.load(Ordering::Acquire) == turn),
            "turn {turn} never came"
        );
        let (before, now) = (LATEST.load(Ordering::Acquire), clock());
        LATEST.store(now, Ordering::Release);
        TURN.store(turn + 1, Ordering::Release);
        assert!(now >= before, "{now} after {before} in turn {turn}");
    }
}

static PAGE: AtomicU64 = AtomicU64::new(0);

fn page_clock() -> u64 {
    Page::read(PAGE.load(Ordering::Acquire)).time(cpu::rdtsc())
}

fn page_valid() -> Verdict {
    require!(hv::privilege(ACCESS_REF_TSC), "no reference TSC page");
    let gpa = paging::frame();
    let page = enable(gpa);
    let msr = cpu::rdmsr(HV_X64_MSR_REFERENCE_TSC);
    disable();
    assert_eq!(msr, gpa | 1);
    assert!(page.sequence != 0 && page.sequence != u32::MAX, "{page:?}");
    assert_ne!(page.scale, 0);
    Pass
}

/// Page and counter agree, in both orders of reading.
fn page_agrees_with_counter() -> Verdict {
    require!(
        hv::privilege(ACCESS_REF_TSC) && hv::privilege(ACCESS_REF_COUNTER),
        "no page or counter"
    );
    let gpa = paging::frame();
    let page = enable(gpa);
    if page.sequence == 0 {
        disable();
        return Verdict::Skip("the page refers to the counter");
    }
    for _ in 0..1000 {
        let a = page.time(cpu::rdtsc());
        let b = counter();
        let c = page.time(cpu::rdtsc());
        // Rounding: one unit on each side.
        assert!(a <= b + 1 && b <= c + 1, "page {a}, counter {b}, page {c}");
    }
    assert_eq!(Page::read(gpa), page, "changed without a reason");
    disable();
    Pass
}

fn page_across_vps() -> Verdict {
    require!(hv::privilege(ACCESS_REF_TSC), "no reference TSC page");
    require!(smp::start() > 1, "one processor");
    let gpa = paging::frame();
    let valid = enable(gpa).sequence != 0;
    PAGE.store(gpa, Ordering::Release);
    let verdict = if valid {
        across(page_clock)
    } else {
        Verdict::Skip("the page refers to the counter")
    };
    disable();
    verdict
}

fn page_is_overlay() -> Verdict {
    require!(hv::privilege(ACCESS_REF_TSC), "no reference TSC page");
    let gpa = paging::frame();
    let pattern = |i: u64| i * 0x0101_0101 + 0x77;
    for i in 0..512 {
        // SAFETY: a page of this test.
        unsafe { ((gpa + i * 8) as *mut u64).write_volatile(pattern(i)) };
    }
    let page = enable(gpa);
    disable();
    assert_ne!(page.scale, pattern(1), "the RAM shows through");
    for i in 0..512 {
        assert_eq!(
            probe::read(gpa + i * 8),
            Ok(pattern(i)),
            "the RAM below was changed at {}",
            i * 8
        );
    }
    Pass
}

/// Read-only for the guest: TLFS raises #MC, and the value stays.
fn page_read_only() -> Verdict {
    require!(hv::privilege(ACCESS_REF_TSC), "no reference TSC page");
    let gpa = paging::frame();
    let page = enable(gpa);
    idt::hook(idt::MC, |_| idt::leave(idt::MC.into()));
    idt::hook(idt::GP, |_| idt::leave(idt::GP.into()));
    extern "C" fn write(gpa: u64) {
        // SAFETY: the page is this test's.
        unsafe { ((gpa + 8) as *mut u64).write_volatile(1) };
    }
    cpu::set_cr4(cpu::cr4() | 1 << 6); // MCE, or a machine check shuts down
    let outcome = idt::guarded(write, gpa);
    cpu::set_cr4(cpu::cr4() & !(1 << 6));
    let after = Page::read(gpa);
    disable();
    assert_eq!(after, page, "the guest wrote it");
    assert_ne!(outcome, idt::Outcome::Returned, "the write went unnoticed");
    Pass
}

fn page_out_of_range() -> Verdict {
    require!(hv::privilege(ACCESS_REF_TSC), "no reference TSC page");
    let above = 1u64 << guest::cpuid::physical_address_bits().min(51);
    assert_eq!(
        probe::wrmsr(HV_X64_MSR_REFERENCE_TSC, above | 1),
        Ok(()),
        "accepted, and unreachable"
    );
    disable();
    Pass
}

/// The counter runs at 10 MHz as TSC_FREQUENCY counts it: within 1 part in 1,000.
fn tsc_frequency() -> Verdict {
    require!(
        hv::privilege(ACCESS_FREQUENCY) && hv::privilege(ACCESS_REF_COUNTER),
        "no frequencies"
    );
    let frequency = cpu::rdmsr(HV_X64_MSR_TSC_FREQUENCY);
    assert!(
        (1_000_000..=100_000_000_000).contains(&frequency),
        "{frequency} Hz"
    );
    let (tsc0, ref0) = (cpu::rdtsc(), counter());
    time::spin(200_000_000);
    let (tsc1, ref1) = (cpu::rdtsc(), counter());
    let expected = (u128::from(tsc1 - tsc0) * 10_000_000 / u128::from(frequency)) as u64;
    let counted = ref1 - ref0;
    assert!(
        counted.abs_diff(expected) <= expected / 1000 + 20,
        "{counted} units in place of {expected}"
    );
    Pass
}

/// The APIC timer counts at APIC_FREQUENCY: within 2 in 100, for want of an atomic reading.
fn apic_frequency() -> Verdict {
    require!(
        hv::privilege(ACCESS_FREQUENCY) && hv::privilege(ACCESS_REF_COUNTER),
        "no frequencies"
    );
    use guest::apic;
    apic::init();
    let frequency = cpu::rdmsr(HV_X64_MSR_APIC_FREQUENCY);
    assert!(
        (1_000_000..=10_000_000_000).contains(&frequency),
        "{frequency} Hz"
    );
    apic::write(apic::TIMER_INITIAL, u32::MAX);
    let (apic0, ref0) = (apic::read(apic::TIMER_CURRENT), counter());
    time::spin(200_000_000);
    let (apic1, ref1) = (apic::read(apic::TIMER_CURRENT), counter());
    apic::write(apic::TIMER_INITIAL, 0);
    let expected = (u128::from(ref1 - ref0) * u128::from(frequency) / 10_000_000) as u64;
    let counted = u64::from(apic0.wrapping_sub(apic1));
    assert!(
        counted.abs_diff(expected) <= expected / 50 + 1000,
        "{counted} counts in place of {expected}"
    );
    Pass
}

image!(
    "reftsc",
    [
        test!(counter_monotone, "M-20 C-3A1", counter_monotone),
        test!(counter_across_vps, "M-20", counter_across_vps),
        test!(page_valid, "M-21 F-TM10", page_valid),
        test!(
            page_agrees_with_counter,
            "M-21 F-TM9 K-20",
            page_agrees_with_counter
        ),
        test!(page_across_vps, "M-21 F-TM9", page_across_vps),
        test!(page_is_overlay, "M-21 F-OV1 F-OV2", page_is_overlay),
        test!(page_read_only, "F-OV3 F-OV9", page_read_only),
        test!(page_out_of_range, "M-21 F-OV5", page_out_of_range),
        test!(tsc_frequency, "M-22 C-3A11", tsc_frequency),
        test!(apic_frequency, "M-23 C-3A11", apic_frequency),
    ]
);
