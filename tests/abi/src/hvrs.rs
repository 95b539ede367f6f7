// SPDX-License-Identifier: Apache-2.0 OR MIT
//! /dev/hvrs as include/uapi/linux/hvrs.h has it.

use crate::sys::{self, Sys};

/// HVRS_GET_INFO.
pub const GET_INFO: u32 = 0x8040_b900;
/// HVRS_NEXT_PARTITION.
pub const NEXT_PARTITION: u32 = 0xc048_b901;

/// HVRS_GET_STATS.
pub const GET_STATS: u32 = 0x4020_b902;

/// `struct hvrs_stats`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub id: u64,
    pub object: u32,
    pub vp_index: u32,
    pub buffer: u64,
    pub reserved: u64,
}

/// `struct hvrs_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    pub abi_version: u32,
    pub nr_partitions: u32,
    pub capabilities: u64,
    pub version: [u8; 32],
    pub reserved: [u64; 2],
}

/// `struct hvrs_partition_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PartitionInfo {
    pub id: u64,
    pub pid: i32,
    pub nr_vps: u32,
    pub memory_bytes: u64,
    pub comm: [u8; 16],
    pub exits: u64,
    pub windows: u64,
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<Info>() == 0x40 && size_of::<PartitionInfo>() == 0x48);

/// /dev/hvrs.
pub fn open() -> std::os::fd::OwnedFd {
    sys::open("/dev/hvrs", libc::O_RDONLY | libc::O_CLOEXEC).expect("/dev/hvrs opens")
}

/// HVRS_GET_INFO.
pub fn info() -> Info {
    let mut info = Info::default();
    sys::ioctl_on(&open(), GET_INFO, &mut info).expect("HVRS_GET_INFO");
    info
}

/// HVRS_NEXT_PARTITION.
pub fn next(after: u64) -> Sys<PartitionInfo> {
    let mut info = PartitionInfo {
        id: after,
        ..Default::default()
    };
    sys::ioctl_on(&open(), NEXT_PARTITION, &mut info).map(|_| info)
}

/// All partitions.
pub fn partitions() -> Vec<PartitionInfo> {
    let mut all = Vec::new();
    let mut after = 0;
    while let Ok(info) = next(after) {
        after = info.id;
        all.push(info);
    }
    all
}

/// The partitions of this process.
pub fn mine() -> Vec<PartitionInfo> {
    let pid = std::process::id() as i32;
    partitions().into_iter().filter(|p| p.pid == pid).collect()
}
