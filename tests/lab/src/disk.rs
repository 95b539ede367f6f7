//! A disk as a machine with a BIOS has it: GRUB, and Debian with its stock kernel on an ext4 file system.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::image::run;
use crate::place::kernel_release;

/// Who logs in, and how (`tests/lab/jobs/qemu.sh`).
const LOGIN: &str = "root:hvrs";

const SECTOR: u64 = 512;
/// Where the only partition begins; GRUB is before it.
const PARTITION_SECTOR: u64 = 2048;
const DISK_MIB: u64 = 768;

/// GRUB's modules: what it needs to read its configuration, which asks nothing and shows no menu.
const GRUB_MODULES: &[&str] = &["biosdisk", "part_msdos", "ext2", "normal", "linux"];
const GRUB_CONFIGURATION: &str = "\
linux /vmlinuz root=/dev/vda1 ro console=ttyS0 quiet audit=0
initrd /initrd.img
boot
";

/// The system's programs besides Debian's minimal ones.
const PACKAGES: &str = "linux-image-amd64,initramfs-tools,systemd-sysv,udev";

/// Runs in the new system's directory, as `$1`.
fn customize() -> [String; 5] {
    [
        format!("echo {LOGIN} | chroot \"$1\" chpasswd"),
        "echo /dev/vda1 / ext4 defaults 0 1 > \"$1/etc/fstab\"".to_string(),
        "echo guest > \"$1/etc/hostname\"".to_string(),
        // The initramfs has what this disk needs: the lab's machine reads a large one for minutes.
        "sed -i 's/^MODULES=.*/MODULES=list/' \"$1/etc/initramfs-tools/initramfs.conf\"".to_string(),
        "printf 'virtio_pci\\nvirtio_blk\\next4\\n' >> \"$1/etc/initramfs-tools/modules\"; chroot \"$1\" update-initramfs -u"
            .to_string(),
    ]
}

/// Debian's files, made once and kept in the lab's cache.
fn debian() -> Result<PathBuf> {
    let wanted = format!("{PACKAGES} {:?} {}", customize(), kernel_release()?);
    let dir = PathBuf::from("/cache/debian");
    let (root, made_of) = (dir.join("root"), dir.join("made-of"));
    if fs::read_to_string(&made_of).is_ok_and(|have| have == wanted) {
        return Ok(root);
    }
    if dir.exists() {
        run(Command::new("rm")
            .args(["-r", "--one-file-system"])
            .arg(&dir))?;
    }
    fs::create_dir_all(&dir)?;
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=minbase", "--mode=root", "--include", PACKAGES])
        .args(["--aptopt=/etc/apt/apt.conf.d/99mmdebstrap"])
        .args(["--setup-hook=mkdir -p \"$1\"/etc/apt/preferences.d && cp /etc/apt/preferences.d/hvrs \"$1\"/etc/apt/preferences.d/"])
        .args(["doc", "man", "locale"].map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
    for hook in customize() {
        command.arg(format!("--customize-hook={hook}"));
    }
    run(command
        .arg("trixie")
        .arg(&root)
        .arg("/etc/apt/sources.list"))?;
    fs::write(made_of, wanted)?;
    Ok(root)
}

/// The disk, for `/data`.
pub fn bios(dir: &Path) -> Result<(PathBuf, String)> {
    let root = debian()?;
    fs::create_dir_all(root.join("boot/grub"))?;
    fs::write(root.join("boot/grub/grub.cfg"), GRUB_CONFIGURATION)?;
    let image = dir.join("debian.img");
    let disk = fs::File::create(&image)?;
    disk.set_len(DISK_MIB << 20)?;
    let core = dir.join("core.img");
    run(Command::new("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"])
        .arg(&core)
        .args(GRUB_MODULES))?;
    let core = fs::read(core)?;
    ensure!(
        core.len() as u64 <= (PARTITION_SECTOR - 1) * SECTOR,
        "GRUB does not fit before the partition"
    );
    // As it is, boot.img loads the sector behind it, and that the ones that follow.
    let boot = fs::read("/usr/lib/grub/i386-pc/boot.img")?;
    let mut mbr = [0; SECTOR as usize];
    let code = boot.get(..440).context("boot.img is too short")?;
    mbr[..440].copy_from_slice(code);
    mbr[446..462].copy_from_slice(&partition_entry());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all_at(&mbr, 0)?;
    disk.write_all_at(&core, SECTOR)?;
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(&root)
        .args(["-E", &format!("offset={}", PARTITION_SECTOR * SECTOR)])
        .arg(&image)
        .arg(format!("{}k", (DISK_MIB << 10) - PARTITION_SECTOR / 2)))?;
    Ok((image, "debian.img".to_string()))
}

/// The partition, active, of Linux' type, without cylinders and heads.
fn partition_entry() -> [u8; 16] {
    let sectors = (DISK_MIB << 20) / SECTOR - PARTITION_SECTOR;
    let mut entry = [0; 16];
    entry[..8].copy_from_slice(&[0x80, 0xfe, 0xff, 0xff, 0x83, 0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&(PARTITION_SECTOR as u32).to_le_bytes());
    entry[12..].copy_from_slice(&(sectors as u32).to_le_bytes());
    entry
}
