// SPDX-License-Identifier: GPL-2.0

//! Registers by their TLFS names: HvCallGetVpRegisters and HvCallSetVpRegisters.

pub(crate) mod page;

use super::core::{Activity, Injection, VpCore};
use super::exits::msr::{self, Env, MsrEffect};
use super::setup::{segment_fields, write_segment, CR0_OWNED};
use super::Vp;
use crate::partition::{Config, Partition};
use crate::vmx::vmcs::CurrentVmcs;
use hv1::msr::{read_vp_msr, write_vp_msr, MsrError, Origin, VpEffect, VpRead};
use hvdef::*;
use vmxdef::controls::entry;
use vmxdef::events::{interruptibility, intr_type, IntrInfo};
use vmxdef::field::*;
use x86def::cr;
use x86def::msr::*;
use x86def::segment::{attributes_from_rights, rights_from_attributes, Segment as Seg};

/// Where a register lives.
enum Place {
    Gpr(usize),
    Segment(Seg),
    Table(FieldNatural, Field32),
    Natural(FieldNatural),
    Msr(u32),
    /// A synthetic MSR.
    Synthetic(u32),
    Other(Special),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    Cr0,
    Cr2,
    Cr4,
    Cr8,
    Xfem,
    Efer,
    ApicBase,
    Dr(usize),
    Dr6,
    Dr7,
    PendingInterruption,
    InterruptState,
    PendingEvent0,
    ActivityState,
    InitialApicId,
    Xmm(usize),
    FpMmx(usize),
    FpControl,
    XmmControl,
}

/// The one table of names.
fn place(name: u32) -> Option<Place> {
    use self::Special as S;
    use Place::*;
    Some(match name {
        HV_X64_REGISTER_RSP => Natural(GUEST_RSP),
        HV_X64_REGISTER_RAX..=HV_X64_REGISTER_R15 => Gpr((name - HV_X64_REGISTER_RAX) as usize),
        HV_X64_REGISTER_RIP => Natural(GUEST_RIP),
        HV_X64_REGISTER_RFLAGS => Natural(GUEST_RFLAGS),
        HV_X64_REGISTER_ES => Segment(Seg::Es),
        HV_X64_REGISTER_CS => Segment(Seg::Cs),
        HV_X64_REGISTER_SS => Segment(Seg::Ss),
        HV_X64_REGISTER_DS => Segment(Seg::Ds),
        HV_X64_REGISTER_FS => Segment(Seg::Fs),
        HV_X64_REGISTER_GS => Segment(Seg::Gs),
        HV_X64_REGISTER_LDTR => Segment(Seg::Ldtr),
        HV_X64_REGISTER_TR => Segment(Seg::Tr),
        HV_X64_REGISTER_IDTR => Table(GUEST_IDTR_BASE, GUEST_IDTR_LIMIT),
        HV_X64_REGISTER_GDTR => Table(GUEST_GDTR_BASE, GUEST_GDTR_LIMIT),
        HV_X64_REGISTER_CR0 | HV_X64_REGISTER_INTERMEDIATE_CR0 => Other(S::Cr0),
        HV_X64_REGISTER_CR2 => Other(S::Cr2),
        HV_X64_REGISTER_CR3 | HV_X64_REGISTER_INTERMEDIATE_CR3 => Natural(GUEST_CR3),
        HV_X64_REGISTER_CR4 | HV_X64_REGISTER_INTERMEDIATE_CR4 => Other(S::Cr4),
        HV_X64_REGISTER_CR8 | HV_X64_REGISTER_INTERMEDIATE_CR8 => Other(S::Cr8),
        HV_X64_REGISTER_XFEM => Other(S::Xfem),
        HV_X64_REGISTER_DR0..=HV_X64_REGISTER_DR3 => {
            Other(S::Dr((name - HV_X64_REGISTER_DR0) as usize))
        }
        HV_X64_REGISTER_DR6 => Other(S::Dr6),
        HV_X64_REGISTER_DR7 => Other(S::Dr7),
        HV_X64_REGISTER_EFER => Other(S::Efer),
        HV_X64_REGISTER_APIC_BASE => Other(S::ApicBase),
        HV_REGISTER_PENDING_INTERRUPTION => Other(S::PendingInterruption),
        HV_REGISTER_INTERRUPT_STATE => Other(S::InterruptState),
        HV_REGISTER_PENDING_EVENT0 => Other(S::PendingEvent0),
        HV_REGISTER_INTERNAL_ACTIVITY_STATE => Other(S::ActivityState),
        HV_X64_REGISTER_INITIAL_APIC_ID => Other(S::InitialApicId),
        HV_X64_REGISTER_XMM0..=HV_X64_REGISTER_XMM15 => {
            Other(S::Xmm((name - HV_X64_REGISTER_XMM0) as usize))
        }
        HV_X64_REGISTER_FP_MMX0..=HV_X64_REGISTER_FP_MMX7 => {
            Other(S::FpMmx((name - HV_X64_REGISTER_FP_MMX0) as usize))
        }
        HV_X64_REGISTER_FP_CONTROL_STATUS => Other(S::FpControl),
        HV_X64_REGISTER_XMM_CONTROL_STATUS => Other(S::XmmControl),
        HV_X64_REGISTER_TSC => Msr(IA32_TIME_STAMP_COUNTER),
        HV_X64_REGISTER_TSC_ADJUST => Msr(IA32_TSC_ADJUST),
        HV_X64_REGISTER_TSC_AUX => Msr(IA32_TSC_AUX),
        HV_X64_REGISTER_KERNEL_GS_BASE => Msr(IA32_KERNEL_GS_BASE),
        HV_X64_REGISTER_PAT => Msr(IA32_PAT),
        HV_X64_REGISTER_SYSENTER_CS => Msr(IA32_SYSENTER_CS),
        HV_X64_REGISTER_SYSENTER_EIP => Msr(IA32_SYSENTER_EIP),
        HV_X64_REGISTER_SYSENTER_ESP => Msr(IA32_SYSENTER_ESP),
        HV_X64_REGISTER_STAR => Msr(IA32_STAR),
        HV_X64_REGISTER_LSTAR => Msr(IA32_LSTAR),
        HV_X64_REGISTER_CSTAR => Msr(IA32_CSTAR),
        HV_X64_REGISTER_SFMASK => Msr(IA32_FMASK),
        HV_X64_REGISTER_DEBUG_CTL => Msr(IA32_DEBUGCTL),
        HV_X64_REGISTER_MSR_MTRR_CAP => Msr(IA32_MTRRCAP),
        HV_X64_REGISTER_MSR_MTRR_DEF_TYPE => Msr(IA32_MTRR_DEF_TYPE),
        HV_X64_REGISTER_MSR_MTRR_PHYS_BASE0..=HV_X64_REGISTER_MSR_MTRR_PHYS_BASE7 => {
            Msr(IA32_MTRR_PHYSBASE0 + 2 * (name - HV_X64_REGISTER_MSR_MTRR_PHYS_BASE0))
        }
        HV_X64_REGISTER_MSR_MTRR_PHYS_MASK0..=HV_X64_REGISTER_MSR_MTRR_PHYS_MASK7 => {
            Msr(IA32_MTRR_PHYSBASE0 + 1 + 2 * (name - HV_X64_REGISTER_MSR_MTRR_PHYS_MASK0))
        }
        HV_X64_REGISTER_MSR_MTRR_FIX64K00000 => Msr(IA32_MTRR_FIX64K_00000),
        HV_X64_REGISTER_MSR_MTRR_FIX16K80000 => Msr(IA32_MTRR_FIX16K_80000),
        HV_X64_REGISTER_MSR_MTRR_FIX16KA0000 => Msr(IA32_MTRR_FIX16K_A0000),
        HV_X64_REGISTER_MSR_MTRR_FIX4KC0000..=HV_X64_REGISTER_MSR_MTRR_FIX4KF8000 => {
            Msr(IA32_MTRR_FIX4K_C0000 + (name - HV_X64_REGISTER_MSR_MTRR_FIX4KC0000))
        }
        HV_X64_REGISTER_MSR_IA32_MISC_ENABLE => Msr(IA32_MISC_ENABLE),
        HV_X64_REGISTER_HYPERCALL => Synthetic(HV_X64_MSR_HYPERCALL),
        HV_REGISTER_GUEST_OS_ID => Synthetic(HV_X64_MSR_GUEST_OS_ID),
        HV_REGISTER_REFERENCE_TSC => Synthetic(HV_X64_MSR_REFERENCE_TSC),
        HV_REGISTER_VP_INDEX => Synthetic(HV_X64_MSR_VP_INDEX),
        HV_REGISTER_VP_RUNTIME => Synthetic(HV_X64_MSR_VP_RUNTIME),
        HV_REGISTER_TIME_REF_COUNT => Synthetic(HV_X64_MSR_TIME_REF_COUNT),
        HV_REGISTER_VP_ASSIST_PAGE => Synthetic(HV_X64_MSR_VP_ASSIST_PAGE),
        // The same order as the MSRs'.
        HV_REGISTER_SINT0..=HV_REGISTER_SINT15 => {
            Synthetic(HV_X64_MSR_SINT0 + (name - HV_REGISTER_SINT0))
        }
        HV_REGISTER_SCONTROL..=HV_REGISTER_EOM => {
            Synthetic(HV_X64_MSR_SCONTROL + (name - HV_REGISTER_SCONTROL))
        }
        HV_REGISTER_STIMER0_CONFIG..=HV_REGISTER_STIMER3_COUNT => {
            Synthetic(HV_X64_MSR_STIMER0_CONFIG + (name - HV_REGISTER_STIMER0_CONFIG))
        }
        _ => return None,
    })
}

/// HvCallGetVpRegisters: `names` are 4 bytes each, the output 16.
pub(crate) fn get(
    partition: &Partition,
    vp: &Vp,
    names: &[u8],
    output: &mut [u8],
    done: &mut u16,
) -> HvResult<()> {
    let config = partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    for (name, out) in names.chunks_exact(4).zip(output.chunks_exact_mut(16)) {
        let name = u32::read(name).ok_or(HV_STATUS_INVALID_PARAMETER)?;
        let place = place(name).ok_or(HV_STATUS_INVALID_PARAMETER)?;
        let value = if let Place::Synthetic(msr) = place {
            read_synthetic(partition, vp, config, msr)?
        } else {
            vp.with_vmcs(partition, |core, vmcs| read(core, vmcs, config, &place))
                .map_err(|_| HV_STATUS_OPERATION_FAILED)??
        };
        value.write(out).ok_or(HV_STATUS_INVALID_PARAMETER)?;
        *done += 1;
    }
    Ok(())
}

/// HvCallSetVpRegisters: `list` is of HV_REGISTER_ASSOC.
pub(crate) fn set(partition: &Partition, vp: &Vp, list: &[u8], done: &mut u16) -> HvResult<()> {
    let config = partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    for assoc in list.chunks_exact(HvRegisterAssoc::SIZE) {
        let assoc = HvRegisterAssoc::read(assoc).ok_or(HV_STATUS_INVALID_PARAMETER)?;
        let place = place(assoc.name).ok_or(HV_STATUS_INVALID_PARAMETER)?;
        if let Place::Synthetic(msr) = place {
            write_synthetic(partition, vp, config, msr, assoc.value.low)?;
        } else {
            vp.with_vmcs(partition, |core, vmcs| {
                write(core, vmcs, config, &place, assoc.value)
            })
            .map_err(|_| HV_STATUS_OPERATION_FAILED)??;
        }
        *done += 1;
    }
    Ok(())
}

fn read_synthetic(
    partition: &Partition,
    vp: &Vp,
    config: &Config,
    msr: u32,
) -> HvResult<HvRegisterValue> {
    vp.with_core(|core| {
        let own = read_vp_msr(msr, Origin::Host, &config.features, &core.synthetic);
        match own {
            Some(Ok(VpRead::Value(value))) => Ok(value),
            Some(_) => Err(MsrError::GeneralProtection),
            None => partition.read_msr(msr, Origin::Host, &Env::new(core, config)),
        }
    })
    .map_err(|_| HV_STATUS_OPERATION_FAILED)?
    .map(HvRegisterValue::from_u64)
    .map_err(|_| HV_STATUS_INVALID_PARAMETER)
}

fn write_synthetic(
    partition: &Partition,
    vp: &Vp,
    config: &Config,
    msr: u32,
    value: u64,
) -> HvResult<()> {
    vp.with_core(|core| {
        let (features, state) = (&config.features, &mut core.synthetic);
        match write_vp_msr(msr, value, Origin::Host, features, vp.index, state) {
            Some(Ok(VpEffect::Overlay { overlay, gpn })) => {
                core.place_overlay(partition, &vp.shared, overlay.kind, gpn);
                Ok(())
            }
            Some(Ok(VpEffect::Timers)) => {
                core.run_stimers_soon();
                Ok(())
            }
            Some(Ok(VpEffect::Synic)) => {
                core.synic_changed(&vp.shared);
                Ok(())
            }
            Some(Ok(VpEffect::None)) => Ok(()),
            // The local APIC is restored as a whole.
            Some(_) => Err(MsrError::GeneralProtection),
            None => partition.write_msr(msr, value, Origin::Host),
        }
    })
    .map_err(|_| HV_STATUS_OPERATION_FAILED)?
    .map_err(|_| HV_STATUS_INVALID_PARAMETER)
}

/// A segment register.
pub(crate) fn segment(vmcs: &CurrentVmcs<'_>, segment: Seg) -> HvX64SegmentRegister {
    let f = segment_fields(segment);
    HvX64SegmentRegister {
        base: vmcs.read(f.base),
        limit: vmcs.read(f.limit),
        selector: vmcs.read(f.selector),
        attributes: attributes_from_rights(vmcs.read(f.rights)),
    }
}

fn read(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    place: &Place,
) -> HvResult<HvRegisterValue> {
    Ok(HvRegisterValue::from_u64(match *place {
        Place::Gpr(n) => *core.gprs.get(n).ok_or(HV_STATUS_INVALID_PARAMETER)?,
        Place::Segment(s) => return Ok(HvRegisterValue::from_segment(segment(vmcs, s))),
        Place::Table(base, limit) => {
            return Ok(HvRegisterValue::from_table(HvX64TableRegister {
                pad: [0; 3],
                limit: vmcs.read(limit) as u16,
                base: vmcs.read(base),
            }))
        }
        Place::Natural(field) => vmcs.read(field),
        Place::Msr(msr) => {
            msr::get(core, vmcs, config, msr).map_err(|_| HV_STATUS_INVALID_PARAMETER)?
        }
        Place::Synthetic(_) => return Err(HV_STATUS_INVALID_PARAMETER),
        Place::Other(special) => return read_special(core, vmcs, special),
    }))
}

/// CR0 as the guest sees it.
pub(crate) fn guest_cr0(vmcs: &CurrentVmcs<'_>) -> u64 {
    vmcs.read(GUEST_CR0) & !CR0_OWNED | vmcs.read(CR0_READ_SHADOW) & CR0_OWNED
}

/// CR4 as the guest sees it.
pub(crate) fn guest_cr4(vmcs: &CurrentVmcs<'_>) -> u64 {
    vmcs.read(GUEST_CR4) & !cr::CR4_VMXE
}

fn read_special(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    special: Special,
) -> HvResult<HvRegisterValue> {
    let area = core.guest.xsave.bytes();
    let fp = |at: usize| HvU128::read(area.get(at..).unwrap_or(&[])).unwrap_or(Wire::ZERO);
    Ok(HvRegisterValue::from_u64(match special {
        Special::Cr0 => guest_cr0(vmcs),
        Special::Cr2 => core.guest.cr2,
        Special::Cr4 => guest_cr4(vmcs),
        Special::Cr8 => u64::from(core.lapic.cr8()),
        Special::Xfem => core.guest.xcr0,
        Special::Efer => vmcs.read(GUEST_IA32_EFER),
        Special::ApicBase => core.lapic.apic_base(),
        Special::Dr(n) => *core.guest.dr.get(n).ok_or(HV_STATUS_INVALID_PARAMETER)?,
        Special::Dr6 => core.guest.dr6,
        Special::Dr7 => vmcs.read(GUEST_DR7),
        Special::PendingInterruption => pending_interruption(core).0,
        Special::InterruptState => interrupt_state(vmcs),
        // Exceptions are queued as pending interruptions.
        Special::PendingEvent0 => 0,
        Special::ActivityState => match core.activity {
            Activity::WaitForSipi => HV_INTERNAL_ACTIVITY_STARTUP_SUSPEND,
            Activity::Halted => HV_INTERNAL_ACTIVITY_HALT_SUSPEND,
            Activity::Idle => HV_INTERNAL_ACTIVITY_IDLE_SUSPEND,
            Activity::Running | Activity::Shutdown => 0,
        },
        Special::InitialApicId => u64::from(core.lapic.apic_id()),
        Special::Xmm(n) => return Ok(fp(XSAVE_XMM + 16 * n)),
        Special::FpMmx(n) => return Ok(fp(XSAVE_ST + 16 * n)),
        // FCW, FSW, FTW, FOP, RIP as FXSAVE has them.
        Special::FpControl => return Ok(fp(0)),
        // RDP, MXCSR and its mask.
        Special::XmmControl => return Ok(fp(16)),
    }))
}

/// Offsets in the legacy region of an XSAVE area (SDM volume 1, table 13-1).
const XSAVE_ST: usize = 32;
const XSAVE_XMM: usize = 160;
const XSAVE_BV: usize = 512;

/// The event that the next entry injects.
pub(crate) fn pending_interruption(core: &VpCore) -> HvX64PendingInterruption {
    match core.injection {
        Some(event) => HvX64PendingInterruption::new(
            event.info.kind() as u8,
            event.info.vector(),
            event.info.has_error_code().then_some(event.error_code),
            event.instruction_length as u8,
        ),
        None => HvX64PendingInterruption(0),
    }
}

/// Interrupt shadow and NMI mask.
pub(crate) fn interrupt_state(vmcs: &CurrentVmcs<'_>) -> u64 {
    let blocking = vmcs.read(GUEST_INTERRUPTIBILITY_INFO);
    let mut state = 0;
    if blocking & (interruptibility::STI | interruptibility::MOV_SS) != 0 {
        state |= HV_X64_INTERRUPT_STATE_INTERRUPT_SHADOW;
    }
    if blocking & interruptibility::NMI != 0 {
        state |= HV_X64_INTERRUPT_STATE_NMI_MASKED;
    }
    state
}

fn write(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    place: &Place,
    value: HvRegisterValue,
) -> HvResult<()> {
    match *place {
        Place::Gpr(n) => {
            *core.gprs.get_mut(n).ok_or(HV_STATUS_INVALID_PARAMETER)? = value.low;
        }
        Place::Segment(s) => {
            let v = value.segment();
            let rights = rights_from_attributes(v.attributes);
            write_segment(vmcs, s, v.selector, v.base, v.limit, rights);
        }
        Place::Table(base, limit) => {
            let table = value.table();
            vmcs.write(base, table.base);
            vmcs.write(limit, u32::from(table.limit));
        }
        Place::Natural(GUEST_RFLAGS) => {
            vmcs.write(GUEST_RFLAGS, value.low & RFLAGS_BITS | cr::RFLAGS_FIXED)
        }
        Place::Natural(field) => vmcs.write(field, value.low),
        Place::Msr(msr) => {
            let effect = msr::set(core, vmcs, config, msr, value.low)
                .map_err(|_| HV_STATUS_INVALID_PARAMETER)?;
            if let MsrEffect::Apic(_) = effect {
                core.update_timer();
            }
        }
        Place::Synthetic(_) => return Err(HV_STATUS_INVALID_PARAMETER),
        Place::Other(special) => write_special(core, vmcs, config, special, value)?,
    }
    Ok(())
}

/// Bits of RFLAGS that can be set.
const RFLAGS_BITS: u64 = 0x3f_7fd5;

fn write_special(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    special: Special,
    value: HvRegisterValue,
) -> HvResult<()> {
    let v = value.low;
    let bad = HV_STATUS_INVALID_PARAMETER;
    match special {
        Special::Cr0 => {
            if v >> 32 != 0 || v & (cr::CR0_PG | cr::CR0_PE) == cr::CR0_PG {
                return Err(bad);
            }
            vmcs.write(GUEST_CR0, v & !CR0_OWNED | cr::CR0_NE | cr::CR0_ET);
            vmcs.write(CR0_READ_SHADOW, v & CR0_OWNED);
        }
        Special::Cr2 => core.guest.cr2 = v,
        Special::Cr4 => {
            if v & !config.cr4_allowed != 0 {
                return Err(bad);
            }
            vmcs.write(GUEST_CR4, v | cr::CR4_VMXE);
        }
        Special::Cr8 => {
            if v > 15 {
                return Err(bad);
            }
            core.lapic.set_cr8(v as u8);
            core.check_events = true;
        }
        Special::Xfem => {
            if !config.xcr0_is_legal(v) {
                return Err(bad);
            }
            core.guest.xcr0 = v;
        }
        Special::Efer => {
            if v & !config.cpu.efer_legal_bits() != 0 {
                return Err(bad);
            }
            vmcs.write(GUEST_IA32_EFER, v);
            let long = if v & cr::EFER_LMA != 0 {
                entry::IA32E_MODE_GUEST
            } else {
                0
            };
            vmcs.modify(VM_ENTRY_CONTROLS, entry::IA32E_MODE_GUEST, long);
        }
        Special::ApicBase => {
            core.lapic.set_apic_base(v).map_err(|_| bad)?;
            core.update_timer();
        }
        Special::Dr(n) => *core.guest.dr.get_mut(n).ok_or(bad)? = v,
        Special::Dr6 => core.guest.dr6 = v & 0xe00f | cr::DR6_RESET,
        Special::Dr7 => {
            vmcs.write(GUEST_DR7, v & 0xffff_2bff | cr::DR7_RESET);
            core.guest.dr_loaded = v & cr::DR7_ENABLES != 0;
        }
        Special::PendingInterruption => set_pending(core, HvX64PendingInterruption(v))?,
        Special::InterruptState => {
            let clear = interruptibility::STI | interruptibility::MOV_SS | interruptibility::NMI;
            let mut set = 0;
            if v & HV_X64_INTERRUPT_STATE_INTERRUPT_SHADOW != 0 {
                set |= interruptibility::MOV_SS;
            }
            if v & HV_X64_INTERRUPT_STATE_NMI_MASKED != 0 {
                set |= interruptibility::NMI;
            }
            vmcs.modify(GUEST_INTERRUPTIBILITY_INFO, clear, set);
            core.check_events = true;
        }
        Special::PendingEvent0 => match HvX64PendingExceptionEvent::from_value(value) {
            None => {}
            Some(Ok(event)) if event.vector < 32 => {
                if event.vector == u16::from(x86def::vector::PF) {
                    core.guest.cr2 = event.exception_parameter;
                }
                let info = IntrInfo::new(intr_type::HARD_EXCEPTION, event.vector as u8);
                core.injection = Some(Injection {
                    info: match event.error_code {
                        Some(_) => info.with_error_code(),
                        None => info,
                    },
                    error_code: event.error_code.unwrap_or(0),
                    instruction_length: 0,
                });
                core.check_events = true;
            }
            Some(_) => return Err(bad),
        },
        Special::ActivityState => {
            core.activity = match v {
                0 => Activity::Running,
                HV_INTERNAL_ACTIVITY_STARTUP_SUSPEND => Activity::WaitForSipi,
                HV_INTERNAL_ACTIVITY_HALT_SUSPEND => Activity::Halted,
                HV_INTERNAL_ACTIVITY_IDLE_SUSPEND => Activity::Idle,
                _ => return Err(bad),
            };
        }
        Special::InitialApicId => core.lapic.set_apic_id(u32::try_from(v).map_err(|_| bad)?),
        Special::Xmm(n) => write_fp(core, XSAVE_XMM + 16 * n, value, cr::XCR0_SSE),
        Special::FpMmx(n) => write_fp(core, XSAVE_ST + 16 * n, value, cr::XCR0_X87),
        Special::FpControl => write_fp(core, 0, value, cr::XCR0_X87),
        Special::XmmControl => {
            // MXCSR: a reserved bit would be #GP in XRSTOR. Its mask is the CPU's.
            let mxcsr = value.high as u32;
            if mxcsr & !0xffff != 0 {
                return Err(bad);
            }
            let kept = HvRegisterValue {
                low: v,
                high: u64::from(mxcsr),
            };
            write_fp(core, 16, kept, cr::XCR0_X87 | cr::XCR0_SSE);
        }
    }
    Ok(())
}

/// Puts 16 bytes into the XSAVE area and marks their components as there.
fn write_fp(core: &mut VpCore, at: usize, value: HvRegisterValue, components: u64) {
    let area = core.guest.xsave.bytes_mut();
    if let Some(to) = area.get_mut(at..at + 16) {
        let _ = value.write(to);
    }
    if let Some(bv) = area.get_mut(XSAVE_BV) {
        *bv |= components as u8;
    }
}

fn set_pending(core: &mut VpCore, pending: HvX64PendingInterruption) -> HvResult<()> {
    if !pending.pending() {
        core.injection = None;
        return Ok(());
    }
    let kind = u32::from(pending.interruption_type());
    let vector = pending.vector();
    if pending.0 & HvX64PendingInterruption::RESERVED != 0 || vector > 255 || matches!(kind, 1 | 7)
    {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let exception = kind == intr_type::HARD_EXCEPTION;
    let error_fits = match pending.error_code() {
        Some(_) => exception && x86def::vector::has_error_code(vector as u8),
        None => true,
    };
    // VM entry would fail otherwise (SDM 27.2.1.3).
    if exception && vector > 31 || kind == intr_type::NMI && vector != 2 || !error_fits {
        return Err(HV_STATUS_INVALID_PARAMETER);
    }
    let info = IntrInfo::new(kind, vector as u8);
    core.injection = Some(Injection {
        info: match pending.error_code() {
            Some(_) => info.with_error_code(),
            None => info,
        },
        error_code: pending.error_code().unwrap_or(0),
        instruction_length: u32::from(pending.instruction_length()),
    });
    core.check_events = true;
    Ok(())
}
