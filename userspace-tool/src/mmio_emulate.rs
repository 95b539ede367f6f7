// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Carries out the one instruction of a guest that touched an address without RAM.
//!
//! The module hands over the instruction's bytes; iced-x86 decodes them. What kernels use on device memory is here
//! (MOV and its kin, the ALU and bit operations, XCHG, the string instructions); another instruction is an error, which ends the VM.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use thiserror::Error;

/// General registers, RIP and RFLAGS. Registers are in the order of their encoding: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8…
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuState {
    /// RAX to R15.
    pub gpr: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
}

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const DF: u64 = 1 << 10;
const OF: u64 = 1 << 11;

/// Memory as the instruction sees it.
pub trait Memory {
    /// Reads at the faulting guest physical address.
    fn read_device(&mut self, data: &mut [u8]);
    /// Writes at the faulting guest physical address.
    fn write_device(&mut self, data: &[u8]);
    /// Reads the other operand of a MOVS: RAM or a device, by linear address.
    fn read_linear(&mut self, address: u64, data: &mut [u8]) -> Result<(), EmulateError>;
    /// Writes the other operand of a MOVS.
    fn write_linear(&mut self, address: u64, data: &[u8]) -> Result<(), EmulateError>;
    /// Base of a segment register, for the other operand of a MOVS.
    fn segment_base(&self, segment: Register) -> u64;
}

/// Why an instruction was not carried out.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EmulateError {
    /// The bytes are no instruction, or not all of it.
    #[error("the instruction bytes {0:02x?} cannot be decoded")]
    Undecodable(Vec<u8>),
    /// The instruction is not among those carried out.
    #[error("the instruction `{0}` on device memory is not supported")]
    Unsupported(String),
    /// The other operand's address does not translate: the guest's page fault.
    #[error("the linear address {address:#x} cannot be translated")]
    PageFault {
        /// The address.
        address: u64,
        /// It was to be written.
        write: bool,
        /// It is there, but not to be accessed so.
        present: bool,
    },
    /// The other operand's address is not RAM.
    #[error("the linear address {0:#x} cannot be translated")]
    Unmapped(u64),
}

/// Carries out the instruction `bytes` at `cpu.rip`. `device_written` says whether the access that faulted was a write.
pub fn emulate(
    cpu: &mut CpuState,
    bytes: &[u8],
    bitness: u32,
    device_written: bool,
    memory: &mut impl Memory,
) -> Result<(), EmulateError> {
    let mut decoder = Decoder::with_ip(bitness, bytes, cpu.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return Err(EmulateError::Undecodable(bytes.to_vec()));
    }
    let finished = execute(cpu, &instruction, device_written, memory)?;
    if finished {
        cpu.rip = match bitness {
            64 => instruction.next_ip(),
            32 => instruction.next_ip() & 0xffff_ffff,
            _ => instruction.next_ip() & 0xffff,
        };
    }
    Ok(())
}

fn execute(
    cpu: &mut CpuState,
    i: &Instruction,
    device_written: bool,
    memory: &mut impl Memory,
) -> Result<bool, EmulateError> {
    use Mnemonic::*;
    match i.mnemonic() {
        Stosb | Stosw | Stosd | Stosq | Movsb | Movsw | Movsd | Movsq | Lodsb | Lodsw | Lodsd
        | Lodsq
            if i.is_string_instruction() =>
        {
            return string(cpu, i, device_written, memory);
        }
        _ => {}
    }
    let size = i.memory_size().size();
    if !matches!(size, 1 | 2 | 4 | 8) || !(0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory)
    {
        return Err(unsupported(i));
    }
    let memory_first = i.op0_kind() == OpKind::Memory;
    match i.mnemonic() {
        Mov if memory_first => {
            let value = operand(cpu, i, 1)?;
            store(memory, value, size);
        }
        Mov | Movzx => {
            let value = load(memory, size);
            set_register(cpu, i.op0_register(), value);
        }
        Movsx | Movsxd => {
            let value = sign_extend(load(memory, size), size);
            set_register(cpu, i.op0_register(), value);
        }
        Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test => {
            let device = load(memory, size);
            let other = operand(cpu, i, u32::from(memory_first))?;
            let (left, right) = if memory_first {
                (device, other)
            } else {
                (other, device)
            };
            let result = alu(i.mnemonic(), left, right, size, &mut cpu.rflags);
            if !matches!(i.mnemonic(), Cmp | Test) {
                if memory_first {
                    store(memory, result, size);
                } else {
                    set_register(cpu, i.op0_register(), result);
                }
            }
        }
        Inc | Dec => {
            let carry = cpu.rflags & CF;
            let kind = if i.mnemonic() == Inc { Add } else { Sub };
            let result = alu(kind, load(memory, size), 1, size, &mut cpu.rflags);
            cpu.rflags = cpu.rflags & !CF | carry;
            store(memory, result, size);
        }
        Not => {
            let value = !load(memory, size);
            store(memory, value, size);
        }
        Neg => {
            let result = alu(Sub, 0, load(memory, size), size, &mut cpu.rflags);
            store(memory, result, size);
        }
        Xchg => {
            let register = if memory_first {
                i.op1_register()
            } else {
                i.op0_register()
            };
            let device = load(memory, size);
            store(memory, register_value(cpu, register), size);
            set_register(cpu, register, device);
        }
        // With a register as bit index the address depends on it; only an immediate stays in the operand.
        Bt | Bts | Btr | Btc if i.op1_kind() == OpKind::Immediate8 => {
            let bit = 1u64 << (u32::from(i.immediate8()) % (8 * size as u32));
            let value = load(memory, size);
            cpu.rflags = cpu.rflags & !CF | if value & bit != 0 { CF } else { 0 };
            match i.mnemonic() {
                Bts => store(memory, value | bit, size),
                Btr => store(memory, value & !bit, size),
                Btc => store(memory, value ^ bit, size),
                _ => {}
            }
        }
        _ => return Err(unsupported(i)),
    }
    Ok(true)
}

/// One iteration of a string instruction; true when the instruction is finished. Between iterations the guest runs again.
fn string(
    cpu: &mut CpuState,
    i: &Instruction,
    device_written: bool,
    memory: &mut impl Memory,
) -> Result<bool, EmulateError> {
    use Mnemonic::*;
    let address_mask = match i.op_kind(0).max(i.op_kind(1)) {
        _ if uses(i, &[OpKind::MemoryESRDI, OpKind::MemorySegRSI]) => u64::MAX,
        _ if uses(i, &[OpKind::MemoryESEDI, OpKind::MemorySegESI]) => 0xffff_ffff,
        _ => 0xffff,
    };
    let repeated = i.has_rep_prefix() || i.has_repne_prefix();
    if repeated && cpu.gpr[RCX] & address_mask == 0 {
        return Ok(true);
    }
    let size = i.memory_size().size();
    let mut data = [0; 8];
    let data = &mut data[..size];
    let step = if cpu.rflags & DF != 0 {
        (size as u64).wrapping_neg()
    } else {
        size as u64
    };
    match i.mnemonic() {
        Stosb | Stosw | Stosd | Stosq => {
            data.copy_from_slice(&cpu.gpr[0].to_le_bytes()[..size]);
            memory.write_device(data);
            advance(cpu, RDI, step, address_mask);
        }
        Lodsb | Lodsw | Lodsd | Lodsq => {
            memory.read_device(data);
            let value = from_bytes(data);
            set_register(cpu, i.op0_register(), value);
            advance(cpu, RSI, step, address_mask);
        }
        _ => {
            if device_written {
                let source = memory
                    .segment_base(i.memory_segment())
                    .wrapping_add(cpu.gpr[RSI] & address_mask);
                memory.read_linear(source, data)?;
                memory.write_device(data);
            } else {
                memory.read_device(data);
                let target = memory
                    .segment_base(Register::ES)
                    .wrapping_add(cpu.gpr[RDI] & address_mask);
                memory.write_linear(target, data)?;
            }
            advance(cpu, RSI, step, address_mask);
            advance(cpu, RDI, step, address_mask);
        }
    }
    if repeated {
        advance(cpu, RCX, u64::MAX, address_mask);
        return Ok(cpu.gpr[RCX] & address_mask == 0);
    }
    Ok(true)
}

fn uses(i: &Instruction, kinds: &[OpKind]) -> bool {
    (0..i.op_count()).any(|n| kinds.contains(&i.op_kind(n)))
}

/// Adds `step` to a register with the instruction's address size.
pub fn advance(cpu: &mut CpuState, register: usize, step: u64, mask: u64) {
    let sum = cpu.gpr[register].wrapping_add(step);
    cpu.gpr[register] = match mask {
        // A 32-bit address register is written like any 32-bit register: the upper half becomes zero.
        0xffff_ffff => sum & mask,
        _ => cpu.gpr[register] & !mask | sum & mask,
    };
}

fn load(memory: &mut impl Memory, size: usize) -> u64 {
    let mut data = [0; 8];
    memory.read_device(&mut data[..size]);
    u64::from_le_bytes(data)
}

fn store(memory: &mut impl Memory, value: u64, size: usize) {
    memory.write_device(&value.to_le_bytes()[..size]);
}

fn from_bytes(data: &[u8]) -> u64 {
    let mut value = [0; 8];
    value[..data.len()].copy_from_slice(data);
    u64::from_le_bytes(value)
}

fn sign_extend(value: u64, size: usize) -> u64 {
    let shift = 64 - 8 * size as u32;
    ((value << shift) as i64 >> shift) as u64
}

/// A register or immediate operand.
fn operand(cpu: &CpuState, i: &Instruction, n: u32) -> Result<u64, EmulateError> {
    match i.op_kind(n) {
        OpKind::Register if is_gpr(i.op_register(n)) => Ok(register_value(cpu, i.op_register(n))),
        OpKind::Register => Err(unsupported(i)),
        _ => i.try_immediate(n).map_err(|_| unsupported(i)),
    }
}

fn is_gpr(register: Register) -> bool {
    register.is_gpr()
}

fn high_byte(register: Register) -> Option<usize> {
    match register {
        Register::AH => Some(0),
        Register::CH => Some(1),
        Register::DH => Some(2),
        Register::BH => Some(3),
        _ => None,
    }
}

fn register_value(cpu: &CpuState, register: Register) -> u64 {
    if let Some(index) = high_byte(register) {
        return (cpu.gpr[index] >> 8) & 0xff;
    }
    let value = cpu.gpr[register.full_register().number() & 15];
    match register.size() {
        1 => value & 0xff,
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    }
}

fn set_register(cpu: &mut CpuState, register: Register, value: u64) {
    if let Some(index) = high_byte(register) {
        cpu.gpr[index] = cpu.gpr[index] & !0xff00 | ((value & 0xff) << 8);
        return;
    }
    let target = &mut cpu.gpr[register.full_register().number() & 15];
    *target = match register.size() {
        1 => *target & !0xff | value & 0xff,
        2 => *target & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
}

/// The result of a two-operand operation, and its flags (SDM volume 1, appendix A).
fn alu(kind: Mnemonic, left: u64, right: u64, size: usize, rflags: &mut u64) -> u64 {
    let bits = 8 * size as u32;
    let mask = u64::MAX >> (64 - bits);
    let sign = 1u64 << (bits - 1);
    let (left, right) = (left & mask, right & mask);
    let carry_in = match kind {
        Mnemonic::Adc | Mnemonic::Sbb => u128::from(*rflags & CF),
        _ => 0,
    };
    let (wide, overflow) = match kind {
        Mnemonic::Add | Mnemonic::Adc => {
            let wide = u128::from(left) + u128::from(right) + carry_in;
            (
                wide,
                (left ^ wide as u64) & (right ^ wide as u64) & sign != 0,
            )
        }
        Mnemonic::Sub | Mnemonic::Sbb | Mnemonic::Cmp => {
            let wide = u128::from(left)
                .wrapping_sub(u128::from(right))
                .wrapping_sub(carry_in);
            (wide, (left ^ right) & (left ^ wide as u64) & sign != 0)
        }
        Mnemonic::Or => ((left | right).into(), false),
        Mnemonic::Xor => ((left ^ right).into(), false),
        _ => ((left & right).into(), false),
    };
    let result = wide as u64 & mask;
    let carry = (wide >> bits) & 1 != 0;
    let arithmetic = matches!(
        kind,
        Mnemonic::Add | Mnemonic::Adc | Mnemonic::Sub | Mnemonic::Sbb | Mnemonic::Cmp
    );
    let adjust = arithmetic && (left ^ right ^ result) & 0x10 != 0;
    let parity = (result as u8).count_ones() % 2 == 0;
    let mut flags = *rflags & !(CF | PF | AF | ZF | SF | OF);
    for (set, flag) in [
        (carry, CF),
        (parity, PF),
        (adjust, AF),
        (result == 0, ZF),
        (result & sign != 0, SF),
        (overflow, OF),
    ] {
        if set {
            flags |= flag;
        }
    }
    *rflags = flags;
    result
}

fn unsupported(i: &Instruction) -> EmulateError {
    EmulateError::Unsupported(format!("{:?}", i.code()))
}

#[cfg(test)]
#[path = "mmio_emulate_tests.rs"]
mod tests;
