//! One run of the machine: start Bochs, follow its two serial ports and its log, stop it, tell how it went.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::image::{self, Job};
use crate::machine::Machine;
use crate::{host, place};

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Everything the job printed, line by line.
    pub lines: Vec<String>,
    /// Lines of the kernel's log that must not be there.
    pub complaints: Vec<String>,
    /// The kernel's log, if the job failed or it was asked for.
    pub dmesg: Vec<String>,
    /// Host seconds from power-on to the end.
    pub seconds: f64,
}

/// The end of a run.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The job ended with this status.
    Exit(i32),
    /// The time given was up.
    Timeout,
    /// The kernel, or the emulated CPU, died.
    Dead(String),
}

impl Outcome {
    /// Job successful, kernel content.
    pub fn ok(&self) -> bool {
        self.end == End::Exit(0) && self.complaints.is_empty()
    }
}

/// What the caller sees while it runs.
pub type Listener<'a> = &'a mut dyn FnMut(&str);

/// What is shown by the way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Show {
    /// The machine's console, on standard error.
    pub console: bool,
    /// Elapsed time while nothing happens.
    pub pulse: bool,
}

/// Shows that a long silence is not a hang: elapsed seconds, on a terminal in place, else now and then a line.
struct Pulse {
    start: Instant,
    last_output: Instant,
    last_shown: Instant,
    terminal: bool,
    shown: bool,
}

impl Pulse {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last_output: now,
            last_shown: now,
            terminal: std::io::stderr().is_terminal(),
            shown: false,
        }
    }

    /// Something else is about to be printed.
    fn output(&mut self) {
        if self.shown && self.terminal {
            eprint!("\r\x1b[K");
        }
        self.shown = false;
        self.last_output = Instant::now();
        self.last_shown = self.last_output;
    }

    /// Called often.
    fn tick(&mut self) {
        let pause = Duration::from_secs(if self.terminal { 1 } else { 15 });
        if self.last_output.elapsed() < Duration::from_secs(3) || self.last_shown.elapsed() < pause
        {
            return;
        }
        self.last_shown = Instant::now();
        self.shown = true;
        let seconds = self.start.elapsed().as_secs();
        if self.terminal {
            eprint!("\r(… {seconds} s)\x1b[K");
        } else {
            eprintln!("(… {seconds} s)");
        }
    }
}

/// A file that another process appends to.
struct Tail {
    path: PathBuf,
    file: Option<File>,
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            rest: Vec::new(),
        }
    }

    /// The complete lines that came since the last call, without their ends.
    fn lines(&mut self) -> Result<Vec<String>> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.rest)
                .with_context(|| format!("reading {}", self.path.display()))?;
        }
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(
                String::from_utf8_lossy(&line)
                    .trim_end_matches(['\n', '\r'])
                    .to_string(),
            );
        }
        Ok(lines)
    }
}

/// Makes the directory of a run: `runs/NAME.PID` under the build directory. What earlier runs of that name left goes.
pub fn prepare(name: &str) -> Result<PathBuf> {
    let parent = Path::new(place::build()).join("runs");
    fs::create_dir_all(&parent)?;
    for entry in fs::read_dir(&parent)? {
        let entry = entry?;
        let text = entry.file_name().to_string_lossy().into_owned();
        let old = text
            .rsplit_once('.')
            .is_some_and(|(other, pid)| other == name && !Path::new("/proc").join(pid).exists());
        if old {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let dir = parent.join(format!("{name}.{}", std::process::id()));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir(&dir)?;
    Ok(dir)
}

/// Boots the machine with the job, and returns when the job has ended or `timeout` (host time) is over.
pub fn run(
    dir: &Path,
    machine: &Machine,
    job: &Job,
    timeout: Duration,
    show: Show,
    listener: Listener,
) -> Result<Outcome> {
    if place::host() {
        return host::run(dir, job, timeout, listener);
    }
    let dir = fs::canonicalize(dir)?;
    let disk = image::build(&dir, machine, job)?;
    fs::write(dir.join("bochsrc"), machine.bochsrc(&dir, disk))?;

    let start = Instant::now();
    // setpriv: should this program be killed, Bochs must not run on.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "bochs", "-q", "-f"])
        .arg(dir.join("bochsrc"))
        .stdin(Stdio::null())
        .stdout(File::create(dir.join("bochs.out"))?)
        .stderr(File::create(dir.join("bochs.err"))?)
        .spawn()
        .context("cannot start Bochs")?;
    let mut child = Killed(child);
    let mut console = Tail::new(dir.join("console"));
    let mut results = Tail::new(dir.join("results"));
    let mut log = Tail::new(dir.join("bochs.log"));
    let mut outcome = Outcome {
        end: End::Timeout,
        lines: Vec::new(),
        complaints: Vec::new(),
        dmesg: Vec::new(),
        seconds: 0.0,
    };
    let mut pulse = Pulse::new();
    let mut dead: Option<(Instant, String)> = None;

    'run: while start.elapsed() < timeout {
        let exited = child.0.try_wait()?;
        for line in results.lines()? {
            match line.strip_prefix('\x01') {
                None => {
                    pulse.output();
                    listener(&line);
                    outcome.lines.push(line);
                }
                Some(message) => match message.split_once(' ').unwrap_or((message, "")) {
                    ("lab-kernel", text) => outcome.complaints.push(text.to_string()),
                    ("lab-boot", text) => outcome.complaints.push(text.to_string()),
                    ("lab-dmesg", text) => outcome.dmesg.push(text.to_string()),
                    ("lab-exit", text) => {
                        outcome.end = End::Exit(
                            text.parse()
                                .context("the job's exit status is not a number")?,
                        );
                        break 'run;
                    }
                    _ => {}
                },
            }
        }
        for line in console.lines()? {
            if show.console {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            if dead.is_none() && line.contains("Kernel panic - not syncing") {
                dead = Some((Instant::now(), line));
            }
        }
        for line in log.lines()? {
            if dead.is_none() && line.contains(">>PANIC<<") && !line.contains("soft power off") {
                dead = Some((Instant::now(), line));
            }
        }
        // A dying kernel may still have something to say.
        match &dead {
            Some((when, line)) if when.elapsed() > Duration::from_secs(3) => {
                outcome.end = End::Dead(line.clone());
                break;
            }
            _ => {}
        }
        if let Some(status) = exited {
            outcome.end = End::Dead(format!(
                "the machine went off without the job's end ({status})"
            ));
            break;
        }
        if show.pulse {
            pulse.tick();
        }
        sleep(Duration::from_millis(50));
    }
    pulse.output();
    outcome.seconds = start.elapsed().as_secs_f64();
    drop(child);
    if outcome.ok() {
        fs::remove_dir_all(&dir)?;
    }
    Ok(outcome)
}

/// Prints what helps to find out why a run failed.
pub fn explain(dir: &Path, outcome: &Outcome, to: &mut dyn Write) -> Result<()> {
    match &outcome.end {
        End::Exit(status) => writeln!(to, "lab: the job's exit status is {status}")?,
        End::Timeout => writeln!(to, "lab: time is up after {:.0} s", outcome.seconds)?,
        End::Dead(why) => writeln!(to, "lab: {why}")?,
    }
    for line in &outcome.complaints {
        writeln!(to, "lab: kernel: {line}")?;
    }
    let last =
        |lines: &[String], count: usize| lines[lines.len().saturating_sub(count)..].join("\n  ");
    let file = |name: &str| -> Vec<String> {
        fs::read(dir.join(name)).map_or(Vec::new(), |bytes| {
            String::from_utf8_lossy(&bytes)
                .lines()
                .map(String::from)
                .collect()
        })
    };
    if !outcome.dmesg.is_empty() {
        // What came before the first process is the same in every run.
        let booted = outcome
            .dmesg
            .iter()
            .position(|line| line.contains("Run /init"))
            .unwrap_or(0);
        writeln!(
            to,
            "lab: end of the kernel's log:\n  {}",
            last(&outcome.dmesg[booted..], 40)
        )?;
    }
    let console = file("console");
    if !console.is_empty() && outcome.dmesg.is_empty() {
        writeln!(to, "lab: end of the console:\n  {}", last(&console, 40))?;
    }
    let log: Vec<String> = file("bochs.log")
        .into_iter()
        .filter(|line| {
            line.contains("VMFAIL")
                || line.contains("PANIC")
                || (line.contains("e[CPU")
                    && !line.contains("MSR: ")
                    && !line.contains("EPT violation"))
        })
        .collect();
    if !log.is_empty() {
        writeln!(to, "lab: end of Bochs' log:\n  {}", last(&log, 15))?;
    }
    writeln!(to, "lab: all of it is in {}", dir.display())?;
    Ok(())
}

/// A process that is gone when this value is.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
