// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lets a person leave a VM that was started in a terminal: a child runs the VM, and the process that the shell
//! waits for ends when the person leaves, or with the VM.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::sys;

/// Which of the two processes this is.
pub enum Split {
    /// The one that the shell waits for; all that is left to do is to end with this status.
    Terminal(ExitCode),
    /// The one that is to run the VM.
    Vm(Foreground),
}

/// The VM's process' connection to the one that the shell waits for.
pub struct Foreground(UnixStream);

/// Splits the process.
pub fn split() -> Result<Split> {
    let (ours, childs) = UnixStream::pair().context("cannot make a socket")?;
    match sys::fork().context("cannot start a process")? {
        None => {
            drop(ours);
            Ok(Split::Vm(Foreground(childs)))
        }
        Some(child) => {
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
    let status = sys::wait(child).context("cannot wait for the virtual machine's process")?;
    if let Some(signal) = status.signal() {
        eprintln!("hvrsctl: the virtual machine's process was killed by signal {signal}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::from(status.code().unwrap_or(1) as u8))
}

impl Foreground {
    /// Lets go of the terminal and tells the other process, which then ends.
    pub fn leave(&self, name: &str) {
        sys::leave_session();
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            for fd in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
                sys::redirect(&null, fd);
            }
        }
        let _ = (&self.0).write_all(name.as_bytes());
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}
