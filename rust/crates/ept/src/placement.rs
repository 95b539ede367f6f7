// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where a VP ran last: what must be done before it runs on another CPU.

/// What a VP needs before it runs on a CPU.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// VMCLEAR its VMCS on this CPU first: a CPU may hold the VMCS of a VP that it ran, and
    /// another CPU must not load it (SDM 25.11.1).
    pub vmclear_on: Option<u32>,
    /// Single-context INVVPID: this CPU may cache translations of the VP's linear addresses from
    /// its last stay, which it changed and invalidated only where it has been since
    /// (SDM 29.4.3.1).
    pub flush_vpid: bool,
}

/// The CPU on which a VP ran last and the one that holds its VMCS. Changed by the VP's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    ran_on: Option<u32>,
    active_on: Option<u32>,
}

impl Placement {
    /// Never ran; its VMCS is clear.
    pub const fn new() -> Placement {
        Placement {
            ran_on: None,
            active_on: None,
        }
    }

    /// What must be done before the VP runs on `cpu`.
    #[inline]
    pub fn needs(&self, cpu: u32) -> Transition {
        Transition {
            vmclear_on: self.active_on.filter(|&on| on != cpu),
            flush_vpid: self.ran_on != Some(cpu),
        }
    }

    /// Everything was done and the VMCS is current on `cpu`.
    #[inline]
    pub fn loaded(&mut self, cpu: u32) {
        *self = Placement {
            ran_on: Some(cpu),
            active_on: Some(cpu),
        };
    }

    /// The VMCS was VMCLEARed, as at the end of each window that does not keep root mode.
    #[inline]
    pub fn cleared(&mut self) {
        self.active_on = None;
    }

    /// The CPU that holds the VMCS: where it must be VMCLEARed before the VMCS is freed or the
    /// CPU goes offline.
    #[inline]
    pub fn active_on(&self) -> Option<u32> {
        self.active_on
    }

    /// The VP got another VPID, or its CPU's caches are unknown: INVVPID before the next run.
    #[inline]
    pub fn forget(&mut self) {
        self.ran_on = None;
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self::new()
    }
}
