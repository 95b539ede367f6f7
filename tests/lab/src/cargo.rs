//! Unit and property tests of the cargo packages, on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::place;
use crate::report::{Row, Verdict};

/// One line of the test harness' output.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    event: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    exec_time: f64,
    #[serde(default)]
    stdout: String,
}

/// The directories that an entry of the table stands for.
pub fn packages(entry: &str) -> Result<Vec<String>> {
    let Some(directory) = entry.strip_suffix("/*") else {
        return Ok(vec![entry.to_string()]);
    };
    let mut found = Vec::new();
    for item in fs::read_dir(directory).with_context(|| format!("reading {directory}"))? {
        let path = item?.path();
        if path.join("Cargo.toml").exists() {
            found.push(path.display().to_string());
        }
    }
    found.sort();
    Ok(found)
}

/// Runs the tests of one package.
pub fn test(package: &str) -> Result<Vec<Row>> {
    let start = Instant::now();
    let name = Path::new(package)
        .file_name()
        .context("package name")?
        .to_string_lossy()
        .into_owned();
    let target = Path::new(package)
        .parent()
        .map_or(String::new(), |parent| parent.display().to_string());
    let target = if target.is_empty() {
        name.clone()
    } else {
        target
    };
    let output = Command::new("cargo")
        .args(["test", "-q", "--no-fail-fast", "--manifest-path"])
        .arg(format!("{package}/Cargo.toml"))
        .args([
            "--target-dir",
            &format!("{}/cargo-test/{}", place::build(), target.replace('/', "-")),
        ])
        .args([
            "--",
            "-Zunstable-options",
            "--format",
            "json",
            "--report-time",
        ])
        // The harness' JSON output is not stable yet.
        .env("RUSTC_BOOTSTRAP", "1")
        .output()
        .context("cannot start cargo")?;
    let mut rows = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(event) = serde_json::from_str::<Event>(line) else {
            continue;
        };
        if event.kind != "test" {
            continue;
        }
        let result = match event.event.as_str() {
            "ok" => Verdict::Pass,
            "failed" => Verdict::Fail,
            "ignored" => Verdict::Skip,
            _ => continue,
        };
        let reason = match result {
            Verdict::Fail => event.stdout.trim().to_string(),
            Verdict::Skip => "ignored".to_string(),
            Verdict::Pass => String::new(),
        };
        rows.push(Row::new(
            format!("{name}: {}", event.name),
            result,
            event.exec_time,
            reason,
        ));
    }
    let passed = rows.iter().all(|row| row.result != Verdict::Fail);
    rows.iter()
        .filter(|row| row.result == Verdict::Fail)
        .for_each(Row::show);
    let failure = if !output.status.success() && passed {
        Some(format!(
            "cargo test: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    } else {
        None
    };
    let row = Row::of(
        format!("{name}: builds and {} tests end", rows.len()),
        start.elapsed().as_secs_f64(),
        failure,
    );
    row.show();
    rows.push(row);
    Ok(rows)
}
