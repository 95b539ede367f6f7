// SPDX-License-Identifier: Apache-2.0 OR MIT
//! hvrsctl runs virtual machines on hvrs.

#![deny(unsafe_op_in_unsafe_fn)]

mod acpi;
mod commands;
mod console;
mod devices;
mod layout;
mod loader;
mod memory;
mod mmio_emulate;
mod monitor;
mod outcome;
mod registers;
mod vcpu;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Run virtual machines on hvrs, the Hyper-V-compatible hypervisor.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Start(commands::start::Start),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Start(start) => start.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("hvrsctl: {error:#}");
        ExitCode::FAILURE
    })
}
