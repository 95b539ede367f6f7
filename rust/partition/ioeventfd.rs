// SPDX-License-Identifier: GPL-2.0

//! MSHV_IOEVENTFD: a write of the guest, to memory or to a port, that signals an eventfd.

use super::registry::Registry;
use crate::sys::bindings::*;
use crate::sys::eventfd::EventFd;
use kernel::prelude::*;
use kernel::sync::Arc;

const DATAMATCH: u32 = 1 << MSHV_IOEVENTFD_BIT_DATAMATCH;
const PIO: u32 = 1 << MSHV_IOEVENTFD_BIT_PIO;
const DEASSIGN: u32 = 1 << MSHV_IOEVENTFD_BIT_DEASSIGN;
/// Ports are below it.
const PORTS: u64 = 1 << 16;
/// A look-up goes through all of them.
const MAX_IOEVENTFDS: usize = 1024;

/// Where a guest writes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    /// Guest-physical memory.
    Memory,
    /// I/O ports.
    Port,
}

/// What a write must be like.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Trigger {
    bus: Bus,
    addr: u64,
    /// In bytes; 0: any.
    len: u32,
    /// The value, zero-extended. None: any.
    datamatch: Option<u64>,
}

impl Trigger {
    fn new(args: &mshv_user_ioeventfd) -> Self {
        Self {
            bus: if args.flags & PIO != 0 {
                Bus::Port
            } else {
                Bus::Memory
            },
            addr: args.addr,
            len: args.len,
            datamatch: (args.flags & DATAMATCH != 0).then_some(args.datamatch),
        }
    }

    fn is_at(&self, bus: Bus, addr: u64) -> bool {
        self.addr == addr && self.bus == bus
    }

    fn fires(&self, bus: Bus, addr: u64, len: u32, value: u64) -> bool {
        self.is_at(bus, addr)
            && (self.len == 0 || self.len == len)
            && self.datamatch.is_none_or(|wanted| wanted == value)
    }

    /// One write could fire both, at one length.
    fn collides(&self, other: &Self) -> bool {
        self.is_at(other.bus, other.addr)
            && self.len == other.len
            && (self.datamatch.is_none()
                || other.datamatch.is_none()
                || self.datamatch == other.datamatch)
    }

    /// How much it asks for: of several that a write fires, the first with most is signalled.
    fn strictness(&self) -> u32 {
        2 * u32::from(self.len != 0) + u32::from(self.datamatch.is_some())
    }

    fn is_possible(&self) -> bool {
        let Some(end) = self.addr.checked_add(u64::from(self.len)) else {
            return false;
        };
        match self.bus {
            Bus::Memory => matches!(self.len, 0 | 1 | 2 | 4 | 8),
            Bus::Port => matches!(self.len, 0 | 1 | 2 | 4) && self.addr < PORTS && end <= PORTS,
        }
    }
}

/// An ioeventfd.
pub(crate) struct IoEventFd {
    trigger: Trigger,
    eventfd: EventFd,
}

impl Registry<IoEventFd> {
    /// MSHV_IOEVENTFD.
    ///
    /// # Errors
    ///
    /// EINVAL: unknown flags, reserved fields, a length that no write has, an address out of range,
    /// not an eventfd; EBADF; EEXIST; ENOSPC; ENOENT: there is no such one to deassign.
    pub(super) fn set(&self, args: &mshv_user_ioeventfd) -> Result {
        if args.flags & !(DATAMATCH | PIO | DEASSIGN) != 0 || args.rsvd != [0; 4] {
            return Err(EINVAL);
        }
        let trigger = Trigger::new(args);
        if args.flags & DEASSIGN != 0 {
            let eventfd = EventFd::from_fd(args.fd)?;
            return self.remove(|i| i.trigger == trigger && i.eventfd.is(&eventfd));
        }
        if !trigger.is_possible() {
            return Err(EINVAL);
        }
        let eventfd = EventFd::from_fd(args.fd)?;
        let new = Arc::new(IoEventFd { trigger, eventfd }, GFP_KERNEL_ACCOUNT)?;
        self.add(new, |others| {
            if others.iter().any(|i| i.trigger.collides(&trigger)) {
                return Err(EEXIST);
            }
            if others.len() >= MAX_IOEVENTFDS {
                return Err(ENOSPC);
            }
            Ok(())
        })
    }

    /// Whether a write to `addr` may signal one.
    #[inline]
    pub(crate) fn is_at(&self, bus: Bus, addr: u64) -> bool {
        self.read(|list| list.iter().any(|i| i.trigger.is_at(bus, addr)))
            .unwrap_or(false)
    }

    /// A write of `len` bytes. True: it signalled one, which is all that it does.
    #[inline]
    pub(crate) fn write(&self, bus: Bus, addr: u64, len: u32, value: u64) -> bool {
        self.read(|list| {
            let fired = list
                .iter()
                .filter(|i| i.trigger.fires(bus, addr, len, value))
                .max_by_key(|i| i.trigger.strictness());
            if let Some(i) = fired {
                i.eventfd.signal();
            }
            fired.is_some()
        })
        .unwrap_or(false)
    }
}
