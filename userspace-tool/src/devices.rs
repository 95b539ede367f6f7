// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Device models of the guest platform.

pub mod bus;
pub mod debug_exit;
pub mod debugger;
pub mod ioapic;
pub mod power;
pub mod serial;
pub mod virtio_block;
pub mod virtio_mmio;
