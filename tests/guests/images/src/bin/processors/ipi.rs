// SPDX-License-Identifier: GPL-2.0 OR MIT
//! HvCallSendSyntheticClusterIpi and its Ex form: who gets what, and what is refused.

use crate::call::*;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::hv::*;
use guest::{apic, cpu, idt, percpu, require, smp, time, Pass, Verdict};

const VECTOR: u8 = 0x71;
static RECEIVED: [AtomicU32; percpu::MAX_CPUS] = [const { AtomicU32::new(0) }; percpu::MAX_CPUS];
static STOP: AtomicU32 = AtomicU32::new(0);

fn receive(_: &mut idt::Frame) {
    RECEIVED[percpu::index()].fetch_add(1, Ordering::AcqRel);
    apic::eoi();
}

extern "C" fn listen(_: u64) {
    cpu::sti();
    while STOP.load(Ordering::Acquire) == 0 {
        cpu::pause();
    }
    cpu::cli();
}

extern "C" fn halt(_: u64) {
    while STOP.load(Ordering::Acquire) == 0 {
        cpu::sti_hlt();
    }
    cpu::cli();
}

fn received(cpu: usize) -> u32 {
    RECEIVED[cpu].load(Ordering::Acquire)
}

fn listeners(cpus: usize, job: smp::Job) {
    for counter in &RECEIVED {
        counter.store(0, Ordering::Release);
    }
    STOP.store(0, Ordering::Release);
    idt::hook(VECTOR, receive);
    for other in 1..cpus {
        smp::post(other, job, 0);
    }
}

fn end(cpus: usize) {
    STOP.store(1, Ordering::Release);
    for other in 1..cpus {
        apic::send(smp::apic_id(other), u32::from(smp::WAKE) | apic::ICR_ASSERT);
        smp::join(other);
    }
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
}

/// Sends by `send` to the processors of `targets` (bits by number), and checks that exactly these get one each.
fn exactly(cpus: usize, targets: u32, mut send: impl FnMut() -> u64) {
    let before: [u32; percpu::MAX_CPUS] = core::array::from_fn(received);
    assert_eq!(send(), SUCCESS);
    cpu::take_interrupts();
    let expected: [u32; percpu::MAX_CPUS] =
        core::array::from_fn(|cpu| before[cpu] + u32::from(cpu < 32 && targets >> cpu & 1 != 0));
    let all_came = || (0..cpus).all(|cpu| received(cpu) == expected[cpu]);
    let _ = time::reached(all_came);
    time::spin(20_000);
    cpu::take_interrupts();
    for (cpu, &expected) in expected.iter().enumerate().take(cpus) {
        assert_eq!(received(cpu), expected, "CPU {cpu} of {targets:#x}");
    }
}

pub fn to_each() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    let cpus = several();
    let masks = masks(cpus);
    listeners(cpus, listen);
    for form in FORMS {
        for (cpu, mask) in masks.iter().enumerate().take(cpus) {
            exactly(cpus, 1 << cpu, || {
                call(form, SEND_IPI, &[u64::from(VECTOR), *mask])
            });
        }
        // Nobody, and VPs that do not exist.
        exactly(cpus, 0, || call(form, SEND_IPI, &[u64::from(VECTOR), 0]));
        exactly(cpus, 0, || {
            call(form, SEND_IPI, &[u64::from(VECTOR), 1 << 63])
        });
    }
    end(cpus);
    Pass
}

/// The three bytes behind the vector and its level are ignored.
pub fn padding() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    let cpus = several();
    let mine = mask(0);
    listeners(cpus, listen);
    for form in FORMS {
        let padded = u64::from(VECTOR) | 0xffff_ff00 << 32;
        exactly(cpus, 1, || call(form, SEND_IPI, &[padded, mine]));
    }
    end(cpus);
    Pass
}

pub fn to_all() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    let cpus = several();
    listeners(cpus, listen);
    for form in FORMS {
        exactly(cpus, (1 << cpus) - 1, || {
            call(form, SEND_IPI, &[u64::from(VECTOR), u64::MAX])
        });
    }
    end(cpus);
    Pass
}

pub fn to_sets() -> Verdict {
    require!(ipis() && sets(), "no SendSyntheticClusterIpiEx");
    let cpus = several();
    let masks = masks(cpus);
    let everybody = (1 << cpus) - 1;
    let v = u64::from(VECTOR);
    listeners(cpus, listen);
    for form in FORMS {
        exactly(cpus, everybody, || call(form, SEND_IPI_EX, &[v, 1, 0]));
        for (cpu, mask) in masks.iter().enumerate().take(cpus) {
            exactly(cpus, 1 << cpu, || {
                call(form, SEND_IPI_EX | header(1), &[v, 0, 1, *mask])
            });
            // Banks beyond exist in the set only; the first one is the first word whatever follows.
            exactly(cpus, 1 << cpu, || {
                call(
                    form,
                    SEND_IPI_EX | header(3),
                    &[v, 0, 1 | 1 << 7 | 1 << 63, *mask, u64::MAX, u64::MAX],
                )
            });
        }
        // Bank 0 is not in the set, empty banks are legal.
        exactly(cpus, 0, || {
            call(form, SEND_IPI_EX | header(1), &[v, 0, 2, u64::MAX])
        });
        exactly(cpus, 0, || {
            call(form, SEND_IPI_EX | header(1), &[v, 0, 1, 0])
        });
        exactly(cpus, 0, || call(form, SEND_IPI_EX, &[v, 0, 0]));
    }
    // All 64 banks.
    let mut words = [u64::MAX; 67];
    words[..3].copy_from_slice(&[v, 0, u64::MAX]);
    exactly(cpus, everybody, || {
        call(Form::Memory, SEND_IPI_EX | header(64), &words)
    });
    end(cpus);
    Pass
}

pub fn to_halted() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    let cpus = several();
    require!(cpus > 1, "one processor");
    let masks = masks(cpus);
    listeners(cpus, halt);
    for _ in 0..20 {
        time::spin(50_000);
        for (cpu, &mask) in masks.iter().enumerate().take(cpus).skip(1) {
            exactly(cpus, 1 << cpu, || {
                call(Form::Fast, SEND_IPI, &[u64::from(VECTOR), mask])
            });
        }
    }
    end(cpus);
    Pass
}

/// Everyone sends to the next, who answers by receiving: none is lost.
pub fn storm() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    const ROUNDS: u32 = 200;
    let cpus = several();
    require!(cpus > 1, "one processor");
    static MASKS: [AtomicU64; percpu::MAX_CPUS] = [const { AtomicU64::new(0) }; percpu::MAX_CPUS];
    for (to, mask) in MASKS.iter().zip(masks(cpus)) {
        to.store(mask, Ordering::Release);
    }
    extern "C" fn send(cpus: u64) {
        let me = percpu::index();
        let target = (me + 1) % cpus as usize;
        let mask = MASKS[target].load(Ordering::Acquire);
        cpu::sti();
        for round in 0..ROUNDS {
            let form = FORMS[(round & 1) as usize];
            assert_eq!(call(form, SEND_IPI, &[u64::from(VECTOR), mask]), SUCCESS);
            assert!(
                time::reached(|| received(target) > round),
                "IPI {round} to CPU {target} was lost"
            );
        }
        assert!(time::reached(|| received(me) == ROUNDS));
        cpu::cli();
    }
    for counter in &RECEIVED {
        counter.store(0, Ordering::Release);
    }
    idt::hook(VECTOR, receive);
    for other in 1..cpus {
        smp::post(other, send, cpus as u64);
    }
    send(cpus as u64);
    for other in 1..cpus {
        smp::join(other);
    }
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}

pub fn parameters() -> Verdict {
    require!(ipis(), "no SendSyntheticClusterIpi");
    several();
    let mine = mask(0);
    for form in FORMS {
        for vector in [0, 1, 0xf, 0x100, 0x171, 0x1_0071, 0x8000_0071, 0xffff_ffff] {
            assert_eq!(
                call(form, SEND_IPI, &[vector, mine]),
                INVALID_PARAMETER,
                "{form:?} {vector:#x}"
            );
        }
        for vtl in [1, 0xf, 0x10] {
            // Without "use target" the level does not matter; 0 is there.
            assert_eq!(
                call(form, SEND_IPI, &[u64::from(VECTOR) | vtl << 32, 0]),
                SUCCESS
            );
        }
        for vtl in [0x11, 0x1f, 0x20, 0x80] {
            let word = u64::from(VECTOR) | vtl << 32;
            assert_eq!(
                call(form, SEND_IPI, &[word, mine]),
                INVALID_PARAMETER,
                "{form:?} VTL {vtl:#x}"
            );
        }
        if sets() {
            let v = u64::from(VECTOR);
            assert_eq!(call(form, SEND_IPI_EX, &[v, 2, 0]), INVALID_PARAMETER);
            assert_eq!(
                call(form, SEND_IPI_EX | header(1), &[0xf, 0, 1, mine]),
                INVALID_PARAMETER
            );
            // The header has another size than the set.
            assert_eq!(call(form, SEND_IPI_EX, &[v, 0, 1]), INVALID_HYPERCALL_INPUT);
            assert_eq!(
                call(form, SEND_IPI_EX | header(2), &[v, 0, 1, mine, 0]),
                INVALID_HYPERCALL_INPUT
            );
        }
    }
    assert!(
        !apic::vector_bit(apic::IRR, VECTOR),
        "a refused call sent something"
    );
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}
