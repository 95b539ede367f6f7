// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lets a person leave a VM that was started in a terminal: a child runs the VM, and the process that the shell
//! waits for ends when the person leaves, or with the VM.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, Result};

/// Which of the two processes this is.
pub enum Split {
    /// The one that the shell waits for; all that is left to do is to end with this status.
    Terminal(ExitCode),
    /// The one that is to run the VM.
    Vm(Foreground),
}

/// The VM's process' connection to the one that the shell waits for.
pub struct Foreground(UnixStream);

/// Splits the process. It must have no other threads.
pub fn split() -> Result<Split> {
    let (ours, childs) = UnixStream::pair().context("cannot make a socket")?;
    // SAFETY: there is one thread, so no lock can be left held in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("cannot start a process"),
        0 => {
            drop(ours);
            // SAFETY: no pointers are passed. When the parent is killed, the VM ends too.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) };
            Ok(Split::Vm(Foreground(childs)))
        }
        child => {
            drop(childs);
            Ok(Split::Terminal(wait(ours, child)?))
        }
    }
}

/// Waits until the VM's process has let go of the terminal (it sends the VM's name) or has ended.
fn wait(mut connection: UnixStream, child: i32) -> Result<ExitCode> {
    let mut name = String::new();
    if connection.read_to_string(&mut name).is_ok() && !name.is_empty() {
        eprintln!(
            "\nhvrsctl: {name} goes on; `hvrsctl console {name}` comes back, `hvrsctl stop {name}` ends it"
        );
        return Ok(ExitCode::SUCCESS);
    }
    let mut status = 0;
    // SAFETY: the pointer is to a live value.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for the virtual machine's process");
        }
    }
    if libc::WIFEXITED(status) {
        return Ok(ExitCode::from(libc::WEXITSTATUS(status) as u8));
    }
    eprintln!(
        "hvrsctl: the virtual machine's process was killed by signal {}",
        libc::WTERMSIG(status)
    );
    Ok(ExitCode::FAILURE)
}

impl Foreground {
    /// Lets go of the terminal and tells the other process, which then ends.
    pub fn leave(&self, name: &str) {
        // SAFETY: no pointers are passed; what fails leaves things as they are.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
            libc::setsid();
        }
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            for fd in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                // SAFETY: both descriptors are open, or the call fails.
                unsafe { libc::dup2(null.as_raw_fd(), fd) };
            }
        }
        let _ = (&self.0).write_all(name.as_bytes());
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
