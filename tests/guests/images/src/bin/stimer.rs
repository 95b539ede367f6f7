// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Synthetic timers (TLFS 12), and GUEST_IDLE.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicU8, Ordering};
use guest::expect::{rdmsr_gp, wrmsr_gp, wrmsr_sticks};
use guest::synic::*;
use guest::{apic, cpu, hv, idt, image, require, smp, test, time, Pass, Verdict};

/// A vector for timers, and the SINT's.
const VECTOR: u8 = 0x71;
const SINT_VECTOR: u8 = 0x81;
/// 2 ms.
const SOON: u64 = 20_000;

fn direct_mode() -> bool {
    there() && guest::cpuid::leaf(0x4000_0003).edx >> 19 & 1 != 0
}

fn registers() -> Verdict {
    require!(there(), "no synthetic timers");
    for timer in 0..4 {
        assert_eq!(cpu::rdmsr(config(timer)), 0);
        assert_eq!(cpu::rdmsr(count(timer)), 0);
        wrmsr_sticks(config(timer), PERIODIC | 4 | AUTO_ENABLE | sint(7));
        wrmsr_sticks(config(timer), 0);
        wrmsr_sticks(count(timer), !0);
        wrmsr_sticks(count(timer), 0);
    }
    Pass
}

fn reserved_bits() -> Verdict {
    require!(there(), "no synthetic timers");
    for timer in 0..4 {
        for bit in (13..16).chain(20..64) {
            wrmsr_gp(config(timer), 1 << bit);
        }
    }
    Pass
}

/// Enabled, not direct, SINT 0: disabled at once.
fn sint_0() -> Verdict {
    require!(there(), "no synthetic timers");
    for timer in 0..4 {
        cpu::wrmsr(config(timer), ENABLE | PERIODIC);
        assert_eq!(cpu::rdmsr(config(timer)), PERIODIC);
        cpu::wrmsr(config(timer), 0);
    }
    Pass
}

fn direct_vectors() -> Verdict {
    require!(direct_mode(), "no direct mode");
    for vector in 0..16 {
        wrmsr_gp(config(0), direct(vector) | ENABLE);
    }
    wrmsr_sticks(config(0), direct(16) | ENABLE);
    cpu::wrmsr(config(0), 0);
    Pass
}

/// Each of the four, the way Linux uses them: in time, once, disabled afterwards.
fn one_shot() -> Verdict {
    require!(direct_mode(), "no direct mode");
    apic::init();
    static CAME: AtomicU64 = AtomicU64::new(0);
    for timer in 0..4 {
        let vector = VECTOR + timer as u8;
        idt::hook(vector, |_| {
            CAME.store(now(), Ordering::Release);
            apic::eoi();
        });
        let armed = direct(vector) | ENABLE | AUTO_ENABLE;
        cpu::wrmsr(config(timer), armed);
        for round in 1..=20 {
            let due = now() + SOON / 8 * (round % 4 + 1);
            cpu::wrmsr(count(timer), due);
            assert_eq!(cpu::rdmsr(config(timer)), armed);
            cpu::sti();
            let came = time::reached(|| u64::from(idt::count(vector)) == round);
            cpu::cli();
            let at = CAME.load(Ordering::Acquire);
            assert!(came, "timer {timer} did not fire in round {round}");
            assert!(at >= due, "timer {timer} was early: {at}, due at {due}");
            assert_eq!(cpu::rdmsr(config(timer)), armed & !ENABLE);
            assert_eq!(cpu::rdmsr(count(timer)), due);
        }
        cpu::wrmsr(count(timer), 0);
        cpu::wrmsr(config(timer), 0);
    }
    Pass
}

/// A time that has passed: before the next instruction.
fn in_the_past() -> Verdict {
    require!(direct_mode(), "no direct mode");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    cpu::wrmsr(config(0), direct(VECTOR) | AUTO_ENABLE);
    for round in 1..=10 {
        cpu::wrmsr(count(0), 1);
        assert!(apic::vector_bit(apic::IRR, VECTOR), "not pending at once");
        cpu::take_interrupts();
        assert_eq!(idt::count(VECTOR), round);
    }
    Messages::disable();
    Pass
}

fn stopped() -> Verdict {
    require!(direct_mode(), "no direct mode");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    let config_only = direct(VECTOR) | AUTO_ENABLE;
    cpu::wrmsr(config(1), config_only);
    cpu::wrmsr(count(1), now() + SOON);
    cpu::wrmsr(count(1), 0);
    assert_eq!(cpu::rdmsr(config(1)), config_only, "count 0 disables");
    cpu::wrmsr(config(2), config_only);
    cpu::wrmsr(count(2), now() + SOON);
    cpu::wrmsr(config(2), 0);
    // Without AutoEnable a count starts nothing.
    cpu::wrmsr(config(3), direct(VECTOR));
    cpu::wrmsr(count(3), now() + SOON);
    let end = now() + 3 * SOON;
    cpu::sti();
    assert!(time::reached(|| now() > end));
    cpu::cli();
    Messages::disable();
    assert_eq!(idt::count(VECTOR), 0);
    Pass
}

/// F-TM8, and the sleeper's accuracy from below.
fn wakes_from_hlt() -> Verdict {
    require!(direct_mode(), "no direct mode");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    cpu::wrmsr(config(0), direct(VECTOR) | AUTO_ENABLE);
    for round in 1..=10 {
        let due = now() + SOON * round;
        cpu::wrmsr(count(0), due);
        while u64::from(idt::count(VECTOR)) < round {
            cpu::sti_hlt();
            cpu::cli();
        }
        assert!(now() >= due);
    }
    Messages::disable();
    Pass
}

/// Ticks come for each period, neither early nor lost.
fn periodic() -> Verdict {
    require!(direct_mode(), "no direct mode");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    cpu::wrmsr(count(0), SOON);
    let start = now();
    cpu::wrmsr(config(0), direct(VECTOR) | PERIODIC | ENABLE);
    while idt::count(VECTOR) < 20 {
        cpu::sti_hlt();
        cpu::cli();
        let (ticks, elapsed) = (u64::from(idt::count(VECTOR)), now() - start);
        assert!(ticks <= elapsed / SOON, "{ticks} ticks after {elapsed}");
    }
    assert_eq!(cpu::rdmsr(count(0)), SOON, "the period stays readable");
    assert_eq!(cpu::rdmsr(config(0)) & ENABLE, ENABLE);
    cpu::wrmsr(config(0), 0);
    let last = idt::count(VECTOR);
    let end = now() + 2 * SOON;
    cpu::sti();
    assert!(time::reached(|| now() > end));
    cpu::cli();
    assert!(idt::count(VECTOR) <= last + 1, "it went on");
    Messages::disable();
    Pass
}

/// A period that no machine can keep up with leaves the guest some time, and the machine.
fn shortest_period() -> Verdict {
    require!(direct_mode(), "no direct mode");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    cpu::wrmsr(count(0), 1);
    cpu::wrmsr(config(0), direct(VECTOR) | PERIODIC | ENABLE);
    let end = now() + SOON;
    cpu::sti();
    let on = time::reached(|| now() > end);
    cpu::cli();
    Messages::disable();
    assert!(on && idt::count(VECTOR) > 2);
    Pass
}

fn message() -> Verdict {
    require!(there(), "no synthetic timers");
    let messages = Messages::enable(3, u64::from(SINT_VECTOR));
    idt::hook(SINT_VECTOR, |_| apic::eoi());
    for round in 1..=10 {
        let due = now() + SOON;
        cpu::wrmsr(count(2), due);
        cpu::wrmsr(config(2), ENABLE | sint(3));
        cpu::sti();
        let came = time::reached(|| idt::count(SINT_VECTOR) == round);
        cpu::cli();
        assert!(came, "no interrupt in round {round}");
        assert_eq!(messages.kind(3), TIMER_EXPIRED);
        assert_eq!(messages.header(3), (24, false));
        assert_eq!(messages.payload(3, 0), 2, "timer index");
        assert_eq!(messages.payload(3, 1), due, "expiration time");
        let delivered = messages.payload(3, 2);
        assert!(delivered >= due && delivered <= now(), "{delivered}");
        assert_eq!(cpu::rdmsr(config(2)), sint(3), "still enabled");
        messages.take(3);
    }
    Messages::disable();
    Pass
}

/// A message that finds its slot taken says so there, and comes after EOM.
fn busy_slot() -> Verdict {
    require!(there(), "no synthetic timers");
    let messages = Messages::enable(3, u64::from(SINT_VECTOR));
    idt::hook(SINT_VECTOR, |_| apic::eoi());
    for timer in [0, 1] {
        cpu::wrmsr(count(timer), now());
        cpu::wrmsr(config(timer), ENABLE | sint(3));
    }
    cpu::take_interrupts();
    let first = idt::count(SINT_VECTOR);
    assert_eq!(
        (messages.kind(3), messages.payload(3, 0)),
        (TIMER_EXPIRED, 0)
    );
    assert!(messages.header(3).1, "no pending flag");
    messages.take(3);
    cpu::take_interrupts();
    let second = idt::count(SINT_VECTOR);
    assert_eq!(
        (messages.kind(3), messages.payload(3, 0)),
        (TIMER_EXPIRED, 1)
    );
    assert!(!messages.header(3).1);
    messages.take(3);
    cpu::take_interrupts();
    assert_eq!((first, second, idt::count(SINT_VECTOR)), (1, 2, 2));
    Messages::disable();
    Pass
}

/// And without EOM "after an unspecified time" (TLFS 6.0b 11.4).
fn tried_again() -> Verdict {
    require!(there(), "no synthetic timers");
    let messages = Messages::enable(3, u64::from(SINT_VECTOR));
    idt::hook(SINT_VECTOR, |_| apic::eoi());
    for timer in [0, 1] {
        cpu::wrmsr(count(timer), now());
        cpu::wrmsr(config(timer), ENABLE | sint(3));
    }
    messages.clear(3);
    let came = time::reached(|| messages.kind(3) != 0);
    cpu::take_interrupts();
    Messages::disable();
    assert!(came, "never tried again");
    Pass
}

/// A message for what `msr` turns off waits until `msr` turns it on.
fn waits_for(msr: u32) -> Verdict {
    require!(there(), "no synthetic timers");
    let messages = Messages::enable(3, u64::from(SINT_VECTOR));
    idt::hook(SINT_VECTOR, |_| apic::eoi());
    let on = cpu::rdmsr(msr);
    cpu::wrmsr(msr, on & !1);
    cpu::wrmsr(count(0), now());
    cpu::wrmsr(config(0), ENABLE | sint(3));
    cpu::take_interrupts();
    assert_eq!(idt::count(SINT_VECTOR), 0, "delivered to nobody");
    cpu::wrmsr(msr, on);
    cpu::take_interrupts();
    assert_eq!(idt::count(SINT_VECTOR), 1, "not delivered afterwards");
    assert_eq!(messages.kind(3), TIMER_EXPIRED);
    messages.take(3);
    Messages::disable();
    Pass
}

/// The message comes, once; the interrupt does not, not even when the SINT is as others later.
fn without_interrupt(value: u64) -> Verdict {
    let messages = Messages::enable(5, u64::from(SINT_VECTOR) | value);
    idt::hook(SINT_VECTOR, |_| apic::eoi());
    cpu::wrmsr(count(0), now());
    cpu::wrmsr(config(0), ENABLE | sint(5));
    assert_eq!(messages.kind(5), TIMER_EXPIRED);
    cpu::wrmsr(SINT0 + 5, u64::from(SINT_VECTOR));
    cpu::take_interrupts();
    assert_eq!(idt::count(SINT_VECTOR), 0);
    messages.clear(5);
    cpu::wrmsr(EOM, 0);
    cpu::take_interrupts();
    assert_eq!(
        (messages.kind(5), idt::count(SINT_VECTOR)),
        (0, 0),
        "it came again"
    );
    Messages::disable();
    Pass
}

fn masked() -> Verdict {
    require!(there(), "no synthetic timers");
    without_interrupt(MASKED)
}

fn polling() -> Verdict {
    require!(there(), "no synthetic timers");
    let shown = guest::cpuid::leaf(0x4000_0003).edx >> 17 & 1 != 0;
    require!(shown, "no SintPollingMode");
    without_interrupt(POLLING)
}

fn auto_eoi() -> Verdict {
    require!(there(), "no synthetic timers");
    let messages = Messages::enable(4, u64::from(SINT_VECTOR) | AUTO_EOI);
    static IN_SERVICE: AtomicU64 = AtomicU64::new(9);
    idt::hook(SINT_VECTOR, |_| {
        IN_SERVICE.store(
            apic::vector_bit(apic::ISR, SINT_VECTOR).into(),
            Ordering::Release,
        );
    });
    for round in 1..=10 {
        cpu::wrmsr(count(0), now());
        cpu::wrmsr(config(0), ENABLE | sint(4));
        cpu::take_interrupts();
        assert_eq!(idt::count(SINT_VECTOR), round);
        assert_eq!(IN_SERVICE.load(Ordering::Acquire), 0, "still in service");
        messages.take(4);
    }
    // It can be taken back.
    cpu::wrmsr(SINT0 + 4, u64::from(SINT_VECTOR));
    cpu::wrmsr(count(0), now());
    cpu::wrmsr(config(0), ENABLE | sint(4));
    cpu::take_interrupts();
    assert_eq!(IN_SERVICE.load(Ordering::Acquire), 1);
    apic::eoi();
    Messages::disable();
    Pass
}

/// Each VP has timers of its own.
fn every_vp() -> Verdict {
    require!(direct_mode(), "no direct mode");
    let cpus = smp::start();
    require!(cpus > 1, "one processor");
    idt::hook(VECTOR, |_| {
        if now() >= cpu::rdmsr(count(0)) {
            RIGHT.fetch_add(1, Ordering::AcqRel);
        }
        apic::eoi();
    });
    static RIGHT: AtomicU64 = AtomicU64::new(0);
    RIGHT.store(0, Ordering::Release);
    extern "C" fn ten(cpu: u64) {
        cpu::wrmsr(config(0), direct(VECTOR) | AUTO_ENABLE);
        for round in 0..10 {
            cpu::wrmsr(count(0), now() + SOON / 4 + 97 * cpu + 13 * round);
            while cpu::rdmsr(config(0)) & ENABLE != 0 {
                cpu::sti_hlt();
                cpu::cli();
            }
            cpu::take_interrupts();
        }
        cpu::wrmsr(config(0), 0);
    }
    for other in 1..cpus {
        smp::post(other, ten, other as u64);
    }
    apic::init_best();
    ten(0);
    for other in 1..cpus {
        smp::join(other);
    }
    assert_eq!(RIGHT.load(Ordering::Acquire), 10 * cpus as u64);
    Pass
}

/// The read comes back when an interrupt comes, also one that cannot be taken.
fn guest_idle() -> Verdict {
    require!(direct_mode() && hv::privilege(10), "no GUEST_IDLE");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    wrmsr_gp(GUEST_IDLE, 0);
    cpu::wrmsr(config(0), direct(VECTOR) | AUTO_ENABLE);
    for round in 1..=5 {
        let due = now() + SOON;
        cpu::wrmsr(count(0), due);
        assert_eq!(cpu::rdmsr(GUEST_IDLE), 0);
        assert!(now() >= due, "came back before an interrupt");
        assert_eq!(idt::count(VECTOR), round - 1, "RFLAGS.IF is 0");
        // One is pending: at once.
        assert_eq!(cpu::rdmsr(GUEST_IDLE), 0);
        cpu::take_interrupts();
        assert_eq!(idt::count(VECTOR), round);
    }
    Messages::disable();
    Pass
}

/// Without the privilege there is none of it.
fn absent() -> Verdict {
    require!(hv::present() && !hv::privilege(3), "the timers are there");
    for timer in 0..4 {
        rdmsr_gp(config(timer));
        rdmsr_gp(count(timer));
    }
    Pass
}

/// Two sources with one vector: both messages come, and each interrupts.
fn shared_vector() -> Verdict {
    require!(there(), "no synthetic timers");
    let messages = Messages::enable(2, SINT_VECTOR.into());
    cpu::wrmsr(SINT0 + 3, SINT_VECTOR.into());
    idt::hook(SINT_VECTOR, |_| apic::eoi());
    for (timer, sint_index) in [(0, 2), (1, 3)] {
        cpu::wrmsr(config(timer), sint(sint_index) | AUTO_ENABLE);
    }
    let mut came = 0;
    for round in 0..6 {
        let (timer, mine, other) = if round % 2 == 0 { (0, 2, 3) } else { (1, 3, 2) };
        cpu::wrmsr(count(timer), now() + SOON / 4);
        cpu::sti();
        assert!(time::reached(|| idt::count(SINT_VECTOR) == came + 1));
        cpu::cli();
        came += 1;
        let kinds = (messages.kind(mine), messages.kind(other));
        assert_eq!(kinds, (TIMER_EXPIRED, 0), "timer {timer}");
        messages.take(mine);
    }
    // Both at once: one interrupt may be for both.
    let due = now() + SOON / 4;
    cpu::wrmsr(count(0), due);
    cpu::wrmsr(count(1), due);
    cpu::sti();
    let both = || [2, 3].iter().all(|s| messages.kind(*s) == TIMER_EXPIRED);
    assert!(time::reached(both), "one message is lost");
    assert!(time::reached(|| idt::count(SINT_VECTOR) > came));
    cpu::cli();
    Messages::disable();
    Pass
}

const UNHALTED_CONFIG: u32 = hv::HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG;
const UNHALTED_COUNT: u32 = hv::HV_X64_MSR_STIME_UNHALTED_TIMER_COUNT;
const UNHALTED_ENABLE: u64 = 1 << 8;

fn unhalted_timer() -> bool {
    there() && guest::cpuid::leaf(0x4000_0003).edx >> 23 & 1 != 0
}

fn unhalted_registers() -> Verdict {
    require!(unhalted_timer(), "no time-unhalted timer");
    assert_eq!(
        (cpu::rdmsr(UNHALTED_CONFIG), cpu::rdmsr(UNHALTED_COUNT)),
        (0, 0)
    );
    for vector in 0..256 {
        wrmsr_sticks(UNHALTED_CONFIG, vector);
        if vector == 2 || vector >= 16 {
            wrmsr_sticks(UNHALTED_CONFIG, vector | UNHALTED_ENABLE);
        } else {
            wrmsr_gp(UNHALTED_CONFIG, vector | UNHALTED_ENABLE);
        }
    }
    for bit in 9..64 {
        wrmsr_gp(UNHALTED_CONFIG, 1 << bit);
    }
    cpu::wrmsr(UNHALTED_CONFIG, 0);
    wrmsr_sticks(UNHALTED_COUNT, !0);
    wrmsr_sticks(UNHALTED_COUNT, 0);
    Pass
}

/// Runs the timer by `vector` for a while and at least `wanted` times; how often it could have come at most.
fn run_unhalted(vector: u8, wanted: u64) -> u64 {
    let begin = now();
    cpu::wrmsr(UNHALTED_COUNT, SOON);
    cpu::wrmsr(UNHALTED_CONFIG, u64::from(vector) | UNHALTED_ENABLE);
    cpu::sti();
    let came = time::reached(|| u64::from(idt::count(vector)) >= wanted);
    cpu::cli();
    cpu::wrmsr(UNHALTED_CONFIG, 0);
    assert!(came, "{} of {wanted} interrupts", idt::count(vector));
    (now() - begin) / SOON
}

/// Again and again, never too often, and told in the VP assist page.
fn unhalted_interrupts() -> Verdict {
    require!(unhalted_timer(), "no time-unhalted timer");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    let page = guest::paging::frame();
    cpu::wrmsr(hv::HV_X64_MSR_VP_ASSIST_PAGE, page | 1);
    // SAFETY: the VP assist page, which this image uses for nothing else.
    let expired = unsafe { &*((page + 56) as *const AtomicU8) };
    assert_eq!(expired.load(Ordering::Acquire), 0);
    let most = run_unhalted(VECTOR, 5);
    assert!(u64::from(idt::count(VECTOR)) <= most, "too often");
    assert_eq!(expired.swap(0, Ordering::AcqRel), 1);
    let before = idt::count(VECTOR);
    let end = now() + 3 * SOON;
    assert!(time::reached(|| now() > end));
    assert_eq!(
        (idt::count(VECTOR), expired.load(Ordering::Acquire)),
        (before, 0)
    );
    cpu::wrmsr(hv::HV_X64_MSR_VP_ASSIST_PAGE, 0);
    Pass
}

fn unhalted_nmi() -> Verdict {
    require!(unhalted_timer(), "no time-unhalted timer");
    idt::hook(idt::NMI, |_| ());
    let most = run_unhalted(idt::NMI, 3);
    assert!(u64::from(idt::count(idt::NMI)) <= most, "too often");
    Pass
}

/// Its time stands still in HLT.
fn unhalted_stands_still() -> Verdict {
    require!(unhalted_timer() && direct_mode(), "no time-unhalted timer");
    apic::init();
    idt::hook(VECTOR, |_| apic::eoi());
    idt::hook(VECTOR + 1, |_| apic::eoi());
    // So many times longer than the VP is awake in this test.
    cpu::wrmsr(UNHALTED_COUNT, 10 * SOON);
    cpu::wrmsr(UNHALTED_CONFIG, u64::from(VECTOR) | UNHALTED_ENABLE);
    cpu::wrmsr(config(0), direct(VECTOR + 1) | AUTO_ENABLE);
    let begin = now();
    for _ in 0..30 {
        cpu::wrmsr(count(0), now() + SOON);
        cpu::sti_hlt();
        cpu::cli();
    }
    let slept = now() - begin;
    cpu::wrmsr(UNHALTED_CONFIG, 0);
    Messages::disable();
    assert!(slept >= 30 * SOON, "slept for {slept}");
    assert_eq!((idt::count(VECTOR), idt::count(VECTOR + 1)), (0, 30));
    Pass
}

image!(
    "stimer",
    [
        test!(registers, "M-B0 M-B1", registers),
        test!(reserved_bits, "M-B0 K-17", reserved_bits),
        test!(sint_0, "M-B0 K-17", sint_0),
        test!(direct_vectors, "F-TM7 M-B0 K-17", direct_vectors),
        test!(one_shot, "F-TM1 F-TM2 F-TM5 F-TM7 C-3D19", one_shot),
        test!(in_the_past, "F-TM2 M-B1", in_the_past),
        test!(stopped, "F-TM5 M-B1", stopped),
        test!(wakes_from_hlt, "F-TM8", wakes_from_hlt),
        test!(periodic, "F-TM3 K-16", periodic),
        test!(shortest_period, "F-TM3", shortest_period),
        test!(message, "F-TM6 F-SY2", message),
        test!(busy_slot, "F-SY2 F-SY4 M-84", busy_slot),
        test!(tried_again, "F-SY4", tried_again),
        test!(waits_for_synic, "F-SY1 K-11", || waits_for(SCONTROL)),
        test!(waits_for_page, "F-SY2 K-12", || waits_for(SIMP)),
        test!(masked, "F-SY3 K-13", masked),
        test!(polling, "F-SY6 K-15 C-3D17", polling),
        test!(auto_eoi, "F-SY5", auto_eoi),
        test!(shared_vector, "F-SY7", shared_vector),
        test!(every_vp, "M-B0 F-TM8", every_vp),
        test!(guest_idle, "M-F0 F-ID1 C-3A10 C-3D5", guest_idle),
        test!(unhalted_registers, "M-114 C-3D23", unhalted_registers),
        test!(unhalted_interrupts, "M-114 F-TM16", unhalted_interrupts),
        test!(unhalted_nmi, "M-114 F-TM16", unhalted_nmi),
        test!(unhalted_stands_still, "F-TM16", unhalted_stands_still),
        test!(absent, "C-R8", absent),
    ]
);
