// SPDX-License-Identifier: GPL-2.0 OR MIT
//! #DB: single-step, breakpoints, general detect, and the registers (SDM 3B chapter 18).

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use guest::expect::fault;
use guest::{apic, cpu, cpuid, idt, probe, Pass, Verdict};

const BS: u64 = 1 << 14;
const BD: u64 = 1 << 13;
const DR6_RESET: u64 = 0xffff_0ff0;
const DR7_RESET: u64 = 0x400;

static RIPS: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
static DR6: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);

/// Notes RIP and DR6 of each #DB; clears DR6.
fn note(frame: &mut idt::Frame) {
    let at = SEEN.fetch_add(1, Ordering::AcqRel);
    if let Some(slot) = RIPS.get(at) {
        slot.store(frame.rip, Ordering::Release);
    } else {
        // A machine without RF or GD would never get on.
        cpu::set_dr7(DR7_RESET);
        frame.rflags &= !cpu::RFLAGS_TF;
    }
    DR6.fetch_or(cpu::dr6() & 0xe00f, Ordering::AcqRel);
    cpu::set_dr6(DR6_RESET);
}

fn start() {
    SEEN.store(0, Ordering::Release);
    DR6.store(0, Ordering::Release);
    cpu::set_dr6(DR6_RESET);
    idt::hook(idt::DB, note);
}

fn rip(at: usize) -> u64 {
    RIPS[at].load(Ordering::Acquire)
}

/// Runs the instructions between TF on and TF off; `$labels` are the addresses
/// behind each, in an array of the given length.
macro_rules! stepped {
    ($($insn:literal),* ; $($operand:tt)*) => {{
        start();
        let (first, last): (u64, u64);
        // SAFETY: #DB is hooked; the red zone is skipped.
        unsafe {
            asm!(
                "lea r10, [rip + 2f]",
                "lea r11, [rip + 3f]",
                "pushfq",
                "or qword ptr [rsp], 0x100",
                "popfq",
                "2:",
                $($insn,)*
                "3:",
                "pushfq",
                "and qword ptr [rsp], ~0x100",
                "popfq",
                out("r10") first, out("r11") last,
                $($operand)*
            );
        }
        (first, last)
    }};
}

pub fn single_step() -> Verdict {
    let (first, last) = stepped!("nop", "nop", "mov rax, rax", "nop"; out("rax") _);
    assert_eq!(DR6.load(Ordering::Acquire), BS);
    // Four instructions, then PUSHFQ, AND and POPFQ that end it.
    assert_eq!(SEEN.load(Ordering::Acquire), 4 + 3);
    assert_eq!((rip(0), rip(1), rip(3)), (first + 1, first + 2, last));
    Pass
}

/// An instruction that exits is one step as well, whoever carries it out.
pub fn single_step_over_exits() -> Verdict {
    apic::init();
    let (_, last) = stepped!("xchg r9, rbx", "cpuid", "xchg r9, rbx";
        inout("eax") 0 => _, out("ecx") _, out("edx") _, out("r9") _);
    assert_eq!((rip(2), SEEN.load(Ordering::Acquire)), (last, 6), "CPUID");
    assert_eq!(rip(1) + 3, last, "CPUID");
    let (_, last) = stepped!("rdmsr"; in("ecx") 0x1b, out("eax") _, out("edx") _);
    check("RDMSR", last);
    let value = cpu::rdmsr(guest::msr::IA32_PAT);
    let (_, last) = stepped!("wrmsr"; in("ecx") guest::msr::IA32_PAT, in("eax") value as u32, in("edx") (value >> 32) as u32);
    check("WRMSR", last);
    let (_, last) = stepped!("in al, dx"; in("dx") 0x3fdu16, out("al") _);
    check("IN", last);
    let (_, last) = stepped!("out dx, al"; in("dx") 0x80u16, in("al") 0u8);
    check("OUT", last);
    let (_, last) = stepped!("mov rax, cr0", "mov cr0, rax"; out("rax") _);
    assert_eq!((rip(1), SEEN.load(Ordering::Acquire)), (last, 5), "MOV CR0");
    let (_, last) = stepped!("mov cr8, rax"; in("rax") 0u64);
    check("MOV CR8", last);
    let (_, last) = stepped!("wbinvd"; );
    check("WBINVD", last);
    if !apic::is_x2apic() {
        let (_, last) = stepped!("mov eax, [rdi]"; in("rdi") apic::BASE + 0x30, out("eax") _);
        check("MMIO", last);
    }
    Pass
}

#[track_caller]
fn check(what: &str, last: u64) {
    assert!(
        rip(0) == last && SEEN.load(Ordering::Acquire) == 4,
        "{what}: first step at {:#x} for {last:#x}, {} steps for 4",
        rip(0),
        SEEN.load(Ordering::Acquire)
    );
    assert!(
        DR6.load(Ordering::Acquire) == BS,
        "{what}: DR6 {:#x}",
        DR6.load(Ordering::Acquire)
    );
}

/// MOV SS holds the trap back by one instruction, which may be one that exits.
pub fn pop_ss_shadow() -> Verdict {
    let (_, last) = stepped!("mov ss, eax", "nop"; in("eax") 0x10);
    check("NOP behind MOV SS", last);
    let (_, last) =
        stepped!("mov ss, r8d", "rdmsr"; in("r8") 0x10, in("ecx") 0x1b, out("eax") _, out("edx") _);
    check("RDMSR behind MOV SS", last);
    Pass
}

pub fn instruction_breakpoint() -> Verdict {
    start();
    idt::hook(idt::DB, |frame| {
        note(frame);
        frame.rflags |= cpu::RFLAGS_RF;
    });
    let target: u64;
    // SAFETY: the hook resumes with RF set.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "mov dr0, {0}", "mov {1}, 0x401", "mov dr7, {1}", "nop", "2:", "nop",
             "mov {1}, 0x400", "mov dr7, {1}", out(reg) target, out(reg) _);
    }
    assert_eq!(
        (SEEN.load(Ordering::Acquire), rip(0)),
        (1, target),
        "a fault at the instruction"
    );
    assert_eq!(DR6.load(Ordering::Acquire), 1);
    Pass
}

pub fn data_breakpoint() -> Verdict {
    start();
    let mut word = 0u64;
    let address = core::ptr::addr_of_mut!(word) as u64;
    let (behind_write, behind_read): (u64, u64);
    cpu::set_dr1(address);
    cpu::set_dr2(address);
    cpu::set_dr7(DR7_RESET | 1 << 2 | 0b1101 << 20); // DR1: 4 bytes, write
                                                     // SAFETY: writes `word`.
    unsafe {
        asm!("lea {1}, [rip + 2f]", "mov eax, [{0}]", "mov dword ptr [{0}], 7", "2:", in(reg) address,
             out(reg) behind_write, out("rax") _);
    }
    assert_eq!(
        (SEEN.load(Ordering::Acquire), rip(0)),
        (1, behind_write),
        "a trap behind the write only"
    );
    assert_eq!(DR6.load(Ordering::Acquire), 2);
    start();
    cpu::set_dr7(DR7_RESET | 1 << 4 | 0b0011 << 24); // DR2: 1 byte, read or write
                                                     // SAFETY: reads `word`.
    unsafe {
        asm!("lea {1}, [rip + 2f]", "mov eax, [{0}]", "2:", in(reg) address, out(reg) behind_read, out("rax") _)
    };
    cpu::set_dr7(DR7_RESET);
    assert_eq!((SEEN.load(Ordering::Acquire), rip(0)), (1, behind_read));
    assert_eq!(DR6.load(Ordering::Acquire), 4);
    Pass
}

pub fn general_detect() -> Verdict {
    start();
    static DR7: AtomicU64 = AtomicU64::new(0);
    idt::hook(idt::DB, |frame| {
        DR7.store(cpu::dr7(), Ordering::Release); // GD is clear in the handler
        note(frame);
    });
    let at: u64;
    // SAFETY: the access faults once; GD is clear when it is tried again.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "mov dr7, {1}", "2:", "mov {1}, dr0", out(reg) at, inout(reg) DR7_RESET | 1 << 13 => _)
    };
    assert_eq!((SEEN.load(Ordering::Acquire), rip(0)), (1, at), "a fault");
    assert_eq!(DR6.load(Ordering::Acquire), BD);
    assert_eq!(DR7.load(Ordering::Acquire), DR7_RESET);
    Pass
}

pub fn registers_keep() -> Verdict {
    cpu::set_dr0(0x1111);
    cpu::set_dr1(0x2222);
    cpu::set_dr2(0xffff_8000_0000_3333);
    cpu::set_dr3(0x4444);
    cpu::set_dr6(DR6_RESET | 0xf);
    cpu::set_dr7(DR7_RESET | 0x300);
    for _ in 0..50 {
        let _ = core::hint::black_box(cpuid::leaf(0));
        let _ = core::hint::black_box(cpu::inb(0x3fd));
        let seen = (
            cpu::dr0(),
            cpu::dr1(),
            cpu::dr2(),
            cpu::dr3(),
            cpu::dr6(),
            cpu::dr7(),
        );
        let wanted = (
            0x1111,
            0x2222,
            0xffff_8000_0000_3333,
            0x4444,
            DR6_RESET | 0xf,
            DR7_RESET | 0x300,
        );
        assert_eq!(seen, wanted);
    }
    cpu::set_dr7(DR7_RESET);
    cpu::set_dr6(0);
    assert_eq!(
        cpu::dr6() & !(1 << 11),
        DR6_RESET & !(1 << 11),
        "fixed bits of DR6"
    );
    cpu::set_dr7(0);
    assert_eq!(cpu::dr7(), DR7_RESET, "fixed bits of DR7");
    cpu::set_dr6(DR6_RESET);
    Pass
}

/// MOV to and from a register that exits, by each general register.
pub fn any_general_register() -> Verdict {
    let cr0 = cpu::cr0();
    macro_rules! by {
        ($($register:literal)*) => {$(
            let (dr, cr): (u64, u64);
            // SAFETY: DR1 breaks nowhere, the guest may run without caches; the register has its old value again.
            unsafe {
                asm!(concat!("push ", $register),
                     concat!("mov ", $register, ", 0x12345678"),
                     concat!("mov dr1, ", $register),
                     concat!("mov ", $register, ", 0"),
                     concat!("mov ", $register, ", dr1"),
                     concat!("push ", $register),
                     concat!("mov ", $register, ", cr0"),
                     concat!("bts ", $register, ", 30"),
                     concat!("mov cr0, ", $register),
                     concat!("mov ", $register, ", [rsp + 8]"),
                     "pop {dr}", "mov {cr}, cr0", "add rsp, 8",
                     dr = out(reg) dr, cr = out(reg) cr);
            }
            cpu::set_cr0(cr0);
            assert_eq!((dr, cr), (0x1234_5678, cr0 | cpu::CR0_CD), $register);
        )*};
    }
    by!("rax" "rcx" "rdx" "rbx" "rbp" "rsi" "rdi" "r8" "r9" "r10" "r11" "r12" "r13" "r14" "r15");
    let (rsp, dr): (u64, u64);
    // SAFETY: as above.
    unsafe { asm!("mov dr1, rsp", "mov {0}, rsp", "mov {1}, dr1", out(reg) rsp, out(reg) dr) };
    assert_eq!(dr, rsp, "rsp");
    Pass
}

pub fn register_faults() -> Verdict {
    fault(probe::set_dr6(1 << 32), idt::GP, "DR6 bit 32");
    fault(probe::set_dr7(1 << 32 | DR7_RESET), idt::GP, "DR7 bit 32");
    assert_eq!(
        probe::set_dr4(DR6_RESET | 5),
        Ok(()),
        "DR4 is DR6 with CR4.DE = 0"
    );
    assert_eq!(cpu::dr6() & 0xf, 5);
    cpu::set_dr6(DR6_RESET);
    cpu::set_cr4(cpu::cr4() | cpu::CR4_DE);
    let result = probe::set_dr4(DR6_RESET);
    cpu::set_cr4(cpu::cr4() & !cpu::CR4_DE);
    fault(result, idt::UD, "DR4 with CR4.DE");
    Pass
}

pub fn icebp() -> Verdict {
    start();
    let behind: u64;
    // SAFETY: #DB is hooked.
    unsafe { asm!("lea {0}, [rip + 2f]", ".byte 0xf1", "2:", out(reg) behind) };
    assert_eq!((SEEN.load(Ordering::Acquire), rip(0)), (1, behind));
    assert_eq!(DR6.load(Ordering::Acquire), 0, "no condition bit");
    Pass
}
