// SPDX-License-Identifier: GPL-2.0

//! I/O that the module serves itself, in the warm tier: the APIC page of xAPIC mode, for which it decodes a few
//! instructions, and writes that signal ioeventfds.

use super::core::{VpCore, RAX, RSP};
use super::entry::Running;
use super::exits::ipi::effect_of;
use super::exits::{advance, emulated, Leave};
use super::gva::{Code, Context};
use crate::partition::ioeventfd::Bus;
use decode::{decode, Access, Instruction, Mode};
use hvdef::HvVpCounter;
use vmxdef::exit::{EptViolation, IoAccess};
use vmxdef::field::*;

/// Whether `gpa` is in the APIC page as the guest has it now.
pub(super) fn is_apic_page(core: &VpCore, gpa: u64) -> bool {
    core.lapic.mode() == vapic::Mode::XApic && gpa & !0xfff == core.lapic.base()
}

/// The instruction that made the exit, if it touched what is probably no memory. Before guest mode is left: its bytes
/// are read where they are.
pub(super) fn code(r: &Running<'_>) -> Option<Code> {
    match r.leave {
        Leave::Memory { gpa, .. } if !r.core.ram.contains(&gpa) => Some(Code::fetch(
            &r.partition.memory.space,
            Context::new(&r.window.vmcs),
        )),
        _ => None,
    }
}

/// Executes the instruction that made the exit if all that it does is done here: then the loop goes on.
pub(super) fn serve(r: &mut Running<'_>) {
    match r.leave {
        Leave::Io(qualification) => write_port(r, IoAccess(qualification)),
        // Else the CPU reads, or marks, a paging structure: that is not the instruction's access.
        Leave::Memory {
            gpa, qualification, ..
        } if qualification.gla_translated() => {
            if is_apic_page(r.core, gpa) {
                access(r, gpa, true);
            } else if qualification.write() && r.partition.ioeventfds.is_at(Bus::Memory, gpa) {
                let space = &r.partition.memory.space;
                match space.is_memory(gpa, &mut r.core.no_memory) {
                    Some(false) => access(r, gpa, false),
                    Some(true) => {}
                    // The instruction runs again.
                    None => r.leave = Leave::Again,
                }
            }
        }
        _ => {}
    }
}

/// An OUT to a port may signal an ioeventfd, and is done then. String instructions are left to the VMM.
fn write_port(r: &mut Running<'_>, access: IoAccess) {
    if access.is_in() || access.is_string() {
        return;
    }
    let len = u32::from(access.size());
    let value = r.core.gprs[RAX] & u64::MAX >> (64 - 8 * len.clamp(1, 8));
    let port = u64::from(access.port());
    if r.partition.ioeventfds.write(Bus::Port, port, len, value) {
        advance(r);
        r.leave = Leave::Again;
    }
}

/// An access of the APIC page, or to where an ioeventfd is. What hvrs does not decode is the VMM's.
fn access(r: &mut Running<'_>, gpa: u64, apic: bool) {
    let Some(code) = &r.code else {
        return;
    };
    // While an event is delivered, it is not the instruction at RIP that accesses memory.
    if r.core.injection.is_some() {
        return;
    }
    let Some(instruction) = instruction(code) else {
        // As if the guest had read it: the page comes, and the instruction runs again.
        if let Some(gpa) = code.missing {
            r.leave = Leave::Memory {
                gpa,
                gla: 0,
                qualification: EptViolation::READ,
            };
        }
        return;
    };
    let mut gprs = r.core.gprs;
    gprs[RSP] = r.window.vmcs.read(GUEST_RSP);
    let mut rflags = code.context.rflags;
    let leave = if apic {
        apic_access(r, &instruction, gpa, &mut gprs, &mut rflags)
    } else {
        doorbell(r, &instruction, gpa, &mut gprs, &mut rflags)
    };
    if let Some(leave) = leave {
        r.core.stats.count(HvVpCounter::EmulatedInstructionsCount);
        emulated(r, instruction.len, &gprs, rflags);
        r.leave = leave;
    }
}

fn apic_access(
    r: &mut Running<'_>,
    instruction: &Instruction,
    gpa: u64,
    gprs: &mut [u64; 16],
    rflags: &mut u64,
) -> Option<Leave> {
    let core = &mut *r.core;
    core.stats.count(HvVpCounter::ApicMmioAccesses);
    let now = core.guest_now();
    let offset = (gpa & 0xfff) as u16;
    let size = instruction.size.bytes();
    let memory = match instruction.access() {
        Access::Write => 0,
        Access::Read | Access::ReadWrite => core.lapic.mmio_read(offset, size, now),
    };
    let Some(value) = instruction.execute(gprs, rflags, memory) else {
        return Some(Leave::Again);
    };
    let effect = core.lapic.mmio_write(offset, size, value as u32, now);
    let ended = effect_of(core, r.shared, r.partition, effect, &mut r.kicks);
    Some(ended.map_or(Leave::Again, Leave::Eoi))
}

fn doorbell(
    r: &Running<'_>,
    instruction: &Instruction,
    gpa: u64,
    gprs: &mut [u64; 16],
    rflags: &mut u64,
) -> Option<Leave> {
    let size = instruction.size.bytes();
    let in_page = (gpa & 0xfff) + u64::from(size) <= 0x1000;
    if instruction.access() != Access::Write || !in_page {
        return None;
    }
    let value = instruction.execute(gprs, rflags, 0)?;
    let ioeventfds = &r.partition.ioeventfds;
    ioeventfds
        .write(Bus::Memory, gpa, u32::from(size), value)
        .then_some(Leave::Again)
}

fn instruction(code: &Code) -> Option<Instruction> {
    let context = &code.context;
    let mode = if context.is_64_bit() {
        Mode::Bits64
    } else if context.cs.attributes & 1 << 14 != 0 {
        Mode::Bits32
    } else {
        Mode::Bits16
    };
    decode(code.bytes.get(), mode).ok()
}
