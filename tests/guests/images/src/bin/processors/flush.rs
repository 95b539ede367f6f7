// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Flushes: when the call returns, no VP uses a translation that was changed before it.

use crate::call::*;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest::hv::*;
use guest::paging::{self, A, D, P, RW};
use guest::{cpu, percpu, require, smp, time, Pass, Verdict};

const ALL_PROCESSORS: u64 = 1;
const ALL_SPACES: u64 = 2;
const NON_GLOBAL: u64 = 4;
const EXTENDED: u64 = 8;

/// Where the page is that moves; each test takes the next.
static NEXT_VA: AtomicU64 = AtomicU64::new(paging::WINDOW + (1 << 30));
static VA: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU32 = AtomicU32::new(0);
/// Reads of the page by each processor.
static READS: [AtomicU64; percpu::MAX_CPUS] = [const { AtomicU64::new(0) }; percpu::MAX_CPUS];
/// Reads that found a page that had been taken away.
static STALE: AtomicU32 = AtomicU32::new(0);
/// Moves of the page in each case: few, because 8 VPs may share 2 CPUs.
const ROUNDS: u64 = 6;
const POISON: u64 = 0xdead;

fn load(va: u64) -> u64 {
    // SAFETY: mapped by the test.
    unsafe { (va as *const u64).read_volatile() }
}

fn store(pa: u64, value: u64) {
    // SAFETY: an identity-mapped page of the test.
    unsafe { (pa as *mut u64).write_volatile(value) };
}

/// Reads the page all the time, with interrupts off and without an exit of its own.
extern "C" fn read(_: u64) {
    let va = VA.load(Ordering::Acquire);
    let reads = &READS[percpu::index()];
    while STOP.load(Ordering::Acquire) == 0 {
        if load(va) == POISON {
            STALE.fetch_add(1, Ordering::AcqRel);
        }
        reads.store(reads.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

/// Lets the others read a page while it is moved `rounds` times; `flush` gets the address.
fn moves(cpus: usize, rounds: u64, mut flush: impl FnMut(u64) -> u64) {
    let va = NEXT_VA.fetch_add(1 << 21, Ordering::AcqRel);
    let pages = [paging::frame(), paging::frame()];
    let slot = paging::entry(paging::root(), va, 1);
    let entry = |round: u64| pages[(round & 1) as usize] | P | RW | A | D;
    store(pages[0], 0);
    slot.store(entry(0), Ordering::Release);
    VA.store(va, Ordering::Release);
    STOP.store(0, Ordering::Release);
    STALE.store(0, Ordering::Release);
    for other in 1..cpus {
        smp::post(other, read, 0);
    }
    for round in 1..=rounds {
        let before: [u64; percpu::MAX_CPUS] =
            core::array::from_fn(|i| READS[i].load(Ordering::Acquire));
        for other in 1..cpus {
            assert!(
                time::reached(|| READS[other].load(Ordering::Acquire) != before[other]),
                "CPU {other} does not read"
            );
        }
        let _ = load(va);
        store(pages[(round & 1) as usize], round);
        slot.store(entry(round), Ordering::Release);
        assert_eq!(flush(va), SUCCESS, "round {round}");
        store(pages[(round & 1 ^ 1) as usize], POISON);
        assert_eq!(load(va), round, "the caller's own translation is old");
        // A wrong translation gets its chance.
        time::spin(2_000);
    }
    STOP.store(1, Ordering::Release);
    for other in 1..cpus {
        smp::join(other);
    }
    assert_eq!(
        STALE.load(Ordering::Acquire),
        0,
        "reads by old translations"
    );
}

fn done(cpus: usize) -> Verdict {
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    require!(cpus > 1, "one processor");
    Pass
}

pub fn space() -> Verdict {
    require!(flushes(), "no FlushVirtualAddressSpace");
    let cpus = several();
    let all = masks(cpus).iter().sum::<u64>();
    let cr3 = cpu::cr3();
    for form in FORMS {
        moves(cpus, ROUNDS, |_| call(form, FLUSH_SPACE, &[cr3, 0, all]));
        moves(cpus, ROUNDS, |_| {
            call(form, FLUSH_SPACE, &[u64::MAX, ALL_SPACES | NON_GLOBAL, all])
        });
        moves(cpus, ROUNDS, |_| {
            call(form, FLUSH_SPACE, &[cr3, ALL_PROCESSORS, 1 << 63])
        });
        // An empty mask: everybody.
        moves(cpus, ROUNDS, |_| {
            call(form, FLUSH_SPACE, &[cr3, ALL_SPACES, 0])
        });
    }
    done(cpus)
}

pub fn list() -> Verdict {
    require!(flushes(), "no FlushVirtualAddressList");
    let cpus = several();
    let all = masks(cpus).iter().sum::<u64>();
    let cr3 = cpu::cr3();
    let one = FLUSH_LIST | reps(1);
    let ok = SUCCESS | reps(1);
    let expect = |result, expected| if result == expected { SUCCESS } else { result };
    for form in FORMS {
        moves(cpus, ROUNDS, |va| {
            expect(call(form, one, &[cr3, 0, all, va]), ok)
        });
        // The page is the last of a range, longer than what is flushed one by one.
        moves(cpus, ROUNDS, |va| {
            let range = va - (40 << 12) | 40;
            expect(call(form, one, &[cr3, ALL_SPACES, all, range]), ok)
        });
        // Behind others, some of them not canonical.
        moves(cpus, ROUNDS, |va| {
            let words = [cr3, 0, all, 0, 1 << 60, 0x7000 | 3, va];
            expect(call(form, FLUSH_LIST | reps(4), &words), SUCCESS | reps(4))
        });
        if extended_ranges() {
            let flags = EXTENDED | ALL_PROCESSORS;
            moves(cpus, ROUNDS, |va| {
                let range = va - (7 << 12) | 7;
                expect(call(form, one, &[cr3, flags, 0, range]), ok)
            });
            moves(cpus, ROUNDS, |va| {
                // One large page of 2 MiB.
                let range = va & !0x1f_ffff | 1 << 11;
                expect(call(form, one, &[cr3, flags, 0, range]), ok)
            });
        }
    }
    // As many as a page holds.
    let mut words = [0x1000u64; 512];
    words[..3].copy_from_slice(&[cr3, 0, all]);
    moves(cpus, ROUNDS, |va| {
        words[511] = va;
        expect(
            call(Form::Memory, FLUSH_LIST | reps(509), &words),
            reps(509),
        )
    });
    done(cpus)
}

/// The first repetition was done before.
pub fn list_from_middle() -> Verdict {
    require!(flushes(), "no FlushVirtualAddressList");
    let cpus = several();
    let all = masks(cpus).iter().sum::<u64>();
    let cr3 = cpu::cr3();
    for form in FORMS {
        moves(cpus, ROUNDS, |va| {
            let control = FLUSH_LIST | reps(4) | 1 << 48;
            let words = [cr3, 0, all, 0, 1 << 60, 0x7000 | 3, va];
            call(form, control, &words) ^ reps(4)
        });
    }
    done(cpus)
}

pub fn sets() -> Verdict {
    require!(
        flushes() && crate::call::sets(),
        "no FlushVirtualAddressSpaceEx"
    );
    let cpus = several();
    let all = masks(cpus).iter().sum::<u64>();
    let cr3 = cpu::cr3();
    let expect = |result, expected| if result == expected { SUCCESS } else { result };
    for form in FORMS {
        moves(cpus, ROUNDS, |_| {
            call(form, FLUSH_SPACE_EX, &[cr3, 0, 1, 0])
        });
        moves(cpus, ROUNDS, |_| {
            call(form, FLUSH_SPACE_EX | header(1), &[cr3, 0, 0, 1, all])
        });
        moves(cpus, ROUNDS, |va| {
            let control = FLUSH_LIST_EX | header(2) | reps(2);
            let result = call(form, control, &[cr3, 0, 0, 1 | 1 << 40, all, 5, 0x1000, va]);
            expect(result, reps(2))
        });
    }
    done(cpus)
}

/// Two that flush each other at the same time come to an end.
pub fn each_other() -> Verdict {
    require!(flushes(), "no FlushVirtualAddressSpace");
    let cpus = several();
    extern "C" fn flush(_: u64) {
        for i in 0..500 {
            let form = FORMS[i & 1];
            assert_eq!(
                call(form, FLUSH_SPACE, &[0, ALL_PROCESSORS | ALL_SPACES, 0]),
                SUCCESS
            );
        }
    }
    for other in 1..cpus {
        smp::post(other, flush, 0);
    }
    flush(0);
    for other in 1..cpus {
        smp::join(other);
    }
    done(cpus)
}

pub fn parameters() -> Verdict {
    require!(flushes(), "no FlushVirtualAddressSpace");
    let cpus = several();
    let (mine, cr3) = (mask(0), cpu::cr3());
    let list = |form, flags| call(form, FLUSH_LIST | reps(1), &[cr3, flags, mine, 0x1000]);
    for form in FORMS {
        for flags in [8, 0x10, 1 << 31, 1 << 63] {
            assert_eq!(
                call(form, FLUSH_SPACE, &[cr3, flags, mine]),
                INVALID_PARAMETER,
                "{flags:#x}"
            );
        }
        for flags in [NON_GLOBAL, 0x10, 1 << 31, 1 << 63] {
            assert_eq!(list(form, flags), INVALID_PARAMETER, "{flags:#x}");
        }
        assert_eq!(list(form, 0), SUCCESS | reps(1));
        // CR3 cannot have it.
        assert_eq!(
            call(form, FLUSH_SPACE, &[1 << 60, 0, mine]),
            INVALID_PARAMETER
        );
        assert_eq!(
            call(form, FLUSH_SPACE, &[1 << 60, ALL_SPACES, mine]),
            SUCCESS
        );
        if crate::call::sets() {
            assert_eq!(
                call(form, FLUSH_SPACE_EX, &[cr3, 0, 2, 0]),
                INVALID_PARAMETER
            );
            assert_eq!(
                call(form, FLUSH_SPACE_EX, &[cr3, 0, 0, 1]),
                INVALID_HYPERCALL_INPUT
            );
            assert_eq!(
                call(form, FLUSH_SPACE_EX, &[cr3, 0, 0, 0]),
                SUCCESS,
                "nobody"
            );
        }
    }
    let _ = cpus;
    cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, 0);
    Pass
}
