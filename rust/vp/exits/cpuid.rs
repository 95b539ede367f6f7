// SPDX-License-Identifier: GPL-2.0

//! CPUID.

use super::skip;
use crate::partition::Config;
use crate::vp::core::{VpCore, RAX, RBX, RCX, RDX};
use crate::vp::cpuid_input;
use crate::vp::entry::Running;
use cpumodel::VpCpuidInput;

/// What a leaf of the processor's tells, with what the VMM registered.
#[inline]
pub(crate) fn lookup(
    core: &VpCore,
    config: &Config,
    leaf: u32,
    subleaf: u32,
    input: impl FnOnce() -> VpCpuidInput,
) -> [u32; 4] {
    match &core.cpuid_overrides {
        None => config.cpu.lookup_for(leaf, subleaf, input),
        Some(overrides) => config.cpu.lookup_with(overrides, leaf, subleaf, input),
    }
}

/// What CPUID gives now.
#[inline(always)]
pub(super) fn result(r: &Running<'_>) -> [u32; 4] {
    let leaf = r.core.gprs[RAX] as u32;
    let subleaf = r.core.gprs[RCX] as u32;
    if leaf & 0xffff_0000 == 0x4000_0000 || r.core.cpuid_overrides.is_some() {
        return special(r, leaf, subleaf);
    }
    let vp = || cpuid_input(r.core, &r.window.vmcs, r.partition, r.config);
    r.config.cpu.lookup_for(leaf, subleaf, vp)
}

/// The hypervisor's leaves, and what the VMM has its say in.
#[inline(never)]
fn special(r: &Running<'_>, leaf: u32, subleaf: u32) -> [u32; 4] {
    if leaf & 0xffff_0000 == 0x4000_0000 {
        r.partition.hv_cpuid(r.config, leaf)
    } else {
        let input = || cpuid_input(r.core, &r.window.vmcs, r.partition, r.config);
        lookup(r.core, r.config, leaf, subleaf, input)
    }
}

#[inline(always)]
pub(super) fn handle(r: &mut Running<'_>) -> bool {
    let [eax, ebx, ecx, edx] = result(r);
    let gprs = &mut r.core.gprs;
    gprs[RAX] = u64::from(eax);
    gprs[RBX] = u64::from(ebx);
    gprs[RCX] = u64::from(ecx);
    gprs[RDX] = u64::from(edx);
    skip(r)
}
