// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Hypercalls with their input in memory or in registers.

use core::sync::atomic::{AtomicU64, Ordering};
use guest::hv::{self, FAST_WORDS};
use guest::{apic, cpu, cpuid, paging, percpu, smp};

pub const FLUSH_SPACE: u64 = 0x02;
pub const FLUSH_LIST: u64 = 0x03;
pub const SEND_IPI: u64 = 0x0b;
pub const FLUSH_SPACE_EX: u64 = 0x13;
pub const FLUSH_LIST_EX: u64 = 0x14;
pub const SEND_IPI_EX: u64 = 0x15;

pub const FAST: u64 = 1 << 16;

/// A list of `count` elements.
pub fn reps(count: usize) -> u64 {
    (count as u64) << 32
}

/// `count` words of variable header.
pub fn header(count: usize) -> u64 {
    (count as u64) << 17
}

/// Where the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Memory,
    Fast,
}

pub const FORMS: [Form; 2] = [Form::Memory, Form::Fast];

/// Each processor's page for input.
fn page() -> u64 {
    static PAGES: [AtomicU64; percpu::MAX_CPUS] = [const { AtomicU64::new(0) }; percpu::MAX_CPUS];
    let slot = &PAGES[percpu::index()];
    if slot.load(Ordering::Acquire) == 0 {
        slot.store(paging::frame(), Ordering::Release);
    }
    slot.load(Ordering::Acquire)
}

/// Makes the call and returns RAX.
pub fn call(form: Form, control: u64, words: &[u64]) -> u64 {
    if form == Form::Fast {
        let mut input = [0; FAST_WORDS];
        input[..words.len()].copy_from_slice(words);
        return hv::vmcall_fast(control | FAST, &input).expect("VMCALL");
    }
    // At the end of the page, so that nothing behind the input is looked at.
    let at = page() + 4096 - 8 * words.len() as u64;
    for (i, word) in words.iter().enumerate() {
        // SAFETY: this processor's page.
        unsafe { ((at + 8 * i as u64) as *mut u64).write_volatile(*word) };
    }
    hv::vmcall(control, at, 0).expect("VMCALL")
}

fn recommended(bit: u32) -> bool {
    hv::present() && cpuid::leaf(0x4000_0004).eax >> bit & 1 != 0
}

pub fn ipis() -> bool {
    recommended(10)
}

pub fn flushes() -> bool {
    recommended(2)
}

pub fn sets() -> bool {
    recommended(11)
}

pub fn extended_ranges() -> bool {
    hv::present() && cpuid::leaf(0x4000_0003).edx >> 14 & 1 != 0
}

/// Starts everybody; how many there are. The guest has told its identity.
pub fn several() -> usize {
    apic::init_best();
    let cpus = smp::start();
    cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    cpus
}

/// VP index of a processor.
pub fn vp_index(cpu: usize) -> u64 {
    static INDEX: AtomicU64 = AtomicU64::new(0);
    extern "C" fn read(_: u64) {
        INDEX.store(cpu::rdmsr(hv::HV_X64_MSR_VP_INDEX), Ordering::Release);
    }
    if cpu == percpu::index() {
        read(0);
    } else {
        smp::on(cpu, read, 0);
    }
    INDEX.load(Ordering::Acquire)
}

/// The mask of a processor.
pub fn mask(cpu: usize) -> u64 {
    1 << vp_index(cpu)
}

/// The masks of all processors.
pub fn masks(cpus: usize) -> [u64; percpu::MAX_CPUS] {
    let mut masks = [0; percpu::MAX_CPUS];
    for (cpu, to) in masks.iter_mut().enumerate().take(cpus) {
        *to = mask(cpu);
    }
    masks
}
