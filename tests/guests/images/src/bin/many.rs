// SPDX-License-Identifier: GPL-2.0 OR MIT
//! More VPs than one bank of a VP set has.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::percpu::MAX_CPUS;
use guest::{apic, cpu, hv, idt, image, paging, percpu, require, smp, test, time, Pass, Verdict};

const VECTOR: u8 = 0x71;
const FLUSH_SPACE_EX: u64 = 0x13;
const SEND_IPI_EX: u64 = 0x15;
/// Formats of a VP set.
const SPARSE: u64 = 0;
const ALL: u64 = 1;
/// HV_FLUSH_ALL_VIRTUAL_ADDRESS_SPACES.
const ALL_SPACES: u64 = 1 << 1;

static RECEIVED: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
static INDEXES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Starts everybody, who notes its VP index and waits in HLT.
fn start() -> usize {
    extern "C" fn note(_: u64) {
        INDEXES[percpu::index()].store(cpu::rdmsr(hv::HV_X64_MSR_VP_INDEX), Ordering::Release);
    }
    apic::init_best();
    let cpus = smp::start();
    if cpus > 64 {
        idt::hook(VECTOR, |_| {
            RECEIVED[percpu::index()].fetch_add(1, Ordering::AcqRel);
            apic::eoi();
        });
        note(0);
        (1..cpus).for_each(|cpu| smp::on(cpu, note, 0));
        cpu::wrmsr(hv::HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
    }
    cpus
}

fn index(cpu: usize) -> u64 {
    INDEXES[cpu].load(Ordering::Acquire)
}

/// By `send`, each processor gets as many interrupts as `expected` says.
fn gets(cpus: usize, expected: impl Fn(usize) -> u32, send: impl FnOnce()) {
    RECEIVED.iter().for_each(|r| r.store(0, Ordering::Release));
    send();
    cpu::take_interrupts();
    let right = |cpu: usize| RECEIVED[cpu].load(Ordering::Acquire) == expected(cpu);
    let _ = time::reached(|| (0..cpus).all(right));
    time::spin(20_000);
    if let Some(wrong) = (0..cpus).find(|cpu| !right(*cpu)) {
        panic!(
            "VP {}: {} interrupts for {}",
            index(wrong),
            RECEIVED[wrong].load(Ordering::Acquire),
            expected(wrong)
        );
    }
}

fn call(control: u64, words: &[u64]) -> u64 {
    static PAGE: AtomicU64 = AtomicU64::new(0);
    if PAGE.load(Ordering::Acquire) == 0 {
        PAGE.store(paging::frame(), Ordering::Release);
    }
    let page = PAGE.load(Ordering::Acquire);
    for (i, word) in words.iter().enumerate() {
        // SAFETY: this image's page.
        unsafe { ((page + 8 * i as u64) as *mut u64).write_volatile(*word) };
    }
    hv::vmcall(control, page, 0).expect("VMCALL")
}

fn indexes() -> Verdict {
    let cpus = start();
    require!(cpus > 64, "64 processors or less");
    guest::say!("# {cpus} processors");
    for cpu in 0..cpus {
        assert!(index(cpu) < cpus as u64, "VP index {}", index(cpu));
        assert!((0..cpu).all(|other| index(other) != index(cpu)));
    }
    Pass
}

fn by_apic() -> Verdict {
    let cpus = start();
    require!(cpus > 64, "64 processors or less");
    for target in 0..cpus {
        let icr = u32::from(VECTOR) | apic::ICR_ASSERT;
        gets(
            cpus,
            |cpu| u32::from(cpu == target),
            || apic::send(smp::apic_id(target), icr),
        );
    }
    Pass
}

fn by_set() -> Verdict {
    let cpus = start();
    require!(cpus > 64, "64 processors or less");
    for target in 0..cpus {
        let (bank, bit) = (index(target) / 64, index(target) % 64);
        let set = [u64::from(VECTOR), SPARSE, 1 << bank, 1 << bit];
        gets(
            cpus,
            |cpu| u32::from(cpu == target),
            || assert_eq!(call(SEND_IPI_EX | 1 << 17, &set), 0),
        );
    }
    // Both banks in part, and one that has no VP.
    let set = [
        u64::from(VECTOR),
        SPARSE,
        1 << 40 | 0b11,
        0xf0,
        0xf,
        u64::MAX,
    ];
    gets(
        cpus,
        |cpu| u32::from((4..8).contains(&index(cpu)) || (64..68).contains(&index(cpu))),
        || assert_eq!(call(SEND_IPI_EX | 3 << 17, &set), 0),
    );
    let all = [u64::from(VECTOR), ALL, 0];
    gets(cpus, |_| 1, || assert_eq!(call(SEND_IPI_EX, &all), 0));
    Pass
}

fn flush() -> Verdict {
    let cpus = start();
    require!(cpus > 64, "64 processors or less");
    assert_eq!(call(FLUSH_SPACE_EX, &[0, ALL_SPACES, ALL, 0]), 0);
    let second = [0, ALL_SPACES, SPARSE, 0b10, u64::MAX];
    assert_eq!(call(FLUSH_SPACE_EX | 1 << 17, &second), 0);
    Pass
}

image!(
    "many",
    [
        test!(indexes, "M-02", indexes),
        test!(by_apic, "-", by_apic),
        test!(by_set, "H-15", by_set),
        test!(flush, "H-13", flush),
    ]
);
