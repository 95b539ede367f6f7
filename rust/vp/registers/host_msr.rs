// SPDX-License-Identifier: GPL-2.0

//! MSRs as the VMM reads and writes them: it saves and restores lists of them, so one that the
//! partition's processors do not have is 0 and takes 0, and one that is constant takes its value.

use super::Reach;
use crate::partition::{Config, Partition};
use crate::vmx::vmcs::CurrentVmcs;
use crate::vp::core::VpCore;
use crate::vp::exits::msr::{self, Env, MsrEffect};
use cpumodel::msr::{is_implemented, row, MsrKind};
use hv1::msr::{read_vp_msr, write_vp_msr, VpEffect, VpRead};
use hvdef::*;
use x86def::msr::IA32_TSC_ADJUST;

const BAD: HvStatus = HV_STATUS_INVALID_PARAMETER;

/// Reads an MSR of the architecture.
pub(super) fn get(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    number: u32,
) -> HvResult<u64> {
    let is_command = row(number).is_some_and(|row| row.kind == MsrKind::Command);
    if is_command || !is_implemented(number, &config.cpu) {
        return Ok(0);
    }
    msr::get(core, vmcs, config, number).map_err(|_| BAD)
}

/// Sets an MSR of the architecture.
pub(super) fn set(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    number: u32,
    value: u64,
) -> HvResult<()> {
    if get(core, vmcs, config, number) == Ok(value) {
        return Ok(());
    }
    // The VMM has restored the TSC itself: a guest's write would move it.
    if number == IA32_TSC_ADJUST && is_implemented(number, &config.cpu) {
        core.tsc_adjust = value;
        return Ok(());
    }
    match msr::set(core, vmcs, config, number, value) {
        Ok(MsrEffect::Apic(_)) => core.update_timer(),
        Ok(_) => {}
        Err(_) => return Err(BAD),
    }
    Ok(())
}

/// Reads a synthetic MSR.
pub(super) fn synthetic<V: Reach>(
    partition: &Partition,
    vp: &mut V,
    config: &Config,
    number: u32,
) -> HvResult<HvRegisterValue> {
    let value = vp
        .core(|_, core| {
            core.follow(&config.time);
            let own = read_vp_msr(number, V::ORIGIN, &config.features, &core.synthetic);
            match own {
                Some(Ok(VpRead::Value(value))) => Ok(value),
                Some(Ok(VpRead::Tpr)) => Ok(u64::from(core.lapic.tpr())),
                Some(Ok(VpRead::Icr)) => Ok(core.lapic.icr()),
                // A command: nothing is kept.
                Some(Err(_)) if number == HV_X64_MSR_EOI => Ok(0),
                Some(Ok(VpRead::Idle | VpRead::Vmm) | Err(_)) => Err(BAD),
                None => partition
                    .read_msr(number, V::ORIGIN, &Env::new(core, config))
                    .map_err(|_| BAD),
            }
        })
        .map_err(|_| HV_STATUS_OPERATION_FAILED)??;
    Ok(HvRegisterValue::from_u64(value))
}

/// Sets a synthetic MSR.
pub(super) fn set_synthetic<V: Reach>(
    partition: &Partition,
    vp: &mut V,
    config: &Config,
    number: u32,
    value: u64,
) -> HvResult<()> {
    vp.core(|vp, core| {
        let (features, state) = (&config.features, &mut core.synthetic);
        match write_vp_msr(number, value, V::ORIGIN, features, vp.index, state) {
            Some(Ok(VpEffect::Overlay { overlay, gpn })) => {
                core.place_overlay(partition, &vp.shared, overlay.kind, gpn);
                Ok(())
            }
            Some(Ok(VpEffect::Timers)) => {
                core.run_stimers_soon();
                vp.shared.rescan_messages();
                Ok(())
            }
            Some(Ok(VpEffect::Synic)) => {
                core.synic_changed(&vp.shared);
                Ok(())
            }
            // The next window takes the timer over.
            Some(Ok(VpEffect::None | VpEffect::UnhaltedTimer)) => Ok(()),
            Some(Ok(VpEffect::Npiep)) => {
                core.npiep_changed = true;
                Ok(())
            }
            Some(Ok(VpEffect::Tpr(tpr))) => {
                core.lapic.set_tpr(tpr);
                core.check_events = true;
                Ok(())
            }
            Some(Err(_)) if number == HV_X64_MSR_EOI && value == 0 => Ok(()),
            Some(Err(_)) if number == HV_X64_MSR_ICR && value == core.lapic.icr() => Ok(()),
            Some(_) => Err(BAD),
            None => partition
                .write_msr(number, value, V::ORIGIN)
                .map(|_| ())
                .map_err(|_| BAD),
        }
    })
    .map_err(|_| HV_STATUS_OPERATION_FAILED)?
}
