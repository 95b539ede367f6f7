// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Exceptions: vectors, error codes, priorities, debug registers, nesting, NMIs.
#![no_std]
#![no_main]

mod basic;
mod debug;
mod nested;
mod priority;

use guest::{image, test};

image!(
    "exceptions",
    [
        test!(divide_error, "-", basic::divide_error),
        test!(breakpoint, "-", basic::breakpoint),
        test!(invalid_opcode, "-", basic::invalid_opcode),
        test!(device_not_available, "-", basic::device_not_available),
        test!(general_protection, "-", basic::general_protection),
        test!(stack_fault, "-", basic::stack_fault),
        test!(segment_not_present, "-", basic::segment_not_present),
        test!(page_fault, "-", basic::page_fault),
        test!(alignment_check, "-", basic::alignment_check),
        test!(x87_error, "-", basic::x87_error),
        test!(simd_error, "-", basic::simd_error),
        test!(software_interrupts, "-", basic::software_interrupts),
        test!(privileged_at_cpl3, "-", basic::privileged_at_cpl3),
        test!(cr2_only_by_page_faults, "-", basic::cr2_only_by_page_faults),
        test!(single_step, "-", debug::single_step),
        test!(single_step_over_exits, "-", debug::single_step_over_exits),
        test!(pop_ss_shadow, "-", debug::pop_ss_shadow),
        test!(instruction_breakpoint, "-", debug::instruction_breakpoint),
        test!(data_breakpoint, "-", debug::data_breakpoint),
        test!(general_detect, "-", debug::general_detect),
        test!(debug_registers_keep, "-", debug::registers_keep),
        test!(any_general_register, "-", debug::any_general_register),
        test!(debug_register_faults, "-", debug::register_faults),
        test!(icebp, "-", debug::icebp),
        test!(double_fault, "-", nested::double_fault),
        test!(contributory_pairs, "-", nested::contributory_pairs),
        test!(fault_in_delivery, "-", nested::fault_in_delivery),
        test!(
            delivery_by_unmapped_gate,
            "-",
            nested::delivery_by_unmapped_gate
        ),
        test!(interrupt_shadow, "-", priority::interrupt_shadow),
        test!(nmi_before_interrupt, "-", priority::nmi_before_interrupt),
        test!(
            fault_before_interrupt,
            "-",
            priority::fault_before_interrupt
        ),
        test!(
            nmi_blocked_until_iret,
            "-",
            priority::nmi_blocked_until_iret
        ),
        test!(trap_before_interrupt, "-", priority::trap_before_interrupt),
        test!(interrupt_flag_restored, "-", priority::interrupt_flag),
    ]
);
