//! What the scripts in `tests/lab/jobs`, and the guests they start, print:
//!
//! | line | meaning |
//! |---|---|
//! | `begin GROUP` | the tests that follow belong to GROUP |
//! | `ok NAME [IDS]` | passed; IDS are rows of the TLFS matrix, or `-` |
//! | `not ok NAME [IDS]: reason` | failed |
//! | `skip NAME: reason` | the machine lacks what the test needs |
//! | `done N_ok N_failed` | the guest's own count |
//! | `end GROUP STATUS WANTED` | the group is over, with this exit status and that one wanted |
//!
//! Everything else is shown only when the group fails. A group without a test, without its `done` or its `end` has failed.

use std::time::Instant;

use crate::differences::Differences;
use crate::report::{Row, Verdict};

/// Reads the lines of one boot.
pub struct Reader {
    suite: String,
    group: Option<Group>,
    mark: Instant,
    differences: Option<Differences>,
    /// What came out so far.
    pub rows: Vec<Row>,
}

struct Group {
    name: String,
    passed: usize,
    failed: usize,
    skipped: usize,
    done: bool,
    context: Vec<String>,
    start: Instant,
}

/// The row that a group ends with.
pub const ENDS: &str = "runs to its end";
/// Lines shown of a group that failed.
const CONTEXT: usize = 25;

impl Reader {
    /// For the boot called `suite`.
    pub fn new(suite: &str) -> Self {
        Self {
            suite: suite.to_string(),
            group: None,
            mark: Instant::now(),
            differences: None,
            rows: Vec::new(),
        }
    }

    /// What runs is not hvrs, and may differ where the list says so.
    pub fn judge_by(&mut self, differences: Differences) {
        self.differences = Some(differences);
    }

    fn add(&mut self, mut row: Row) {
        if let Some(differences) = &self.differences {
            differences.judge(&mut row);
        }
        row.show();
        self.rows.push(row);
    }

    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("begin ") {
            self.close(Some("no end"));
            self.mark = Instant::now();
            self.group = Some(Group {
                name: name.trim().to_string(),
                passed: 0,
                failed: 0,
                skipped: 0,
                done: false,
                context: Vec::new(),
                start: self.mark,
            });
        } else if let Some(rest) = line.strip_prefix("ok ") {
            let (name, ids) = named(rest);
            self.test(&name, ids, Verdict::Pass, "");
        } else if let Some(rest) = line.strip_prefix("not ok ") {
            let (test, reason) = split_reason(rest);
            let (name, ids) = named(test);
            self.test(&name, ids, Verdict::Fail, reason);
        } else if let Some(rest) = line.strip_prefix("skip ") {
            let (test, reason) = split_reason(rest);
            let (name, ids) = named(test);
            self.test(&name, ids, Verdict::Skip, reason);
        } else if let Some(rest) = line.strip_prefix("done ") {
            self.done(rest);
        } else if let Some(rest) = line.strip_prefix("end ") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            match words[..] {
                [_, .., status, wanted] if status == wanted => self.close(None),
                [_, .., status, wanted] => {
                    self.close(Some(&format!("exit status {status} instead of {wanted}")))
                }
                _ => self.close(Some(&format!("strange line: {line}"))),
            }
        } else if let Some(group) = &mut self.group {
            group.context.push(line.to_string());
        }
    }

    /// The boot is over; `failure` says how if it did not end well.
    pub fn finish(mut self, seconds: f64, failure: Option<String>) -> Vec<Row> {
        self.close(Some("no end"));
        let failure = failure.or_else(|| {
            self.rows
                .is_empty()
                .then(|| "no test ran in this boot".to_string())
        });
        self.add(Row::of(
            format!("{}: machine", self.suite),
            seconds,
            failure,
        ));
        if let Some(differences) = self.differences.take() {
            let row = differences
                .finish(&self.suite, &self.rows)
                .unwrap_or_else(|error| {
                    Row::of(
                        format!("{}: table", self.suite),
                        0.0,
                        Some(format!("{error:#}")),
                    )
                });
            row.show();
            self.rows.push(row);
        }
        self.rows
    }

    fn test(&mut self, name: &str, ids: Vec<String>, result: Verdict, reason: &str) {
        let seconds = self.mark.elapsed().as_secs_f64();
        self.mark = Instant::now();
        let prefix = self
            .group
            .as_ref()
            .map_or(String::new(), |group| format!("{}: ", group.name));
        let mut row = Row::new(
            format!("{}: {prefix}{name}", self.suite),
            result,
            seconds,
            reason,
        );
        row.ids = ids;
        self.add(row);
        // As the guest counts, whatever is made of it.
        if let Some(group) = &mut self.group {
            match result {
                Verdict::Pass => group.passed += 1,
                Verdict::Fail => group.failed += 1,
                Verdict::Skip => group.skipped += 1,
            }
        }
    }

    fn done(&mut self, rest: &str) {
        let counts: Vec<usize> = rest
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let Some(group) = &mut self.group else { return };
        if counts == [group.passed, group.failed] {
            group.done = true;
        } else {
            let seen = format!("{} {} seen", group.passed, group.failed);
            group.context.push(format!("done {rest}: but {seen}"));
        }
    }

    /// Ends the open group. One row more tells that it came to its end as it should.
    fn close(&mut self, failure: Option<&str>) {
        let Some(group) = self.group.take() else {
            return;
        };
        let mut reasons: Vec<String> = failure.map(String::from).into_iter().collect();
        if !group.done {
            reasons.push("no \"done\" line with the counts seen".to_string());
        }
        if group.passed + group.failed + group.skipped == 0 {
            reasons.push("no test ran".to_string());
        }
        // A failed test is enough of a reason; the status then only repeats it.
        if group.done && group.failed > 0 {
            reasons.clear();
        }
        let failure = (!reasons.is_empty()).then(|| {
            let from = group.context.len().saturating_sub(CONTEXT);
            format!(
                "{}\n{}",
                reasons.join(", "),
                group.context[from..].join("\n")
            )
        });
        let name = format!("{}: {}: {ENDS}", self.suite, group.name);
        self.add(Row::of(name, group.start.elapsed().as_secs_f64(), failure));
    }
}

/// `NAME [ID ID]` in its parts.
fn named(text: &str) -> (String, Vec<String>) {
    let (name, ids) = text.split_once(" [").unwrap_or((text, ""));
    let ids = ids
        .trim_end_matches(']')
        .split([' ', ','])
        .filter(|id| !id.is_empty() && *id != "-")
        .map(String::from)
        .collect();
    (name.trim().to_string(), ids)
}

/// `TEST: reason` in its parts.
fn split_reason(text: &str) -> (&str, &str) {
    // A name may contain a colon; where there are IDs, it ends after them.
    text.split_once("]: ")
        .or_else(|| text.split_once(": "))
        .unwrap_or((text, "no reason given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<Row> {
        let mut reader = Reader::new("s");
        lines.iter().for_each(|line| reader.line(line));
        reader.finish(1.0, None)
    }

    fn failed(rows: &[Row]) -> Vec<&str> {
        rows.iter()
            .filter(|row| row.result == Verdict::Fail)
            .map(|row| row.name.as_str())
            .collect()
    }

    #[test]
    fn all_well() {
        let rows = read(&[
            "begin g",
            "noise",
            "ok a [-]",
            "ok b [C-1, M-2]",
            "done 2 0",
            "end g 1 1",
        ]);
        assert!(failed(&rows).is_empty());
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[1].name, "s: g: b");
        assert_eq!(rows[1].ids, ["C-1", "M-2"]);
    }

    #[test]
    fn a_failed_test_counts_once() {
        let rows = read(&[
            "begin g",
            "ok a [-]",
            "not ok b: c [X]: why: so",
            "done 1 1",
            "end g 3 1",
        ]);
        assert_eq!(failed(&rows), ["s: g: b: c"]);
        assert_eq!(rows[1].reason, "why: so");
    }

    #[test]
    fn a_group_that_stops_early_fails() {
        for lines in [
            &["begin g", "ok a [-]"][..],
            &["begin g", "ok a [-]", "end g 1 1"],
            &["begin g", "ok a [-]", "done 2 0", "end g 1 1"],
            &["begin g", "done 0 0", "end g 1 1"],
            &["begin g", "ok a [-]", "done 1 0", "end g 0 1"],
            &[
                "begin g",
                "ok a [-]",
                "done 1 0",
                "begin h",
                "ok a [-]",
                "done 1 0",
                "end h 1 1",
            ],
        ] {
            assert_eq!(failed(&read(lines)), ["s: g: runs to its end"], "{lines:?}");
        }
    }

    #[test]
    fn a_boot_without_tests_fails() {
        assert_eq!(failed(&read(&["hello"])), ["s: machine"]);
    }
}
