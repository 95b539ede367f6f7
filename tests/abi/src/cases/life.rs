// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VMM is killed, forks, stops; the module is to be unloaded; nothing is leaked.

use std::os::fd::AsRawFd;

use crate::cases::meminfo;
use crate::cases::messages::io;
use crate::guests::{self, Code};
use crate::hvrs;
use crate::run::{case, ensure, equal, errno, eventually, good, reaped, Case, Outcome, Stop};
use crate::sys::{self, sleep_ms, Errno, Memory, Random, PAGE};
use crate::threads::{run_on, started};
use crate::vm::*;

const GUESTS: [guests::Named; 7] = [
    ("halt", guests::halt),
    ("spin", guests::spin),
    ("count", guests::count),
    ("out", guests::out_loop),
    ("walk", guests::walk),
    ("cpuid", guests::cpuid_loop),
    ("pause", guests::pause),
];

/// A process of its own that runs `body` and never returns; it dies with this one.
fn spawn(body: impl FnOnce()) -> i32 {
    // SAFETY: This process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: No memory involved.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        body();
        // SAFETY: Ends the child without what the parent registered.
        unsafe { libc::_exit(0) };
    }
    pid
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: A child of this process.
    unsafe { libc::kill(pid, signal) };
}

/// A VMM with this guest.
fn vmm(code: fn() -> Code, vps: u32) -> i32 {
    spawn(move || {
        let Ok(guest) = Guest::with(code(), vps, SUPER_PAGES, Memory::huge(2 << 20)) else {
            return;
        };
        let _running: Vec<_> = guest.vps.iter().map(run_on).collect();
        sleep_ms(60_000);
    })
}

fn kills(rounds: std::ops::Range<u64>) -> Outcome {
    let mut random = Random(rounds.start);
    for round in rounds {
        let (name, code) = GUESTS[(round % GUESTS.len() as u64) as usize];
        let vps = 1 + random.below(4) as u32;
        let pid = vmm(code, vps);
        std::thread::sleep(std::time::Duration::from_micros(random.below(40_000)));
        kill(pid, libc::SIGKILL);
        let what = format!("round {round}: {name} with {vps} VPs");
        ensure(reaped(pid, 10), || format!("{what}: not dead after 10 s"))?;
        equal(&format!("{what}: partitions"), hvrs::partitions().len(), 0)?;
    }
    Ok(())
}

/// Lines of /proc/meminfo that tell what the kernel uses, in KiB.
const USED: [&str; 5] = [
    "SUnreclaim",
    "PageTables",
    "KernelStack",
    "Percpu",
    "VmallocUsed",
];

/// Runs `work` some times: memory that is gone afterwards, in KiB, must be below `bound`, of each kind. What the kernel keeps
/// for later use, as per-CPU lists do, it keeps once: only what is lost three times in a row is a leak.
fn no_leak(bound: u64, times: u64, work: impl Fn(u64) -> Outcome) -> Outcome {
    let measure = || -> Result<Vec<u64>, Stop> {
        // RCU and what frees in the background gets its time.
        sleep_ms(100);
        let gone = meminfo("MemTotal")? - meminfo("MemAvailable")?;
        let mut all = vec![gone];
        for name in USED {
            all.push(meminfo(name)?);
        }
        Ok(all)
    };
    for n in 0..times / 2 {
        work(n)?;
    }
    let mut lost = Vec::new();
    for round in 0..3 {
        let before = measure()?;
        for n in 0..times {
            work(round * times + n)?;
        }
        let after = measure()?;
        if before.iter().zip(&after).all(|(b, a)| *a < b + bound) {
            return Ok(());
        }
        lost.push(format!(
            "not available, {USED:?}, in KiB: {before:?} before, {after:?} after"
        ));
    }
    Err(Stop::Fail(lost.join("; ")))
}

fn cycle(_: u64) -> Outcome {
    let partition = good("create", Partition::create(FLAGS))?;
    good("initialize", partition.initialize())?;
    let vps = [partition.vp(0), partition.vp(1)];
    equal("activity", vps[1].register(0x4)?, 1)
}

/// With memory, a page table, and a run that ends at a port.
fn run_cycle(_: u64) -> Outcome {
    let guest = Guest::new(guests::out_loop())?;
    good("RUN_VP", guest.vp().run())?;
    Ok(())
}

/// Ten guests of 512 MiB at once, each with its own words in a page of each 128 KiB; together they are more than the host's
/// memory.
fn large() -> Outcome {
    const SIZE: usize = 512 << 20;
    let all: Vec<_> = (0..10u64)
        .map(|n| {
            let memory = Memory::new(SIZE);
            memory.advise(0, SIZE, libc::MADV_NOHUGEPAGE);
            let guest = Guest::with(guests::fill_and_check(), 1, SUPER_PAGES, memory)?;
            let set = guest.vp().set(&[
                (names::HV_X64_REGISTER_DS, segment(0, 0, u32::MAX, 0x8093)),
                (names::HV_X64_REGISTER_RAX + 6, (128 << 10, 0)),
                (names::HV_X64_REGISTER_RAX + 7, (0x1111_1111 * n, 0)),
            ]);
            set.map_err(|e| Stop::Fail(format!("{e:?}")))?;
            Ok(guest)
        })
        .collect::<Result<Vec<_>, Stop>>()?;
    let filled: Vec<_> = all
        .iter()
        .map(|g| crate::threads::run_once(g.vp()))
        .collect();
    for (guest, running) in all.iter().zip(filled) {
        let message = good("RUN_VP", running.wait(60)?)?;
        equal("port", io(&message)?.port_number, 0x81)?;
        good("skip", crate::threads::skip(guest.vp(), &message))?;
    }
    let checked: Vec<_> = all
        .iter()
        .map(|g| crate::threads::run_once(g.vp()))
        .collect();
    for running in checked {
        let info = io(&good("RUN_VP", running.wait(60)?)?)?;
        equal("port, wrong words", (info.port_number, info.rax), (0x80, 0))?;
    }
    Ok(())
}

/// The child keeps the files; the creator is gone.
fn orphaned() -> Outcome {
    let creator = spawn(|| {
        let Ok(guest) = Guest::new(guests::count()) else {
            return;
        };
        // A child of the creator, not of this process; it ends when it is alone and has tried.
        // SAFETY: As in `spawn`.
        if unsafe { libc::fork() } == 0 {
            sleep_ms(300);
            let refused = matches!(guest.vp().run(), Err(Errno(libc::EIO)));
            // Says so by a name that the parent can see.
            let left = hvrs::partitions().len() == 1;
            let verdict = if refused && left { "good" } else { "bad" };
            let _ = std::fs::write(format!("/tmp/abi-orphan-{verdict}"), "");
            return;
        }
        sleep_ms(60_000);
    });
    for verdict in ["good", "bad"] {
        let _ = std::fs::remove_file(format!("/tmp/abi-orphan-{verdict}"));
    }
    eventually("the partition is there", 5, || {
        hvrs::partitions().len() == 1
    })?;
    sleep_ms(100);
    kill(creator, libc::SIGKILL);
    ensure(reaped(creator, 10), || "the creator does not die".into())?;
    equal(
        "partitions while the child has its files",
        hvrs::partitions().len(),
        1,
    )?;
    eventually("the child has tried", 10, || hvrs::partitions().is_empty())?;
    let good = std::fs::metadata("/tmp/abi-orphan-good").is_ok();
    ensure(good, || {
        "RUN_VP in the child did not give EIO, or the partition was gone".into()
    })
}

fn stopped() -> Outcome {
    // Memory that both processes see.
    // SAFETY: A C string.
    let file = sys::owned(unsafe { libc::memfd_create(c"guest".as_ptr(), 0) });
    // SAFETY: A file of ours.
    unsafe { libc::ftruncate(file.as_raw_fd(), RAM as libc::off_t) };
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let memory = Memory::with(RAM, both, file.as_raw_fd());
    let pid = spawn(|| {
        let Ok(guest) = Guest::with(
            guests::count(),
            1,
            FLAGS,
            Memory::with(RAM, both, file.as_raw_fd()),
        ) else {
            return;
        };
        let _running = run_on(guest.vp());
        sleep_ms(60_000);
    });
    started(&memory)?;
    for _ in 0..5 {
        kill(pid, libc::SIGSTOP);
        sleep_ms(20);
        let value = memory.word(guests::COUNTER);
        sleep_ms(20);
        equal(
            "counter of a stopped VMM's guest",
            memory.word(guests::COUNTER),
            value,
        )?;
        kill(pid, libc::SIGCONT);
        crate::threads::moves(&memory, guests::COUNTER)?;
    }
    kill(pid, libc::SIGKILL);
    ensure(reaped(pid, 10), || "not dead after 10 s".into())
}

/// delete_module(2) as rmmod calls it.
fn unload() -> sys::Sys<i64> {
    // SAFETY: A C string.
    sys::check(unsafe {
        libc::syscall(
            libc::SYS_delete_module,
            c"hvrs".as_ptr(),
            libc::O_NONBLOCK | libc::O_EXCL,
        )
    })
}

fn load(path: &str) -> Outcome {
    let file = good(
        "open the module",
        sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC),
    )?;
    // SAFETY: A file and a C string.
    let loaded = sys::check(unsafe {
        libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0)
    });
    good("load the module", loaded)?;
    eventually("/dev/mshv is there", 5, || {
        std::fs::metadata("/dev/mshv").is_ok()
    })
}

/// What keeps the module: a name, and what holds it.
type Holder = (&'static str, fn() -> Box<dyn std::any::Any>);
const HOLDERS: [Holder; 6] = [
    ("/dev/mshv open", || Box::new(device())),
    ("/dev/hvrs open", || Box::new(hvrs::open())),
    ("a partition", || Box::new(Partition::ready())),
    ("a VP", || Box::new(Partition::ready().vp(0))),
    ("a partition with memory", || {
        let partition = Partition::ready();
        let memory = Memory::new(PAGE);
        partition.map(0, &memory, RWX);
        Box::new((partition, memory))
    }),
    ("a guest that runs", || {
        let guest = Guest::new(guests::count()).ok().expect("a guest");
        let running = run_on(guest.vp());
        started(&guest.memory).ok().expect("it runs");
        Box::new((Ended(Some(running)), guest))
    }),
];

/// A guest's run that is ended when this is dropped.
struct Ended(Option<crate::threads::Running<sys::Sys<mshv_bindings::hv_message>>>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            let _ = running.interrupt();
        }
    }
}

pub fn cases(module: Option<String>, long: bool) -> Vec<Case> {
    let times = if long { 1000 } else { 50 };
    let mut cases = vec![
        case(
            format!(
                "kill -9 of the VMM at {times} random moments: all partitions are gone at once [V-L3]"
            ),
            move || kills(0..times),
        )
        .within(2 * times + 20),
        case("kill -9 of the VMM: no memory is lost [V-L3]", || {
            no_leak(1024, 28, |n| kills(n..n + 1))
        })
        .within(120),
        case(
            "1000 times create, initialize, VPs, close: no memory is lost [V-L4]",
            || no_leak(400, 1000, cycle),
        )
        .within(180),
        case(
            "1000 times a guest that runs once: no memory is lost [V-L4]",
            || no_leak(400, 1000, run_cycle),
        )
        .within(180),
        case("ten guests of 512 MiB, each verifies its memory", large).within(120),
        case("the creator dies, its child keeps the files [V-L5]", orphaned),
        case("SIGSTOP stops the guest, SIGCONT lets it go on", stopped),
        case("two partitions at once, each with its own memory", || {
            let (a, b) = (Guest::new(guests::count())?, Guest::new(guests::halt())?);
            let (run_a, run_b) = (run_on(a.vp()), run_on(b.vp()));
            started(&a.memory)?;
            started(&b.memory)?;
            crate::threads::moves(&a.memory, guests::COUNTER)?;
            equal(
                "the halted guest's counter",
                b.memory.word(guests::COUNTER),
                1,
            )?;
            crate::threads::interrupted(run_a.interrupt()?)?;
            crate::threads::interrupted(run_b.interrupt()?)
        }),
        case("40 partitions with 4 VPs each", || {
            let all: Vec<_> = (0..40)
                .map(|_| {
                    let partition = Partition::ready();
                    (0..4).map(|n| partition.vp(n)).collect::<Vec<_>>()
                })
                .collect();
            equal("partitions", hvrs::mine().len(), 40)?;
            for vps in &all {
                vps[3].register(0x4)?;
            }
            Ok(())
        }),
    ];
    for (name, hold) in HOLDERS {
        cases.push(case(
            format!("the module cannot be unloaded: {name} [V-L6]"),
            move || {
                let held = hold();
                errno("delete_module", unload(), libc::EAGAIN)?;
                equal("ABI version afterwards", hvrs::info().abi_version, 2)?;
                drop(held);
                Ok(())
            },
        ));
    }
    cases.push(case(
        "the module is unloaded and loaded, 3 times",
        move || {
            let Some(path) = &module else {
                return Err(Stop::Skip("no --module".into()));
            };
            for _ in 0..3 {
                run_cycle(0)?;
                good("delete_module", unload())?;
                ensure(std::fs::metadata("/dev/mshv").is_err(), || {
                    "/dev/mshv is still there".into()
                })?;
                load(path)?;
            }
            run_cycle(0)
        },
    ));
    cases
}
