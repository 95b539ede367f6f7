//! Results: rows, the summary line, and `build/test-results.json`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

/// How one test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It ran and what it asserts holds.
    Pass,
    /// It does not hold, or it did not come to its end.
    Fail,
    /// The machine lacks what it needs.
    Skip,
}

/// One line of the results.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Suite and test.
    pub name: String,
    /// Rows of the TLFS matrix that the test stands for.
    pub ids: Vec<String>,
    /// How it went.
    pub result: Verdict,
    /// Host seconds.
    pub seconds: f64,
    /// Why it failed or was skipped.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Row {
    /// A row without IDs; `reason` is empty for a pass.
    pub fn new(
        name: impl Into<String>,
        result: Verdict,
        seconds: f64,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            ids: Vec::new(),
            result,
            seconds: (seconds * 1000.0).round() / 1000.0,
            reason: reason.into(),
        }
    }

    /// A pass, or a fail if there is a reason.
    pub fn of(name: impl Into<String>, seconds: f64, failure: Option<String>) -> Self {
        match failure {
            None => Self::new(name, Verdict::Pass, seconds, ""),
            Some(reason) => Self::new(name, Verdict::Fail, seconds, reason),
        }
    }

    /// Shows a row as it comes: passes in one line, failures with their reason.
    pub fn show(&self) {
        let word = match self.result {
            Verdict::Pass => "ok    ",
            Verdict::Fail => "FAILED",
            Verdict::Skip => "skip  ",
        };
        let mut reason = self.reason.lines();
        match reason.next() {
            None => println!("{word} {} ({:.1} s)", self.name, self.seconds),
            Some(first) => println!("{word} {}: {first}", self.name),
        }
        reason.for_each(|line| println!("       | {line}"));
    }
}

/// Writes the rows as JSON.
pub fn write(path: &Path, rows: &[Row]) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, serde_json::to_string_pretty(rows)? + "\n")?;
    Ok(())
}

/// Failures once more, then the last line. Whether all is well: nothing failed and something passed.
pub fn summarize(rows: &[Row]) -> bool {
    let count = |result| rows.iter().filter(|row| row.result == result).count();
    let failed = count(Verdict::Fail);
    if failed > 0 {
        println!("\nfailed:");
        rows.iter()
            .filter(|row| row.result == Verdict::Fail)
            .for_each(|row| {
                println!(
                    "  {}: {}",
                    row.name,
                    row.reason.lines().next().unwrap_or("")
                )
            });
    }
    if count(Verdict::Skip) > 0 {
        println!("{} skipped", count(Verdict::Skip));
    }
    let passed = count(Verdict::Pass);
    println!("{passed} passed, {failed} failed");
    failed == 0 && passed > 0
}
