// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Calls about one VP: its index, its registers, its start (TLFS, chapter on virtual processors). No other VP runs here
//! until such a call has started it.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};
use guest::hv::{self, *};
use guest::{
    apic, cpu, cpuid, idt, image, msr, paging, percpu, require, test, time, Pass, Verdict,
};

const GET_REGISTERS: u64 = 0x50;
const SET_REGISTERS: u64 = 0x51;
const START_VP: u64 = 0x99;
const GET_VP_INDEX: u64 = 0x9a;
const FAST: u64 = 1 << 16;

const INVALID_PARTITION_ID: u64 = 0xd;
const INVALID_VP_INDEX: u64 = 0xe;
const INVALID_VP_STATE: u64 = 0x15;
const INVALID_REGISTER_VALUE: u64 = 0x50;
const INVALID_VTL_STATE: u64 = 0x51;

/// HV_PARTITION_ID_SELF.
const SELF: u64 = u64::MAX;
/// HV_VP_INDEX_SELF.
const SELF_VP: u64 = 0xffff_fffe;
/// An index that no partition has here.
const NO_VP: u64 = 0x7fff;

const RIP: u64 = 0x2_0010;
const RSI: u64 = 0x2_0006;
const CR3: u64 = 0x4_0002;
const DR0: u64 = 0x5_0000;
const KERNEL_GS_BASE: u64 = 0x8_0002;
const GUEST_OS_ID_NAME: u64 = 0x9_0002;
const VP_INDEX_NAME: u64 = 0x9_0003;
const NO_NAME: u64 = 0x666_0666;

fn reps(count: usize) -> u64 {
    (count as u64) << 32
}

/// Whether the guest has the privilege of this number (leaf 0x40000003 EBX).
fn may(bit: u32) -> bool {
    hv::present() && cpuid::leaf(0x4000_0003).ebx >> bit & 1 != 0
}

fn registers() -> bool {
    may(17)
}

fn start() -> bool {
    may(21)
}

/// A page of input and one of output.
struct Pages {
    input: u64,
    output: u64,
}

impl Pages {
    fn new() -> Self {
        cpu::wrmsr(HV_X64_MSR_GUEST_OS_ID, hv::OS_ID);
        apic::init_best();
        Self {
            input: paging::frame(),
            output: paging::frame(),
        }
    }

    fn call(&self, control: u64, words: &[u64]) -> u64 {
        for (i, word) in words.iter().enumerate() {
            // SAFETY: a page of this test's.
            unsafe { (self.input as *mut u64).add(i).write_volatile(*word) };
        }
        hv::vmcall(control, self.input, self.output).expect("VMCALL")
    }

    fn word(&self, i: usize) -> u64 {
        // SAFETY: a page of this test's.
        unsafe { (self.output as *const u64).add(i).read_volatile() }
    }

    fn spoil(&self) {
        for i in 0..512 {
            // SAFETY: a page of this test's.
            unsafe { (self.output as *mut u64).add(i).write_volatile(!0) };
        }
    }
}

fn own_index() -> u64 {
    cpu::rdmsr(HV_X64_MSR_VP_INDEX)
}

fn own_id() -> u64 {
    u64::from(apic::id())
}

fn apic_ids() -> Verdict {
    require!(start(), "no StartVirtualProcessor");
    let pages = Pages::new();
    let ask = |ids: &[u64], first: u64| {
        let mut words = [0; 18];
        words[0] = SELF;
        words[2..2 + ids.len()].copy_from_slice(ids);
        let control = GET_VP_INDEX | reps(ids.len()) | first << 48;
        pages.call(control, &words[..2 + ids.len()])
    };
    pages.spoil();
    assert_eq!(ask(&[own_id()], 0), SUCCESS | reps(1));
    assert_eq!(
        (pages.word(0) as u32, pages.word(1)),
        (own_index() as u32, !0)
    );
    // Padding does not matter.
    assert_eq!(ask(&[own_id() | 0xffff << 32], 0), SUCCESS | reps(1));
    pages.spoil();
    assert_eq!(ask(&[own_id(); 16], 0), SUCCESS | reps(16));
    assert!((0..16).all(|i| pages.word(i) as u32 == own_index() as u32));
    // Elements before the first that is asked for stay as they are.
    pages.spoil();
    assert_eq!(ask(&[own_id(); 4], 2), SUCCESS | reps(4));
    assert_eq!([0, 1, 4].map(|i| pages.word(i)), [!0; 3]);
    assert_eq!(
        [2, 3].map(|i| pages.word(i) as u32),
        [own_index() as u32; 2]
    );
    // The other VP has an id, too, though it does not run.
    let others = (0..16).filter(|&id| ask(&[id], 0) & 0xffff == SUCCESS);
    assert!(others.count() >= 2, "only one VP has an APIC id");
    Pass
}

/// status and the number of elements before the one that fails.
fn apic_id_errors() -> Verdict {
    require!(start(), "no StartVirtualProcessor");
    let pages = Pages::new();
    let none = 0x1234;
    let ask = |words: &[u64]| pages.call(GET_VP_INDEX | reps(words.len() - 2), words);
    let own = own_id();
    pages.spoil();
    assert_eq!(
        ask(&[SELF, 0, own, own, none, own]),
        INVALID_PARAMETER | reps(2)
    );
    assert_eq!(pages.word(1) as u32, own_index() as u32);
    assert_eq!(ask(&[SELF, 0, none]), INVALID_PARAMETER);
    assert_eq!(ask(&[0, 0, own]), INVALID_PARTITION_ID);
    assert_eq!(ask(&[SELF - 1, 0, own]), INVALID_PARTITION_ID);
    for vtl in [1, 2, 15, 16, 0xff] {
        assert_eq!(ask(&[SELF, vtl, own]), INVALID_VTL_STATE, "VTL {vtl}");
    }
    // Padding of the header.
    assert_eq!(ask(&[SELF, 0xff << 8 | 1 << 63, own]), SUCCESS | reps(1));
    Pass
}

/// places of input and output, and no fast form.
fn output_place() -> Verdict {
    require!(start(), "no StartVirtualProcessor");
    let pages = Pages::new();
    let one = GET_VP_INDEX | reps(1);
    assert_eq!(pages.call(one, &[SELF, 0, own_id()]), SUCCESS | reps(1));
    let at = |output| hv::vmcall(one, pages.input, output).expect("VMCALL");
    for output in [1, 7, 0xffd] {
        assert_eq!(at(pages.output + output), INVALID_ALIGNMENT, "{output}");
    }
    assert_eq!(at(1 << 63), INVALID_ALIGNMENT, "beyond the address space");
    for output in [0, 8, 16] {
        assert_eq!(
            at(pages.input + output),
            INVALID_ALIGNMENT,
            "overlap at {output}"
        );
    }
    assert_eq!(at(pages.input + 24), SUCCESS | reps(1), "side by side");
    assert_eq!(at(pages.output + 0xff8), SUCCESS | reps(1), "last word");
    let long = GET_VP_INDEX | reps(300);
    assert_eq!(
        hv::vmcall(long, pages.input, pages.output + 0x800),
        Ok(INVALID_ALIGNMENT)
    );
    if !xmm_output() {
        let undefined = hv::vmcall(one | FAST, SELF, 0);
        assert_eq!(undefined.map_err(|f| f.vector), Err(idt::UD), "fast");
    }
    assert_eq!(
        hv::vmcall(START_VP | FAST, SELF, 0),
        Ok(INVALID_HYPERCALL_INPUT),
        "fast"
    );
    // Output in memory that nobody has touched: it comes.
    let base = paging::untouched(32);
    for i in 8..32 {
        let output = base + (i << 12);
        assert_eq!(at(output), SUCCESS | reps(1), "page {i}");
        // SAFETY: this test's.
        let index = unsafe { (output as *const u32).read_volatile() };
        assert_eq!(u64::from(index), own_index());
    }
    // The longest list.
    for i in 2..512 {
        // SAFETY: a page of this test's.
        unsafe { (pages.input as *mut u64).add(i).write_volatile(own_id()) };
    }
    assert_eq!(
        hv::vmcall(GET_VP_INDEX | reps(510), pages.input, pages.output),
        Ok(SUCCESS | reps(510))
    );
    assert!((0..510).all(|i| pages.word(i) as u32 == own_index() as u32));
    Pass
}

/// Hypercall output in XMM registers (leaf 0x40000003 EDX).
fn xmm_output() -> bool {
    cpuid::leaf(0x4000_0003).edx >> 15 & 1 != 0
}

/// A fast call: RAX, and XMM0 to XMM5 afterwards.
fn fast(control: u64, words: [u64; 2], mut xmm: [u64; 12]) -> (u64, [u64; 12]) {
    let mut rax = 0u64;
    // SAFETY: a fast call touches no memory.
    unsafe {
        asm!(
            "movups xmm0, [{x}]", "movups xmm1, [{x} + 16]", "movups xmm2, [{x} + 32]",
            "movups xmm3, [{x} + 48]", "movups xmm4, [{x} + 64]", "movups xmm5, [{x} + 80]",
            "vmcall",
            "movups [{x}], xmm0", "movups [{x} + 16], xmm1", "movups [{x} + 32], xmm2",
            "movups [{x} + 48], xmm3", "movups [{x} + 64], xmm4", "movups [{x} + 80], xmm5",
            x = in(reg) xmm.as_mut_ptr(), inout("rax") rax, in("rcx") control | FAST,
            in("rdx") words[0], in("r8") words[1],
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
        );
    }
    (rax, xmm)
}

/// Output begins with the first register that the input leaves free.
fn fast_output() -> Verdict {
    require!(start() && registers(), "no calls with output");
    require!(xmm_output(), "no output in XMM registers");
    let _ = Pages::new();
    let mut input = [7u64; 12];
    input[0] = own_id();
    let mut wanted = input;
    wanted[2] = own_index();
    let got = fast(GET_VP_INDEX | reps(1), [SELF, 0], input);
    assert_eq!(got, (SUCCESS | reps(1), wanted));
    // Two elements fill a register of input and one of output.
    input[1] = own_id();
    (wanted[1], wanted[3]) = (own_id(), own_index());
    let got = fast(GET_VP_INDEX | reps(2), [SELF, 0], input);
    assert_eq!(got, (SUCCESS | reps(2), wanted));
    // Six do not fit: 64 bytes of input, 48 of output are all there is; seven are more.
    let seven = fast(GET_VP_INDEX | reps(7), [SELF, 0], input);
    assert_eq!(seven, (INVALID_HYPERCALL_INPUT, input));

    let mut input = [9u64; 12];
    input[0] = CR3 | VP_INDEX_NAME << 32;
    let mut wanted = input;
    wanted[2..6].copy_from_slice(&[cpu::cr3(), 0, own_index(), 0]);
    let got = fast(GET_REGISTERS | reps(2), [SELF, SELF_VP], input);
    assert_eq!(got, (SUCCESS | reps(2), wanted));
    // What an element has failed before stands.
    input[0] = CR3 | NO_NAME << 32;
    let (status, xmm) = fast(GET_REGISTERS | reps(2), [SELF, SELF_VP], input);
    assert_eq!(status, INVALID_PARAMETER | reps(1));
    assert_eq!((xmm[2], xmm[4]), (cpu::cr3(), 9));
    let many = fast(GET_REGISTERS | reps(5), [SELF, SELF_VP], input);
    assert_eq!(many, (INVALID_HYPERCALL_INPUT, input));

    let mut input = [0u64; 12];
    (input[0], input[2]) = (DR0, 0x2468);
    let got = fast(SET_REGISTERS | reps(1), [SELF, SELF_VP], input);
    assert_eq!((got.0, cpu::dr0()), (SUCCESS | reps(1), 0x2468));
    cpu::set_dr0(0);
    Pass
}

/// Input or output where an overlay is: never what it hides.
fn parameters_in_overlay() -> Verdict {
    require!(start(), "no StartVirtualProcessor");
    let pages = Pages::new();
    let one = GET_VP_INDEX | reps(1);
    assert_eq!(pages.call(one, &[SELF, 0, own_id()]), SUCCESS | reps(1));
    pages.spoil();
    hv::enable_page(pages.output).expect("enable");
    let to = hv::vmcall(one, pages.input, pages.output);
    hv::disable_page().expect("disable");
    hv::enable_page(pages.input).expect("enable");
    let from = hv::vmcall(one, pages.input, pages.output);
    hv::disable_page().expect("disable");
    assert_eq!((to, from), (Ok(INVALID_ALIGNMENT), Ok(INVALID_ALIGNMENT)));
    assert!((0..512).all(|i| pages.word(i) == !0));
    Pass
}

/// Names, two in a word.
fn get(pages: &Pages, vp: u64, names: &[u64]) -> u64 {
    let mut words = [0; 18];
    words[0] = SELF;
    words[1] = vp;
    for (i, name) in names.iter().enumerate() {
        words[2 + i / 2] |= name << (32 * (i % 2));
    }
    pages.call(GET_REGISTERS | reps(names.len()), &words)
}

fn get_registers() -> Verdict {
    require!(registers(), "no AccessVpRegisters");
    let pages = Pages::new();
    cpu::wrmsr(msr::IA32_KERNEL_GS_BASE, 0x1234_5678);
    for vp in [SELF_VP, own_index()] {
        pages.spoil();
        let names = [VP_INDEX_NAME, CR3, GUEST_OS_ID_NAME, KERNEL_GS_BASE];
        assert_eq!(get(&pages, vp, &names), SUCCESS | reps(4));
        let values = [0, 2, 4, 6].map(|i| pages.word(i));
        let wanted = [own_index(), cpu::cr3(), hv::OS_ID, 0x1234_5678];
        assert_eq!(values, wanted);
        assert_eq!([1, 3, 5, 7].map(|i| pages.word(i)), [0; 4], "upper halves");
        assert_eq!(pages.word(8), !0);
    }
    // From the second of three.
    pages.spoil();
    let words = [SELF, SELF_VP, NO_NAME | CR3 << 32, VP_INDEX_NAME];
    assert_eq!(
        pages.call(GET_REGISTERS | reps(3) | 1 << 48, &words),
        SUCCESS | reps(3)
    );
    assert_eq!((pages.word(0), pages.word(2)), (!0, cpu::cr3()));
    Pass
}

fn get_register_errors() -> Verdict {
    require!(registers(), "no AccessVpRegisters");
    let pages = Pages::new();
    pages.spoil();
    let names = [CR3, VP_INDEX_NAME, NO_NAME, CR3];
    assert_eq!(get(&pages, SELF_VP, &names), INVALID_PARAMETER | reps(2));
    assert_eq!(pages.word(0), cpu::cr3());
    // Nothing of the element that fails, nor of those behind it.
    assert_eq!([4, 5, 6, 7].map(|i| pages.word(i)), [!0; 4]);
    assert_eq!(get(&pages, NO_VP, &[CR3]), INVALID_VP_INDEX);
    // A VP that waits or runs has its registers for itself.
    let other = u64::from(own_index() == 0);
    assert_eq!(get(&pages, other, &[CR3]), INVALID_VP_STATE);
    let one = GET_REGISTERS | reps(1);
    assert_eq!(pages.call(one, &[0, SELF_VP, CR3]), INVALID_PARTITION_ID);
    for bits in [1 << 40, 1 << 63, 0x11 << 32, 0x20 << 32] {
        let status = pages.call(one, &[SELF, SELF_VP | bits, CR3]);
        assert_eq!(status, INVALID_PARAMETER, "{bits:#x}");
    }
    // Level 0, and whichever is the caller's.
    for bits in [0x10 << 32, 0x0f << 32] {
        assert_eq!(
            pages.call(one, &[SELF, SELF_VP | bits, CR3]),
            SUCCESS | reps(1)
        );
    }
    Pass
}

/// Name, padding, value, for each.
fn set(pages: &Pages, list: &[(u64, u64)]) -> u64 {
    let mut words = [0; 34];
    words[0] = SELF;
    words[1] = SELF_VP;
    for (i, (name, value)) in list.iter().enumerate() {
        words[2 + 4 * i] = *name;
        words[4 + 4 * i] = *value;
    }
    pages.call(SET_REGISTERS | reps(list.len()), &words)
}

fn set_registers() -> Verdict {
    require!(registers(), "no AccessVpRegisters");
    let pages = Pages::new();
    let list = [(DR0, 0x1000), (KERNEL_GS_BASE, 0xabc0)];
    assert_eq!(set(&pages, &list), SUCCESS | reps(2));
    assert_eq!(cpu::dr0(), 0x1000);
    assert_eq!(cpu::rdmsr(msr::IA32_KERNEL_GS_BASE), 0xabc0);
    cpu::set_dr0(0);
    // What cannot be written, what is not there, what a register does not take: those before it stand.
    let bad = [
        (VP_INDEX_NAME, 77),
        (NO_NAME, 0),
        (KERNEL_GS_BASE, 1 << 63),
        (0x4_0003, 1 << 63),
    ];
    for (name, value) in bad {
        let list = [(DR0, value), (name, value), (DR0, 1)];
        assert_eq!(set(&pages, &list), INVALID_PARAMETER | reps(1), "{name:#x}");
        assert_eq!(cpu::dr0(), value);
        assert_eq!(cpu::rdmsr(msr::IA32_KERNEL_GS_BASE), 0xabc0);
    }
    cpu::set_dr0(0);
    cpu::wrmsr(msr::IA32_KERNEL_GS_BASE, 0);
    Pass
}

/// A register that the call itself uses, and RIP: the guest goes on there.
fn set_own_path() -> Verdict {
    require!(registers(), "no AccessVpRegisters");
    let pages = Pages::new();
    let words: [u64; 10] = [SELF, SELF_VP, RSI, 0, 0x5151, 0, RIP, 0, 0, 0];
    for (i, word) in words.iter().enumerate() {
        // SAFETY: a page of this test's.
        unsafe { (pages.input as *mut u64).add(i).write_volatile(*word) };
    }
    let (mut rsi, way): (u64, u64);
    let mut rax = 7u64;
    // SAFETY: the call changes RSI and RIP, to a label here.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "mov [{at}], rax",
            "xor eax, eax",
            "mov {way}, 1",
            "vmcall",
            "mov {way}, 2",
            "2:",
            at = in(reg) pages.input + 64,
            way = out(reg) way,
            inout("rax") rax,
            in("rcx") SET_REGISTERS | reps(2), in("rdx") pages.input, in("r8") 0,
            inout("rsi") 1u64 => rsi,
        );
    }
    assert_eq!((rax, rsi, way), (SUCCESS | reps(2), 0x5151, 1));
    rsi = 0;
    let _ = rsi;
    Pass
}

static ARRIVED: AtomicU64 = AtomicU64::new(0);
static SEEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

global_asm!(
    ".global vpcalls_started",
    "vpcalls_started:",
    "mov [rip + {seen}], rsp",
    "mov [rip + {seen} + 16], rbx",
    "pushfq",
    "pop qword ptr [rip + {seen} + 8]",
    "mov ecx, 0x277",
    "rdmsr",
    "mov [rip + {seen} + 24], eax",
    "mov ecx, 0x40000002",
    "rdmsr",
    "inc rax",
    "mov [rip + {arrived}], rax",
    "2: hlt",
    "jmp 2b",
    seen = sym SEEN,
    arrived = sym ARRIVED,
);

extern "C" {
    fn vpcalls_started();
}

const STACK: u64 = 0x7000;
const PAT: u64 = 0x0007_0406_0007_0106;

/// HV_INITIAL_VP_CONTEXT for 64-bit code, with this processor's tables.
fn context() -> [u64; 28] {
    let mut words = [0; 28];
    words[0] = vpcalls_started as usize as u64;
    words[1] = STACK;
    words[2] = 2;
    let data = [
        0,
        0xffff_ffff | u64::from(percpu::SEL_DATA) << 32 | 0xc093 << 48,
    ];
    words[3] = 0;
    words[4] = 0xffff_ffff | u64::from(percpu::SEL_CODE64) << 32 | 0xa09b << 48;
    for segment in 0..5 {
        words[5 + 2 * segment..][..2].copy_from_slice(&data);
    }
    // TR: busy, and LDTR: none.
    words[16] = 0x67 | u64::from(percpu::SEL_TSS) << 32 | 0x8b << 48;
    words[22] = percpu::this().gdt() as u64;
    words[21] = 127 << 48;
    words[23] = cpu::rdmsr(msr::IA32_EFER);
    words[24] = cpu::cr0();
    words[25] = cpu::cr3();
    words[26] = cpu::cr4();
    words[27] = PAT;
    words
}

fn start_vp(pages: &Pages, vp: u64, context: &[u64; 28]) -> u64 {
    let mut words = [0; 30];
    words[0] = SELF;
    words[1] = vp;
    words[2..].copy_from_slice(context);
    pages.call(START_VP, &words)
}

/// All that a context can have wrong, each alone: position, value.
fn bad_contexts(good: &[u64; 28]) -> [(usize, u64); 34] {
    let attributes =
        |at: usize, attributes: u64| (at, good[at] & !(0xffff << 48) | attributes << 48);
    [
        (0, 1 << 47),
        (0, 1 << 63),
        (2, 0),
        (2, 2 | 1 << 3),
        (2, 2 | 1 << 17),
        (2, 2 | 1 << 22),
        (2, 2 | 1 << 63),
        (3, 1 << 32),
        attributes(4, 0xe09b),
        attributes(4, 0xa01b),
        attributes(4, 0xa091),
        attributes(4, 0xa0fb),
        attributes(4, 0xa19b),
        attributes(4, 0x209b),
        (5, 1 << 32),
        attributes(6, 0xc090),
        attributes(6, 0xc099),
        (9, 1 << 63),
        (13, 1 << 32),
        attributes(14, 0xc09b),
        attributes(14, 0xc0f3),
        (15, 1 << 63),
        attributes(16, 0x89),
        attributes(16, 0x0b),
        attributes(16, 0x9b),
        attributes(18, 0x8b),
        (20, 1 << 63),
        (22, 1 << 47),
        (23, good[23] & !(1 << 10)),
        (23, good[23] | 1 << 1),
        (24, good[24] & !1),
        (25, good[25] | 1 << 63),
        (26, good[26] & !(1 << 5)),
        (27, 2),
    ]
}

fn start_errors() -> Verdict {
    require!(start(), "no StartVirtualProcessor");
    let pages = Pages::new();
    let good = context();
    let other = u64::from(own_index() == 0);
    for (at, value) in bad_contexts(&good) {
        let mut bad = good;
        bad[at] = value;
        let status = start_vp(&pages, other, &bad);
        assert_eq!(status, INVALID_REGISTER_VALUE, "word {at}: {value:#x}");
    }
    assert_eq!(start_vp(&pages, NO_VP, &good), INVALID_VP_INDEX);
    assert_eq!(start_vp(&pages, 0xffff_ffff, &good), INVALID_VP_INDEX);
    for vtl in [1, 15, 16, 0xff] {
        assert_eq!(
            start_vp(&pages, other | vtl << 32, &good),
            INVALID_VTL_STATE
        );
    }
    for own in [SELF_VP, own_index()] {
        assert_eq!(start_vp(&pages, own, &good), INVALID_VP_STATE);
    }
    let mut words = [0; 30];
    words[1] = other;
    words[2..].copy_from_slice(&good);
    assert_eq!(pages.call(START_VP, &words), INVALID_PARTITION_ID);
    assert_eq!(ARRIVED.load(Ordering::Acquire), 0, "a VP has started");
    Pass
}

/// It starts in 64-bit mode, where it was told; not twice; after INIT again.
fn starts() -> Verdict {
    require!(start(), "no StartVirtualProcessor");
    let pages = Pages::new();
    let good = context();
    let mut ids = (0..16).filter(|&id| {
        let ask = [SELF, 0, id];
        id != own_id() && pages.call(GET_VP_INDEX | reps(1), &ask) & 0xffff == SUCCESS
    });
    let id = ids.next().expect("another VP");
    let asked = pages.call(GET_VP_INDEX | reps(1), &[SELF, 0, id]);
    assert_eq!(asked, SUCCESS | reps(1));
    let vp = u64::from(pages.word(0) as u32);
    for round in 0..3 {
        ARRIVED.store(0, Ordering::Release);
        let mut this = good;
        this[1] += 16 * round;
        // Padding behind the VTL.
        let started = start_vp(&pages, vp | 0x00ff_ffff << 40, &this);
        assert_eq!(started, SUCCESS, "round {round}");
        assert_eq!(start_vp(&pages, vp, &this), INVALID_VP_STATE, "twice");
        assert!(
            time::reached(|| ARRIVED.load(Ordering::Acquire) != 0),
            "it did not start"
        );
        assert_eq!(ARRIVED.load(Ordering::Acquire), vp + 1);
        let seen = [0, 1, 2, 3].map(|i: usize| SEEN[i].load(Ordering::Acquire));
        let wanted = [STACK + 16 * round, 2, 0, PAT as u32 as u64];
        assert_eq!(seen, wanted, "RSP, RFLAGS, RBX, PAT");
        assert_eq!(
            start_vp(&pages, vp, &this),
            INVALID_VP_STATE,
            "while it runs"
        );
        apic::send(id as u32, apic::ICR_INIT | apic::ICR_ASSERT);
        let waits = || start_vp(&pages, vp, &[0; 28]) == INVALID_REGISTER_VALUE;
        assert!(time::reached(waits), "INIT did not make it wait");
    }
    Pass
}

image!(
    "vpcalls",
    [
        test!(apic_ids, "H-9A C-3B21 A-06", apic_ids),
        test!(apic_id_errors, "H-9A A-21 K-29", apic_id_errors),
        test!(output_place, "A-14 A-15 A-16 A-20 A-27", output_place),
        test!(fast_output, "A-13 C-3D15 C-3B19 K-21", fast_output),
        test!(parameters_in_overlay, "A-19 F-OV2", parameters_in_overlay),
        test!(get_registers, "H-50 C-3B17 K-29", get_registers),
        test!(get_register_errors, "H-50 A-21 A-22", get_register_errors),
        test!(set_registers, "H-51 A-21 A-22 K-29", set_registers),
        test!(set_own_path, "H-51 A-23", set_own_path),
        test!(start_errors, "H-99 K-29", start_errors),
        test!(starts, "H-99 C-3B21", starts),
    ]
);
