// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The feature bits that a guest can be shown, one row each. A bit without a row is never shown.
//!
//! Not here because they do not work: VMX, SMX, MONITOR, EIST, TM, TM2, PDCM and the PMU, DS, DTES64, PT, LBR, SGX, HLE,
//! RTM, MPX, AMX, XFD, XSAVES, CET, UINTR, PKS, LA57, PCONFIG, key locker, ENQCMD, WAITPKG, LAM, LASS, FRED, RDT, HRESET.

use crate::Machine;
use hvdef::{HvProcessorFeatures0, HvProcessorFeatures1, HvProcessorXsaveFeatures};
use x86def::cr;

/// A register of a CPUID result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(usize)]
pub enum Reg {
    Eax = 0,
    Ebx = 1,
    Ecx = 2,
    Edx = 3,
}

/// Where a feature bit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Leaf.
    pub leaf: u32,
    /// Subleaf.
    pub subleaf: u32,
    /// Register.
    pub reg: Reg,
    /// Bit.
    pub bit: u8,
}

/// What decides about a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The host has it.
    Host,
    /// It is emulated, so it is always there.
    Emulated,
    /// The host has it, and these components of its XSAVE state too.
    State(u64),
    /// The host has it, and VMX lets a guest use RDTSCP.
    Rdtscp,
    /// The host has it, and VMX lets a guest use INVPCID.
    Invpcid,
    /// The partition has an x2APIC.
    X2apic,
    /// The partition's local APIC is the module's.
    Lapic,
    /// A hypervisor is to be seen.
    Hypervisor,
    /// The TSC is invariant.
    InvariantTsc,
    /// The host has it, and it was asked for: IBRS and IBPB.
    SpecCtrl,
    /// The host has it, and it was asked for.
    Stibp,
    /// The host has it, and it was asked for.
    Ssbd,
    /// The host has it, and it was asked for.
    MdClear,
    /// The host has it, and it was asked for.
    L1dFlush,
    /// The host has it, and there is a value to show.
    ArchCapabilities,
}

/// What the TLFS calls the feature; a VMM can disable it by that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tlfs {
    /// Nothing.
    Unnamed,
    /// A bit of bank 0.
    Bank0(HvProcessorFeatures0),
    /// A bit of bank 1.
    Bank1(HvProcessorFeatures1),
    /// A bit of the XSAVE features.
    Xsave(HvProcessorXsaveFeatures),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct FeatureRow {
    /// Feature.
    pub feature: Feature,
    /// Where it is.
    pub place: Place,
    /// What decides about it.
    pub gate: Gate,
    /// Without these it is not shown. They come before it in the table.
    pub needs: &'static [Feature],
    /// Its name in the TLFS.
    pub tlfs: Tlfs,
}

macro_rules! tlfs {
    () => {
        Tlfs::Unnamed
    };
    (b0 $name:ident) => {
        Tlfs::Bank0(HvProcessorFeatures0::$name)
    };
    (b1 $name:ident) => {
        Tlfs::Bank1(HvProcessorFeatures1::$name)
    };
    (xs $name:ident) => {
        Tlfs::Xsave(HvProcessorXsaveFeatures::$name)
    };
}

macro_rules! features {
    ($($leaf:literal, $subleaf:literal, $reg:ident {
        $($bit:literal $name:ident $gate:expr, [$($need:ident)*] $(, $bank:ident $tlfs:ident)?;)*
    })*) => {
        /// A feature.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // Named as in the SDM.
        #[repr(u8)]
        pub enum Feature {
            $($($name,)*)*
        }

        /// All rows.
        pub const TABLE: &[FeatureRow] = &[
            $($(FeatureRow {
                feature: Feature::$name,
                place: Place { leaf: $leaf, subleaf: $subleaf, reg: Reg::$reg, bit: $bit },
                gate: $gate,
                needs: &[$(Feature::$need),*],
                tlfs: tlfs!($($bank $tlfs)?),
            },)*)*
        ];
    };
}

use Gate::{Emulated, Host};

const AVX: u64 = cr::XCR0_X87 | cr::XCR0_SSE | cr::XCR0_AVX;
const AVX512: u64 = AVX | cr::XCR0_OPMASK | cr::XCR0_ZMM_HI256 | cr::XCR0_HI16_ZMM;

features! {
    0x1, 0, Edx {
        0 Fpu Host, [];
        1 Vme Host, [];
        2 De Host, [];
        3 Pse Host, [];
        4 Tsc Host, [];
        5 Msr Host, [];
        6 Pae Host, [];
        7 Mce Emulated, [];
        8 Cx8 Host, [];
        9 Apic Gate::Lapic, [];
        11 Sep Host, [];
        12 Mtrr Emulated, [];
        13 Pge Host, [];
        14 Mca Emulated, [Mce];
        15 Cmov Host, [];
        16 Pat Host, [];
        17 Pse36 Host, [Pse];
        19 Clflush Host, [];
        23 Mmx Host, [Fpu];
        24 Fxsr Host, [Fpu];
        25 Sse Host, [Fxsr];
        26 Sse2 Host, [Sse];
        27 SelfSnoop Host, [];
    }
    0x1, 0, Ecx {
        0 Sse3 Host, [Sse2], b0 SSE3_SUPPORT;
        1 Pclmulqdq Host, [Sse2], b0 PCLMULQDQ_SUPPORT;
        9 Ssse3 Host, [Sse3], b0 SSSE3_SUPPORT;
        13 Cx16 Host, [], b0 CMPXCHG16B_SUPPORT;
        17 Pcid Host, [], b0 PCID_SUPPORT;
        19 Sse4_1 Host, [Ssse3], b0 SSE4_1_SUPPORT;
        20 Sse4_2 Host, [Sse4_1], b0 SSE4_2_SUPPORT;
        21 X2apic Gate::X2apic, [Apic];
        22 Movbe Host, [], b0 MOVBE_SUPPORT;
        23 Popcnt Host, [], b0 POP_CNT_SUPPORT;
        24 TscDeadline Gate::Lapic, [Apic Tsc], b1 TSC_DEADLINE_TMR_SUPPORT;
        25 Aes Host, [Sse2], b0 AES_SUPPORT;
        26 Xsave Gate::State(cr::XCR0_X87 | cr::XCR0_SSE), [Fxsr], xs XSAVE_SUPPORT;
        28 Avx Gate::State(AVX), [Xsave], xs AVX_SUPPORT;
        12 Fma Host, [Avx], xs FMA_SUPPORT;
        29 F16c Host, [Avx], b0 F16C_SUPPORT;
        30 Rdrand Host, [], b0 RD_RAND_SUPPORT;
        31 Hypervisor Gate::Hypervisor, [];
    }
    0x6, 0, Eax {
        2 Arat Gate::Lapic, [Apic];
    }
    0x80000001, 0, Edx {
        11 Syscall Host, [];
        20 Nx Host, [Pae];
        29 Lm Host, [Pae Syscall];
        26 Page1Gb Host, [Lm], b0 PAGE_1GB_SUPPORT;
        27 Rdtscp Gate::Rdtscp, [Tsc], b0 RDTSCP_SUPPORT;
    }
    0x80000001, 0, Ecx {
        0 LahfSahf64 Host, [Lm], b0 LAHF_SAHF_SUPPORT;
        5 Lzcnt Host, [], b0 LZCNT_SUPPORT;
        8 Prefetchw Host, [], b0 INTEL_PREFETCH_SUPPORT;
    }
    0x80000007, 0, Edx {
        8 InvariantTsc Gate::InvariantTsc, [Tsc], b1 TSC_INVARIANT_SUPPORT;
    }
    0x80000008, 0, Ebx {
        9 Wbnoinvd Host, [];
    }
    0x7, 0, Ebx {
        0 Fsgsbase Host, [Lm], b0 RD_WR_FS_GS_SUPPORT;
        1 TscAdjust Emulated, [Tsc], b1 TSC_ADJUST_SUPPORT;
        3 Bmi1 Host, [], b0 BMI1_SUPPORT;
        5 Avx2 Host, [Avx], xs AVX2_SUPPORT;
        6 FdpExcptnOnly Host, [];
        7 Smep Host, [], b0 SMEP_SUPPORT;
        8 Bmi2 Host, [], b0 BMI2_SUPPORT;
        9 Erms Host, [], b0 ENHANCED_FAST_STRING_SUPPORT;
        10 Invpcid Gate::Invpcid, [Pcid], b0 INVPCID_SUPPORT;
        13 FcsFdsDeprecated Host, [];
        18 Rdseed Host, [], b0 RD_SEED_SUPPORT;
        19 Adx Host, [], b0 ADX_SUPPORT;
        20 Smap Host, [], b0 SMAP_SUPPORT;
        23 Clflushopt Host, [Clflush], b0 CLFLUSHOPT_SUPPORT;
        24 Clwb Host, [], b0 CLWB_SUPPORT;
        29 Sha Host, [Sse2], b0 SHA_SUPPORT;
        16 Avx512f Gate::State(AVX512), [Avx2 Fma], xs AVX512_SUPPORT;
        17 Avx512dq Host, [Avx512f], xs AVX512_DQ_SUPPORT;
        21 Avx512Ifma Host, [Avx512f], xs AVX512_I_FMA_SUPPORT;
        28 Avx512cd Host, [Avx512f], xs AVX512_CD_SUPPORT;
        30 Avx512bw Host, [Avx512f], xs AVX512_BW_SUPPORT;
        31 Avx512vl Host, [Avx512f], xs AVX512_VL_SUPPORT;
    }
    0x7, 0, Ecx {
        0 Prefetchwt1 Host, [];
        1 Avx512Vbmi Host, [Avx512bw], xs AVX512_V_BMI_SUPPORT;
        2 Umip Host, [], b0 UMIP_SUPPORT;
        3 Pku Gate::State(cr::XCR0_PKRU), [Xsave Lm];
        6 Avx512Vbmi2 Host, [Avx512bw], xs AVX512_V_BMI2_SUPPORT;
        8 Gfni Host, [Sse2], xs GFNI_SUPPORT;
        9 Vaes Host, [Avx Aes], xs VAES_SUPPORT;
        10 Vpclmulqdq Host, [Avx Pclmulqdq], xs VPCLMULQDQ_SUPPORT;
        11 Avx512Vnni Host, [Avx512f], xs AVX512_VNNI_SUPPORT;
        12 Avx512Bitalg Host, [Avx512bw], xs AVX512_BITALG_SUPPORT;
        14 Avx512Vpopcntdq Host, [Avx512f], xs AVX512_V_POPCNTDQ_SUPPORT;
        22 Rdpid Gate::Rdtscp, [], b0 RD_PID_SUPPORT;
        25 Cldemote Host, [], b1 CLDEMOTE_SUPPORT;
        27 Movdiri Host, [], b1 MOVDIRI_SUPPORT;
        28 Movdir64b Host, [], b1 MOVDIR64B_SUPPORT;
    }
    0x7, 0, Edx {
        4 Fsrm Host, [Erms], b0 FAST_SHORT_REP_MOV_SUPPORT;
        8 Avx512Vp2Intersect Host, [Avx512f], xs AVX512_VP2_INTERSECT_SUPPORT;
        10 MdClear Gate::MdClear, [], b0 MB_CLEAR_SUPPORT;
        14 Serialize Host, [], b1 SERIALIZE_SUPPORT;
        23 Avx512Fp16 Host, [Avx512bw Avx512vl], xs AVX512_FP16_SUPPORT;
        26 SpecCtrl Gate::SpecCtrl, [], b0 IBRS_SUPPORT;
        27 Stibp Gate::Stibp, [SpecCtrl], b0 STIBP_SUPPORT;
        28 L1dFlush Gate::L1dFlush, [], b0 L1DCACHE_FLUSH_SUPPORT;
        29 ArchCapabilities Gate::ArchCapabilities, [];
        31 Ssbd Gate::Ssbd, [SpecCtrl], b0 MDD_SUPPORT;
    }
    0x7, 1, Eax {
        0 Sha512 Host, [Avx2], b1 SHA512_SUPPORT;
        1 Sm3 Host, [Avx], b1 SM3_SUPPORT;
        2 Sm4 Host, [Avx], b1 SM4_SUPPORT;
        4 AvxVnni Host, [Avx2], xs AVX_VNNI_SUPPORT;
        5 Avx512Bf16 Host, [Avx512bw], xs AVX512_BF16_SUPPORT;
        7 Cmpccxadd Host, [], b1 CMPCCXADD_SUPPORT;
        10 Fzrm Host, [], b1 FZL_REP_MOVSB;
        11 Fsrs Host, [], b1 FS_REP_STOSB;
        12 Fsrcs Host, [], b1 FS_REP_CMPSB;
        23 AvxIfma Host, [Avx2], xs AVX_IFMA_SUPPORT;
    }
    0x7, 1, Edx {
        4 AvxVnniInt8 Host, [Avx2], xs AVX_VNNI_INT8_SUPPORT;
        5 AvxNeConvert Host, [Avx2], xs AVX_NE_CONVERT_SUPPORT;
        10 AvxVnniInt16 Host, [Avx2], xs AVX_VNNI_INT16_SUPPORT;
        14 Prefetchi Host, [], b1 PREFETCH_I_SUPPORT;
    }
    0xd, 1, Eax {
        0 Xsaveopt Host, [Xsave], xs XSAVEOPT_SUPPORT;
        1 Xsavec Host, [Xsave], xs XSAVE_COMP_SUPPORT;
        2 Xgetbv1 Host, [Xsave], xs XCR1_SUPPORT;
    }
}

/// Registers whose every bit is a feature: an override can take features away there, not add them.
pub const FEATURE_REGISTERS: &[(u32, u32, Reg)] = &[
    (0x1, 0, Reg::Edx),
    (0x1, 0, Reg::Ecx),
    (0x6, 0, Reg::Eax),
    (0x7, 0, Reg::Ebx),
    (0x7, 0, Reg::Ecx),
    (0x7, 0, Reg::Edx),
    (0x7, 1, Reg::Eax),
    (0x7, 1, Reg::Ebx),
    (0x7, 1, Reg::Ecx),
    (0x7, 1, Reg::Edx),
    (0xd, 1, Reg::Eax),
    (0x8000_0001, 0, Reg::Edx),
    (0x8000_0001, 0, Reg::Ecx),
    (0x8000_0007, 0, Reg::Edx),
    (0x8000_0008, 0, Reg::Ebx),
];

/// The features that a guest is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureSet([u64; 2]);

const _: () = assert!(TABLE.len() <= 128);

impl FeatureSet {
    /// No feature.
    pub const fn new() -> Self {
        Self([0; 2])
    }

    /// Whether `feature` is in the set.
    #[inline(always)]
    pub const fn has(&self, feature: Feature) -> bool {
        let n = feature as usize;
        // An index below 128 by the assertion above.
        self.0[(n / 64) & 1] & (1 << (n % 64)) != 0
    }

    fn insert(&mut self, feature: Feature) {
        let n = feature as usize;
        self.0[(n / 64) & 1] |= 1 << (n % 64);
    }

    /// What can be shown on a host of which `host` tells CPUID results and `host_xcr0` the XSAVE components.
    pub fn select(host: &dyn Fn(u32, u32) -> [u32; 4], host_xcr0: u64, machine: &Machine) -> Self {
        let max_basic = host(0, 0)[0];
        let max_extended = host(0x8000_0000, 0)[0];
        let mut set = Self::new();
        for row in TABLE {
            let p = row.place;
            let max = if p.leaf >= 0x8000_0000 {
                max_extended
            } else {
                max_basic
            };
            let host_bit = || {
                p.leaf <= max
                    && ((p.leaf, p.subleaf) != (7, 1) || host(7, 0)[0] >= 1)
                    && (host(p.leaf, p.subleaf)[p.reg as usize] >> p.bit) & 1 != 0
            };
            if row.gate.open(machine, host_xcr0, host_bit)
                && !machine.disabled.names(row.tlfs)
                && row.needs.iter().all(|&need| set.has(need))
            {
                set.insert(row.feature);
            }
        }
        set
    }

    /// The feature bits of one CPUID register.
    pub fn register(&self, leaf: u32, subleaf: u32, reg: Reg) -> u32 {
        let mut bits = 0;
        for row in TABLE {
            let p = row.place;
            if (p.leaf, p.subleaf, p.reg) == (leaf, subleaf, reg) && self.has(row.feature) {
                bits |= 1 << p.bit;
            }
        }
        bits
    }

    /// The set in the TLFS's terms (properties `HV_PARTITION_PROPERTY_PROCESSOR_FEATURES0`, `1` and
    /// `_PROCESSOR_XSAVE_FEATURES`).
    pub fn banks(
        &self,
    ) -> (
        HvProcessorFeatures0,
        HvProcessorFeatures1,
        HvProcessorXsaveFeatures,
    ) {
        let mut b0 = HvProcessorFeatures0::empty();
        let mut b1 = HvProcessorFeatures1::empty();
        let mut xs = HvProcessorXsaveFeatures::empty();
        for row in TABLE.iter().filter(|row| self.has(row.feature)) {
            match row.tlfs {
                Tlfs::Unnamed => {}
                Tlfs::Bank0(bit) => b0 |= bit,
                Tlfs::Bank1(bit) => b1 |= bit,
                Tlfs::Xsave(bit) => xs |= bit,
            }
        }
        if self.has(Feature::SpecCtrl) {
            // One CPUID bit stands for both.
            b0 |= HvProcessorFeatures0::IBPB_SUPPORT;
        }
        (b0, b1, xs)
    }
}

impl Gate {
    fn open(self, machine: &Machine, host_xcr0: u64, host_bit: impl Fn() -> bool) -> bool {
        let speculation = &machine.speculation;
        match self {
            Self::Host => host_bit(),
            Self::Emulated => true,
            Self::State(mask) => host_xcr0 & mask == mask && host_bit(),
            Self::Rdtscp => machine.vmx.rdtscp && host_bit(),
            Self::Invpcid => machine.vmx.invpcid && host_bit(),
            Self::X2apic => machine.x2apic,
            Self::Lapic => machine.lapic,
            Self::Hypervisor => machine.hypervisor_present,
            Self::InvariantTsc => machine.invariant_tsc && host_bit(),
            Self::SpecCtrl => speculation.spec_ctrl && host_bit(),
            Self::Stibp => speculation.stibp && host_bit(),
            Self::Ssbd => speculation.ssbd && host_bit(),
            Self::MdClear => speculation.md_clear && host_bit(),
            Self::L1dFlush => speculation.l1d_flush && host_bit(),
            Self::ArchCapabilities => speculation.arch_capabilities.is_some() && host_bit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One pass over the table settles dependencies only if they come first.
    #[test]
    fn needs_come_first() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.feature as usize, i);
            for &need in row.needs {
                assert!((need as usize) < i, "{:?} needs {need:?}", row.feature);
            }
            assert!(row.place.bit < 32);
            let p = row.place;
            assert!(FEATURE_REGISTERS.contains(&(p.leaf, p.subleaf, p.reg)));
        }
    }

    #[test]
    fn no_bit_has_two_rows() {
        for (i, row) in TABLE.iter().enumerate() {
            for other in &TABLE[..i] {
                assert_ne!(row.place, other.place);
                if row.tlfs != Tlfs::Unnamed {
                    assert_ne!(row.tlfs, other.tlfs);
                }
            }
        }
    }
}
