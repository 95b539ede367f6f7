// SPDX-License-Identifier: GPL-2.0

//! Registers by their TLFS names: HvCallGetVpRegisters and HvCallSetVpRegisters.

mod host_msr;
pub(crate) mod page;
mod place;

use super::core::{Activity, Deferred, Injection, VpCore};
use super::setup::{segment_fields, write_cr0, write_efer, write_segment, CR0_OWNED};
use super::Vp;
use crate::partition::{Config, Partition};
use crate::sys::thread::ThreadId;
use crate::vmx::vmcs::CurrentVmcs;
use hv1::msr::Origin;
use hvdef::*;
use kernel::error::Result;
use place::{place, Place, Special};
use vmxdef::events::{interruptibility, intr_type, IntrInfo};
use vmxdef::field::*;
use x86def::cr;
use x86def::segment::{attributes_from_rights, rights_from_attributes, Segment as Seg};

/// The VP whose registers are asked for, and by whom.
pub(crate) trait Reach {
    /// Who asks: a guest has the rights that it has by RDMSR and WRMSR.
    const ORIGIN: Origin;

    /// Runs `f` on its state.
    fn core<R>(&mut self, f: impl FnOnce(&Vp, &mut VpCore) -> R) -> Result<R>;

    /// Runs `f` on its state with its VMCS current.
    fn vmcs<R>(
        &mut self,
        partition: &Partition,
        f: impl FnOnce(&mut VpCore, &CurrentVmcs<'_>) -> R,
    ) -> Result<R>;
}

/// A VP between its runs, for the VMM.
impl Reach for &Vp {
    const ORIGIN: Origin = Origin::Host;

    fn core<R>(&mut self, f: impl FnOnce(&Vp, &mut VpCore) -> R) -> Result<R> {
        let vp = *self;
        vp.with_core(|core| f(vp, core))
    }

    fn vmcs<R>(
        &mut self,
        partition: &Partition,
        f: impl FnOnce(&mut VpCore, &CurrentVmcs<'_>) -> R,
    ) -> Result<R> {
        self.with_vmcs(partition, f)
    }
}

/// The VP that this thread runs, for its guest.
pub(super) struct OwnVp<'a> {
    pub(super) vp: &'a Vp,
    pub(super) own: &'a mut super::Own,
}

impl Reach for OwnVp<'_> {
    const ORIGIN: Origin = Origin::Guest;

    fn core<R>(&mut self, f: impl FnOnce(&Vp, &mut VpCore) -> R) -> Result<R> {
        Ok(f(self.vp, &mut self.own.core))
    }

    fn vmcs<R>(
        &mut self,
        partition: &Partition,
        f: impl FnOnce(&mut VpCore, &CurrentVmcs<'_>) -> R,
    ) -> Result<R> {
        // Going on behind the VMCALL is for afterwards.
        let deferred = ::core::mem::replace(&mut self.own.core.deferred, Deferred::Nothing);
        let r = self.vp.with_vmcs_of(self.own, partition, f);
        self.own.core.deferred = deferred;
        r
    }
}

/// HvCallGetVpRegisters: `names` are 4 bytes each, the output 16.
pub(crate) fn get(
    partition: &Partition,
    vp: &mut impl Reach,
    mut names: &[u8],
    mut output: &mut [u8],
    done: &mut u16,
) -> HvResult<()> {
    let config = partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    while let Some((name, more)) = names.split_first_chunk() {
        let place = place_of(name)?;
        if let Some(value) = outside(partition, vp, config, &place) {
            output = put(output, value?)?;
            names = more;
            *done += 1;
            continue;
        }
        // One window for all that are in the VMCS.
        (names, output) = vp
            .vmcs(partition, |core, vmcs| {
                while let Some((name, more)) = names.split_first_chunk() {
                    let place = place_of(name)?;
                    if place.is_outside() {
                        break;
                    }
                    output = put(output, read(core, vmcs, config, &place)?)?;
                    names = more;
                    *done += 1;
                }
                Ok((names, output))
            })
            .map_err(|_| HV_STATUS_OPERATION_FAILED)??;
    }
    Ok(())
}

fn place_of(name: &[u8; 4]) -> HvResult<Place> {
    place(u32::from_le_bytes(*name)).ok_or(HV_STATUS_INVALID_PARAMETER)
}

/// Puts the value at the front; what is behind it.
fn put(output: &mut [u8], value: HvRegisterValue) -> HvResult<&mut [u8]> {
    let (out, rest) = output
        .split_at_mut_checked(HvRegisterValue::SIZE)
        .ok_or(HV_STATUS_INVALID_PARAMETER)?;
    value.write(out).ok_or(HV_STATUS_INVALID_PARAMETER)?;
    Ok(rest)
}

/// HvCallSetVpRegisters: `list` is of HV_REGISTER_ASSOC.
pub(crate) fn set<V: Reach>(
    partition: &Partition,
    vp: &mut V,
    mut list: &[u8],
    done: &mut u16,
) -> HvResult<()> {
    let config = partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    while let Some((assoc, more)) = list.split_first_chunk() {
        let (place, value) = place_and_value(assoc)?;
        if place.is_outside() {
            set_outside(partition, vp, config, &place, value.low)?;
            list = more;
            *done += 1;
            continue;
        }
        list = vp
            .vmcs(partition, |core, vmcs| {
                let mut written = Written::default();
                let rest = write_front(core, vmcs, config, list, &mut written);
                *done += written.count;
                if V::ORIGIN == Origin::Host {
                    core.register_page_stale = core.register_page_stale.max(written.stale);
                    if written.starts || core.synthetic_reset_due {
                        follow_reset(core, vmcs, config, written.starts);
                    }
                }
                rest
            })
            .map_err(|_| HV_STATUS_OPERATION_FAILED)??;
    }
    Ok(())
}

fn place_and_value(assoc: &[u8; HvRegisterAssoc::SIZE]) -> HvResult<(Place, HvRegisterValue)> {
    let assoc = HvRegisterAssoc::read(assoc).ok_or(HV_STATUS_INVALID_PARAMETER)?;
    let place = place(assoc.name).ok_or(HV_STATUS_INVALID_PARAMETER)?;
    Ok((place, assoc.value))
}

/// What [`write_front`] has written.
#[derive(Default)]
struct Written {
    count: u16,
    /// RIP or CS came last, with which a VP starts.
    starts: bool,
    stale: Stale,
}

/// Writes the registers at the front of `list` that are in the VMCS or beside it; what is behind them.
fn write_front<'l>(
    core: &mut VpCore,
    vmcs: &CurrentVmcs<'_>,
    config: &Config,
    mut list: &'l [u8],
    written: &mut Written,
) -> HvResult<&'l [u8]> {
    while let Some((assoc, more)) = list.split_first_chunk() {
        let (place, value) = place_and_value(assoc)?;
        if place.is_outside() {
            break;
        }
        write(core, vmcs, config, &place, value)?;
        list = more;
        written.count += 1;
        match place {
            Place::Natural(GUEST_RIP) | Place::Segment(Seg::Cs) => written.starts = true,
            Place::Other(Special::ActivityState) => written.starts = false,
            _ => {}
        }
        let stale = match place.is_general() {
            true => Stale::General,
            false => Stale::All,
        };
        written.stale = written.stale.max(stale);
    }
    Ok(list)
}

/// What the register page does not have yet of what the VMM has set by names.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stale {
    /// Nothing.
    #[default]
    No,
    /// General registers, RIP, RFLAGS.
    General,
    /// Others, too.
    All,
}

/// Reads a register for which the VMCS is not needed, and locks may be; `None`: it is another.
fn outside(
    partition: &Partition,
    vp: &mut impl Reach,
    config: &Config,
    place: &Place,
) -> Option<HvResult<HvRegisterValue>> {
    Some(match *place {
        Place::Synthetic(msr) => host_msr::synthetic(partition, vp, config, msr),
        Place::Tsc => vp
            .core(|_, core| {
                core.follow(&config.time);
                HvRegisterValue::from_u64(core.guest_now())
            })
            .map_err(|_| HV_STATUS_OPERATION_FAILED),
        Place::Leaf(leaf) => {
            let [a, b, c, d] = partition.hv_cpuid(config, leaf).map(u64::from);
            Ok(HvRegisterValue {
                low: a | b << 32,
                high: c | d << 32,
            })
        }
        _ => return None,
    })
}

/// Sets a register of [`outside`].
fn set_outside<V: Reach>(
    partition: &Partition,
    vp: &mut V,
    config: &Config,
    place: &Place,
    value: u64,
) -> HvResult<()> {
    match *place {
        Place::Synthetic(msr) => host_msr::set_synthetic(partition, vp, config, msr, value),
        Place::Tsc => vp
            .core(|vp, core| match V::ORIGIN {
                Origin::Host => partition.set_tsc(config, vp.index, core, value),
                // Its own alone, as by WRMSR.
                Origin::Guest => core.move_tsc(value.wrapping_sub(core.guest_now())),
            })
            .map_err(|_| HV_STATUS_OPERATION_FAILED),
        _ => Err(HV_STATUS_INVALID_PARAMETER),
    }
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
        Place::Msr(msr) => host_msr::get(core, vmcs, config, msr)?,
        Place::Absent => 0,
        Place::Synthetic(_) | Place::Tsc | Place::Leaf(_) => {
            return Err(HV_STATUS_INVALID_PARAMETER)
        }
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
        Special::PendingEvent0 => match core.extint_pending {
            Some(vector) => pending_extint(vector),
            None => 0,
        },
        Special::PendingEvent1 => 0,
        Special::DeliverabilityNotifications => core.notifications.0,
        // A VP executes only inside RUN_VP.
        Special::ExplicitSuspend => 1,
        Special::InterceptSuspend => u64::from(core.intercepted),
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

/// XMM0 to XMM5, between windows.
pub(crate) fn xmm_0_to_5(core: &VpCore) -> [HvU128; 6] {
    let area = core.guest.xsave.bytes();
    let saved = area.get(XSAVE_XMM..).and_then(<[HvU128; 6]>::read);
    saved.unwrap_or(Wire::ZERO)
}

/// Offsets in the legacy region of an XSAVE area (SDM volume 1, table 13-1).
const XSAVE_ST: usize = 32;
const XSAVE_XMM: usize = 160;
const XSAVE_BV: usize = 512;

/// Writes into XMM0 to XMM5, from byte `at` of them on.
pub(crate) fn write_xmm(core: &mut VpCore, at: usize, bytes: &[u8]) {
    let area = core.guest.xsave.bytes_mut();
    let initial = area.get(XSAVE_BV).is_some_and(|bv| *bv & 2 == 0);
    let Some(registers) = area.get_mut(XSAVE_XMM..XSAVE_XMM + 256) else {
        return;
    };
    if initial {
        registers.fill(0);
    }
    if let Some(to) = registers.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
    if let Some(bv) = area.get_mut(XSAVE_BV) {
        *bv |= 2;
    }
}

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
        Place::Natural(GUEST_RIP) => set_rip(core, vmcs, value.low),
        Place::Natural(field) => vmcs.write(field, value.low),
        Place::Msr(msr) => host_msr::set(core, vmcs, config, msr, value.low)?,
        Place::Absent if value.low == 0 => {}
        Place::Absent | Place::Synthetic(_) | Place::Tsc | Place::Leaf(_) => {
            return Err(HV_STATUS_INVALID_PARAMETER)
        }
        Place::Other(special) => write_special(core, vmcs, config, special, value)?,
    }
    Ok(())
}

/// A VMM that stores the registers that RESET gives, and no activity state (QEMU), resets a VP. Other
/// VPs than the bootstrap processor wait for a start-up IPI then; with that one, the partition's synthetic
/// registers are reset, lest their pages lie over the next kernel's memory, and its local APIC, if it has run: `starts` says that it stored RIP or CS last. No guest
/// can have this CS by itself but there.
fn follow_reset(core: &mut VpCore, vmcs: &CurrentVmcs<'_>, config: &Config, starts: bool) {
    let at_reset = vmcs.read(GUEST_RIP) == RESET_RIP
        && vmcs.read(GUEST_CS_BASE) == RESET_CS_BASE
        && guest_cr0(vmcs) & cr::CR0_PE == 0;
    if !at_reset {
        // It restores a VP that it had reset before: what it restored is to stay.
        core.synthetic_reset_due = false;
        core.partition_reset_due = false;
        core.lapic_reset_due = false;
        return;
    }
    if !starts || !config.lapic.present || core.activity != Activity::Running {
        return;
    }
    if core.lapic.is_bsp() {
        core.synthetic_reset_due = true;
        core.partition_reset_due = true;
        core.lapic_reset_due = core.thread != ThreadId::NONE;
    } else {
        super::setup::init(vmcs, core);
    }
}

/// A RIP from the VMM. One that resets a VP behind its triple fault stores registers, and no
/// activity state.
fn set_rip(core: &mut VpCore, vmcs: &CurrentVmcs<'_>, rip: u64) {
    vmcs.write(GUEST_RIP, rip);
    if core.activity == Activity::Shutdown {
        core.activity = Activity::Running;
    }
}

/// Where processors start after RESET (SDM table 11-1).
const RESET_RIP: u64 = 0xfff0;
const RESET_CS_BASE: u64 = 0xffff_0000;

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
            write_cr0(vmcs, v);
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
            write_efer(vmcs, v);
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
            None => core.extint_pending = None,
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
            Some(_) if value.high == 0 && v & 0xff == pending_extint(0) && v >> 16 == 0 => {
                core.extint_pending = Some((v >> 8) as u8);
                core.check_events = true;
            }
            Some(_) => return Err(bad),
        },
        // Nothing uses the second.
        Special::PendingEvent1 if v & 1 == 0 => {}
        Special::DeliverabilityNotifications => {
            let wanted = HvDeliverabilityNotifications(v);
            // NMIs are the local APIC's where there is one, and the SynIC needs one.
            let not_there = if config.lapic.present {
                wanted.nmi()
            } else {
                wanted.sints() != 0
            };
            if !wanted.is_known() || not_there {
                return Err(bad);
            }
            core.notifications = wanted;
            core.check_events = true;
        }
        Special::ExplicitSuspend if v == 1 => {}
        Special::InterceptSuspend if v <= 1 => core.intercepted = v != 0,
        Special::PendingEvent1 | Special::ExplicitSuspend | Special::InterceptSuspend => {
            return Err(bad)
        }
        Special::ActivityState => {
            core.activity = match v {
                0 => Activity::Running,
                HV_INTERNAL_ACTIVITY_STARTUP_SUSPEND if config.lapic.present => {
                    Activity::WaitForSipi
                }
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

/// `HV_X64_PENDING_EXT_INT_EVENT`: bit 0 pending, bits 3:1 type, bits 15:8 vector.
const fn pending_extint(vector: u8) -> u64 {
    1 | 5 << 1 | (vector as u64) << 8
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
