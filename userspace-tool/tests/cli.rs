// SPDX-License-Identifier: Apache-2.0 OR MIT
//! hvrsctl as a person sees it, on a machine that need not have VT-x or hvrs.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use vmm_sys_util::tempdir::TempDir;

fn hvrsctl(arguments: &[&str]) -> Output {
    let runtime = std::env::temp_dir();
    Command::new(env!("CARGO_BIN_EXE_hvrsctl"))
        .args(arguments)
        .env("XDG_RUNTIME_DIR", runtime)
        .output()
        .unwrap()
}

/// The only line of an error message.
fn refusal(arguments: &[&str]) -> String {
    let output = hvrsctl(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

fn has_vmx() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    cpuinfo.split_whitespace().any(|word| word == "vmx")
}

#[test]
fn check_names_what_is_missing() {
    let output = hvrsctl(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = |name: &str| {
        let items = report["items"].as_array().unwrap();
        let item = items.iter().find(|item| item["name"] == name).unwrap();
        (
            item["result"].as_str().unwrap().to_owned(),
            item["remedy"].is_string(),
        )
    };
    if has_vmx() {
        assert_eq!(result("vmx"), ("ok".into(), false));
    } else {
        assert_eq!(result("vmx"), ("fail".into(), true));
        assert_eq!(result("ept"), ("fail".into(), true));
        assert_eq!(report["result"], "fail");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(hvrsctl(&["check"]).stdout).unwrap();
        assert!(
            text.lines().any(|line| line.starts_with("FAIL  vmx: ")),
            "{text}"
        );
        assert!(
            text.ends_with("This host cannot run hvrs as it is.\n"),
            "{text}"
        );
    }
}

#[test]
fn bad_kernels_and_initrds_are_refused_in_one_line() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.as_path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, contents: &[u8]| fs::write(path(name), contents).unwrap();

    assert!(refusal(&["start", "--kernel", &path("none")]).contains("No such file"));
    write("empty", b"");
    assert!(refusal(&["start", "--kernel", &path("empty")]).contains("it is empty"));
    write("text", &[b'x'; 4096]);
    assert!(refusal(&["start", "--kernel", &path("text")]).contains("neither a bzImage nor an ELF"));

    let kernel = path("kernel");
    let mut image = vec![0; 0x400];
    image[0x1f1] = 1;
    image[0x1f4] = 1; // 16 bytes of protected-mode code
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x0f, 2]);
    image[0x236] = 1;
    write("kernel", &image);
    assert!(refusal(&["start", "--kernel", &kernel]).contains("it is truncated"));
    image.resize(0x410, 0);
    write("kernel", &image);

    let with_initrd =
        |name: &str| refusal(&["start", "--kernel", &kernel, "--initrd", &path(name)]);
    assert!(with_initrd("none").contains("No such file"));
    assert!(with_initrd("empty").contains("it is empty"));
    assert!(with_initrd("text").contains("no initramfs"));
    write("cut", b"070701");
    assert!(with_initrd("cut").contains("truncated"));

    let with_disk = |name: &str| refusal(&["start", "--kernel", &kernel, "--disk", &path(name)]);
    assert!(with_disk("none").contains("No such file"));
    assert!(with_disk("empty").contains("is empty"));
    write("odd", &[0; 1000]);
    assert!(with_disk("odd").contains("truncated"));
}

#[test]
fn missing_module_is_said_with_its_remedy() {
    if Path::new("/dev/mshv").exists() {
        return; // hvrs is here
    }
    assert!(refusal(&["info"]).contains("run `insmod hvrs.ko`"));
}

#[test]
fn nothing_runs_and_nothing_of_that_name() {
    for verb in ["console", "stop", "status", "stats"] {
        let message = refusal(&[verb, "no-such-vm"]);
        assert_eq!(
            message,
            "hvrsctl: no virtual machine named no-such-vm is running\n"
        );
    }
    let output = hvrsctl(&["list", "--json"]);
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout)
        .unwrap()
        .is_array());
}

#[test]
fn wrong_options_show_the_usage() {
    for arguments in [
        &["start", "--cpus", "0"][..],
        &["start", "--memory", "lots"],
        &["start", "--console", "printer"],
        &["start", "--name", "../x"],
        &["start", "--on-reboot", "explode"],
        &["start", "--debug", "somewhere"],
        &["fly"],
    ] {
        assert_eq!(hvrsctl(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let help = String::from_utf8(hvrsctl(&["--help"]).stdout).unwrap();
    for verb in [
        "start", "list", "console", "stop", "status", "stats", "check", "info",
    ] {
        assert!(help.contains(verb), "{help}");
    }
}
