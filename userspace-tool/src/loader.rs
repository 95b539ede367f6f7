// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Puts a kernel, its initramfs and its command line into guest memory.

pub mod cpio;
pub mod initramfs;
pub mod linux;
pub mod pvh;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use linux_loader::cmdline::Cmdline;
use linux_loader::loader::load_cmdline;
use vm_memory::{Bytes, GuestAddress};

use crate::layout;
use crate::memory::GuestMemoryMmap;

/// The initramfs of a VM.
pub enum Initrd {
    /// A file.
    File(PathBuf),
    /// Made by [`initramfs::build`].
    Built(Vec<u8>),
}

/// What is to be booted. Everything is checked before a VM exists.
pub struct BootSource {
    kernel: PathBuf,
    kind: KernelKind,
    initrd: Option<Vec<u8>>,
    cmdline: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KernelKind {
    BzImage,
    Elf,
}

/// How the boot processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit boot protocol: RIP; RSI is [`layout::BOOT_PARAMS`].
    Linux64(u64),
    /// PVH: EIP; EBX is [`layout::PVH_START_INFO`].
    Pvh(u32),
}

/// An initramfs in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadedInitrd {
    /// Guest address.
    pub start: u64,
    /// Length; 0 when there is none.
    pub len: u64,
}

impl BootSource {
    /// Opens and examines the files.
    pub fn open(kernel: &Path, initrd: Option<Initrd>, cmdline: String) -> Result<Self> {
        let mut file = File::open(kernel)
            .with_context(|| format!("cannot open kernel {}", kernel.display()))?;
        let kind = examine(&mut file).with_context(|| format!("kernel {}", kernel.display()))?;
        let initrd = match initrd {
            Some(Initrd::File(path)) => Some(read_initrd(&path)?),
            Some(Initrd::Built(image)) => Some(image),
            None => None,
        };
        ensure!(
            cmdline.len() < layout::CMDLINE_SIZE,
            "the kernel command line is longer than {} bytes",
            layout::CMDLINE_SIZE - 1
        );
        ensure!(
            cmdline.bytes().all(|b| b.is_ascii() && b != 0),
            "the kernel command line is not ASCII"
        );
        Ok(Self {
            kernel: kernel.to_owned(),
            kind,
            initrd,
            cmdline,
        })
    }

    /// The kernel's file.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// Loads everything for a guest with `memory_size` bytes of RAM.
    pub fn load(&self, memory: &GuestMemoryMmap, memory_size: u64) -> Result<Entry> {
        let mut file = File::open(&self.kernel)
            .with_context(|| format!("cannot open kernel {}", self.kernel.display()))?;
        let mut cmdline = Cmdline::new(layout::CMDLINE_SIZE)?;
        cmdline.insert_str(&self.cmdline)?;
        load_cmdline(memory, GuestAddress(layout::CMDLINE), &cmdline)?;
        let load = match self.kind {
            KernelKind::BzImage => linux::load,
            KernelKind::Elf => pvh::load,
        };
        load(
            &mut file,
            memory,
            memory_size,
            &cmdline,
            |lowest, highest| self.place_initrd(memory, memory_size, lowest, highest),
        )
        .with_context(|| format!("kernel {}", self.kernel.display()))
    }

    /// Puts the initramfs as high as possible between `lowest` and `highest`.
    fn place_initrd(
        &self,
        memory: &GuestMemoryMmap,
        memory_size: u64,
        lowest: u64,
        highest: u64,
    ) -> Result<LoadedInitrd> {
        let Some(image) = &self.initrd else {
            return Ok(LoadedInitrd::default());
        };
        let len = image.len() as u64;
        let top = highest.min(memory_size).min(layout::RAM_BELOW_4G_END);
        let start = top
            .checked_sub(len)
            .map(|start| start & !0xfff)
            .filter(|start| *start >= lowest);
        let Some(start) = start else {
            bail!(
                "{} MiB of memory are too little for it and its initramfs of {} KiB",
                memory_size >> 20,
                len >> 10
            )
        };
        memory
            .write_slice(image, GuestAddress(start))
            .context("cannot write the initramfs to guest memory")?;
        Ok(LoadedInitrd { start, len })
    }
}

fn examine(file: &mut File) -> Result<KernelKind> {
    let metadata = file.metadata()?;
    ensure!(!metadata.is_dir(), "it is a directory");
    let len = metadata.len();
    let mut start = [0; linux::HEADER_END];
    let mut read = 0;
    while read < start.len() {
        match file.read(&mut start[read..])? {
            0 => break,
            n => read += n,
        }
    }
    file.rewind()?;
    if start.starts_with(b"\x7fELF") {
        return Ok(KernelKind::Elf);
    }
    ensure!(read > 0, "it is empty");
    linux::check_header(&start[..read], len)?;
    Ok(KernelKind::BzImage)
}

fn read_initrd(path: &Path) -> Result<Vec<u8>> {
    let image =
        std::fs::read(path).with_context(|| format!("cannot read initrd {}", path.display()))?;
    initramfs::check(&image).with_context(|| format!("initrd {}", path.display()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vmm_sys_util::tempfile::TempFile;

    fn refusal(contents: &[u8]) -> String {
        let file = TempFile::new().unwrap();
        file.as_file().write_all(contents).unwrap();
        format!(
            "{:#}",
            BootSource::open(file.as_path(), None, String::new())
                .err()
                .unwrap()
        )
    }

    #[test]
    fn unusable_kernels_are_refused_in_one_line() {
        assert!(refusal(b"").contains("it is empty"));
        assert!(refusal(b"#!/bin/sh\n").contains("neither"));
        let missing = BootSource::open(Path::new("/nonexistent"), None, String::new())
            .err()
            .unwrap();
        let missing = format!("{missing:#}");
        assert!(
            missing.contains("/nonexistent")
                && missing.contains("No such file")
                && !missing.contains('\n')
        );
        let directory = BootSource::open(Path::new("/tmp"), None, String::new())
            .err()
            .unwrap();
        assert!(format!("{directory:#}").contains("directory"));
    }

    #[test]
    fn initrd_goes_to_the_top_of_what_the_kernel_reaches() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
        let source = BootSource {
            kernel: PathBuf::new(),
            kind: KernelKind::Elf,
            initrd: Some(vec![7; 5000]),
            cmdline: String::new(),
        };
        let placed = source
            .place_initrd(&memory, 16 << 20, 1 << 20, u64::MAX)
            .unwrap();
        assert_eq!((placed.start, placed.len), ((16 << 20) - 0x2000, 5000));
        let placed = source
            .place_initrd(&memory, 16 << 20, 1 << 20, 8 << 20)
            .unwrap();
        assert_eq!(placed.start, (8 << 20) - 0x2000);
        assert_eq!(
            memory.read_obj::<u8>(GuestAddress(placed.start)).unwrap(),
            7
        );
        assert!(source
            .place_initrd(&memory, 16 << 20, (16 << 20) - 0x1000, u64::MAX)
            .is_err());
    }
}
