// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What instructions do to registers, flags and memory, from bytes to result.

use decode::{decode, Access, Alu, Gprs, Instruction, Mode, Size};

const CF: u64 = 1;
const PF: u64 = 4;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const DF: u64 = 0x400;
const OF: u64 = 0x800;

struct Run {
    gprs: Gprs,
    rflags: u64,
    stored: Option<u64>,
    access: Access,
}

fn gprs() -> Gprs {
    core::array::from_fn(|i| 0x1111_1111_1111_1111 * i as u64)
}

fn parse(bytes: &[u8], mode: Mode) -> Instruction {
    let instruction = decode(bytes, mode).unwrap();
    assert_eq!(usize::from(instruction.len), bytes.len());
    instruction
}

fn run_with(bytes: &[u8], rflags: u64, memory: u64) -> Run {
    let instruction = parse(bytes, Mode::Bits64);
    let (mut gprs, mut rflags) = (gprs(), rflags);
    let stored = instruction.execute(&mut gprs, &mut rflags, memory);
    Run {
        gprs,
        rflags,
        stored,
        access: instruction.access(),
    }
}

fn run(bytes: &[u8], memory: u64) -> Run {
    run_with(bytes, 2, memory)
}

#[test]
fn loads_fill_registers_as_the_size_says() {
    // mov cl, [rax]: only the lowest byte changes.
    assert_eq!(
        run(&[0x8a, 0x08], 0xffff_ffab).gprs[1],
        0x1111_1111_1111_11ab
    );
    // mov ch, [rax].
    assert_eq!(run(&[0x8a, 0x28], 0xab).gprs[1], 0x1111_1111_1111_ab11);
    // mov bpl, [rax]: the same number with REX.
    assert_eq!(
        run(&[0x40, 0x8a, 0x28], 0xab).gprs[5],
        0x5555_5555_5555_55ab
    );
    // mov cx, [rax].
    assert_eq!(
        run(&[0x66, 0x8b, 0x08], 0xabcd).gprs[1],
        0x1111_1111_1111_abcd
    );
    // mov ecx, [rax]: clears the upper half.
    assert_eq!(run(&[0x8b, 0x08], u64::MAX).gprs[1], 0xffff_ffff);
    // mov r9, [rax].
    assert_eq!(run(&[0x4c, 0x8b, 0x08], u64::MAX - 1).gprs[9], u64::MAX - 1);
    // movzx ecx, byte [rax]; movsx ecx, byte [rax]; movsx cx, byte [rax]; movsxd rcx, [rax].
    assert_eq!(run(&[0x0f, 0xb6, 0x08], 0x1f0).gprs[1], 0xf0);
    assert_eq!(run(&[0x0f, 0xbe, 0x08], 0x1f0).gprs[1], 0xffff_fff0);
    assert_eq!(
        run(&[0x66, 0x0f, 0xbe, 0x08], 0xf0).gprs[1],
        0x1111_1111_1111_fff0
    );
    assert_eq!(
        run(&[0x48, 0x63, 0x08], 0x8000_0000).gprs[1],
        0xffff_ffff_8000_0000
    );
    assert_eq!(run(&[0x48, 0x0f, 0xbf, 0x08], 0x7fff).gprs[1], 0x7fff);
    assert_eq!(run(&[0x8b, 0x08], 0).access, Access::Read);
}

#[test]
fn stores_cut_to_size() {
    // mov [rax], cl; mov [rax], ch; mov [rax], ecx; mov [rax], r15.
    assert_eq!(run(&[0x88, 0x08], 0).stored, Some(0x11));
    assert_eq!(run(&[0x88, 0x38], 0).stored, Some(0x33));
    assert_eq!(run(&[0x89, 0x08], 0).stored, Some(0x1111_1111));
    assert_eq!(
        run(&[0x4c, 0x89, 0x38], 0).stored,
        Some(0xffff_ffff_ffff_ffff)
    );
    // mov dword [rax], -2; mov qword [rax], -2.
    let minus_two = [0xfe, 0xff, 0xff, 0xff];
    let bytes = [&[0xc7, 0x00][..], &minus_two].concat();
    assert_eq!(run(&bytes, 0).stored, Some(0xffff_fffe));
    let bytes = [&[0x48, 0xc7, 0x00][..], &minus_two].concat();
    assert_eq!(run(&bytes, 0).stored, Some(u64::MAX - 1));
    assert_eq!(run(&bytes, 0).access, Access::Write);
}

/// How Linux writes EOI: mov dword [abs], 0, as a hot path.
#[test]
fn stored_needs_no_execution() {
    let bytes = [0xc7, 0x04, 0x25, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0];
    let eoi = parse(&bytes, Mode::Bits64);
    assert_eq!(eoi.stored(&gprs()), Some(0));
    assert_eq!(eoi.size, Size::Dword);
    assert_eq!(eoi.address.offset(&gprs(), 0), 0xffff_ffff_fee0_00b0);
    // xchg is no plain store.
    assert_eq!(parse(&[0x87, 0x08], Mode::Bits64).stored(&gprs()), None);
}

#[test]
fn exchange_swaps() {
    let run = run(&[0x87, 0x08], 0xdead_beef);
    assert_eq!(run.stored, Some(0x1111_1111));
    assert_eq!(run.gprs[1], 0xdead_beef);
    assert_eq!(run.access, Access::ReadWrite);
    assert!(parse(&[0x87, 0x08], Mode::Bits64).lock);
}

#[test]
fn string_instructions_step() {
    // stosd up and down, lodsb with 32-bit addresses.
    let up = run(&[0xab], 0);
    assert_eq!((up.stored, up.gprs[7]), (Some(0), 0x7777_7777_7777_777b));
    let down = run_with(&[0xab], 2 | DF, 0);
    assert_eq!(down.gprs[7], 0x7777_7777_7777_7773);
    let lods = run(&[0x67, 0xac], 0x42);
    assert_eq!(lods.gprs[0] & 0xff, 0x42);
    assert_eq!(lods.gprs[6], 0x6666_6667);
    assert_eq!(up.rflags, 2);
    assert!(decode(&[0xf3, 0xab], Mode::Bits64).is_err());
}

#[test]
fn read_modify_write() {
    // lock or dword [rax], 0x100 as kernels do to mask an LVT entry by memory operand.
    let bytes = [0xf0, 0x81, 0x08, 0x00, 0x01, 0x00, 0x00];
    let or = run_with(&bytes, 2 | CF | OF, 0x8000_0001);
    assert_eq!(or.stored, Some(0x8000_0101));
    assert_eq!(or.rflags, 2 | SF);
    // and ecx, [rax].
    let and = run(&[0x23, 0x08], 0x1010_0000);
    assert_eq!((and.stored, and.gprs[1]), (None, 0x1010_0000));
    // cmp [rax], ecx and cmp ecx, [rax] differ in the borrow.
    assert_eq!(run(&[0x39, 0x08], 0).rflags & CF, CF);
    assert_eq!(run(&[0x3b, 0x08], 0).rflags & CF, 0);
    // test dword [rax], 0x1000 writes nothing.
    let bytes = [0xf7, 0x00, 0x00, 0x10, 0x00, 0x00];
    let test = run(&bytes, 0xfff);
    assert_eq!((test.stored, test.rflags & ZF), (None, ZF));
    assert_eq!(test.gprs, gprs());
}

/// Flags by arithmetic in a wider type.
#[test]
fn flags_are_those_of_wide_arithmetic() {
    let edges = [
        0,
        1,
        2,
        0xf,
        0x10,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
    ];
    let more = [
        0x8000_0000,
        0xffff_ffff,
        i64::MAX as u64,
        i64::MIN as u64,
        u64::MAX,
    ];
    let values = || edges.iter().chain(&more).copied();
    for size in [Size::Byte, Size::Word, Size::Dword, Size::Qword] {
        let bits = u32::from(size.bytes()) * 8;
        let signed = |v: u64| i128::from((v << (64 - bits)) as i64 >> (64 - bits));
        for (a, b) in values().flat_map(|a| values().map(move |b| (a, b))) {
            for alu in [Alu::Add, Alu::Sub, Alu::And, Alu::Or, Alu::Xor] {
                let (x, y) = (i128::from(a & size.mask()), i128::from(b & size.mask()));
                let (wide, wide_signed, nibble) = match alu {
                    Alu::Add => (x + y, signed(a) + signed(b), (x & 15) + (y & 15) > 15),
                    Alu::Sub => (x - y, signed(a) - signed(b), (x & 15) < (y & 15)),
                    Alu::And => (x & y, signed(a) & signed(b), false),
                    Alu::Or => (x | y, signed(a) | signed(b), false),
                    Alu::Xor => (x ^ y, signed(a) ^ signed(b), false),
                };
                let result = wide as u64 & size.mask();
                let mut expected = 2 | DF;
                for (on, flag) in [
                    (wide != i128::from(result), CF),
                    ((result & 0xff).count_ones() % 2 == 0, PF),
                    (nibble, AF),
                    (result == 0, ZF),
                    (signed(result) < 0, SF),
                    (signed(result) != wide_signed, OF),
                ] {
                    expected |= if on { flag } else { 0 };
                }
                let got = alu.apply(a, b, size, 2 | DF | CF | AF | OF);
                assert_eq!(got, (result, expected), "{alu:?} {a:x} {b:x} {size:?}");
            }
        }
    }
}

#[test]
fn addresses() {
    let at = |bytes: &[u8], mode| parse(bytes, mode).address.offset(&gprs(), 0x1000);
    // mov eax, [rip + 0x10], with 64-bit and with 32-bit addresses.
    assert_eq!(at(&[0x8b, 0x05, 0x10, 0, 0, 0], Mode::Bits64), 0x1010);
    assert_eq!(
        at(&[0x67, 0x8b, 0x05, 0, 0xf0, 0xff, 0xff], Mode::Bits64),
        0
    );
    // The same bytes in 32-bit code: absolute.
    assert_eq!(at(&[0x8b, 0x05, 0x10, 0, 0, 0], Mode::Bits32), 0x10);
    // mov eax, [rcx + rdx*4 - 1].
    let expected = 0x1111_1111_1111_1111_u64.wrapping_add(0x2222_2222_2222_2222 << 2) - 1;
    assert_eq!(at(&[0x8b, 0x44, 0x91, 0xff], Mode::Bits64), expected);
    // mov ax, [bx + si]: wraps at 64 KiB.
    assert_eq!(at(&[0x8b, 0x00], Mode::Bits16), 0x9999);
    assert_eq!(at(&[0x8b, 0x82, 0xff, 0xff], Mode::Bits16), 0xbbba);
}
