// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What iced-x86 says about an instruction, in the decoder's terms.

use decode::{
    Address, AddressSize, Alu, DecodeError, Extend, Instruction, Mode, Operand, Operation,
    Register, Segment, Size,
};
use iced_x86::{Code, CodeSize, Decoder, DecoderError, DecoderOptions, Mnemonic, OpKind};

/// Compares and counts.
#[derive(Default)]
pub struct Checker {
    /// Instructions that both knew.
    pub known: u64,
}

impl Checker {
    pub fn check(&mut self, bytes: &[u8], mode: Mode) {
        let bitness = match mode {
            Mode::Bits16 => 16,
            Mode::Bits32 => 32,
            Mode::Bits64 => 64,
        };
        let mut decoder = Decoder::with_ip(bitness, bytes, 0, DecoderOptions::NONE);
        let reference = decoder.decode();
        let error = decoder.last_error();
        let expected = match error {
            DecoderError::None => translate(&reference, mode),
            _ => None,
        };
        let got = decode::decode(bytes, mode);
        match (&got, &expected) {
            (Ok(_), _) | (_, Some(_)) => {
                assert_eq!(
                    got.ok(),
                    expected,
                    "{mode:?} {bytes:02x?}: {got:?}, {reference:?}"
                );
                self.known += 1;
            }
            // What is cut off may be anything; what is complete must not be called cut off.
            (Err(DecodeError::Truncated), None) => {
                let cut = error == DecoderError::NoMoreBytes;
                assert!(
                    cut || reference.is_invalid(),
                    "{mode:?} {bytes:02x?}: {reference:?} called truncated"
                );
            }
            (Err(_), None) => {}
        }
    }
}

fn translate(i: &iced_x86::Instruction, mode: Mode) -> Option<Instruction> {
    let memory = (0..i.op_count()).find(|&n| is_memory(i.op_kind(n)))?;
    let alu = alu(i.mnemonic());
    let repeat = i.has_rep_prefix() || i.has_repne_prefix();
    let operation = match (i.mnemonic(), alu) {
        (Mnemonic::Mov, _) if memory == 0 => Operation::Store {
            from: operand(i, 1)?,
        },
        (Mnemonic::Mov, _) => load(i, Extend::Zero)?,
        (Mnemonic::Movzx, _) => load(i, Extend::Zero)?,
        (Mnemonic::Movsx | Mnemonic::Movsxd, _) => load(i, Extend::Sign)?,
        (Mnemonic::Xchg, _) => Operation::Exchange {
            with: register(i, 1 - memory)?,
        },
        (Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq, _) if !repeat => {
            Operation::StoreString
        }
        (Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq, _) if !repeat => {
            Operation::LoadString
        }
        (Mnemonic::Cmp | Mnemonic::Test, Some(alu)) => Operation::Compare {
            alu,
            with: operand(i, 1 - memory)?,
            reversed: memory == 1,
        },
        (_, Some(alu)) if memory == 0 => Operation::ReadModifyWrite {
            alu,
            with: operand(i, 1)?,
        },
        (_, Some(alu)) => Operation::LoadModify {
            alu,
            to: register(i, 0)?,
        },
        _ => return None,
    };
    let size = match (operation, i.memory_size().size()) {
        (_, 1) => Size::Byte,
        (_, 2) => Size::Word,
        (_, 4) => Size::Dword,
        (_, 8) => Size::Qword,
        _ => return None,
    };
    // TEST with extension 1 is an undocumented twin, 82 one of 80: both are left to the VMM.
    if matches!(
        i.code(),
        Code::Test_rm8_imm8_F6r1 | Code::Test_rm16_imm16_F7r1
    ) || matches!(
        i.code(),
        Code::Test_rm32_imm32_F7r1 | Code::Test_rm64_imm32_F7r1
    ) || format!("{:?}", i.code()).ends_with("_82")
        || moves_special_register(i)
    {
        return None;
    }
    Some(Instruction {
        len: u8::try_from(i.len()).ok()?,
        size,
        operation,
        address: address(i, memory, mode)?,
        lock: i.has_lock_prefix() || matches!(operation, Operation::Exchange { .. }),
    })
}

/// MOV of segment registers (8C, 8E): left to the VMM.
fn moves_special_register(i: &iced_x86::Instruction) -> bool {
    (0..i.op_count())
        .any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_segment_register())
}

fn alu(mnemonic: Mnemonic) -> Option<Alu> {
    Some(match mnemonic {
        Mnemonic::Add => Alu::Add,
        Mnemonic::Or => Alu::Or,
        Mnemonic::And | Mnemonic::Test => Alu::And,
        Mnemonic::Sub | Mnemonic::Cmp => Alu::Sub,
        Mnemonic::Xor => Alu::Xor,
        _ => return None,
    })
}

fn is_memory(kind: OpKind) -> bool {
    matches!(kind, OpKind::Memory) || string_address(kind).is_some()
}

/// The implied address of a string instruction.
fn string_address(kind: OpKind) -> Option<(u8, AddressSize)> {
    Some(match kind {
        OpKind::MemorySegSI => (6, AddressSize::Bits16),
        OpKind::MemorySegESI => (6, AddressSize::Bits32),
        OpKind::MemorySegRSI => (6, AddressSize::Bits64),
        OpKind::MemoryESDI => (7, AddressSize::Bits16),
        OpKind::MemoryESEDI => (7, AddressSize::Bits32),
        OpKind::MemoryESRDI => (7, AddressSize::Bits64),
        _ => return None,
    })
}

fn load(i: &iced_x86::Instruction, extend: Extend) -> Option<Operation> {
    Some(Operation::Load {
        to: register(i, 0)?,
        extend,
    })
}

fn operand(i: &iced_x86::Instruction, n: u32) -> Option<Operand> {
    match i.op_kind(n) {
        OpKind::Register => Some(Operand::Register(register(i, n)?)),
        OpKind::Immediate8 => Some(Operand::Immediate(i.immediate8() as i8 as u64)),
        OpKind::Immediate16 => Some(Operand::Immediate(i.immediate16() as i16 as u64)),
        OpKind::Immediate32 => Some(Operand::Immediate(i.immediate32() as i32 as u64)),
        OpKind::Immediate8to16 => Some(Operand::Immediate(i.immediate8to16() as u64)),
        OpKind::Immediate8to32 => Some(Operand::Immediate(i.immediate8to32() as u64)),
        OpKind::Immediate8to64 => Some(Operand::Immediate(i.immediate8to64() as u64)),
        OpKind::Immediate32to64 => Some(Operand::Immediate(i.immediate32to64() as u64)),
        _ => None,
    }
}

fn register(i: &iced_x86::Instruction, n: u32) -> Option<Register> {
    use iced_x86::Register as R;
    if i.op_kind(n) != OpKind::Register {
        return None;
    }
    let register = i.op_register(n);
    if !register.is_gpr() {
        return None;
    }
    let high = matches!(register, R::AH | R::CH | R::DH | R::BH);
    Some(Register {
        number: number(register),
        high,
        size: match register.size() {
            1 => Size::Byte,
            2 => Size::Word,
            4 => Size::Dword,
            _ => Size::Qword,
        },
    })
}

fn number(register: iced_x86::Register) -> u8 {
    register.full_register().number() as u8
}

fn address(i: &iced_x86::Instruction, memory: u32, mode: Mode) -> Option<Address> {
    use iced_x86::Register as R;
    // In 64-bit mode iced reports the prefixes that have no effect there, too.
    let null = mode == Mode::Bits64 && matches!(i.segment_prefix(), R::ES | R::CS | R::SS | R::DS);
    let stack = matches!(i.memory_base(), R::RSP | R::RBP | R::ESP | R::EBP);
    let segment = match i.memory_segment() {
        _ if null && stack => Segment::Ss,
        _ if null => Segment::Ds,
        R::ES => Segment::Es,
        R::CS => Segment::Cs,
        R::SS => Segment::Ss,
        R::FS => Segment::Fs,
        R::GS => Segment::Gs,
        _ => Segment::Ds,
    };
    if let Some((base, size)) = string_address(i.op_kind(memory)) {
        let segment = if base == 7 { Segment::Es } else { segment };
        return Some(Address {
            segment,
            base: Some(base),
            index: None,
            shift: 0,
            displacement: 0,
            rip_relative: false,
            size,
        });
    }
    let rip_relative = i.is_ip_rel_memory_operand();
    let part = |r: R| (r != R::None && !rip_relative).then(|| number(r));
    let (base, index) = (part(i.memory_base()), part(i.memory_index()));
    let size = address_size(i, mode);
    // iced adds RIP to the displacement.
    let next_rip = if rip_relative { i.next_ip() } else { 0 };
    let displacement = i.memory_displacement64().wrapping_sub(next_rip) & size.mask();
    Some(Address {
        segment,
        base,
        index,
        // iced keeps the scale of a SIB byte without index.
        shift: index.map_or(0, |_| i.memory_index_scale().trailing_zeros() as u8),
        displacement,
        rip_relative,
        size,
    })
}

/// The address size, from the registers, or from the prefixes when there are none.
fn address_size(i: &iced_x86::Instruction, mode: Mode) -> AddressSize {
    use iced_x86::Register as R;
    for r in [i.memory_base(), i.memory_index()] {
        match (r, r.size()) {
            (R::None, _) => {}
            (_, 2) => return AddressSize::Bits16,
            (_, 4) => return AddressSize::Bits32,
            _ => return AddressSize::Bits64,
        }
    }
    debug_assert_ne!(i.code_size(), CodeSize::Unknown);
    match (i.memory_displ_size(), mode) {
        (2, _) => AddressSize::Bits16,
        (8, _) => AddressSize::Bits64,
        (4, Mode::Bits16 | Mode::Bits32) => AddressSize::Bits32,
        _ => AddressSize::Bits32,
    }
}
