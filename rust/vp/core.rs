// SPDX-License-Identifier: GPL-2.0

//! The state of a VP that its thread alone changes.

use super::registers::Stale;
use super::shared::VpShared;
use crate::machine::Machine;
use crate::partition::clock::{Clock, TscState};
use crate::partition::space::NoMemory;
use crate::stats::VpStats;
use crate::sys::pages::{PageBox, Pages};
use crate::sys::thread::ThreadId;
use crate::vmx::host_state::{GuestMsrs, GuestState, SpecCtrl};
use crate::vmx::insn::rdtsc;
use crate::vmx::insn::xsave::XsaveArea;
use core::ops::Range;
use cpumodel::msr::MTRR_SLOTS;
use cpumodel::Overrides;
use ept::Placement;
use hvdef::HvDeliverabilityNotifications as Notifications;
use kernel::error::Result;
use vapic::{ApicPage, Lapic};
use vmxdef::events::IntrInfo;
use x86def::cr;

/// Number of RAX in `gprs`; the rest is in the processor's order.
pub(crate) const RAX: usize = 0;
pub(crate) const RCX: usize = 1;
pub(crate) const RDX: usize = 2;
pub(crate) const RBX: usize = 3;
pub(crate) const RSP: usize = 4;
pub(crate) const RSI: usize = 6;
pub(crate) const RDI: usize = 7;
pub(crate) const R8: usize = 8;

/// What a VP does when it does not execute instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Activity {
    /// It executes.
    Running,
    /// After HLT, until an interrupt.
    Halted,
    /// After a read of HV_X64_MSR_GUEST_IDLE, until an interrupt, taken or not.
    Idle,
    /// After INIT, until a start-up IPI.
    WaitForSipi,
    /// After a triple fault, until INIT or reset.
    Shutdown,
}

/// An event to inject at the next entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) info: IntrInfo,
    pub(crate) error_code: u32,
    pub(crate) instruction_length: u32,
}

/// What must be done to the VMCS before the next entry, decided while it was not current.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deferred {
    Nothing,
    /// Go on behind the intercepted instruction.
    Advance,
    /// An exception; its error code, if it has one, is 0.
    Exception(u8),
    /// #PF at `gla`, with this error code.
    PageFault {
        gla: u64,
        code: u32,
    },
}

/// A VP's state.
#[repr(C)]
pub(crate) struct VpCore {
    /// General registers in the processor's order; RSP is in the VMCS. RBP and R12 to R15 are here only while the inner
    /// loop does not run.
    pub(crate) gprs: [u64; 16],
    /// The VMCS has its constant fields.
    pub(crate) vmcs_ready: bool,
    pub(crate) activity: Activity,
    /// The event that the next entry injects.
    pub(crate) injection: Option<Injection>,
    pub(crate) nmi_pending: bool,
    pub(crate) extint_pending: Option<u8>,
    /// Of what the VMM wants to be told: HV_X64_REGISTER_DELIVERABILITY_NOTIFICATIONS.
    pub(crate) notifications: Notifications,
    /// PLE_WINDOW of the VMCS.
    pub(super) ple_window: u32,
    /// A single-step trap is pending: it comes before interrupts (SDM 7.9).
    pub(crate) trap_pending: bool,
    /// RIP of an instruction that the VMM was asked to complete.
    pub(crate) vmm_completes: Option<u64>,
    /// The thread that ran the VP last, as in [`super::Vp`].
    pub(crate) thread: ThreadId,
    /// Signals that it had handled then, see [`crate::sys::signals`].
    pub(crate) signals_handled: u32,
    /// What the VMM has set by names, and the register page does not have yet.
    pub(super) register_page_stale: Stale,
    /// The VMM has the VP's message and has not run it since.
    pub(crate) intercepted: bool,
    /// What NPIEP forbids may differ from what the VMCS's controls say.
    pub(crate) npiep_changed: bool,
    /// Registers were reset, and the synthetic ones have to be, too.
    pub(crate) synthetic_reset_due: bool,
    /// So are the partition's: its VMM resets it.
    pub(super) partition_reset_due: bool,
    /// So is the local APIC, unless the VMM stores it.
    pub(super) lapic_reset_due: bool,
    /// INIT and SIPI that were taken but not yet acted on: bits of `shared::event`.
    pub(crate) signals: u32,
    /// Something may have to be injected: look before the next entry.
    pub(crate) check_events: bool,
    pub(crate) deferred: Deferred,
    /// The VMM intercepts something that exits in any case.
    pub(crate) intercepts: bool,
    /// Controls as they are in the VMCS.
    pub(crate) primary: u32,
    pub(crate) tpr_threshold: u32,
    pub(crate) exception_bitmap: u32,
    pub(crate) guest: GuestState,
    pub(crate) spec_ctrl: SpecCtrl,
    /// Synthetic MSRs of the VP's own.
    pub(crate) synthetic: hv1::msr::VpState,
    /// The VP assist page.
    pub(crate) assist_page: Pages,
    /// "No EOI required" was set in it.
    pub(super) eoi_offered: bool,
    pub(crate) lapic: Lapic<PageBox<ApicPage>>,
    /// CPUID results that the VMM registered.
    pub(crate) cpuid_overrides: Option<PageBox<Overrides>>,
    /// TSC that the guest reads minus the host's.
    pub(crate) tsc_offset: u64,
    /// The part of it that is the partition's.
    partition_tsc_offset: u64,
    /// Jumps of the partition's TSC that are in it.
    tsc_jumps: u64,
    /// The part of it by which the VMM has set this TSC apart while time stood still.
    tsc_apart: u64,
    /// `tsc_offset` is not yet in the VMCS.
    pub(crate) tsc_moved: bool,
    /// The host's TSC at which the partition's time stopped; 0: it runs.
    time_stopped: u64,
    pub(crate) tsc_adjust: u64,
    /// Memory type range registers: kept for the guest, without effect under EPT.
    pub(crate) mtrrs: [u64; MTRR_SLOTS],
    pub(crate) placement: Placement,
    pub(crate) vpid: u16,
    /// Host TSC ticks inside the guest's windows.
    pub(crate) runtime_ticks: u64,
    /// Host TSC when the LAPIC timer is due; u64::MAX: never.
    lapic_tsc: u64,
    /// Host TSC when the synthetic timers are due; u64::MAX: never.
    pub(super) stimer_tsc: u64,
    /// When the time-unhalted timer is due, in a window.
    pub(super) unhalted_tsc: u64,
    /// Host TSC when the partition's monitor pages are to be looked at; u64::MAX: never.
    pub(super) monitor_tsc: u64,
    /// It is time.
    pub(super) monitors_due: bool,
    /// The earliest of the three.
    pub(crate) timer_tsc: u64,
    /// Host TSC when the open window began; 0: none is open.
    pub(crate) window_tsc: u64,
    /// `timer_tsc` changed: the preemption timer must be set.
    pub(crate) timer_changed: bool,
    /// Counters; each exit is in one of [`hvdef::HvVpCounter::EXITS`].
    pub(crate) stats: VpStats,
    /// Guest-physical addresses of the region that the last EPT violation was in: the next one probably is, too, and
    /// needs nothing of the VMCS. A hint: the region may be gone.
    pub(crate) ram: Range<u64>,
    /// A page where there was nothing the last time.
    pub(super) no_memory: NoMemory,
}

impl VpCore {
    /// State after RESET.
    pub(crate) fn new(
        machine: &Machine,
        lapic: Lapic<PageBox<ApicPage>>,
        vpid: u16,
        tsc: TscState,
        stats: VpStats,
    ) -> Result<Self> {
        let caps = &machine.root.caps;
        let mut core = Self {
            gprs: [0; 16],
            vmcs_ready: false,
            activity: Activity::Running,
            injection: None,
            nmi_pending: false,
            extint_pending: None,
            notifications: Notifications::default(),
            ple_window: 0,
            trap_pending: false,
            vmm_completes: None,
            thread: ThreadId::NONE,
            signals_handled: 0,
            register_page_stale: Stale::No,
            intercepted: false,
            npiep_changed: false,
            synthetic_reset_due: false,
            partition_reset_due: false,
            lapic_reset_due: false,
            signals: 0,
            check_events: true,
            deferred: Deferred::Nothing,
            intercepts: false,
            primary: caps.controls.primary,
            tpr_threshold: 0,
            exception_bitmap: 0,
            guest: GuestState {
                msrs: GuestMsrs::default(),
                xcr0: cr::XCR0_X87,
                cr2: 0,
                dr: [0; 4],
                dr6: cr::DR6_RESET,
                dr_loaded: false,
                xsave: XsaveArea::new()?,
            },
            spec_ctrl: SpecCtrl::new(),
            synthetic: hv1::msr::VpState::new(),
            assist_page: Pages::new(0)?,
            eoi_offered: false,
            lapic,
            cpuid_overrides: None,
            tsc_offset: tsc.offset,
            partition_tsc_offset: tsc.offset,
            tsc_jumps: tsc.jumps,
            tsc_apart: 0,
            tsc_moved: false,
            time_stopped: 0,
            tsc_adjust: 0,
            mtrrs: [0; MTRR_SLOTS],
            placement: Placement::new(),
            vpid,
            runtime_ticks: 0,
            lapic_tsc: u64::MAX,
            stimer_tsc: u64::MAX,
            unhalted_tsc: u64::MAX,
            monitor_tsc: u64::MAX,
            monitors_due: false,
            timer_tsc: u64::MAX,
            window_tsc: 0,
            timer_changed: false,
            stats,
            ram: 0..0,
            no_memory: NoMemory::UNKNOWN,
        };
        core.reset_fpu();
        Ok(core)
    }

    /// x87 and SSE state of a new VP: FCW 0x37f, MXCSR 0x1f80; the rest is 0, which XSTATE_BV says. RESET would leave FCW 0x40
    /// (SDM table 10-1), but VMMs know from Hyper-V that their first code needs no FNINIT.
    pub(crate) fn reset_fpu(&mut self) {
        let area = self.guest.xsave.bytes_mut();
        area.fill(0);
        for (at, byte) in [(0, 0x7f), (1, 3), (24, 0x80), (25, 0x1f), (512, 3)] {
            if let Some(b) = area.get_mut(at) {
                *b = byte;
            }
        }
    }

    /// The guest's TSC at host TSC `tsc`.
    #[inline(always)]
    pub(crate) fn guest_tsc(&self, tsc: u64) -> u64 {
        tsc.wrapping_add(self.tsc_offset)
    }

    /// The host's TSC, which stands still while the partition's time is frozen.
    #[inline(always)]
    pub(crate) fn host_now(&self) -> u64 {
        if self.time_stopped != 0 {
            self.time_stopped
        } else {
            rdtsc()
        }
    }

    /// The guest's TSC.
    #[inline(always)]
    pub(crate) fn guest_now(&self) -> u64 {
        self.guest_tsc(self.host_now())
    }

    /// The partition's TSC at host TSC `tsc`: without what the guest has added for this VP.
    #[inline(always)]
    pub(crate) fn partition_tsc(&self, tsc: u64) -> u64 {
        tsc.wrapping_add(self.partition_tsc_offset)
    }

    /// Moves the VP's TSC alone.
    pub(crate) fn move_tsc(&mut self, delta: u64) {
        self.tsc_offset = self.tsc_offset.wrapping_add(delta);
        self.tsc_moved = true;
        self.lapic.adjust_tsc(delta);
        self.update_timer();
    }

    /// The VMM sets the TSC so much apart from the partition's, until time runs.
    pub(crate) fn set_tsc_apart(&mut self, delta: u64) {
        self.tsc_apart = self.tsc_apart.wrapping_add(delta);
        self.move_tsc(delta);
    }

    /// A VMM that saves VPs' TSCs one after the other, while time goes on, restores a difference that there never was. The guest
    /// itself cannot have made one without a trace in TSC_ADJUST (SDM 18.17.3).
    pub(crate) fn join_tsc(&mut self) {
        let apart = core::mem::take(&mut self.tsc_apart);
        if apart != 0 && self.tsc_adjust == 0 {
            self.move_tsc(apart.wrapping_neg());
        }
    }

    /// Takes over what became of the partition's time; whether it runs.
    #[inline]
    pub(crate) fn follow(&mut self, clock: &Clock) -> bool {
        let state = clock.state();
        self.time_stopped = state.stopped;
        let moved = state.offset.wrapping_sub(self.partition_tsc_offset);
        if moved != 0 {
            self.partition_tsc_offset = state.offset;
            self.tsc_offset = self.tsc_offset.wrapping_add(moved);
            self.tsc_moved = true;
            let jumped = state.jumps.wrapping_sub(self.tsc_jumps);
            self.tsc_jumps = state.jumps;
            self.lapic.adjust_tsc(jumped);
            self.stimer_tsc = 0;
            self.update_timer();
        }
        if state.stopped == 0 {
            self.join_tsc();
        }
        state.stopped == 0
    }

    /// Host TSC ticks in windows up to host TSC `now`.
    #[inline]
    pub(crate) fn runtime_at(&self, now: u64) -> u64 {
        let in_this_window = match self.window_tsc {
            0 => 0,
            begin => now.wrapping_sub(begin),
        };
        self.runtime_ticks.wrapping_add(in_this_window)
    }

    /// Takes over when the LAPIC timer is due.
    #[inline]
    pub(crate) fn update_timer(&mut self) {
        let now = self.host_now();
        self.lapic_tsc = match self.lapic.timer_ticks_left(self.guest_tsc(now)) {
            Some(left) => now.saturating_add(left).min(u64::MAX - 1),
            None => u64::MAX,
        };
        let others = self.stimer_tsc.min(self.monitor_tsc).min(self.unhalted_tsc);
        self.timer_tsc = self.lapic_tsc.min(others);
        self.timer_changed = true;
    }

    /// The monitor pages are to be looked at at host TSC `due`.
    pub(super) fn watch_monitors(&mut self, due: u64) {
        self.monitors_due = false;
        self.monitor_tsc = due;
        self.update_timer();
    }

    /// The LAPIC timer and the synthetic timers, if they are due at host TSC `now`.
    #[inline]
    pub(super) fn run_timers(&mut self, now: u64, time: &Clock, shared: &VpShared) {
        if now < self.timer_tsc {
            return;
        }
        if now >= self.stimer_tsc {
            self.run_stimers(now, time, shared);
        }
        if now >= self.unhalted_tsc {
            self.run_unhalted_timer(now, time);
        }
        if now >= self.monitor_tsc {
            self.monitors_due = true;
            self.monitor_tsc = u64::MAX;
        }
        if now >= self.lapic_tsc {
            let guest_now = self.guest_tsc(now);
            let _ = self.lapic.timer_expire(guest_now);
        }
        self.update_timer();
        self.check_events = true;
    }
}
