// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Power off, reset and the power button of a hardware-reduced ACPI platform (ACPI 4.8.3.7, 5.6.9).

use std::sync::Arc;

use super::ioapic::IoApic;
use crate::layout;
use crate::outcome::{ExitSlot, Outcome};

/// SLP_TYP value of S5; `\_S5` names the same.
pub const S5_SLP_TYP: u8 = 5;
const SLP_EN: u8 = 1 << 5;
/// What the guest writes to the reset register.
pub const RESET_VALUE: u8 = 1;
/// RST_CPU: a write with this bit to port 0xCF9 resets.
const CF9_RST_CPU: u8 = 1 << 2;

/// Real-mode code for [`layout::RESET_VECTOR`], where a kernel that finds no other way to reboot jumps to: on a
/// hardware-reduced platform without EFI, Linux does not try the ACPI reset register.
#[rustfmt::skip]
pub const RESET_CODE: [u8; 9] = [
    0xb0, RESET_VALUE, // mov al, RESET_VALUE
    0xba, 0x02, 0x06, // mov dx, RESET
    0xee, // out dx, al
    0xf4, // hlt
    0xeb, 0xfd, // jmp to the hlt
];

/// Sleep control, reset and power button.
pub struct Power {
    exit: Arc<ExitSlot>,
    ioapic: Arc<IoApic>,
}

impl Power {
    /// Reports power-off and reset to `exit`.
    pub fn new(exit: Arc<ExitSlot>, ioapic: Arc<IoApic>) -> Self {
        Self { exit, ioapic }
    }

    /// A guest's write to one of the ports that [`Self::owns`].
    pub fn write(&self, port: u16, value: u8) {
        match port {
            layout::SLEEP_CONTROL if value == (S5_SLP_TYP << 2) | SLP_EN => {
                self.exit.set(Outcome::PowerOff)
            }
            layout::RESET if value == RESET_VALUE => self.exit.set(Outcome::Reset),
            layout::RESET_CF9 if value & CF9_RST_CPU != 0 => self.exit.set(Outcome::Reset),
            _ => {}
        }
    }

    /// The user pressed the power button.
    pub fn press_button(&self) {
        self.ioapic.pulse(layout::POWER_BUTTON_GSI);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioapic::{InterruptSink, Message};
    use super::*;

    struct Nowhere;
    impl InterruptSink for Nowhere {
        fn deliver(&self, _: Message) {}
    }

    fn outcome(port: u16, value: u8) -> Option<Outcome> {
        let exit = Arc::new(ExitSlot::new().unwrap());
        let ioapic = Arc::new(IoApic::new(Box::new(Nowhere)));
        Power::new(exit.clone(), ioapic).write(port, value);
        exit.outcome()
    }

    #[test]
    fn reset_code_writes_the_reset_register() {
        assert_eq!(RESET_CODE[3..5], layout::RESET.to_le_bytes());
        assert!(layout::RESET_VECTOR + RESET_CODE.len() as u64 <= layout::HIGH_MEMORY);
    }

    #[test]
    fn ports() {
        assert_eq!(outcome(0x600, 0x34), Some(Outcome::PowerOff));
        assert_eq!(outcome(0x600, 0x14), None, "SLP_EN is clear");
        assert_eq!(outcome(0x601, 0x34), None);
        assert_eq!(outcome(0x602, 1), Some(Outcome::Reset));
        assert_eq!(outcome(0xcf9, 2), None);
        assert_eq!(outcome(0xcf9, 6), Some(Outcome::Reset));
    }
}
