//! Where another hypervisor and hvrs differ: `tests/on-kvm` says for each test who is right, and by what.
//!
//! A failure that is listed there is no failure, but a pass that is listed as one is: the list stays true both ways. Of it and
//! of what the tests said, `build/on-kvm.md` is made. Nothing of this counts as a test of hvrs.

use std::cell::Cell;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use crate::protocol::ENDS;
use crate::report::{Row, Verdict};

/// The list. The job reads it, too: the tests that are left out.
pub const LIST: &str = "tests/on-kvm";
/// What is made of it.
const PAGE: &str = "build/on-kvm.md";
/// Who can be right.
const RIGHT: [&str; 4] = ["hvrs", "kvm", "either", "machine"];

/// One difference.
struct Entry {
    test: String,
    right: String,
    left_out: bool,
    rule: String,
    why: String,
    /// What the test said, once it ran.
    seen: Cell<Option<String>>,
}

/// All of them.
pub struct Differences(Vec<Entry>);

impl Differences {
    /// Reads the list.
    pub fn load() -> Result<Self> {
        Self::read(&fs::read_to_string(LIST).context(LIST)?).context(LIST)
    }

    fn read(text: &str) -> Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
            let [test, right, rule, why] = cells[..] else {
                bail!("not four cells: {line}");
            };
            let (right, left_out) = match right.strip_suffix(" (left out)") {
                Some(right) => (right, true),
                None => (right, false),
            };
            ensure!(test.contains(": "), "not \"image: test\": {line}");
            ensure!(RIGHT.contains(&right), "nobody is right: {line}");
            ensure!(!rule.is_empty() && !why.is_empty(), "no reason: {line}");
            ensure!(
                entries.iter().all(|e| e.test != test),
                "{test} is there twice"
            );
            entries.push(Entry {
                test: test.to_string(),
                right: right.to_string(),
                left_out,
                rule: rule.to_string(),
                why: why.to_string(),
                seen: Cell::new(None),
            });
        }
        Ok(Self(entries))
    }

    /// Makes of a test's row what the list says of it.
    pub fn judge(&self, row: &mut Row) {
        row.ids.clear();
        let name = row.name.split_once(": ").map_or("", |(_, name)| name);
        let Some(entry) = self.0.iter().find(|entry| entry.test == name) else {
            return;
        };
        match (row.result, entry.left_out) {
            (Verdict::Fail, false) | (Verdict::Skip, true) => {
                let said = row.reason.lines().next().unwrap_or("");
                entry.seen.set(Some(said.to_string()));
                row.result = Verdict::Skip;
                row.reason = format!("{}, {}: {}", entry.right, entry.rule, entry.why);
            }
            (Verdict::Skip, false) => {
                row.result = Verdict::Fail;
                row.reason = format!("listed in {LIST}, but skipped: {}", row.reason);
                entry.seen.set(Some(String::new()));
            }
            (Verdict::Pass | Verdict::Fail, _) => {
                row.result = Verdict::Fail;
                row.reason = format!("listed in {LIST}, but there is no difference");
                entry.seen.set(Some(String::new()));
            }
        }
    }

    /// Writes the page; a row that says whether all that is listed was seen.
    pub fn finish(&self, suite: &str, rows: &[Row]) -> Result<Row> {
        if let Some(parent) = Path::new(PAGE).parent() {
            fs::create_dir_all(parent)?;
        }
        // Not the rows about groups and the boot.
        let is_test = |row: &&Row| row.name.matches(": ").count() > 1 && !row.name.ends_with(ENDS);
        let passed = rows
            .iter()
            .filter(|row| row.result == Verdict::Pass)
            .filter(is_test)
            .count();
        fs::write(PAGE, self.page(passed))?;
        let unseen = self.unseen();
        let failure =
            (!unseen.is_empty()).then(|| format!("listed, but did not run: {}", unseen.join(", ")));
        Ok(Row::of(
            format!("{suite}: what is listed was seen"),
            0.0,
            failure,
        ))
    }

    fn unseen(&self) -> Vec<&str> {
        let mut unseen = Vec::new();
        for entry in &self.0 {
            match entry.seen.take() {
                None => unseen.push(entry.test.as_str()),
                said => entry.seen.set(said),
            }
        }
        unseen
    }

    fn page(&self, passed: usize) -> String {
        let mut text = format!(
            "# The micro-guests on QEMU/KVM: where it differs from hvrs\n\n\
             {passed} tests pass there as on hvrs, {} differ. Who is right: hvrs, kvm, either (the text allows both), or nobody, \
             because it is QEMU's machine that the test does not fit.\n\n\
             | test | right | by | why | on KVM |\n|---|---|---|---|---|\n",
            self.0.len()
        );
        for entry in &self.0 {
            let seen = entry.seen.take();
            let said = match &seen {
                Some(_) if entry.left_out => "ends QEMU's machine, so it is left out",
                Some(said) if !said.is_empty() => said,
                _ => "did not differ",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                entry.test,
                entry.right,
                entry.rule,
                entry.why,
                said.replace('|', "\\|")
            );
            entry.seen.set(seen);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# text\na: x | hvrs | TLFS 1 | so\na: y | kvm (left out) | SDM 2 | thus\n";

    fn judged(list: &Differences, name: &str, result: Verdict) -> Verdict {
        let mut row = Row::new(format!("s: {name}"), result, 0.0, "said");
        row.ids = vec!["C-1".to_string()];
        list.judge(&mut row);
        assert!(row.ids.is_empty());
        row.result
    }

    #[test]
    fn reads_and_refuses() {
        assert_eq!(Differences::read(LIST).unwrap().0.len(), 2);
        for bad in [
            "a: x | hvrs | TLFS 1",
            "a: x | me | TLFS 1 | so",
            "x | hvrs | TLFS 1 | so",
            "a: x | hvrs |  | so",
            "a: x | hvrs | 1 | so\na: x | hvrs | 1 | so",
        ] {
            assert!(Differences::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_holds_both_ways() {
        let list = Differences::read(LIST).unwrap();
        use Verdict::{Fail, Pass, Skip};
        for (name, result, verdict) in [
            ("a: x", Fail, Skip),
            ("a: x", Pass, Fail),
            ("a: x", Skip, Fail),
            ("a: y", Skip, Skip),
            ("a: y", Pass, Fail),
            ("a: z", Fail, Fail),
            ("a: z", Pass, Pass),
        ] {
            assert_eq!(judged(&list, name, result), verdict, "{name} {result:?}");
        }
    }

    #[test]
    fn what_is_listed_must_run() {
        let list = Differences::read(LIST).unwrap();
        judged(&list, "a: x", Verdict::Fail);
        assert_eq!(list.unseen(), ["a: y"]);
        judged(&list, "a: y", Verdict::Skip);
        assert!(list.unseen().is_empty());
        let page = list.page(3);
        assert!(
            page.contains("| a: x | hvrs | TLFS 1 | so | said |"),
            "{page}"
        );
    }
}
