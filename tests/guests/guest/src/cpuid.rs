// SPDX-License-Identifier: GPL-2.0 OR MIT
//! CPUID and the feature bits that tests ask for.

pub use core::arch::x86_64::CpuidResult as Leaf;

/// CPUID with ECX = 0.
#[inline]
pub fn leaf(leaf: u32) -> Leaf {
    subleaf(leaf, 0)
}

/// CPUID.
#[inline]
pub fn subleaf(leaf: u32, subleaf: u32) -> Leaf {
    // SAFETY: every 64-bit processor has CPUID.
    unsafe { core::arch::x86_64::__cpuid_count(leaf, subleaf) }
}

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Reg {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// One feature bit: leaf, subleaf, register, bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature(pub u32, pub u32, pub Reg, pub u32);

impl Feature {
    /// Whether CPUID shows the feature; false when the leaf does not exist.
    pub fn present(self) -> bool {
        let Feature(number, sub, reg, bit) = self;
        if number > leaf(number & 0xf000_0000).eax {
            return false;
        }
        let found = subleaf(number, sub);
        let value = match reg {
            Reg::Eax => found.eax,
            Reg::Ebx => found.ebx,
            Reg::Ecx => found.ecx,
            Reg::Edx => found.edx,
        };
        (value >> bit) & 1 != 0
    }
}

macro_rules! features {
    ($($name:ident = $leaf:literal, $sub:literal, $reg:ident, $bit:literal;)*) => {
        $(#[doc = concat!("CPUID feature ", stringify!($name), ".")]
          pub const $name: Feature = Feature($leaf, $sub, Reg::$reg, $bit);)*
    };
}

features! {
    SSE3 = 1, 0, Ecx, 0;
    PCLMULQDQ = 1, 0, Ecx, 1;
    MONITOR = 1, 0, Ecx, 3;
    VMX = 1, 0, Ecx, 5;
    SSSE3 = 1, 0, Ecx, 9;
    FMA = 1, 0, Ecx, 12;
    CX16 = 1, 0, Ecx, 13;
    PCID = 1, 0, Ecx, 17;
    SSE4_1 = 1, 0, Ecx, 19;
    SSE4_2 = 1, 0, Ecx, 20;
    X2APIC = 1, 0, Ecx, 21;
    MOVBE = 1, 0, Ecx, 22;
    POPCNT = 1, 0, Ecx, 23;
    TSC_DEADLINE = 1, 0, Ecx, 24;
    AESNI = 1, 0, Ecx, 25;
    XSAVE = 1, 0, Ecx, 26;
    OSXSAVE = 1, 0, Ecx, 27;
    AVX = 1, 0, Ecx, 28;
    F16C = 1, 0, Ecx, 29;
    RDRAND = 1, 0, Ecx, 30;
    HYPERVISOR = 1, 0, Ecx, 31;
    DE = 1, 0, Edx, 2;
    MTRR = 1, 0, Edx, 12;
    PGE = 1, 0, Edx, 13;
    PAT = 1, 0, Edx, 16;
    CLFSH = 1, 0, Edx, 19;
    ARAT = 6, 0, Eax, 2;
    FSGSBASE = 7, 0, Ebx, 0;
    TSC_ADJUST = 7, 0, Ebx, 1;
    BMI1 = 7, 0, Ebx, 3;
    AVX2 = 7, 0, Ebx, 5;
    SMEP = 7, 0, Ebx, 7;
    BMI2 = 7, 0, Ebx, 8;
    INVPCID = 7, 0, Ebx, 10;
    RTM = 7, 0, Ebx, 11;
    AVX512F = 7, 0, Ebx, 16;
    RDSEED = 7, 0, Ebx, 18;
    ADX = 7, 0, Ebx, 19;
    SMAP = 7, 0, Ebx, 20;
    CLFLUSHOPT = 7, 0, Ebx, 23;
    CLWB = 7, 0, Ebx, 24;
    SHA = 7, 0, Ebx, 29;
    UMIP = 7, 0, Ecx, 2;
    PKU = 7, 0, Ecx, 3;
    WAITPKG = 7, 0, Ecx, 5;
    GFNI = 7, 0, Ecx, 8;
    VAES = 7, 0, Ecx, 9;
    LA57 = 7, 0, Ecx, 16;
    RDPID = 7, 0, Ecx, 22;
    MOVDIRI = 7, 0, Ecx, 27;
    MOVDIR64B = 7, 0, Ecx, 28;
    FSRM = 7, 0, Edx, 4;
    SERIALIZE = 7, 0, Edx, 14;
    SPEC_CTRL = 7, 0, Edx, 26;
    STIBP = 7, 0, Edx, 27;
    FLUSH_CMD = 7, 0, Edx, 28;
    ARCH_CAPABILITIES = 7, 0, Edx, 29;
    SSBD = 7, 0, Edx, 31;
    XSAVEOPT = 0xd, 1, Eax, 0;
    XSAVEC = 0xd, 1, Eax, 1;
    XGETBV1 = 0xd, 1, Eax, 2;
    XSAVES = 0xd, 1, Eax, 3;
    LAHF = 0x8000_0001, 0, Ecx, 0;
    LZCNT = 0x8000_0001, 0, Ecx, 5;
    PREFETCHW = 0x8000_0001, 0, Ecx, 8;
    SYSCALL = 0x8000_0001, 0, Edx, 11;
    NX = 0x8000_0001, 0, Edx, 20;
    PDPE1GB = 0x8000_0001, 0, Edx, 26;
    RDTSCP = 0x8000_0001, 0, Edx, 27;
    LM = 0x8000_0001, 0, Edx, 29;
    INVARIANT_TSC = 0x8000_0007, 0, Edx, 8;
}

/// Physical-address width (CPUID.80000008H:EAX[7:0]), 36 when not told.
pub fn physical_address_bits() -> u32 {
    if leaf(0x8000_0000).eax >= 0x8000_0008 {
        leaf(0x8000_0008).eax & 0xff
    } else {
        36
    }
}
