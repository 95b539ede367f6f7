// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use std::path::Path;
use vmm_sys_util::tempdir::TempDir;

const GOOD: [(&str, &str); 4] = [
    (
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx xsave\n\
         vmx flags\t: vnmi preemption_timer ept_ad ept_1gb vtpr ept vpid unrestricted_guest \
         vapic_reg vid shadow_vmcs pml ept_mode_based_exec tsc_scaling\n",
    ),
    ("proc/sys/kernel/osrelease", "7.2.12+deb13-amd64\n"),
    ("proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC Debian\n"),
    ("boot/config-7.2.12+deb13-amd64", "CONFIG_RUST=y\n"),
];

struct Tree(TempDir);

impl Tree {
    /// A host with everything, except for these files.
    fn new(changed: &[(&str, &str)]) -> Self {
        let tree = Self(TempDir::new().unwrap());
        for (path, text) in GOOD.iter().chain(changed) {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn path(&self) -> &Path {
        self.0.as_path()
    }

    fn check(&self) -> Vec<Item> {
        check(&Host {
            root: self.path().to_owned(),
            module: None,
        })
    }

    /// Names of the items with this verdict.
    fn with(&self, verdict: Verdict) -> Vec<String> {
        let items = self.check().into_iter();
        items
            .filter(|item| item.result == verdict)
            .map(|item| item.name)
            .collect()
    }
}

#[test]
fn good_host_lacks_only_the_module() {
    let tree = Tree::new(&[]);
    assert_eq!(tree.with(Verdict::Fail), [""; 0]);
    assert_eq!(tree.with(Verdict::Warn), ["module"]);
}

#[test]
fn each_obstacle_fails_its_item_and_names_a_remedy() {
    let cpuinfo = |flags: &str, vmx: &str| {
        format!("vendor_id\t: GenuineIntel\nflags\t: {flags}\nvmx flags\t: {vmx}\n")
    };
    let vmx = "ept vpid unrestricted_guest";
    let release = "boot/config-7.2.12+deb13-amd64";
    let cases: [(&str, String, &str); 9] = [
        (
            "proc/cpuinfo",
            GOOD[0].1.replace("GenuineIntel", "AuthenticAMD"),
            "cpu",
        ),
        ("proc/cpuinfo", cpuinfo("xsave", vmx), "vmx"),
        ("proc/cpuinfo", cpuinfo("vmx", vmx), "xsave"),
        ("proc/cpuinfo", cpuinfo("vmx xsave fred", vmx), "fred"),
        (
            "proc/cpuinfo",
            cpuinfo("vmx xsave", "ept unrestricted_guest"),
            "VPID",
        ),
        (
            "proc/cpuinfo",
            cpuinfo("vmx xsave", "vpid unrestricted_guest"),
            "ept",
        ),
        (release, "# CONFIG_RUST is not set\n".into(), "kernel"),
        (
            "proc/sys/kernel/version",
            "#1 SMP PREEMPT_RT\n".into(),
            "preemption",
        ),
        ("dev/mshv", String::new(), "module"),
    ];
    for (path, text, expected) in cases {
        let tree = Tree::new(&[(path, &text)]);
        assert_eq!(tree.with(Verdict::Fail), [expected], "{path}: {text}");
        assert!(tree
            .check()
            .iter()
            .all(|i| i.result != Verdict::Fail || i.remedy.is_some()));
    }
}

#[test]
fn firmware_lock_is_read_from_the_msr() {
    let tree = Tree::new(&[("dev/cpu/0/msr", "")]);
    let set = |value: u64| {
        let file = File::create(tree.path().join("dev/cpu/0/msr")).unwrap();
        file.write_all_at(&value.to_le_bytes(), 0x3a).unwrap();
    };
    set(0b001);
    assert_eq!(tree.with(Verdict::Fail), ["firmware"]);
    for fine in [0b101, 0] {
        set(fine);
        assert_eq!(tree.with(Verdict::Fail), [""; 0], "{fine:#b}");
    }
}

#[test]
fn compressed_configuration_is_read() {
    use std::io::Write;
    let tree = Tree::new(&[]);
    fs::remove_file(tree.path().join(GOOD[3].0)).unwrap();
    assert_eq!(tree.with(Verdict::Warn), ["kernel", "module"]);
    let file = File::create(tree.path().join("proc/config.gz")).unwrap();
    let mut gz = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gz.write_all(b"# a comment\nCONFIG_RUST=y\n").unwrap();
    gz.finish().unwrap();
    assert_eq!(tree.with(Verdict::Warn), ["module"]);
}

#[test]
fn other_users_of_vmx_are_named() {
    let modules = "kvm_intel 434176 0 - Live 0x0\nvboxdrv 1 0 - Live 0x0\n";
    let tree = Tree::new(&[("proc/modules", modules)]);
    assert_eq!(tree.with(Verdict::Warn), ["module", "other users"]);
    let users = tree
        .check()
        .into_iter()
        .filter(|item| item.name == "other users");
    assert_eq!(users.count(), 2);
}

#[test]
fn what_the_module_says_counts_when_it_is_loaded() {
    let cpuinfo = GOOD[0].1.replace(" pml ", " ");
    let tree = Tree::new(&[("proc/cpuinfo", &cpuinfo)]);
    let info = hvrs_dev::Info {
        version: "9.9".into(),
        abi_version: 1,
        partitions: 0,
        capability_bits: 0b11,
        capabilities: Vec::new(),
    };
    let items = check(&Host {
        root: tree.path().to_owned(),
        module: Some(Ok(info)),
    });
    let find = |name: &str| items.iter().find(|item| item.name == name).unwrap();
    assert_eq!(find("module").detail, "hvrs 9.9 is loaded");
    let told = |name: &str| (find(name).result, find(name).detail.as_str());
    assert_eq!(told("VPID"), (Verdict::Ok, "there, used"));
    // Linux sees this one.
    assert_eq!(told("preemption timer"), (Verdict::Ok, "there, not used"));
    assert_eq!(
        told("page-modification logging"),
        (Verdict::Warn, "not there; hvrs does without")
    );
    // Linux says nothing about this one.
    assert_eq!(told("EPT 2 MiB pages"), (Verdict::Warn, "not used"));
}
