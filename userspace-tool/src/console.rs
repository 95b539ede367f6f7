// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the guest's console: terminal, file or pseudo-terminal. It outlives a guest's reboots.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use crate::sys::{self, TerminalMode};

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
                let input = duplicate(std::io::stdin())?;
                (duplicate(std::io::stdout())?, Some(input), None)
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
            sys::redirect(&null, input.as_raw_fd());
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

fn duplicate(stream: impl AsFd) -> Result<File> {
    let duplicate = stream.as_fd().try_clone_to_owned();
    Ok(duplicate
        .context("standard input or output is closed")?
        .into())
}

/// A pseudo-terminal. Its slave is held open, so that people can come and go.
struct Pty {
    name: PathBuf,
    _slave: File,
}

impl Pty {
    /// A new pseudo-terminal in raw mode, and its master, which does not block.
    fn open() -> std::io::Result<(File, Self)> {
        let (master, name) = sys::open_pty()?;
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(&name)?;
        // Without this the guest's output would be echoed back to it.
        TerminalMode::of(&slave)?.raw().set(&slave)?;
        Ok((
            master,
            Self {
                name,
                _slave: slave,
            },
        ))
    }
}

/// A terminal in raw mode; restored when dropped.
pub struct RawTerminal {
    file: File,
    saved: TerminalMode,
}

impl RawTerminal {
    /// Switches `file`, a terminal, to raw mode.
    pub fn new(file: File) -> std::io::Result<Self> {
        let saved = TerminalMode::of(&file)?;
        saved.raw().set(&file)?;
        Ok(Self { file, saved })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = self.saved.set(&self.file);
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
        let mode = || TerminalMode::of(&slave).unwrap().0.c_lflag;
        let mut cooked = TerminalMode::of(&slave).unwrap();
        cooked.0.c_lflag |= libc::ICANON | libc::ECHO;
        cooked.set(&slave).unwrap();
        let raw = RawTerminal::new(slave.try_clone().unwrap()).unwrap();
        assert_eq!(mode() & (libc::ECHO | libc::ICANON), 0);
        drop(raw);
        assert_eq!(mode(), cooked.0.c_lflag);
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
