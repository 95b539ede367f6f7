// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl start`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{bail, Context, Result};
use clap::{Args, ValueEnum};

use crate::console::{Console, ConsoleKind};
use crate::control::Clients;
use crate::devices::debug_exit;
use crate::devices::virtio_block::VirtioBlock;
use crate::foreground::{self, Split};
use crate::layout;
use crate::loader::{initramfs, linux, BootSource, Initrd};
use crate::monitor::Monitor;
use crate::outcome::Outcome;
use crate::registry::{Description, Registry, VmName};
use crate::vm::{self, Vm, VmConfig};

/// Start a virtual machine and connect the terminal to its console
///
/// Without options it boots this host's own kernel with a small initramfs made of the host's busybox.
/// Ctrl-] leaves the console; the virtual machine goes on, and `hvrsctl console` comes back to it.
#[derive(Args)]
pub struct Start {
    /// Kernel: a bzImage, or an ELF image with a PVH note [default: this host's]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initramfs [default: one made of the host's busybox, when --kernel is not given]
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0")]
    append: String,
    /// Name of the virtual machine [default: the first free of vm1, vm2 and so on]
    #[arg(long, value_name = "NAME")]
    name: Option<VmName>,
    /// Number of virtual processors [default: half the host's CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    cpus: Option<u32>,
    /// Memory in MiB, or with a suffix K, M, G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size)]
    memory: u64,
    /// Disk image, shown to the guest as a virtio block device; `,ro` makes it read-only. May be repeated
    #[arg(long, value_name = "FILE[,ro]")]
    disk: Vec<String>,
    /// Where the guest's console is: stdio, file:PATH or pty
    #[arg(long, value_name = "WHERE", default_value = "stdio")]
    console: ConsoleKind,
    /// What to do when the guest reboots
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnReboot::Restart)]
    on_reboot: OnReboot,
    /// Let the guest take the TSC itself for a clock, as it ticks on this host
    #[arg(long)]
    invariant_tsc: bool,
    /// Kernel debugger that the guest's talks to, by UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    debug: Option<SocketAddr>,
    /// Let the guest end with a status: a byte V written to port 0xf4 ends hvrsctl with (V << 1) | 1
    #[arg(long)]
    debug_exit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnReboot {
    /// End hvrsctl
    Exit,
    /// Start the virtual machine again
    Restart,
}

/// hvrsctl's exit status when the guest crashed.
const STATUS_GUEST_FAULT: u8 = 2;
/// hvrsctl's exit status when it was stopped.
const STATUS_STOPPED: u8 = 3;

impl Start {
    /// Runs the VM to its end.
    pub fn run(self) -> Result<ExitCode> {
        // Everything that can be wrong with the input is found before there is anything to undo.
        let config = self.config()?;
        vm::open_hypervisor()?;
        let terminal = self.console == ConsoleKind::Stdio && std::io::stdin().is_terminal();
        let foreground = match terminal.then(foreground::split).transpose()? {
            Some(Split::Terminal(status)) => return Ok(status),
            Some(Split::Vm(foreground)) => Some(foreground),
            None => None,
        };
        let console = Arc::new(Console::open(&self.console)?);
        let where_it_is = match (&self.console, console.pty_name()) {
            (_, Some(name)) => name.display().to_string(),
            (ConsoleKind::File(path), None) => path.display().to_string(),
            _ => "stdio".into(),
        };
        let registration = Registry::of_user().register(self.name.clone(), |name| Description {
            name,
            pid: std::process::id(),
            cpus: config.cpus,
            memory: config.memory,
            kernel: config.boot.kernel().to_owned(),
            console: where_it_is.clone(),
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |now| now.as_secs()),
        })?;
        let name = &registration.description().name;
        if terminal {
            eprintln!("hvrsctl: this is the console of {name}; Ctrl-] leaves it");
        } else if console.pty_name().is_some() {
            eprintln!("hvrsctl: the console of {name} is {where_it_is}");
        }
        vm::install_kick_handler()?;
        let leave = || match &foreground {
            Some(foreground) => {
                console.leave();
                foreground.leave(&name.to_string());
                true
            }
            None => false,
        };
        let mut monitor = Monitor {
            console: console.clone(),
            registration: &registration,
            signals: signals().context("cannot install signal handlers")?,
            clients: Clients::default(),
            leave: Box::new(leave),
        };
        console.set_raw()?;
        let outcome = loop {
            let vm = Vm::start(&config, console.output())?;
            let outcome = monitor.serve(vm.machine())?;
            drop(vm);
            if outcome != Outcome::Reset || self.on_reboot == OnReboot::Exit {
                break outcome;
            }
        };
        // The terminal gets its mode back before anything is said.
        console.leave();
        report(outcome)
    }

    fn config(&self) -> Result<VmConfig> {
        let kernel = match &self.kernel {
            Some(path) => path.clone(),
            None => host_kernel()?,
        };
        let initrd = match (&self.initrd, &self.kernel) {
            (Some(path), _) => Some(Initrd::File(path.clone())),
            (None, Some(_)) => None,
            (None, None) => {
                let release = linux::release(&kernel);
                Some(Initrd::Built(initramfs::build(release.as_deref())?))
            }
        };
        let boot = BootSource::open(&kernel, initrd, self.append.clone())?;
        if self.disk.len() > layout::VIRTIO_MMIO_MAX {
            bail!("at most {} disks are possible", layout::VIRTIO_MMIO_MAX);
        }
        let disks: Vec<_> = self.disk.iter().map(|disk| parse_disk(disk)).collect();
        for (path, read_only) in &disks {
            VirtioBlock::open(path, *read_only)?;
        }
        let cpus = self.cpus.unwrap_or_else(|| {
            let host = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
            (host / 2).clamp(1, 64)
        });
        Ok(VmConfig {
            cpus,
            memory: self.memory,
            boot,
            disks,
            invariant_tsc: self.invariant_tsc,
            debug_exit: self.debug_exit,
            debugger: self.debug,
        })
    }
}

/// The running kernel's image.
fn host_kernel() -> Result<PathBuf> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let candidates = [
        format!("/boot/vmlinuz-{}", release.trim()),
        "/vmlinuz".into(),
        "/boot/vmlinuz".into(),
    ];
    match candidates.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => Ok(path.to_owned()),
        None => bail!(
            "this host's kernel image is neither {} nor /vmlinuz: give --kernel",
            candidates[0]
        ),
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 20),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a number of MiB, or a number with K, M or G".to_string())?;
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|bytes| (2 << 20..=1 << 40).contains(bytes));
    let bytes = bytes.ok_or("a guest has from 2 MiB to 1 TiB of memory")?;
    if bytes % 4096 != 0 {
        return Err("the memory must consist of whole pages of 4 KiB".into());
    }
    Ok(bytes)
}

fn parse_disk(text: &str) -> (PathBuf, bool) {
    match text.strip_suffix(",ro") {
        Some(path) => (path.into(), true),
        None => (text.into(), false),
    }
}

/// Becomes readable when a signal asks hvrsctl to end.
fn signals() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

fn report(outcome: Outcome) -> Result<ExitCode> {
    match outcome {
        Outcome::PowerOff => {
            eprintln!("hvrsctl: the guest powered off");
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Reset => {
            eprintln!("hvrsctl: the guest rebooted");
            Ok(ExitCode::SUCCESS)
        }
        Outcome::DebugExit(value) => Ok(ExitCode::from(debug_exit::exit_status(value))),
        Outcome::GuestFault(reason) => {
            eprintln!("hvrsctl: the guest crashed: {reason}");
            Ok(ExitCode::from(STATUS_GUEST_FAULT))
        }
        Outcome::Stopped => {
            eprintln!("hvrsctl: the virtual machine was stopped");
            Ok(ExitCode::from(STATUS_STOPPED))
        }
        Outcome::Failed(reason) => bail!(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512"), Ok(512 << 20));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        assert_eq!(parse_size("4096K"), Ok(4 << 20));
        for wrong in ["", "M", "1", "-1", "9999999999999G", "2049K", "1.5G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn disks() {
        assert_eq!(parse_disk("a.img"), ("a.img".into(), false));
        assert_eq!(parse_disk("a,b.img,ro"), ("a,b.img".into(), true));
    }
}
