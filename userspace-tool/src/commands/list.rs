// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl list`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::registry::Registry;

/// List the virtual machines that run
#[derive(Args)]
pub struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    /// Prints the list.
    pub fn run(self) -> Result<ExitCode> {
        let list = Registry::of_user().list();
        if self.json {
            super::print_json(&list)?;
        } else {
            println!(
                "{:<16} {:>8} {:>5} {:>10}  KERNEL",
                "NAME", "PID", "CPUS", "MEMORY"
            );
            for vm in list {
                let memory = super::size(vm.memory);
                let kernel = vm.kernel.display();
                println!(
                    "{:<16} {:>8} {:>5} {memory:>10}  {kernel}",
                    vm.name, vm.pid, vm.cpus
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
