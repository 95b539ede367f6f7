//! `make check`: formatting, lints, where `unsafe` may be, how long a file may be, shell scripts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::matrix;
use crate::place;
use crate::report::Row;
use crate::suites::WORKSPACES;

/// Lines of a source file, at most.
const MAX_LINES: usize = 1000;
/// Files that may contain `unsafe`, one a line.
const ALLOWED: &str = "tests/lab/unsafe-allowed";

/// Runs all checks.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |name: String, check: &dyn Fn() -> Result<Option<String>>| -> Result<()> {
        let start = Instant::now();
        let failure = check()?;
        let row = Row::of(
            format!("check: {name}"),
            start.elapsed().as_secs_f64(),
            failure,
        );
        row.show();
        rows.push(row);
        Ok(())
    };
    let sources = sources()?;
    for workspace in WORKSPACES {
        let manifest = format!("{workspace}/Cargo.toml");
        add(format!("rustfmt {workspace}"), &|| {
            command(Command::new("cargo").args([
                "fmt",
                "--all",
                "--check",
                "--manifest-path",
                &manifest,
            ]))
        })?;
        add(format!("clippy {workspace}"), &|| {
            let target = format!("{}/clippy/{}", place::build(), workspace.replace('/', "-"));
            let mut clippy = Command::new("cargo");
            clippy.args([
                "clippy",
                "-q",
                "--workspace",
                "--manifest-path",
                &manifest,
                "--target-dir",
                &target,
            ]);
            // A freestanding image has no test harness.
            if *workspace != "tests/guests" {
                clippy.arg("--all-targets");
            }
            command(clippy.args(["--", "-D", "warnings"]))
        })?;
    }
    add("rustfmt module".to_string(), &|| {
        command(Command::new("rustfmt").args(["--check", "--edition", "2021", "rust/hvrs.rs"]))
    })?;
    add("clippy module".to_string(), &|| {
        // objtool's lines do not count: clippy turns MIR optimizations off, and objtool does not know all of core's
        // functions that never return, calls to which then remain.
        warnings("module-clippy", |line| line.starts_with("warning"))
    })?;
    add("module links without warnings".to_string(), &|| {
        // What objtool says of the real module. It runs only when the module is linked.
        let _ = fs::remove_file(format!("{}/module/hvrs.o", place::build()));
        warnings("module", |line| line.contains("warning"))
    })?;
    add("where unsafe may be".to_string(), &|| {
        unsafe_files(&sources)
    })?;
    add("length of files".to_string(), &|| long_files(&sources))?;
    add("what tests/matrix claims".to_string(), &|| {
        matrix::check(&sources)
    })?;
    add("shellcheck".to_string(), &|| {
        let scripts: Vec<&String> = sources.iter().filter(|path| is_shell(path)).collect();
        command(
            Command::new("shellcheck")
                .args(["-x", "-P", "SCRIPTDIR"])
                .args(scripts),
        )
    })?;
    Ok(rows)
}

/// Makes `target`; everything it says is the reason if one line of it is a warning, or if it fails.
fn warnings(target: &str, is_warning: impl Fn(&str) -> bool) -> Result<Option<String>> {
    let output = Command::new("make")
        .args(["--no-print-directory", target])
        .output()?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let warned = text.lines().any(is_warning);
    Ok((warned || !output.status.success()).then_some(text))
}

/// Runs a command; what it says is the reason if it fails.
fn command(command: &mut Command) -> Result<Option<String>> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    Ok((!output.status.success()).then(|| {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().take(60).collect();
        format!("{command:?}\n{}", lines.join("\n"))
    }))
}

/// Our source files: everything in the tree but the build's output, other people's crates and lock files.
fn sources() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut directories = vec![".".to_string()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
            let path = path.trim_start_matches("./").to_string();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let skip = ["build", ".git", "rust/vendor"].contains(&path.as_str())
                    || path.ends_with("/target");
                if !skip {
                    directories.push(path);
                }
            } else if kind.is_file() && !path.ends_with(".lock") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_shell(path: &str) -> bool {
    path.ends_with(".sh")
        || fs::read(path).is_ok_and(|bytes| {
            let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
            first.starts_with(b"#!") && first.ends_with(b"sh")
        })
}

/// Files with the keyword `unsafe` must be exactly those of the list.
fn unsafe_files(sources: &[String]) -> Result<Option<String>> {
    let list = fs::read_to_string(ALLOWED).with_context(|| format!("reading {ALLOWED}"))?;
    let allowed: BTreeSet<&str> = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|line| !line.is_empty())
        .collect();
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for path in sources.iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(path)?;
        if !has_unsafe(&text) {
            continue;
        }
        match allowed
            .iter()
            .find(|entry| *entry == path || (entry.ends_with('/') && path.starts_with(**entry)))
        {
            Some(entry) => {
                used.insert(*entry);
            }
            None => problems.push(format!(
                "{path}: unsafe outside the files that {ALLOWED} lists"
            )),
        }
    }
    for entry in allowed.difference(&used) {
        problems.push(format!("{ALLOWED}: {entry} contains no unsafe (any more)"));
    }
    for path in sources
        .iter()
        .filter(|path| path.starts_with("rust/crates/") && path.ends_with("/src/lib.rs"))
    {
        let text = fs::read_to_string(path)?;
        for wanted in ["#![forbid(unsafe_code)]", "no_std"] {
            if !text.contains(wanted) {
                problems.push(format!("{path}: a pure crate needs {wanted}"));
            }
        }
    }
    Ok((!problems.is_empty()).then(|| problems.join("\n")))
}

/// Whether `unsafe` occurs as a keyword: not in comments, strings, attributes' arguments or longer words.
fn has_unsafe(text: &str) -> bool {
    code_words(text).any(|word| word == "unsafe")
}

/// The identifiers and keywords of Rust source, without comments and strings.
fn code_words(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || loop {
        let first = rest.chars().next()?;
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, after)| after);
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &rest[1 + hashes + 1..];
            rest = body.split_once(end.as_str()).map_or("", |(_, after)| after);
        } else if first == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = end.map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("'\"'") {
            rest = &rest[3..];
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let word = rest[..end].to_string();
            rest = &rest[end..];
            return Some(word);
        } else {
            rest = &rest[first.len_utf8()..];
        }
    })
}

/// The number of hashes if a raw string begins here.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    body[hashes..].starts_with('"').then_some(hashes)
}

fn long_files(sources: &[String]) -> Result<Option<String>> {
    let mut problems = Vec::new();
    for path in sources {
        let code = [".rs", ".c", ".h", ".S", ".sh"]
            .iter()
            .any(|end| path.ends_with(end));
        if code && Path::new(path).exists() {
            let lines = fs::read_to_string(path)?.lines().count();
            if lines > MAX_LINES {
                problems.push(format!("{path}: {lines} lines, more than {MAX_LINES}"));
            }
        }
    }
    Ok((!problems.is_empty()).then(|| problems.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::has_unsafe;

    /// Put together, so that what is Rust here is not taken for what is tested.
    const KEYWORD: &str = concat!("un", "safe");

    #[track_caller]
    fn check(source: &str, has_it: bool) {
        assert_eq!(has_unsafe(&source.replace('$', KEYWORD)), has_it);
    }

    #[test]
    fn finds_the_keyword_only() {
        check("fn f() { $ { g() } }", true);
        check("let a = '\"'; $ { g() }", true);
        check("r#\"x\"#; pub $ fn f() {}", true);
        check("// $\n/* $ */ let x = \"$ \\\" $\";", false);
        check("#![forbid($_code)]", false);
        check("r#\"$\"#; r\"$\"", false);
    }
}
