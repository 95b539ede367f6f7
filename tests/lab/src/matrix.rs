//! The TLFS as a table, `tests/matrix`: what is claimed, which tests name it, and `build/matrix.md` of both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use crate::report::{Row, Verdict};

/// The table.
const TABLE: &str = "tests/matrix";
/// What is made of it.
const PAGE: &str = "build/matrix.md";
/// Where tests that name rows are.
const TESTS: [&str; 3] = ["tests/guests/images/", "tests/abi/src/", "tests/lab/jobs/"];

#[derive(Debug, PartialEq)]
enum State {
    Done,
    Not(String),
    NotApplicable(String),
}

struct Claim {
    section: String,
    id: String,
    tier: String,
    what: String,
    state: State,
}

/// Reads the table.
fn read(text: &str) -> Result<Vec<Claim>> {
    let mut reasons = HashMap::new();
    let mut section = String::new();
    let mut claims: Vec<Claim> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(heading) = line.strip_prefix('#') {
            section = heading.trim().to_string();
            continue;
        }
        if let Some(reason) = line.strip_prefix("reason ") {
            let (name, why) = reason.split_once(' ').context("a reason without a text")?;
            reasons.insert(name, why);
            continue;
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let [id, tier, what, state] = cells[..] else {
            bail!("not four cells: {line}");
        };
        ensure!(is_id(id), "not an ID: {line}");
        ensure!(claims.iter().all(|c| c.id != id), "{id} is there twice");
        let (word, why) = state.split_once(' ').unwrap_or((state, ""));
        let why = reasons.get(why).copied().unwrap_or(why);
        // A reason's name that is not defined.
        let said = why.contains(' ');
        let state = match word {
            "done" if why.is_empty() => State::Done,
            "no" if said => State::Not(why.to_string()),
            "n/a" if said => State::NotApplicable(why.to_string()),
            _ => bail!("{id}: neither done nor a reason: {state}"),
        };
        claims.push(Claim {
            section: section.clone(),
            id: id.to_string(),
            tier: tier.to_string(),
            what: what.to_string(),
            state,
        });
    }
    Ok(claims)
}

/// Whether a word is the ID of a row: a letter, a dash, a number of some kind.
fn is_id(word: &str) -> bool {
    let mut chars = word.chars();
    let letter = chars.next().is_some_and(|c| "CMAHFKV".contains(c));
    let dash = chars.next() == Some('-');
    let rest = chars.as_str();
    let digit = rest.contains(|c: char| c.is_ascii_hexdigit());
    letter
        && dash
        && digit
        && rest
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "/.b".contains(c))
}

/// IDs in the source of tests: string literals that are nothing else (`"M-00 M-01"`) or end in them (`"… [H-50]"`).
fn named(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in source.lines() {
        // Every second piece is between quotes.
        for literal in line.split('"').skip(1).step_by(2) {
            let words = match literal.strip_suffix(']').and_then(|l| l.rsplit_once('[')) {
                Some((_, words)) => words,
                None => literal,
            };
            let words: Vec<&str> = words.split_whitespace().collect();
            if words.iter().all(|word| is_id(word)) {
                found.extend(words.into_iter().map(String::from));
            }
        }
    }
    found
}

/// What of the table is not so: rows claimed that no test names, IDs that are no row.
pub fn check(sources: &[String]) -> Result<Option<String>> {
    let claims = match load() {
        Ok(claims) => claims,
        Err(error) => return Ok(Some(format!("{error:#}"))),
    };
    let mut tested = BTreeMap::new();
    for path in sources
        .iter()
        .filter(|path| TESTS.iter().any(|place| path.starts_with(place)))
    {
        for id in named(&fs::read_to_string(path)?) {
            tested.insert(id, path);
        }
    }
    let mut problems = Vec::new();
    for claim in &claims {
        if claim.state == State::Done && !tested.contains_key(&claim.id) {
            problems.push(format!(
                "{TABLE}: {} is claimed, but no test names it",
                claim.id
            ));
        }
    }
    for (id, path) in tested {
        if claims.iter().all(|claim| claim.id != id) {
            problems.push(format!("{path}: {id} is no row of {TABLE}"));
        }
    }
    Ok((!problems.is_empty()).then(|| problems.join("\n")))
}

fn load() -> Result<Vec<Claim>> {
    read(&fs::read_to_string(TABLE).with_context(|| format!("reading {TABLE}"))?)
        .with_context(|| TABLE.to_string())
}

/// Writes the page. `everything`: all suites ran, so that a row claimed must have a test that passed; the failure else.
pub fn report(rows: &[Row], everything: bool) -> Result<Row> {
    let claims = load()?;
    let (text, unproved) = page(&claims, rows);
    if let Some(parent) = Path::new(PAGE).parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(PAGE, text)?;
    let failure = (everything && !unproved.is_empty())
        .then(|| format!("claimed, but no test passed: {}", unproved.join(" ")));
    let row = Row::of("matrix: what is claimed is tested", 0.0, failure);
    row.show();
    Ok(row)
}

/// The page, and the rows claimed for which no test passed.
fn page(claims: &[Claim], rows: &[Row]) -> (String, Vec<String>) {
    let mut tests: HashMap<&str, BTreeMap<&str, Verdict>> = HashMap::new();
    for row in rows {
        // The suite's name does not matter: most run in several.
        let name = row.name.split_once(": ").map_or(&*row.name, |(_, n)| n);
        for id in &row.ids {
            let verdict = tests
                .entry(id)
                .or_default()
                .entry(name)
                .or_insert(row.result);
            match (*verdict, row.result) {
                (_, Verdict::Fail) | (Verdict::Skip, _) => *verdict = row.result,
                _ => {}
            }
        }
    }
    let count = |is: fn(&State) -> bool| claims.iter().filter(|c| is(&c.state)).count();
    let mut text = format!(
        "# The TLFS: what hvrs does\n\n{} rows: {} done, {} not done, {} not applicable. Tests are those of the last run.\n",
        claims.len(),
        count(|s| *s == State::Done),
        count(|s| matches!(s, State::Not(_))),
        count(|s| matches!(s, State::NotApplicable(_))),
    );
    let mut unproved = Vec::new();
    let mut section = "";
    for claim in claims {
        if claim.section != section {
            section = &claim.section;
            let _ = write!(
                text,
                "\n## {section}\n\n| ID | tier | what | state | tests |\n|---|---|---|---|---|\n"
            );
        }
        let found = tests.get(&*claim.id);
        let passed = found.is_some_and(|t| t.values().any(|v| *v == Verdict::Pass));
        let state = match &claim.state {
            State::Done if passed => "done".to_string(),
            State::Done => {
                unproved.push(claim.id.clone());
                "done (did not run)".to_string()
            }
            State::Not(why) => format!("not done: {why}"),
            State::NotApplicable(why) => format!("not applicable: {why}"),
        };
        let names: Vec<String> = found
            .into_iter()
            .flatten()
            .map(|(name, verdict)| match verdict {
                Verdict::Pass => name.to_string(),
                Verdict::Fail => format!("**{name} FAILED**"),
                Verdict::Skip => format!("{name} (skipped)"),
            })
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {state} | {} |",
            claim.id,
            claim.tier,
            claim.what,
            names.join("; ")
        );
    }
    (text, unproved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "# One\nreason LATER some day\nC-1 | P0 | a leaf | done\nM-2 | P1 | an MSR | no LATER\n";

    #[test]
    fn reads_and_refuses() {
        let claims = read(SMALL).unwrap();
        assert_eq!(claims[1].state, State::Not("some day".to_string()));
        assert_eq!(claims[0].section, "One");
        for bad in [
            "C-1 | P0 | a | done but",
            "C-1 | P0 | a | no",
            "C-1 | P0 | a | no UNKNOWN",
            "C-1 | P0 | a",
            "X-1 | P0 | a | done",
            "C-1 | P0 | a | done\nC-1 | P0 | a | done",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn finds_ids() {
        let source = "test!(a, \"C-1 M-2\", b), case(\"some [call] [H-50]\"), \"F-X ray\", \"-\", \"H-D9/DB/11C\"";
        let ids: Vec<String> = named(source).into_iter().collect();
        assert_eq!(ids, ["C-1", "H-50", "H-D9/DB/11C", "M-2"]);
    }

    #[test]
    fn claims_need_tests_that_passed() {
        let claims = read(SMALL).unwrap();
        let mut row = Row::new("guests: cpuid: leaf", Verdict::Skip, 0.0, "no leaf");
        row.ids = vec!["C-1".to_string()];
        let mut again = Row::new("guests-kvm: cpuid: leaf", Verdict::Pass, 0.0, "");
        again.ids = row.ids.clone();
        assert_eq!(page(&claims, &[row.clone()]).1, ["C-1"]);
        let (text, unproved) = page(&claims, &[row, again]);
        assert!(unproved.is_empty());
        assert!(text.contains("| C-1 | P0 | a leaf | done | cpuid: leaf |"));
        assert!(text.contains("not done: some day"));
    }
}
