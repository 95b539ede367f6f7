// SPDX-License-Identifier: GPL-2.0

//! VMCS regions, and the token that allows reading and writing the current one.

#![allow(unsafe_code)] // UNSAFETY: instruction layer.

use super::capabilities::Capabilities;
use super::insn;
use crate::sys::pages::Pages;
use core::marker::PhantomData;
use kernel::error::Result;
use vmxdef::field::VmcsField;

/// A VMCS region. It is clear whenever no window has it current, so that it may move between CPUs.
pub(crate) struct Vmcs(Pages);

impl Vmcs {
    /// A region with this machine's revision; its fields are undefined until written.
    pub(crate) fn new(caps: &Capabilities) -> Result<Self> {
        let mut pages = Pages::new(0)?;
        pages.bytes_mut()[..4].copy_from_slice(&caps.revision.to_le_bytes());
        Ok(Self(pages))
    }

    /// The region.
    #[inline]
    pub(crate) fn region(&self) -> VmcsRegion {
        VmcsRegion(self.0.phys())
    }
}

/// Names the region of a [`Vmcs`], whose owner keeps it while it is used.
#[derive(Clone, Copy)]
pub(crate) struct VmcsRegion(pub(super) u64);

/// Proof that a VMCS is current on this CPU, in VMX root operation, with interrupts off.
pub(crate) struct CurrentVmcs<'a>(PhantomData<(&'a (), *mut ())>);

impl CurrentVmcs<'_> {
    /// # Safety
    ///
    /// What the type proves is true while the value lives.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(PhantomData)
    }

    /// VMREAD.
    #[inline(always)]
    pub(crate) fn read<F: VmcsField>(&self, field: F) -> F::Value {
        // SAFETY: A VMCS is current; hvrs uses no field that its required controls do not imply.
        F::from_raw(unsafe { insn::vmread(field.encoding()) })
    }

    /// VMWRITE.
    #[inline(always)]
    pub(crate) fn write<F: VmcsField>(&self, field: F, value: F::Value) {
        // SAFETY: As above; VM entry checks the state it is given.
        unsafe { insn::vmwrite(field.encoding(), F::to_raw(value)) }
    }

    /// Sets and clears bits of a field.
    #[inline(always)]
    pub(crate) fn modify<F: VmcsField<Value = u32>>(&self, field: F, clear: u32, set: u32) {
        self.write(field, self.read(field) & !clear | set);
    }

    /// Forgets this CPU's translations of `vpid`.
    pub(crate) fn invvpid(&self, vpid: u16) {
        // SAFETY: In VMX root operation.
        unsafe { insn::invvpid_single(vpid) }
    }

    /// Forgets this CPU's translations of one linear address of `vpid`; the CPU must have
    /// individual-address INVVPID.
    pub(crate) fn invvpid_address(&self, vpid: u16, gva: u64) {
        // SAFETY: In VMX root operation.
        unsafe { insn::invvpid_address(vpid, gva) }
    }

    /// Forgets this CPU's translations by the EPT root `eptp`.
    pub(crate) fn invept(&self, eptp: u64) {
        // SAFETY: In VMX root operation.
        unsafe { insn::invept_single(eptp) }
    }
}
