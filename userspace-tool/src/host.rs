// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What of this host matters to hvrs, and the verdict on each item.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde::Serialize;

use crate::hvrs_dev::{self, HvrsDevice, CAPABILITIES};

/// The verdict on an item, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// hvrs runs, but something is to be known.
    Warn,
    /// hvrs does not run.
    Fail,
}

impl Verdict {
    /// The verdict in a word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One line of `hvrsctl check`.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// What was looked at; the same from version to version.
    pub name: String,
    /// The verdict.
    pub result: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Item {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            result: Verdict::Ok,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn warn(name: &str, detail: impl Into<String>, remedy: &str) -> Self {
        let remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
        Self {
            name: name.into(),
            result: Verdict::Warn,
            detail: detail.into(),
            remedy,
        }
    }

    fn fail(name: &str, detail: impl Into<String>, remedy: &str) -> Self {
        Self {
            result: Verdict::Fail,
            ..Self::warn(name, detail, remedy)
        }
    }
}

/// Where the facts come from.
pub struct Host {
    root: PathBuf,
    module: Option<io::Result<hvrs_dev::Info>>,
}

impl Host {
    /// The machine that this runs on.
    pub fn this() -> Self {
        let module = match HvrsDevice::open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            device => Some(device.and_then(|device| device.info())),
        };
        Self {
            root: "/".into(),
            module,
        }
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The words of a line of /proc/cpuinfo; empty when there is no such line.
    fn cpuinfo(&self, key: &str) -> HashSet<String> {
        let text = self.read("proc/cpuinfo").unwrap_or_default();
        let line = text.lines().find_map(|line| {
            let (name, words) = line.split_once(':')?;
            (name.trim() == key).then_some(words)
        });
        line.unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    fn module_loaded(&self, name: &str) -> bool {
        let text = self.read("proc/modules").unwrap_or_default();
        text.lines()
            .any(|line| line.split(' ').next() == Some(name))
    }

    /// The running kernel's configuration.
    fn kernel_config(&self) -> Option<String> {
        let release = self.read("proc/sys/kernel/osrelease")?;
        let release = release.trim();
        let plain = [
            format!("boot/config-{release}"),
            format!("lib/modules/{release}/config"),
        ];
        plain.iter().find_map(|path| self.read(path)).or_else(|| {
            let mut text = String::new();
            let file = File::open(self.root.join("proc/config.gz")).ok()?;
            GzDecoder::new(file).read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    /// IA32_FEATURE_CONTROL of the first CPU.
    fn feature_control(&self) -> Option<u64> {
        const IA32_FEATURE_CONTROL: u64 = 0x3a;
        let mut value = [0; 8];
        let file = File::open(self.root.join("dev/cpu/0/msr")).ok()?;
        file.read_exact_at(&mut value, IA32_FEATURE_CONTROL).ok()?;
        Some(u64::from_le_bytes(value))
    }
}

/// All items.
pub fn check(host: &Host) -> Vec<Item> {
    let mut items = vec![cpu(host), vmx(host), firmware(host), ept(host)];
    items.extend(capabilities(host));
    items.extend([
        xsave(host),
        fred(host),
        kernel(host),
        preemption(host),
        module(host),
    ]);
    items.push(permission(host));
    items.extend(other_users(host));
    items
}

fn cpu(host: &Host) -> Item {
    let vendor = host
        .cpuinfo("vendor_id")
        .into_iter()
        .next()
        .unwrap_or("unknown".into());
    match vendor.as_str() {
        "GenuineIntel" => Item::ok("cpu", "an Intel processor"),
        _ => {
            let detail = format!("the processor's vendor is {vendor}");
            Item::fail("cpu", detail, "hvrs needs an Intel processor with VT-x")
        }
    }
}

const FIRMWARE_REMEDY: &str =
    "enable Intel Virtualization Technology (VT-x, VMX) in the firmware's setup";

fn vmx(host: &Host) -> Item {
    let flags = host.cpuinfo("flags");
    if flags.contains("vmx") {
        Item::ok("vmx", "VT-x is there")
    } else if flags.contains("hypervisor") {
        let remedy = "let the hypervisor show VT-x to this virtual machine (nested virtualization)";
        Item::fail("vmx", "this is a virtual machine without VT-x", remedy)
    } else {
        Item::fail("vmx", "the processor shows no VT-x", FIRMWARE_REMEDY)
    }
}

fn firmware(host: &Host) -> Item {
    const LOCKED: u64 = 1 << 0;
    const VMX_OUTSIDE_SMX: u64 = 1 << 2;
    match host.feature_control() {
        Some(value) if value & (LOCKED | VMX_OUTSIDE_SMX) == LOCKED => Item::fail(
            "firmware",
            "the firmware has VT-x switched off and locked",
            FIRMWARE_REMEDY,
        ),
        Some(_) => Item::ok("firmware", "the firmware has not locked VT-x off"),
        // Linux hides the flag when the firmware has VT-x locked off (since 5.6).
        None if host.cpuinfo("flags").contains("vmx") => {
            Item::ok("firmware", "Linux shows VT-x, so it is not locked off")
        }
        None => {
            let remedy = "as root: `modprobe msr`, then check again";
            Item::warn("firmware", "IA32_FEATURE_CONTROL cannot be read", remedy)
        }
    }
}

fn ept(host: &Host) -> Item {
    if host.cpuinfo("vmx flags").contains("ept") || loaded_bits(host).is_some() {
        Item::ok("ept", "extended page tables are there")
    } else {
        let remedy = "hvrs needs a processor of the Sandy Bridge generation or later";
        Item::fail("ept", "there are no extended page tables", remedy)
    }
}

/// What the loaded module uses.
fn loaded_bits(host: &Host) -> Option<u64> {
    Some(host.module.as_ref()?.as_ref().ok()?.capability_bits)
}

fn capabilities(host: &Host) -> Vec<Item> {
    let flags = host.cpuinfo("vmx flags");
    let mut items = Vec::new();
    for capability in &CAPABILITIES {
        let name = capability.name;
        let used = loaded_bits(host).map(|bits| bits & (1 << capability.bit) != 0);
        let there = capability.flag.map(|flag| flags.contains(flag));
        items.push(match (used, there) {
            // Linux does not tell. The module will.
            (None, None) => continue,
            (None, Some(true)) => Item::ok(name, "there"),
            (Some(true), _) => Item::ok(name, "there, used"),
            // What hvrs requires it uses, so this is one of the others.
            (Some(false), Some(true)) => Item::ok(name, "there, not used"),
            (_, Some(false)) if capability.required => {
                let remedy = "hvrs needs a processor of the Sandy Bridge generation or later";
                Item::fail(name, "not there", remedy)
            }
            (_, Some(false)) => Item::warn(name, "not there; hvrs does without", ""),
            (Some(false), None) => Item::warn(name, "not used", ""),
        });
    }
    items
}

fn xsave(host: &Host) -> Item {
    if host.cpuinfo("flags").contains("xsave") {
        Item::ok("xsave", "XSAVE is there")
    } else {
        let remedy = "remove `noxsave` from the kernel's command line, or use a newer processor";
        Item::fail("xsave", "there is no XSAVE", remedy)
    }
}

fn fred(host: &Host) -> Item {
    if host.cpuinfo("flags").contains("fred") {
        let remedy = "add `fred=off` to the kernel's command line and reboot";
        Item::fail("fred", "the kernel uses FRED event delivery", remedy)
    } else {
        Item::ok("fred", "the kernel does not use FRED")
    }
}

fn kernel(host: &Host) -> Item {
    const REMEDY: &str = "use a kernel with CONFIG_RUST=y; on Debian 13: \
                          `apt install -t trixie-backports linux-image-amd64`";
    let release = host.read("proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match host.kernel_config() {
        Some(config) if config.lines().any(|line| line == "CONFIG_RUST=y") => {
            Item::ok("kernel", format!("{release} supports Rust modules"))
        }
        Some(_) => Item::fail(
            "kernel",
            format!("{release} does not support Rust modules"),
            REMEDY,
        ),
        None if host.module.is_some() => Item::ok("kernel", format!("{release} runs hvrs")),
        None => {
            let detail = format!("the configuration of {release} is not to be found");
            Item::warn("kernel", detail, REMEDY)
        }
    }
}

fn preemption(host: &Host) -> Item {
    let version = host.read("proc/sys/kernel/version").unwrap_or_default();
    let realtime = host
        .read("sys/kernel/realtime")
        .is_some_and(|flag| flag.trim() == "1");
    if realtime || version.contains("PREEMPT_RT") {
        let remedy = "boot a kernel without PREEMPT_RT";
        Item::fail(
            "preemption",
            "the kernel is a real-time kernel (PREEMPT_RT)",
            remedy,
        )
    } else {
        Item::ok("preemption", "the kernel is no real-time kernel")
    }
}

fn module(host: &Host) -> Item {
    const NAME: &str = "module";
    match &host.module {
        Some(Ok(info)) => Item::ok(NAME, format!("hvrs {} is loaded", info.version)),
        Some(Err(error)) => {
            let remedy = "become a member of the group `mshv`, or root";
            Item::warn(
                NAME,
                format!("hvrs is loaded, but /dev/hvrs: {error}"),
                remedy,
            )
        }
        None if host.module_loaded("mshv_root") || host.exists("dev/mshv") => {
            let remedy = "`rmmod mshv_root`: /dev/mshv can belong to one driver only";
            Item::fail(NAME, "/dev/mshv belongs to another driver", remedy)
        }
        None => Item::warn(NAME, "hvrs is not loaded", "`insmod hvrs.ko`"),
    }
}

fn permission(host: &Host) -> Item {
    const NAME: &str = "permission";
    let path = host.root.join("dev/mshv");
    match File::open(&path) {
        Ok(_) => Item::ok(NAME, "/dev/mshv can be opened"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let remedy = "become a member of the group `mshv`, or root";
            Item::fail(NAME, "/dev/mshv cannot be opened", remedy)
        }
        Err(_) => Item::ok(NAME, "to be seen when hvrs is loaded"),
    }
}

fn other_users(host: &Host) -> Vec<Item> {
    let mut items = Vec::new();
    if host.module_loaded("kvm_intel") {
        let detail = "KVM is loaded; both can run virtual machines at the same time";
        items.push(Item::ok("other users", detail));
    }
    for (module, name) in [("vboxdrv", "VirtualBox"), ("vmmon", "VMware")] {
        if host.module_loaded(module) {
            let detail = format!("{name} is loaded; using it together with hvrs is not tested");
            items.push(Item::warn(
                "other users",
                detail,
                &format!("`rmmod {module}`"),
            ));
        }
    }
    if items.is_empty() {
        items.push(Item::ok("other users", "nobody else uses VT-x"));
    }
    items
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
