// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The PVH boot protocol for ELF images (Xen's docs/misc/pvh.pandoc): entry in 32-bit protected mode.

use std::fs::File;

use anyhow::{bail, ensure, Context, Result};
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, Error as ElfError, PvhBootCapability};
use linux_loader::loader::{Error as LoaderError, KernelLoader};
use vm_memory::GuestAddress;

use super::{Entry, LoadedInitrd};
use crate::layout;
use crate::memory::{self, GuestMemoryMmap};

const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336e_c578;

/// Loads an ELF image and writes its start information.
pub fn load(
    file: &mut File,
    memory: &GuestMemoryMmap,
    memory_size: u64,
    _cmdline: &Cmdline,
    place_initrd: impl FnOnce(u64, u64) -> Result<LoadedInitrd>,
) -> Result<Entry> {
    let kernel = match Elf::load(memory, None, file, Some(GuestAddress(0))) {
        Ok(kernel) => kernel,
        Err(LoaderError::Elf(ElfError::ReadKernelImage)) => {
            bail!(
                "it is truncated, or does not fit into {} MiB of memory",
                memory_size >> 20
            )
        }
        Err(LoaderError::Elf(
            ElfError::ReadElfHeader | ElfError::ReadProgramHeader | ElfError::ReadNoteHeader,
        )) => bail!("it is truncated"),
        Err(error) => return Err(error).context("it is no usable ELF image"),
    };
    let PvhBootCapability::PvhEntryPresent(entry) = kernel.pvh_boot_cap else {
        bail!("it is an ELF image without a PVH entry note")
    };
    let entry = u32::try_from(entry.0).context("its PVH entry point is not below 4 GiB")?;
    ensure!(
        kernel.kernel_end <= memory_size,
        "{} MiB of memory are too little for it",
        memory_size >> 20
    );
    let initrd = place_initrd(kernel.kernel_end.max(layout::HIGH_MEMORY), 1 << 32)?;

    let map: Vec<hvm_memmap_table_entry> = memory::guest_map(memory_size)
        .iter()
        .map(|entry| hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.len,
            type_: entry.kind as u32,
            reserved: 0,
        })
        .collect();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: u32::from(initrd.len > 0),
        modlist_paddr: if initrd.len > 0 {
            layout::PVH_MODULES
        } else {
            0
        },
        cmdline_paddr: layout::CMDLINE,
        rsdp_paddr: layout::ACPI_TABLES,
        memmap_paddr: layout::PVH_MEMMAP,
        memmap_entries: map.len() as u32,
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(layout::PVH_START_INFO));
    params.set_sections(&map, GuestAddress(layout::PVH_MEMMAP));
    if initrd.len > 0 {
        let module = hvm_modlist_entry {
            paddr: initrd.start,
            size: initrd.len,
            ..Default::default()
        };
        params.set_modules(&[module], GuestAddress(layout::PVH_MODULES));
    }
    PvhBootConfigurator::write_bootparams(&params, memory)?;
    Ok(Entry::Pvh(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use vm_memory::Bytes;
    use vmm_sys_util::tempfile::TempFile;

    /// An ELF64 image: a PVH note with entry 0x100020 (unless `note` is false) and one segment at 1 MiB.
    fn elf(note: bool) -> Vec<u8> {
        let mut image = vec![0; 64 + 2 * 56];
        image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (offset, value) in [(16, 2u16), (18, 62), (52, 64), (54, 56), (56, 2)] {
            image[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
        }
        image[20] = 1;
        image[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        image[32..40].copy_from_slice(&64u64.to_le_bytes());
        let mut segment = |n: usize, kind: u32, offset: u64, address: u64, len: u64| {
            let start = 64 + 56 * n;
            image[start..start + 4].copy_from_slice(&kind.to_le_bytes());
            for (field, value) in [
                (8, offset),
                (16, address),
                (24, address),
                (32, len),
                (40, len),
                (48, 4),
            ] {
                image[start + field..start + field + 8].copy_from_slice(&value.to_le_bytes());
            }
        };
        segment(0, if note { 4 } else { 0 }, 176, 0, 20);
        segment(1, 1, 196, 0x10_0000, 16);
        for word in [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), 0x10_0020] {
            image.extend(word.to_le_bytes());
        }
        image.extend([0x90; 16]);
        image
    }

    fn loaded(image: &[u8], initrd: LoadedInitrd) -> Result<(GuestMemoryMmap, Entry)> {
        let file = TempFile::new().unwrap();
        file.as_file().write_all(image).unwrap();
        file.as_file().rewind().unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap();
        let cmdline = Cmdline::new(64).unwrap();
        let entry = load(
            &mut file.into_file(),
            &memory,
            4 << 20,
            &cmdline,
            |lowest, _| {
                assert_eq!(lowest, 0x10_0010);
                Ok(initrd)
            },
        )?;
        Ok((memory, entry))
    }

    #[test]
    fn start_info() {
        let (memory, entry) = loaded(
            &elf(true),
            LoadedInitrd {
                start: 0x30_0000,
                len: 5,
            },
        )
        .unwrap();
        assert_eq!(entry, Entry::Pvh(0x10_0020));
        assert_eq!(
            memory.read_obj::<u8>(GuestAddress(0x10_000f)).unwrap(),
            0x90
        );
        let word = |offset| {
            memory
                .read_obj::<u64>(GuestAddress(layout::PVH_START_INFO + offset))
                .unwrap()
        };
        assert_eq!(word(0) as u32, XEN_HVM_START_MAGIC_VALUE);
        assert_eq!(word(8) >> 32, 1, "one module");
        assert_eq!(
            (word(24), word(32), word(40)),
            (layout::CMDLINE, layout::ACPI_TABLES, layout::PVH_MEMMAP)
        );
        assert_eq!(
            memory
                .read_obj::<u64>(GuestAddress(layout::PVH_MODULES))
                .unwrap(),
            0x30_0000
        );
        assert_eq!(
            memory
                .read_obj::<u64>(GuestAddress(layout::PVH_MEMMAP + 3 * 24))
                .unwrap(),
            0x10_0000
        );
    }

    #[test]
    fn bad_images_are_explained() {
        let message = |image: &[u8]| {
            format!(
                "{:#}",
                loaded(image, LoadedInitrd::default()).err().unwrap()
            )
        };
        assert!(message(&elf(false)).contains("without a PVH entry note"));
        let image = elf(true);
        assert!(message(&image[..image.len() - 1]).contains("truncated"));
        assert!(message(&image[..40]).contains("truncated"));
        assert!(message(&image[..100]).contains("truncated"));
    }
}
