// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The "newc" cpio format (Documentation/driver-api/early-userspace/buffer-format.rst): writing an archive, and walking over one.

const MAGIC: &[u8; 6] = b"070701";
const MAGIC_CRC: &[u8; 6] = b"070702";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a directory.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, S_IFDIR | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, S_IFREG | permissions, (0, 0), contents);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, S_IFLNK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, S_IFCHR | 0o600, (major, minor), &[]);
    }

    /// The archive with its trailer.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let len = contents.len() as u32;
        let name_len = path.len() as u32 + 1;
        let links = if mode & S_IFDIR != 0 { 2 } else { 1 };
        let fields = [
            self.inode, mode, 0, 0, links, 0, len, 0, 0, device.0, device.1, name_len, 0,
        ];
        self.inode += 1;
        self.bytes.extend(MAGIC);
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Whether `bytes` starts like an archive.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) || bytes.starts_with(MAGIC_CRC)
}

/// Length of the archive that `bytes` starts with, trailer included; `None` when it is cut off or damaged.
pub fn archive_len(bytes: &[u8]) -> Option<usize> {
    let mut position = 0usize;
    loop {
        let entry = bytes.get(position..)?;
        let header = entry.get(..HEADER).filter(|_| is_archive(entry))?;
        let field = |n: usize| {
            let text = std::str::from_utf8(&header[6 + 8 * n..14 + 8 * n]).ok()?;
            usize::from_str_radix(text, 16).ok()
        };
        let (len, name_len) = (field(6)?, field(11)?);
        let name = entry.get(HEADER..)?.get(..name_len)?;
        let data = position.checked_add((HEADER + name_len).next_multiple_of(4))?;
        let end = data.checked_add(len)?;
        if name.strip_suffix(&[0]) == Some(TRAILER.as_bytes()) {
            return Some(end);
        }
        if end > bytes.len() {
            return None;
        }
        position = end.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.character_device("dev/console", 5, 1);
        archive.file("init", 0o755, b"#!/bin/sh\n");
        archive.symlink("bin/sh", "busybox");
        archive.finish()
    }

    #[test]
    fn layout_is_newc() {
        let bytes = archive();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000041ed", "mode of a directory");
        assert_eq!(&bytes[110..114], b"dev\0");
        let console = &bytes[116..];
        assert_eq!(&console[14..22], b"00002180");
        assert_eq!(&console[6 + 8 * 9..6 + 8 * 11], b"0000000500000001");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn cpio_of_the_host_reads_it() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let Ok(mut cpio) = Command::new("cpio")
            .arg("-tv")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        else {
            return; // no cpio here; the format is checked above
        };
        cpio.stdin.take().unwrap().write_all(&archive()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert_eq!(listing.lines().count(), 4);
        assert!(
            listing.contains("bin/sh -> busybox") && listing.contains("5,   1"),
            "{listing}"
        );
    }

    #[test]
    fn whole_archives_are_told_from_parts() {
        let bytes = archive();
        assert_eq!(archive_len(&bytes), Some(bytes.len()));
        assert_eq!(
            archive_len(&[&bytes[..], &[0; 100]].concat()),
            Some(bytes.len())
        );
        for cut in 0..bytes.len() - 4 {
            assert_eq!(archive_len(&bytes[..cut]), None, "cut at {cut}");
        }
        let mut damaged = bytes;
        damaged[60] = b'x';
        assert_eq!(archive_len(&damaged), None);
    }
}
