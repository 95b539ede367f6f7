// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl info`.

use std::process::ExitCode;

use anyhow::{anyhow, Context, Result};
use clap::Args;
use serde::Serialize;

use crate::hvrs_dev::{self, HvrsDevice, PartitionInfo};

/// Show the module's version, what it uses of this machine, and all partitions
#[derive(Args)]
pub struct Info {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    hvrsctl: &'static str,
    hvrs: hvrs_dev::Info,
    partitions: Vec<PartitionInfo>,
}

impl Info {
    /// Prints what the module tells.
    pub fn run(self) -> Result<ExitCode> {
        let device = HvrsDevice::open().map_err(|error| match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => {
                anyhow!("no permission for /dev/hvrs: become a member of the group `mshv`, or root")
            }
            Some(libc::ENOENT) => anyhow!("hvrs is not loaded: run `insmod hvrs.ko`"),
            _ => anyhow!("cannot open /dev/hvrs: {error}"),
        })?;
        let report = Report {
            hvrsctl: env!("CARGO_PKG_VERSION"),
            hvrs: device.info().context("/dev/hvrs does not answer")?,
            partitions: device
                .partitions()
                .context("/dev/hvrs does not list its partitions")?,
        };
        if self.json {
            super::print_json(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        println!(
            "hvrs {} (interface {})",
            report.hvrs.version, report.hvrs.abi_version
        );
        println!("hvrsctl {}", report.hvrsctl);
        println!("uses: {}", report.hvrs.capabilities.join(", "));
        println!();
        println!(
            "{:>9} {:>8} {:<15} {:>4} {:>10} {:>12} {:>12}",
            "PARTITION", "PID", "COMMAND", "VPS", "MEMORY", "EXITS", "WINDOWS"
        );
        for p in report.partitions {
            let memory = super::size(p.memory);
            println!(
                "{:>9} {:>8} {:<15} {:>4} {memory:>10} {:>12} {:>12}",
                p.id, p.pid, p.command, p.vps, p.exits, p.windows
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
