// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The local APIC, first as an xAPIC, then as an x2APIC (SDM 3A chapter 12).
#![no_std]
#![no_main]

mod deadline;
mod delivery;
mod errors;
mod registers;
mod timer;
mod x2apic;
mod xapic;

use guest::apic::{self, Mode};
use guest::{cpu, cpuid, image, test, Verdict};

/// Runs `test` with the APIC in `mode` and everything masked.
fn in_mode(mode: Mode, test: fn() -> Verdict) -> Verdict {
    if mode == Mode::X2apic && !cpuid::X2APIC.present() {
        return Verdict::Skip("no x2APIC");
    }
    apic::init();
    if apic::is_x2apic() != (mode == Mode::X2apic) {
        apic::set_mode(mode);
        apic::init();
    }
    cpu::set_cr8(0);
    test()
}

/// A row that runs in xAPIC mode.
macro_rules! x {
    ($name:ident, $ids:literal, $run:path) => {
        test!($name, $ids, || in_mode(Mode::Xapic, $run))
    };
}

/// A row that runs in x2APIC mode.
macro_rules! x2 {
    ($name:ident, $ids:literal, $run:path) => {
        test!($name, $ids, || in_mode(Mode::X2apic, $run))
    };
}

image!(
    "apic",
    [
        x!(xapic_registers, "-", registers::at_reset),
        x!(xapic_lvt_bits, "-", registers::lvt),
        x!(xapic_mmio_forms, "F-AP3", xapic::mmio_forms),
        x!(xapic_tpr_is_cr8, "-", registers::tpr_is_cr8),
        x!(xapic_timer_oneshot, "-", timer::oneshot),
        x!(xapic_timer_periodic, "-", timer::periodic),
        x!(xapic_timer_masked, "-", timer::masked),
        x!(xapic_timer_stopped, "-", timer::stopped),
        x!(xapic_timer_divide, "-", timer::divide),
        x!(xapic_deadline, "-", deadline::fires),
        x!(xapic_self_ipi, "F-AP1", delivery::self_ipi),
        x!(xapic_priorities, "-", delivery::priorities),
        x!(xapic_nesting, "-", delivery::nesting),
        x!(xapic_tpr_blocks, "-", delivery::tpr_blocks),
        x!(xapic_ppr, "-", delivery::ppr),
        x!(xapic_irr_isr, "-", delivery::irr_isr),
        x!(xapic_nmi, "-", delivery::nmi),
        x!(xapic_physical, "-", delivery::physical),
        x!(xapic_logical_flat, "-", xapic::logical_flat),
        x!(xapic_logical_cluster, "-", xapic::logical_cluster),
        x!(xapic_broadcast, "-", delivery::shorthands),
        x!(xapic_software_disabled, "-", errors::software_disabled),
        x2!(x2apic_registers, "-", registers::at_reset),
        x2!(x2apic_lvt_bits, "-", registers::lvt),
        x2!(x2apic_tpr_is_cr8, "-", registers::tpr_is_cr8),
        x2!(x2apic_faults, "-", x2apic::faults),
        x2!(x2apic_reserved_bits, "-", x2apic::reserved_bits),
        x2!(x2apic_timer_oneshot, "-", timer::oneshot),
        x2!(x2apic_timer_periodic, "-", timer::periodic),
        x2!(x2apic_timer_masked, "-", timer::masked),
        x2!(x2apic_timer_stopped, "-", timer::stopped),
        x2!(x2apic_timer_divide, "-", timer::divide),
        x2!(deadline_fires, "-", deadline::fires),
        x2!(deadline_not_early, "-", deadline::not_early),
        x2!(deadline_disarmed, "-", deadline::disarmed),
        x2!(deadline_by_mode_only, "-", deadline::by_mode_only),
        x2!(x2apic_self_ipi, "F-AP1", delivery::self_ipi),
        x2!(x2apic_self_ipi_msr, "F-AP1", x2apic::self_ipi_msr),
        x2!(x2apic_priorities, "-", delivery::priorities),
        x2!(x2apic_nesting, "-", delivery::nesting),
        x2!(x2apic_tpr_blocks, "-", delivery::tpr_blocks),
        x2!(x2apic_ppr, "-", delivery::ppr),
        x2!(x2apic_irr_isr, "-", delivery::irr_isr),
        x2!(x2apic_nmi, "-", delivery::nmi),
        x2!(x2apic_physical, "-", delivery::physical),
        x2!(x2apic_logical, "-", x2apic::logical),
        x2!(x2apic_broadcast, "-", delivery::shorthands),
        x2!(x2apic_software_disabled, "-", errors::software_disabled),
        // These may leave a vector behind that nothing takes.
        x2!(x2apic_illegal_vector, "-", errors::illegal_vector),
        x!(back_to_xapic, "-", xapic::back),
        x!(xapic_illegal_vector, "-", errors::illegal_vector),
    ]
);
