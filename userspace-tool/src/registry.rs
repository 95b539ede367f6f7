// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The VMs that run: for each NAME a description NAME.json, locked by its process, and a socket NAME.sock to control it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

use crate::sys;

/// A VM's name, which is also part of file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

impl FromStr for VmName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let word = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if word && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 64 {
            Ok(Self(name.to_owned()))
        } else {
            Err("a name has up to 64 letters, digits, and (not first) '-', '_' and '.'".into())
        }
    }
}

impl TryFrom<String> for VmName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        name.parse()
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

impl std::fmt::Display for VmName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What is known of a running VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: VmName,
    /// The process that runs it.
    pub pid: u32,
    /// Number of VPs.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The console: `stdio`, a file or a pseudo-terminal.
    pub console: String,
    /// Seconds since 1970 when it was started.
    pub started: u64,
}

/// A directory of running VMs.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: PathBuf,
}

/// A VM's place in the registry. Dropping it takes the VM out.
pub struct Registration {
    registry: Registry,
    description: Description,
    listener: UnixListener,
    _lock: File,
}

impl Registry {
    /// This user's registry.
    pub fn of_user() -> Self {
        let uid = sys::effective_user();
        let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
            _ if uid == 0 => PathBuf::from("/run/hvrs"),
            Some(runtime) if !runtime.is_empty() => Path::new(&runtime).join("hvrs"),
            _ => format!("/tmp/hvrs-{uid}").into(),
        };
        Self { directory }
    }

    /// A registry in `directory`.
    #[cfg(test)]
    pub fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Enters a VM. Without a name it becomes the first free of vm1, vm2 and so on.
    pub fn register(
        &self,
        name: Option<VmName>,
        describe: impl Fn(VmName) -> Description,
    ) -> Result<Registration> {
        self.create_directory()?;
        if let Some(name) = name {
            return match self.try_register(&describe, &name)? {
                Some(registration) => Ok(registration),
                None => bail!("a virtual machine named {name} is running already"),
            };
        }
        for n in 1..=u32::MAX {
            if let Some(registration) = self.try_register(&describe, &VmName(format!("vm{n}")))? {
                return Ok(registration);
            }
        }
        bail!("there is no free name")
    }

    fn create_directory(&self) -> Result<()> {
        let what = || format!("cannot use the directory {}", self.directory.display());
        let mode = if self.directory.starts_with("/run/hvrs") {
            0o755
        } else {
            0o700
        };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&self.directory)
            .with_context(what)?;
        // In /tmp somebody else may have been first.
        let metadata = fs::symlink_metadata(&self.directory).with_context(what)?;
        if !metadata.is_dir() || metadata.uid() != sys::effective_user() {
            bail!("{}: it belongs to somebody else", what());
        }
        Ok(())
    }

    /// `None`: the name is taken.
    fn try_register(
        &self,
        describe: impl Fn(VmName) -> Description,
        name: &VmName,
    ) -> Result<Option<Registration>> {
        let path = self.description_path(name);
        let what = || format!("cannot write {}", path.display());
        let mut lock = loop {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(&path)
                .with_context(what)?;
            if !sys::try_lock(&file) {
                return Ok(None);
            }
            // A VM that has just ended may have removed the file between the opening and the locking.
            let same = fs::metadata(&path)
                .is_ok_and(|now| file.metadata().is_ok_and(|then| now.ino() == then.ino()));
            if same {
                break file;
            }
        };
        let description = describe(name.clone());
        let json = serde_json::to_vec_pretty(&description)?;
        lock.set_len(0).with_context(what)?;
        lock.write_all(&json).with_context(what)?;
        let socket = self.socket_path(name);
        let _ = fs::remove_file(&socket); // of a process that was killed
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot create {}", socket.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Some(Registration {
            registry: self.clone(),
            description,
            listener,
            _lock: lock,
        }))
    }

    /// All VMs that run, by name.
    pub fn list(&self) -> Vec<Description> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let mut list: Vec<Description> = entries
            .filter_map(|entry| {
                let path = entry.path();
                let name: VmName = path
                    .file_name()?
                    .to_str()?
                    .strip_suffix(".json")?
                    .parse()
                    .ok()?;
                self.find(&name)
            })
            .collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// The VM of this name, if it runs.
    pub fn find(&self, name: &VmName) -> Option<Description> {
        let mut file = File::open(self.description_path(name)).ok()?;
        if sys::try_lock(&file) {
            return None; // its process is gone
        }
        let mut json = String::new();
        file.read_to_string(&mut json).ok()?;
        serde_json::from_str(&json).ok()
    }

    /// As [`Self::find`], with a sentence when it does not run.
    pub fn get(&self, name: &VmName) -> Result<Description> {
        self.find(name)
            .with_context(|| format!("no virtual machine named {name} is running"))
    }

    /// Connects to a VM's control socket and says what is wanted.
    pub fn connect(&self, name: &VmName, request: &str) -> Result<UnixStream> {
        self.get(name)?;
        let what = || format!("cannot talk to the virtual machine {name}");
        let mut stream = UnixStream::connect(self.socket_path(name)).with_context(what)?;
        stream
            .write_all(format!("{request}\n").as_bytes())
            .with_context(what)?;
        Ok(stream)
    }

    fn description_path(&self, name: &VmName) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn socket_path(&self, name: &VmName) -> PathBuf {
        self.directory.join(format!("{name}.sock"))
    }
}

impl Registration {
    /// Where control connections arrive; it does not block.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The entry.
    pub fn description(&self) -> &Description {
        &self.description
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The socket first: whoever still sees the description then finds nothing to connect to.
        let _ = fs::remove_file(self.registry.socket_path(&self.description.name));
        let _ = fs::remove_file(self.registry.description_path(&self.description.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    fn describe(name: VmName) -> Description {
        Description {
            name,
            pid: std::process::id(),
            cpus: 2,
            memory: 1 << 20,
            kernel: "/vmlinuz".into(),
            console: "stdio".into(),
            started: 1,
        }
    }

    fn name(name: &str) -> VmName {
        name.parse().unwrap()
    }

    #[test]
    fn names() {
        for good in ["a", "vm1", "Debian-13.x_y"] {
            assert!(good.parse::<VmName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-x", "a b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<VmName>("\"../x\"").is_err());
    }

    #[test]
    fn vms_come_and_go() {
        let directory = TempDir::new().unwrap();
        let registry = Registry::at(directory.as_path());
        assert!(registry.list().is_empty());
        let second = registry.register(Some(name("web")), describe).unwrap();
        let first = registry.register(None, describe).unwrap();
        assert_eq!(first.description().name, name("vm1"));
        assert_eq!(
            registry
                .register(None, describe)
                .unwrap()
                .description()
                .name,
            name("vm2")
        );
        let names: Vec<String> = registry
            .list()
            .into_iter()
            .map(|vm| vm.name.into())
            .collect();
        assert_eq!(names, ["vm1", "web"], "vm2 has ended");
        let taken = registry
            .register(Some(name("web")), describe)
            .err()
            .unwrap();
        assert!(taken.to_string().contains("web is running already"));
        drop(second);
        assert!(registry.find(&name("web")).is_none());
        registry.register(Some(name("web")), describe).unwrap();
        assert_eq!(
            fs::read_dir(directory.as_path()).unwrap().count(),
            2,
            "vm1's description and socket"
        );
    }

    #[test]
    fn killed_processes_leave_nothing_that_counts() {
        let directory = TempDir::new().unwrap();
        let registry = Registry::at(directory.as_path());
        fs::write(
            directory.as_path().join("dead.json"),
            serde_json::to_vec(&describe(name("dead"))).unwrap(),
        )
        .unwrap();
        drop(UnixListener::bind(directory.as_path().join("dead.sock")).unwrap());
        assert!(registry.list().is_empty());
        let error = registry.connect(&name("dead"), "status").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no virtual machine named dead is running"
        );
        assert_eq!(
            registry
                .register(Some(name("dead")), describe)
                .unwrap()
                .description()
                .cpus,
            2
        );
    }

    #[test]
    fn requests_arrive() {
        let directory = TempDir::new().unwrap();
        let registry = Registry::at(directory.as_path());
        let registration = registry.register(None, describe).unwrap();
        let client = registry.connect(&name("vm1"), "status").unwrap();
        drop(client);
        let mut request = String::new();
        registration
            .listener()
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut request)
            .unwrap();
        assert_eq!(request, "status\n");
    }
}
