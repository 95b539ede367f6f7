// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which device answers which port and which address.

use std::sync::Arc;

use super::debug_exit::DebugExit;
use super::ioapic::IoApic;
use super::power::Power;
use super::serial::SerialPort;
use super::virtio_mmio::VirtioMmio;
use crate::layout;

const COM1_LAST: u16 = layout::COM1 + 7;

/// All devices of one VM. Every method takes `&self`: VPs call them at the same time.
pub struct Bus {
    /// Interrupt lines.
    pub ioapic: Arc<IoApic>,
    /// Console.
    pub serial: SerialPort,
    /// Power management.
    pub power: Power,
    /// Debug exit.
    pub debug_exit: DebugExit,
    /// Disks, from [`layout::VIRTIO_MMIO`] on.
    pub virtio: Vec<Arc<VirtioMmio>>,
}

impl Bus {
    /// IN: what a port reads as. Nothing there reads as all ones.
    #[inline]
    pub fn port_in(&self, port: u16, size: u8) -> u32 {
        match port {
            layout::COM1..=COM1_LAST if size == 1 => {
                u32::from(self.serial.read((port - layout::COM1) as u8))
            }
            layout::SLEEP_CONTROL | layout::SLEEP_STATUS if size == 1 => 0,
            _ => u32::MAX,
        }
    }

    /// OUT: a write to a port. Where nothing is, nothing happens.
    #[inline]
    pub fn port_out(&self, port: u16, size: u8, value: u32) {
        match port {
            layout::COM1..=COM1_LAST if size == 1 => {
                self.serial.write((port - layout::COM1) as u8, value as u8)
            }
            layout::SLEEP_CONTROL | layout::SLEEP_STATUS | layout::RESET | layout::RESET_CF9
                if size == 1 =>
            {
                self.power.write(port, value as u8)
            }
            layout::DEBUG_EXIT => self.debug_exit.write(value),
            _ => {}
        }
    }

    /// A read from an address without RAM. Nothing there reads as all ones.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if let Some((device, offset)) = self.virtio_at(address) {
            device.read(offset, data);
        } else if let Some(offset) = ioapic_offset(address) {
            let value = self.ioapic.read(offset & !3).to_le_bytes();
            for (i, byte) in data.iter_mut().enumerate() {
                *byte = value.get((offset & 3) as usize + i).copied().unwrap_or(0);
            }
        } else {
            data.fill(0xff);
        }
    }

    /// A write to an address without RAM.
    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.virtio_at(address) {
            device.write(offset, data);
        } else if let Some(offset) = ioapic_offset(address) {
            // A narrow write is the low part of a register; the rest of it is not reachable that way.
            let mut value = [0; 4];
            for (to, from) in value.iter_mut().zip(data) {
                *to = *from;
            }
            self.ioapic.write(offset, u32::from_le_bytes(value));
        }
    }

    fn virtio_at(&self, address: u64) -> Option<(&VirtioMmio, u64)> {
        let offset = address.checked_sub(layout::VIRTIO_MMIO)?;
        let device = self
            .virtio
            .get(usize::try_from(offset / layout::VIRTIO_MMIO_STRIDE).ok()?)?;
        Some((device, offset % layout::VIRTIO_MMIO_STRIDE))
    }
}

fn ioapic_offset(address: u64) -> Option<u64> {
    address
        .checked_sub(layout::IOAPIC)
        .filter(|offset| *offset < layout::IOAPIC_SIZE)
}

#[cfg(test)]
mod tests {
    use super::super::ioapic::{InterruptSink, Message};
    use super::*;
    use crate::outcome::{ExitSlot, Outcome};

    struct Nowhere;
    impl InterruptSink for Nowhere {
        fn deliver(&self, _: Message) {}
    }

    fn bus() -> (Bus, Arc<ExitSlot>) {
        let exit = Arc::new(ExitSlot::new().unwrap());
        let ioapic = Arc::new(IoApic::new(Box::new(Nowhere)));
        let bus = Bus {
            serial: SerialPort::new(ioapic.clone(), Box::new(std::io::sink())).unwrap(),
            power: Power::new(exit.clone(), ioapic.clone()),
            debug_exit: DebugExit::new(None),
            virtio: Vec::new(),
            ioapic,
        };
        (bus, exit)
    }

    #[test]
    fn nothing_there_reads_as_ones() {
        let (bus, _) = bus();
        assert_eq!(bus.port_in(0x60, 1), u32::MAX);
        bus.port_out(0x80, 1, 1);
        let mut data = [0; 8];
        bus.mmio_read(layout::VIRTIO_MMIO, &mut data);
        assert_eq!(data, [0xff; 8]);
        bus.mmio_read(u64::MAX, &mut data);
        assert_eq!(data, [0xff; 8]);
    }

    #[test]
    fn ioapic_and_com1_answer() {
        let (bus, _) = bus();
        bus.mmio_write(layout::IOAPIC, &1u32.to_le_bytes());
        let mut version = [0; 4];
        bus.mmio_read(layout::IOAPIC + 0x10, &mut version);
        assert_eq!(u32::from_le_bytes(version), 0x17_0020);
        bus.port_out(layout::COM1 + 7, 1, 0x5a);
        assert_eq!(bus.port_in(layout::COM1 + 7, 1), 0x5a);
        assert_eq!(
            bus.port_in(layout::COM1 + 5, 1) & 0x60,
            0x60,
            "transmitter empty"
        );
    }

    #[test]
    fn power_off() {
        let (bus, exit) = bus();
        bus.port_out(layout::SLEEP_CONTROL, 1, 0x34);
        assert_eq!(exit.outcome(), Some(Outcome::PowerOff));
    }
}
