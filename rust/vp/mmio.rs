// SPDX-License-Identifier: GPL-2.0

//! Memory that the module serves itself, for which it decodes a few instructions: the APIC page of
//! xAPIC mode, and addresses of ioeventfds.

use super::core::{Deferred, VpCore};
use super::exits::ipi::effect_of;
use super::gva;
use super::message::{Capture, Message};
use super::Vp;
use crate::partition::ioeventfd::Bus;
use crate::partition::memory::{Access as Right, Resolved};
use crate::partition::Partition;
use decode::{decode, Access, Instruction, Mode};
use hvdef::HvVpCounter;
use kernel::error::Result;
use x86def::cr;

/// Whether `gpa` is in the APIC page as the guest has it now.
pub(super) fn is_apic_page(core: &VpCore, gpa: u64) -> bool {
    core.lapic.mode() == vapic::Mode::XApic && gpa & !0xfff == core.lapic.base()
}

/// Executes the instruction that accessed the APIC page. True: `message` is for the VMM.
///
/// What hvrs does not decode goes to the VMM as an access to unmapped memory.
pub(super) fn apic_access(
    vp: &Vp,
    partition: &Partition,
    core: &mut VpCore,
    capture: &Capture,
    gpa: u64,
    message: &mut Message,
) -> Result<bool> {
    let bytes = gva::fetch(partition, capture);
    let Some(instruction) = instruction(capture, &bytes) else {
        message.memory(
            vp.index,
            capture,
            Resolved::Unmapped,
            Right::Read,
            gpa,
            None,
            &bytes,
        );
        return Ok(true);
    };
    core.stats.count(HvVpCounter::ApicMmioAccesses);
    core.stats.count(HvVpCounter::EmulatedInstructionsCount);
    let now = core.guest_now();
    let offset = (gpa & 0xfff) as u16;
    let size = instruction.size.bytes();
    let memory = match instruction.access() {
        Access::Write => 0,
        Access::Read | Access::ReadWrite => core.lapic.mmio_read(offset, size, now),
    };
    let mut gprs = core.gprs;
    gprs[super::core::RSP] = capture.rsp;
    let mut rflags = capture.rflags;
    let stored = instruction.execute(&mut gprs, &mut rflags, memory);
    core.deferred = Deferred::Emulated {
        length: instruction.len,
        rsp: gprs[super::core::RSP],
        rflags,
    };
    core.gprs = gprs;
    let Some(value) = stored else {
        return Ok(false);
    };
    let effect = core.lapic.mmio_write(offset, size, value as u32, now);
    let mut kicks = 0;
    let eoi = effect_of(core, &vp.shared, partition, effect, &mut kicks);
    partition.kick_all(kicks);
    if let Some(vector) = eoi.filter(|&vector| !partition.resample(vector)) {
        message.apic_eoi(vp.index, vector);
        return Ok(true);
    }
    Ok(false)
}

fn instruction(capture: &Capture, bytes: &gva::Bytes) -> Option<Instruction> {
    let mode = if capture.efer & cr::EFER_LMA != 0 && capture.cs.attributes & 1 << 13 != 0 {
        Mode::Bits64
    } else if capture.cs.attributes & 1 << 14 != 0 {
        Mode::Bits32
    } else {
        Mode::Bits16
    };
    let code = bytes.bytes.get(..bytes.len as usize).unwrap_or(&[]);
    decode(code, mode).ok()
}

/// Executes a store to `gpa` if it signals an ioeventfd. False: it is for the VMM.
pub(super) fn io_event(
    partition: &Partition,
    core: &mut VpCore,
    capture: &Capture,
    gpa: u64,
) -> bool {
    // While an event is delivered, it is not the instruction at RIP that writes.
    if !partition.ioeventfds.is_at(Bus::Memory, gpa) || capture.injecting {
        return false;
    }
    let Some(instruction) = instruction(capture, &gva::fetch(partition, capture)) else {
        return false;
    };
    let size = instruction.size.bytes();
    let in_page = (gpa & 0xfff) + u64::from(size) <= 0x1000;
    if instruction.access() != Access::Write || !in_page {
        return false;
    }
    let mut gprs = core.gprs;
    gprs[super::core::RSP] = capture.rsp;
    let mut rflags = capture.rflags;
    let Some(value) = instruction.execute(&mut gprs, &mut rflags, 0) else {
        return false;
    };
    let done = partition
        .ioeventfds
        .write(Bus::Memory, gpa, u32::from(size), value);
    if done {
        core.stats.count(HvVpCounter::EmulatedInstructionsCount);
        core.deferred = Deferred::Emulated {
            length: instruction.len,
            rsp: gprs[super::core::RSP],
            rflags,
        };
        core.gprs = gprs;
    }
    done
}
