//! `make bench`: what operations cost on hvrs and on KVM, in the same boot of the lab.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde::Serialize;

use crate::bochs::{self, Show};
use crate::guest::{self, Initramfs};
use crate::image::Job;
use crate::machine::Machine;
use crate::place::built;

/// Where the figures go.
const RESULTS: &str = "build/bench.json";
/// Host seconds.
const TIMEOUT: Duration = Duration::from_secs(900);

const PULSE: Show = Show {
    console: false,
    pulse: true,
};

/// Upper limits for hvrs, in ticks of the lab: name of the row, limit.
const GOALS: &[(&str, u64)] = &[
    ("cpuid", 200),
    ("pio_write_80", 3500),
    ("pio_read_80", 3500),
];

/// For QEMU on hvrs, as a part of the same QEMU's figure on KVM: what is aimed at, and the limit. Instructions that touch a
/// device's memory are taken apart by QEMU here, on KVM by the kernel.
const RATIOS: &[(&str, f64, f64)] = &[
    ("cpuid", 0.2, 0.3),
    ("rdmsr_apic_base", 0.2, 0.2),
    ("wrmsr_pat", 0.2, 0.3),
    ("self_ipi_nop", 0.2, 0.2),
    ("pio_write_80", 1.0, 1.0),
    ("pio_read_80", 1.0, 1.0),
    ("mmio_read_vmm", 1.0, 2.2),
    (BOOT, 1.0, 1.2),
];

/// From QEMU's start to the first process of Debian's stock kernel.
const BOOT: &str = "linux_boot_ms";

/// One operation.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    /// With hvrsctl.
    hvrs: Option<u64>,
    /// With QEMU on hvrs.
    qemu: Option<u64>,
    /// With QEMU on KVM.
    kvm: Option<u64>,
    unit: &'static str,
    /// VMX and other dear instructions for each operation on hvrs, where the guest could tell.
    counts: BTreeMap<String, f64>,
}

impl Row {
    /// What QEMU has on hvrs for each tick that it has on KVM.
    fn ratio(&self) -> Option<f64> {
        let kvm = self.kvm.filter(|kvm| *kvm != 0)?;
        Some(self.qemu? as f64 / kvm as f64)
    }
}

/// Runs the benchmark. Whether it came to its end and met the goals.
pub fn run() -> Result<bool> {
    let dir = bochs::prepare("bench")?;
    let machine = Machine {
        kvm: true,
        ..Machine::plain()
    };
    let mut job = Job {
        files: vec![
            (built("module/hvrs.ko"), "hvrs.ko".to_string()),
            (built("count/hvrs.ko"), "counting/hvrs.ko".to_string()),
            (built("hvrsctl"), "hvrsctl".to_string()),
            (
                PathBuf::from("tests/lab/jobs/common.sh"),
                "common.sh".to_string(),
            ),
        ],
        script: fs::read_to_string("tests/lab/jobs/bench.sh")?,
        ..Job::default()
    };
    for name in ["bench", "bench8"] {
        let path = Path::new("build/guests/release").join(name);
        job.files.push((path, format!("guests/{name}")));
    }
    job.data.extend(guest::qemu());
    job.data.extend(guest::linux(&dir, Initramfs::Pc)?);
    let mut rows: Vec<Row> = Vec::new();
    let mut on = String::new();
    let mut other = Vec::new();
    let mut bad = None;
    let mut runs = 1.0;
    let outcome = bochs::run(&dir, &machine, &job, TIMEOUT, PULSE, &mut |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["begin", name] => on = name.to_string(),
            ["bench", name, "ticks", ticks, "min", _, "n", n] => match (ticks.parse(), n.parse()) {
                (Ok(ticks), Ok(n)) => {
                    runs = n;
                    let row = row(&mut rows, name);
                    match on.as_str() {
                        "hvrs" => row.hvrs = Some(ticks),
                        "qemu" => row.qemu = Some(ticks),
                        "kvm" => row.kvm = Some(ticks),
                        _ => {}
                    }
                }
                _ => bad = Some(line.to_string()),
            },
            ["counts", name, ..] => {
                for (key, value) in words[2..].iter().filter_map(|word| word.split_once('=')) {
                    match value.parse::<f64>() {
                        Ok(value) => {
                            // A few come from printing the marks and from the host's timer: one digit is what can be told.
                            let each = (value / runs * 10.0).round() / 10.0;
                            row(&mut rows, name).counts.insert(key.to_string(), each);
                        }
                        Err(_) => bad = Some(line.to_string()),
                    }
                }
            }
            ["<" | ">"] => {}
            _ => other.push(line.to_string()),
        }
    })?;
    if let Some(line) = bad {
        bail!("not a number in: {line}");
    }
    show(&rows);
    write(&rows)?;
    let complete = rows
        .iter()
        .all(|row| row.name == BOOT || row.hvrs.is_some() && !row.counts.is_empty());
    if !outcome.ok() || rows.is_empty() || !complete {
        other.iter().for_each(|line| println!("| {line}"));
        bochs::explain(&dir, &outcome, &mut std::io::stdout())?;
        ensure!(!rows.is_empty(), "the benchmark gave no figures");
        return Ok(false);
    }
    Ok(goals(&rows))
}

fn row<'a>(rows: &'a mut Vec<Row>, name: &str) -> &'a mut Row {
    let index = rows
        .iter()
        .position(|row| row.name == name)
        .unwrap_or_else(|| {
            rows.push(Row {
                name: name.to_string(),
                unit: if name == BOOT {
                    "ms"
                } else {
                    "TSC ticks in the lab"
                },
                ..Row::default()
            });
            rows.len() - 1
        });
    &mut rows[index]
}

fn show(rows: &[Row]) {
    let figure = |value: Option<u64>| value.map_or("-".to_string(), |value| value.to_string());
    println!(
        "{:<32} {:>10} {:>10} {:>10} {:>7}  (median, TSC ticks in the lab)",
        "operation", "hvrsctl", "QEMU", "QEMU, KVM", "ratio"
    );
    for row in rows {
        let counts: Vec<String> = row
            .counts
            .iter()
            .filter(|(_, value)| **value != 0.0)
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        println!(
            "{:<32} {:>10} {:>10} {:>10} {:>7}  {}",
            row.name,
            figure(row.hvrs),
            figure(row.qemu),
            figure(row.kvm),
            row.ratio()
                .map_or("-".to_string(), |ratio| format!("{ratio:.2}")),
            counts.join(", ")
        );
    }
}

fn write(rows: &[Row]) -> Result<()> {
    let path = Path::new(RESULTS);
    fs::create_dir_all(path.parent().context("directory of the results")?)?;
    fs::write(path, serde_json::to_string_pretty(rows)? + "\n")?;
    Ok(())
}

/// Whether the goals are met; says where they are not.
fn goals(rows: &[Row]) -> bool {
    let mut met = true;
    for (name, limit) in GOALS {
        match rows
            .iter()
            .find(|row| row.name == *name)
            .and_then(|row| row.hvrs)
        {
            Some(ticks) if ticks <= *limit => {}
            Some(ticks) => {
                println!("{name}: {ticks} ticks, the goal is {limit}");
                met = false;
            }
            None => {
                println!("{name}: not measured, the goal is {limit}");
                met = false;
            }
        }
    }
    for (name, goal, limit) in RATIOS {
        let row = rows.iter().find(|row| row.name == *name);
        match row.and_then(Row::ratio) {
            Some(ratio) if ratio <= *goal => {}
            Some(ratio) => {
                println!("{name}: {ratio:.2} of KVM, the goal is {goal}, the limit {limit}");
                met &= ratio <= *limit;
            }
            None => {
                println!("{name}: not measured, the goal is {goal} of KVM");
                met = false;
            }
        }
    }
    met
}
