// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Safe forms of the system calls that the standard library does not have.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::os::unix::thread::JoinHandleExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::thread::JoinHandle;

use vm_memory::{GuestMemoryRegion, GuestRegionMmap};

fn check(result: i32) -> io::Result<i32> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// The effective user id.
pub fn effective_user() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::geteuid() }
}

/// Locks the file for this process, unless another has.
pub fn try_lock(file: &File) -> bool {
    // SAFETY: the descriptor is open.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

/// Makes `descriptor` another name of `file`.
pub fn redirect(file: &File, descriptor: RawFd) {
    // SAFETY: what was open as `descriptor` is closed, but the number stays a valid descriptor for its owner.
    unsafe { libc::dup3(file.as_raw_fd(), descriptor, 0) };
}

/// A terminal's mode.
#[derive(Clone, Copy)]
pub struct TerminalMode(pub libc::termios);

impl TerminalMode {
    /// The terminal's present mode.
    pub fn of(terminal: &File) -> io::Result<Self> {
        // SAFETY: an all-zero termios is a valid value, and the pointer is to it.
        unsafe {
            let mut mode = std::mem::zeroed();
            check(libc::tcgetattr(terminal.as_raw_fd(), &mut mode))?;
            Ok(Self(mode))
        }
    }

    /// The same with everything passed on as it is.
    pub fn raw(mut self) -> Self {
        // SAFETY: the pointer is to a live value.
        unsafe { libc::cfmakeraw(&mut self.0) };
        self
    }

    /// Gives the terminal this mode.
    pub fn set(&self, terminal: &File) -> io::Result<()> {
        // SAFETY: the pointer is to a live value.
        check(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &self.0) }).map(drop)
    }
}

/// The master of a new pseudo-terminal, which does not block, and the name of its slave.
pub fn open_pty() -> io::Result<(File, PathBuf)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let mut name = [0; 64];
    // SAFETY: the descriptor is new and owned by nobody else; `name` is as long as said.
    let master = unsafe {
        let master = File::from_raw_fd(check(libc::posix_openpt(flags))?);
        check(libc::grantpt(master.as_raw_fd()))?;
        check(libc::unlockpt(master.as_raw_fd()))?;
        match libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()) {
            0 => master,
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    };
    let name: Vec<u8> = name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| *c as u8)
        .collect();
    Ok((master, String::from_utf8_lossy(&name).into_owned().into()))
}

/// Splits the process in two: `Some(child)` in the old one, `None` in the new one, which gets SIGTERM when the old one ends.
pub fn fork() -> io::Result<Option<i32>> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count());
    if threads != 1 {
        return Err(io::Error::other(
            "a process with several threads cannot be split",
        ));
    }
    // SAFETY: there is one thread, so no lock can be left held in the child.
    match check(unsafe { libc::fork() })? {
        0 => {
            // SAFETY: no pointers are passed.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            Ok(None)
        }
        child => Ok(Some(child)),
    }
}

/// Makes this process independent of its parent and of its terminal.
pub fn leave_session() {
    // SAFETY: no pointers are passed; what fails leaves things as they are.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        libc::setsid();
    }
}

/// Waits for the end of a child.
pub fn wait(child: i32) -> io::Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live value.
        match check(unsafe { libc::waitpid(child, &mut status, 0) }) {
            Ok(_) => return Ok(ExitStatus::from_raw(status)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writing to a closed pipe ends the process quietly, as with other tools that print.
pub fn end_on_closed_pipe() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends `signal` to a thread.
pub fn signal_thread<T>(thread: &JoinHandle<T>, signal: i32) {
    // SAFETY: a thread that has not been joined has a valid pthread_t.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), signal) };
}

/// Asks for huge pages behind guest memory. Failure, on a kernel without them, is harmless.
pub fn use_huge_pages(region: &GuestRegionMmap<()>) {
    let len = region.len() as usize;
    // SAFETY: the range is the region's own mapping.
    unsafe { libc::madvise(region.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_split() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receive.recv());
        assert!(fork().is_err());
        drop(send);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn locks_exclude_each_other() {
        let file = vmm_sys_util::tempfile::TempFile::new().unwrap();
        let open = || File::open(file.as_path()).unwrap();
        let first = open();
        assert!(try_lock(&first));
        assert!(!try_lock(&open()));
        drop(first);
        assert!(try_lock(&open()));
    }
}
