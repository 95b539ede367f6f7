// SPDX-License-Identifier: Apache-2.0 OR MIT
//! COM1: vm-superio's 16550A between the guest and the console.

use std::convert::Infallible;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::ioapic::IoApic;
use crate::layout::COM1_GSI;

struct Com1Interrupt(Arc<IoApic>);

impl Trigger for Com1Interrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse(COM1_GSI);
        Ok(())
    }
}

/// Tells the console that there is room for more input.
struct InputRoom {
    wanted: Arc<AtomicBool>,
    event: Arc<EventFd>,
}

impl SerialEvents for InputRoom {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        if self.wanted.swap(false, Ordering::Relaxed) {
            let _ = self.event.write(1);
        }
    }
}

/// Where the guest's output goes.
pub type Output = Box<dyn Write + Send>;

/// COM1.
pub struct SerialPort {
    uart: Mutex<Serial<Com1Interrupt, InputRoom, Output>>,
    room_wanted: Arc<AtomicBool>,
    room: Arc<EventFd>,
}

impl SerialPort {
    /// A port whose output goes to `output`.
    pub fn new(ioapic: Arc<IoApic>, output: Output) -> std::io::Result<Self> {
        let room_wanted = Arc::new(AtomicBool::new(false));
        let room = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        let events = InputRoom {
            wanted: room_wanted.clone(),
            event: room.clone(),
        };
        let uart = Mutex::new(Serial::with_events(Com1Interrupt(ioapic), events, output));
        Ok(Self {
            uart,
            room_wanted,
            room,
        })
    }

    /// A guest's read of register `offset`.
    pub fn read(&self, offset: u8) -> u8 {
        self.lock().read(offset)
    }

    /// A guest's write to register `offset`. Output that the console cannot take is lost, as on a wire.
    pub fn write(&self, offset: u8, value: u8) {
        const MCR: u8 = 4;
        let _ = self.lock().write(offset, value);
        // In loopback mode the port takes no input; a guest that changes the mode may have left it.
        if offset == MCR && self.room_wanted.swap(false, Ordering::Relaxed) {
            let _ = self.room.write(1);
        }
    }

    /// Offers input to the guest; returns how many bytes it took. When that is not all, [`Self::room`] tells when to go on.
    pub fn enqueue(&self, input: &[u8]) -> usize {
        let mut uart = self.lock();
        let taken = uart.enqueue_raw_bytes(input).unwrap_or(0);
        if taken < input.len() {
            self.room_wanted.store(true, Ordering::Relaxed);
        }
        taken
    }

    /// Becomes readable when there is room again.
    pub fn room(&self) -> &EventFd {
        &self.room
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Serial<Com1Interrupt, InputRoom, Output>> {
        self.uart.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioapic::{InterruptSink, Message};
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Count(Arc<Mutex<Vec<u8>>>);

    impl InterruptSink for Count {
        fn deliver(&self, message: Message) {
            self.0.lock().unwrap().push(message.vector);
        }
    }

    #[test]
    fn output_input_and_interrupt() {
        let (output, interrupts) = (Shared::default(), Count::default());
        let ioapic = Arc::new(IoApic::new(Box::new(interrupts.clone())));
        ioapic.write(0, 0x18); // redirection entry of line 4
        ioapic.write(0x10, 0x44);
        let port = SerialPort::new(ioapic, Box::new(output.clone())).unwrap();
        port.write(0, b'x');
        assert_eq!(*output.0.lock().unwrap(), b"x");
        assert!(interrupts.0.lock().unwrap().is_empty());
        port.write(1, 1); // interrupt on received data
        assert_eq!(port.enqueue(b"hello"), 5);
        assert_eq!(*interrupts.0.lock().unwrap(), [0x44]);
        assert_eq!(port.read(5) & 1, 1, "data ready");
        let read: Vec<u8> = (0..5).map(|_| port.read(0)).collect();
        assert_eq!(read, b"hello");
        assert_eq!(port.read(5) & 1, 0);
    }

    #[test]
    fn room_is_announced_after_a_full_fifo() {
        let ioapic = Arc::new(IoApic::new(Box::new(Count::default())));
        let port = SerialPort::new(ioapic, Box::new(std::io::sink())).unwrap();
        let taken = port.enqueue(&[b'a'; 100]);
        assert!(taken > 0 && taken < 100);
        assert_eq!(port.enqueue(b"b"), 0);
        assert!(port.room().read().is_err(), "not yet");
        for _ in 0..taken {
            port.read(0);
        }
        assert_eq!(port.room().read().unwrap(), 1);
    }
}
