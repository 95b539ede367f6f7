// SPDX-License-Identifier: GPL-2.0

//! MSHV_SET_MSI_ROUTING: which message each interrupt line (GSI) of an irqfd stands for.

use crate::sys::bindings::mshv_user_irq_entry;
use crate::sys::user;
use core::mem::size_of;
use kernel::prelude::*;
use vapic::Msi;

/// GSIs are below it.
const MAX_GUEST_IRQS: u32 = 4096;
/// Size of the table's header.
const HEADER: usize = 8;

/// Message of each GSI, as [`Msi::to_bits`]; 0: none.
pub(super) struct Routes(KVVec<u32>);

impl Routes {
    /// None.
    pub(super) const fn new() -> Self {
        Self(KVVec::new())
    }

    /// The table at the user address `arg`.
    ///
    /// # Errors
    ///
    /// EFAULT; EINVAL: reserved bits, too many entries, a GSI out of range or twice, an address
    /// above 4 GiB.
    pub(super) fn read(arg: usize) -> Result<Self> {
        let header: u64 = user::read(arg)?;
        let nr = header as u32;
        if nr > MAX_GUEST_IRQS || header >> 32 != 0 {
            return Err(EINVAL);
        }
        let mut routes = KVVec::new();
        for n in 0..nr as usize {
            let offset = HEADER + n * size_of::<mshv_user_irq_entry>();
            let addr = arg.checked_add(offset).ok_or(EFAULT)?;
            let entry: mshv_user_irq_entry = user::read(addr)?;
            if entry.gsi >= MAX_GUEST_IRQS || entry.address_hi != 0 {
                return Err(EINVAL);
            }
            let gsi = entry.gsi as usize;
            if gsi >= routes.len() {
                routes.resize(gsi + 1, 0, GFP_KERNEL_ACCOUNT)?;
            }
            match routes.get_mut(gsi) {
                Some(route) if *route == 0 => {
                    *route = Msi::new(entry.address_lo, entry.data).to_bits();
                }
                _ => return Err(EINVAL),
            }
        }
        Ok(Self(routes))
    }

    /// The message of `gsi`, as [`Msi::to_bits`].
    pub(super) fn get(&self, gsi: u32) -> u32 {
        self.0.get(gsi as usize).copied().unwrap_or(0)
    }
}
