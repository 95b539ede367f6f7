// SPDX-License-Identifier: Apache-2.0 OR MIT
//! hvrsctl runs virtual machines on hvrs.

#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]

mod acpi;
mod commands;
mod console;
mod control;
mod crash;
mod devices;
mod foreground;
mod host;
#[allow(unsafe_code)] // UNSAFETY: ioctls
mod hvrs_dev;
mod layout;
mod loader;
mod memory;
mod mmio_emulate;
mod monitor;
#[allow(unsafe_code)] // UNSAFETY: unions
mod mshv;
mod outcome;
#[allow(unsafe_code)] // UNSAFETY: the register page, unions
mod registers;
mod registry;
#[allow(unsafe_code)] // UNSAFETY: system calls
mod sys;
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
    List(commands::list::List),
    Console(commands::console::Connect),
    Stop(commands::stop::Stop),
    Status(commands::status::Status),
    Stats(commands::stats::Stats),
    Check(commands::check::Check),
    Info(commands::info::Info),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if !matches!(command, Command::Start(_) | Command::Console(_)) {
        sys::end_on_closed_pipe();
    }
    let result = match command {
        Command::Start(verb) => verb.run(),
        Command::List(verb) => verb.run(),
        Command::Console(verb) => verb.run(),
        Command::Stop(verb) => verb.run(),
        Command::Status(verb) => verb.run(),
        Command::Stats(verb) => verb.run(),
        Command::Check(verb) => verb.run(),
        Command::Info(verb) => verb.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("hvrsctl: {error:#}");
        ExitCode::FAILURE
    })
}
