// SPDX-License-Identifier: GPL-2.0 OR MIT
//! COM1, polled, and the port that ends the run.

use crate::cpu::{halt_forever, inb, outb, outl};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

const COM1: u16 = 0x3f8;
const LSR: u16 = COM1 + 5;
const LSR_THRE: u8 = 0x20;
const DEBUG_EXIT: u16 = 0xf4;

static LOCK: AtomicBool = AtomicBool::new(false);

pub(crate) fn init() {
    outb(COM1 + 1, 0); // no interrupts
    outb(COM1 + 3, 3); // 8N1
    outb(COM1 + 2, 7); // FIFOs on and empty
    outb(COM1 + 4, 3); // DTR, RTS
}

/// Line discipline: a message never spans lines, so that one line is one result.
struct Com1;

impl Write for Com1 {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            while inb(LSR) & LSR_THRE == 0 {}
            outb(COM1, if byte == b'\n' { b';' } else { byte });
        }
        Ok(())
    }
}

/// Writes one line; line ends inside the text become semicolons.
pub fn line(text: fmt::Arguments<'_>) {
    while LOCK.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let _ = Com1.write_fmt(text);
    while inb(LSR) & LSR_THRE == 0 {}
    outb(COM1, b'\n');
    LOCK.store(false, Ordering::Release);
}

/// Writes one line to COM1.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => { $crate::console::line(format_args!($($arg)*)) };
}

/// Ends the run by the debug-exit port; halts when there is none.
pub fn exit(failed: bool) -> ! {
    outl(DEBUG_EXIT, u32::from(failed));
    halt_forever()
}
