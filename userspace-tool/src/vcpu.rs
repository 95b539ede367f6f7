// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One virtual processor: RUN_VP, and what each message asks for.

use std::sync::Arc;

use ::hvdef::HV_X64_MSR_CRASH_CTL;
use iced_x86::Register;
use mshv_bindings::*;
use mshv_ioctls::{MshvError, VcpuFd};
use vm_memory::{Bytes, GuestAddress};

use crate::crash;
use crate::devices::bus::Bus;
use crate::devices::debugger::Debugger;
use crate::memory::GuestMemoryMmap;
use crate::mmio_emulate::{self, EmulateError};
use crate::mshv::{self, Message, PortAccess};
use crate::outcome::{ExitSlot, Outcome};
use crate::registers;

/// What all VPs of a VM share.
pub struct Machine {
    /// Devices.
    pub bus: Bus,
    /// RAM.
    pub memory: GuestMemoryMmap,
    /// What the guest's kernel debugger talks to.
    pub debugger: Option<Debugger>,
    /// Where the end of the run is reported.
    pub exit: Arc<ExitSlot>,
}

/// A virtual processor and its machine.
pub struct Vp {
    index: u32,
    fd: VcpuFd,
    machine: Arc<Machine>,
}

/// A message that ends the run; boxed, because it is rare.
type Ended = Box<Outcome>;

impl Vp {
    /// VP `index` of `machine`.
    pub fn new(index: u32, fd: VcpuFd, machine: Arc<Machine>) -> Self {
        Self { index, fd, machine }
    }

    /// Runs the VP until the VM's run ends. Whoever ends it signals this thread so that RUN_VP returns.
    pub fn run(&self) {
        while !self.machine.exit.is_set() {
            match self.fd.run() {
                Ok(message) => {
                    if let Err(outcome) = self.handle(&message) {
                        self.machine.exit.set(*outcome);
                    }
                }
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => self.machine.exit.set(self.failed("RUN_VP", &error)),
            }
        }
    }

    #[inline]
    fn handle(&self, message: &hv_message) -> Result<(), Ended> {
        match mshv::decode(message) {
            Message::Port(message) => self.port(message),
            Message::Memory(message) => self.mmio(message),
            Message::Eoi(vector) => {
                self.machine.bus.ioapic.end_of_interrupt(vector);
                Ok(())
            }
            Message::Msr(message) => self.msr(message),
            Message::Hypercall(message) => self.hypercall(message),
            Message::UnrecoverableException(rip) => self.fault(rip, "triple fault"),
            Message::Reset => Err(Box::new(Outcome::Reset)),
            Message::Nothing => Ok(()),
            Message::Other(kind, rip) => {
                self.fault(rip, &format!("unexpected message {kind:#x} from hvrs"))
            }
        }
    }

    #[inline]
    fn port(&self, message: &hv_x64_io_port_intercept_message) -> Result<(), Ended> {
        let PortAccess {
            size,
            string,
            repeated,
        } = mshv::port_access(message);
        if string {
            return self.string_port(message, size, repeated);
        }
        let rip = next_rip(&message.header);
        let rax = message.rax;
        let rax = if is_write(&message.header) {
            self.machine
                .bus
                .port_out(message.port_number, size, mask(rax, size) as u32);
            None
        } else {
            let value = self.machine.bus.port_in(message.port_number, size);
            Some(merge(rax, value, size))
        };
        registers::set_rip_rax(&self.fd, rip, rax)
            .map_err(|error| Box::new(self.failed("setting registers", &error)))
    }

    /// INS and OUTS, one element at a time: the guest comes back for the next.
    #[cold]
    fn string_port(
        &self,
        message: &hv_x64_io_port_intercept_message,
        size: u8,
        repeated: bool,
    ) -> Result<(), Ended> {
        const RCX: usize = 1;
        const RSI: usize = 6;
        const RDI: usize = 7;
        const DF: u64 = 1 << 10;
        let header = &message.header;
        let mut cpu = registers::cpu_state(&self.fd)
            .map_err(|error| self.failed("reading registers", &error))?;
        let address_mask = string_address_mask(message);
        if !repeated || cpu.gpr[RCX] & address_mask != 0 {
            let (index, base) = if is_write(header) {
                (RSI, self.source_base(message))
            } else {
                (RDI, { message.es_segment.base })
            };
            let address = base.wrapping_add(cpu.gpr[index] & address_mask);
            let mut data = [0; 4];
            let data = &mut data[..usize::from(size.min(4))];
            if is_write(header) {
                if let Err(error) = self.copy_linear(address, data, false) {
                    return self.page_fault(header, &error);
                }
                let mut value = [0; 4];
                value[..data.len()].copy_from_slice(data);
                self.machine
                    .bus
                    .port_out(message.port_number, size, u32::from_le_bytes(value));
            } else {
                // A fault comes before the port is read.
                for byte in [address, address.wrapping_add(u64::from(size) - 1)] {
                    if let Err(error) = self.translate(byte, true) {
                        return self.page_fault(header, &error);
                    }
                }
                let value = self
                    .machine
                    .bus
                    .port_in(message.port_number, size)
                    .to_le_bytes();
                data.copy_from_slice(&value[..data.len()]);
                if let Err(error) = self.copy_linear(address, data, true) {
                    return self.page_fault(header, &error);
                }
            }
            let step = if cpu.rflags & DF != 0 {
                u64::from(size).wrapping_neg()
            } else {
                size.into()
            };
            mmio_emulate::advance(&mut cpu, index, step, address_mask);
            if repeated {
                mmio_emulate::advance(&mut cpu, RCX, u64::MAX, address_mask);
            }
        }
        if !repeated || cpu.gpr[RCX] & address_mask == 0 {
            cpu.rip = next_rip(header);
        }
        registers::set_cpu_state(&self.fd, &cpu)
            .map_err(|error| Box::new(self.failed("setting registers", &error)))
    }

    #[cold]
    fn mmio(&self, message: &hv_x64_memory_intercept_message) -> Result<(), Ended> {
        let mut cpu = registers::cpu_state(&self.fd)
            .map_err(|error| self.failed("reading registers", &error))?;
        let bytes = message.instruction_bytes;
        let bytes = &bytes[..usize::from(message.instruction_byte_count).min(bytes.len())];
        let mut memory = GuestAccess {
            vp: self,
            address: message.guest_physical_address,
        };
        mmio_emulate::emulate(
            &mut cpu,
            bytes,
            mshv::bitness(&message.header),
            is_write(&message.header),
            &mut memory,
        )
        .map_err(|error| {
            let address = message.guest_physical_address;
            let rip = message.header.rip;
            Outcome::GuestFault(format!(
                "VP {} at RIP {rip:#x} accessed {address:#x}: {error}",
                self.index
            ))
        })?;
        registers::set_cpu_state(&self.fd, &cpu)
            .map_err(|error| Box::new(self.failed("setting registers", &error)))
    }

    /// A write of HV_X64_MSR_CRASH_CTL, the only MSR that is intercepted, or an access to one of the debugger's.
    #[cold]
    fn msr(&self, message: &hv_x64_msr_intercept_message) -> Result<(), Ended> {
        match (message.msr_number, &self.machine.debugger) {
            (HV_X64_MSR_CRASH_CTL, _) => self.crash(message),
            (number, Some(debugger)) => self.debugger_msr(debugger, number, message),
            _ => self.fault(message.header.rip, "an MSR that nobody asked for"),
        }
    }

    #[cold]
    fn crash(&self, message: &hv_x64_msr_intercept_message) -> Result<(), Ended> {
        let control = (message.rdx << 32) | (message.rax & 0xffff_ffff);
        let parameters = registers::crash_parameters(&self.fd)
            .map_err(|error| self.failed("reading registers", &error))?;
        if let Some(crash) = crash::decode(control, parameters) {
            let mut text = Vec::new();
            if let Some((address, length)) = crash.text {
                text.resize(length, 0);
                // As much of it as is in RAM.
                let read = self.machine.memory.read(&mut text, GuestAddress(address));
                text.truncate(read.unwrap_or(0));
            }
            eprintln!("hvrsctl: {}", crash::report(&crash, &text));
        }
        registers::set_rip_rax(&self.fd, next_rip(&message.header), None)
            .map_err(|error| Box::new(self.failed("setting registers", &error)))
    }

    #[cold]
    fn debugger_msr(
        &self,
        debugger: &Debugger,
        number: u32,
        message: &hv_x64_msr_intercept_message,
    ) -> Result<(), Ended> {
        let header = &message.header;
        let mut cpu = registers::cpu_state(&self.fd)
            .map_err(|error| self.failed("reading registers", &error))?;
        if is_write(header) {
            debugger.write_msr(number, (message.rdx << 32) | (message.rax & 0xffff_ffff));
        } else {
            let value = debugger.read_msr(number);
            cpu.gpr[0] = value & 0xffff_ffff;
            cpu.gpr[2] = value >> 32;
        }
        cpu.rip = next_rip(header);
        registers::set_cpu_state(&self.fd, &cpu)
            .map_err(|error| Box::new(self.failed("setting registers", &error)))
    }

    /// A call of the debugger's; there are no others.
    #[cold]
    fn hypercall(&self, message: &hv_x64_hypercall_intercept_message) -> Result<(), Ended> {
        let header = &message.header;
        let Some(debugger) = &self.machine.debugger else {
            return self.fault(header.rip, "a hypercall that nobody asked for");
        };
        let mut cpu = registers::cpu_state(&self.fd)
            .map_err(|error| self.failed("reading registers", &error))?;
        let [rax, rcx, rdx, rbx, rsi, rdi, r8] = [0, 1, 2, 3, 6, 7, 8];
        let long = mshv::bitness(header) == 64;
        let pair = |high: usize, low: usize| (cpu.gpr[high] << 32) | (cpu.gpr[low] & 0xffff_ffff);
        let (control, input, output) = if long {
            (cpu.gpr[rcx], cpu.gpr[rdx], cpu.gpr[r8])
        } else {
            (pair(rdx, rax), pair(rbx, rcx), pair(rdi, rsi))
        };
        let status = debugger.call(control, input, output, || self.machine.exit.is_set());
        cpu.gpr[rax] = status.0.into();
        if !long {
            cpu.gpr[rdx] = 0;
        }
        cpu.rip = next_rip(header);
        registers::set_cpu_state(&self.fd, &cpu)
            .map_err(|error| Box::new(self.failed("setting registers", &error)))
    }

    /// Copies between `data` and RAM at a linear address, which may cross a page.
    fn copy_linear(
        &self,
        address: u64,
        data: &mut [u8],
        to_guest: bool,
    ) -> Result<(), EmulateError> {
        let mut done = 0;
        while done < data.len() {
            let address = address.wrapping_add(done as u64);
            let in_page = (0x1000 - (address & 0xfff) as usize).min(data.len() - done);
            let gpa = self.translate(address, to_guest)?;
            let piece = &mut data[done..done + in_page];
            let copied = if to_guest {
                self.machine.memory.write_slice(piece, gpa)
            } else {
                self.machine.memory.read_slice(piece, gpa)
            };
            copied.map_err(|_| EmulateError::Unmapped(address))?;
            done += in_page;
        }
        Ok(())
    }

    /// Where a linear address is in RAM.
    fn translate(&self, address: u64, write: bool) -> Result<GuestAddress, EmulateError> {
        let flags = if write {
            HV_TRANSLATE_GVA_VALIDATE_WRITE
        } else {
            HV_TRANSLATE_GVA_VALIDATE_READ
        };
        let (gpa, result) = self
            .fd
            .translate_gva(address & !0xfff, flags.into())
            .map_err(|_| EmulateError::Unmapped(address))?;
        if !mshv::translated(result) {
            return Err(EmulateError::PageFault {
                address,
                write,
                present: mshv::denied(result),
            });
        }
        Ok(GuestAddress((gpa & !0xfff) | (address & 0xfff)))
    }

    /// Base of the segment that OUTS reads: DS, unless a prefix names another.
    fn source_base(&self, message: &hv_x64_io_port_intercept_message) -> u64 {
        let name = string_prefixes(message).iter().rev().find_map(|prefix| {
            Some(match prefix {
                0x26 => hv_register_name_HV_X64_REGISTER_ES,
                0x2e => hv_register_name_HV_X64_REGISTER_CS,
                0x36 => hv_register_name_HV_X64_REGISTER_SS,
                0x64 => hv_register_name_HV_X64_REGISTER_FS,
                0x65 => hv_register_name_HV_X64_REGISTER_GS,
                _ => return None,
            })
        });
        match name {
            // A base that cannot be read is one that does not translate.
            Some(name) => registers::segment_base(&self.fd, name).unwrap_or(u64::MAX),
            None => message.ds_segment.base,
        }
    }

    /// The guest's page fault in an instruction that is carried out here. Nothing of the element has been done.
    #[cold]
    fn page_fault(
        &self,
        header: &hv_x64_intercept_message_header,
        error: &EmulateError,
    ) -> Result<(), Ended> {
        let EmulateError::PageFault {
            address,
            write,
            present,
        } = *error
        else {
            let what = error.to_string();
            return self.fault(header.rip, &what);
        };
        let user = mshv::cpl(header) == 3;
        let code = u32::from(present) | (u32::from(write) << 1) | (u32::from(user) << 2);
        registers::raise_page_fault(&self.fd, address, code)
            .map_err(|error| Box::new(self.failed("raising a page fault", &error)))
    }

    #[cold]
    fn fault(&self, rip: u64, what: &str) -> Result<(), Ended> {
        Err(Box::new(Outcome::GuestFault(format!(
            "VP {} at RIP {rip:#x}: {what}",
            self.index
        ))))
    }

    #[cold]
    fn failed(&self, what: &str, error: &MshvError) -> Outcome {
        Outcome::Failed(format!("VP {}: {what} failed: {error}", self.index))
    }
}

/// The memory of one faulting access.
struct GuestAccess<'a> {
    vp: &'a Vp,
    address: u64,
}

impl mmio_emulate::Memory for GuestAccess<'_> {
    fn read_device(&mut self, data: &mut [u8]) {
        self.vp.machine.bus.mmio_read(self.address, data);
    }

    fn write_device(&mut self, data: &[u8]) {
        self.vp.machine.bus.mmio_write(self.address, data);
    }

    fn read_linear(&mut self, address: u64, data: &mut [u8]) -> Result<(), EmulateError> {
        self.vp.copy_linear(address, data, false)
    }

    fn write_linear(&mut self, address: u64, data: &[u8]) -> Result<(), EmulateError> {
        let mut data = data.to_vec();
        self.vp.copy_linear(address, &mut data, true)
    }

    fn segment_base(&self, segment: Register) -> u64 {
        let name = match segment {
            Register::ES => hv_register_name_HV_X64_REGISTER_ES,
            Register::CS => hv_register_name_HV_X64_REGISTER_CS,
            Register::SS => hv_register_name_HV_X64_REGISTER_SS,
            Register::FS => hv_register_name_HV_X64_REGISTER_FS,
            Register::GS => hv_register_name_HV_X64_REGISTER_GS,
            _ => hv_register_name_HV_X64_REGISTER_DS,
        };
        // A base that cannot be read is one that does not translate: the copy then fails and says so.
        registers::segment_base(&self.vp.fd, name).unwrap_or(u64::MAX)
    }
}

#[inline]
fn is_write(header: &hv_x64_intercept_message_header) -> bool {
    u32::from(header.intercept_access_type) == HV_INTERCEPT_ACCESS_WRITE
}

#[inline]
fn next_rip(header: &hv_x64_intercept_message_header) -> u64 {
    let next = { header.rip }.wrapping_add(header.instruction_length().into());
    match mshv::bitness(header) {
        64 => next,
        32 => next & 0xffff_ffff,
        _ => next & 0xffff,
    }
}

/// Prefixes of a string instruction: the opcode is the last byte, all before it are prefixes.
fn string_prefixes(message: &hv_x64_io_port_intercept_message) -> &[u8] {
    let count = usize::from(message.instruction_byte_count).min(16);
    let length = usize::from(message.header.instruction_length()).min(count);
    &message.instruction_bytes[..length.saturating_sub(1)]
}

/// Address size of a string instruction: that of the code, unless a 67H prefix says otherwise.
fn string_address_mask(message: &hv_x64_io_port_intercept_message) -> u64 {
    let prefixes = string_prefixes(message);
    match (mshv::bitness(&message.header), prefixes.contains(&0x67)) {
        (64, false) => u64::MAX,
        (64, true) | (32, false) | (16, true) => 0xffff_ffff,
        _ => 0xffff,
    }
}

#[inline]
fn mask(value: u64, size: u8) -> u64 {
    match size {
        1 => value & 0xff,
        2 => value & 0xffff,
        _ => value & 0xffff_ffff,
    }
}

/// RAX after IN: the narrow forms keep the rest, the 32-bit form clears the upper half.
#[inline]
fn merge(rax: u64, value: u32, size: u8) -> u64 {
    let value = u64::from(value);
    match size {
        1 => rax & !0xff | value & 0xff,
        2 => rax & !0xffff | value & 0xffff,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mshv::test_header;

    #[test]
    fn rip_wraps_with_the_code_size() {
        assert_eq!(next_rip(&test_header(64, 0xffff_ffff, 2)), 0x1_0000_0001);
        assert_eq!(next_rip(&test_header(32, 0xffff_ffff, 2)), 1);
        assert_eq!(next_rip(&test_header(16, 0xffff, 1)), 0);
    }

    #[test]
    fn port_data_is_merged_into_rax() {
        let rax = 0x1122_3344_5566_7788;
        assert_eq!(merge(rax, 0xaabb_ccdd, 1), 0x1122_3344_5566_77dd);
        assert_eq!(merge(rax, 0xaabb_ccdd, 2), 0x1122_3344_5566_ccdd);
        assert_eq!(merge(rax, 0xaabb_ccdd, 4), 0xaabb_ccdd);
        assert_eq!(mask(rax, 4), 0x5566_7788);
    }

    #[test]
    fn string_address_size() {
        let mut message = hv_x64_io_port_intercept_message {
            header: test_header(64, 0, 2),
            ..Default::default()
        };
        message.instruction_byte_count = 2;
        message.instruction_bytes[..2].copy_from_slice(&[0xf3, 0x6e]);
        assert_eq!(string_address_mask(&message), u64::MAX);
        message.instruction_bytes[0] = 0x67;
        assert_eq!(string_address_mask(&message), 0xffff_ffff);
        message.header = test_header(16, 0, 1);
        message.instruction_byte_count = 0;
        assert_eq!(string_address_mask(&message), 0xffff);
    }
}
