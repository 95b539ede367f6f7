// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The initramfs that `hvrsctl start` makes when none is given, and the check of one that is given.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use flate2::bufread::GzDecoder;

use super::cpio::{self, Archive};

/// Modules that a guest needs for its disks and its power button.
const MODULES: [&str; 4] = ["virtio_mmio", "virtio_blk", "button", "evdev"];
const BUSYBOX: [&str; 4] = [
    "/bin/busybox",
    "/usr/bin/busybox",
    "/sbin/busybox",
    "/usr/local/bin/busybox",
];

const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin HOME=/ PS1='guest# '
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
while read -r module; do
    insmod "/modules/$module"
done < /modules/order
acpid -l /dev/null -p /tmp/acpid.pid
echo
echo "Linux $(uname -r): $(grep -c ^processor /proc/cpuinfo) CPUs, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB, $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
dmesg | grep -i 'hyper-v'
echo "'poweroff -f' or 'exit' ends this virtual machine."
setsid cttyhack sh
poweroff -f
"#;

/// What busybox' acpid runs when the power button is pressed.
const POWER_BUTTON: (&str, &str) = ("etc/acpi/PWRF/00000080", "#!/bin/sh\npoweroff -f\n");

/// Builds an initramfs around the host's busybox, for the kernel of release `release` (if known).
pub fn build(release: Option<&str>) -> Result<Vec<u8>> {
    build_from(&find_busybox()?, Path::new("/lib/modules"), release)
}

fn find_busybox() -> Result<PathBuf> {
    match BUSYBOX.iter().map(Path::new).find(|path| path.exists()) {
        Some(path) => Ok(path.to_owned()),
        None => bail!("no busybox on this host for the guest's initramfs: install it (`apt install busybox-static`) or give --initrd"),
    }
}

fn build_from(busybox: &Path, modules: &Path, release: Option<&str>) -> Result<Vec<u8>> {
    let binary = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    ensure!(
        !needs_interpreter(&binary),
        "{} is dynamically linked and cannot run alone in a guest: `apt install busybox-static` or give --initrd",
        busybox.display()
    );
    let mut archive = Archive::default();
    for directory in [
        "bin",
        "dev",
        "etc",
        "etc/acpi",
        "etc/acpi/PWRF",
        "modules",
        "proc",
        "sys",
        "tmp",
    ] {
        archive.directory(directory);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &binary);
    archive.symlink("bin/sh", "busybox");
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file(POWER_BUTTON.0, 0o755, POWER_BUTTON.1.as_bytes());
    let mut order = String::new();
    for path in release
        .map(|release| module_files(&modules.join(release)))
        .unwrap_or_default()
    {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a module's name is not UTF-8")?;
        let contents =
            fs::read(&path).with_context(|| format!("cannot read module {}", path.display()))?;
        archive.file(&format!("modules/{name}"), 0o644, &contents);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// Whether an ELF64 image has a PT_INTERP segment.
fn needs_interpreter(image: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |offset: usize, len: usize| {
        let bytes = image.get(offset..offset.checked_add(len)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0u64, |value, byte| (value << 8) | u64::from(*byte)),
        )
    };
    let headers = || {
        Some((
            number(32, 8)? as usize,
            number(54, 2)? as usize,
            number(56, 2)? as usize,
        ))
    };
    let Some((start, size, count)) = headers() else {
        return false;
    };
    (0..count).any(|n| {
        let offset = size
            .checked_mul(n)
            .and_then(|offset| start.checked_add(offset));
        offset.and_then(|offset| number(offset, 4)) == Some(u64::from(PT_INTERP))
    })
}

/// The files of [`MODULES`] and of what they depend on, in the order of loading. Built-in ones have no file.
fn module_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(dependencies) = fs::read_to_string(directory.join("modules.dep")) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for wanted in MODULES {
        let line = dependencies.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            (module_name(file) == wanted).then_some((file, needs))
        });
        let Some((file, needs)) = line else { continue };
        // modules.dep names what a module needs nearest first.
        for path in needs.split_whitespace().rev().chain([file]) {
            let path = directory.join(path);
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    files
}

/// `kernel/drivers/block/virtio_blk.ko.xz` → `virtio_blk`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// Refuses what the kernel could not unpack: something else, or a part of an initramfs.
pub fn check(image: &[u8]) -> Result<()> {
    ensure!(!image.is_empty(), "it is empty");
    let mut rest = image;
    // An initramfs is a sequence of archives, each compressed or not, with zeros between them.
    loop {
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest = &rest[zeros..];
        if rest.is_empty() {
            return Ok(());
        }
        if cpio::is_archive(rest) {
            let len = cpio::archive_len(rest)
                .context("it is truncated or damaged: its cpio archive has no end")?;
            rest = rest.get(len..).unwrap_or(&[]);
        } else if rest.starts_with(&ZSTD) {
            let len = zstd_frame_len(rest)
                .context("it is truncated or damaged: its zstd data has no end")?;
            rest = &rest[len..];
        } else if rest.starts_with(b"\xfd7zXZ\0") {
            let end = rest.len() - rest.iter().rev().take_while(|byte| **byte == 0).count();
            ensure!(
                rest[..end].ends_with(b"YZ"),
                "it is truncated or damaged: its xz data has no end"
            );
            return Ok(());
        } else if rest.starts_with(b"\x1f\x8b") {
            let mut data = GzDecoder::new(rest);
            let unpacked = std::io::copy(&mut data, &mut std::io::sink());
            unpacked.context("it is truncated or damaged: its gzip data has no end")?;
            rest = data.into_inner();
        } else {
            // bzip2, lzma, lzo and lz4 cannot be checked without unpacking.
            let known: [&[u8]; 5] = [
                b"BZh",
                b"\x5d\0\0",
                b"\x89LZO",
                b"\x02\x21\x4c\x18",
                b"\x04\x22\x4d\x18",
            ];
            ensure!(
                known.iter().any(|magic| rest.starts_with(magic)),
                "it is no initramfs (no cpio archive, not compressed)"
            );
            return Ok(());
        }
    }
}

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Length of the zstd frame that `data` starts with (RFC 8878, 3.1.1); `None` when it is cut off.
fn zstd_frame_len(data: &[u8]) -> Option<usize> {
    let descriptor = *data.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    let content_size = match descriptor >> 6 {
        0 => usize::from(single_segment),
        n => 1 << n,
    };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let mut position = 5 + usize::from(!single_segment) + dictionary + content_size;
    loop {
        let header = data.get(position..position.checked_add(3)?)?;
        let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let size = match (header >> 1) & 3 {
            1 => 1, // one byte, repeated
            3 => return None,
            _ => (header >> 3) as usize,
        };
        position = position.checked_add(3 + size)?;
        if header & 1 != 0 {
            break;
        }
    }
    let end = position + if descriptor & 4 != 0 { 4 } else { 0 };
    (end <= data.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    #[test]
    fn modules_come_in_loading_order() {
        let directory = TempDir::new().unwrap();
        fs::write(
            directory.as_path().join("modules.dep"),
            "kernel/a/virtio_ring.ko.xz: kernel/a/virtio.ko.xz\n\
             kernel/a/virtio_mmio.ko.xz: kernel/a/virtio_ring.ko.xz kernel/a/virtio.ko.xz\n\
             kernel/b/virtio_blk.ko.xz: kernel/a/virtio_ring.ko.xz kernel/a/virtio.ko.xz\n",
        )
        .unwrap();
        let files = module_files(directory.as_path());
        let names: Vec<_> = files
            .iter()
            .map(|path| module_name(path.to_str().unwrap()))
            .collect();
        assert_eq!(
            names,
            ["virtio", "virtio_ring", "virtio_mmio", "virtio_blk"]
        );
        assert!(module_files(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn archive_holds_busybox_init_and_modules() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.as_path().join(name);
        fs::write(path("busybox"), b"\x7fELF static").unwrap();
        fs::create_dir(path("7.0")).unwrap();
        fs::write(path("7.0/modules.dep"), "virtio_blk.ko:\n").unwrap();
        fs::write(path("7.0/virtio_blk.ko"), b"a module").unwrap();
        let image = build_from(&path("busybox"), directory.as_path(), Some("7.0")).unwrap();
        check(&image).unwrap();
        let has = |text: &[u8]| image.windows(text.len()).any(|window| window == text);
        assert!(has(b"modules/virtio_blk.ko\0") && has(b"a module") && has(b"virtio_blk.ko\n"));
        assert!(has(b"\x7fELF static") && has(INIT.as_bytes()));
    }

    #[test]
    fn dynamic_busybox_is_refused() {
        let mut image = vec![0; 64 + 56];
        image[32] = 64;
        image[54] = 56;
        image[56] = 1;
        assert!(!needs_interpreter(&image));
        image[64] = 3;
        assert!(needs_interpreter(&image));
        assert!(!needs_interpreter(b"\x7fELF"));
        let directory = TempDir::new().unwrap();
        let busybox = directory.as_path().join("busybox");
        fs::write(&busybox, &image).unwrap();
        let error = build_from(&busybox, directory.as_path(), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("busybox-static"), "{error}");
    }

    #[test]
    fn given_images_are_checked() {
        let message = |image: &[u8]| check(image).unwrap_err().to_string();
        assert!(message(b"").contains("empty"));
        assert!(message(b"hello, world").contains("no initramfs"));
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, b"some cpio archive").unwrap();
        let gz = gz.finish().unwrap();
        check(&gz).unwrap();
        assert!(message(&gz[..gz.len() - 1]).contains("truncated"));
        check(b"BZh anything").unwrap();
        check(b"\xfd7zXZ\0 data YZ\0\0").unwrap();
        assert!(message(b"\xfd7zXZ\0 data").contains("truncated"));
        // An uncompressed archive followed by zstd: a raw block of 3 bytes, then a last RLE block.
        let mut archive = Archive::default();
        archive.directory("kernel");
        let mut image = archive.finish();
        image.resize(512, 0);
        image.extend(
            [
                ZSTD.as_slice(),
                &[
                    0x20,
                    4,
                    3 << 3,
                    0,
                    0,
                    1,
                    2,
                    3,
                    (4 << 3) | (1 << 1) | 1,
                    0,
                    0,
                    9,
                ],
            ]
            .concat(),
        );
        check(&image).unwrap();
        for cut in [20, 516, 518, 522, 526] {
            assert!(message(&image[..cut]).contains("truncated"), "cut at {cut}");
        }
    }

    #[test]
    fn host_zstd_frames_are_walked() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let Ok(mut zstd) = Command::new("zstd")
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return; // no zstd here; the format is checked above
        };
        let input: Vec<u8> = (0..500_000u32)
            .flat_map(|n| n.wrapping_mul(n).to_le_bytes())
            .collect();
        let mut pipe = zstd.stdin.take().unwrap();
        let writer = std::thread::spawn(move || pipe.write_all(&input));
        let output = zstd.wait_with_output().unwrap().stdout;
        writer.join().unwrap().unwrap();
        assert_eq!(zstd_frame_len(&output), Some(output.len()));
        assert_eq!(zstd_frame_len(&output[..output.len() - 1]), None);
    }
}
