// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The local APIC of a virtual processor, as a state machine without clock, locks or hardware
//! (SDM Vol. 3, chapter 11, "Advanced Programmable Interrupt Controller (APIC)").
//!
//! [`Lapic`] belongs to the thread that runs the virtual processor. Others reach it through what
//! that thread publishes and harvests: a [`DestinationView`] tells senders whether a message is
//! for it, and vectors they post come in by [`Lapic::merge_irr`].
//!
//! What a register access means outside the APIC comes back as an [`Effect`]. Time is the guest's
//! TSC, handed in as `now_tsc`; [`Lapic::timer_deadline`] says when [`Lapic::timer_expire`] is due.
//!
//! The registers live in an [`ApicPage`] of hardware's layout, which may be the virtual-APIC page
//! of VMX: a TPR shadow and APIC-register virtualization need nothing more; after an exit with
//! virtual-interrupt delivery on, [`Lapic::sync_from_page`] is due.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

#[cfg(test)]
extern crate std;

mod base;
mod destination;
mod icr;
mod irr;
mod lvt;
mod mmio;
mod msi;
mod msr;
mod page;
mod ratio;
pub mod regs;
mod state;
mod timer;

use core::ops::DerefMut;

pub use base::Mode;
pub use destination::{x2apic_ldr, Destination, DestinationView};
pub use icr::{DeliveryMode, Icr, Shorthand, Trigger};
pub use irr::Eoi;
pub use lvt::{LvtDelivery, LvtSource};
pub use msi::Msi;
pub use page::ApicPage;
pub use timer::TimerMode;

use timer::Timer;

/// The access raises #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// What is fixed for the life of a local APIC.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Frequency of the guest's TSC.
    pub tsc_khz: u32,
    /// Frequency of the timer's clock before the divider: `HV_X64_MSR_APIC_FREQUENCY`. At least
    /// 1,024,000 is used.
    pub apic_hz: u32,
    /// The guest's CPUID shows x2APIC.
    pub x2apic_available: bool,
    /// The guest's CPUID shows TSC-deadline mode.
    pub tsc_deadline_available: bool,
    /// Physical-address width that the guest's CPUID shows.
    pub maxphyaddr: u8,
    /// There is a local APIC at all. Without one, `IA32_APIC_BASE` is only kept, and the TPR is CR8.
    pub present: bool,
}

/// What the caller has to do after an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Deliver this message. The sender itself may be among the targets.
    SendIpi(Icr),
    /// An interrupt ended: tell the IOAPICs if it was level-triggered; a lower one may be pending.
    Eoi(Eoi),
    /// Look at [`Lapic::pending`] again: the IRR grew or the TPR changed.
    InterruptPending,
    /// Look at [`Lapic::timer_deadline`] and [`Lapic::pending`] again.
    TimerChanged,
    /// Publish [`Lapic::view`] again; as the APIC may have been software-disabled, also look at
    /// [`Lapic::timer_deadline`] again.
    DestinationChanged,
    /// `IA32_APIC_BASE` changed: [`Lapic::base`], [`Lapic::mode`] and all the above are new.
    BaseChanged,
}

/// A local APIC.
///
/// # Invariants
///
/// * A word of IRR or ISR is non-zero only if its bit in `irr_words` or `isr_words` is set.
/// * `software_enabled` is the bit of the SVR, and false in [`Mode::Disabled`].
#[derive(Debug)]
pub struct Lapic<P> {
    page: P,
    /// Which words of the IRR are not zero.
    irr_words: u8,
    /// Which words of the ISR are not zero.
    isr_words: u8,
    software_enabled: bool,
    mode: Mode,
    /// The next error raises the error interrupt.
    error_armed: bool,
    /// Errors gathered since the last write of the ESR.
    errors: u32,
    apic_id: u32,
    apic_base: u64,
    timer: Timer,
    config: Config,
}

impl<P: DerefMut<Target = ApicPage>> Lapic<P> {
    /// A local APIC after RESET, with its registers in `page`.
    pub fn new(page: P, apic_id: u32, is_bsp: bool, config: Config) -> Self {
        let mut lapic = Self {
            page,
            irr_words: 0,
            isr_words: 0,
            software_enabled: false,
            mode: Mode::XApic,
            error_armed: true,
            errors: 0,
            apic_id,
            apic_base: if is_bsp { regs::BASE_BSP } else { 0 },
            timer: Timer::new(&config),
            config,
        };
        lapic.reset();
        lapic
    }

    /// Power-up or RESET (SDM 11.4.7.1): xAPIC mode at the default address.
    pub fn reset(&mut self) {
        let bsp = self.apic_base & regs::BASE_BSP;
        self.apic_base = regs::DEFAULT_BASE | regs::BASE_EN | bsp;
        self.mode = if self.config.present {
            Mode::XApic
        } else {
            Mode::Disabled
        };
        self.page.set(regs::TPR, 0);
        self.reset_registers();
    }

    /// INIT (SDM 11.4.7.3): as RESET, but `IA32_APIC_BASE` and with it the mode stay.
    pub fn init(&mut self) {
        self.reset_registers();
    }

    /// All registers but `IA32_APIC_BASE` as after RESET.
    fn reset_registers(&mut self) {
        for offset in [
            regs::TPR,
            regs::APR,
            regs::PPR,
            regs::EOI,
            regs::RRD,
            regs::LDR,
            regs::ESR,
            regs::ICR_LOW,
            regs::ICR_LOW + 4,
            regs::ICR_HIGH,
            regs::TIMER_ICR,
            regs::TIMER_CCR,
            regs::TIMER_DCR,
        ] {
            self.page.set(offset, 0);
        }
        for base in [regs::ISR, regs::TMR, regs::IRR] {
            self.page.clear(base);
        }
        for offset in regs::LVTS {
            self.page.set(offset, regs::LVT_MASKED);
        }
        self.page.set(regs::VERSION, regs::VERSION_VALUE);
        self.page.set(regs::DFR, u32::MAX);
        self.page.set(regs::SVR, 0xFF);
        self.publish_ids();
        self.irr_words = 0;
        self.isr_words = 0;
        self.software_enabled = false;
        self.errors = 0;
        self.error_armed = true;
        self.timer.reset();
    }

    /// The APIC ID.
    #[inline]
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    /// Gives the APIC another ID, before the processor first runs.
    pub fn set_apic_id(&mut self, apic_id: u32) {
        self.apic_id = apic_id;
        self.publish_ids();
    }

    /// Enabled in `IA32_APIC_BASE` and in the SVR.
    #[inline]
    pub fn is_software_enabled(&self) -> bool {
        self.software_enabled
    }

    /// The bootstrap processor's.
    #[inline]
    pub fn is_bsp(&self) -> bool {
        self.apic_base & regs::BASE_BSP != 0
    }

    /// What senders have to know now.
    pub fn view(&self) -> DestinationView {
        match self.mode {
            Mode::Disabled => DestinationView::disabled(self.apic_id),
            Mode::XApic => DestinationView::xapic(
                self.apic_id,
                self.page.get(regs::LDR),
                self.page.get(regs::DFR),
                self.software_enabled,
            ),
            Mode::X2Apic => DestinationView::x2apic(self.apic_id, self.software_enabled),
        }
    }

    /// Whether a message of `mode` to `destination` is for this APIC in its present state.
    pub fn matches_destination(&self, destination: Destination, mode: DeliveryMode) -> bool {
        self.view().accepts(destination, mode)
    }

    /// The page of the registers, for instance to tell VMX its address.
    #[inline]
    pub fn page(&self) -> &P {
        &self.page
    }

    /// The page, to do in it what a processor does by APIC-register virtualization and
    /// virtual-interrupt delivery; [`Self::sync_from_page`] or [`Self::apic_write_exit`] is due.
    #[inline]
    pub fn page_mut(&mut self) -> &mut P {
        &mut self.page
    }
}
