// SPDX-License-Identifier: GPL-2.0

//! What all partitions share: VMX of this machine, identifiers, the list of partitions.

use crate::partition::ports::Port;
use crate::stats::{PartitionStats, VpStats};
use crate::sys::bindings::hvrs_partition_info;
use crate::sys::eopnotsupp;
use crate::sys::oops::Notifiers;
use crate::sys::pages::Pages;
use crate::sys::signals;
use crate::vmx::capabilities::Capabilities;
use crate::vmx::root::Root;
use core::sync::atomic::{AtomicU64, Ordering};
use ept::VpidPool;
use hvdef::{HvPartitionCounter, HvVpCounter};
use kernel::debugfs::{Dir, File};
use kernel::fmt;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::{Arc, Mutex};
use x86def::msr::*;

/// Version of the module.
pub(crate) const VERSION: &str = "0.1.0";
/// Version of the ABI of /dev/hvrs.
pub(crate) const ABI_VERSION: u32 = 2;

/// MSRs that guests access without an exit: the CPU switches them, or the window does, and checks
/// what is written as a guest expects. The time-stamp counter only for reading.
const PASSED_THROUGH: [u32; 7] = [
    IA32_TIME_STAMP_COUNTER,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_ESP,
    IA32_SYSENTER_EIP,
];

/// What /dev/hvrs tells of a partition.
#[pin_data]
pub(crate) struct Summary {
    pub(crate) id: u64,
    pub(crate) pid: i32,
    pub(crate) comm: [u8; 16],
    pub(crate) stats: PartitionStats,
    /// Those of its VPs, with their indexes.
    #[pin]
    vp_stats: Mutex<KVec<(u32, VpStats)>>,
}

impl Summary {
    /// A VP is there.
    pub(crate) fn add_vp(&self, index: u32, stats: &VpStats) -> Result {
        let mut vps = self.vp_stats.lock();
        vps.push((index, stats.clone()), GFP_KERNEL_ACCOUNT)?;
        let number = vps.len() as u64;
        self.stats
            .set(HvPartitionCounter::VirtualProcessors, number);
        Ok(())
    }

    /// Number of VPs.
    pub(crate) fn nr_vps(&self) -> u32 {
        self.stats.get(HvPartitionCounter::VirtualProcessors) as u32
    }

    /// The counters of VP `index`.
    pub(crate) fn vp_stats(&self, index: u32) -> Option<VpStats> {
        let vps = self.vp_stats.lock();
        let found = vps.iter().find(|(i, _)| *i == index);
        found.map(|(_, stats)| stats.clone())
    }

    /// The file in debugfs: a line for each counter, as those of Linux's own driver of this ABI.
    fn show(summary: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (counter, name) in HvPartitionCounter::ALL {
            writeln!(f, "{:<43}: {}", name, summary.stats.get(*counter))?;
        }
        for (index, stats) in summary.vp_stats.lock().iter() {
            writeln!(f, "vp {index}")?;
            for (counter, name) in HvVpCounter::ALL {
                writeln!(f, "{:<43}: {}", name, stats.get(*counter))?;
            }
        }
        Ok(())
    }

    fn uapi(&self) -> hvrs_partition_info {
        let vps = self.vp_stats.lock();
        let sum = |of: fn(&VpStats) -> u64| vps.iter().fold(0, |sum: u64, (_, s)| sum + of(s));
        let mut info = hvrs_partition_info {
            id: self.id,
            pid: self.pid,
            nr_vps: self.nr_vps(),
            memory_bytes: self.stats.get(HvPartitionCounter::GpaPages) << 12,
            exits: sum(VpStats::exits),
            windows: sum(|s| s.get(HvVpCounter::LogicalProcessorDispatches)),
            ..Default::default()
        };
        for (to, from) in info.comm.iter_mut().zip(self.comm) {
            *to = from as kernel::ffi::c_char;
        }
        info
    }
}

/// A partition's place in the list: it is taken out when this is dropped.
pub(crate) struct Listed {
    machine: Arc<Machine>,
    summary: Arc<Summary>,
    /// Its counters in debugfs.
    _file: Pin<KBox<File<Arc<Summary>>>>,
}

impl core::ops::Deref for Listed {
    type Target = Summary;
    fn deref(&self) -> &Summary {
        &self.summary
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut partitions = self.machine.partitions.lock();
        if let Some(i) = partitions.iter().position(|s| s.id == self.summary.id) {
            let _ = partitions.remove(i);
        }
    }
}

/// A VPID, until it is dropped.
pub(crate) struct Vpid {
    machine: Arc<Machine>,
    /// The number.
    pub(crate) number: u16,
}

impl Vpid {
    /// A free one. ENOSPC.
    pub(crate) fn alloc(machine: Arc<Machine>) -> Result<Self> {
        let number = machine.vpids.alloc().ok_or(ENOSPC)?;
        Ok(Self { machine, number })
    }
}

impl Drop for Vpid {
    fn drop(&mut self) {
        self.machine.vpids.free(self.number);
    }
}

/// The module's parameters, see `modinfo hvrs`.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Map by large pages.
    pub(crate) large_pages: bool,
    /// PLE_WINDOW in TSC ticks.
    pub(crate) ple_window: u32,
}

/// The machine.
#[pin_data]
pub(crate) struct Machine {
    _notifiers: Notifiers,
    /// RUN_VP looks at the counts.
    _signals: signals::Counting,
    /// Parameters.
    pub(crate) options: Options,
    /// VMX.
    pub(crate) root: Arc<Root>,
    /// MSR bitmap of every VP.
    pub(crate) msr_bitmap: Pages,
    vpids: VpidPool<64>,
    next_partition: AtomicU64,
    #[pin]
    partitions: Mutex<KVec<Arc<Summary>>>,
    /// Ports of all partitions.
    #[pin]
    pub(crate) ports: Mutex<KVec<Arc<Port>>>,
    /// /sys/kernel/debug/hvrs/partition
    partitions_dir: Dir,
}

impl Machine {
    /// Reads the capabilities and allocates what the CPUs need.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP, with the reason in the log.
    pub(crate) fn new(options: Options) -> Result<Arc<Self>> {
        let caps = Capabilities::read().map_err(|refusal| {
            pr_err!("{}\n", refusal);
            eopnotsupp()
        })?;
        let root = Arc::new(Root::new(caps)?, GFP_KERNEL)?;
        let msr_bitmap = msr_bitmap()?;
        let dir = Dir::new(c"hvrs");
        Arc::pin_init(
            try_pin_init!(Self {
                _notifiers: Notifiers::register(root.clone())?,
                _signals: signals::Counting::begin()?,
                options,
                root,
                msr_bitmap,
                vpids: VpidPool::new(),
                next_partition: AtomicU64::new(1),
                partitions <- new_mutex!(KVec::new()),
                ports <- new_mutex!(KVec::new()),
                partitions_dir: dir.subdir(c"partition"),
            }),
            GFP_KERNEL,
        )
    }

    /// Enters a new partition of the calling process into the list.
    pub(crate) fn list_partition(this: &Arc<Self>) -> Result<Listed> {
        let (pid, comm) = crate::sys::host::current_process();
        let summary = Arc::pin_init(
            try_pin_init!(Summary {
                id: this.next_partition.fetch_add(1, Ordering::Relaxed),
                pid,
                comm,
                stats: PartitionStats::new()?,
                vp_stats <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let name = CString::try_from_fmt(fmt!("{}", summary.id))?;
        let file = KBox::pin_init(
            this.partitions_dir
                .read_callback_file(&name, summary.clone(), &Summary::show),
            GFP_KERNEL_ACCOUNT,
        )?;
        this.partitions.lock().push(summary.clone(), GFP_KERNEL)?;
        Ok(Listed {
            machine: this.clone(),
            summary,
            _file: file,
        })
    }

    /// Number of partitions.
    pub(crate) fn nr_partitions(&self) -> u32 {
        self.partitions.lock().len() as u32
    }

    /// The partition `id`.
    pub(crate) fn summary(&self, id: u64) -> Option<Arc<Summary>> {
        let partitions = self.partitions.lock();
        partitions.iter().find(|s| s.id == id).cloned()
    }

    /// The partition with the smallest id above `after`.
    pub(crate) fn next_partition(&self, after: u64) -> Option<hvrs_partition_info> {
        let partitions = self.partitions.lock();
        partitions.iter().find(|s| s.id > after).map(|s| s.uapi())
    }
}

impl Machine {
    /// Whether the CPU lets guests have this access to `msr`.
    pub(crate) fn passes_through(msr: u32, write: bool) -> bool {
        PASSED_THROUGH.contains(&msr) && !(write && msr == IA32_TIME_STAMP_COUNTER)
    }

    /// Where an access to `msr` is in an MSR bitmap: word and bit. `None`: it exits in any case.
    pub(crate) fn msr_bit(msr: u32, write: bool) -> Option<(usize, u32)> {
        const HIGH: u32 = 0xc000_0000;
        if msr & 0x1fff != msr & !HIGH || !matches!(msr & HIGH, 0 | HIGH) {
            return None;
        }
        let part = u32::from(write) * 512 + u32::from(msr & HIGH != 0) * 256;
        let number = msr & 0x1fff;
        Some(((part + number / 32) as usize, 1 << (number % 32)))
    }
}

/// A bitmap in which everything exits but [`PASSED_THROUGH`] (SDM 25.6.9).
fn msr_bitmap() -> Result<Pages> {
    let mut pages = Pages::new(0)?;
    pages.bytes_mut().fill(0xff);
    let accesses = PASSED_THROUGH.map(|msr| [(msr, false), (msr, true)]);
    for (msr, write) in accesses.into_iter().flatten() {
        let place = Machine::msr_bit(msr, write).filter(|_| Machine::passes_through(msr, write));
        let word = place.and_then(|(word, bit)| Some((pages.words().get(word)?, bit)));
        if let Some((word, bit)) = word {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }
    Ok(pages)
}
