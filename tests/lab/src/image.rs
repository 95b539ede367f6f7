//! What the machine boots from: an ISO with the stock kernel and a small initramfs, and a second disk for what is large.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::machine::{Machine, DISK_UNIT};
use crate::place::kernel_release;

/// What a run brings along.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Files for `/job` in the initramfs: path and name there.
    pub files: Vec<(PathBuf, String)>,
    /// Files or directories for `/data` on the second disk.
    pub data: Vec<(PathBuf, String)>,
    /// Kernel modules to load before the job, with what they depend on.
    pub modules: Vec<String>,
    /// The job itself, for busybox' shell.
    pub script: String,
    /// Print the kernel's log at the end even if the job succeeds.
    pub dmesg: bool,
}

/// Runs a program to its end and fails with what it said.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(output.stdout)
}

/// Writes everything the machine needs into `dir`. Returns the size of the second disk, if there is one.
pub fn build(dir: &Path, machine: &Machine, job: &Job) -> Result<Option<u64>> {
    let release = kernel_release()?;
    let mut modules = job.modules.clone();
    if !job.data.is_empty() {
        modules.extend(["ata_piix", "sd_mod", "squashfs"].map(String::from));
    }
    if machine.kvm {
        modules.push("kvm_intel".to_string());
    }
    let mut files: Vec<(PathBuf, String)> = job
        .files
        .iter()
        .map(|(path, name)| (path.clone(), format!("job/{name}")))
        .collect();
    let note = |name: &str, content: &str| -> Result<(PathBuf, String)> {
        let path = dir.join(name);
        fs::write(&path, content)?;
        Ok((path, name.to_string()))
    };
    files.push(note("job.sh", &job.script)?);
    if !job.data.is_empty() {
        files.push(note("disk.wanted", "")?);
    }
    if job.dmesg {
        files.push(note("dmesg.wanted", "")?);
    }
    initramfs(
        &dir.join("initrd"),
        include_str!("init.sh"),
        &modules,
        &files,
    )?;

    let iso = dir.join("iso");
    fs::create_dir_all(iso.join("isolinux"))?;
    fs::copy(
        "/usr/lib/ISOLINUX/isolinux.bin",
        iso.join("isolinux/isolinux.bin"),
    )?;
    fs::copy(
        "/usr/lib/syslinux/modules/bios/ldlinux.c32",
        iso.join("isolinux/ldlinux.c32"),
    )?;
    fs::copy(format!("/boot/vmlinuz-{release}"), iso.join("vmlinuz"))?;
    fs::rename(dir.join("initrd"), iso.join("initrd"))?;
    let append = machine.command_line();
    fs::write(
        iso.join("isolinux/isolinux.cfg"),
        format!("DEFAULT l\nPROMPT 0\nTIMEOUT 1\nLABEL l\n KERNEL /vmlinuz\n APPEND initrd=/initrd {append}\n"),
    )?;
    run(Command::new("genisoimage")
        .args(["-quiet", "-o"])
        .arg(dir.join("boot.iso"))
        .args([
            "-b",
            "isolinux/isolinux.bin",
            "-c",
            "isolinux/boot.cat",
            "-no-emul-boot",
            "-boot-load-size",
            "4",
            "-boot-info-table",
        ])
        .arg(&iso))?;
    fs::remove_dir_all(&iso)?;

    if job.data.is_empty() {
        return Ok(None);
    }
    let data = dir.join("data");
    for (path, name) in &job.data {
        place(path, &data.join(name), &data)?;
    }
    disk(&data, &dir.join("data.img")).map(Some)
}

/// Makes an initramfs of busybox, this first process, the modules with what they depend on, and files (path, name there).
pub fn initramfs(
    target: &Path,
    init: &str,
    wanted: &[String],
    files: &[(PathBuf, String)],
) -> Result<()> {
    let release = kernel_release()?;
    let tree = target.with_extension("tree");
    for name in [
        "bin", "dev", "proc", "sys", "tmp", "root", "etc", "job", "data", "modules",
    ] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    write_executable(&tree.join("init"), init)?;
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    )?;
    fs::write(
        tree.join("etc/group"),
        "root:x:0:\nmshv:x:900:\nnogroup:x:65534:\n",
    )?;
    let mut list = String::new();
    for (path, options) in modules(&release, wanted)? {
        let name = path
            .file_name()
            .context("module path")?
            .to_string_lossy()
            .replace(".xz", "");
        unpack_module(&path, &tree.join("modules").join(&name))?;
        list += &format!("/modules/{name}{options}\n");
    }
    fs::write(tree.join("modules.list"), list)?;
    for (path, name) in files {
        place(path, &tree.join(name), &tree)?;
    }
    archive(&tree, target)?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// The second disk: a squashfs, padded to whole cylinders. Not compressed: reading is cheaper than unpacking there.
fn disk(data: &Path, image: &Path) -> Result<u64> {
    run(Command::new("mksquashfs").arg(data).arg(image).args([
        "-quiet",
        "-no-progress",
        "-noI",
        "-noD",
        "-noF",
        "-noX",
        "-all-root",
    ]))?;
    fs::remove_dir_all(data)?;
    let size = fs::metadata(image)?.len().next_multiple_of(DISK_UNIT);
    fs::File::options().write(true).open(image)?.set_len(size)?;
    Ok(size)
}

/// Copies a file, or a directory with all in it, to `target`; what a dynamic program needs comes along into `root`.
fn place(path: &Path, target: &Path, root: &Path) -> Result<()> {
    ensure!(path.exists(), "{} does not exist", path.display());
    fs::create_dir_all(target.parent().context("target has no parent")?)?;
    run(Command::new("cp")
        .args(["-rL", "--preserve=mode"])
        .arg(path)
        .arg(target))?;
    if path.is_dir() {
        return Ok(());
    }
    let head = fs::read(path)?;
    if !head.starts_with(b"\x7fELF") {
        return Ok(());
    }
    // Debug information would be loaded through the BIOS, sector by sector.
    run(Command::new("strip").arg("--strip-debug").arg(target))?;
    // e_type 1 is a relocatable object: a kernel module.
    if head.get(16) != Some(&1) {
        libraries(path, root)?;
    }
    Ok(())
}

/// Copies the shared libraries of a program under the same paths.
fn libraries(program: &Path, root: &Path) -> Result<()> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot start ldd")?;
    for word in String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let target = root.join(&word[1..]);
        if !target.exists() {
            fs::create_dir_all(target.parent().context("library has no directory")?)?;
            fs::copy(word, target)?;
        }
    }
    Ok(())
}

/// The modules to load, in order, with their parameters; what is built into the kernel needs none.
fn modules(release: &str, wanted: &[String]) -> Result<Vec<(PathBuf, &'static str)>> {
    let base = PathBuf::from(format!("/lib/modules/{release}"));
    let table = fs::read_to_string(base.join("modules.dep"))?;
    let built_in = fs::read_to_string(base.join("modules.builtin"))?.replace('_', "-");
    let mut order: Vec<(PathBuf, &'static str)> = Vec::new();
    for name in wanted {
        let file = format!("/{}.ko", name.replace('_', "-"));
        if built_in.lines().any(|path| path.ends_with(&file)) {
            continue;
        }
        let line = table
            .lines()
            .find(|line| {
                let path = line.split(':').next().unwrap_or("").replace('_', "-");
                path.contains(&file)
                    && path
                        .rsplit('/')
                        .next()
                        .is_some_and(|last| last.starts_with(&file[1..]))
            })
            .with_context(|| format!("kernel {release} has no module {name}"))?;
        // "module: direct-dependency ... deepest": the reverse is the order of loading.
        let mut chain: Vec<&str> = line
            .split([':', ' '])
            .filter(|part| !part.is_empty())
            .collect();
        chain.reverse();
        for part in chain {
            let path = base.join(part);
            if order.iter().all(|(known, _)| *known != path) {
                // With APICv on, KVM uses posted interrupts, whose descriptor Bochs 3.0 refuses.
                let options = if part.contains("kvm-intel") || part.contains("kvm_intel") {
                    " enable_apicv=0"
                } else {
                    ""
                };
                order.push((path, options));
            }
        }
    }
    Ok(order)
}

/// The module, unpacked here rather than in the emulator, and without signature and debug information.
fn unpack_module(path: &Path, target: &Path) -> Result<()> {
    let content = if path.extension().is_some_and(|extension| extension == "xz") {
        run(Command::new("xz").args(["-dc"]).arg(path))?
    } else {
        fs::read(path)?
    };
    fs::write(target, content)?;
    Ok(())
}

/// The initramfs as a cpio archive, not compressed.
fn archive(tree: &Path, target: &Path) -> Result<()> {
    let archive = run(Command::new("sh")
        .args(["-c", "find . | cpio -o -H newc -R 0:0 --quiet"])
        .current_dir(tree))?;
    fs::write(target, archive)?;
    Ok(())
}

fn write_executable(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
