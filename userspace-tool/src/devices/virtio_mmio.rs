// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The virtio-mmio transport, version 2 (VIRTIO 1.2, 4.2), for a device with one queue.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::EventFd;

use super::ioapic::IoApic;
use crate::memory::GuestMemoryMmap;

/// Registers (VIRTIO 1.2, 4.2.2).
mod register {
    pub const MAGIC_VALUE: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const VENDOR_ID: u64 = 0x00c;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    pub const QUEUE_NUM: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC_LOW: u64 = 0x080;
    pub const QUEUE_DESC_HIGH: u64 = 0x084;
    pub const QUEUE_DRIVER_LOW: u64 = 0x090;
    pub const QUEUE_DRIVER_HIGH: u64 = 0x094;
    pub const QUEUE_DEVICE_LOW: u64 = 0x0a0;
    pub const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
    pub const SHM_LEN_LOW: u64 = 0x0b0;
    pub const SHM_BASE_HIGH: u64 = 0x0bc;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"hvrs");
const INTERRUPT_USED_BUFFER: u32 = 1;

const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_DEVICE_NEEDS_RESET: u32 = 64;

/// VIRTIO_F_VERSION_1: not a legacy device.
pub const F_VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_EVENT_IDX: fewer notifications.
pub const F_EVENT_IDX: u64 = 1 << 29;

/// What a device is, apart from the transport.
pub trait VirtioDevice: Send + Sync {
    /// Device type (VIRTIO 1.2, 5).
    fn device_id(&self) -> u32;
    /// Features of the device itself.
    fn features(&self) -> u64;
    /// Configuration space.
    fn config(&self) -> &[u8];
    /// Serves what the driver queued; true when the driver wants to be told. An error means that the ring is corrupt.
    fn process(
        &self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<bool, virtio_queue::Error>;
}

/// What the driver selects and negotiates.
#[derive(Default)]
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    status: u32,
}

/// A device behind the transport. VPs access the registers, the I/O thread serves the queue.
pub struct VirtioMmio {
    device: Box<dyn VirtioDevice>,
    registers: Mutex<Registers>,
    queue: Mutex<Queue>,
    interrupt_status: AtomicU32,
    ioapic: Arc<IoApic>,
    gsi: u32,
    memory: GuestMemoryMmap,
    kick: EventFd,
}

/// Descriptors in the queue at most.
const QUEUE_SIZE: u16 = 256;

impl VirtioMmio {
    /// `device` on interrupt line `gsi`.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        ioapic: Arc<IoApic>,
        gsi: u32,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            device,
            registers: Mutex::default(),
            queue: Mutex::new(Queue::new(QUEUE_SIZE)?),
            interrupt_status: AtomicU32::new(0),
            ioapic,
            gsi,
            memory,
            kick: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        })
    }

    /// Becomes readable when the driver has queued something; then call [`Self::process`].
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Serves the queue.
    pub fn process(&self) {
        let ready = self.registers.lock().expect("no holder panics").status & STATUS_DRIVER_OK != 0;
        let mut queue = self.queue.lock().expect("no holder panics");
        if !ready || !queue.is_valid(&self.memory) {
            return;
        }
        match self.device.process(&mut queue, &self.memory) {
            Ok(false) => {}
            Ok(true) => {
                self.interrupt_status
                    .fetch_or(INTERRUPT_USED_BUFFER, Ordering::AcqRel);
                self.ioapic.pulse(self.gsi);
            }
            Err(_) => {
                self.registers.lock().expect("no holder panics").status |=
                    STATUS_DEVICE_NEEDS_RESET;
            }
        }
    }

    /// A guest's read of `data.len()` bytes at `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(start) = offset.checked_sub(register::CONFIG) {
            let config = usize::try_from(start)
                .ok()
                .and_then(|start| self.device.config().get(start..));
            for (to, from) in data.iter_mut().zip(config.unwrap_or(&[])) {
                *to = *from;
            }
        } else if data.len() == 4 && offset % 4 == 0 {
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    /// A guest's write at `offset`.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let (Ok(value), true) = (data.try_into(), offset % 4 == 0) {
            self.write_register(offset, u32::from_le_bytes(value));
        }
    }

    fn features(&self) -> u64 {
        self.device.features() | F_VERSION_1 | F_EVENT_IDX
    }

    fn read_register(&self, offset: u64) -> u32 {
        let registers = self.registers.lock().expect("no holder panics");
        match offset {
            register::MAGIC_VALUE => MAGIC,
            register::VERSION => 2,
            register::DEVICE_ID => self.device.device_id(),
            register::VENDOR_ID => VENDOR,
            register::DEVICE_FEATURES => half(self.features(), registers.device_features_sel),
            register::QUEUE_NUM_MAX if registers.queue_sel == 0 => QUEUE_SIZE.into(),
            register::QUEUE_READY if registers.queue_sel == 0 => {
                self.queue.lock().expect("no holder panics").ready().into()
            }
            register::INTERRUPT_STATUS => self.interrupt_status.load(Ordering::Acquire),
            register::STATUS => registers.status,
            // No shared memory regions: length and base of each read as all ones (VIRTIO 1.2, 4.2.2).
            register::SHM_LEN_LOW..=register::SHM_BASE_HIGH => u32::MAX,
            register::CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        let mut registers = self.registers.lock().expect("no holder panics");
        match offset {
            register::DEVICE_FEATURES_SEL => registers.device_features_sel = value,
            register::DRIVER_FEATURES_SEL => registers.driver_features_sel = value,
            register::DRIVER_FEATURES if registers.status & STATUS_FEATURES_OK == 0 => {
                let features = u64::from(value);
                match registers.driver_features_sel {
                    0 => {
                        registers.driver_features =
                            registers.driver_features & !0xffff_ffff | features
                    }
                    1 => {
                        registers.driver_features =
                            registers.driver_features & 0xffff_ffff | (features << 32)
                    }
                    _ => {}
                }
            }
            register::QUEUE_SEL => registers.queue_sel = value,
            register::QUEUE_NOTIFY if value == 0 => {
                drop(registers);
                // The counter cannot overflow: the I/O thread resets it.
                let _ = self.kick.write(1);
            }
            register::INTERRUPT_ACK => {
                self.interrupt_status.fetch_and(!value, Ordering::AcqRel);
            }
            register::STATUS if value == 0 => {
                *registers = Registers::default();
                drop(registers);
                self.queue.lock().expect("no holder panics").reset();
                self.interrupt_status.store(0, Ordering::Release);
            }
            register::STATUS => self.set_status(&mut registers, value),
            _ if registers.queue_sel == 0 && registers.status & STATUS_DRIVER_OK == 0 => {
                drop(registers);
                self.write_queue_register(offset, value);
            }
            _ => {}
        }
    }

    fn set_status(&self, registers: &mut Registers, value: u32) {
        let mut value = value;
        if value & STATUS_FEATURES_OK != 0 {
            let accepted = registers.driver_features & !self.features() == 0
                && registers.driver_features & F_VERSION_1 != 0;
            if !accepted {
                value &= !STATUS_FEATURES_OK;
            }
        }
        if value & STATUS_DRIVER_OK != 0 {
            let event_idx = registers.driver_features & F_EVENT_IDX != 0;
            self.queue
                .lock()
                .expect("no holder panics")
                .set_event_idx(event_idx);
        }
        registers.status = value | registers.status & STATUS_DEVICE_NEEDS_RESET;
    }

    fn write_queue_register(&self, offset: u64, value: u32) {
        let mut queue = self.queue.lock().expect("no holder panics");
        match offset {
            // A size that is no power of two or too large leaves the queue as it was, and `is_valid` decides.
            register::QUEUE_NUM => queue.set_size(u16::try_from(value).unwrap_or(0)),
            register::QUEUE_READY => queue.set_ready(value == 1),
            register::QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            register::QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            register::QUEUE_DRIVER_LOW => queue.set_avail_ring_address(Some(value), None),
            register::QUEUE_DRIVER_HIGH => queue.set_avail_ring_address(None, Some(value)),
            register::QUEUE_DEVICE_LOW => queue.set_used_ring_address(Some(value), None),
            register::QUEUE_DEVICE_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }
}

fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioapic::{InterruptSink, Message};
    use super::*;
    use vm_memory::GuestAddress;

    struct Echo(Mutex<u32>);

    impl VirtioDevice for Echo {
        fn device_id(&self) -> u32 {
            42
        }
        fn features(&self) -> u64 {
            1 << 9
        }
        fn config(&self) -> &[u8] {
            &[1, 2, 3, 4, 5]
        }
        fn process(&self, _: &mut Queue, _: &GuestMemoryMmap) -> Result<bool, virtio_queue::Error> {
            *self.0.lock().unwrap() += 1;
            Ok(true)
        }
    }

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);

    impl InterruptSink for Count {
        fn deliver(&self, _: Message) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn device() -> (VirtioMmio, Count) {
        let count = Count::default();
        let ioapic = Arc::new(IoApic::new(Box::new(count.clone())));
        ioapic.write(0, 0x10 + 2 * 5);
        ioapic.write(0x10, 0x30);
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        (
            VirtioMmio::new(Box::new(Echo(Mutex::new(0))), memory, ioapic, 5).unwrap(),
            count,
        )
    }

    fn read(device: &VirtioMmio, offset: u64) -> u32 {
        let mut data = [0xee; 4];
        device.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(device: &VirtioMmio, offset: u64, value: u32) {
        device.write(offset, &value.to_le_bytes());
    }

    fn bring_up(device: &VirtioMmio) {
        write(device, register::STATUS, 3);
        write(device, register::DRIVER_FEATURES_SEL, 1);
        write(device, register::DRIVER_FEATURES, 1);
        write(device, register::STATUS, 11);
        write(device, register::QUEUE_NUM, 16);
        write(device, register::QUEUE_DESC_LOW, 0x1000);
        write(device, register::QUEUE_DRIVER_LOW, 0x2000);
        write(device, register::QUEUE_DEVICE_LOW, 0x3000);
        write(device, register::QUEUE_READY, 1);
        write(device, register::STATUS, 15);
    }

    #[test]
    fn identification_and_configuration() {
        let (device, _) = device();
        assert_eq!(read(&device, 0), 0x7472_6976);
        assert_eq!(read(&device, 4), 2);
        assert_eq!(read(&device, 8), 42);
        assert_eq!(read(&device, register::QUEUE_NUM_MAX), 256);
        write(&device, register::QUEUE_SEL, 1);
        assert_eq!(
            read(&device, register::QUEUE_NUM_MAX),
            0,
            "there is one queue"
        );
        assert_eq!(read(&device, 0x100), 0x0403_0201);
        assert_eq!(read(&device, 0x104), 5, "past the end reads zero");
        assert_eq!(read(&device, 0xfff), 0);
        let mut byte = [0];
        device.read(0x102, &mut byte);
        assert_eq!(byte, [3]);
        device.read(0, &mut byte);
        assert_eq!(byte, [0], "registers are 32 bits wide");
    }

    #[test]
    fn features_that_were_not_offered_are_refused() {
        let (device, _) = device();
        write(&device, register::DEVICE_FEATURES_SEL, 1);
        assert_eq!(read(&device, register::DEVICE_FEATURES), 1);
        write(&device, register::DRIVER_FEATURES, 1 << 3);
        write(&device, register::DRIVER_FEATURES_SEL, 1);
        write(&device, register::DRIVER_FEATURES, 1);
        write(&device, register::STATUS, 11);
        assert_eq!(read(&device, register::STATUS), 3);
        write(&device, register::DRIVER_FEATURES_SEL, 0);
        write(&device, register::DRIVER_FEATURES, 1 << 9);
        write(&device, register::STATUS, 11);
        assert_eq!(read(&device, register::STATUS), 11);
    }

    #[test]
    fn used_buffers_raise_an_interrupt_until_acknowledged() {
        let (device, count) = device();
        device.process();
        assert_eq!(
            count.0.load(Ordering::Relaxed),
            0,
            "the driver is not ready"
        );
        bring_up(&device);
        write(&device, register::QUEUE_NOTIFY, 0);
        assert_eq!(device.kick().read().unwrap(), 1);
        device.process();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), 1);
        write(&device, register::INTERRUPT_ACK, 1);
        assert_eq!(read(&device, register::INTERRUPT_STATUS), 0);
    }

    #[test]
    fn reset_forgets_everything() {
        let (device, count) = device();
        bring_up(&device);
        device.process();
        write(&device, register::STATUS, 0);
        for offset in [
            register::STATUS,
            register::QUEUE_READY,
            register::INTERRUPT_STATUS,
        ] {
            assert_eq!(read(&device, offset), 0, "{offset:#x}");
        }
        device.process();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn queue_outside_memory_is_not_served() {
        let (device, count) = device();
        bring_up(&device);
        write(&device, register::STATUS, 0);
        write(&device, register::DRIVER_FEATURES_SEL, 1);
        write(&device, register::DRIVER_FEATURES, 1);
        write(&device, register::STATUS, 11);
        write(&device, register::QUEUE_DESC_HIGH, 1);
        write(&device, register::QUEUE_READY, 1);
        write(&device, register::STATUS, 15);
        device.process();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }
}
