//! `make bench`: what operations cost on hvrs and on KVM, in the same boot of the lab.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde::{Serialize, Serializer};

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
    ("mmio_read_vmm", 1.0, 1.6),
    (BOOT, 1.0, 1.2),
];

/// From QEMU's start to the first process of Debian's stock kernel.
const BOOT: &str = "linux_boot";

/// The emulator's counters, in the order of `tests/lab/bochs/counts.patch`, and about how many cycles each such instruction
/// takes on server CPUs of the years 2017 to 2023 beyond the one tick that it is in the lab, on a host that is no guest itself.
/// An entry stands for its exit, too. Weighted ticks compare; they do not predict.
const DEAR: &[(&str, u64)] = &[
    ("vmentry", 1200),
    ("vmread", 25),
    ("vmwrite", 25),
    ("vmptrld", 150),
    ("vmptrst", 50),
    ("vmclear", 150),
    ("vmxon", 250),
    ("vmxoff", 200),
    ("invept", 300),
    ("invvpid", 300),
    ("rdmsr", 80),
    ("wrmsr", 130),
    ("cr_write", 150),
    ("xsave", 120),
    ("xrstor", 120),
    ("xsetbv", 80),
];

/// One operation by one VMM.
#[derive(Debug, Default, Serialize)]
struct Figure {
    ticks: u64,
    /// Runs that `counts` are of.
    #[serde(skip)]
    runs: f64,
    /// Dear instructions of the host for each run, in the order of [`DEAR`]; empty where the machine does not count.
    #[serde(serialize_with = "named")]
    counts: Vec<f64>,
}

impl Figure {
    /// With what the dear instructions take on silicon.
    fn weighted(&self) -> Option<u64> {
        let dear = |sum, (count, (_, cycles)): (&f64, &(&str, u64))| sum + count * *cycles as f64;
        let sum = self.counts.iter().zip(DEAR).fold(0.0, dear);
        (!self.counts.is_empty()).then_some(self.ticks + sum as u64)
    }

    /// The counts that are not zero, in words.
    fn dear(&self) -> String {
        let words: Vec<String> = DEAR
            .iter()
            .zip(&self.counts)
            .filter(|(_, count)| **count != 0.0)
            .map(|((name, _), count)| format!("{name} {count}"))
            .collect();
        words.join(", ")
    }
}

fn named<S: Serializer>(counts: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(DEAR.iter().map(|(name, _)| name).zip(counts))
}

/// One operation.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    /// With hvrsctl.
    hvrs: Option<Figure>,
    /// With QEMU on hvrs.
    qemu: Option<Figure>,
    /// With QEMU on KVM.
    kvm: Option<Figure>,
}

impl Row {
    fn figure(&mut self, on: &str) -> Option<&mut Figure> {
        let figure = match on {
            "hvrs" => &mut self.hvrs,
            "qemu" => &mut self.qemu,
            "kvm" => &mut self.kvm,
            _ => return None,
        };
        Some(figure.get_or_insert_default())
    }

    /// What QEMU has on hvrs for each tick that it has on KVM.
    fn ratio(&self, of: impl Fn(&Figure) -> Option<u64>) -> Option<f64> {
        let kvm = of(self.kvm.as_ref()?).filter(|kvm| *kvm != 0)?;
        Some(of(self.qemu.as_ref()?)? as f64 / kvm as f64)
    }
}

/// All that the job tells.
#[derive(Debug, Default, Serialize)]
struct Results {
    rows: Vec<Row>,
    /// Exits until the kernel has booted in QEMU, by VMM and name.
    boot_exits: BTreeMap<String, BTreeMap<String, u64>>,
    #[serde(skip)]
    on: String,
    /// Rows whose counts are not yet told.
    #[serde(skip)]
    uncounted: Vec<String>,
    /// Lines that are not of the benchmark.
    #[serde(skip)]
    other: Vec<String>,
}

impl Results {
    fn row(&mut self, name: &str) -> &mut Row {
        let index = self
            .rows
            .iter()
            .position(|row| row.name == name)
            .unwrap_or_else(|| {
                self.rows.push(Row {
                    name: name.to_string(),
                    ..Row::default()
                });
                self.rows.len() - 1
            });
        &mut self.rows[index]
    }

    fn figure(&mut self, name: &str) -> Option<&mut Figure> {
        let on = self.on.clone();
        self.row(name).figure(&on)
    }

    /// Takes a line of the job's; `None`: it says it is one, and is not.
    fn line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["begin", on] => self.on = on.to_string(),
            ["bench", name, "ticks", ticks, "min", _, "n", n] => {
                let (ticks, runs) = (ticks.parse().ok()?, n.parse().ok()?);
                let figure = self.figure(name)?;
                figure.ticks = ticks;
                figure.runs = runs;
                self.uncounted.push(name.to_string());
            }
            ["span", name, runs, start, end] => {
                let ticks = words_of(end)?.first()? - words_of(start)?.first()?;
                let runs: u64 = runs.parse().ok()?;
                let figure = self.figure(name)?;
                figure.ticks = ticks.checked_div(runs)?;
                figure.runs = runs as f64;
                self.uncounted.push(name.to_string());
            }
            ["counts", stock] => {
                let stock = words_of(stock)?;
                let mut rows = stock.chunks_exact(2 * DEAR.len());
                for name in std::mem::take(&mut self.uncounted) {
                    let (before, after) = rows.next()?.split_at(DEAR.len());
                    let figure = self.figure(&name)?;
                    let each = |(before, after): (&u64, &u64)| {
                        // A few come from printing the marks and from the host's timer: one digit is what can be told.
                        ((after - before) as f64 / figure.runs * 10.0).round() / 10.0
                    };
                    figure.counts = before.iter().zip(after).map(each).collect();
                }
            }
            // The machine does not count.
            ["counts"] => self.uncounted.clear(),
            ["exits", ..] => {
                let (path, value) = line.strip_prefix("exits ")?.rsplit_once(':')?;
                let name = path
                    .rsplit(['/', ':'])
                    .find(|part| !part.trim().is_empty())?
                    .trim();
                let Ok(value) = value.trim().parse() else {
                    return Some(());
                };
                let exits = self.boot_exits.entry(self.on.clone()).or_default();
                exits.insert(name.to_string(), value);
            }
            _ => self.other.push(line.to_string()),
        }
        Some(())
    }
}

/// Little-endian 64-bit words in hexadecimal.
fn words_of(hex: &str) -> Option<Vec<u64>> {
    let words = hex.as_bytes().chunks(16);
    words
        .map(|word| {
            let word = u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            Some(word.swap_bytes())
        })
        .collect()
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
            (built("hvrsctl"), "hvrsctl".to_string()),
            (
                PathBuf::from("tests/lab/jobs/common.sh"),
                "common.sh".to_string(),
            ),
        ],
        modules: vec!["msr".to_string()],
        script: fs::read_to_string("tests/lab/jobs/bench.sh")?,
        ..Job::default()
    };
    for name in ["bench", "bench8", "bench2m", "benchlog"] {
        let path = Path::new("build/guests/release").join(name);
        job.files.push((path, format!("guests/{name}")));
    }
    job.data.extend(guest::qemu());
    job.data.extend(guest::linux(&dir, Initramfs::Pc)?);
    let mut results = Results::default();
    let mut bad = None;
    let outcome = bochs::run(&dir, &machine, &job, TIMEOUT, PULSE, &mut |line| {
        if results.line(line).is_none() {
            bad = Some(line.to_string());
        }
    })?;
    if let Some(line) = bad {
        bail!("not a figure: {line}");
    }
    show(&results);
    write(&results)?;
    if !outcome.ok() || results.rows.is_empty() {
        results.other.iter().for_each(|line| println!("| {line}"));
        bochs::explain(&dir, &outcome, &mut std::io::stdout())?;
        ensure!(!results.rows.is_empty(), "the benchmark gave no figures");
        return Ok(false);
    }
    Ok(goals(&results.rows))
}

fn show(results: &Results) {
    let number = |value: Option<u64>| value.map_or("-".to_string(), |value| value.to_string());
    let ticks = |figure: &Option<Figure>| number(figure.as_ref().map(|f| f.ticks));
    let weighted = |figure: &Option<Figure>| number(figure.as_ref().and_then(Figure::weighted));
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
    println!(
        "{:<24} {:>10} {:>10} {:>10} {:>6} {:>11} {:>11} {:>6}",
        "median, ticks", "hvrsctl", "QEMU", "QEMU, KVM", "ratio", "QEMU", "QEMU, KVM", "ratio"
    );
    println!("{:<24} {:>39} {:>30}", "", "in the lab", "weighted");
    for row in &results.rows {
        println!(
            "{:<24} {:>10} {:>10} {:>10} {:>6} {:>11} {:>11} {:>6}",
            row.name,
            ticks(&row.hvrs),
            ticks(&row.qemu),
            ticks(&row.kvm),
            ratio(row.ratio(|f| Some(f.ticks))),
            weighted(&row.qemu),
            weighted(&row.kvm),
            ratio(row.ratio(Figure::weighted)),
        );
    }
    println!("\nInstructions of the host that are dear on silicon");
    for row in &results.rows {
        for (on, figure) in [
            ("hvrsctl", &row.hvrs),
            ("QEMU", &row.qemu),
            ("KVM", &row.kvm),
        ] {
            if let Some(figure) = figure {
                println!("{:<24} {on:<8} {}", row.name, figure.dear());
            }
        }
    }
    println!("\nExits until Debian's kernel has booted in QEMU");
    for (on, exits) in &results.boot_exits {
        for (name, value) in exits.iter().filter(|(_, value)| **value != 0) {
            println!("{on:<24} {name:<40} {value}");
        }
    }
    println!();
}

fn write(results: &Results) -> Result<()> {
    let path = Path::new(RESULTS);
    fs::create_dir_all(path.parent().context("directory of the results")?)?;
    fs::write(path, serde_json::to_string_pretty(results)? + "\n")?;
    Ok(())
}

/// Whether the goals are met; says where they are not.
fn goals(rows: &[Row]) -> bool {
    let mut met = true;
    for (name, limit) in GOALS {
        match rows
            .iter()
            .find(|row| row.name == *name)
            .and_then(|row| row.hvrs.as_ref())
            .map(|figure| figure.ticks)
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
        let ratio = row.and_then(|row| row.ratio(|f| Some(f.ticks)));
        let weighted = row.and_then(|row| row.ratio(Figure::weighted));
        match ratio {
            Some(ratio) => {
                met &= ratio <= *limit;
                if ratio > *goal {
                    println!("{name}: {ratio:.2} of KVM, the goal is {goal}, the limit {limit}");
                }
            }
            None => {
                println!("{name}: not measured, the goal is {goal} of KVM");
                met = false;
            }
        }
        if let Some(weighted) = weighted.filter(|weighted| weighted > goal) {
            println!("{name}: {weighted:.2} of KVM in weighted ticks, the goal is {goal}");
        }
    }
    met
}
