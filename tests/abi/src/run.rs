// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs cases, each in a process of its own, so that one that hangs or dies is one failed row. After each, no partition
//! may be left.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use crate::hvrs;
use crate::sys::{self, sleep_ms};

/// Why a case is not `ok`.
pub enum Stop {
    /// It failed.
    Fail(String),
    /// The machine lacks something.
    Skip(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Stop::Fail(reason)
    }
}

/// Name and rows of the matrix: those in brackets at the name's end.
fn labelled(name: &str) -> String {
    if name.ends_with(']') {
        name.to_string()
    } else {
        format!("{name} [-]")
    }
}

/// What a case gives.
pub type Outcome = Result<(), Stop>;

/// One test.
pub struct Case {
    name: String,
    seconds: u64,
    body: Box<dyn Fn() -> Outcome>,
}

/// A row: a name and what is to hold.
pub fn case(name: impl Into<String>, body: impl Fn() -> Outcome + 'static) -> Case {
    Case {
        name: name.into(),
        seconds: 30,
        body: Box::new(body),
    }
}

impl Case {
    /// With another time limit.
    pub fn within(mut self, seconds: u64) -> Self {
        self.seconds = seconds;
        self
    }
}

/// Fails unless `ok`.
pub fn ensure(ok: bool, reason: impl FnOnce() -> String) -> Outcome {
    if ok {
        Ok(())
    } else {
        Err(Stop::Fail(reason()))
    }
}

/// Fails unless `got` is what was wanted.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Outcome {
    ensure(got == wanted, || {
        format!("{what}: {got:x?} instead of {wanted:x?}")
    })
}

/// Fails unless a call failed with this errno.
pub fn errno<T: std::fmt::Debug>(what: &str, got: sys::Sys<T>, wanted: i32) -> Outcome {
    match got {
        Err(e) if e.0 == wanted => Ok(()),
        other => Err(Stop::Fail(format!(
            "{what}: {other:?} instead of {:?}",
            sys::Errno(wanted)
        ))),
    }
}

/// The value of a call that must succeed.
pub fn good<T>(what: &str, got: sys::Sys<T>) -> Result<T, Stop> {
    got.map_err(|e| Stop::Fail(format!("{what}: {e:?}")))
}

/// Waits until `done` holds, at most `seconds`.
pub fn eventually(what: &str, seconds: u64, mut done: impl FnMut() -> bool) -> Outcome {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        if Instant::now() > end {
            return Err(Stop::Fail(format!("not within {seconds} s: {what}")));
        }
        sleep_ms(1);
    }
    Ok(())
}

/// What became of all cases.
#[derive(Default)]
pub struct Count {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
}

/// Runs the cases whose name contains one of `filters` (all if there is none) and prints a line for each.
pub fn run(cases: &[Case], filters: &[String]) -> Count {
    let mut count = Count::default();
    for case in cases {
        if !filters.is_empty() && !filters.iter().any(|f| case.name.contains(f.as_str())) {
            continue;
        }
        let mut outcome = in_process(case);
        if outcome.is_ok() {
            outcome = no_partition_left();
        }
        match outcome {
            Ok(()) => {
                count.passed += 1;
                println!("ok {}", labelled(&case.name));
            }
            Err(Stop::Skip(reason)) => println!("skip {}: {reason}", case.name),
            Err(Stop::Fail(reason)) => {
                count.failed += 1;
                println!(
                    "not ok {}: {}",
                    labelled(&case.name),
                    reason.replace('\n', " ")
                );
            }
        }
    }
    count
}

/// /dev/hvrs lists no partition, and debugfs has no counters of one.
pub fn no_partition_left() -> Outcome {
    eventually("no partition is left", 3, || hvrs::partitions().is_empty())?;
    eventually("no counters are left in debugfs", 3, || {
        std::fs::read_dir("/sys/kernel/debug/hvrs/partition").map_or(true, |all| all.count() == 0)
    })
}

/// Runs one case in a child process and waits for it.
fn in_process(case: &Case) -> Outcome {
    let mut pipe = [0; 2];
    // SAFETY: Two descriptors.
    assert!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } == 0);
    // SAFETY: This process has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {:?}", sys::last());
    if pid == 0 {
        // SAFETY: A group of its own, for what the case forks.
        unsafe { libc::setpgid(0, 0) };
        let reply = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.body)())) {
            Ok(Ok(())) => "ok".to_string(),
            Ok(Err(Stop::Skip(reason))) => format!("skip{reason}"),
            Ok(Err(Stop::Fail(reason))) => format!("fail{reason}"),
            Err(panic) => format!("failpanic: {}", panic_text(&*panic)),
        };
        // SAFETY: Our end of the pipe.
        let _ = unsafe { std::fs::File::from_raw_fd(pipe[1]) }.write_all(reply.as_bytes());
        // SAFETY: Threads that still run guests end with the process.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: The child's end.
    unsafe { libc::close(pipe[1]) };
    // SAFETY: Our end.
    let mut reader = unsafe { std::fs::File::from_raw_fd(pipe[0]) };
    let in_time = readable(&reader, case.seconds * 1000);
    // SAFETY: The group of the child, and, should it not have one yet, the child.
    unsafe {
        if !in_time {
            libc::kill(pid, libc::SIGKILL);
        }
        libc::kill(-pid, libc::SIGKILL);
    }
    let mut reply = String::new();
    if in_time {
        let _ = reader.read_to_string(&mut reply);
    }
    if !reaped(pid, 10) {
        println!(
            "not ok {}: its process cannot be killed",
            labelled(&case.name)
        );
        println!("abi: gives up, the machine is not to be trusted any more");
        std::process::exit(2);
    }
    // What the case forked was in its group, too.
    match reply.split_at_checked(4) {
        _ if reply == "ok" => Ok(()),
        Some(("skip", reason)) => Err(Stop::Skip(reason.to_string())),
        Some(("fail", reason)) => Err(Stop::Fail(reason.to_string())),
        _ if in_time => Err(Stop::Fail("its process died".to_string())),
        _ => Err(Stop::Fail(format!("no end within {} s", case.seconds))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match panic.downcast_ref::<String>() {
        Some(text) => text,
        None => panic.downcast_ref::<&str>().copied().unwrap_or("?"),
    }
}

fn readable(file: &impl AsRawFd, ms: u64) -> bool {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: One descriptor.
    unsafe { libc::poll(&mut poll, 1, ms as i32) == 1 }
}

/// Waits for a child, at most `seconds`.
pub fn reaped(pid: i32, seconds: u64) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let mut status = 0;
        // SAFETY: A status word.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if Instant::now() > end => return false,
            0 => sleep_ms(1),
            _ => return true,
        }
    }
}
