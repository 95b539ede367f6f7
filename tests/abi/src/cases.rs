// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All cases, by what they are about.

mod ageing;
mod cost;
mod device;
mod doorbells;
mod fuzz;
mod gpa;
mod hostile;
mod hvcall;
mod intercepts;
mod interrupts;
mod kept;
mod life;
mod live;
mod messages;
mod page;
mod partition;
mod ports;
mod properties;
mod regions;
mod registers;
mod replays;
mod reset;
mod signals;
mod snapshot;
mod state;
mod stats;
mod synic;
mod timers;
mod tracking;
mod translate;
mod without_lapic;

use std::os::fd::{AsRawFd, RawFd};

use crate::run::{ensure, reaped, Case, Outcome, Stop};
use crate::sys;

/// All of them, in the order in which they run.
pub fn all(module: Option<String>, long: bool) -> Vec<Case> {
    [
        device::cases(),
        partition::cases(),
        properties::cases(),
        regions::cases(),
        tracking::cases(),
        gpa::cases(),
        hvcall::cases(),
        translate::cases(),
        registers::cases(),
        state::cases(),
        stats::cases(),
        messages::cases(),
        page::cases(),
        intercepts::cases(),
        interrupts::cases(),
        doorbells::cases(),
        signals::cases(),
        ports::cases(),
        synic::cases(),
        timers::cases(),
        without_lapic::cases(),
        live::cases(),
        kept::cases(),
        ageing::cases(),
        reset::cases(),
        cost::cases(),
        replays::cases(),
        snapshot::cases(),
        hostile::cases(),
        fuzz::cases(),
        life::cases(module, long),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A line of /proc/meminfo, in KiB.
fn meminfo(name: &str) -> Result<u64, Stop> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|e| e.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Stop::Fail(format!("no {name} in /proc/meminfo")))
}

/// A file in memory.
fn memory_file(len: usize) -> std::os::fd::OwnedFd {
    // SAFETY: A C string.
    let fd =
        sys::owned(unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) } as RawFd);
    // SAFETY: A file of ours.
    unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) };
    fd
}

/// Runs `body` in a child of this process; its failure is ours.
fn in_child(body: impl FnOnce() -> Outcome) -> Outcome {
    use std::io::{Read, Write};
    use std::os::fd::FromRawFd;
    let mut pipe = [0; 2];
    // SAFETY: Two descriptors.
    assert!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } == 0);
    // SAFETY: The child runs `body` alone; other threads hold no lock that it needs.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let reply = match body() {
            Ok(()) => "ok".to_string(),
            Err(Stop::Fail(reason) | Stop::Skip(reason)) => reason,
        };
        // SAFETY: Our end.
        let _ = unsafe { std::fs::File::from_raw_fd(pipe[1]) }.write_all(reply.as_bytes());
        // SAFETY: Ends the child without what the parent registered.
        unsafe { libc::_exit(0) };
    }
    // SAFETY: The child's end.
    unsafe { libc::close(pipe[1]) };
    let mut reply = String::new();
    // SAFETY: Our end.
    let _ = unsafe { std::fs::File::from_raw_fd(pipe[0]) }.read_to_string(&mut reply);
    ensure(reaped(pid, 10), || "the child does not end".into())?;
    ensure(reply == "ok", || reply)
}
