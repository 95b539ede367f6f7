// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A random mixture of everything on all VPs at once; each step checks itself.
//!
//! The sequence follows from the VP's number alone, so that a failure comes
//! again; the interleaving does not.
#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::paging::{self, P, RW, WINDOW};
use guest::{apic, cpu, cpuid, hv, idt, image, msr, percpu, probe, smp, test, time, Pass, Verdict};

const STEPS: u32 = 5_000;
const TIMER: u8 = 0x40;
const SELF: u8 = 0x51;
const OTHER: u8 = 0x61;

static TIMERS: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];
static SELVES: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];
static OTHERS: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];
const FINISHED: u32 = u32::MAX;
/// The step that each VP is in, and its kind; or FINISHED.
static DOING: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];
static SUM: AtomicU64 = AtomicU64::new(0);
static CPUS: AtomicU32 = AtomicU32::new(1);

/// xorshift64*: enough to mix the steps.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn on_timer(_: &mut idt::Frame) {
    TIMERS[percpu::index()].fetch_add(1, Ordering::AcqRel);
    apic::eoi();
}

fn on_self(_: &mut idt::Frame) {
    SELVES[percpu::index()].fetch_add(1, Ordering::AcqRel);
    apic::eoi();
}

fn on_other(_: &mut idt::Frame) {
    OTHERS[percpu::index()].fetch_add(1, Ordering::AcqRel);
    apic::eoi();
}

/// State that must outlast every step of this VP.
fn set_up(me: usize) {
    cpu::wrmsr(msr::IA32_LSTAR, 0xffff_8000_0000_0000 + me as u64);
    cpu::wrmsr(msr::IA32_KERNEL_GS_BASE, 0x7000 + me as u64);
    cpu::set_dr0(0x4000 + me as u64);
    if cpuid::RDTSCP.present() {
        cpu::wrmsr(msr::IA32_TSC_AUX, 0x60 + me as u64);
    }
}

fn check(me: usize) {
    assert_eq!(
        cpu::rdmsr(msr::IA32_LSTAR),
        0xffff_8000_0000_0000 + me as u64,
        "LSTAR"
    );
    assert_eq!(
        cpu::rdmsr(msr::IA32_KERNEL_GS_BASE),
        0x7000 + me as u64,
        "KERNEL_GS_BASE"
    );
    assert_eq!(cpu::dr0(), 0x4000 + me as u64, "DR0");
    assert_eq!(percpu::index(), me, "GS.base");
    if cpuid::RDTSCP.present() {
        assert_eq!(cpu::rdtscp().1, 0x60 + me as u32, "TSC_AUX");
    }
}

/// All general registers and XMM0 over a CPUID or a port read.
fn registers(random: u64) {
    let (a, b, c, d, e): (u64, u64, u64, u64, u64);
    // SAFETY: only declared registers change.
    unsafe {
        asm!("movq xmm0, r8", "mov r12, rbx", "mov eax, 1", "cpuid", "mov rbx, r12",
             "mov dx, 0x3fd", "in al, dx", "movq {e}, xmm0", e = out(reg) e,
             inout("r8") random => a, inout("r9") !random => b, inout("rsi") random << 1 => c,
             inout("r15") random >> 1 => d, out("r12") _, out("rax") _, out("rcx") _, out("rdx") _, out("xmm0") _);
    }
    assert_eq!(
        (a, b, c, d, e),
        (random, !random, random << 1, random >> 1, random)
    );
}

fn pages(random: u64, me: usize) {
    let va = WINDOW + 0x2_0000_0000 + (me as u64) * 0x20_0000 + ((random & 7) << 12);
    let slot = paging::entry(paging::root(), va, 1);
    let entry = slot.load(Ordering::Acquire);
    if entry & P == 0 {
        // Memory for at most 8 pages a VP.
        paging::map(va, paging::frame(), P | RW);
    }
    // SAFETY: a page of this VP.
    assert_eq!(unsafe { probe::write(va + 8, random) }, Ok(()));
    assert_eq!(probe::read(va + 8), Ok(random));
    if random & 0x100 != 0 {
        let entry = slot.swap(0, Ordering::AcqRel);
        cpu::invlpg(va);
        assert!(probe::read(va).is_err(), "unmapped page is there");
        slot.store(entry, Ordering::Release);
        assert_eq!(probe::read(va + 8), Ok(random));
    }
}

/// Which of the steps.
fn kind(random: u64) -> u32 {
    (random >> 56) as u32 & 15
}

fn step(random: u64, me: usize) {
    let cpus = CPUS.load(Ordering::Acquire) as usize;
    match kind(random) {
        0 | 1 => registers(random),
        2 => {
            let before = SELVES[me].load(Ordering::Acquire);
            apic::send_self(SELF);
            cpu::take_interrupts();
            assert_eq!(SELVES[me].load(Ordering::Acquire), before + 1, "self-IPI");
        }
        3 => {
            let before = TIMERS[me].load(Ordering::Acquire);
            apic::write(apic::TIMER_INITIAL, 1 + random as u32 % 30_000);
            while TIMERS[me].load(Ordering::Acquire) == before {
                cpu::sti_hlt();
                cpu::cli();
            }
        }
        4 | 5 if cpus > 1 => {
            let target = (me + 1 + random as usize % (cpus - 1)) % cpus;
            apic::send(smp::apic_id(target), u32::from(OTHER) | apic::ICR_ASSERT);
        }
        6 => pages(random, me),
        7 => {
            SUM.fetch_add(random & 0xffff, Ordering::AcqRel);
            SUM.fetch_sub(random & 0xffff, Ordering::AcqRel);
        }
        8 => cpu::set_cr3(cpu::cr3()),
        9 => {
            cpu::set_cr8(random & 7);
            assert_eq!(cpu::cr8(), random & 7, "CR8");
            cpu::set_cr8(0);
        }
        10 => {
            let (a, b) = (cpu::rdtsc(), cpu::rdtsc());
            assert!(b >= a, "TSC {b} after {a}");
        }
        11 => {
            assert!(probe::rdmsr(0x1234).is_err() || hv::tcg(), "MSR 0x1234");
        }
        12 => {
            let _ = core::hint::black_box(cpu::inb(0x3fd));
            cpu::outb(0x80, random as u8);
        }
        13 if hv::privilege(hv::ACCESS_VP_INDEX) => {
            let _ = core::hint::black_box(cpu::rdmsr(hv::HV_X64_MSR_VP_INDEX));
        }
        14 => {
            cpu::set_cr0(cpu::cr0() ^ cpu::CR0_AM);
            cpu::set_cr4(cpu::cr4() ^ cpu::CR4_PGE);
        }
        _ => cpu::take_interrupts(),
    }
}

extern "C" fn work(seed: u64) {
    let me = percpu::index();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    apic::write(apic::LVT_TIMER, u32::from(TIMER));
    set_up(me);
    for n in 0..STEPS {
        let random = random.next();
        DOING[me].store(n << 4 | kind(random), Ordering::Release);
        step(random, me);
        if n % 16 == 0 {
            check(me);
        }
    }
    check(me);
    apic::write(apic::TIMER_INITIAL, 0);
    DOING[me].store(FINISHED, Ordering::Release);
    // IPIs may still be on their way to here.
    cpu::sti();
    let _ = time::reached(|| unfinished().is_none());
    time::spin(1_000_000);
    cpu::cli();
    if let Some((vp, doing)) = unfinished() {
        panic!("VP {vp} is in step {}, kind {}", doing >> 4, doing & 15);
    }
    cpu::set_cr0(cpu::cr0() & !cpu::CR0_AM);
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_PGE);
}

/// A VP that has not finished, and what it does.
fn unfinished() -> Option<(usize, u32)> {
    let cpus = CPUS.load(Ordering::Acquire) as usize;
    let doing = DOING.iter().map(|d| d.load(Ordering::Acquire));
    doing.take(cpus).enumerate().find(|(_, d)| *d != FINISHED)
}

fn mixture(seed: u64) -> Verdict {
    apic::init_best();
    let cpus = smp::start();
    CPUS.store(cpus as u32, Ordering::Release);
    for doing in &DOING {
        doing.store(0, Ordering::Release);
    }
    SUM.store(0, Ordering::Release);
    idt::hook(TIMER, on_timer);
    idt::hook(SELF, on_self);
    idt::hook(OTHER, on_other);
    for other in 1..cpus {
        smp::post(other, work, seed + other as u64);
    }
    work(seed);
    for other in 1..cpus {
        smp::join(other);
    }
    assert_eq!(SUM.load(Ordering::Acquire), 0, "atomics");
    let received: u32 = OTHERS.iter().map(|n| n.load(Ordering::Acquire)).sum();
    assert!(cpus == 1 || received > 0, "no IPI arrived");
    Pass
}

image!(
    "stress",
    [
        test!(mixture_1, "-", || mixture(1)),
        test!(mixture_2, "-", || mixture(1000)),
        test!(mixture_3, "-", || mixture(2000)),
    ]
);
