// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl stats`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use hvdef::{HvPartitionCounter, HvVpCounter};
use serde::Serialize;

use crate::hvrs_dev::{Counters, HvrsDevice};
use crate::registry::{Registry, VmName};

/// Show what hvrs counts for a virtual machine
#[derive(Args)]
pub struct Stats {
    /// Its name
    name: VmName,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    partition: BTreeMap<&'static str, u64>,
    vps: Vec<Vp>,
}

#[derive(Serialize)]
struct Vp {
    index: u32,
    counters: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// Prints the counters.
    pub fn run(self) -> Result<ExitCode> {
        let vm = Registry::of_user().get(&self.name)?;
        let device = HvrsDevice::open().context("cannot open /dev/hvrs")?;
        let partitions = device.partitions().context("cannot list partitions")?;
        let id = partitions
            .iter()
            .find(|p| u32::try_from(p.pid) == Ok(vm.pid))
            .with_context(|| format!("{} has no partition yet", vm.name))?
            .id;
        let what = || format!("cannot read the counters of {}", vm.name);
        let partition = device.partition_stats(id).with_context(what)?;
        let mut vps = Vec::new();
        for index in 0..vm.cpus {
            if let Some(counters) = device.vp_stats(id, index).with_context(what)? {
                vps.push((index, counters));
            }
        }
        if self.json {
            super::print_json(&report(vm.name.to_string(), &partition, &vps))?;
        } else {
            print!("{}", table(&partition, &vps));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn report(name: String, partition: &Counters, vps: &[(u32, Counters)]) -> Report {
    Report {
        name,
        partition: HvPartitionCounter::ALL
            .iter()
            .map(|(counter, name)| (*name, partition[*counter as usize]))
            .collect(),
        vps: vps
            .iter()
            .map(|(index, counters)| Vp {
                index: *index,
                counters: HvVpCounter::ALL
                    .iter()
                    .map(|(counter, name)| (*name, counters[*counter as usize]))
                    .collect(),
            })
            .collect(),
    }
}

/// The partition's counters, then a column for each VP; what no VP has counted is left out.
fn table(partition: &Counters, vps: &[(u32, Counters)]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, values: &[String]| {
        let _ = write!(text, "{name:<36}");
        for value in values {
            let _ = write!(text, " {value:>14}");
        }
        text.push('\n');
    };
    for (counter, name) in HvPartitionCounter::ALL {
        line(name, &[partition[*counter as usize].to_string()]);
    }
    let heads: Vec<_> = vps.iter().map(|(index, _)| format!("VP {index}")).collect();
    line("", &heads);
    for (counter, name) in HvVpCounter::ALL {
        let values: Vec<_> = vps.iter().map(|(_, c)| c[*counter as usize]).collect();
        if values.iter().any(|value| *value != 0) {
            line(name, &values.iter().map(u64::to_string).collect::<Vec<_>>());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let mut partition = [0; 512];
        partition[1] = 2;
        let mut vps = [(0, [0; 512]), (1, [0; 512])];
        vps[0].1[19] = 7;
        vps[1].1[19] = 1234;
        let text = table(&partition, &vps);
        let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap();
        assert!(line("PtVirtualProcessors").ends_with("  2"));
        assert!(line(" ").ends_with("VP 0           VP 1"), "{text}");
        let cpuid = line("VpCpuidInstructionsCount");
        assert!(cpuid.ends_with("7           1234"), "{cpuid}");
        assert!(!text.contains("VpHltInstructionsCount"), "all are 0");
        let json = serde_json::to_value(report("vm1".into(), &partition, &vps)).unwrap();
        assert_eq!(json["vps"][1]["counters"]["VpCpuidInstructionsCount"], 1234);
        assert_eq!(json["partition"]["PtVirtualProcessors"], 2);
        assert_eq!(json["vps"][0]["counters"]["VpHltInstructionsCount"], 0);
    }
}
