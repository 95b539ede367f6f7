//! `make test`: everything of [`suites`](crate::suites), or what matches.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bochs::{self, Show};
use crate::differences::{self, Differences};
use crate::image::Job;
use crate::machine::Machine;
use crate::place::{self, built};
use crate::protocol::Reader;
use crate::report::{self, Row};
use crate::suites::{Boot, Need, BOOTS, PACKAGES};
use crate::{cargo, check, disk, guest, host, matrix};

/// Where the results go.
const RESULTS: &str = "build/test-results.json";

/// Runs what `wanted` names: `check`, `units`, or names of boots; if empty, all but the long boots, which `all` adds.
/// Whether all passed.
pub fn run(wanted: &[String], all: bool, parallel: usize) -> Result<bool> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|want| want == name);
    if let Some(unknown) = wanted.iter().find(|want| {
        !["check", "units"].contains(&want.as_str()) && BOOTS.iter().all(|boot| boot.name != **want)
    }) {
        let names: Vec<&str> = BOOTS.iter().map(|boot| boot.name).collect();
        anyhow::bail!(
            "there is no suite {unknown}; there are: check units {}",
            names.join(" ")
        );
    }
    if place::host() {
        host::missing_packages()?;
        if let Some(boot) = BOOTS
            .iter()
            .find(|boot| wanted.iter().any(|want| want == boot.name) && !fits(boot))
        {
            anyhow::bail!("suite {} is not for this machine: it needs another CPU, or KVM, or is the same here as another suite", boot.name);
        }
    }
    // One module, one machine: nothing runs beside something else there.
    let parallel = if place::host() { 1 } else { parallel };
    let mut rows = Vec::new();
    if is_wanted("check") {
        rows.extend(check::run()?);
    }
    if is_wanted("units") {
        for entry in PACKAGES {
            for package in cargo::packages(entry)? {
                rows.extend(cargo::test(&package)?);
            }
        }
    }
    let queue: Mutex<VecDeque<&Boot>> = Mutex::new(
        BOOTS
            .iter()
            .filter(|boot| is_wanted(boot.name) && fits(boot))
            .filter(|boot| all || !boot.long || !wanted.is_empty())
            .collect(),
    );
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| loop {
                // The lock is held only while taking the next one.
                let next = queue.lock().unwrap().pop_front();
                let Some(boot) = next else { break };
                let result = run_boot(boot).unwrap_or_else(|error| {
                    let row = Row::of(
                        format!("{}: machine", boot.name),
                        0.0,
                        Some(format!("{error:#}")),
                    );
                    row.show();
                    vec![row]
                });
                found.lock().unwrap().extend(result);
            });
        }
    });
    rows.extend(found.into_inner().unwrap());
    let everything = wanted.is_empty() && !place::host();
    rows.push(matrix::report(&rows, everything)?);
    report::write(Path::new(RESULTS), &rows)?;
    Ok(report::summarize(&rows))
}

/// Whether this place has what the boot needs. On this machine, boots that differ only in the lab's machine are one.
fn fits(boot: &Boot) -> bool {
    if !place::host() {
        return true;
    }
    let first = BOOTS
        .iter()
        .find(|other| (other.job, other.argument) == (boot.job, boot.argument));
    first.is_some_and(|first| first.name == boot.name)
        && boot.needs.iter().all(|need| match need {
            Need::Lab => false,
            Need::Kvm => host::kvm_loaded(),
            _ => true,
        })
}

/// Boots the machine once and reads its tests.
fn run_boot(boot: &Boot) -> Result<Vec<Row>> {
    let machine = Machine {
        model: boot.model.to_string(),
        cpus: boot.cpus,
        memory: boot.memory,
        kvm: boot.kvm,
        append: String::new(),
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
        script: format!(
            "set -- {}\n{}",
            boot.argument,
            std::fs::read_to_string(format!("tests/lab/jobs/{}", boot.job))
                .with_context(|| boot.job.to_string())?
        ),
        ..Job::default()
    };
    let dir = bochs::prepare(boot.name)?;
    for need in boot.needs {
        match need {
            Need::MicroGuests => job.files.extend(guest::micro_guests()?),
            Need::Abi => {
                job.files.push((built("abi"), "abi".to_string()));
                job.modules.extend(["zram", "ext4"].map(String::from));
            }
            Need::MshvIoctls => job
                .files
                .push((built("mshv-ioctls"), "mshv-ioctls".to_string())),
            Need::LinuxGuest(kind) => job.data.extend(guest::linux(&dir, *kind)?),
            Need::Qemu => job.data.extend(guest::qemu()),
            Need::Ovmf => job.data.push(guest::ovmf()),
            Need::BiosDisk => job.data.push(disk::bios(&dir)?),
            Need::Differences | Need::Kvm | Need::Lab => {}
        }
    }
    let mut reader = Reader::new(boot.name);
    if boot.needs.contains(&Need::Differences) {
        job.files
            .push((PathBuf::from(differences::LIST), "on-kvm".to_string()));
        reader.judge_by(Differences::load()?);
    }
    let timeout = Duration::from_secs(boot.timeout);
    let outcome = bochs::run(
        &dir,
        &machine,
        &job,
        timeout,
        Show::default(),
        &mut |line| reader.line(line),
    )?;
    let failure = if outcome.ok() {
        None
    } else {
        let mut text = Vec::new();
        bochs::explain(&dir, &outcome, &mut text)?;
        Some(String::from_utf8_lossy(&text).trim_end().to_string())
    };
    Ok(reader.finish(outcome.seconds, failure))
}
