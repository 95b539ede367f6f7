// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest's console: terminal, file or pseudo-terminal. It outlives a guest's reboots.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
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
    output: Arc<Mutex<Outputs>>,
    input: Option<File>,
    input_open: AtomicBool,
    terminal: Mutex<Option<RawTerminal>>,
    pty: Option<Pty>,
}

/// Where output goes.
struct Outputs {
    /// Terminal, file or pseudo-terminal, as long as it is there.
    primary: Option<File>,
    /// `hvrsctl console`s.
    clients: Vec<UnixStream>,
    /// What was written last, for clients that come later.
    recent: VecDeque<u8>,
}

/// As much output as a client gets to see of the time before it came.
const RECENT_MAX: usize = 4096;

impl Console {
    /// Opens the console. A terminal is not yet switched to raw mode.
    pub fn open(kind: &ConsoleKind) -> Result<Self> {
        let (primary, input, pty) = match kind {
            ConsoleKind::Stdio => {
                let input = duplicate(libc::STDIN_FILENO)?;
                (duplicate(libc::STDOUT_FILENO)?, Some(input), None)
            }
            ConsoleKind::File(path) => {
                let file = File::create(path)
                    .with_context(|| format!("cannot create console file {}", path.display()))?;
                (file, None, None)
            }
            ConsoleKind::Pty => {
                let (master, pty) = Pty::open().context("cannot open a pseudo-terminal")?;
                (master.try_clone()?, Some(master), Some(pty))
            }
        };
        let output = Outputs {
            primary: Some(primary),
            clients: Vec::new(),
            recent: VecDeque::with_capacity(RECENT_MAX),
        };
        Ok(Self {
            output: Arc::new(Mutex::new(output)),
            input_open: AtomicBool::new(input.is_some()),
            input,
            terminal: Mutex::new(None),
            pty,
        })
    }

    /// Switches a terminal to raw mode, until the console is dropped or left.
    pub fn set_raw(&self) -> Result<()> {
        if let (Some(input), None) = (&self.input, &self.pty) {
            if input.is_terminal() {
                let raw = RawTerminal::new(input.try_clone()?)?;
                *self.terminal.lock().expect("no holder panics") = Some(raw);
            }
        }
        Ok(())
    }

    /// Whether a person types here, who may want to leave with Ctrl-].
    pub fn is_raw_terminal(&self) -> bool {
        self.terminal.lock().expect("no holder panics").is_some()
    }

    /// Name of the pseudo-terminal to connect to.
    pub fn pty_name(&self) -> Option<&Path> {
        self.pty.as_ref().map(|pty| pty.name.as_path())
    }

    /// A writer for the guest's output.
    pub fn output(&self) -> Box<dyn Write + Send> {
        Box::new(SharedOutput(self.output.clone()))
    }

    /// Where input comes from, as long as there may be some.
    pub fn input(&self) -> Option<&File> {
        self.input
            .as_ref()
            .filter(|_| self.input_open.load(Ordering::Relaxed))
    }

    /// Reads what is there; 0 at the end of the input.
    pub fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.input() {
            Some(mut input) => input.read(buffer),
            None => Ok(0),
        }
    }

    /// Nothing more will come from the input.
    pub fn close_input(&self) {
        self.input_open.store(false, Ordering::Relaxed);
    }

    /// Lets go of the terminal: it gets its mode back, and the guest's output goes to clients only.
    pub fn leave(&self) {
        self.close_input();
        self.output.lock().expect("no holder panics").primary = None;
        *self.terminal.lock().expect("no holder panics") = None;
        if let (Some(input), Ok(null)) = (&self.input, File::open("/dev/null")) {
            // The terminal's other processes are to see that nobody holds it any more.
            // SAFETY: both descriptors are open; `input` stays a valid one.
            unsafe { libc::dup3(null.as_raw_fd(), input.as_raw_fd(), libc::O_CLOEXEC) };
        }
    }

    /// Sends output to `client` too, beginning with the last of what was there before.
    pub fn attach(&self, mut client: UnixStream) {
        let mut output = self.output.lock().expect("no holder panics");
        if client.write_all(output.recent.make_contiguous()).is_ok() {
            output.clients.push(client);
        }
    }
}

struct SharedOutput(Arc<Mutex<Outputs>>);

impl Write for SharedOutput {
    /// Never fails: whoever cannot take the output loses it, and the guest goes on.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut output = self.0.lock().expect("no holder panics");
        if let Some(primary) = &mut output.primary {
            let _ = primary.write_all(bytes);
        }
        output
            .clients
            .retain_mut(|client| match client.write(bytes) {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
        let recent = &mut output.recent;
        let excess = (recent.len() + bytes.len()).saturating_sub(RECENT_MAX);
        recent.drain(..excess.min(recent.len()));
        recent.extend(bytes);
        Ok(bytes.len())
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

/// A pseudo-terminal. Its slave is held open, so that people can come and go.
struct Pty {
    name: PathBuf,
    _slave: File,
}

impl Pty {
    /// A new pseudo-terminal in raw mode, and its master, which does not block.
    fn open() -> std::io::Result<(File, Self)> {
        // SAFETY: no pointers are passed; the result is checked.
        let fd = unsafe {
            libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK)
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let master = unsafe { File::from_raw_fd(fd) };
        let mut name = [0; 64];
        // SAFETY: the descriptor is a pseudo-terminal's master, and `name` is as long as said.
        let result = unsafe {
            if libc::grantpt(fd) != 0 || libc::unlockpt(fd) != 0 {
                return Err(std::io::Error::last_os_error());
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
        let name = PathBuf::from(String::from_utf8_lossy(&name).into_owned());
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(&name)?;
        // Without this the guest's output would be echoed back to it.
        set_raw_mode(&slave)?;
        Ok((
            master,
            Self {
                name,
                _slave: slave,
            },
        ))
    }
}

/// Switches a terminal to raw mode and returns the mode that it had.
fn set_raw_mode(terminal: &File) -> std::io::Result<libc::termios> {
    // SAFETY: an all-zero termios is a valid value.
    let mut saved: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to live values.
    unsafe {
        if libc::tcgetattr(terminal.as_raw_fd(), &mut saved) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let mut raw = saved;
        libc::cfmakeraw(&mut raw);
        if libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &raw) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(saved)
}

/// A terminal in raw mode; restored when dropped.
pub struct RawTerminal {
    file: File,
    saved: libc::termios,
}

impl RawTerminal {
    /// Switches `file`, a terminal, to raw mode.
    pub fn new(file: File) -> std::io::Result<Self> {
        let saved = set_raw_mode(&file)?;
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
    fn pty_carries_both_ways_without_echo() {
        let console = Console::open(&ConsoleKind::Pty).unwrap();
        let mut options = File::options();
        let mut slave = options
            .read(true)
            .write(true)
            .open(console.pty_name().unwrap())
            .unwrap();
        console.output().write_all(b"hello").unwrap();
        let mut read = [0; 5];
        slave.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"hello");
        let error = console.read(&mut read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "no echo");
        slave.write_all(b"abc").unwrap();
        assert_eq!(console.read(&mut read).unwrap(), 3);
    }

    #[test]
    fn raw_mode_is_undone() {
        let (_master, pty) = Pty::open().unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(&pty.name)
            .unwrap();
        let mode = |file: &File| {
            // SAFETY: a zeroed termios is valid, and the pointer is to a live value.
            unsafe {
                let mut termios: libc::termios = std::mem::zeroed();
                assert_eq!(libc::tcgetattr(file.as_raw_fd(), &mut termios), 0);
                termios
            }
        };
        let mut cooked = mode(&slave);
        cooked.c_lflag |= libc::ICANON | libc::ECHO;
        // SAFETY: the pointer is to a live value.
        assert_eq!(
            unsafe { libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &cooked) },
            0
        );
        let raw = RawTerminal::new(slave.try_clone().unwrap()).unwrap();
        assert_eq!(mode(&slave).c_lflag & (libc::ECHO | libc::ICANON), 0);
        drop(raw);
        assert_eq!(mode(&slave).c_lflag, cooked.c_lflag);
    }

    #[test]
    fn clients_see_what_was_and_what_comes() {
        let directory = vmm_sys_util::tempdir::TempDir::new().unwrap();
        let path = directory.as_path().join("log");
        let console = Console::open(&ConsoleKind::File(path.clone())).unwrap();
        let mut output = console.output();
        output.write_all(&[b'.'; RECENT_MAX]).unwrap();
        output.write_all(b"before ").unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        console.attach(there);
        output.write_all(b"after").unwrap();
        console.leave();
        output.write_all(b"!").unwrap();
        drop((console, output));
        let mut seen = String::new();
        here.read_to_string(&mut seen).unwrap();
        assert_eq!(seen.len(), RECENT_MAX + 6);
        assert!(seen.ends_with(".before after!"));
        assert!(std::fs::read_to_string(path)
            .unwrap()
            .ends_with(".before after"));
    }
}
