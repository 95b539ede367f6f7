// SPDX-License-Identifier: GPL-2.0

//! What each CPU has of its own.

use super::host_state::HostState;
use super::insn::operation::CpuVmx;
use ept::SeenGenerations;
use kernel::error::Result;

/// State of one CPU.
pub(crate) struct Cpu {
    /// Its VMX operation.
    pub(crate) vmx: CpuVmx,
    /// Present while guest values may be in host registers.
    pub(crate) host: Option<HostState>,
    /// Flush generations of the EPT roots used here.
    pub(crate) seen: SeenGenerations<8>,
    /// VMCS that ran here last: another one needs IBPB first.
    pub(crate) last_vmcs: u64,
}

impl Cpu {
    /// A CPU that has not been in a window.
    pub(crate) fn new(revision: u32) -> Result<Self> {
        Ok(Self {
            vmx: CpuVmx::new(revision)?,
            host: None,
            seen: SeenGenerations::new(),
            last_vmcs: !0,
        })
    }
}
