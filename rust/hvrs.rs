// SPDX-License-Identifier: GPL-2.0

//! hvrs: a Hyper-V-compatible hypervisor for Intel VT-x, behind the ABI of `/dev/mshv`.
//!
//! Dependencies point one way: device → partition → vp → pure crates and vmx → sys.

#![deny(unsafe_code)] // Allowed in sys and in the instruction layer, module by module.

mod device;
mod machine;
mod partition;
mod stats;
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
    params: {
        large_pages: u8 {
            default: 1,
            description: "Map guest memory by pages of 2 MiB and 1 GiB where the VMM's memory has them: 1 (default) or 0",
        },
        ple_window: u32 {
            default: 4096,
            description: "TSC ticks that a guest may spin by PAUSE before another thread gets its CPU, on CPUs with pause-loop exiting: 4096 (default)",
        },
    },
}

/// What lives from insmod to rmmod. Field order is drop order: first nobody can open a file, then
/// the machine goes.
struct HvrsModule {
    _devices: device::Devices,
    _machine: Arc<machine::Machine>,
}

impl kernel::Module for HvrsModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let machine = machine::Machine::new(machine::Options {
            large_pages: parameter::<u8>(module_parameters::large_pages.value()) != 0,
            ple_window: parameter(module_parameters::ple_window.value()),
        })?;
        let devices = device::Devices::register(&machine)?;
        pr_info!("version {}\n", machine::VERSION);
        Ok(Self {
            _devices: devices,
            _machine: machine,
        })
    }
}

/// Kernels before 7.3 give a reference to a parameter's value, later ones the value.
fn parameter<T: Copy>(value: impl core::borrow::Borrow<T>) -> T {
    *value.borrow()
}
