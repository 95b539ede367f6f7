// SPDX-License-Identifier: GPL-2.0

//! RDMSR and WRMSR. Which MSRs there are and what may be written is `cpumodel::msr`'s table and
//! `hv1::msr`'s; here is where their values live.

use super::{fault, ipi, leave, skip, Leave};
use crate::partition::Config;
use crate::vmx::insn::rdtsc;
use crate::vmx::insn::speculation_command;
use crate::vmx::vmcs::CurrentVmcs;
use crate::vp::core::{VpCore, RAX, RCX, RDX};
use crate::vp::entry::Running;
use core::sync::atomic::Ordering;
use cpumodel::msr::{
    check_read, check_write, is_implemented, LoadedMsr, MsrContext, MsrKind, VmcsMsr,
};
use hv1::msr::{
    read_msr_hot, read_vp_msr, write_vp_msr, MsrError, Origin, VpEffect, VpEnv, VpRead,
};
use hvdef::HV_X64_MSR_RANGE;
use vapic::Effect;
use vmxdef::field::*;
use x86def::cr::CR0_PG;
use x86def::msr::*;
use x86def::vector;

/// #GP(0).
pub(crate) struct GeneralProtection;

#[inline(always)]
pub(super) fn read(r: &mut Running<'_>) -> bool {
    let msr = r.core.gprs[RCX] as u32;
    if HV_X64_MSR_RANGE.contains(&msr) {
        let env = Env::new(r.core, r.config);
        return match read_msr_hot(msr, &r.config.features, &env) {
            Some(Ok(value)) => give(r, value),
            Some(Err(MsrError::GeneralProtection | MsrError::NotMine)) => fault(r, vector::GP, 0),
            None => read_synthetic(r, msr),
        };
    }
    match get(r.core, &r.window.vmcs, r.config, msr) {
        Ok(value) => give(r, value),
        Err(GeneralProtection) => refused(r, msr, false),
    }
}

/// #GP, but if nobody implements `msr` and the VMM wants something else
/// (HV_PARTITION_PROPERTY_UNIMPLEMENTED_MSR_ACTION, HV_INTERCEPT_TYPE_X64_MSR).
fn refused(r: &mut Running<'_>, number: u32, write: bool) -> bool {
    if is_implemented(number, &r.config.cpu) {
        return fault(r, vector::GP, 0);
    }
    if r.partition.intercepts.unimplemented_msr(write) {
        return leave(r, Leave::Msr { number, write });
    }
    let ignores = &r.partition.ignores_unimplemented_msrs;
    match (ignores.load(Ordering::Relaxed), write) {
        (true, false) => give(r, 0),
        (true, true) => skip(r),
        (false, _) => fault(r, vector::GP, 0),
    }
}

#[inline(always)]
fn give(r: &mut Running<'_>, value: u64) -> bool {
    r.core.gprs[RAX] = u64::from(value as u32);
    r.core.gprs[RDX] = value >> 32;
    skip(r)
}

#[inline(always)]
pub(super) fn write(r: &mut Running<'_>) -> bool {
    let msr = r.core.gprs[RCX] as u32;
    let value = r.core.gprs[RDX] << 32 | u64::from(r.core.gprs[RAX] as u32);
    if HV_X64_MSR_RANGE.contains(&msr) {
        return write_synthetic(r, msr, value);
    }
    match set(r.core, &r.window.vmcs, r.config, msr, value) {
        Ok(effect) => {
            if let MsrEffect::Loaded = effect {
                let msrs = r.core.guest.msrs;
                if let Some(host) = r.window.host() {
                    host.load_msrs(&msrs);
                }
            }
            skip(r);
            match effect {
                MsrEffect::Apic(effect) => ipi::apply(r, effect),
                _ => true,
            }
        }
        Err(GeneralProtection) => refused(r, msr, true),
    }
}

/// Synthetic MSRs of the VP's own; the rest is the partition's.
fn read_synthetic(r: &mut Running<'_>, msr: u32) -> bool {
    match read_vp_msr(msr, Origin::Guest, &r.config.features, &r.core.synthetic) {
        None if r.partition.intercepts.msr(msr, false) => leave(
            r,
            Leave::Msr {
                number: msr,
                write: false,
            },
        ),
        None => leave(r, Leave::ReadMsr(msr)),
        Some(Err(_)) => fault(r, vector::GP, 0),
        Some(Ok(VpRead::Value(value))) => give(r, value),
        Some(Ok(VpRead::Vmm)) => leave(
            r,
            Leave::Msr {
                number: msr,
                write: false,
            },
        ),
        Some(Ok(VpRead::Idle)) => {
            give(r, 0);
            super::idle(r)
        }
        Some(Ok(VpRead::Tpr)) => {
            let tpr = u64::from(r.core.lapic.tpr());
            give(r, tpr)
        }
        Some(Ok(VpRead::Icr)) => {
            let value = r.core.lapic.icr();
            give(r, value)
        }
    }
}

/// As [`read_synthetic`].
#[inline(always)]
fn write_synthetic(r: &mut Running<'_>, msr: u32, value: u64) -> bool {
    let (features, index) = (&r.config.features, r.core.lapic.apic_id());
    let state = &mut r.core.synthetic;
    let effect = match write_vp_msr(msr, value, Origin::Guest, features, index, state) {
        None if r.partition.intercepts.msr(msr, true) => {
            return leave(
                r,
                Leave::Msr {
                    number: msr,
                    write: true,
                },
            )
        }
        None => return leave(r, Leave::WriteMsr(msr, value)),
        Some(Err(_)) => return fault(r, vector::GP, 0),
        Some(Ok(VpEffect::Overlay { overlay, gpn })) => {
            return leave(r, Leave::Overlay(overlay.kind, gpn))
        }
        Some(Ok(VpEffect::None)) => Effect::None,
        Some(Ok(VpEffect::Npiep)) => {
            super::npiep::follow(r.core, &r.window.vmcs);
            Effect::None
        }
        Some(Ok(VpEffect::Vmm)) => {
            return leave(
                r,
                Leave::Msr {
                    number: msr,
                    write: true,
                },
            )
        }
        Some(Ok(VpEffect::Timers)) => {
            r.core.run_stimers_soon();
            r.shared.rescan_messages();
            Effect::None
        }
        Some(Ok(VpEffect::UnhaltedTimer)) => {
            r.core.follow_unhalted_timer(rdtsc(), &r.config.time);
            Effect::None
        }
        Some(Ok(VpEffect::Synic)) => {
            r.core.synic_changed(r.shared);
            Effect::None
        }
        Some(Ok(VpEffect::Eoi)) => match r.core.lapic.eoi() {
            Some(eoi) => Effect::Eoi(eoi),
            None => Effect::None,
        },
        Some(Ok(VpEffect::Icr(value))) => r.core.lapic.write_icr(value),
        Some(Ok(VpEffect::Tpr(tpr))) => {
            r.core.lapic.set_tpr(tpr);
            Effect::InterruptPending
        }
    };
    skip(r);
    ipi::apply(r, effect)
}

/// What remains to be done after a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MsrEffect {
    /// Nothing.
    None,
    /// What the local APIC asks for.
    Apic(Effect),
    /// A register that a running guest has in the CPU.
    Loaded,
}

/// The value of an architectural MSR.
#[inline]
pub(crate) fn get(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    msr: u32,
) -> Result<u64, GeneralProtection> {
    if is_apic(msr) {
        let now = core.guest_now();
        return match msr {
            IA32_APIC_BASE if config.lapic.present => Ok(core.lapic.apic_base()),
            IA32_TSC_DEADLINE if config.lapic.tsc_deadline_available => {
                Ok(core.lapic.tsc_deadline(now))
            }
            _ => core.lapic.msr_read(msr, now).map_err(|_| GeneralProtection),
        };
    }
    let row = check_read(msr, &config.cpu).map_err(|_| GeneralProtection)?;
    Ok(match row.kind {
        MsrKind::Vmcs(VmcsMsr::SysenterCs) => u64::from(vmcs.read(GUEST_SYSENTER_CS)),
        MsrKind::Vmcs(VmcsMsr::Efer) => vmcs.read(GUEST_IA32_EFER),
        MsrKind::Vmcs(VmcsMsr::Pat) => vmcs.read(GUEST_IA32_PAT),
        MsrKind::Vmcs(VmcsMsr::Debugctl) => vmcs.read(GUEST_IA32_DEBUGCTL),
        MsrKind::Vmcs(VmcsMsr::SysenterEsp) => vmcs.read(GUEST_SYSENTER_ESP),
        MsrKind::Vmcs(VmcsMsr::SysenterEip) => vmcs.read(GUEST_SYSENTER_EIP),
        MsrKind::Vmcs(VmcsMsr::FsBase) => vmcs.read(GUEST_FS_BASE),
        MsrKind::Vmcs(VmcsMsr::GsBase) => vmcs.read(GUEST_GS_BASE),
        MsrKind::Loaded(which) => *loaded(core, which),
        MsrKind::Tsc => core.guest_now(),
        MsrKind::TscAdjust => core.tsc_adjust,
        MsrKind::Mtrr(slot) => core.mtrrs.get(slot.index()).copied().unwrap_or(0),
        MsrKind::Constant(value) => value,
        MsrKind::ArchCapabilities => config.cpu.arch_capabilities(),
        MsrKind::Apic | MsrKind::Command => return Err(GeneralProtection),
    })
}

/// Sets an architectural MSR.
#[inline]
pub(crate) fn set(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    msr: u32,
    value: u64,
) -> Result<MsrEffect, GeneralProtection> {
    if is_apic(msr) {
        let now = core.guest_now();
        let effect = match msr {
            IA32_APIC_BASE => core.lapic.write_apic_base(value),
            _ => core.lapic.msr_write(msr, value, now),
        };
        return effect.map(MsrEffect::Apic).map_err(|_| GeneralProtection);
    }
    let context = MsrContext {
        model: &config.cpu,
        efer: vmcs.read(GUEST_IA32_EFER),
        paging: vmcs.read(GUEST_CR0) & CR0_PG != 0,
    };
    let (row, value) = check_write(msr, value, &context).map_err(|_| GeneralProtection)?;
    match row.kind {
        MsrKind::Vmcs(VmcsMsr::SysenterCs) => vmcs.write(GUEST_SYSENTER_CS, value as u32),
        MsrKind::Vmcs(VmcsMsr::Efer) => vmcs.write(GUEST_IA32_EFER, value),
        MsrKind::Vmcs(VmcsMsr::Pat) => vmcs.write(GUEST_IA32_PAT, value),
        MsrKind::Vmcs(VmcsMsr::Debugctl) => vmcs.write(GUEST_IA32_DEBUGCTL, value),
        MsrKind::Vmcs(VmcsMsr::SysenterEsp) => vmcs.write(GUEST_SYSENTER_ESP, value),
        MsrKind::Vmcs(VmcsMsr::SysenterEip) => vmcs.write(GUEST_SYSENTER_EIP, value),
        MsrKind::Vmcs(VmcsMsr::FsBase) => vmcs.write(GUEST_FS_BASE, value),
        MsrKind::Vmcs(VmcsMsr::GsBase) => vmcs.write(GUEST_GS_BASE, value),
        MsrKind::Loaded(which) => {
            *loaded(core, which) = value;
            return Ok(MsrEffect::Loaded);
        }
        // Writing the TSC changes TSC_ADJUST by as much (SDM 18.17.3).
        MsrKind::Tsc => {
            let delta = value.wrapping_sub(core.guest_now());
            core.tsc_adjust = core.tsc_adjust.wrapping_add(delta);
            move_tsc(core, vmcs, delta);
        }
        MsrKind::TscAdjust => {
            let delta = value.wrapping_sub(core.tsc_adjust);
            core.tsc_adjust = value;
            move_tsc(core, vmcs, delta);
        }
        MsrKind::Mtrr(slot) => {
            *core.mtrrs.get_mut(slot.index()).ok_or(GeneralProtection)? = value;
        }
        MsrKind::Constant(_) => {}
        // IBPB and L1D_FLUSH; the check lets nothing else through.
        MsrKind::Command if value & 1 != 0 => speculation_command(msr),
        MsrKind::Command => {}
        // No row gets here: one is read-only, the other was dealt with above.
        MsrKind::ArchCapabilities | MsrKind::Apic => return Err(GeneralProtection),
    }
    Ok(MsrEffect::None)
}

#[inline(always)]
fn is_apic(msr: u32) -> bool {
    matches!(
        msr,
        IA32_X2APIC_FIRST..=IA32_X2APIC_LAST | IA32_TSC_DEADLINE | IA32_APIC_BASE
    )
}

fn loaded(core: &mut VpCore, which: LoadedMsr) -> &mut u64 {
    let msrs = &mut core.guest.msrs;
    match which {
        LoadedMsr::Star => &mut msrs.star,
        LoadedMsr::Lstar => &mut msrs.lstar,
        LoadedMsr::Cstar => &mut msrs.cstar,
        LoadedMsr::Fmask => &mut msrs.fmask,
        LoadedMsr::KernelGsBase => &mut msrs.kernel_gs_base,
        LoadedMsr::TscAux => &mut msrs.tsc_aux,
        LoadedMsr::SpecCtrl => &mut core.spec_ctrl.guest,
    }
}

/// Moves the guest's TSC by `delta`. The LAPIC's one-shot and periodic timers do not run by it;
/// its deadline does (SDM 11.5.4.1).
fn move_tsc(core: &mut VpCore, vmcs: &CurrentVmcs<'_>, delta: u64) {
    core.move_tsc(delta);
    core.tsc_moved = false;
    vmcs.write(TSC_OFFSET, core.tsc_offset);
}

/// What synthetic MSRs need of a VP.
pub(crate) struct Env<'a> {
    core: &'a VpCore,
    config: &'a Config,
    now: u64,
}

impl<'a> Env<'a> {
    #[inline(always)]
    pub(crate) fn new(core: &'a VpCore, config: &'a Config) -> Self {
        Self {
            core,
            config,
            now: core.host_now(),
        }
    }
}

impl VpEnv for Env<'_> {
    #[inline(always)]
    fn vp_index(&self) -> u32 {
        self.core.lapic.apic_id()
    }

    #[inline(always)]
    fn reference_time_100ns(&self) -> u64 {
        self.config
            .time
            .now_100ns(self.core.partition_tsc(self.now))
    }

    #[inline(always)]
    fn runtime_100ns(&self) -> u64 {
        self.config.time.ticks_100ns(self.core.runtime_at(self.now))
    }
}
