// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Instructions that may fault, with the fault as an error.
//!
//! [`guarded_asm!`](crate::guarded_asm) notes the instruction's address and the
//! one behind it in the section `.extable`; the exception handler resumes there.

use crate::idt::Frame;
use crate::percpu;
use core::fmt;

/// An exception that an instruction raised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Its vector.
    pub vector: u8,
    /// Its error code, 0 where there is none.
    pub error: u64,
    /// CR2 at that time.
    pub cr2: u64,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}({:#x})",
            crate::idt::vector_name(self.vector),
            self.error
        )?;
        if self.vector == crate::idt::PF {
            write!(f, " at {:#x}", self.cr2)?;
        }
        Ok(())
    }
}

#[repr(C)]
struct Entry {
    instruction: u64,
    resume: u64,
}

extern "C" {
    static __extable_start: [Entry; 0];
    static __extable_end: [Entry; 0];
}

/// Continues behind a guarded instruction; false when it was not one.
pub(crate) fn fix_up(frame: &mut Frame, cr2: u64) -> bool {
    // SAFETY: the linker script lays the entries between the two symbols.
    let table = unsafe {
        let start = core::ptr::addr_of!(__extable_start).cast::<Entry>();
        let end = core::ptr::addr_of!(__extable_end).cast::<Entry>();
        core::slice::from_raw_parts(start, end.offset_from(start) as usize)
    };
    let Some(entry) = table.iter().find(|e| e.instruction == frame.rip) else {
        return false;
    };
    frame.rip = entry.resume;
    // SAFETY: only this processor uses the cell, and it is in this handler.
    unsafe {
        *percpu::this().fault.get() = Some(Fault {
            vector: frame.vector as u8,
            error: frame.error,
            cr2,
        })
    };
    true
}

/// Forgets an earlier fault; part of [`guarded_asm!`](crate::guarded_asm).
#[inline]
pub fn begin() {
    // SAFETY: only this processor uses the cell.
    unsafe { percpu::this().fault.get().write_volatile(None) };
}

/// The fault since [`begin`], if any.
#[inline]
pub fn end() -> Result<(), Fault> {
    // SAFETY: only this processor uses the cell.
    unsafe { percpu::this().fault.get().read_volatile() }.map_or(Ok(()), Err)
}

/// Runs one instruction (first literal) with operands as for `asm!`; a fault of
/// it is skipped over and returned. `before` and `after` literals surround it.
#[macro_export]
macro_rules! guarded_asm {
    ($insn:expr $(, $($operand:tt)*)?) => {{
        $crate::probe::begin();
        ::core::arch::asm!(
            "771:",
            $insn,
            "772:",
            ".pushsection .extable, \"a\"",
            ".balign 8",
            ".quad 771b, 772b",
            ".popsection"
            $(, $($operand)*)?
        );
        $crate::probe::end()
    }};
}

/// Like [`guarded_asm!`](crate::guarded_asm), with unguarded instructions before and behind.
#[macro_export]
macro_rules! guarded_sequence {
    ([$($before:literal),*], $insn:literal, [$($after:literal),*] $(, $($operand:tt)*)?) => {{
        $crate::probe::begin();
        ::core::arch::asm!(
            $($before,)*
            "771:",
            $insn,
            "772:",
            ".pushsection .extable, \"a\"",
            ".balign 8",
            ".quad 771b, 772b",
            ".popsection"
            $(, $after)*
            $(, $($operand)*)?
        );
        $crate::probe::end()
    }};
}

/// RDMSR.
pub fn rdmsr(msr: u32) -> Result<u64, Fault> {
    let (lo, hi): (u32, u32);
    // SAFETY: reads a register, or faults.
    unsafe { guarded_asm!("rdmsr", in("ecx") msr, inout("eax") 0 => lo, inout("edx") 0 => hi) }?;
    Ok((u64::from(hi) << 32) | u64::from(lo))
}

/// WRMSR.
pub fn wrmsr(msr: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: the guest owns its machine.
    unsafe {
        guarded_asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32)
    }
}

macro_rules! write_register {
    ($($name:ident $insn:literal;)*) => {
        $(#[doc = concat!("`", $insn, "`.")]
        pub fn $name(value: u64) -> Result<(), Fault> {
            // SAFETY: the guest owns its machine.
            unsafe { guarded_asm!($insn, in("rax") value) }
        })*
    };
}
write_register! {
    set_cr0 "mov cr0, rax";
    set_cr3 "mov cr3, rax";
    set_cr4 "mov cr4, rax";
    set_cr8 "mov cr8, rax";
    set_dr4 "mov dr4, rax";
    set_dr6 "mov dr6, rax";
    set_dr7 "mov dr7, rax";
}

/// XSETBV.
pub fn xsetbv(register: u32, value: u64) -> Result<(), Fault> {
    // SAFETY: the guest owns its machine.
    unsafe {
        guarded_asm!("xsetbv", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32)
    }
}

/// XGETBV.
pub fn xgetbv(register: u32) -> Result<u64, Fault> {
    let (lo, hi): (u32, u32);
    // SAFETY: reads a register, or faults.
    unsafe {
        guarded_asm!("xgetbv", in("ecx") register, inout("eax") 0 => lo, inout("edx") 0 => hi)
    }?;
    Ok((u64::from(hi) << 32) | u64::from(lo))
}

/// Reads 8 bytes of memory.
pub fn read(address: u64) -> Result<u64, Fault> {
    let mut value = 0u64;
    // SAFETY: a load that may fault and changes nothing.
    unsafe {
        guarded_asm!("mov {value}, [{address}]", value = inout(reg) value, address = in(reg) address)
    }?;
    Ok(value)
}

/// Writes 8 bytes of memory.
///
/// # Safety
/// Nothing that Rust knows of lies there.
pub unsafe fn write(address: u64, value: u64) -> Result<(), Fault> {
    // SAFETY: by the caller's promise.
    unsafe {
        guarded_asm!("mov [{address}], {value}", value = in(reg) value, address = in(reg) address)
    }
}

/// Calls code at `address`, which may only RET; a fetch fault is the result.
///
/// # Safety
/// What lies there is a RET, or cannot be fetched.
pub unsafe fn call(address: u64) -> Result<(), Fault> {
    begin();
    // SAFETY: a fetch fault has RIP = address; `call_fault` then returns to the caller's next instruction.
    unsafe {
        CALLING = address;
        core::arch::asm!("call {0}", in(reg) address, clobber_abi("sysv64"));
        CALLING = u64::MAX;
    }
    end()
}

static mut CALLING: u64 = u64::MAX;

/// A fetch fault at the target of [`call`]: return from it.
pub(crate) fn call_fault(frame: &mut Frame, cr2: u64) -> bool {
    // SAFETY: written by the same processor only while `call` runs; tests use it on one processor at a time.
    if unsafe { CALLING } != frame.rip {
        return false;
    }
    // SAFETY: RSP points at the return address that CALL pushed.
    unsafe {
        frame.rip = *(frame.rsp as *const u64);
        *percpu::this().fault.get() = Some(Fault {
            vector: frame.vector as u8,
            error: frame.error,
            cr2,
        });
    }
    frame.rsp += 8;
    true
}
