// SPDX-License-Identifier: GPL-2.0

//! hvrs: a Hyper-V-compatible hypervisor for Intel VT-x, behind the ABI of `/dev/mshv`.
//!
//! Dependencies point one way: device → partition → vp → pure crates and vmx → sys.

#![deny(unsafe_code)] // Allowed in sys and in the instruction layer, module by module.

mod device;
mod machine;
mod partition;
mod sys;
mod vmx;
mod vp;

use kernel::prelude::*;
use kernel::sync::Arc;

module! {
    type: HvrsModule,
    name: "hvrs",
    authors: ["The hvrs developers"],
    description: "Hyper-V-compatible hypervisor for Intel VT-x behind /dev/mshv",
    license: "GPL v2",
}

/// What lives from insmod to rmmod. Field order is drop order: first nobody can open a file, then
/// the machine goes.
struct HvrsModule {
    _devices: device::Devices,
    _machine: Arc<machine::Machine>,
}

impl kernel::Module for HvrsModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let machine = machine::Machine::new()?;
        let devices = device::Devices::register(&machine)?;
        pr_info!("version {}\n", machine::VERSION);
        Ok(Self {
            _devices: devices,
            _machine: machine,
        })
    }
}
