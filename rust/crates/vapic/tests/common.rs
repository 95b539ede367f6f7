// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the tests share.

use vapic::{regs, ApicPage, Config, Effect, Lapic};

pub type TestApic = Lapic<Box<ApicPage>>;

/// 10 TSC ticks to a tick of the timer's clock.
pub const CONFIG: Config = Config {
    tsc_khz: 2_000_000,
    apic_hz: 200_000_000,
    x2apic_available: true,
    tsc_deadline_available: true,
    maxphyaddr: 46,
    present: true,
};

pub const XAPIC_BASE: u64 = regs::DEFAULT_BASE | regs::BASE_EN;
pub const X2APIC_BASE: u64 = XAPIC_BASE | regs::BASE_EXTD;

/// After RESET.
pub fn fresh(apic_id: u32) -> TestApic {
    Lapic::new(Box::new(ApicPage::new()), apic_id, apic_id == 0, CONFIG)
}

/// xAPIC mode, software-enabled.
pub fn xapic(apic_id: u32) -> TestApic {
    let mut apic = fresh(apic_id);
    write(&mut apic, regs::SVR, 0x1FF);
    apic
}

/// x2APIC mode, software-enabled.
pub fn x2apic(apic_id: u32) -> TestApic {
    let mut apic = xapic(apic_id);
    apic.write_apic_base(X2APIC_BASE).unwrap();
    apic
}

/// A 32-bit store to the xAPIC page at TSC 0.
pub fn write(apic: &mut TestApic, offset: u16, value: u32) -> Effect {
    apic.mmio_write(offset, 4, value, 0)
}

/// A 32-bit load from the xAPIC page at TSC 0.
pub fn read(apic: &mut TestApic, offset: u16) -> u32 {
    apic.mmio_read(offset, 4, 0) as u32
}

/// The x2APIC MSR of the register at `offset`.
pub fn msr(offset: u16) -> u32 {
    regs::MSR_X2APIC_FIRST + u32::from(offset >> 4)
}

/// The errors of a fresh write of the ESR.
pub fn esr(apic: &mut TestApic) -> u32 {
    write(apic, regs::ESR, 0);
    read(apic, regs::ESR)
}

/// xorshift64*: the same sequence on each run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}
