// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of the local APIC: one program, so that they share what they share.

mod apicv;
mod base;
mod common;
mod destination;
mod lvt;
mod mmio;
mod msi;
mod msr;
mod priority;
mod state;
mod timer;
