//! A job on this machine instead of in the lab's (`HOST=1`).

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::bochs::{End, Listener, Outcome};
use crate::image::{self, Job};

/// Whether kvm_intel is loaded: what "with KVM" means for a test is the machine's state here, and not ours to change.
pub fn kvm_loaded() -> bool {
    Path::new("/sys/module/kvm_intel").exists()
}

/// Runs the job with its files in `dir`, and returns when it has ended or `timeout` is over.
pub fn run(dir: &Path, job: &Job, timeout: Duration, listener: Listener) -> Result<Outcome> {
    ensure!(
        !Path::new("/sys/module/hvrs").exists(),
        "hvrs is loaded on this machine: the tests load and unload it themselves; do rmmod hvrs first"
    );
    let dir = fs::canonicalize(dir)?;
    for (files, part) in [(&job.files, "job"), (&job.data, "data")] {
        for (path, name) in files {
            let target: PathBuf = dir.join(part).join(name);
            fs::create_dir_all(target.parent().context("target has no parent")?)?;
            image::run(
                Command::new("cp")
                    .args(["-rL", "--preserve=mode"])
                    .arg(path)
                    .arg(target),
            )?;
        }
    }
    let script = dir.join("job.sh");
    fs::write(&script, &job.script)?;
    let before = kernel_log()?.len();
    let start = Instant::now();
    let path = format!(
        "{}:{}",
        dir.join("job").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    // The scripts are written for busybox' shell.
    let mut child = Command::new("timeout")
        .args([
            "--kill-after=5",
            &timeout.as_secs().to_string(),
            "busybox",
            "sh",
        ])
        .arg(&script)
        .current_dir(dir.join("job"))
        .env("PATH", path)
        .env("DATA", dir.join("data"))
        .env("HVRS_HOST", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start busybox (apt install busybox-static)")?;
    let output = child.stdout.take().context("the job's output")?;
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches('\r')
                .to_string();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut lines = Vec::new();
    for line in receiver {
        listener(&line);
        lines.push(line);
    }
    let status = child.wait()?;
    drop(reader.join());
    let log = kernel_log()?;
    let new = log.get(before..).unwrap_or(&log).to_vec();
    Ok(Outcome {
        end: match status.code() {
            // What timeout(1) says when it had to stop the job.
            Some(124 | 137) => End::Timeout,
            Some(code) => End::Exit(code),
            None => End::Dead(status.to_string()),
        },
        lines,
        complaints: new
            .iter()
            .filter(|line| is_complaint(line))
            .cloned()
            .collect(),
        dmesg: new,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn kernel_log() -> Result<Vec<String>> {
    let text = image::run(&mut Command::new("dmesg"))?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .map(String::from)
        .collect())
}

/// The same lines that init.sh looks for in the lab.
fn is_complaint(line: &str) -> bool {
    [
        "WARNING: ",
        "BUG: ",
        "Oops",
        "general protection",
        "UBSAN",
        "soft lockup",
        "hard LOCKUP",
    ]
    .iter()
    .any(|text| line.contains(text))
}
