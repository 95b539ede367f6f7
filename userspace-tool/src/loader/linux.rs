// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Linux's 64-bit boot protocol (Documentation/arch/x86/boot.rst).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{Bytes, GuestAddress};

use super::{Entry, LoadedInitrd};
use crate::layout;
use crate::memory::{self, GuestMemoryMmap};

/// As much of the file as [`check_header`] looks at.
pub const HEADER_END: usize = 0x268;

/// The 64-bit entry lies this far behind the start of the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// XLF_KERNEL_64: the kernel has that entry.
const XLF_KERNEL_64: u16 = 1 << 0;
const LOADER_UNDEFINED: u8 = 0xff;

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from(u16_at(bytes, offset)) | (u32::from(u16_at(bytes, offset + 2)) << 16)
}

/// Checks the start of an image of `len` bytes: is it a bzImage that has the 64-bit entry, and is all of it there?
pub fn check_header(start: &[u8], len: u64) -> Result<()> {
    ensure!(
        start.len() >= HEADER_END && &start[0x202..0x206] == b"HdrS",
        "it is neither a bzImage nor an ELF image{}",
        if start.len() < HEADER_END {
            " (or it is truncated)"
        } else {
            ""
        }
    );
    let version = u16_at(start, 0x206);
    ensure!(
        version >= 0x20c,
        "its boot protocol {}.{:02} is too old",
        version >> 8,
        version & 0xff
    );
    ensure!(
        u16_at(start, 0x236) & XLF_KERNEL_64 != 0,
        "it has no 64-bit entry point"
    );
    let setup_sects = match start[0x1f1] {
        0 => 4,
        n => u64::from(n),
    };
    let needed = (setup_sects + 1) * 512 + u64::from(u32_at(start, 0x1f4)) * 16;
    ensure!(
        len >= needed,
        "it is truncated: {len} of {needed} bytes are there"
    );
    Ok(())
}

/// The release that a bzImage says it is (the first word of its version string), which names its modules' directory.
pub fn release(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let mut pointer = [0; 2];
    file.read_exact_at(&mut pointer, 0x20e).ok()?;
    let mut text = [0; 128];
    file.read_exact_at(&mut text, u64::from(u16::from_le_bytes(pointer)) + 0x200)
        .ok()?;
    let word = text.split(|byte| matches!(byte, 0 | b' ')).next()?;
    String::from_utf8(word.to_vec())
        .ok()
        .filter(|word| !word.is_empty() && !word.contains('/'))
}

/// Loads a bzImage and writes its boot parameters.
pub fn load(
    file: &mut File,
    memory: &GuestMemoryMmap,
    memory_size: u64,
    cmdline: &Cmdline,
    place_initrd: impl FnOnce(u64, u64) -> Result<LoadedInitrd>,
) -> Result<Entry> {
    let kernel = BzImage::load(
        memory,
        Some(GuestAddress(layout::HIGH_MEMORY)),
        file,
        Some(GuestAddress(layout::HIGH_MEMORY)),
    )
    .with_context(|| format!("it does not fit into {} MiB of memory", memory_size >> 20))?;
    let mut params = boot_params {
        hdr: kernel.setup_header.context("no setup header")?,
        ..Default::default()
    };
    // The kernel decompresses itself to its preferred address, or above where it was loaded if that is higher.
    let needed =
        params.hdr.pref_address.max(kernel.kernel_load.0) + u64::from(params.hdr.init_size);
    ensure!(
        needed <= memory_size,
        "{} MiB of memory are too little for it: it needs {} MiB",
        memory_size >> 20,
        needed.div_ceil(1 << 20)
    );
    let initrd = place_initrd(needed, u64::from(params.hdr.initrd_addr_max) + 1)?;

    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = layout::CMDLINE as u32;
    params.hdr.cmdline_size = cmdline.as_cstring()?.as_bytes_with_nul().len() as u32;
    params.hdr.ramdisk_image = initrd.start as u32;
    params.hdr.ramdisk_size = initrd.len as u32;
    params.acpi_rsdp_addr = layout::ACPI_TABLES;
    let map = memory::guest_map(memory_size);
    for (line, entry) in params.e820_table.iter_mut().zip(&map) {
        *line = boot_e820_entry {
            addr: entry.start,
            size: entry.len,
            type_: entry.kind as u32,
        };
    }
    params.e820_entries = map.len() as u8;
    let params = BootParams::new(&params, GuestAddress(layout::BOOT_PARAMS));
    LinuxBootConfigurator::write_bootparams(&params, memory)?;
    write_page_tables(memory).context("cannot write the boot page tables")?;
    Ok(Entry::Linux64(kernel.kernel_load.0 + ENTRY_64))
}

/// Maps the first 4 GiB 1:1 with 2 MiB pages.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), vm_memory::GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let pdpt = layout::PAGE_TABLES + 0x1000;
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(layout::PAGE_TABLES))?;
    for gib in 0..4 {
        let directory = pdpt + 0x1000 * (gib + 1);
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt + 8 * gib))?;
        for n in 0..512 {
            let page = (gib << 30) + (n << 21);
            memory.write_obj(
                page | LARGE | PRESENT_WRITABLE,
                GuestAddress(directory + 8 * n),
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use vmm_sys_util::tempfile::TempFile;

    /// A bzImage whose protected-mode part is `payload`.
    pub fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x1f4..0x1f8].copy_from_slice(&(payload.len().div_ceil(16) as u32).to_le_bytes());
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x211] = 1; // LOADED_HIGH
        image[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        image[0x236] = 1;
        image[0x258..0x260].copy_from_slice(&0x20_0000u64.to_le_bytes());
        image[0x260..0x264].copy_from_slice(&0x1_0000u32.to_le_bytes());
        image.extend(payload);
        image
    }

    #[test]
    fn header_is_checked() {
        let image = bzimage(&[0xcc; 64]);
        let len = image.len() as u64;
        check_header(&image, len).unwrap();
        let message = |image: &[u8], len| check_header(image, len).unwrap_err().to_string();
        assert!(message(&image, len - 1).contains("truncated"));
        assert!(message(&image[..0x210], 0x210).contains("truncated"));
        let mut old = image.clone();
        old[0x206] = 5;
        assert!(message(&old, len).contains("too old"));
        let mut narrow = image;
        narrow[0x236] = 0;
        assert!(message(&narrow, len).contains("64-bit"));
    }

    fn loaded(memory_size: u64, initrd: LoadedInitrd) -> Result<(GuestMemoryMmap, Entry)> {
        let file = TempFile::new().unwrap();
        file.as_file().write_all(&bzimage(&[0xcc; 64])).unwrap();
        file.as_file().rewind().unwrap();
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), memory_size as usize)]).unwrap();
        let mut cmdline = Cmdline::new(64).unwrap();
        cmdline.insert_str("quiet").unwrap();
        let entry = load(
            &mut file.into_file(),
            &memory,
            memory_size,
            &cmdline,
            |lowest, highest| {
                assert_eq!((lowest, highest), (0x21_0000, 0x8000_0000));
                Ok(initrd)
            },
        )?;
        Ok((memory, entry))
    }

    #[test]
    fn boot_parameters_and_page_tables() {
        let (memory, entry) = loaded(
            16 << 20,
            LoadedInitrd {
                start: 0x40_0000,
                len: 77,
            },
        )
        .unwrap();
        assert_eq!(entry, Entry::Linux64(0x10_0200));
        assert_eq!(
            memory.read_obj::<u64>(GuestAddress(0x10_0000)).unwrap(),
            0xcccc_cccc_cccc_cccc
        );
        let field = |offset: u64| {
            memory
                .read_obj::<u32>(GuestAddress(layout::BOOT_PARAMS + offset))
                .unwrap()
        };
        assert_eq!(field(0x70), layout::ACPI_TABLES as u32);
        assert_eq!(field(0x218), 0x40_0000);
        assert_eq!(field(0x21c), 77);
        assert_eq!(field(0x228), layout::CMDLINE as u32);
        assert_eq!(field(0x1e8) & 0xff, 4, "four lines of memory map");
        assert_eq!(field(0x2d0 + 3 * 20), 0x10_0000);
        // Walk to 0xfee00000 as the CPU would.
        let entry = |table: u64, index: u64| {
            memory
                .read_obj::<u64>(GuestAddress((table & !0xfff) + 8 * index))
                .unwrap()
        };
        let pde = entry(entry(entry(layout::PAGE_TABLES, 0), 3), 0x1f7);
        assert_eq!(pde, 0xfee0_0000 | 0x83);
    }

    #[test]
    fn too_little_memory_is_said() {
        let error = loaded(2 << 20, LoadedInitrd::default()).err().unwrap();
        assert!(format!("{error:#}").contains("it needs 3 MiB"), "{error:#}");
        let error = loaded(1 << 20, LoadedInitrd::default()).err().unwrap();
        assert!(format!("{error:#}").contains("does not fit"), "{error:#}");
    }
}
