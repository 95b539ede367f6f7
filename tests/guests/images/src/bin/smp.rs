// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Several processors: INIT and start-up, IPIs between all, what is whose.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::{apic, cpu, hv, idt, image, msr, percpu, require, smp, test, time, Pass, Verdict};

fn several() -> usize {
    apic::init_best();
    smp::start()
}

/// All of them come, each once.
fn start_up() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    let mut ids = [u32::MAX; percpu::MAX_CPUS];
    for (index, id) in ids.iter_mut().enumerate().take(cpus) {
        *id = smp::apic_id(index);
    }
    for index in 0..cpus {
        assert!(
            !ids[..index].contains(&ids[index]),
            "APIC ids {:x?}",
            &ids[..cpus]
        );
    }
    guest::say!("# {cpus} processors, APIC ids {:x?}", &ids[..cpus]);
    Pass
}

/// Only the first is the bootstrap processor.
fn bsp_flag() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    static BSPS: AtomicU32 = AtomicU32::new(0);
    BSPS.store(0, Ordering::Release);
    extern "C" fn look(_: u64) {
        if cpu::rdmsr(msr::IA32_APIC_BASE) & msr::APIC_BASE_BSP != 0 {
            BSPS.fetch_or(1 << percpu::index(), Ordering::AcqRel);
        }
    }
    look(0);
    for other in 1..cpus {
        smp::on(other, look, 0);
    }
    assert_eq!(BSPS.load(Ordering::Acquire), 1);
    Pass
}

/// INIT resets a running processor, and it starts again: control registers and APIC are as at power-on.
fn init_again() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    extern "C" fn spoil(_: u64) {
        cpu::set_cr8(9);
        cpu::set_dr0(0x1234);
        apic::write(apic::LVT_TIMER, 0x40);
        apic::write(apic::TIMER_INITIAL, u32::MAX);
    }
    extern "C" fn look(_: u64) {
        assert_eq!((cpu::cr8(), cpu::dr0()), (0, 0), "CR8, DR0 after INIT");
        assert_eq!(apic::read(apic::TIMER_CURRENT), 0, "APIC timer after INIT");
    }
    for _ in 0..5 {
        for other in 1..cpus {
            smp::on(other, spoil, 0);
        }
        smp::restart();
        assert_eq!(smp::count(), cpus, "some did not come back");
        for other in 1..cpus {
            smp::on(other, look, 0);
        }
    }
    Pass
}

/// A halted processor takes INIT as well.
fn init_out_of_hlt() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    extern "C" fn halt(_: u64) {
        cpu::halt_forever();
    }
    for other in 1..cpus {
        smp::post(other, halt, 0);
    }
    time::spin(2_000_000);
    smp::restart();
    assert_eq!(smp::count(), cpus, "some did not come back");
    Pass
}

/// A start-up IPI to a running processor is ignored.
fn startup_ignored() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    let before = smp::count();
    for _ in 0..3 {
        let low = apic::ICR_STARTUP | apic::ICR_ASSERT | (smp::TRAMPOLINE >> 12) as u32;
        apic::send(smp::apic_id(1), low);
    }
    time::spin(5_000_000);
    assert_eq!(smp::count(), before);
    extern "C" fn nothing(_: u64) {}
    smp::on(1, nothing, 0);
    Pass
}

const IPI: u8 = 0x61;
static RECEIVED: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];
static CPUS: AtomicU32 = AtomicU32::new(0);
const ROUNDS: u32 = 100;

fn receive(_: &mut idt::Frame) {
    RECEIVED[percpu::index()].fetch_add(1, Ordering::AcqRel);
    apic::eoi();
}

/// Everyone sends to everyone, one at a time to each: none is lost, none comes twice.
fn all_to_all() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    for counter in &RECEIVED {
        counter.store(0, Ordering::Release);
    }
    CPUS.store(cpus as u32, Ordering::Release);
    idt::hook(IPI, receive);
    extern "C" fn send(_: u64) {
        let (me, cpus) = (percpu::index(), CPUS.load(Ordering::Acquire) as usize);
        cpu::sti();
        for round in 0..ROUNDS {
            // In each round CPU n sends to CPU n+1: each has one sender, so no two merge.
            let target = (me + 1) % cpus;
            apic::send(smp::apic_id(target), u32::from(IPI) | apic::ICR_ASSERT);
            let arrived = time::reached(|| RECEIVED[target].load(Ordering::Acquire) > round);
            assert!(arrived, "IPI {round} to CPU {target} was lost");
        }
        // Stay until the own ones came as well.
        assert!(time::reached(
            || RECEIVED[me].load(Ordering::Acquire) == ROUNDS
        ));
        cpu::cli();
    }
    for other in 1..cpus {
        smp::post(other, send, 0);
    }
    send(0);
    for other in 1..cpus {
        smp::join(other);
    }
    time::spin(100_000);
    for (index, counter) in RECEIVED.iter().enumerate().take(cpus) {
        assert_eq!(counter.load(Ordering::Acquire), ROUNDS, "on CPU {index}");
    }
    Pass
}

/// Different vectors sent at once all arrive, the higher first.
fn many_vectors() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    static ORDER: AtomicU64 = AtomicU64::new(0);
    ORDER.store(0, Ordering::Release);
    fn note(frame: &mut idt::Frame) {
        let old = ORDER.load(Ordering::Acquire);
        ORDER.store(old << 8 | frame.vector, Ordering::Release);
        apic::eoi();
    }
    for vector in [0x41, 0x52, 0x63, 0x74, 0x85, 0x96, 0xa7, 0xb8] {
        idt::hook(vector, note);
    }
    static STATE: AtomicU32 = AtomicU32::new(0);
    STATE.store(0, Ordering::Release);
    extern "C" fn wait(_: u64) {
        STATE.store(1, Ordering::Release); // interrupts off: from here on all wait in IRR
        assert!(time::reached(|| STATE.load(Ordering::Acquire) == 2));
        assert!(time::reached(|| apic::vector_bit(apic::IRR, 0xb8)));
        cpu::take_interrupts();
    }
    smp::post(1, wait, 0);
    assert!(time::reached(|| STATE.load(Ordering::Acquire) == 1));
    for vector in [0x63u32, 0x41, 0x96, 0x74, 0x52, 0xa7, 0x85, 0xb8] {
        apic::send(smp::apic_id(1), vector | apic::ICR_ASSERT);
    }
    STATE.store(2, Ordering::Release);
    smp::join(1);
    assert_eq!(ORDER.load(Ordering::Acquire), 0xb8a7_9685_7463_5241);
    Pass
}

/// NMIs to another processor arrive in a loop with interrupts off.
fn nmi_to_others() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.store(0, Ordering::Release);
    idt::hook(idt::NMI, |_| {
        COUNT.fetch_add(1, Ordering::AcqRel);
    });
    extern "C" fn wait(wanted: u64) {
        assert!(
            time::reached(|| u64::from(COUNT.load(Ordering::Acquire)) >= wanted),
            "no NMI"
        );
    }
    smp::post(1, wait, 50);
    for round in 1..=50 {
        apic::send(smp::apic_id(1), apic::ICR_NMI | apic::ICR_ASSERT);
        assert!(
            time::reached(|| COUNT.load(Ordering::Acquire) == round),
            "NMI {round}"
        );
    }
    smp::join(1);
    Pass
}

/// Memory is one: atomic additions of all processors sum up.
fn atomics() -> Verdict {
    let cpus = several();
    require!(cpus > 1, "one processor");
    static SUM: AtomicU64 = AtomicU64::new(0);
    const EACH: u64 = 100_000;
    SUM.store(0, Ordering::Release);
    extern "C" fn add(_: u64) {
        for _ in 0..EACH {
            SUM.fetch_add(1, Ordering::Relaxed);
        }
    }
    for other in 1..cpus {
        smp::post(other, add, 0);
    }
    add(0);
    for other in 1..cpus {
        smp::join(other);
    }
    assert_eq!(SUM.load(Ordering::Acquire), EACH * cpus as u64);
    Pass
}

/// A page mapped, used, unmapped by INVLPG on all: no processor sees it afterwards.
fn shootdown() -> Verdict {
    use guest::{paging, probe};
    let cpus = several();
    require!(cpus > 1, "one processor");
    const VA: u64 = paging::WINDOW + 0x40_0000;
    let pages = [paging::frame(), paging::frame()];
    for (i, page) in pages.iter().enumerate() {
        // SAFETY: pages of this test.
        unsafe { (*page as *mut u64).write_volatile(i as u64 + 100) };
    }
    extern "C" fn look(wanted: u64) {
        cpu::invlpg(VA);
        assert_eq!(probe::read(VA), Ok(wanted));
    }
    extern "C" fn gone(_: u64) {
        cpu::invlpg(VA);
        assert!(probe::read(VA).is_err(), "still mapped");
    }
    for round in 0..50 {
        paging::map(VA, pages[round % 2], paging::P | paging::RW);
        for other in 1..cpus {
            smp::on(other, look, round as u64 % 2 + 100);
        }
        paging::unmap(VA);
        for other in 1..cpus {
            smp::on(other, gone, 0);
        }
    }
    Pass
}

/// VP_INDEX differs from VP to VP, and survives INIT.
fn vp_index() -> Verdict {
    require!(hv::privilege(hv::ACCESS_VP_INDEX), "no VP_INDEX");
    let cpus = several();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    extern "C" fn look(_: u64) {
        SEEN.fetch_or(1 << cpu::rdmsr(hv::HV_X64_MSR_VP_INDEX), Ordering::AcqRel);
    }
    let round = || {
        SEEN.store(0, Ordering::Release);
        look(0);
        for other in 1..cpus {
            smp::on(other, look, 0);
        }
        SEEN.load(Ordering::Acquire)
    };
    let before = round();
    assert_eq!(before.count_ones() as usize, cpus);
    smp::restart();
    assert_eq!(round(), before);
    Pass
}

image!(
    "smp",
    [
        test!(start_up, "-", start_up),
        test!(bsp_flag, "-", bsp_flag),
        test!(all_to_all, "-", all_to_all),
        test!(many_vectors, "-", many_vectors),
        test!(nmi_to_others, "-", nmi_to_others),
        test!(atomics, "-", atomics),
        test!(shootdown, "-", shootdown),
        test!(startup_ignored, "-", startup_ignored),
        test!(init_again, "-", init_again),
        test!(init_out_of_hlt, "-", init_out_of_hlt),
        test!(vp_index, "M-02", vp_index),
    ]
);
