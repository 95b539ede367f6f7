//! A job on this machine instead of in the lab's (`HOST=1`). The driver is an ordinary user; only the job is root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
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

/// What the tests need here besides what builds hvrs: a file, and Debian 13's package with it.
const FILES: &[(&str, &str)] = &[
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/bin/rustfmt", "rustfmt"),
    ("/usr/bin/cargo-clippy", "rust-clippy"),
    ("/usr/bin/shellcheck", "shellcheck"),
    ("/usr/bin/stress-ng", "stress-ng"),
    (
        "/usr/bin/qemu-system-x86_64",
        "qemu-system-x86/trixie-backports",
    ),
    ("/usr/share/seabios/bios-256k.bin", "seabios"),
];

/// An error with the line that installs what the tests lack.
pub fn missing_packages() -> Result<()> {
    let missing: Vec<&str> = FILES
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    ensure!(
        missing.is_empty(),
        "the tests need more than is here; try: apt install {}",
        missing.join(" ")
    );
    Ok(())
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
    let before = kernel_log()?;
    let start = Instant::now();
    // An ordinary user's PATH lacks the last two on Debian.
    let path = format!(
        "{}:{}:/usr/sbin:/sbin",
        dir.join("job").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    // The scripts are written for busybox' shell. sudo(8) resets the environment, so env(1) comes after it.
    let mut child = as_root("env")
        .arg(format!("PATH={path}"))
        .arg(format!("DATA={}", dir.join("data").display()))
        .args(["HVRS_HOST=1", "timeout", "--kill-after=5"])
        .arg(timeout.as_secs().to_string())
        .args(["busybox", "sh"])
        .arg(&script)
        .current_dir(dir.join("job"))
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
    let new = since(&before, kernel_log()?);
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

/// A program as root.
fn as_root(program: &str) -> Command {
    // A process' directory in /proc is its user's.
    let root = fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0);
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

fn kernel_log() -> Result<Vec<String>> {
    let text = image::run(&mut as_root("dmesg"))?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .map(String::from)
        .collect())
}

/// What is new in the log. It is a ring: its length says nothing, and the end of `before` may be gone from it.
fn since(before: &[String], log: Vec<String>) -> Vec<String> {
    let old = before
        .last()
        .and_then(|last| log.iter().rposition(|line| line == last));
    match old {
        Some(old) => log[old + 1..].to_vec(),
        None => log,
    }
}

/// The same lines that init.sh looks for in the lab.
fn is_complaint(line: &str) -> bool {
    [
        "WARNING: ",
        "BUG: ",
        "Oops",
        "general protection",
        "UBSAN",
        "INFO: task",
        "INFO: rcu",
        "soft lockup",
        "hard LOCKUP",
    ]
    .iter()
    .any(|text| line.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_in_a_ring() {
        let lines = |text: &str| -> Vec<String> { text.chars().map(String::from).collect() };
        assert_eq!(since(&lines("abc"), lines("abcde")), lines("de"));
        assert_eq!(since(&lines("abc"), lines("bcd")), lines("d"));
        assert_eq!(since(&lines("abc"), lines("abc")), lines(""));
        assert_eq!(since(&lines("abc"), lines("xyz")), lines("xyz"));
        assert_eq!(since(&[], lines("x")), lines("x"));
    }
}
