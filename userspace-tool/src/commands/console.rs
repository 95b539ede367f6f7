// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl console`.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;

use crate::console::{Console, ConsoleKind, LEAVE};
use crate::registry::{Registry, VmName};

/// Connect the terminal to a virtual machine's console; Ctrl-] leaves it
#[derive(Args)]
pub struct Connect {
    /// Its name
    name: VmName,
}

impl Connect {
    /// Returns when the person leaves or the VM ends.
    pub fn run(self) -> Result<ExitCode> {
        let connection = Registry::of_user().connect(&self.name, "console")?;
        let console = Console::open(&ConsoleKind::Stdio)?;
        let terminal = io::IsTerminal::is_terminal(&io::stdin());
        if terminal {
            eprintln!(
                "hvrsctl: this is the console of {}; Ctrl-] leaves it",
                self.name
            );
        }
        console.set_raw()?;
        let typed = connection.try_clone()?;
        let input = console
            .input()
            .context("standard input is closed")?
            .try_clone()?;
        // Blocked in reading when the VM ends; the process' end is its end too.
        thread::spawn(move || type_to(typed, input, terminal));
        let result = show(connection, console.output());
        console.leave();
        result.context("the connection broke")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Sends what is typed until Ctrl-]; the end of other input just ends the typing.
fn type_to(mut guest: UnixStream, mut input: impl Read, terminal: bool) {
    let mut buffer = [0; 256];
    while let Ok(n @ 1..) = input.read(&mut buffer) {
        let typed = &buffer[..n];
        let leave = typed.iter().position(|byte| terminal && *byte == LEAVE);
        if guest.write_all(&typed[..leave.unwrap_or(n)]).is_err() {
            return;
        }
        if leave.is_some() {
            let _ = guest.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Shows output until the connection ends.
fn show(mut guest: UnixStream, mut output: impl Write) -> io::Result<()> {
    io::copy(&mut guest, &mut output).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_bracket_ends_the_connection_of_a_terminal_only() {
        for (terminal, expected) in [(true, &b"ab"[..]), (false, b"ab\x1dcd")] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            type_to(ours, &b"ab\x1dcd"[..], terminal);
            let mut seen = Vec::new();
            theirs.read_to_end(&mut seen).unwrap();
            assert_eq!(seen, expected);
        }
    }
}
