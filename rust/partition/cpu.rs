// SPDX-License-Identifier: GPL-2.0

//! What the processors of a partition can have on this machine.

use crate::machine::Machine;
use crate::sys::host;
use crate::vmx::insn::cpuid;
use cpumodel::CpuModel;
use kernel::prelude::*;
use vmxdef::controls::secondary;

/// Clock of the local APICs' timers, before their divider.
pub(super) const APIC_HZ: u32 = 200_000_000;
/// Bits of a guest-physical address: what four EPT levels translate, at most.
const MAX_PHYSICAL_BITS: u8 = 46;

/// Bits of a guest-physical address.
pub(super) fn physical_address_bits() -> u8 {
    (cpuid(0x8000_0008, 0)[0] as u8).min(MAX_PHYSICAL_BITS)
}

/// All that a partition can have.
pub(super) fn most(machine: &Machine) -> cpumodel::Machine {
    let caps = &machine.root.caps;
    cpumodel::Machine {
        vmx: cpumodel::VmxLimits {
            rdtscp: caps.has(secondary::ENABLE_RDTSCP),
            invpcid: caps.has(secondary::ENABLE_INVPCID),
            descriptor_exits: caps.controls.descriptor_exits,
        },
        speculation: cpumodel::SpeculationControl {
            spec_ctrl: caps.spec_ctrl,
            stibp: caps.spec_ctrl,
            ssbd: caps.spec_ctrl,
            md_clear: true,
            l1d_flush: true,
            arch_capabilities: caps.arch_capabilities,
        },
        disabled: Default::default(),
        physical_address_bits: physical_address_bits(),
        tsc_hz: u64::from(host::tsc_khz()) * 1000,
        apic_hz: u64::from(APIC_HZ),
        invariant_tsc: host::tsc_reliable(),
        lapic: true,
        x2apic: true,
        hypervisor_present: true,
    }
}

/// The processors of a partition for which nothing is disabled.
pub(super) fn largest(machine: &Machine) -> Result<KBox<CpuModel>> {
    let mut model = KBox::new(CpuModel::new(), GFP_KERNEL)?;
    model.build(&cpuid, &most(machine));
    Ok(model)
}
