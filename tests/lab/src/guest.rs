//! What guests of hvrs are made of: the micro-guests, and Debian's stock kernel with an initramfs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::{image, place};

/// The micro-guests that were built, for `/job/guests`. Those that measure assert nothing and are not among them.
pub fn micro_guests() -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("tests/guests/images/src/bin")? {
        let name = entry?
            .path()
            .file_stem()
            .context("image name")?
            .to_string_lossy()
            .into_owned();
        if !name.starts_with("bench") {
            let path = PathBuf::from(format!("build/guests/release/{name}"));
            ensure!(path.exists(), "micro-guest {} is not built", path.display());
            found.push((path, format!("guests/{name}")));
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "there are no micro-guests");
    Ok(found)
}

/// What the initramfs of a Linux guest brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initramfs {
    /// Drivers for hvrsctl's devices.
    Plain,
    /// The same and stress-ng, which needs much more memory.
    Load,
    /// Drivers for QEMU's PC.
    Pc,
    /// And for more of its devices.
    Devices,
    /// Those for the PC, and stress-ng.
    PcLoad,
}

/// The stock kernel and an initramfs for the tests in it, for `/data`.
pub fn linux(dir: &Path, kind: Initramfs) -> Result<Vec<(PathBuf, String)>> {
    let initrd = dir.join("guest-initrd");
    let modules: &[&str] = match kind {
        Initramfs::Plain | Initramfs::Load => &["virtio_mmio", "virtio_blk", "ext4"],
        Initramfs::Pc | Initramfs::PcLoad => &["virtio_pci", "virtio_blk", "virtio_net", "ext4"],
        Initramfs::Devices => &[
            "virtio_pci",
            "virtio_rng",
            "ahci",
            "sd_mod",
            "nvme",
            "e1000",
            "xhci_pci",
            "usbhid",
            "hid_generic",
            "evdev",
        ],
    };
    let modules: Vec<String> = modules.iter().map(|name| name.to_string()).collect();
    let mut files = Vec::new();
    if matches!(kind, Initramfs::Load | Initramfs::PcLoad) {
        files.push((
            PathBuf::from("/usr/bin/stress-ng"),
            "usr/bin/stress-ng".to_string(),
        ));
    }
    let init = fs::read_to_string("tests/lab/jobs/guest-init.sh")?;
    image::initramfs(&initrd, &init, &modules, &files)?;
    Ok(vec![kernel()?, (initrd, "guest-initrd".to_string())])
}

/// Debian's QEMU with what it needs, under /data as in /.
pub fn qemu() -> Vec<(PathBuf, String)> {
    [
        "/usr/bin/qemu-system-x86_64",
        "/usr/share/seabios/bios-256k.bin",
        "/usr/share/qemu/pvh.bin",
        "/usr/share/qemu/kvmvapic.bin",
        "/usr/share/qemu/linuxboot_dma.bin",
    ]
    .iter()
    .map(|path| (PathBuf::from(path), path[1..].to_string()))
    .collect()
}

/// UEFI firmware for it. As a ROM: QEMU 11.1 cannot have flash memory with mshv, it removes the same region twice.
pub fn ovmf() -> (PathBuf, String) {
    let path = "/usr/share/ovmf/OVMF.fd";
    (PathBuf::from(path), path[1..].to_string())
}

/// The stock kernel alone.
pub fn kernel() -> Result<(PathBuf, String)> {
    let release = place::kernel_release()?;
    Ok((
        PathBuf::from(format!("/boot/vmlinuz-{release}")),
        "vmlinuz".to_string(),
    ))
}
