// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl status`.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::hvrs_dev::{HvrsDevice, PartitionInfo};
use crate::registry::{Description, Registry, VmName};

/// Show how a virtual machine is doing
#[derive(Args)]
pub struct Status {
    /// Its name
    name: VmName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    vm: Description,
    /// Seconds since it was started.
    uptime: u64,
    /// What the module counts, when it can be asked.
    partition: Option<PartitionInfo>,
}

impl Status {
    /// Prints the status.
    pub fn run(self) -> Result<ExitCode> {
        let vm = Registry::of_user().get(&self.name)?;
        let partition = HvrsDevice::open()
            .and_then(|device| device.partitions())
            .ok()
            .and_then(|list| {
                list.into_iter()
                    .find(|p| u32::try_from(p.pid) == Ok(vm.pid))
            });
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let report = Report {
            uptime: now.saturating_sub(vm.started),
            vm,
            partition,
        };
        if self.json {
            super::print_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        println!("{}", report.vm.name);
        println!("    state: running for {} s", report.uptime);
        println!("      pid: {}", report.vm.pid);
        println!("     cpus: {}", report.vm.cpus);
        println!("   memory: {}", super::size(report.vm.memory));
        println!("   kernel: {}", report.vm.kernel.display());
        println!("  console: {}", report.vm.console);
        if let Some(partition) = report.partition {
            println!(
                "    exits: {} in {} root windows",
                partition.exits, partition.windows
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
