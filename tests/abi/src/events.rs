// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Eventfds, and the ioctls that bind them to interrupts and to writes of a guest.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use mshv_bindings::*;

use crate::run::{eventually, Outcome};
use crate::sys::{self, check, Sys};
use crate::vm::Partition;

pub const IRQFD: u32 = 0x4010_b803;
pub const IOEVENTFD: u32 = 0x4020_b804;
pub const SET_MSI_ROUTING: u32 = 0x4008_b805;

/// Flags of IRQFD.
pub const IRQFD_DEASSIGN: u32 = 1;
pub const IRQFD_RESAMPLE: u32 = 2;
/// Flags of IOEVENTFD.
pub const DATAMATCH: u32 = 1;
pub const PIO: u32 = 2;
pub const DEASSIGN: u32 = 4;

/// An eventfd that does not block.
pub struct EventFd(OwnedFd);

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl EventFd {
    pub fn new() -> Self {
        // SAFETY: No memory involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        Self(sys::owned(check(fd.into()).expect("eventfd") as RawFd))
    }

    /// Its number, as the ioctls want it.
    pub fn number(&self) -> i32 {
        self.as_raw_fd()
    }

    /// Adds 1.
    pub fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: Eight bytes.
        let n = unsafe { libc::write(self.as_raw_fd(), one.as_ptr().cast(), 8) };
        assert_eq!(n, 8, "write to an eventfd: {:?}", sys::last());
    }

    /// Its counter, which is 0 afterwards.
    pub fn take(&self) -> u64 {
        let mut value = [0u8; 8];
        // SAFETY: Eight bytes.
        match unsafe { libc::read(self.as_raw_fd(), value.as_mut_ptr().cast(), 8) } {
            8 => u64::from_ne_bytes(value),
            _ => 0,
        }
    }

    /// Waits for a signal.
    pub fn wait(&self, what: &str) -> Outcome {
        eventually(what, 10, || self.take() != 0)
    }
}

/// An entry of the routing table: GSI, low and high half of the address, data.
pub type Route = (u32, u32, u32, u32);

/// The message of a fixed interrupt for APIC id 0.
pub const fn edge(gsi: u32, vector: u8) -> Route {
    (gsi, 0xfee0_0000, 0, vector as u32)
}

/// The same, level-triggered.
pub const fn level(gsi: u32, vector: u8) -> Route {
    (gsi, 0xfee0_0000, 0, 0x8000 | vector as u32)
}

/// SET_MSI_ROUTING's argument.
pub fn table(nr: u32, reserved: u32, routes: &[Route]) -> Vec<u32> {
    let mut words = vec![nr, reserved];
    for &(gsi, low, high, data) in routes {
        words.extend([gsi, low, high, data]);
    }
    words
}

impl Partition {
    /// SET_MSI_ROUTING.
    pub fn set_routes(&self, routes: &[Route]) -> Sys<i32> {
        let words = table(routes.len() as u32, 0, routes);
        sys::ioctl(self, SET_MSI_ROUTING, words.as_ptr() as usize)
    }

    /// IRQFD.
    pub fn irqfd(&self, fd: i32, gsi: u32, flags: u32, resamplefd: i32) -> Sys<i32> {
        let mut argument = mshv_user_irqfd {
            fd,
            resamplefd,
            gsi,
            flags,
        };
        sys::ioctl_on(self, IRQFD, &mut argument)
    }

    /// IOEVENTFD.
    pub fn ioeventfd(&self, fd: i32, addr: u64, len: u32, flags: u32, datamatch: u64) -> Sys<i32> {
        let mut argument = mshv_user_ioeventfd {
            datamatch,
            addr,
            len,
            fd,
            flags,
            rsvd: [0; 4],
        };
        sys::ioctl_on(self, IOEVENTFD, &mut argument)
    }
}
