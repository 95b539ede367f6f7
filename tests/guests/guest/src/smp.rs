// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Starting the other processors and running functions on them.

use crate::percpu::{self, Cpu, MAX_CPUS};
use crate::{apic, cpu, idt, time};
use core::mem::transmute;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Where the real-mode trampoline is copied: start-up vector 8.
pub const TRAMPOLINE: u64 = 0x8000;

extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
    static ap_next: AtomicU32;
}

static ARRIVED: AtomicU32 = AtomicU32::new(0);
static STARTED: AtomicBool = AtomicBool::new(false);

const IDLE: u32 = 0;
const POSTED: u32 = 1;
const DONE: u32 = 2;
const FAILED: u32 = 3;

/// Vector that tells a processor of a job; its handler only acknowledges it.
pub const WAKE: u8 = 0xfd;

/// Rounds that an idle processor spins before it waits in HLT, which frees the
/// host's CPU for the others where there are fewer CPUs than VPs.
const IDLE_ROUNDS: u32 = 1000;

/// A function that runs on another processor.
pub type Job = extern "C" fn(u64);

/// Starts all other processors once; the number of processors, this one included.
pub fn start() -> usize {
    if !STARTED.swap(true, Ordering::AcqRel) {
        restart();
    }
    count()
}

/// Processors that run.
pub fn count() -> usize {
    1 + ARRIVED.load(Ordering::Acquire) as usize
}

/// Whether a processor is at a job: with interrupts on or off, it may never end it once its test is over.
pub(crate) fn busy() -> bool {
    (1..count()).any(|index| ap(index).job_state.load(Ordering::Acquire) == POSTED)
}

/// Sends INIT, start-up, start-up to all others, and waits until no more arrive.
pub fn restart() {
    apic::init_best();
    // SAFETY: RAM below 1 MiB is free, and the trampoline fits in its page.
    unsafe {
        let length = addr_of!(ap_trampoline_end) as usize - addr_of!(ap_trampoline) as usize;
        core::ptr::copy_nonoverlapping(addr_of!(ap_trampoline), TRAMPOLINE as *mut u8, length);
        ap_next.store(1, Ordering::Release);
    }
    ARRIVED.store(0, Ordering::Release);
    apic::send(0, apic::ICR_OTHERS | apic::ICR_INIT | apic::ICR_ASSERT);
    time::spin(2_000_000);
    for _ in 0..2 {
        apic::send(
            0,
            apic::ICR_OTHERS | apic::ICR_STARTUP | apic::ICR_ASSERT | (TRAMPOLINE >> 12) as u32,
        );
        settle();
    }
}

/// Waits until nobody has arrived for a while.
fn settle() {
    let mut seen = u32::MAX;
    while seen != ARRIVED.load(Ordering::Acquire) {
        seen = ARRIVED.load(Ordering::Acquire);
        time::spin(30_000_000);
    }
}

pub(crate) fn ap_main() -> ! {
    let this = percpu::this();
    this.job_state.store(IDLE, Ordering::Release);
    apic::init_best();
    ARRIVED.fetch_add(1, Ordering::AcqRel);
    loop {
        let mut rounds = 0;
        while this.job_state.load(Ordering::Acquire) != POSTED {
            cpu::pause();
            rounds += 1;
            if rounds > IDLE_ROUNDS {
                cpu::sti_hlt();
                cpu::cli();
            }
        }
        // SAFETY: `post` stored a `Job`.
        let job = unsafe { transmute::<usize, Job>(this.job.load(Ordering::Relaxed)) };
        let outcome = idt::guarded(job, this.job_arg.load(Ordering::Relaxed));
        cpu::cli();
        let state = if outcome == idt::Outcome::Returned {
            DONE
        } else {
            FAILED
        };
        this.job_state.store(state, Ordering::Release);
    }
}

fn ap(index: usize) -> &'static Cpu {
    assert!(
        index > 0 && index < count() && index < MAX_CPUS,
        "no CPU {index}"
    );
    percpu::by_index(index)
}

/// Starts `job(arg)` on another processor without waiting.
pub fn post(index: usize, job: Job, arg: u64) {
    let cpu = ap(index);
    assert!(
        time::reached(|| cpu.job_state.load(Ordering::Acquire) != POSTED),
        "CPU {index} is still busy"
    );
    cpu.job.store(job as usize, Ordering::Relaxed);
    cpu.job_arg.store(arg, Ordering::Relaxed);
    cpu.job_state.store(POSTED, Ordering::Release);
    apic::send(apic_id(index), u32::from(WAKE) | apic::ICR_ASSERT);
}

/// Waits for the job posted last on a processor.
pub fn join(index: usize) {
    let cpu = ap(index);
    let done = time::reached(|| matches!(cpu.job_state.load(Ordering::Acquire), DONE | FAILED));
    assert!(done, "CPU {index} did not finish");
    assert!(
        cpu.job_state.load(Ordering::Acquire) == DONE,
        "failed on CPU {index}"
    );
}

/// Runs `job(arg)` on another processor and waits.
pub fn on(index: usize, job: Job, arg: u64) {
    post(index, job, arg);
    join(index);
}

/// APIC id of a processor.
pub fn apic_id(index: usize) -> u32 {
    percpu::by_index(index).apic_id.load(Ordering::Acquire)
}
