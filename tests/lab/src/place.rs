//! Where things run: in the lab's emulated machine, or (`HOST=1`) on this machine, which then has VT-x itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Whether the tests run on this machine.
pub fn host() -> bool {
    std::env::var_os("HVRS_HOST").is_some()
}

/// The directory of what was built for that.
pub fn build() -> &'static str {
    if host() {
        "build/host"
    } else {
        "build/lab"
    }
}

/// A file in that directory.
pub fn built(name: &str) -> PathBuf {
    Path::new(build()).join(name)
}

/// The kernel under test.
pub fn kernel_release() -> Result<String> {
    if host() {
        return Ok(fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_string());
    }
    let mut names: Vec<String> = fs::read_dir("/lib/modules")?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    names.pop().context(
        "no kernel in /lib/modules: is this the lab's root file system? use tests/lab/enter",
    )
}
