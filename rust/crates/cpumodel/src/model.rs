// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The CPUID of a partition: built once from the host's, looked up by each VP.

mod dynamic;
mod timing;

use crate::feature::{Reg, Tlfs, FEATURE_REGISTERS};
use crate::xsave::XsaveModel;
use crate::{Feature, FeatureSet, Overrides};
use hvdef::{
    HvProcessorFeatures0, HvProcessorFeatures1, HvProcessorXsaveFeatures, HYPERV_CPUID_RANGE,
};
use x86def::cr;

/// Controls of VMX that a feature needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct VmxLimits {
    /// "Enable RDTSCP".
    pub rdtscp: bool,
    /// "Enable INVPCID".
    pub invpcid: bool,
    /// "Descriptor-table exiting".
    pub descriptor_exits: bool,
}

/// Which means against speculative execution attacks the guest gets. Each is shown only if the host has it too.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpeculationControl {
    /// IA32_SPEC_CTRL.IBRS and IA32_PRED_CMD.IBPB.
    pub spec_ctrl: bool,
    /// IA32_SPEC_CTRL.STIBP.
    pub stibp: bool,
    /// IA32_SPEC_CTRL.SSBD.
    pub ssbd: bool,
    /// VERW clears buffers.
    pub md_clear: bool,
    /// IA32_FLUSH_CMD.L1D_FLUSH.
    pub l1d_flush: bool,
    /// Value of IA32_ARCH_CAPABILITIES.
    pub arch_capabilities: Option<u64>,
}

/// Features that the VMM disabled at CREATE_PARTITION.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disabled {
    /// Bank 0.
    pub bank0: HvProcessorFeatures0,
    /// Bank 1.
    pub bank1: HvProcessorFeatures1,
    /// XSAVE features.
    pub xsave: HvProcessorXsaveFeatures,
}

impl Disabled {
    pub(crate) fn names(&self, tlfs: Tlfs) -> bool {
        match tlfs {
            Tlfs::Unnamed => false,
            Tlfs::Bank0(bit) => self.bank0.contains(bit),
            Tlfs::Bank1(bit) => self.bank1.contains(bit),
            Tlfs::Xsave(bit) => self.xsave.contains(bit),
        }
    }
}

/// What decides about a partition's processors, besides the host's CPUID.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Controls of VMX.
    pub vmx: VmxLimits,
    /// Means against speculative execution attacks.
    pub speculation: SpeculationControl,
    /// Disabled by the VMM.
    pub disabled: Disabled,
    /// Bits of a guest-physical address.
    pub physical_address_bits: u8,
    /// Hz of the guest's TSC; 0 if not known.
    pub tsc_hz: u64,
    /// Hz of the local APIC timer before its divider; 0 if not known.
    pub apic_hz: u64,
    /// The TSC is invariant and synchronized, and stays so (F-TM12).
    pub invariant_tsc: bool,
    /// The local APIC is the module's.
    pub lapic: bool,
    /// It has an x2APIC mode.
    pub x2apic: bool,
    /// A hypervisor is to be seen (C-R1).
    pub hypervisor_present: bool,
}

/// What of a VP's state CPUID depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct VpCpuidInput {
    /// APIC id.
    pub apic_id: u32,
    /// VPs that the partition has or is to have, at least 1; must not change while guests run.
    pub vp_count: u32,
    /// CR4.OSXSAVE.
    pub cr4_osxsave: bool,
    /// CR4.PKE.
    pub cr4_pke: bool,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_APIC_BASE.EN.
    pub apic_enabled: bool,
    /// The VP is in 64-bit mode (EFER.LMA and CS.L).
    pub mode_64_bit: bool,
    /// The guest may see that its TSC is invariant (F-TM15).
    pub tsc_invariant: bool,
}

/// Subleaves of leaf 4 that are kept.
const CACHES: usize = 6;
/// Highest basic leaf that is shown.
const MAX_BASIC: u32 = 0x1f;
/// Highest extended leaf that is shown.
const MAX_EXTENDED: u32 = 0x8000_0008;
const EXTENDED: u32 = 0x8000_0000;

/// CPUID of a partition.
#[derive(Clone, Debug)]
pub struct CpuModel {
    features: FeatureSet,
    xsave: XsaveModel,
    basic: [[u32; 4]; MAX_BASIC as usize + 1],
    leaf7_1: [u32; 4],
    caches: [[u32; 4]; CACHES],
    extended: [[u32; 4]; (MAX_EXTENDED - EXTENDED) as usize + 1],
    physical_address_bits: u8,
    arch_capabilities: u64,
    npiep: bool,
}

impl CpuModel {
    /// A processor without features. It is large: make it where it is to stay, then [`Self::build`] it.
    pub const fn new() -> Self {
        Self {
            features: FeatureSet::new(),
            xsave: XsaveModel::new(),
            basic: [[0; 4]; MAX_BASIC as usize + 1],
            leaf7_1: [0; 4],
            caches: [[0; 4]; CACHES],
            extended: [[0; 4]; (MAX_EXTENDED - EXTENDED) as usize + 1],
            physical_address_bits: 36,
            arch_capabilities: 0,
            npiep: false,
        }
    }

    /// Makes this the CPUID of a partition on the host whose CPUID `host` tells.
    pub fn build(&mut self, host: &dyn Fn(u32, u32) -> [u32; 4], machine: &Machine) {
        *self = Self::new();
        let host_xcr0 = XsaveModel::host_xcr0(host);
        let f = FeatureSet::select(host, host_xcr0, machine);
        self.features = f;
        self.xsave = XsaveModel::select(host, host_xcr0, &f);
        self.physical_address_bits = machine.physical_address_bits;
        let npiep = HvProcessorFeatures0::NPIEP1_SUPPORT;
        self.npiep = machine.vmx.descriptor_exits && !machine.disabled.bank0.contains(npiep);
        if f.has(Feature::ArchCapabilities) {
            self.arch_capabilities = machine.speculation.arch_capabilities.unwrap_or(0);
        }

        let [host_max, ebx, ecx, edx] = host(0, 0);
        let [signature, brand_clflush, ..] = host(1, 0);
        self.basic[0] = [host_max.min(MAX_BASIC), ebx, ecx, edx];
        // Bits 7:0 brand index, 15:8 CLFLUSH line; the rest is the VP's.
        self.basic[1] = [
            signature,
            brand_clflush & 0xffff,
            f.register(1, 0, Reg::Ecx),
            f.register(1, 0, Reg::Edx),
        ];
        self.basic[2] = if host_max >= 2 { host(2, 0) } else { [0; 4] };
        if host_max >= 4 {
            for (i, cache) in (0..).zip(self.caches.iter_mut()) {
                *cache = host(4, i);
                if cache[0] & 0x1f == 0 {
                    *cache = [0; 4];
                    break;
                }
            }
        }
        self.basic[6][0] = f.register(6, 0, Reg::Eax);
        let reg7 = |subleaf, reg| f.register(7, subleaf, reg);
        self.leaf7_1 = [
            reg7(1, Reg::Eax),
            reg7(1, Reg::Ebx),
            reg7(1, Reg::Ecx),
            reg7(1, Reg::Edx),
        ];
        let max_subleaf = u32::from(self.leaf7_1 != [0; 4]);
        self.basic[7] = [
            max_subleaf,
            reg7(0, Reg::Ebx),
            reg7(0, Reg::Ecx),
            reg7(0, Reg::Edx),
        ];
        // What subleaf 1 has in EAX; the rest of leaf 0xD is computed.
        self.basic[0xd][0] = f.register(0xd, 1, Reg::Eax);
        self.basic[0x15] = timing::leaf_15(machine);
        self.basic[0x16] = timing::leaf_16(machine);

        let host_max = host(EXTENDED, 0)[0];
        let max = if host_max >= EXTENDED {
            host_max.min(MAX_EXTENDED)
        } else {
            EXTENDED
        };
        self.extended[0][0] = max;
        let reg_ext = |leaf, reg| f.register(EXTENDED + leaf, 0, reg);
        self.extended[1] = [0, 0, reg_ext(1, Reg::Ecx), reg_ext(1, Reg::Edx)];
        for leaf in 2..=4 {
            if EXTENDED + leaf <= max {
                // The brand string.
                self.extended[leaf as usize] = host(EXTENDED + leaf, 0);
            }
        }
        if EXTENDED + 6 <= max {
            self.extended[6][2] = host(EXTENDED + 6, 0)[2];
        }
        self.extended[7][3] = reg_ext(7, Reg::Edx);
        // Linear addresses are 48 bits wide: LA57 is not shown.
        let widths = u32::from(machine.physical_address_bits) | (48 << 8);
        self.extended[8] = [widths, reg_ext(8, Reg::Ebx), 0, 0];
    }

    /// The features shown.
    #[inline(always)]
    pub const fn features(&self) -> &FeatureSet {
        &self.features
    }

    /// Whether `feature` is shown.
    #[inline(always)]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// The banks in which the TLFS names features: those of CPUID, and NPIEP, which no leaf of the processor's tells.
    pub fn banks(
        &self,
    ) -> (
        HvProcessorFeatures0,
        HvProcessorFeatures1,
        HvProcessorXsaveFeatures,
    ) {
        let (mut bank0, bank1, xsave) = self.features.banks();
        if self.npiep {
            bank0 |= HvProcessorFeatures0::NPIEP1_SUPPORT;
        }
        (bank0, bank1, xsave)
    }

    /// Instructions that tell where descriptor tables are can be forbidden outside of CPL 0 (F-NP1).
    #[inline(always)]
    pub const fn npiep(&self) -> bool {
        self.npiep
    }

    /// Leaf 0xD.
    #[inline(always)]
    pub const fn xsave(&self) -> &XsaveModel {
        &self.xsave
    }

    /// Bits of a guest-physical address.
    #[inline(always)]
    pub const fn physical_address_bits(&self) -> u8 {
        self.physical_address_bits
    }

    /// Value of IA32_ARCH_CAPABILITIES.
    #[inline(always)]
    pub const fn arch_capabilities(&self) -> u64 {
        self.arch_capabilities
    }

    /// Bits that CR4 can have; MOV to CR4 with another is #GP.
    pub const fn cr4_legal_bits(&self) -> u64 {
        let f = &self.features;
        let mut bits = cr::CR4_MCE | cr::CR4_PCE;
        let mut i = 0;
        while i < CR4_BITS.len() {
            let (feature, bit) = CR4_BITS[i];
            if f.has(feature) {
                bits |= bit;
            }
            i += 1;
        }
        bits
    }

    /// Bits that EFER can have.
    pub const fn efer_legal_bits(&self) -> u64 {
        let f = &self.features;
        let mut bits = 0;
        if f.has(Feature::Syscall) {
            bits |= cr::EFER_SCE;
        }
        if f.has(Feature::Lm) {
            bits |= cr::EFER_LME | cr::EFER_LMA;
        }
        if f.has(Feature::Nx) {
            bits |= cr::EFER_NXE;
        }
        bits
    }

    /// EAX, EBX, ECX, EDX for a VP, without overrides.
    #[inline(always)]
    pub fn lookup(&self, leaf: u32, subleaf: u32, vp: &VpCpuidInput) -> [u32; 4] {
        self.lookup_for(leaf, subleaf, || *vp)
    }

    /// [`Self::lookup`] that asks for the VP's state only where the leaf depends on it.
    #[inline(always)]
    pub fn lookup_for(
        &self,
        leaf: u32,
        subleaf: u32,
        vp: impl FnOnce() -> VpCpuidInput,
    ) -> [u32; 4] {
        let max_basic = self.basic[0][0];
        let leaf = if leaf <= max_basic || (EXTENDED..=self.extended[0][0]).contains(&leaf) {
            leaf
        } else {
            // SDM volume 2, CPUID: outside both ranges the highest basic leaf answers.
            max_basic
        };
        self.in_range(leaf, subleaf, vp)
    }

    #[inline(always)]
    fn in_range(&self, leaf: u32, subleaf: u32, vp: impl FnOnce() -> VpCpuidInput) -> [u32; 4] {
        match leaf {
            1 => dynamic::leaf_1(self.basic[1], &self.features, &vp()),
            4 => match self.caches.get(subleaf as usize) {
                Some(&cache) => dynamic::leaf_4(cache, &vp()),
                None => [0; 4],
            },
            7 => match subleaf {
                0 => dynamic::leaf_7(self.basic[7], &self.features, &vp()),
                1 => self.leaf7_1,
                _ => [0; 4],
            },
            0xb | 0x1f => dynamic::topology(subleaf, &vp()),
            0xd => self.xsave.leaf(subleaf, vp().xcr0, self.basic[0xd][0]),
            0x8000_0001 => dynamic::leaf_8000_0001(self.extended[1], &vp()),
            0x8000_0007 => dynamic::leaf_8000_0007(self.extended[7], &vp()),
            _ => {
                let table: &[[u32; 4]] = if leaf >= EXTENDED {
                    &self.extended
                } else {
                    &self.basic
                };
                table
                    .get((leaf & !EXTENDED) as usize)
                    .copied()
                    .unwrap_or([0; 4])
            }
        }
    }

    /// EAX, EBX, ECX, EDX for a VP, with what the VMM registered on top.
    ///
    /// An override can say anything about identity, topology and caches. It can take features away but not add one,
    /// and what follows the VP's state (OSXSAVE, OSPKE, the APIC bit, sizes of XSAVE areas) goes on following it.
    /// The hypervisor's leaves are nobody's to override, nor can the bit that announces them be taken away.
    #[inline(always)]
    pub fn lookup_with(
        &self,
        overrides: &Overrides,
        leaf: u32,
        subleaf: u32,
        vp: impl FnOnce() -> VpCpuidInput,
    ) -> [u32; 4] {
        let own = self.lookup_for(leaf, subleaf, vp);
        if HYPERV_CPUID_RANGE.contains(&leaf) {
            return own;
        }
        let Some(mut result) = overrides.apply(leaf, subleaf, own) else {
            return own;
        };
        if has_features(leaf) {
            for &(l, s, reg) in FEATURE_REGISTERS {
                if l == leaf && (s == subleaf || !subleaf_matters(leaf)) {
                    result[reg as usize] &= own[reg as usize] | dynamic::free_bits(leaf, reg);
                }
            }
        }
        dynamic::keep(leaf, subleaf, own, &mut result);
        result
    }
}

/// Leaves of [`FEATURE_REGISTERS`], a bit each: of the basic leaves, of the extended ones.
const FEATURE_LEAVES: (u32, u32) = {
    let mut leaves = (0, 0);
    let mut i = 0;
    while i < FEATURE_REGISTERS.len() {
        let leaf = FEATURE_REGISTERS[i].0;
        assert!(leaf & 0x7fff_ffe0 == 0);
        if leaf < EXTENDED {
            leaves.0 |= 1 << leaf;
        } else {
            leaves.1 |= 1 << (leaf & 0x1f);
        }
        i += 1;
    }
    leaves
};

/// Whether [`FEATURE_REGISTERS`] has the leaf.
#[inline(always)]
const fn has_features(leaf: u32) -> bool {
    let (basic, extended) = FEATURE_LEAVES;
    let leaves = if leaf < EXTENDED { basic } else { extended };
    leaf & 0x7fff_ffe0 == 0 && (leaves >> (leaf & 0x1f)) & 1 != 0
}

/// Whether the result of a leaf depends on ECX.
#[inline(always)]
const fn subleaf_matters(leaf: u32) -> bool {
    matches!(leaf, 4 | 7 | 0xb | 0xd | 0x1f)
}

/// Feature that each bit of CR4 needs.
const CR4_BITS: [(Feature, u64); 15] = [
    (Feature::Vme, cr::CR4_VME | cr::CR4_PVI),
    (Feature::Tsc, cr::CR4_TSD),
    (Feature::De, cr::CR4_DE),
    (Feature::Pse, cr::CR4_PSE),
    (Feature::Pae, cr::CR4_PAE),
    (Feature::Pge, cr::CR4_PGE),
    (Feature::Fxsr, cr::CR4_OSFXSR),
    (Feature::Sse, cr::CR4_OSXMMEXCPT),
    (Feature::Umip, cr::CR4_UMIP),
    (Feature::Fsgsbase, cr::CR4_FSGSBASE),
    (Feature::Pcid, cr::CR4_PCIDE),
    (Feature::Xsave, cr::CR4_OSXSAVE),
    (Feature::Smep, cr::CR4_SMEP),
    (Feature::Smap, cr::CR4_SMAP),
    (Feature::Pku, cr::CR4_PKE),
];

impl Default for CpuModel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
