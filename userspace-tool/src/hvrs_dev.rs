// SPDX-License-Identifier: Apache-2.0 OR MIT
//! /dev/hvrs: the structures and ioctls of include/uapi/linux/hvrs.h.

use std::fs::File;
use std::io;

use hvdef::{HV_STATS_OBJECT_PARTITION, HV_STATS_OBJECT_VP, HV_STATS_WORDS};
use serde::Serialize;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr, ioctl_iowr_nr};

/// Where the module's own device is.
pub const PATH: &str = "/dev/hvrs";

const HVRS_IOCTL: u32 = 0xb9;

ioctl_ior_nr!(HVRS_GET_INFO, HVRS_IOCTL, 0, hvrs_info);
ioctl_iowr_nr!(HVRS_NEXT_PARTITION, HVRS_IOCTL, 1, hvrs_partition_info);
ioctl_iow_nr!(HVRS_GET_STATS, HVRS_IOCTL, 2, hvrs_stats);

/// `struct hvrs_info`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct hvrs_info {
    abi_version: u32,
    nr_partitions: u32,
    capabilities: u64,
    version: [u8; 32],
    reserved: [u64; 2],
}

/// `struct hvrs_partition_info`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct hvrs_partition_info {
    id: u64,
    pid: i32,
    nr_vps: u32,
    memory_bytes: u64,
    comm: [u8; 16],
    exits: u64,
    windows: u64,
    reserved: [u64; 2],
}

/// `struct hvrs_stats`.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct hvrs_stats {
    id: u64,
    object: u32,
    vp_index: u32,
    buffer: u64,
    reserved: u64,
}

/// A statistics page.
pub type Counters = [u64; HV_STATS_WORDS];

/// A VMX feature that hvrs uses when the machine has it.
#[derive(Debug)]
pub struct Capability {
    /// Bit in `hvrs_info.capabilities`.
    pub bit: u32,
    /// Its name for people and in JSON.
    pub name: &'static str,
    /// What Linux calls it in the line "vmx flags" of /proc/cpuinfo, if it is there.
    pub flag: Option<&'static str>,
    /// Without it hvrs does not run.
    pub required: bool,
}

/// All of them, in the order of their bits.
pub const CAPABILITIES: [Capability; 13] = [
    capability(0, "VPID", Some("vpid"), true),
    capability(1, "unrestricted guest", Some("unrestricted_guest"), true),
    capability(2, "EPT 2 MiB pages", None, false),
    capability(3, "EPT 1 GiB pages", Some("ept_1gb"), false),
    capability(4, "EPT accessed and dirty flags", Some("ept_ad"), false),
    capability(5, "TPR shadow", Some("vtpr"), false),
    capability(6, "APIC-register virtualization", Some("vapic_reg"), false),
    capability(7, "virtual-interrupt delivery", Some("vid"), false),
    capability(8, "page-modification logging", Some("pml"), false),
    capability(9, "VMCS shadowing", Some("shadow_vmcs"), false),
    capability(
        10,
        "mode-based execute control",
        Some("ept_mode_based_exec"),
        false,
    ),
    capability(11, "TSC scaling", Some("tsc_scaling"), false),
    capability(12, "preemption timer", Some("preemption_timer"), false),
];

const fn capability(
    bit: u32,
    name: &'static str,
    flag: Option<&'static str>,
    required: bool,
) -> Capability {
    Capability {
        bit,
        name,
        flag,
        required,
    }
}

/// What the module says of itself.
#[derive(Debug, Serialize)]
pub struct Info {
    /// Version of the module.
    pub version: String,
    /// Version of its interface.
    pub abi_version: u32,
    /// Number of partitions.
    pub partitions: u32,
    /// `hvrs_info.capabilities`.
    #[serde(skip)]
    pub capability_bits: u64,
    /// The same by name.
    pub capabilities: Vec<&'static str>,
}

/// One partition, of hvrsctl or of another VMM.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionInfo {
    /// Partition id.
    pub id: u64,
    /// Process that created it.
    pub pid: i32,
    /// That process' command name.
    pub command: String,
    /// Number of virtual processors.
    pub vps: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// VM exits.
    pub exits: u64,
    /// Root windows.
    pub windows: u64,
}

/// An open /dev/hvrs.
pub struct HvrsDevice(File);

impl HvrsDevice {
    /// Opens the device.
    pub fn open() -> io::Result<Self> {
        File::open(PATH).map(Self)
    }

    /// HVRS_GET_INFO.
    pub fn info(&self) -> io::Result<Info> {
        let mut info = hvrs_info::default();
        // SAFETY: the ioctl writes a `struct hvrs_info`, whose layout this is.
        check(unsafe { ioctl_with_mut_ref(&self.0, HVRS_GET_INFO(), &mut info) })?;
        let has = |capability: &&Capability| info.capabilities & (1 << capability.bit) != 0;
        Ok(Info {
            version: text(&info.version),
            abi_version: info.abi_version,
            partitions: info.nr_partitions,
            capability_bits: info.capabilities,
            capabilities: CAPABILITIES
                .iter()
                .filter(has)
                .map(|capability| capability.name)
                .collect(),
        })
    }

    /// The counters of partition `id`.
    pub fn partition_stats(&self, id: u64) -> io::Result<Counters> {
        self.stats(id, HV_STATS_OBJECT_PARTITION, 0)
    }

    /// The counters of VP `index` of partition `id`; `None`: there is no such VP.
    pub fn vp_stats(&self, id: u64, index: u32) -> io::Result<Option<Counters>> {
        match self.stats(id, HV_STATS_OBJECT_VP, index) {
            Ok(counters) => Ok(Some(counters)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn stats(&self, id: u64, object: u32, vp_index: u32) -> io::Result<Counters> {
        let mut counters = [0; HV_STATS_WORDS];
        let request = hvrs_stats {
            id,
            object,
            vp_index,
            buffer: counters.as_mut_ptr() as u64,
            reserved: 0,
        };
        // SAFETY: the ioctl reads a `struct hvrs_stats`, whose layout this is, and writes a page, which `counters` is.
        check(unsafe { ioctl_with_ref(&self.0, HVRS_GET_STATS(), &request) })?;
        Ok(counters)
    }

    /// All partitions, by HVRS_NEXT_PARTITION.
    pub fn partitions(&self) -> io::Result<Vec<PartitionInfo>> {
        let mut partitions: Vec<PartitionInfo> = Vec::new();
        loop {
            let last = partitions.last().map_or(0, |partition| partition.id);
            let mut next = hvrs_partition_info {
                id: last,
                ..Default::default()
            };
            // SAFETY: the ioctl reads and writes a `struct hvrs_partition_info`, whose layout this is.
            match check(unsafe { ioctl_with_mut_ref(&self.0, HVRS_NEXT_PARTITION(), &mut next) }) {
                Ok(()) if next.id > last => partitions.push(PartitionInfo {
                    id: next.id,
                    pid: next.pid,
                    command: text(&next.comm),
                    vps: next.nr_vps,
                    memory: next.memory_bytes,
                    exits: next.exits,
                    windows: next.windows,
                }),
                Ok(()) => return Err(io::Error::other("hvrs repeats a partition id")),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(partitions),
                Err(error) => return Err(error),
            }
        }
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A NUL-terminated string.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_layout_are_those_of_the_header() {
        assert_eq!(HVRS_GET_INFO(), 0x8040_b900);
        assert_eq!(HVRS_NEXT_PARTITION(), 0xc048_b901);
        assert_eq!(HVRS_GET_STATS(), 0x4020_b902);
        assert_eq!(std::mem::size_of::<Counters>(), 4096);
        assert_eq!(std::mem::offset_of!(hvrs_info, version), 16);
        assert_eq!(std::mem::offset_of!(hvrs_partition_info, exits), 40);
    }

    /// Every `HVRS_CAP_BIT_*` of the header has its line here, and no other.
    #[test]
    fn capability_bits_are_those_of_the_header() {
        let header = include_str!("../../include/uapi/linux/hvrs.h");
        let bits: Vec<u32> = header
            .lines()
            .filter_map(|line| line.strip_prefix("#define HVRS_CAP_BIT_"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
            .collect();
        let ours: Vec<u32> = CAPABILITIES
            .iter()
            .map(|capability| capability.bit)
            .collect();
        assert_eq!(bits, ours);
    }

    #[test]
    fn strings_end_at_nul() {
        assert_eq!(text(b"qemu\0garbage"), "qemu");
        assert_eq!(text(b"full"), "full");
    }
}
