//! The lab: a VT-x machine on a machine without VT-x. Boots Debian's stock kernel in Bochs with files and a job.

mod bench;
mod bochs;
mod cargo;
mod check;
mod differences;
mod disk;
mod guest;
mod host;
mod image;
mod machine;
mod matrix;
mod place;
mod protocol;
mod report;
mod suites;
mod test;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::bochs::{End, Show};
use crate::image::Job;
use crate::machine::Machine;
use crate::place::built;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Boot the machine with files and run one job in it; the exit status is the job's
    Run(Run),
    /// Run tests and write build/test-results.json
    Test(Test),
    /// Show a guest booting, live
    Demo,
    /// Measure, beside KVM, and write build/bench.json
    Bench,
}

#[derive(Args)]
struct Test {
    /// Boots at the same time; 0 is one for each host CPU, at most 4
    #[arg(long, default_value_t = 0)]
    parallel: usize,
    /// The long suites, too
    #[arg(long)]
    all: bool,
    /// Suites: check, units, or names of boots; all but the long ones if none is given
    suites: Vec<String>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    machine: Machine,
    /// File for /job (in memory), optionally under another name: PATH[=NAME]
    #[arg(long = "file", value_name = "PATH[=NAME]")]
    files: Vec<String>,
    /// File or directory for /data (on a disk), for what is large: PATH[=NAME]
    #[arg(long = "data", value_name = "PATH[=NAME]")]
    data: Vec<String>,
    /// Module of the stock kernel to load before the job, with what it depends on
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Host seconds after which the machine is stopped
    #[arg(long, default_value_t = 180)]
    timeout: u64,
    /// Show the machine's console on standard error
    #[arg(long)]
    console: bool,
    /// Print the kernel's log at the end
    #[arg(long)]
    dmesg: bool,
    /// Name of the run: its files are in build/lab/runs
    #[arg(long, alias = "dir", default_value = "run", value_parser = plain_name)]
    name: String,
    /// The job: text for the shell, or the name of a file with it
    job: String,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Run(args) => run(&args),
        Verb::Demo => demo(),
        Verb::Bench => Ok(status(bench::run()?)),
        Verb::Test(args) => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            let parallel = if args.parallel == 0 {
                cpus.min(4)
            } else {
                args.parallel
            };
            Ok(status(test::run(&args.suites, args.all, parallel)?))
        }
    }
}

fn status(ok: bool) -> ExitCode {
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// hvrs, and a guest with two VPs whose console is shown as it comes.
fn demo() -> Result<ExitCode> {
    let machine = Machine::plain();
    let mut job = Job {
        files: vec![
            (built("module/hvrs.ko"), "hvrs.ko".to_string()),
            (built("hvrsctl"), "hvrsctl".to_string()),
        ],
        script: fs::read_to_string("tests/lab/jobs/demo.sh")?,
        ..Job::default()
    };
    // hvrsctl makes the guest's initramfs of the busybox that it finds.
    job.data.push(guest::kernel()?);
    let dir = bochs::prepare("demo")?;
    let show = Show {
        console: false,
        pulse: true,
    };
    if !place::host() {
        println!("booting the lab's machine, which has VT-x, in Bochs: about half a minute");
    }
    let timeout = Duration::from_secs(600);
    let outcome = bochs::run(&dir, &machine, &job, timeout, show, &mut |line| {
        println!("{line}")
    })?;
    if outcome.ok() {
        println!("demo: all as it should be, in {:.0} s", outcome.seconds);
        return Ok(ExitCode::SUCCESS);
    }
    bochs::explain(&dir, &outcome, &mut std::io::stderr())?;
    Ok(ExitCode::FAILURE)
}

fn run(args: &Run) -> Result<ExitCode> {
    let script = if Path::new(&args.job).is_file() {
        fs::read_to_string(&args.job)?
    } else {
        args.job.clone()
    };
    let job = Job {
        files: args
            .files
            .iter()
            .map(|text| named(text))
            .collect::<Result<_>>()?,
        data: args
            .data
            .iter()
            .map(|text| named(text))
            .collect::<Result<_>>()?,
        modules: args.modules.clone(),
        script,
        dmesg: args.dmesg,
    };
    let dir = bochs::prepare(&args.name)?;
    let timeout = Duration::from_secs(args.timeout);
    let outcome = bochs::run(
        &dir,
        &args.machine,
        &job,
        timeout,
        Show {
            console: args.console,
            pulse: false,
        },
        &mut |line| println!("{line}"),
    )?;
    if args.dmesg {
        outcome.dmesg.iter().for_each(|line| println!("{line}"));
    }
    if outcome.ok() {
        eprintln!("lab: ok in {:.1} s", outcome.seconds);
        return Ok(ExitCode::SUCCESS);
    }
    bochs::explain(&dir, &outcome, &mut std::io::stderr())?;
    Ok(match outcome.end {
        End::Exit(status @ 1..=255) => ExitCode::from(status as u8),
        _ => ExitCode::FAILURE,
    })
}

/// The last part of a path.
fn plain_name(text: &str) -> Result<String, String> {
    let name = Path::new(text).file_name().ok_or("not a name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// PATH[=NAME]: where a file is, and what it is called in the machine.
fn named(text: &str) -> Result<(PathBuf, String)> {
    let (path, name) = match text.split_once('=') {
        Some((path, name)) => (PathBuf::from(path), name.to_string()),
        None => {
            let path = PathBuf::from(text);
            let name = path
                .file_name()
                .with_context(|| format!("{text} has no file name"))?
                .to_string_lossy()
                .into_owned();
            (path, name)
        }
    };
    Ok((path, name))
}
