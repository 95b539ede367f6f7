// SPDX-License-Identifier: GPL-2.0

//! A VP's VMCS: its constant part, and the architectural states after RESET, INIT and SIPI.

use super::core::{Activity, Deferred, VpCore};
use crate::machine::Machine;
use crate::partition::{Config, Partition};
use crate::vmx::capabilities::Capabilities;
use crate::vmx::vmcs::CurrentVmcs;
use hv1::hypercall::InitialVpContext;
use vmxdef::controls::{primary, secondary};
use vmxdef::events::activity;
use vmxdef::field::*;
use x86def::cr;
use x86def::msr::IA32_PAT_RESET;
use x86def::segment::{ar, rights_from_attributes, Segment};
use x86def::vector;

/// CR0 bits that hvrs owns: what the guest writes is kept in the read shadow, the CPU runs with
/// caching on and native FPU errors.
pub(super) const CR0_OWNED: u64 = cr::CR0_CD | cr::CR0_NW | cr::CR0_NE;

/// Fields of a segment in the VMCS.
pub(crate) struct SegmentFields {
    pub(crate) selector: Field16,
    pub(crate) base: FieldNatural,
    pub(crate) limit: Field32,
    pub(crate) rights: Field32,
}

/// The fields of `segment`: they are spaced evenly, in the order of [`Segment`] (SDM B.1 to B.4).
pub(crate) fn segment_fields(segment: Segment) -> SegmentFields {
    let i = segment as u32 * 2;
    SegmentFields {
        selector: Field16(GUEST_ES_SELECTOR.0 + i),
        base: FieldNatural(GUEST_ES_BASE.0 + i),
        limit: Field32(GUEST_ES_LIMIT.0 + i),
        rights: Field32(GUEST_ES_AR_BYTES.0 + i),
    }
}

/// Writes a segment.
pub(crate) fn write_segment(
    vmcs: &CurrentVmcs<'_>,
    segment: Segment,
    selector: u16,
    base: u64,
    limit: u32,
    rights: u32,
) {
    let f = segment_fields(segment);
    vmcs.write(f.selector, selector);
    vmcs.write(f.base, base);
    vmcs.write(f.limit, limit);
    vmcs.write(f.rights, rights);
}

/// CR4 bits that the guest may not set: a write that changes one of them exits.
pub(crate) fn cr4_owned(caps: &Capabilities, guest_cr4: u64) -> u64 {
    !(caps.cr4_fixed1 & guest_cr4) | cr::CR4_VMXE
}

/// Writes the fields that do not change while the VP lives, and the state after RESET.
pub(crate) fn initialize(
    vmcs: &CurrentVmcs<'_>,
    core: &mut VpCore,
    machine: &Machine,
    partition: &Partition,
    config: &Config,
) {
    let caps = &machine.root.caps;
    let controls = &caps.controls;
    vmcs.write(PIN_BASED_VM_EXEC_CONTROL, controls.pin);
    vmcs.write(CPU_BASED_VM_EXEC_CONTROL, controls.primary);
    vmcs.write(SECONDARY_VM_EXEC_CONTROL, controls.secondary);
    vmcs.write(VM_EXIT_CONTROLS, controls.exit);
    vmcs.write(VM_ENTRY_CONTROLS, controls.entry);
    follow_intercepts(vmcs, core, partition, machine);
    vmcs.write(PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs.write(PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs.write(CR3_TARGET_COUNT, 0);
    vmcs.write(VM_EXIT_MSR_STORE_COUNT, 0);
    vmcs.write(VM_EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write(VM_ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(VM_ENTRY_INTR_INFO_FIELD, 0);
    vmcs.write(VIRTUAL_APIC_PAGE_ADDR, core.lapic.page().phys());
    vmcs.write(TPR_THRESHOLD, 0);
    vmcs.write(EPT_POINTER, partition.memory.space.eptp);
    vmcs.write(VIRTUAL_PROCESSOR_ID, core.vpid);
    vmcs.write(VMCS_LINK_POINTER, !0);
    vmcs.write(TSC_OFFSET, core.tsc_offset);
    if caps.has(secondary::PAUSE_LOOP_EXITING) {
        vmcs.write(PLE_GAP, 128);
        core.ple_window = machine.options.ple_window;
        vmcs.write(PLE_WINDOW, core.ple_window);
    }
    vmcs.write(CR0_GUEST_HOST_MASK, CR0_OWNED);
    vmcs.write(CR4_GUEST_HOST_MASK, cr4_owned(caps, config.cr4_allowed));
    vmcs.write(HOST_CS_SELECTOR, HOST_CS);
    vmcs.write(HOST_SS_SELECTOR, HOST_SS);
    vmcs.write(HOST_TR_SELECTOR, HOST_TR);
    for field in [
        HOST_DS_SELECTOR,
        HOST_ES_SELECTOR,
        HOST_FS_SELECTOR,
        HOST_GS_SELECTOR,
    ] {
        vmcs.write(field, 0);
    }
    vmcs.write(GUEST_IA32_PAT, IA32_PAT_RESET);
    if caps.perf_global_ctrl {
        vmcs.write(GUEST_IA32_PERF_GLOBAL_CTRL, 0);
    }
    reset_registers(vmcs, core);
    core.primary = controls.primary;
    core.tpr_threshold = 0;
    core.vmcs_ready = true;
}

/// Takes over what the VMM intercepts.
pub(super) fn follow_intercepts(
    vmcs: &CurrentVmcs<'_>,
    core: &mut VpCore,
    partition: &Partition,
    machine: &Machine,
) {
    let intercepts = &partition.intercepts;
    core.intercepts = intercepts.any();
    // A guest that never leaves exception delivery would hang the CPU (CVE-2015-8104,
    // CVE-2015-5307); machine checks are the host's.
    let always = 1 << vector::MC | 1 << vector::DB | 1 << vector::AC;
    core.exception_bitmap = always | intercepts.exceptions();
    vmcs.write(EXCEPTION_BITMAP, core.exception_bitmap);
    vmcs.write(MSR_BITMAP, intercepts.msr_bitmap(machine));
}

/// `__KERNEL_CS`, `__KERNEL_DS` and the TSS's selector of x86-64 Linux.
const HOST_CS: u16 = 0x10;
const HOST_SS: u16 = 0x18;
const HOST_TR: u16 = 0x40;

/// Registers after RESET or INIT (SDM table 10-1). MSRs and FPU survive INIT.
pub(crate) fn reset_registers(vmcs: &CurrentVmcs<'_>, core: &mut VpCore) {
    core.gprs = [0; 16];
    // Family and model in EDX.
    core.gprs[super::core::RDX] = u64::from(crate::vmx::insn::cpuid(1, 0)[0]) & 0xfff_ffff;
    vmcs.write(GUEST_RSP, 0);
    vmcs.write(GUEST_RIP, 0xfff0);
    vmcs.write(GUEST_RFLAGS, cr::RFLAGS_FIXED);
    write_segment(vmcs, Segment::Cs, 0xf000, 0xffff_0000, 0xffff, 0x9b);
    for segment in [
        Segment::Ds,
        Segment::Es,
        Segment::Fs,
        Segment::Gs,
        Segment::Ss,
    ] {
        write_segment(vmcs, segment, 0, 0, 0xffff, 0x93);
    }
    write_segment(vmcs, Segment::Ldtr, 0, 0, 0xffff, ar::P | 2);
    write_segment(vmcs, Segment::Tr, 0, 0, 0xffff, ar::P | 11);
    vmcs.write(GUEST_GDTR_BASE, 0);
    vmcs.write(GUEST_GDTR_LIMIT, 0xffff);
    vmcs.write(GUEST_IDTR_BASE, 0);
    vmcs.write(GUEST_IDTR_LIMIT, 0xffff);
    vmcs.write(GUEST_CR0, cr::CR0_NE | cr::CR0_ET);
    vmcs.write(CR0_READ_SHADOW, cr::CR0_RESET);
    vmcs.write(GUEST_CR3, 0);
    vmcs.write(GUEST_CR4, cr::CR4_VMXE);
    vmcs.write(CR4_READ_SHADOW, 0);
    vmcs.write(GUEST_IA32_EFER, 0);
    vmcs.modify(
        VM_ENTRY_CONTROLS,
        vmxdef::controls::entry::IA32E_MODE_GUEST,
        0,
    );
    vmcs.write(GUEST_DR7, cr::DR7_RESET);
    vmcs.write(GUEST_IA32_DEBUGCTL, 0);
    vmcs.write(GUEST_SYSENTER_CS, 0);
    vmcs.write(GUEST_SYSENTER_ESP, 0);
    vmcs.write(GUEST_SYSENTER_EIP, 0);
    vmcs.write(GUEST_INTERRUPTIBILITY_INFO, 0);
    vmcs.write(GUEST_ACTIVITY_STATE, activity::ACTIVE);
    vmcs.write(GUEST_PENDING_DBG_EXCEPTIONS, 0);
    core.guest.dr = [0; 4];
    core.guest.dr6 = cr::DR6_RESET;
    core.guest.dr_loaded = false;
    core.guest.cr2 = 0;
    core.injection = None;
    core.deferred = Deferred::Nothing;
    core.nmi_pending = false;
    core.extint_pending = None;
    core.notifications = Default::default();
    core.check_events = true;
}

/// INIT: registers as after RESET, then wait for SIPI, or, on the bootstrap processor, run
/// (SDM 10.4.2).
pub(super) fn init(vmcs: &CurrentVmcs<'_>, core: &mut VpCore) {
    reset_registers(vmcs, core);
    core.lapic.init();
    core.update_timer();
    // TLFS 15.5.1.4 counts it among the ways to reset a VP: it also ends what SynIC and timers do.
    core.synthetic_reset_due = true;
    core.activity = if core.lapic.is_bsp() {
        Activity::Running
    } else {
        Activity::WaitForSipi
    };
}

/// SIPI: real mode at `vector` << 12 (SDM 11.4.4).
pub(super) fn start(vmcs: &CurrentVmcs<'_>, core: &mut VpCore, vector: u8) {
    let base = u64::from(vector) << 12;
    write_segment(
        vmcs,
        Segment::Cs,
        u16::from(vector) << 8,
        base,
        0xffff,
        0x9b,
    );
    vmcs.write(GUEST_RIP, 0);
    core.activity = Activity::Running;
}

/// HvCallStartVirtualProcessor: the state that the caller gave, which is a legal one. What is not in it is as after
/// INIT.
pub(super) fn start_in(vmcs: &CurrentVmcs<'_>, core: &mut VpCore, context: &InitialVpContext) {
    reset_registers(vmcs, core);
    vmcs.write(GUEST_RIP, context.rip());
    vmcs.write(GUEST_RSP, context.rsp());
    vmcs.write(GUEST_RFLAGS, context.rflags());
    for (segment, s) in [
        (Segment::Cs, context.cs()),
        (Segment::Ds, context.ds()),
        (Segment::Es, context.es()),
        (Segment::Fs, context.fs()),
        (Segment::Gs, context.gs()),
        (Segment::Ss, context.ss()),
        (Segment::Tr, context.tr()),
        (Segment::Ldtr, context.ldtr()),
    ] {
        let rights = rights_from_attributes(s.attributes);
        write_segment(vmcs, segment, s.selector, s.base, s.limit, rights);
    }
    vmcs.write(GUEST_IDTR_BASE, context.idtr().base);
    vmcs.write(GUEST_IDTR_LIMIT, u32::from(context.idtr().limit));
    vmcs.write(GUEST_GDTR_BASE, context.gdtr().base);
    vmcs.write(GUEST_GDTR_LIMIT, u32::from(context.gdtr().limit));
    write_cr0(vmcs, context.cr0());
    vmcs.write(GUEST_CR3, context.cr3());
    vmcs.write(GUEST_CR4, context.cr4() | cr::CR4_VMXE);
    write_efer(vmcs, context.efer());
    vmcs.write(GUEST_IA32_PAT, context.pat());
    core.activity = Activity::Running;
}

/// CR0 as the guest is to see it.
pub(super) fn write_cr0(vmcs: &CurrentVmcs<'_>, value: u64) {
    vmcs.write(GUEST_CR0, value & !CR0_OWNED | cr::CR0_NE | cr::CR0_ET);
    vmcs.write(CR0_READ_SHADOW, value & CR0_OWNED);
}

/// EFER, and with it IA-32e mode.
pub(super) fn write_efer(vmcs: &CurrentVmcs<'_>, value: u64) {
    vmcs.write(GUEST_IA32_EFER, value);
    let long = vmxdef::controls::entry::IA32E_MODE_GUEST;
    let set = if value & cr::EFER_LMA != 0 { long } else { 0 };
    vmcs.modify(VM_ENTRY_CONTROLS, long, set);
}

/// Controls that open a window for an event, as they should be.
pub(super) fn set_windows(vmcs: &CurrentVmcs<'_>, core: &mut VpCore, interrupt: bool, nmi: bool) {
    let mut wanted =
        core.primary & !(primary::INTERRUPT_WINDOW_EXITING | primary::NMI_WINDOW_EXITING);
    if interrupt {
        wanted |= primary::INTERRUPT_WINDOW_EXITING;
    }
    if nmi {
        wanted |= primary::NMI_WINDOW_EXITING;
    }
    if wanted != core.primary {
        core.primary = wanted;
        vmcs.write(CPU_BASED_VM_EXEC_CONTROL, wanted);
    }
}
