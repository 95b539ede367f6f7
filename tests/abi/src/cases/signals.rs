// SPDX-License-Identifier: Apache-2.0 OR MIT
//! RUN_VP ends at signals, belongs to the creator's process, and to one thread at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::guests::{self, Code};
use crate::run::{case, ensure, equal, errno, eventually, good, Case, Outcome, Stop};
use crate::sys::{sleep_ms, Memory, Random};
use crate::threads::{interrupted, moves, run_on, run_once, started, Running};
use crate::vm::*;

/// Guests that a signal must get out of, all counting.
const GUESTS: &[guests::Named] = &[
    ("a guest that counts", guests::count),
    ("a guest that spins", guests::spin),
    ("a halted guest", guests::halt),
    ("a guest of PAUSEs", guests::pause),
    ("a guest of CPUIDs", guests::cpuid_loop),
    ("a guest that walks through its memory", guests::walk),
];

fn one_signal(code: Code) -> Outcome {
    let guest = Guest::new(code)?;
    let running = run_once(guest.vp());
    started(&guest.memory)?;
    sleep_ms(20);
    ensure(!running.is_over(), || "RUN_VP ended by itself".into())?;
    // One is enough: it is inside.
    running.signal();
    interrupted(running.wait(5)?)?;
    // And it goes on where it was.
    let before = guest.vp().register(names::HV_X64_REGISTER_RIP)?;
    ensure((ENTRY..ENTRY + 0x100).contains(&before), || {
        format!("RIP {before:#x}")
    })?;
    let running = run_once(guest.vp());
    sleep_ms(5);
    interrupted(running.interrupt()?)
}

fn storm() -> Outcome {
    let guest = Guest::new(guests::count())?;
    let running = run_on(guest.vp());
    started(&guest.memory)?;
    let mut random = Random(7);
    for _ in 0..300 {
        running.signal();
        std::thread::sleep(std::time::Duration::from_micros(random.below(500)));
    }
    moves(&guest.memory, guests::COUNTER)?;
    interrupted(running.interrupt()?)
}

fn two_threads() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let first = run_once(guest.vp());
    started(&guest.memory)?;
    sleep_ms(20);
    let second = run_once(guest.vp());
    sleep_ms(50);
    let waits = !second.is_over();
    // Signals to the second alone.
    let result = second.interrupt();
    let first_runs = !first.is_over();
    let first = first.interrupt();
    ensure(waits, || "the second does not wait".into())?;
    interrupted(result?)?;
    ensure(first_runs, || "the first ended, too".into())?;
    interrupted(first?)
}

fn registers_meanwhile() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let running = run_once(guest.vp());
    started(&guest.memory)?;
    let vp = guest.vp().clone();
    let asking =
        crate::threads::Running::start(move |_| vp.register(names::HV_X64_REGISTER_RIP).is_ok());
    sleep_ms(50);
    // It may wait for the VP, but no longer than until that leaves.
    let ended = running.interrupt();
    ensure(asking.wait(5)?, || "registers cannot be read".into())?;
    interrupted(ended?)
}

fn many_vps(code: Code) -> Outcome {
    let guest = Guest::with(code, 4, FLAGS, Memory::new(RAM))?;
    let running: Vec<_> = guest.vps.iter().map(run_on).collect();
    started(&guest.memory)?;
    sleep_ms(20);
    for vp in running {
        interrupted(vp.interrupt()?)?;
    }
    Ok(())
}

/// Sends SIGUSR1, whose handler does nothing, to the calling thread.
fn signal_myself() {
    // SAFETY: The handler is installed by `Running::start`.
    unsafe { libc::raise(libc::SIGUSR1) };
}

/// A guest that stands at an OUT: each RUN_VP gives its message.
fn at_a_port() -> Result<Guest, Stop> {
    let guest = Guest::new(guests::ports())?;
    guest.vp().message()?;
    Ok(guest)
}

fn handled_before() -> Outcome {
    let guest = at_a_port()?;
    let vp = guest.vp().clone();
    Running::start(move |_| {
        vp.message()?;
        for signals in [1, 3] {
            (0..signals).for_each(|_| signal_myself());
            interrupted(vp.run())?;
            for _ in 0..3 {
                vp.message()?;
            }
        }
        Ok(())
    })
    .wait(5)?
}

fn told_once() -> Outcome {
    let guest = Guest::new(guests::halt())?;
    let vp = guest.vp().clone();
    let running = Running::start(move |_| (interrupted(vp.run()), vp.run()));
    started(&guest.memory)?;
    sleep_ms(20);
    running.signal();
    sleep_ms(50);
    ensure(!running.is_over(), || "it gave EINTR twice".into())?;
    let (first, second) = running.interrupt()?;
    first?;
    interrupted(second)
}

/// How often the calling thread has slept.
fn sleeps() -> i64 {
    // SAFETY: A zeroed rusage is valid.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nvcsw
    }
}

/// Two threads run a VP in turn. The turn goes round without sleep, so that a sleep is RUN_VP's.
fn in_turn() -> Outcome {
    const TURNS: usize = 400;
    let guest = at_a_port()?;
    let turn = Arc::new(AtomicUsize::new(0));
    let start = |own: usize| {
        let (vp, turn) = (guest.vp().clone(), turn.clone());
        Running::start(move |_| {
            let before = sleeps();
            loop {
                let now = turn.load(Ordering::Acquire);
                if now >= TURNS {
                    return Ok::<_, Stop>(sleeps() - before);
                }
                if now % 2 == own {
                    vp.message()?;
                    turn.store(now + 1, Ordering::Release);
                }
                std::thread::yield_now();
            }
        })
    };
    for thread in [start(0), start(1)] {
        let slept = thread.wait(20)??;
        ensure(slept < TURNS as i64 / 8, || {
            format!("it slept {slept} times")
        })?;
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = GUESTS
        .iter()
        .map(|&(name, code)| {
            case(
                format!("RUN_VP: a signal gives EINTR: {name} [V-I16]"),
                move || one_signal(code()),
            )
        })
        .collect();
    for &(name, code) in GUESTS {
        cases.push(case(format!("RUN_VP: 4 VPs, signals: {name}"), move || {
            many_vps(code())
        }));
    }
    cases.extend([
        case(
            "RUN_VP: a signal that is pending gives EINTR at once [V-I16]",
            || {
                let guest = Guest::new(guests::spin())?;
                let vp = guest.vp().clone();
                let running = crate::threads::Running::start(move |_| {
                    // SAFETY: Signal sets are plain data; ppoll is not used: the mask is swapped by the kernel below.
                    unsafe {
                        let mut set: libc::sigset_t = std::mem::zeroed();
                        libc::sigaddset(&mut set, libc::SIGUSR2);
                        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                        libc::raise(libc::SIGUSR2);
                    }
                    // Blocked: it does not interrupt; the spinning guest runs on.
                    vp.run()
                });
                started(&guest.memory)?;
                sleep_ms(30);
                ensure(!running.is_over(), || {
                    "a blocked signal ended RUN_VP".into()
                })?;
                interrupted(running.interrupt()?)
            },
        ),
        case("RUN_VP: 300 signals, the guest goes on", storm),
        case(
            "RUN_VP: a signal that the thread handled before gives EINTR, once",
            handled_before,
        ),
        case(
            "RUN_VP: a signal that ended it does not end the next",
            told_once,
        ),
        case("RUN_VP: by two threads in turn, without waiting", in_turn),
        case(
            "RUN_VP: of one VP on two threads: the second waits, and ends at a signal [V-L2]",
            two_threads,
        ),
        case(
            "registers: of a VP that runs on another thread",
            registers_meanwhile,
        ),
        case(
            "RUN_VP: a VP that waits for a start-up IPI ends at a signal [V-I17]",
            || {
                let vp = Partition::ready().vp(1);
                let running = run_once(&vp);
                sleep_ms(30);
                ensure(!running.is_over(), || "it does not wait".into())?;
                interrupted(running.interrupt()?)
            },
        ),
        case(
            "RUN_VP: a halted VP wakes at an interrupt from the VMM [V-I17]",
            || {
                let guest = Guest::new(guests::halt())?;
                let running = run_once(guest.vp());
                started(&guest.memory)?;
                // HLT is left by an NMI; the vector in the table leads to the start.
                guest.memory.write(8, &(ENTRY as u32).to_le_bytes());
                let before = guest.memory.word(guests::COUNTER);
                let nmi = Hvcall::new(0x94, &[0, 4, 0, 0], 0).make(&guest.partition);
                ensure(nmi.is_ok(), || format!("{nmi:?}"))?;
                eventually("the guest wakes", 5, || {
                    guest.memory.word(guests::COUNTER) > before
                })?;
                interrupted(running.interrupt()?)
            },
        ),
        case("RUN_VP: from another process gives EIO [V-I16]", || {
            let guest = Guest::new(guests::count())?;
            let vp = guest.vp().clone();
            crate::cases::in_child(move || errno("RUN_VP", vp.run().map(|_| ()), libc::EIO))?;
            let running = run_once(guest.vp());
            started(&guest.memory)?;
            interrupted(running.interrupt()?)
        }),
        case("RUN_VP: VPs from all threads of the creator", || {
            let guest = Guest::with(guests::count(), 3, FLAGS, Memory::new(RAM))?;
            for vp in &guest.vps {
                let running = run_once(vp);
                moves(&guest.memory, guests::COUNTER)?;
                interrupted(running.interrupt()?)?;
            }
            equal("VPs", guest.vps.len(), 3)
        }),
        case(
            "VP: its file works after the partition's was closed [V-L1]",
            || {
                let guest = Guest::new(guests::count())?;
                let Guest {
                    partition,
                    memory,
                    vps,
                } = guest;
                drop(partition);
                let running = run_once(&vps[0]);
                started(&memory)?;
                interrupted(running.interrupt()?)?;
                good(
                    "register",
                    vps[0]
                        .get(&[names::HV_X64_REGISTER_RIP])
                        .map_err(|e| e.errno),
                )?;
                Ok(())
            },
        ),
    ]);
    cases
}
