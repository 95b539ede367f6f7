// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An I/O APIC with 24 lines: the 82093AA with the EOI register of version 0x20.

use std::sync::Mutex;

use crate::layout::IOAPIC_PINS;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;

const IOAPICID: u8 = 0x00;
const IOAPICVER: u8 = 0x01;
const IOAPICARB: u8 = 0x02;
const IOREDTBL: u8 = 0x10;

/// Version 0x20: the first with an EOI register.
const VERSION: u32 = 0x20 | ((IOAPIC_PINS as u32 - 1) << 16);

const RTE_DELIVERY_STATUS: u64 = 1 << 12;
const RTE_REMOTE_IRR: u64 = 1 << 14;
const RTE_LEVEL: u64 = 1 << 15;
const RTE_MASKED: u64 = 1 << 16;
const RTE_READ_ONLY: u64 = RTE_DELIVERY_STATUS | RTE_REMOTE_IRR;
const RTE_WRITABLE: u64 = 0xff00_0000_0001_afff;

/// An interrupt message as it goes to the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Destination field: an APIC ID or a logical set.
    pub destination: u8,
    /// The destination is logical.
    pub logical: bool,
    /// Delivery mode, encoded as in the redirection entry and in `HV_INTERRUPT_TYPE`.
    pub delivery_mode: u8,
    /// Level-triggered.
    pub level: bool,
    /// Vector.
    pub vector: u8,
}

/// Where interrupt messages go.
pub trait InterruptSink: Send + Sync {
    /// Delivers `message` to the local APICs.
    fn deliver(&self, message: Message);
}

struct State {
    select: u8,
    id: u32,
    entries: [u64; IOAPIC_PINS],
    /// Lines that are asserted now.
    lines: u32,
}

/// The I/O APIC. Devices raise lines, VPs access registers and forward EOIs, all at the same time.
pub struct IoApic {
    state: Mutex<State>,
    sink: Box<dyn InterruptSink>,
}

impl IoApic {
    /// All lines masked, as after reset.
    pub fn new(sink: Box<dyn InterruptSink>) -> Self {
        let state = State {
            select: 0,
            id: 0,
            entries: [RTE_MASKED; IOAPIC_PINS],
            lines: 0,
        };
        Self {
            state: Mutex::new(state),
            sink,
        }
    }

    /// A device's edge: the line goes up and down.
    pub fn pulse(&self, pin: u32) {
        let mut state = self.lock();
        self.set_line(&mut state, pin, true);
        self.set_line(&mut state, pin, false);
    }

    fn set_line(&self, state: &mut State, pin: u32, asserted: bool) {
        let Some(bit) = 1u32.checked_shl(pin) else {
            return;
        };
        let was_asserted = state.lines & bit != 0;
        if asserted {
            state.lines |= bit;
            if !was_asserted {
                self.raise(state, pin);
            }
        } else {
            state.lines &= !bit;
        }
    }

    /// A local APIC signalled the end of a level-triggered interrupt.
    pub fn end_of_interrupt(&self, vector: u8) {
        let mut state = self.lock();
        for pin in 0..IOAPIC_PINS {
            let entry = &mut state.entries[pin];
            if *entry & RTE_REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !RTE_REMOTE_IRR;
                self.service_level(&mut state, pin);
            }
        }
    }

    /// A guest's read from the register window; only 32-bit registers exist.
    pub fn read(&self, offset: u64) -> u32 {
        let state = self.lock();
        match offset {
            IOREGSEL => u32::from(state.select),
            IOWIN => match state.select {
                IOAPICID | IOAPICARB => state.id,
                IOAPICVER => VERSION,
                index => {
                    let (pin, high) = redirection(index);
                    let entry = state.entries.get(pin).copied().unwrap_or(0);
                    if high {
                        (entry >> 32) as u32
                    } else {
                        entry as u32
                    }
                }
            },
            _ => 0,
        }
    }

    /// A guest's write to the register window.
    pub fn write(&self, offset: u64, value: u32) {
        match offset {
            IOREGSEL => self.lock().select = value as u8,
            IOWIN => {
                let mut state = self.lock();
                match state.select {
                    IOAPICID => state.id = value & 0x0f00_0000,
                    index => self.write_redirection(&mut state, index, value),
                }
            }
            EOI => self.end_of_interrupt(value as u8),
            _ => {}
        }
    }

    fn write_redirection(&self, state: &mut State, index: u8, value: u32) {
        let (pin, high) = redirection(index);
        let Some(entry) = state.entries.get_mut(pin) else {
            return;
        };
        let written = if high {
            (*entry & 0xffff_ffff) | (u64::from(value) << 32)
        } else {
            (*entry & !0xffff_ffff) | u64::from(value)
        };
        *entry = (written & RTE_WRITABLE) | (*entry & RTE_READ_ONLY);
        if *entry & RTE_LEVEL == 0 {
            // Remote IRR has no meaning for an edge. Kernels clear it by switching to edge and back.
            *entry &= !RTE_REMOTE_IRR;
        }
        self.service_level(state, pin);
    }

    fn raise(&self, state: &mut State, pin: u32) {
        let Some(&entry) = state.entries.get(pin as usize) else {
            return;
        };
        if entry & RTE_LEVEL != 0 {
            self.service_level(state, pin as usize);
        } else if entry & RTE_MASKED == 0 {
            self.sink.deliver(message(entry));
        }
    }

    /// Delivers a level-triggered line that is asserted, unmasked and not in service.
    fn service_level(&self, state: &mut State, pin: usize) {
        let entry = &mut state.entries[pin];
        let ready = *entry & (RTE_LEVEL | RTE_MASKED | RTE_REMOTE_IRR) == RTE_LEVEL;
        if ready && state.lines & (1 << pin) != 0 {
            *entry |= RTE_REMOTE_IRR;
            self.sink.deliver(message(*entry));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// Line and half that a register index names.
fn redirection(index: u8) -> (usize, bool) {
    match index.checked_sub(IOREDTBL) {
        Some(index) => (usize::from(index / 2), index % 2 == 1),
        None => (usize::MAX, false),
    }
}

fn message(entry: u64) -> Message {
    Message {
        destination: (entry >> 56) as u8,
        logical: entry & (1 << 11) != 0,
        delivery_mode: (entry >> 8) as u8 & 7,
        level: entry & RTE_LEVEL != 0,
        vector: entry as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Message>>>);

    impl InterruptSink for Log {
        fn deliver(&self, message: Message) {
            self.0.lock().unwrap().push(message);
        }
    }

    impl Log {
        fn vectors(&self) -> Vec<u8> {
            self.0.lock().unwrap().drain(..).map(|m| m.vector).collect()
        }
    }

    fn set_line(ioapic: &IoApic, pin: u32, asserted: bool) {
        ioapic.set_line(&mut ioapic.lock(), pin, asserted);
    }

    fn ioapic() -> (IoApic, Log) {
        let log = Log::default();
        (IoApic::new(Box::new(log.clone())), log)
    }

    fn set_entry(ioapic: &IoApic, pin: u8, entry: u64) {
        for (half, value) in [(1, (entry >> 32) as u32), (0, entry as u32)] {
            ioapic.write(IOREGSEL, u32::from(IOREDTBL + 2 * pin + half));
            ioapic.write(IOWIN, value);
        }
    }

    fn entry(ioapic: &IoApic, pin: u8) -> u64 {
        ioapic.write(IOREGSEL, u32::from(IOREDTBL + 2 * pin));
        let low = ioapic.read(IOWIN);
        ioapic.write(IOREGSEL, u32::from(IOREDTBL + 2 * pin + 1));
        u64::from(low) | (u64::from(ioapic.read(IOWIN)) << 32)
    }

    #[test]
    fn registers() {
        let (ioapic, _) = ioapic();
        ioapic.write(IOREGSEL, 1);
        assert_eq!(ioapic.read(IOWIN), 0x17_0020);
        ioapic.write(IOREGSEL, 0);
        ioapic.write(IOWIN, !0);
        assert_eq!(ioapic.read(IOWIN), 0x0f00_0000);
        assert_eq!(entry(&ioapic, 23), RTE_MASKED);
        set_entry(&ioapic, 3, !0);
        assert_eq!(entry(&ioapic, 3), RTE_WRITABLE);
        ioapic.write(IOREGSEL, u32::from(IOREDTBL) + 48);
        ioapic.write(IOWIN, 0);
        assert_eq!(ioapic.read(IOWIN), 0, "no 25th line");
    }

    #[test]
    fn edge_is_delivered_once_and_only_unmasked() {
        let (ioapic, log) = ioapic();
        ioapic.pulse(4);
        assert_eq!(log.vectors(), [0u8; 0]);
        set_entry(&ioapic, 4, 0x0300_0000_0000_0934);
        ioapic.pulse(4);
        let expected = Message {
            destination: 3,
            logical: true,
            delivery_mode: 1,
            level: false,
            vector: 0x34,
        };
        assert_eq!(
            log.0.lock().unwrap().drain(..).collect::<Vec<_>>(),
            [expected]
        );
        set_line(&ioapic, 4, true);
        set_line(&ioapic, 4, true);
        assert_eq!(log.vectors(), [0x34], "an edge is a change");
        ioapic.end_of_interrupt(0x34);
        assert_eq!(log.vectors(), [0u8; 0]);
    }

    #[test]
    fn level_waits_for_the_end_of_interrupt() {
        let (ioapic, log) = ioapic();
        set_entry(&ioapic, 9, RTE_LEVEL | 0x51);
        set_line(&ioapic, 9, true);
        assert_eq!(log.vectors(), [0x51]);
        assert_ne!(entry(&ioapic, 9) & RTE_REMOTE_IRR, 0);
        ioapic.end_of_interrupt(0x52);
        assert_eq!(log.vectors(), [0u8; 0], "another vector's EOI");
        ioapic.end_of_interrupt(0x51);
        assert_eq!(log.vectors(), [0x51], "still asserted");
        set_line(&ioapic, 9, false);
        ioapic.write(EOI, 0x51);
        assert_eq!(log.vectors(), [0u8; 0]);
        assert_eq!(entry(&ioapic, 9) & RTE_REMOTE_IRR, 0);
    }

    #[test]
    fn pulse_on_a_level_entry_is_delivered_once() {
        let (ioapic, log) = ioapic();
        set_entry(&ioapic, 4, RTE_LEVEL | 0x44);
        ioapic.pulse(4);
        ioapic.end_of_interrupt(0x44);
        assert_eq!(log.vectors(), [0x44]);
        ioapic.pulse(4);
        assert_eq!(log.vectors(), [0x44]);
    }

    #[test]
    fn unmasking_delivers_an_asserted_level() {
        let (ioapic, log) = ioapic();
        set_entry(&ioapic, 9, RTE_MASKED | RTE_LEVEL | 0x51);
        set_line(&ioapic, 9, true);
        assert_eq!(log.vectors(), [0u8; 0]);
        set_entry(&ioapic, 9, RTE_LEVEL | 0x51);
        assert_eq!(log.vectors(), [0x51]);
        set_entry(&ioapic, 9, RTE_MASKED | 0x51);
        assert_eq!(
            entry(&ioapic, 9) & RTE_REMOTE_IRR,
            0,
            "edge clears remote IRR"
        );
    }
}
