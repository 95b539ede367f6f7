// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The debug-exit port: a guest ends its VM and hands hvrsctl an exit status, as with QEMU's `isa-debug-exit`.

use std::sync::Arc;

use crate::outcome::{ExitSlot, Outcome};

/// The port, present with `--debug-exit` only.
pub struct DebugExit {
    exit: Option<Arc<ExitSlot>>,
}

impl DebugExit {
    /// `exit` is `None` when the port is not there.
    pub fn new(exit: Option<Arc<ExitSlot>>) -> Self {
        Self { exit }
    }

    /// A guest's write.
    pub fn write(&self, value: u32) {
        if let Some(exit) = &self.exit {
            exit.set(Outcome::DebugExit(value));
        }
    }
}

/// hvrsctl's exit status for a value that the guest wrote: odd, so never the 0 of a power-off.
pub fn exit_status(value: u32) -> u8 {
    (value << 1) as u8 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_that_of_qemu() {
        assert_eq!(exit_status(0), 1);
        assert_eq!(exit_status(0x10), 33);
        assert_eq!(exit_status(0xff), 255);
    }

    #[test]
    fn absent_port_ignores_writes() {
        DebugExit::new(None).write(1);
        let exit = Arc::new(ExitSlot::new().unwrap());
        DebugExit::new(Some(exit.clone())).write(7);
        assert_eq!(exit.outcome(), Some(Outcome::DebugExit(7)));
    }
}
