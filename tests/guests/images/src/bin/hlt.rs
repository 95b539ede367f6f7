// SPDX-License-Identifier: GPL-2.0 OR MIT
//! HLT: what wakes it, the shadow of STI, and that no wake-up is lost.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::{apic, cpu, idt, image, require, smp, test, time, Pass, Verdict};

const TIMER: u8 = 0x40;
const IPI: u8 = 0x41;
const BACK: u8 = 0x42;
const ROUNDS: u32 = 1000;

fn acknowledge(_: &mut idt::Frame) {
    apic::eoi();
}

fn ready() {
    apic::init_best();
    for vector in [TIMER, IPI, BACK] {
        idt::hook(vector, acknowledge);
    }
}

/// A one-shot timer ends HLT with interrupts on.
fn woken_by_timer() -> Verdict {
    ready();
    apic::write(apic::LVT_TIMER, u32::from(TIMER));
    for round in 1..=100 {
        apic::write(apic::TIMER_INITIAL, 20_000);
        cpu::sti_hlt();
        cpu::cli();
        assert_eq!(idt::count(TIMER), round);
    }
    Pass
}

/// A pending interrupt is taken behind the instruction after STI: never before HLT, always at it.
fn sti_shadow() -> Verdict {
    ready();
    static RIP: AtomicU64 = AtomicU64::new(0);
    idt::hook(IPI, |frame| {
        RIP.store(frame.rip, Ordering::Relaxed);
        apic::eoi();
    });
    for round in 1..=ROUNDS {
        apic::send_self(IPI);
        let behind: u64;
        // SAFETY: the handler of IPI returns here.
        unsafe { asm!("lea {0}, [rip + 2f]", "sti", "hlt", "2:", "cli", out(reg) behind) };
        assert_eq!(idt::count(IPI), round);
        assert_eq!(
            RIP.load(Ordering::Relaxed),
            behind,
            "taken before HLT or late"
        );
    }
    Pass
}

/// An interrupt that TPR holds back does not end HLT; the timer behind it does.
fn low_priority_does_not_wake() -> Verdict {
    ready();
    static ORDER: AtomicU32 = AtomicU32::new(0);
    idt::hook(0x51, |_| {
        let _ = ORDER.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
        apic::eoi();
    });
    idt::hook(0x91, |_| {
        let _ = ORDER.compare_exchange(0, 2, Ordering::Relaxed, Ordering::Relaxed);
        apic::eoi();
    });
    ORDER.store(0, Ordering::Relaxed);
    cpu::set_cr8(6);
    apic::send_self(0x51);
    apic::write(apic::LVT_TIMER, 0x91);
    apic::write(apic::TIMER_INITIAL, 100_000);
    cpu::sti_hlt();
    cpu::cli();
    let first = ORDER.load(Ordering::Relaxed);
    cpu::set_cr8(0);
    cpu::take_interrupts();
    assert_eq!(first, 2, "woken by a vector below TPR");
    assert_eq!((idt::count(0x51), idt::count(0x91)), (1, 1));
    Pass
}

/// NMI ends HLT with IF = 0.
fn nmi_wakes_with_interrupts_off() -> Verdict {
    ready();
    require!(smp::start() > 1, "one processor");
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.store(0, Ordering::Relaxed);
    extern "C" fn halt(_: u64) {
        // SAFETY: the NMI ends it.
        unsafe { asm!("cli", "hlt") };
        COUNT.fetch_add(1, Ordering::AcqRel);
    }
    idt::hook(idt::NMI, |_| {});
    smp::post(1, halt, 0);
    time::spin(3_000_000);
    let woken_early = COUNT.load(Ordering::Acquire) != 0;
    apic::send(smp::apic_id(1), apic::ICR_NMI | apic::ICR_ASSERT);
    smp::join(1);
    assert!(!woken_early, "HLT with IF = 0 ended by itself");
    assert_eq!(COUNT.load(Ordering::Acquire), 1);
    Pass
}

/// Two processors wake each other in turn, each waiting in HLT: a lost wake-up hangs.
fn ping_pong() -> Verdict {
    ready();
    require!(smp::start() > 1, "one processor");
    static PING: AtomicU32 = AtomicU32::new(0);
    static PONG: AtomicU32 = AtomicU32::new(0);
    PING.store(0, Ordering::Relaxed);
    PONG.store(0, Ordering::Relaxed);
    extern "C" fn answer(caller: u64) {
        for round in 1..=ROUNDS {
            while PING.load(Ordering::Acquire) < round {
                cpu::sti_hlt();
                cpu::cli();
            }
            PONG.store(round, Ordering::Release);
            apic::send(caller as u32, u32::from(BACK) | apic::ICR_ASSERT);
        }
    }
    smp::post(1, answer, u64::from(smp::apic_id(0)));
    for round in 1..=ROUNDS {
        PING.store(round, Ordering::Release);
        apic::send(smp::apic_id(1), u32::from(IPI) | apic::ICR_ASSERT);
        while PONG.load(Ordering::Acquire) < round {
            cpu::sti_hlt();
            cpu::cli();
        }
    }
    smp::join(1);
    cpu::take_interrupts();
    Pass
}

/// The timer is armed so that it fires about when HLT begins, at every distance.
fn timer_race() -> Verdict {
    ready();
    apic::write(apic::LVT_TIMER, u32::from(TIMER));
    for round in 1..=ROUNDS {
        apic::write(apic::TIMER_INITIAL, 1 + round % 200 * 7);
        while idt::count(TIMER) < round {
            cpu::sti_hlt();
            cpu::cli();
        }
        assert_eq!(idt::count(TIMER), round);
    }
    Pass
}

/// HLT at CPL 0 only leaves by an event, and registers survive it.
fn registers_survive() -> Verdict {
    ready();
    apic::write(apic::LVT_TIMER, u32::from(TIMER));
    apic::write(apic::TIMER_INITIAL, 50_000);
    let (a, b): (u64, u64);
    // SAFETY: the timer's handler restores every register.
    unsafe {
        asm!("movq xmm6, {0}", "sti", "hlt", "cli", "movq {1}, xmm6", inout(reg) 0x1234_5678_9abc_def0u64 => a,
             out(reg) b, out("xmm6") _);
    }
    assert_eq!((a, b), (0x1234_5678_9abc_def0, 0x1234_5678_9abc_def0));
    assert_eq!(idt::count(TIMER), 1);
    Pass
}

image!(
    "hlt",
    [
        test!(woken_by_timer, "-", woken_by_timer),
        test!(sti_shadow, "F-AP1", sti_shadow),
        test!(low_priority_does_not_wake, "-", low_priority_does_not_wake),
        test!(timer_race, "-", timer_race),
        test!(registers_survive, "-", registers_survive),
        test!(
            nmi_wakes_with_interrupts_off,
            "-",
            nmi_wakes_with_interrupts_off
        ),
        test!(ping_pong, "-", ping_pong),
    ]
);
