// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest RAM, and the map of it that the guest is told.

use anyhow::{Context, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryRegion};

use crate::layout;
use crate::sys;

/// The guest's memory as the loaders and devices see it.
pub type GuestMemoryMmap = vm_memory::GuestMemoryMmap<()>;

/// Allocates zeroed memory of `bytes` bytes, below 3 GiB first and then from 4 GiB. Pages come when they are first touched.
///
/// Linux places mappings of this size so that huge pages fit, which lets hvrs map the guest with large pages.
pub fn allocate(bytes: u64) -> Result<GuestMemoryMmap> {
    let mut list = Vec::new();
    for (start, len) in ranges(bytes) {
        let len = usize::try_from(len).context("the memory does not fit this host")?;
        list.push((GuestAddress(start), len));
    }
    let memory = GuestMemoryMmap::from_ranges(&list).with_context(|| {
        format!(
            "cannot allocate {} MiB of memory for the guest",
            bytes >> 20
        )
    })?;
    for region in memory.iter() {
        sys::use_huge_pages(region);
    }
    Ok(memory)
}

/// (guest address, host address, size) of each contiguous piece of `memory`.
pub fn pieces(memory: &GuestMemoryMmap) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
    memory
        .iter()
        .map(|region| (region.start_addr().0, region.as_ptr() as u64, region.len()))
}

/// (start, length) of the RAM ranges that hold `bytes` bytes.
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(layout::RAM_BELOW_4G_END);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((layout::RAM_ABOVE_4G, bytes - low));
    }
    ranges
}

/// What a range of the guest's memory map is; the values are those of the E820 and PVH maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RangeKind {
    /// RAM.
    Ram = 1,
    /// Not for use.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
}

/// One line of the guest's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: RangeKind,
}

/// The memory map that the guest is told, for `bytes` bytes of RAM.
pub fn guest_map(bytes: u64) -> Vec<MapEntry> {
    let entry = |start, end, kind| MapEntry {
        start,
        len: end - start,
        kind,
    };
    let low = bytes.min(layout::RAM_BELOW_4G_END);
    let mut map = vec![
        entry(0, layout::LOW_MEMORY_END, RangeKind::Ram),
        entry(layout::LOW_MEMORY_END, 0xa_0000, RangeKind::Reserved),
        entry(layout::ACPI_TABLES, layout::HIGH_MEMORY, RangeKind::Acpi),
        entry(layout::HIGH_MEMORY, low, RangeKind::Ram),
    ];
    if bytes > low {
        map.push(MapEntry {
            start: layout::RAM_ABOVE_4G,
            len: bytes - low,
            kind: RangeKind::Ram,
        });
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn ram_is_split_at_3_gib() {
        assert_eq!(ranges(512 << 20), [(0, 512 << 20)]);
        assert_eq!(ranges(5 << 30), [(0, 3 << 30), (4 << 30, 2 << 30)]);
    }

    #[test]
    fn map_covers_ram_once_and_keeps_devices_out() {
        for bytes in [64 << 20, 3 << 30, 9u64 << 30] {
            let map = guest_map(bytes);
            for pair in map.windows(2) {
                assert!(pair[0].start + pair[0].len <= pair[1].start);
            }
            let ram: u64 = map
                .iter()
                .filter(|e| e.kind == RangeKind::Ram)
                .map(|e| e.len)
                .sum();
            let holes = (layout::HIGH_MEMORY - layout::LOW_MEMORY_END) as i64;
            assert_eq!(ram as i64, bytes as i64 - holes);
            assert!(!map
                .iter()
                .any(|e| e.start <= layout::VIRTIO_MMIO && layout::VIRTIO_MMIO < e.start + e.len));
        }
    }

    #[test]
    fn memory_is_zero_and_writable() {
        let memory = allocate(8 << 20).unwrap();
        let (gpa, _, len) = pieces(&memory).next().unwrap();
        assert_eq!((gpa, len), (0, 8 << 20));
        let last = GuestAddress(len - 8);
        assert_eq!(memory.read_obj::<u64>(last).unwrap(), 0);
        memory.write_obj(7u64, last).unwrap();
        assert_eq!(memory.read_obj::<u64>(last).unwrap(), 7);
    }
}
