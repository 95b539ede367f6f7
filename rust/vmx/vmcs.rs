// SPDX-License-Identifier: GPL-2.0

//! VMCS regions, and the fields of the one that is current.

use super::capabilities::Capabilities;
use super::insn::operation::region;
pub(crate) use super::insn::operation::CurrentVmcs;
use crate::sys::pages::Pages;
use kernel::error::Result;
use vmxdef::field::VmcsField;

/// A VMCS region. It is clear whenever no window has it current, so that it may move between CPUs.
pub(crate) struct Vmcs {
    region: Pages,
    is_new: bool,
}

impl Vmcs {
    /// A region with this machine's revision; its fields are undefined until written.
    pub(crate) fn new(caps: &Capabilities) -> Result<Self> {
        Ok(Self {
            region: region(caps.revision)?,
            is_new: true,
        })
    }

    /// Its physical address.
    #[inline]
    pub(super) fn region(&self) -> u64 {
        self.region.phys()
    }

    /// Whether it was never loaded: true once.
    #[inline]
    pub(super) fn is_new(&mut self) -> bool {
        core::mem::take(&mut self.is_new)
    }
}

impl CurrentVmcs<'_> {
    /// VMREAD. hvrs uses no field that its required controls do not imply.
    #[inline(always)]
    pub(crate) fn read<F: VmcsField>(&self, field: F) -> F::Value {
        F::from_raw(self.vmread(field.encoding()))
    }

    /// VMWRITE; VM entry checks the state it is given.
    #[inline(always)]
    pub(crate) fn write<F: VmcsField>(&self, field: F, value: F::Value) {
        self.vmwrite(field.encoding(), F::to_raw(value));
    }

    /// Sets and clears bits of a field.
    #[inline(always)]
    pub(crate) fn modify<F: VmcsField<Value = u32>>(&self, field: F, clear: u32, set: u32) {
        self.write(field, self.read(field) & !clear | set);
    }
}
