// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Interrupts and exceptions: one IDT for all processors, hooks, and calls that survive them.

use crate::harness;
use crate::percpu::{self, IST_COMMON, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_NMI, SEL_CODE64};
use crate::{apic, cpu, probe, smp, user};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::transmute;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

global_asm!(include_str!("idt.S"), options(att_syntax));

/// Divide error.
pub const DE: u8 = 0;
/// Debug.
pub const DB: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// Breakpoint.
pub const BP: u8 = 3;
/// Invalid opcode.
pub const UD: u8 = 6;
/// Device not available.
pub const NM: u8 = 7;
/// Double fault.
pub const DF: u8 = 8;
/// Invalid TSS.
pub const TS: u8 = 10;
/// Segment not present.
pub const NP: u8 = 11;
/// Stack fault.
pub const SS: u8 = 12;
/// General protection.
pub const GP: u8 = 13;
/// Page fault.
pub const PF: u8 = 14;
/// Floating-point error.
pub const MF: u8 = 16;
/// Alignment check.
pub const AC: u8 = 17;
/// Machine check.
pub const MC: u8 = 18;
/// SIMD floating-point error.
pub const XM: u8 = 19;

/// Short name of an exception.
pub fn vector_name(vector: u8) -> &'static str {
    match vector {
        DE => "#DE",
        DB => "#DB",
        NMI => "NMI",
        BP => "#BP",
        UD => "#UD",
        NM => "#NM",
        DF => "#DF",
        TS => "#TS",
        NP => "#NP",
        SS => "#SS",
        GP => "#GP",
        PF => "#PF",
        MF => "#MF",
        AC => "#AC",
        MC => "#MC",
        XM => "#XM",
        32.. => "interrupt",
        _ => "exception",
    }
}

/// Registers as `idt.S` saves them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// A handler that a test installs. Hooks of exceptions must not fault themselves.
pub type Hook = fn(&mut Frame);

static HOOKS: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];
static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

/// Installs a handler for `vector` on all processors.
pub fn hook(vector: u8, handler: Hook) {
    HOOKS[usize::from(vector)].store(handler as usize, Ordering::Release);
}

/// Removes a handler: the vector is unexpected again.
pub fn unhook(vector: u8) {
    HOOKS[usize::from(vector)].store(0, Ordering::Release);
}

/// Removes all handlers and forgets all counts.
pub fn reset_hooks() {
    for (hook, count) in HOOKS.iter().zip(&COUNTS) {
        hook.store(0, Ordering::Release);
        count.store(0, Ordering::Relaxed);
    }
}

/// How often `vector` was delivered, on all processors, since [`reset_hooks`].
pub fn count(vector: u8) -> u32 {
    COUNTS[usize::from(vector)].load(Ordering::Acquire)
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 256]>);
// SAFETY: written while one processor runs, or by `set_gate`, which says so.
unsafe impl Sync for Idt {}
static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

extern "C" {
    static isr_stubs: [[u8; 16]; 256];
    fn guarded_call(function: extern "C" fn(u64), arg: u64, context: *mut u64) -> u64;
    fn guarded_return(context: *mut u64, value: u64) -> !;
}

/// The bytes of a gate descriptor of `gate_type` (0xE interrupt, 0xF trap).
pub fn gate(address: u64, selector: u16, ist: u8, gate_type: u8, dpl: u8) -> [u64; 2] {
    let attributes = u64::from(0x80 | (dpl << 5) | gate_type);
    [
        (address & 0xffff)
            | (u64::from(selector) << 16)
            | (u64::from(ist) << 32)
            | (attributes << 40)
            | (((address >> 16) & 0xffff) << 48),
        address >> 32,
    ]
}

/// Replaces a gate. While it is set no other processor may take `vector`.
pub fn set_gate(vector: u8, value: [u64; 2]) {
    // SAFETY: inside the table; processors read it atomically enough by the rule above.
    unsafe { (*IDT.0.get())[usize::from(vector)] = value };
}

/// The usual gate of `vector`, reachable by INT n from `dpl`.
pub fn default_gate(vector: u8, dpl: u8) -> [u64; 2] {
    let ist = match vector {
        NMI => IST_NMI,
        DF => IST_DOUBLE_FAULT,
        MC => IST_MACHINE_CHECK,
        _ => IST_COMMON,
    };
    // SAFETY: only the address is taken.
    let stub = unsafe { core::ptr::addr_of!(isr_stubs[usize::from(vector)]) } as u64;
    gate(stub, SEL_CODE64, ist, 0xe, dpl)
}

pub(crate) fn build() {
    for vector in 0..=255u8 {
        set_gate(
            vector,
            default_gate(vector, if vector == BP { 3 } else { 0 }),
        );
    }
}

/// Loads the IDT on this processor.
pub fn load() {
    load_limit(4095);
}

/// Loads the IDT with another limit.
pub fn load_limit(limit: u16) {
    #[repr(C, packed)]
    struct Pointer(u16, u64);
    let pointer = Pointer(limit, IDT.0.get() as u64);
    // SAFETY: the table is static.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack, preserves_flags)) };
}

#[no_mangle]
extern "C" fn isr_dispatch(frame: &mut Frame) {
    let cr2 = cpu::cr2();
    let vector = frame.vector as u8;
    if !matches!(vector, DB | NMI | MC | 32..)
        && (probe::fix_up(frame, cr2) || probe::call_fault(frame, cr2))
    {
        return;
    }
    if vector == smp::WAKE {
        return apic::eoi();
    }
    COUNTS[usize::from(vector)].fetch_add(1, Ordering::AcqRel);
    let hook = HOOKS[usize::from(vector)].load(Ordering::Acquire);
    if hook != 0 {
        // SAFETY: only `hook` stores here, always a `Hook`.
        let hook: Hook = unsafe { transmute::<usize, Hook>(hook) };
        return hook(frame);
    }
    if frame.cs & 3 == 3 {
        user::came_back(frame)
    }
    harness::unexpected(frame, cr2)
}

/// What [`guarded`] got back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function returned.
    Returned,
    /// [`leave`] was called with this value, never 0.
    Left(u64),
}

/// Calls `function(arg)`; [`leave`], also out of a handler, returns from here.
/// RFLAGS is as before then. Values owned by abandoned frames are not dropped.
pub fn guarded(function: extern "C" fn(u64), arg: u64) -> Outcome {
    let mut context = 0u64;
    let cell = &percpu::this().context;
    let outer = cell.swap(core::ptr::addr_of_mut!(context) as usize, Ordering::Relaxed);
    // SAFETY: `context` outlives the call and nobody leaves to it afterwards.
    let value = unsafe { guarded_call(function, arg, &mut context) };
    percpu::this().context.store(outer, Ordering::Relaxed);
    match value {
        0 => Outcome::Returned,
        value => Outcome::Left(value),
    }
}

/// Returns `value` from the innermost [`guarded`] of this processor.
pub fn leave(value: u64) -> ! {
    let context = percpu::this().context.load(Ordering::Relaxed);
    if context == 0 {
        crate::say!(
            "not ok {} [-]: left without a guarded call",
            harness::current()
        );
        crate::console::exit(true);
    }
    // SAFETY: `guarded` is still on the stack, because it clears the pointer when it returns.
    unsafe { guarded_return(context as *mut u64, value) }
}
