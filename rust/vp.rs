// SPDX-License-Identifier: GPL-2.0

//! A virtual processor: its file, and RUN_VP's cold tier.

pub(crate) mod core;
mod entry;
mod eoi_assist;
pub(crate) mod exits;
mod gva;
mod hypercall;
mod inject;
mod io;
mod message;
pub(crate) mod registers;
pub(crate) mod setup;
pub(crate) mod shared;
mod state;
mod synic;
mod unhalted;

use self::core::{Activity, Deferred, VpCore};
use crate::device::ROOT_HVCALL;
use crate::machine::{Machine, Vpid};
use crate::partition::memory::{Access, Resolved};
use crate::partition::{hvcall, spin, Config, Partition, Written};
use crate::stats::VpStats;
use crate::sys::bindings::*;
use crate::sys::file::{FileOps, Vma};
use crate::sys::mutex::InterruptibleMutex;
use crate::sys::pages::{PageBox, Pages};
use crate::sys::signals;
use crate::sys::thread::{Thread, ThreadId};
use crate::sys::user;
use crate::sys::{host, window};
use crate::vmx::insn::rdtsc;
use crate::vmx::vmcs::{CurrentVmcs, Vmcs};
use ::core::sync::atomic::{AtomicBool, Ordering};
use cpumodel::{Overrides, VpCpuidInput};
use entry::Running;
use exits::msr::Env;
use exits::Leave;
use hv1::msr::Origin;
use hvdef::HV_X64_MSR_CRASH_CTL;
use kernel::ioctl::_IOR;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow, SpinLock};
use message::Message;
use registers::Stale;
use shared::VpShared;
use vapic::Lapic;
use vmxdef::exit::ExitReason;
use vmxdef::field::*;
use x86def::cr;
use x86def::vector;

const RUN_VP: u32 = _IOR::<mshv_run_vp>(MSHV_IOCTL, 0);

/// A VP.
#[pin_data]
pub(crate) struct Vp {
    pub(crate) index: u32,
    /// What other threads may touch.
    pub(crate) shared: VpShared,
    /// Its counters.
    pub(crate) stats: VpStats,
    machine: Arc<Machine>,
    _vpid: Vpid,
    partition_id: u64,
    /// The VMM maps this page: it is kept current.
    register_page: Pages,
    register_page_mapped: AtomicBool,
    /// The VMM maps this page, too: the last message.
    message_page: Pages,
    /// The thread that ran the VP last.
    #[pin]
    thread: SpinLock<Option<Thread>>,
    #[pin]
    own: InterruptibleMutex<Own>,
}

/// What the VP's thread alone has.
struct Own {
    /// What the CPU holds between windows.
    vmcs: Vmcs,
    core: VpCore,
}

impl Vp {
    /// A VP after RESET; all but VP 0 wait for a start-up IPI.
    pub(crate) fn new(
        partition: &Partition,
        config: &Config,
        overrides: Option<&Overrides>,
        index: u32,
    ) -> Result<Pin<KBox<Self>>> {
        let machine = &partition.machine;
        let lapic = Lapic::new(PageBox::zeroed()?, index, index == 0, config.lapic);
        let shared = VpShared::new(lapic.view())?;
        let vpid = Vpid::alloc(machine.clone())?;
        let stats = VpStats::new()?;
        let tsc = config.time.state();
        let mut core = VpCore::new(machine, lapic, vpid.number, tsc, stats.clone())?;
        // Without local APICs in the module, which VP runs is the VMM's affair.
        if index != 0 && config.lapic.present {
            core.activity = Activity::WaitForSipi;
            shared.start.wait();
        }
        if let Some(overrides) = overrides {
            core.cpuid_overrides
                .insert(PageBox::zeroed()?)
                .copy_from(overrides);
        }
        KBox::pin_init(
            try_pin_init!(Self {
                index,
                shared,
                stats,
                machine: machine.clone(),
                _vpid: vpid,
                partition_id: partition.summary.id,
                register_page: Pages::new(0)?,
                register_page_mapped: AtomicBool::new(false),
                message_page: Pages::new(0)?,
                thread <- new_spinlock!(None),
                own <- InterruptibleMutex::new(
                    Own { vmcs: Vmcs::new(&machine.root.caps)?, core },
                    c"Vp::own",
                    kernel::static_lock_class!(),
                ),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// RUN_VP: until there is a message for the VMM.
    ///
    /// # Errors
    ///
    /// EINTR on a signal, also on one that the thread handled since it ran the VP last: a VMM that
    /// is asked to stop by signals cannot lose one on its way here. EIO for another process than the partition's creator; EINVAL before
    /// INITIALIZE_PARTITION.
    fn run(&self, partition: &Partition, arg: usize) -> Result {
        partition.check_creator()?;
        let config = partition.config()?;
        let mut guard = self.own.lock()?;
        let own = &mut *guard;
        let signals = signals::handled_by_current();
        let unseen = ::core::mem::replace(&mut own.core.signals_handled, signals) != signals;
        if own.core.thread != ThreadId::current() {
            let last = self.thread.lock().replace(Thread::current());
            drop(last);
            own.core.thread = ThreadId::current();
        } else if unseen {
            return Err(EINTR);
        }
        self.shared.set_run(true);
        let done = self.run_until_message(partition, config, own, arg);
        self.shared.set_run(false);
        done
    }

    fn run_until_message(
        &self,
        partition: &Partition,
        config: &Config,
        own: &mut Own,
        arg: usize,
    ) -> Result {
        own.core.intercepted = false;
        config.time.note_run();
        let mut message = Message::new();
        let mut page_is_new = self.register_page_is_dirty();
        loop {
            window::handle_work()?;
            let take_page = ::core::mem::take(&mut page_is_new);
            if take_page {
                registers::page::take_xmm(&self.register_page, &mut own.core);
            }
            let mut capture = None;
            let leave = entry::run(
                self,
                partition,
                config,
                own,
                |r| {
                    if take_page {
                        registers::page::take(&self.register_page, r.core, &r.window.vmcs);
                    }
                    // Filled by an exit that was not the VMM's after all, it is old, too.
                    self.invalidate_page();
                    if let Some(rip) = r.core.vmm_completes.take() {
                        if r.window.vmcs.read(GUEST_RIP) != rip {
                            exits::instruction_done(r.core, &r.window.vmcs);
                        }
                    }
                },
                |r| self.capture(r, &mut capture),
            )?;
            if capture.is_some() && self.fills_register_page(leave) {
                registers::page::fill_xmm(&self.register_page, &own.core);
            }
            if self.dispatch(partition, config, own, leave, &mut capture, &mut message)? {
                break;
            }
        }
        own.core.intercepted = true;
        message.publish(&self.message_page);
        self.stats.count(message.counter());
        user::write_bytes(arg, message.bytes())
    }

    /// Whether the VMM looks at the register page after this.
    fn fills_register_page(&self, leave: Leave) -> bool {
        let told = matches!(
            leave,
            Leave::Io(_)
                | Leave::Cpuid(_)
                | Leave::Msr { .. }
                | Leave::Exception(_)
                | Leave::Hypercall
                | Leave::Memory { .. }
                | Leave::Halt
                | Leave::Deliverable(_)
                | Leave::SintsDeliverable(_)
        );
        told && self.register_page_mapped.load(Ordering::Relaxed)
    }

    /// What the cold tier needs of the VMCS, which it does not have.
    fn capture(&self, r: &mut Running<'_>, capture: &mut Option<message::Capture>) {
        let wanted = match r.leave {
            Leave::Memory { gpa, .. } => !r.core.ram.contains(&gpa),
            Leave::Halt => !r.partition.has_lapic,
            Leave::Io(_)
            | Leave::Cpuid(_)
            | Leave::Msr { .. }
            | Leave::Exception(_)
            | Leave::Hypercall
            | Leave::Deliverable(_)
            | Leave::SintsDeliverable(_)
            | Leave::TripleFault
            | Leave::Stopped
            | Leave::Unhandled(..)
            | Leave::EntryFailed { .. } => true,
            _ => false,
        };
        if wanted {
            let fill = self.fills_register_page(r.leave);
            self.capture_from(r.core, &r.window.vmcs, r.code.as_ref(), fill, capture);
        }
    }

    fn capture_from(
        &self,
        core: &VpCore,
        vmcs: &CurrentVmcs<'_>,
        code: Option<&gva::Code>,
        fill: bool,
        capture: &mut Option<message::Capture>,
    ) {
        let capture = capture.insert(message::Capture::new(core, vmcs, code));
        if fill {
            registers::page::fill(&self.register_page, core, vmcs, capture);
        }
    }

    /// [`Self::capture`] after the window.
    fn capture_late(
        &self,
        own: &mut Own,
        partition: &Partition,
        capture: &mut Option<message::Capture>,
    ) -> Result {
        own.core.ram = 0..0;
        let fill = self.register_page_mapped.load(Ordering::Relaxed);
        self.with_vmcs_of(own, partition, |core, vmcs| {
            self.capture_from(core, vmcs, None, fill, capture);
        })?;
        if fill {
            registers::page::fill_xmm(&self.register_page, &own.core);
        }
        Ok(())
    }

    /// Deals with the reason why the guest was left. True: `message` is for the VMM.
    fn dispatch(
        &self,
        partition: &Partition,
        config: &Config,
        own: &mut Own,
        leave: Leave,
        capture: &mut Option<message::Capture>,
        message: &mut Message,
    ) -> Result<bool> {
        let core = &mut own.core;
        match leave {
            Leave::Host => Ok(false),
            // The window went on with these.
            Leave::Again | Leave::ControlRegister | Leave::DebugRegister => Ok(false),
            Leave::Yield => {
                spin::yield_to_another(partition, self.index);
                Ok(false)
            }
            // Whatever ends it comes from the VMM.
            Leave::Halt if !partition.has_lapic => {
                core.activity = Activity::Running;
                message.halt(self.index, capture.as_ref());
                Ok(true)
            }
            Leave::Halt => {
                let monitors = partition.monitors.due() != u64::MAX;
                if monitors {
                    core.watch_monitors(partition.monitors_due_in_sleep());
                }
                let ended = self.shared.block(self.timeout_ns(core));
                if monitors {
                    core.watch_monitors(partition.monitors.due());
                }
                ended?;
                Ok(false)
            }
            Leave::Monitors => {
                core.watch_monitors(partition.look_at_monitors(rdtsc()));
                Ok(false)
            }
            Leave::Deliverable(kind) => {
                core.notifications = core.notifications.without(kind);
                core.check_events = true;
                message.deliverable(self.index, capture.as_ref(), kind);
                Ok(true)
            }
            Leave::SintsDeliverable(sints) => {
                core.notifications = core.notifications.without_sints(sints);
                message.sints_deliverable(self.index, capture.as_ref(), sints);
                Ok(true)
            }
            Leave::Frozen => {
                self.shared.block(u64::MAX)?;
                Ok(false)
            }
            Leave::Eoi(vector) => {
                if partition.resample(vector) {
                    return Ok(false);
                }
                message.apic_eoi(self.index, vector);
                Ok(true)
            }
            Leave::ReadMsr(msr) => {
                let env = Env::new(core, config);
                match partition.read_msr(msr, Origin::Guest, &env) {
                    Ok(value) => {
                        core.gprs[self::core::RAX] = u64::from(value as u32);
                        core.gprs[self::core::RDX] = value >> 32;
                        core.deferred = Deferred::Advance;
                    }
                    Err(_) => core.deferred = Deferred::Exception(vector::GP),
                }
                Ok(false)
            }
            Leave::WriteMsr(msr, value) => {
                core.deferred = match partition.write_msr(msr, value, Origin::Guest) {
                    Ok(Written::Done) => Deferred::Advance,
                    Ok(Written::Reset) => {
                        core.activity = Activity::Shutdown;
                        self.capture_late(own, partition, capture)?;
                        message.reset(self.index, capture.as_ref());
                        return Ok(true);
                    }
                    Err(_) => Deferred::Exception(vector::GP),
                };
                Ok(false)
            }
            Leave::Overlay(kind, gpn) => {
                core.place_overlay(partition, &self.shared, kind, gpn);
                core.deferred = Deferred::Advance;
                Ok(false)
            }
            Leave::Reset => {
                core.reset_synthetic(partition, &self.shared, self.index);
                if ::core::mem::take(&mut core.partition_reset_due) {
                    partition.reset_synthetic();
                }
                if ::core::mem::take(&mut core.lapic_reset_due) {
                    core.reset_lapic(&self.shared);
                }
                Ok(false)
            }
            Leave::Messages => {
                partition.deliver_messages(&self.shared);
                Ok(false)
            }
            Leave::Call(row, convention) => {
                match hypercall::call(self, partition, config, own, row, convention)? {
                    hypercall::Called::Done | hypercall::Called::Again => Ok(false),
                    hypercall::Called::Intercepted => {
                        self.capture_late(own, partition, capture)?;
                        let core = &mut own.core;
                        let Some(capture) = capture else {
                            return Err(EIO);
                        };
                        core.vmm_completes = Some(capture.context.rip);
                        let xmm = registers::xmm_0_to_5(core);
                        message.hypercall(self.index, capture, &core.gprs, xmm);
                        Ok(true)
                    }
                    hypercall::Called::Unreachable(leave) => {
                        self.dispatch(partition, config, own, leave, capture, message)
                    }
                }
            }
            Leave::Memory {
                gpa,
                gla,
                qualification,
            } => {
                let access = if qualification.fetch() {
                    Access::Execute
                } else if qualification.write() {
                    Access::Write
                } else {
                    Access::Read
                };
                let outcome = if io::is_apic_page(core, gpa) {
                    // Not decoded: whatever memory is there, the guest has the page in front of it.
                    Resolved::Unmapped
                } else {
                    partition.memory.resolve(gpa, access, &mut core.ram)?
                };
                if outcome == Resolved::Mapped {
                    return Ok(false);
                }
                // `core.ram` promised memory.
                if capture.is_none() {
                    self.capture_late(own, partition, capture)?;
                }
                let core = &mut own.core;
                let Some(capture) = capture else {
                    return Err(EIO);
                };
                if outcome == Resolved::Denied {
                    if let Some(vector) = partition.overlay_fault(gpa >> 12) {
                        core.deferred = if qualification.gla_translated() {
                            Deferred::Exception(vector)
                        } else {
                            // A paging structure that the CPU cannot mark as used translates nothing (F-OV8).
                            let user = u32::from(capture.cpl() == 3) << 2;
                            Deferred::PageFault { gla, code: user }
                        };
                        return Ok(false);
                    }
                }
                let gla = qualification
                    .gla_valid()
                    .then_some((gla, qualification.gla_translated()));
                let bytes = gva::fetch(partition, capture);
                core.vmm_completes = Some(capture.context.rip);
                message.memory(self.index, capture, outcome, access, gpa, gla, &bytes);
                Ok(true)
            }
            Leave::Cpuid(result) => {
                let Some(capture) = capture else {
                    return Err(EIO);
                };
                core.vmm_completes = Some(capture.context.rip);
                message.cpuid(self.index, capture, &core.gprs, result);
                Ok(true)
            }
            Leave::Msr { number, write } => {
                let Some(capture) = capture else {
                    return Err(EIO);
                };
                core.vmm_completes = Some(capture.context.rip);
                if write && number == HV_X64_MSR_CRASH_CTL {
                    // The host's log hears of a crash whoever else does (F-CR1).
                    let [rax, rdx] = [core.gprs[self::core::RAX], core.gprs[self::core::RDX]];
                    let value = rdx << 32 | u64::from(rax as u32);
                    let _ = partition.write_msr(number, value, Origin::Guest);
                }
                message.msr(self.index, capture, &core.gprs, number, write);
                Ok(true)
            }
            Leave::Exception(exception) => {
                let Some(capture) = capture else {
                    return Err(EIO);
                };
                let bytes = gva::fetch(partition, capture);
                message.exception(self.index, capture, &core.gprs, exception, &bytes);
                Ok(true)
            }
            Leave::Hypercall => {
                let Some(capture) = capture else {
                    return Err(EIO);
                };
                core.vmm_completes = Some(capture.context.rip);
                let xmm = registers::xmm_0_to_5(core);
                message.hypercall(self.index, capture, &core.gprs, xmm);
                Ok(true)
            }
            Leave::Io(qualification) => {
                let Some(capture) = capture else {
                    return Err(EIO);
                };
                let access = vmxdef::exit::IoAccess(qualification);
                let bytes = if access.is_string() {
                    gva::fetch(partition, capture)
                } else {
                    gva::Bytes::NONE
                };
                core.vmm_completes = Some(capture.context.rip);
                message.io_port(self.index, capture, &core.gprs, access, &bytes);
                Ok(true)
            }
            Leave::Stopped => {
                message.unrecoverable(self.index, capture.as_ref());
                Ok(true)
            }
            Leave::TripleFault => {
                self.stop(core, capture, message, c"triple fault", 0, 0);
                Ok(true)
            }
            Leave::Unhandled(reason, detail) => {
                self.stop(
                    core,
                    capture,
                    message,
                    c"VM exit that hvrs cannot handle: reason, detail",
                    u64::from(reason.0),
                    detail,
                );
                Ok(true)
            }
            Leave::EntryFailed {
                code,
                qualification,
            } => {
                self.stop(
                    core,
                    capture,
                    message,
                    c"VM entry failed: reason, detail",
                    u64::from(code),
                    qualification,
                );
                if ExitReason(code as u16) == ExitReason::INVALID_GUEST_STATE {
                    message.invalid_register(self.index);
                }
                Ok(true)
            }
        }
    }

    /// The guest stopped itself: a line in the log, a message for the VMM.
    fn stop(
        &self,
        core: &mut VpCore,
        capture: &Option<message::Capture>,
        message: &mut Message,
        why: &'static CStr,
        a: u64,
        b: u64,
    ) {
        core.activity = Activity::Shutdown;
        host::log_guest(why, self.partition_id, self.index, a, b);
        message.unrecoverable(self.index, capture.as_ref());
    }

    /// Gives this CPU to the VP's thread, if it waits for one.
    pub(crate) fn yield_to(&self) -> bool {
        let thread = self.thread.lock().clone();
        thread.is_some_and(|thread| thread.yield_to())
    }

    /// How long a halted VP may sleep: until a timer of its is due.
    fn timeout_ns(&self, core: &VpCore) -> u64 {
        let sleeps = matches!(core.activity, Activity::Halted | Activity::Idle);
        if core.timer_tsc == u64::MAX || !sleeps {
            return u64::MAX;
        }
        let ticks = core.timer_tsc.saturating_sub(rdtsc());
        let khz = u64::from(host::tsc_khz());
        (ticks / khz).saturating_mul(1_000_000) + (ticks % khz) * 1_000_000 / khz
    }

    /// Runs `f` with the VP's VMCS current, between runs.
    ///
    /// # Errors
    ///
    /// EINTR: a signal, while the VP ran; EINVAL before INITIALIZE_PARTITION; EIO.
    pub(crate) fn with_vmcs<R>(
        &self,
        partition: &Partition,
        f: impl FnOnce(&mut VpCore, &CurrentVmcs<'_>) -> R,
    ) -> Result<R> {
        let mut own = self.own.lock()?;
        if !self.register_page_mapped.load(Ordering::Relaxed) {
            return self.with_vmcs_of(&mut own, partition, f);
        }
        let page = &self.register_page;
        // What the VMM has written to its page came before.
        let dirty = registers::page::is_dirty(page);
        if dirty {
            registers::page::take_xmm(page, &mut own.core);
        }
        self.with_vmcs_of(&mut own, partition, |core, vmcs| {
            if dirty {
                registers::page::take(page, core, vmcs);
            }
            let r = f(core, vmcs);
            let stale = ::core::mem::replace(&mut core.register_page_stale, Stale::No);
            registers::page::refill(page, core, vmcs, stale);
            r
        })
    }

    /// Takes over what the VMM has written to the register page.
    fn take_page(&self, partition: &Partition) -> Result {
        if self.register_page_is_dirty() {
            self.with_vmcs(partition, |_, _| ())?;
        }
        Ok(())
    }

    fn register_page_is_dirty(&self) -> bool {
        self.register_page_mapped.load(Ordering::Relaxed)
            && registers::page::is_dirty(&self.register_page)
    }

    /// The VMM changes the VP's state without the register page.
    pub(crate) fn invalidate_page(&self) {
        registers::page::invalidate(&self.register_page);
    }

    fn with_vmcs_of<R>(
        &self,
        Own { vmcs, core }: &mut Own,
        partition: &Partition,
        f: impl FnOnce(&mut VpCore, &CurrentVmcs<'_>) -> R,
    ) -> Result<R> {
        let config = partition.config()?;
        self.machine.root.with_vmcs(vmcs, |current| {
            if !core.vmcs_ready {
                setup::initialize(current, core, &self.machine, partition, config);
            }
            core.follow(&config.time);
            // A signal may have come between an instruction's completion and the next entry.
            exits::finish(core, current);
            let r = f(core, current);
            // Senders of interrupts must know what the VMM may have changed.
            self.shared.set_destination(core.lapic.view());
            match core.activity {
                Activity::WaitForSipi => self.shared.start.wait(),
                _ => self.shared.start.run(),
            }
            r
        })
    }
}

impl Vp {
    /// HvCallTranslateVirtualAddress: the guest-physical address, or why there is none.
    pub(crate) fn translate(
        &self,
        partition: &Partition,
        gva: u64,
        flags: u64,
    ) -> Result<::core::result::Result<u64, gva::NoTranslation>> {
        let capture = self.with_vmcs(partition, |core, vmcs| {
            message::Capture::new(core, vmcs, None)
        })?;
        gva::translate::translate(partition, &capture, gva, flags)
    }

    /// Runs `f` on the VP's state, between runs.
    pub(crate) fn with_core<R>(&self, f: impl FnOnce(&mut VpCore) -> R) -> Result<R> {
        Ok(f(&mut self.own.lock()?.core))
    }
}

/// What of the VP's state CPUID depends on.
#[inline(always)]
pub(crate) fn cpuid_input(
    core: &VpCore,
    vmcs: &CurrentVmcs<'_>,
    partition: &Partition,
    config: &Config,
) -> VpCpuidInput {
    let cr4 = vmcs.read(GUEST_CR4);
    VpCpuidInput {
        apic_id: core.lapic.apic_id(),
        vp_count: partition.vps_of_package(),
        cr4_osxsave: cr4 & cr::CR4_OSXSAVE != 0,
        cr4_pke: cr4 & cr::CR4_PKE != 0,
        xcr0: core.guest.xcr0,
        apic_enabled: core.lapic.is_enabled(),
        mode_64_bit: true,
        tsc_invariant: partition.shows_invariant_tsc(config),
    }
}

/// An open VP.
pub(crate) struct VpFile {
    partition: Arc<Partition>,
    index: u32,
}

impl VpFile {
    /// The file of VP `index`.
    pub(crate) fn new(partition: Arc<Partition>, index: u32) -> Self {
        Self { partition, index }
    }

    fn vp(&self) -> Result<&Vp> {
        self.partition.vp(self.index).ok_or(EIO)
    }
}

impl FileOps for VpFile {
    const NAME: &'static CStr = c"mshv_vp";
    const HAS_MMAP: bool = true;

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        let vp = this.vp()?;
        match cmd {
            RUN_VP => vp.run(&this.partition, arg).map(|()| 0),
            state::GET_VP_STATE => {
                vp.take_page(&this.partition)?;
                state::get(&this.partition, vp, arg).map(|()| 0)
            }
            state::SET_VP_STATE => {
                vp.take_page(&this.partition)?;
                vp.invalidate_page();
                state::set(&this.partition, vp, arg).map(|()| 0)
            }
            ROOT_HVCALL => hvcall::on_vp(&this.partition, vp, arg),
            _ => Err(ENOTTY),
        }
    }

    fn mmap(this: ArcBorrow<'_, Self>, vma: &Vma, offset: usize) -> Result {
        let vp = this.vp()?;
        match u32::try_from(offset) {
            Ok(MSHV_VP_MMAP_OFFSET_REGISTERS) => {
                vma.insert(&vp.register_page)?;
                vp.register_page_mapped.store(true, Ordering::Relaxed);
                // Not waiting: the caller holds mmap_lock, which the thread that runs the VP
                // may want. That thread fills the page at the next intercept.
                if let Some(mut own) = vp.own.try_lock() {
                    vp.with_vmcs_of(&mut own, &this.partition, |core, vmcs| {
                        registers::page::refill(&vp.register_page, core, vmcs, Stale::All);
                    })?;
                }
                Ok(())
            }
            Ok(MSHV_VP_MMAP_OFFSET_INTERCEPT_MESSAGE) => vma.insert(&vp.message_page),
            // There is one in isolated partitions only.
            Ok(MSHV_VP_MMAP_OFFSET_GHCB) => Err(ENODEV),
            _ => Err(EINVAL),
        }
    }
}
