// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The time-stamp counter: monotone, written, adjusted, the same everywhere.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::msr::{IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST};
use guest::{apic, cpu, cpuid, hv, idt, image, probe, require, smp, test, time, Pass, Verdict};

/// More than any test here takes between two readings, less than any step it makes.
const STEP: u64 = 1 << 44;

fn monotone() -> Verdict {
    let mut last = cpu::rdtsc();
    for _ in 0..100_000 {
        let now = cpu::rdtsc();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    for _ in 0..1000 {
        let _ = core::hint::black_box(cpuid::leaf(0));
        let by_msr = if hv::tcg() {
            last // TCG reads 0
        } else {
            cpu::rdmsr(IA32_TIME_STAMP_COUNTER)
        };
        let now = cpu::rdtsc();
        assert!(
            last <= by_msr && by_msr <= now,
            "RDTSC {last}, RDMSR {by_msr}, RDTSC {now}"
        );
        last = now;
    }
    Pass
}

/// Goes on while the VP waits.
fn runs_in_hlt() -> Verdict {
    apic::init_best();
    idt::hook(0x40, |_| apic::eoi());
    apic::write(apic::LVT_TIMER, 0x40);
    apic::write(apic::TIMER_INITIAL, u32::MAX);
    let (tsc0, apic0) = (cpu::rdtsc(), apic::read(apic::TIMER_CURRENT));
    time::spin(50_000_000);
    let (tsc1, apic1) = (cpu::rdtsc(), apic::read(apic::TIMER_CURRENT));
    let rate = (tsc1 - tsc0) as f64 / f64::from(apic0 - apic1);
    apic::write(apic::TIMER_INITIAL, 5_000_000);
    let before = cpu::rdtsc();
    cpu::sti_hlt();
    cpu::cli();
    let waited = cpu::rdtsc() - before;
    let least = (rate * 5_000_000.0 * 0.5) as u64;
    assert!(waited >= least, "{waited} ticks in a wait of {least}");
    Pass
}

fn write() -> Verdict {
    require!(!hv::tcg(), "TCG ignores writes of the TSC");
    let adjust = cpuid::TSC_ADJUST.present();
    let before_adjust = if adjust {
        cpu::rdmsr(IA32_TSC_ADJUST)
    } else {
        0
    };
    let start = cpu::rdtsc();
    cpu::wrmsr(IA32_TIME_STAMP_COUNTER, start + STEP);
    let after = cpu::rdtsc();
    assert!(
        after >= start + STEP && after < start + STEP + STEP / 2,
        "{start} + {STEP}: {after}"
    );
    if adjust {
        let moved = cpu::rdmsr(IA32_TSC_ADJUST).wrapping_sub(before_adjust);
        assert!(
            moved <= STEP && moved > STEP - STEP / 2,
            "TSC_ADJUST moved by {moved}"
        );
    }
    cpu::wrmsr(IA32_TIME_STAMP_COUNTER, cpu::rdtsc() - STEP);
    let back = cpu::rdtsc();
    assert!(back >= start && back < start + STEP / 2, "{start}: {back}");
    if adjust {
        cpu::wrmsr(IA32_TSC_ADJUST, before_adjust);
    }
    Pass
}

fn adjust() -> Verdict {
    require!(cpuid::TSC_ADJUST.present(), "no TSC_ADJUST");
    let before = cpu::rdmsr(IA32_TSC_ADJUST);
    let start = cpu::rdtsc();
    cpu::wrmsr(IA32_TSC_ADJUST, before.wrapping_add(STEP));
    let forward = cpu::rdtsc();
    let read = cpu::rdmsr(IA32_TSC_ADJUST);
    cpu::wrmsr(IA32_TSC_ADJUST, before);
    let back = cpu::rdtsc();
    assert_eq!(read, before.wrapping_add(STEP));
    assert!(
        forward >= start + STEP && forward < start + STEP + STEP / 2,
        "{start} + {STEP}: {forward}"
    );
    assert!(back >= start && back < start + STEP / 2, "{start}: {back}");
    assert_eq!(cpu::rdmsr(IA32_TSC_ADJUST), before);
    Pass
}

/// The deadline follows the adjusted counter.
fn deadline_follows_adjust() -> Verdict {
    require!(
        cpuid::TSC_ADJUST.present() && cpuid::TSC_DEADLINE.present(),
        "no TSC_ADJUST or deadline"
    );
    apic::init_best();
    idt::hook(0x40, |_| apic::eoi());
    apic::write(apic::LVT_TIMER, 0x40 | apic::TIMER_DEADLINE);
    cpu::wrmsr(guest::msr::IA32_TSC_DEADLINE, cpu::rdtsc() + STEP);
    let before = cpu::rdmsr(IA32_TSC_ADJUST);
    cpu::wrmsr(IA32_TSC_ADJUST, before.wrapping_add(2 * STEP));
    cpu::sti();
    let fired = time::reached(|| idt::count(0x40) == 1);
    cpu::cli();
    cpu::wrmsr(IA32_TSC_ADJUST, before);
    cpu::wrmsr(guest::msr::IA32_TSC_DEADLINE, 0);
    assert!(fired, "the counter passed the deadline");
    Pass
}

/// What one processor read the next never falls behind: TSCs run as one.
fn across_vps() -> Verdict {
    require!(smp::start() > 1, "one processor");
    static TURN: AtomicU64 = AtomicU64::new(0);
    static LATEST: AtomicU64 = AtomicU64::new(0);
    const TURNS: u64 = 500;
    TURN.store(0, Ordering::Release);
    LATEST.store(0, Ordering::Release);
    extern "C" fn turns(me: u64) {
        for turn in (me..TURNS).step_by(2) {
            assert!(
                time::reached(|| TURN.load(Ordering::Acquire) == turn),
                "turn {turn} never came"
            );
            let (before, now) = (LATEST.load(Ordering::Acquire), cpu::rdtsc());
            LATEST.store(now, Ordering::Release);
            TURN.store(turn + 1, Ordering::Release);
            assert!(now >= before, "{} ticks back in turn {turn}", before - now);
        }
    }
    smp::post(1, turns, 1);
    turns(0);
    smp::join(1);
    Pass
}

/// TSC_ADJUST starts at 0 on every processor, and is its own.
fn adjust_is_private() -> Verdict {
    require!(cpuid::TSC_ADJUST.present(), "no TSC_ADJUST");
    require!(smp::start() > 1, "one processor");
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn look(_: u64) {
        SEEN.store(cpu::rdmsr(IA32_TSC_ADJUST), Ordering::Release);
    }
    let before = cpu::rdmsr(IA32_TSC_ADJUST);
    cpu::wrmsr(IA32_TSC_ADJUST, before.wrapping_add(STEP));
    smp::on(1, look, 0);
    cpu::wrmsr(IA32_TSC_ADJUST, before);
    assert_eq!(SEEN.load(Ordering::Acquire), 0);
    Pass
}

/// RDTSC and RDTSCP read the same counter.
fn rdtscp_agrees() -> Verdict {
    require!(cpuid::RDTSCP.present(), "no RDTSCP");
    for _ in 0..1000 {
        let (a, (b, _), c) = (cpu::rdtsc(), cpu::rdtscp(), cpu::rdtsc());
        assert!(a <= b && b <= c, "{a} {b} {c}");
    }
    Pass
}

/// Leaves 15H and 16H, where shown, are plausible and agree.
fn frequency_leaves() -> Verdict {
    require!(cpuid::leaf(0).eax >= 0x15, "no leaf 15H");
    let l = cpuid::leaf(0x15);
    require!(l.eax != 0 && l.ebx != 0 && l.ecx != 0, "leaf 15H is empty");
    let hertz = u64::from(l.ecx) * u64::from(l.ebx) / u64::from(l.eax);
    assert!((1_000_000..100_000_000_000).contains(&hertz), "{hertz} Hz");
    if hv::privilege(hv::ACCESS_FREQUENCY) {
        let told = probe::rdmsr(hv::HV_X64_MSR_TSC_FREQUENCY).expect("advertised");
        assert!(
            hertz.abs_diff(told) <= told / 1000,
            "leaf 15H {hertz} Hz, TSC_FREQUENCY {told} Hz"
        );
    }
    Pass
}

image!(
    "tsc",
    [
        test!(monotone, "-", monotone),
        test!(runs_in_hlt, "-", runs_in_hlt),
        test!(write, "-", write),
        test!(adjust, "-", adjust),
        test!(deadline_follows_adjust, "-", deadline_follows_adjust),
        test!(across_vps, "F-TM12", across_vps),
        test!(adjust_is_private, "-", adjust_is_private),
        test!(rdtscp_agrees, "-", rdtscp_agrees),
        test!(frequency_leaves, "M-22", frequency_leaves),
    ]
);
