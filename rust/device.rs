// SPDX-License-Identifier: GPL-2.0

//! /dev/mshv, where partitions are made, and /dev/hvrs, which tells about the module.

use crate::machine::{Machine, ABI_VERSION, VERSION};
use crate::partition::{Partition, PartitionFile};
use crate::sys::bindings::*;
use crate::sys::file::{anon_fd, Device, DeviceOps, FileOps};
use crate::sys::user;
use core::sync::atomic::Ordering;
use kernel::ioctl::{_IOR, _IOW, _IOWR};
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow};

const CREATE_PARTITION: u32 = _IOW::<mshv_create_partition>(MSHV_IOCTL, 0);
/// On the device, a partition and a VP.
pub(crate) const ROOT_HVCALL: u32 = _IOWR::<mshv_root_hvcall>(MSHV_IOCTL, 7);
/// MSHV_PT_FLAGS_MASK, an expression that bindgen does not take.
const PT_FLAGS_MASK: u64 = (1 << MSHV_PT_BIT_COUNT) - 1;
const GET_INFO: u32 = _IOR::<hvrs_info>(HVRS_IOCTL, 0);
const GET_STATS: u32 = _IOW::<hvrs_stats>(HVRS_IOCTL, 2);
const NEXT_PARTITION: u32 = _IOWR::<hvrs_partition_info>(HVRS_IOCTL, 1);

/// The two device nodes.
pub(crate) struct Devices {
    _mshv: Pin<KBox<Device<MshvDevice>>>,
    _hvrs: Pin<KBox<Device<HvrsDevice>>>,
}

impl Devices {
    /// Registers them.
    pub(crate) fn register(machine: &Arc<Machine>) -> Result<Self> {
        Ok(Self {
            _hvrs: KBox::pin_init(Device::register(machine.clone()), GFP_KERNEL)?,
            _mshv: KBox::pin_init(Device::register(machine.clone()), GFP_KERNEL)?,
        })
    }
}

/// An open /dev/mshv.
struct MshvDevice(Arc<Machine>);

impl FileOps for MshvDevice {
    const NAME: &'static CStr = c"mshv";

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            CREATE_PARTITION => create_partition(&this.0, arg),
            ROOT_HVCALL => crate::partition::hvcall::on_device(&this.0, arg),
            _ => Err(ENOTTY),
        }
    }
}

impl DeviceOps for MshvDevice {
    const NODE: &'static CStr = c"mshv";
    type Context = Arc<Machine>;

    fn open(machine: &Arc<Machine>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(machine.clone()), GFP_KERNEL_ACCOUNT)?)
    }
}

/// CREATE_PARTITION: version 2 of its argument has the same number and is told by a flag.
fn create_partition(machine: &Arc<Machine>, arg: usize) -> Result<isize> {
    let v1: mshv_create_partition = user::read(arg)?;
    if v1.pt_flags & !PT_FLAGS_MASK != 0 || v1.pt_isolation != 0 {
        return Err(EINVAL);
    }
    let mut disabled = cpumodel::Disabled::default();
    if v1.pt_flags & 1 << MSHV_PT_BIT_CPU_AND_XSAVE_FEATURES != 0 {
        let v2: mshv_create_partition_v2 = user::read(arg)?;
        let banks = v2.pt_cpu_fbanks;
        let reserved = v2.pt_rsvd1;
        if v2.pt_num_cpu_fbanks != MSHV_NUM_CPU_FEATURES_BANKS as u16
            || v2.pt_rsvd != [0; 6]
            || reserved != [0; 2]
        {
            return Err(EINVAL);
        }
        disabled.bank0.0 = banks[0];
        disabled.bank1.0 = banks[1];
        disabled.xsave.0 = v2.pt_disabled_xsave;
    }
    let partition = Partition::new(machine.clone(), v1.pt_flags, disabled)?;
    Ok(anon_fd(PartitionFile::new(partition)?)? as isize)
}

/// An open /dev/hvrs.
struct HvrsDevice(Arc<Machine>);

impl FileOps for HvrsDevice {
    const NAME: &'static CStr = c"hvrs";

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            GET_INFO => {
                let mut info = hvrs_info {
                    abi_version: ABI_VERSION,
                    nr_partitions: this.0.nr_partitions(),
                    capabilities: this.0.root.caps.uapi_bits(),
                    ..Default::default()
                };
                for (to, from) in info.version.iter_mut().zip(VERSION.bytes()) {
                    *to = from as kernel::ffi::c_char;
                }
                user::write(arg, &info)?;
            }
            NEXT_PARTITION => {
                let query: hvrs_partition_info = user::read(arg)?;
                let found = this.0.next_partition(query.id).ok_or(ENOENT)?;
                user::write(arg, &found)?;
            }
            GET_STATS => get_stats(&this.0, &user::read(arg)?)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

/// HVRS_GET_STATS.
fn get_stats(machine: &Machine, request: &hvrs_stats) -> Result {
    if request.reserved != 0 {
        return Err(EINVAL);
    }
    let partition = machine.summary(request.id).ok_or(ENOENT)?;
    let pages = match request.object {
        HVRS_STATS_PARTITION if request.vp_index == 0 => partition.stats.pages().clone(),
        HVRS_STATS_VP => {
            let stats = partition.vp_stats(request.vp_index).ok_or(ENOENT)?;
            stats.pages().clone()
        }
        _ => return Err(EINVAL),
    };
    let mut bytes = KVec::with_capacity(HVRS_STATS_SIZE as usize, GFP_KERNEL_ACCOUNT)?;
    for word in pages.counters() {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes(), GFP_KERNEL)?;
    }
    user::write_bytes(request.buffer as usize, &bytes)
}

impl DeviceOps for HvrsDevice {
    const NODE: &'static CStr = c"hvrs";
    type Context = Arc<Machine>;

    fn open(machine: &Arc<Machine>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(machine.clone()), GFP_KERNEL_ACCOUNT)?)
    }
}
