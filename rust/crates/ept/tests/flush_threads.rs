// SPDX-License-Identifier: GPL-2.0 OR MIT

//! [`ept::flush`] against [`ept::GuestMode`] on real threads: the order of memory accesses, which
//! the oracle, one step at a time, cannot see.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use ept::{flush, GuestMode, RootGeneration};

const VPS: usize = 2;
const PAGES: usize = 4;
const LIVE: u64 = 1;
const FREED: u64 = 2;

struct Shared {
    root: RootGeneration,
    modes: [GuestMode; VPS],
    kicked: [AtomicBool; VPS],
    /// The "EPT entry": which page is mapped.
    entry: AtomicUsize,
    pages: [AtomicU64; PAGES],
    done: AtomicBool,
}

/// Runs a guest whose TLB, `cached`, is flushed only when the generation changed.
fn vp(shared: &Shared, me: usize) -> u64 {
    let (mut cached, mut seen, mut accesses) = (None, 0, 0);
    while !shared.done.load(Ordering::Relaxed) {
        let generation = shared.root.current();
        if generation != seen {
            cached = None;
            seen = generation;
        }
        if !shared.modes[me].enter(me as u32, &shared.root, generation) {
            continue;
        }
        for _ in 0..20 {
            let page = *cached.get_or_insert_with(|| shared.entry.load(Ordering::Relaxed));
            assert_eq!(shared.pages[page].load(Ordering::Relaxed), LIVE);
            accesses += 1;
            if shared.kicked[me].swap(false, Ordering::Relaxed) {
                break;
            }
        }
        shared.modes[me].leave();
    }
    accesses
}

#[test]
fn nothing_is_used_after_a_flush() {
    let end = Instant::now() + Duration::from_secs(2);
    let start = Barrier::new(VPS + 1);
    let shared = Shared {
        root: RootGeneration::new(1),
        modes: [const { GuestMode::new() }; VPS],
        kicked: [const { AtomicBool::new(false) }; VPS],
        entry: AtomicUsize::new(0),
        pages: [const { AtomicU64::new(LIVE) }; PAGES],
        done: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let (shared, start) = (&shared, &start);
        let run = |i| {
            start.wait();
            vp(shared, i)
        };
        let vps: Vec<_> = (0..VPS).map(|i| scope.spawn(move || run(i))).collect();
        start.wait();
        let (mut kicks, mut round) = (0, 0);
        while Instant::now() < end {
            round += 1;
            let (old, new) = (round % PAGES, (round + 1) % PAGES);
            shared.pages[new].store(LIVE, Ordering::Relaxed);
            shared.entry.store(new, Ordering::Release);
            let kick = |cpu: u32| {
                kicks += 1;
                shared.kicked[cpu as usize].store(true, Ordering::Relaxed);
            };
            flush(&shared.root, shared.modes.iter(), kick, thread::yield_now);
            shared.pages[old].store(FREED, Ordering::Relaxed);
            // A thread that failed must not leave the others running.
            if vps.iter().any(|vp| vp.is_finished()) {
                break;
            }
        }
        shared.done.store(true, Ordering::Relaxed);
        for vp in vps {
            assert!(vp.join().unwrap() > 0);
        }
        assert!(kicks > 0);
    });
}

/// Either the VP sees the new generation or the flush sees the VP. Both start each round together,
/// so that they meet as often as two cores allow.
#[test]
fn entry_and_flush_never_miss_each_other() {
    let end = Instant::now() + Duration::from_secs(2);
    let root = RootGeneration::new(1);
    let mode = GuestMode::new();
    let arrived = AtomicU64::new(0);
    let entered = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    // The n-th meeting of the two threads.
    let meet = |n: u64| {
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0_u32;
        while arrived.load(Ordering::Acquire) < 2 * n {
            spins += 1;
            // The other one must get to run, too, when there is one core.
            if spins % 512 == 0 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                let generation = root.current();
                meet(3 * round + 1);
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let inside = mode.enter(0, &root, generation);
                entered.store(inside, Ordering::Relaxed);
                meet(3 * round + 2);
                meet(3 * round + 3);
                mode.leave();
            }
        });
        let mut missed = 0;
        for round in 0..100_000 {
            let last = round == 99_999 || Instant::now() >= end;
            over.store(last, Ordering::Relaxed);
            meet(3 * round + 1);
            if last {
                break;
            }
            let seen = mode.behind(root.bump()).is_some();
            meet(3 * round + 2);
            missed += u64::from(entered.load(Ordering::Relaxed) && !seen);
            meet(3 * round + 3);
        }
        assert_eq!(missed, 0);
    });
}
