// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest's console: terminal, file or pseudo-terminal. It outlives a guest's reboots.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

/// Ctrl-]: leaves the console.
pub const LEAVE: u8 = 0x1d;

/// The value of `--console`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// Standard input and output.
    Stdio,
    /// Output to a file; no input.
    File(PathBuf),
    /// A new pseudo-terminal.
    Pty,
}

impl FromStr for ConsoleKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stdio" => Ok(Self::Stdio),
            "pty" => Ok(Self::Pty),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Self::File(path.into())),
                _ => Err("expected stdio, file:PATH or pty".into()),
            },
        }
    }
}

/// A console: where output goes and input comes from.
pub struct Console {
    output: Arc<Mutex<File>>,
    input: Option<File>,
    terminal: Option<RawTerminal>,
    pty_name: Option<PathBuf>,
}

impl Console {
    /// Opens the console. A terminal is not yet switched to raw mode.
    pub fn open(kind: &ConsoleKind) -> Result<Self> {
        let (output, input, pty_name) = match kind {
            ConsoleKind::Stdio => (
                duplicate(libc::STDOUT_FILENO)?,
                Some(duplicate(libc::STDIN_FILENO)?),
                None,
            ),
            ConsoleKind::File(path) => {
                let file = File::create(path)
                    .with_context(|| format!("cannot create console file {}", path.display()))?;
                (file, None, None)
            }
            ConsoleKind::Pty => {
                let (master, name) = open_pty().context("cannot open a pseudo-terminal")?;
                (master.try_clone()?, Some(master), Some(name))
            }
        };
        Ok(Self {
            output: Arc::new(Mutex::new(output)),
            input,
            terminal: None,
            pty_name,
        })
    }

    /// Switches a terminal to raw mode, until the console is dropped.
    pub fn set_raw(&mut self) -> Result<()> {
        if let Some(input) = &self.input {
            if self.pty_name.is_none() && is_terminal(input.as_raw_fd()) {
                self.terminal = Some(RawTerminal::new(input.try_clone()?)?);
            }
        }
        Ok(())
    }

    /// Whether a person types here, who may want to leave with Ctrl-].
    pub fn is_raw_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Name of the pseudo-terminal to connect to.
    pub fn pty_name(&self) -> Option<&PathBuf> {
        self.pty_name.as_ref()
    }

    /// A writer for the guest's output.
    pub fn output(&self) -> Box<dyn Write + Send> {
        Box::new(SharedOutput(self.output.clone()))
    }

    /// Where input comes from.
    pub fn input(&self) -> Option<&File> {
        self.input.as_ref()
    }

    /// Reads what is there; 0 at the end of the input.
    pub fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match &self.input {
            Some(input) => (&*input).read(buffer),
            None => Ok(0),
        }
    }
}

struct SharedOutput(Arc<Mutex<File>>);

impl Write for SharedOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no holder panics").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn duplicate(fd: RawFd) -> Result<File> {
    // SAFETY: `fcntl` checks the descriptor.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if duplicate < 0 {
        return Err(std::io::Error::last_os_error()).context("standard input or output is closed");
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(duplicate) })
}

fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: `isatty` checks the descriptor.
    unsafe { libc::isatty(fd) == 1 }
}

fn open_pty() -> std::io::Result<(File, PathBuf)> {
    let failed = std::io::Error::last_os_error;
    // SAFETY: no pointers are passed; the result is checked.
    let fd = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(failed());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let master = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut name = [0; 64];
    // SAFETY: the descriptor is a pseudo-terminal's master, and `name` is as long as said.
    let result = unsafe {
        if libc::grantpt(fd) != 0 || libc::unlockpt(fd) != 0 {
            return Err(failed());
        }
        libc::ptsname_r(fd, name.as_mut_ptr(), name.len())
    };
    if result != 0 {
        return Err(std::io::Error::from_raw_os_error(result));
    }
    let name: Vec<u8> = name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| *c as u8)
        .collect();
    Ok((master, String::from_utf8_lossy(&name).into_owned().into()))
}

/// A terminal in raw mode; restored when dropped.
pub struct RawTerminal {
    file: File,
    saved: libc::termios,
}

impl RawTerminal {
    /// Switches `file`, a terminal, to raw mode.
    pub fn new(file: File) -> std::io::Result<Self> {
        // SAFETY: an all-zero termios is a valid value.
        let mut saved: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are to live values.
        unsafe {
            if libc::tcgetattr(file.as_raw_fd(), &mut saved) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            let mut raw = saved;
            libc::cfmakeraw(&mut raw);
            if libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(Self { file, saved })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // SAFETY: the pointer is to a live value.
        unsafe { libc::tcsetattr(self.file.as_raw_fd(), libc::TCSANOW, &self.saved) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_values() {
        assert_eq!("stdio".parse(), Ok(ConsoleKind::Stdio));
        assert_eq!("pty".parse(), Ok(ConsoleKind::Pty));
        assert_eq!(
            "file:/tmp/x".parse(),
            Ok(ConsoleKind::File("/tmp/x".into()))
        );
        for wrong in ["", "file", "file:", "tty"] {
            assert!(wrong.parse::<ConsoleKind>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pty_carries_output_and_raw_mode_is_undone() {
        let console = Console::open(&ConsoleKind::Pty).unwrap();
        let mut slave = File::options()
            .read(true)
            .write(true)
            .open(console.pty_name().unwrap())
            .unwrap();
        let mode = |file: &File| {
            // SAFETY: a zeroed termios is valid, and the pointer is to a live value.
            unsafe {
                let mut termios: libc::termios = std::mem::zeroed();
                assert_eq!(libc::tcgetattr(file.as_raw_fd(), &mut termios), 0);
                termios.c_lflag
            }
        };
        let before = mode(&slave);
        let raw = RawTerminal::new(slave.try_clone().unwrap()).unwrap();
        assert_eq!(mode(&slave) & (libc::ECHO | libc::ICANON), 0);
        console.output().write_all(b"hello").unwrap();
        let mut read = [0; 5];
        slave.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
        drop(raw);
        assert_eq!(mode(&slave), before);
    }
}
