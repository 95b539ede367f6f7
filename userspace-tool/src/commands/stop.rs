// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl stop`.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use clap::Args;

use crate::registry::{Registry, VmName};

/// Stop a virtual machine: press its power button, and pull the plug when that does not help
#[derive(Args)]
pub struct Stop {
    /// Its name
    name: VmName,
    /// Pull the plug at once
    #[arg(long, short)]
    force: bool,
    /// How long the guest gets to power off, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        conflicts_with = "force"
    )]
    timeout: u64,
}

/// How long hvrsctl's own process gets to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Stop {
    /// Returns when the VM has ended.
    pub fn run(self) -> Result<ExitCode> {
        let registry = Registry::of_user();
        if !self.force {
            let connection = registry.connect(&self.name, "power-button")?;
            if ends_within(connection, Duration::from_secs(self.timeout)) {
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!(
                "hvrsctl: {} did not power off within {} s; ending it",
                self.name, self.timeout
            );
        }
        let connection = registry.connect(&self.name, "kill")?;
        if !ends_within(connection, KILL_TIMEOUT) {
            bail!(
                "{} does not end; its process is {}",
                self.name,
                registry.get(&self.name)?.pid
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits for the other end to close the connection.
fn ends_within(mut connection: UnixStream, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() || connection.set_read_timeout(Some(rest)).is_err() {
            return false;
        }
        match connection.read(&mut [0; 64]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_other_end() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let start = Instant::now();
        assert!(!ends_within(
            ours.try_clone().unwrap(),
            Duration::from_millis(30)
        ));
        assert!(start.elapsed() >= Duration::from_millis(30));
        drop(theirs);
        assert!(ends_within(ours, Duration::from_secs(10)));
    }
}
