// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Exceptions while another is delivered (SDM 3A, tables 6-4 and 6-5).

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest::idt::{self, Outcome};
use guest::{apic, cpu, guarded_asm, hv, paging, percpu, require, Pass, Verdict};

/// An address that stays unmapped.
const NOWHERE: u64 = paging::WINDOW + 0x7fff_0000;

static ERROR: AtomicU64 = AtomicU64::new(u64::MAX);

fn leave(frame: &mut idt::Frame) {
    ERROR.store(frame.error, Ordering::Release);
    idt::leave(frame.vector)
}

extern "C" fn divide(_: u64) {
    // SAFETY: faults; the handler leaves.
    unsafe { asm!("div {0:e}", in(reg) 0u32, inout("eax") 1u32 => _, inout("edx") 0u32 => _) };
}

extern "C" fn touch(address: u64) {
    // SAFETY: faults; the handler leaves.
    unsafe { asm!("mov {0}, [{1}]", out(reg) _, in(reg) address) };
}

/// The gate of `vector` with its present bit clear.
fn absent(vector: u8) -> [u64; 2] {
    let [low, high] = idt::default_gate(vector, 0);
    [low & !(1 << 47), high]
}

/// The gate of `vector` with IST7, whose stack is unmapped.
fn no_stack(vector: u8) -> [u64; 2] {
    // SAFETY: this processor's own TSS; packed, so written unaligned.
    unsafe {
        core::ptr::addr_of_mut!((*percpu::this().tss()).ist[6]).write_unaligned(NOWHERE + 0x1000)
    };
    let [low, high] = idt::default_gate(vector, 0);
    [low & !(7 << 32) | 7 << 32, high]
}

/// Runs `function` with the gate of `vector` replaced.
fn with_gate(vector: u8, gate: [u64; 2], function: extern "C" fn(u64), arg: u64) -> Outcome {
    idt::set_gate(vector, gate);
    let outcome = idt::guarded(function, arg);
    idt::set_gate(vector, idt::default_gate(vector, 0));
    outcome
}

pub fn double_fault() -> Verdict {
    idt::hook(idt::DF, leave);
    // #DE, then #NP for its gate: contributory twice.
    let outcome = with_gate(idt::DE, absent(idt::DE), divide, 0);
    assert_eq!(outcome, Outcome::Left(idt::DF.into()));
    assert_eq!(ERROR.load(Ordering::Acquire), 0);
    Pass
}

pub fn contributory_pairs() -> Verdict {
    idt::hook(idt::DF, leave);
    idt::hook(idt::PF, leave);
    // #PF whose stack is unmapped: #PF twice.
    let outcome = with_gate(idt::PF, no_stack(idt::PF), touch, NOWHERE);
    assert_eq!(outcome, Outcome::Left(idt::DF.into()), "#PF in #PF");
    // #PF, then #NP for its gate.
    let outcome = with_gate(idt::PF, absent(idt::PF), touch, NOWHERE);
    assert_eq!(outcome, Outcome::Left(idt::DF.into()), "#NP in #PF");
    // #DE whose stack is unmapped: serially, a page fault.
    let outcome = with_gate(idt::DE, no_stack(idt::DE), divide, 0);
    assert_eq!(outcome, Outcome::Left(idt::PF.into()), "#PF in #DE");
    assert_eq!(cpu::cr2() & !0xfff, NOWHERE);
    Pass
}

/// Error codes of faults in delivery name the gate, and whether the event was external.
pub fn fault_in_delivery() -> Verdict {
    // SAFETY: faults.
    let by_instruction = || unsafe { guarded_asm!("int 0x66") };
    idt::set_gate(0x66, absent(0x66));
    let result = by_instruction();
    idt::set_gate(0x66, idt::default_gate(0x66, 0));
    assert_eq!(
        result.map_err(|f| (f.vector, f.error)),
        Err((idt::NP, 0x66 * 8 + 2))
    );
    // Beyond the limit.
    idt::load_limit(0x66 * 16 - 1);
    let result = by_instruction();
    idt::load();
    assert_eq!(
        result.map_err(|f| (f.vector, f.error)),
        Err((idt::GP, 0x66 * 8 + 2))
    );
    require!(!hv::tcg(), "TCG leaves out EXT");
    // A benign exception: #UD's gate absent gives #NP with EXT.
    idt::set_gate(idt::UD, absent(idt::UD));
    // SAFETY: faults.
    let result = unsafe { guarded_asm!("ud2") };
    idt::set_gate(idt::UD, idt::default_gate(idt::UD, 0));
    assert_eq!(
        result.map_err(|f| (f.vector, f.error)),
        Err((idt::NP, 6 * 8 + 3))
    );
    // An external interrupt: EXT as well.
    apic::init();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    idt::hook(idt::NP, |frame| {
        SEEN.store(frame.error, Ordering::Release);
        idt::set_gate(0x66, idt::default_gate(0x66, 0));
    });
    idt::hook(0x66, |_| apic::eoi());
    idt::set_gate(0x66, absent(0x66));
    apic::send_self(0x66);
    cpu::take_interrupts();
    apic::eoi(); // the vector was taken from IRR, its handler never ran
    cpu::take_interrupts();
    assert_eq!(SEEN.load(Ordering::Acquire), 0x66 * 8 + 3);
    Pass
}

pub fn delivery_by_unmapped_gate() -> Verdict {
    idt::hook(idt::PF, leave);
    extern "C" fn interrupt(_: u64) {
        // SAFETY: faults in delivery; the handler leaves.
        unsafe { asm!("int 0x66") };
    }
    let outcome = with_gate(0x66, no_stack(0x66), interrupt, 0);
    assert_eq!(outcome, Outcome::Left(idt::PF.into()));
    assert_eq!(
        ERROR.load(Ordering::Acquire),
        2,
        "a write, by the processor"
    );
    assert_eq!(cpu::cr2() & !0xfff, NOWHERE);
    Pass
}
