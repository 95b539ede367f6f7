// SPDX-License-Identifier: GPL-2.0

//! VMX of this machine: capabilities, controls, VMCS, root window, entry.

pub(crate) mod capabilities;
pub(crate) mod controls;
pub(crate) mod entry;
pub(crate) mod host_state;
pub(crate) mod insn;
pub(crate) mod percpu;
pub(crate) mod root;
pub(crate) mod vmcs;
