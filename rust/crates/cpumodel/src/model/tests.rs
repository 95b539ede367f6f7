// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::feature::{Gate, TABLE};
use crate::testing::{build, everything, machine, random, xorshift};
use hvdef::HvRegisterX64CpuidResultParameters as Parameters;

fn vp() -> VpCpuidInput {
    VpCpuidInput {
        apic_id: 3,
        vp_count: 6,
        cr4_osxsave: true,
        cr4_pke: true,
        xcr0: 7,
        apic_enabled: true,
        mode_64_bit: true,
        tsc_invariant: true,
    }
}

fn shown(model: &CpuModel, leaf: u32, subleaf: u32, reg: Reg, bit: u32) -> bool {
    (model.lookup(leaf, subleaf, &vp())[reg as usize] >> bit) & 1 != 0
}

/// C-3D12: with VMX's help, unless the VMM disables it by its name.
#[test]
fn npiep() {
    let bit = hvdef::HvProcessorFeatures0::NPIEP1_SUPPORT;
    let of = |machine: &Machine| {
        let m = build(&everything, machine);
        (m.npiep(), m.banks().0.contains(bit))
    };
    assert_eq!(of(&machine()), (true, true));
    let mut without = machine();
    without.vmx.descriptor_exits = false;
    assert_eq!(of(&without), (false, false));
    let mut disabled = machine();
    disabled.disabled.bank0 |= bit;
    assert_eq!(of(&disabled), (false, false));
}

/// F-TM15: the bit needs a host whose TSC is invariant, and a guest that has asked; an override cannot put it back.
#[test]
fn invariant_tsc() {
    let edx = |m: &CpuModel, tsc_invariant| {
        let vp = VpCpuidInput {
            tsc_invariant,
            ..vp()
        };
        m.lookup(0x8000_0007, 0, &vp)[3]
    };
    let m = build(&everything, &machine());
    assert_eq!((edx(&m, false), edx(&m, true)), (0, 1 << 8));
    let not_the_kernel = Machine {
        invariant_tsc: false,
        ..machine()
    };
    assert_eq!(edx(&build(&everything, &not_the_kernel), true), 0);
    let not_the_cpu = |leaf, subleaf| {
        let [a, b, c, d] = everything(leaf, subleaf);
        [a, b, c, if leaf == 0x8000_0007 { 0 } else { d }]
    };
    assert_eq!(edx(&build(&not_the_cpu, &machine()), true), 0);

    let mut overrides = Overrides::new();
    let all = Parameters {
        input_eax: 0x8000_0007,
        always_override: 1,
        edx: 1 << 8,
        edx_mask: !0,
        ..Default::default()
    };
    overrides.register(&all).unwrap();
    let vp = VpCpuidInput {
        tsc_invariant: false,
        ..vp()
    };
    assert_eq!(m.lookup_with(&overrides, 0x8000_0007, 0, || vp)[3], 0);
}

/// On a host that has all bits set, none of what does not work is shown.
#[test]
fn nothing_that_does_not_work() {
    let m = build(&everything, &machine());
    for (leaf, subleaf, reg, bits) in [
        // DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, CNXT-ID, SDBG, xTPR, PDCM, DCA
        (
            1,
            0,
            Reg::Ecx,
            &[2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15, 18][..],
        ),
        // PSN, DS, ACPI, TM, PBE
        (1, 0, Reg::Edx, &[18, 21, 22, 29, 31]),
        // SGX, HLE, RTM, RDT-M, MPX, RDT-A, PT
        (7, 0, Reg::Ebx, &[2, 4, 11, 12, 14, 15, 25]),
        // WAITPKG, CET_SS, TME, LA57, KL, bus lock, ENQCMD, SGX_LC, PKS
        (7, 0, Reg::Ecx, &[5, 7, 13, 16, 17, 23, 24, 29, 30, 31]),
        // UINTR, HYBRID, TSXLDTRK, PCONFIG, LBR, CET_IBT, AMX
        (
            7,
            0,
            Reg::Edx,
            &[5, 9, 11, 13, 15, 16, 18, 19, 20, 22, 24, 25, 30],
        ),
        // LASS, FRED, LKGS, WRMSRNS, AMX-FP16, HRESET, LAM
        (7, 1, Reg::Eax, &[6, 17, 18, 19, 21, 22, 26]),
        // XSAVES, XFD
        (0xd, 1, Reg::Eax, &[3, 4]),
    ] {
        for &bit in bits {
            assert!(
                !shown(&m, leaf, subleaf, reg, bit),
                "{leaf:x}.{subleaf} {reg:?}[{bit}]"
            );
        }
    }
    for leaf in [
        3, 5, 8, 9, 0xa, 0xc, 0xe, 0xf, 0x10, 0x12, 0x14, 0x17, 0x18, 0x19, 0x1a, 0x1c,
    ] {
        assert_eq!(m.lookup(leaf, 0, &vp()), [0; 4], "{leaf:x}");
    }
    assert_eq!(m.lookup(6, 0, &vp()), [4, 0, 0, 0]);
    assert_eq!(m.lookup(7, 2, &vp()), [0; 4]);
    assert_eq!(m.lookup(0x8000_0007, 0, &vp()), [0, 0, 0, 1 << 8]);
}

/// Every row of the feature table can be shown, and is where the table says.
#[test]
fn every_feature_can_be_shown() {
    let m = build(&everything, &machine());
    for row in TABLE {
        let p = row.place;
        assert!(m.has(row.feature), "{:?}", row.feature);
        assert!(
            shown(&m, p.leaf, p.subleaf, p.reg, u32::from(p.bit)),
            "{:?}",
            row.feature
        );
    }
}

/// On random hosts: nothing without its dependencies, nothing that the host lacks, banks as shown.
#[test]
fn consistent() {
    for seed in 1..400 {
        let host = random(seed);
        let mut machine = machine();
        let mut rng = seed;
        machine.vmx.invpcid = xorshift(&mut rng) & 1 != 0;
        machine.vmx.rdtscp = xorshift(&mut rng) & 1 != 0;
        machine.lapic = xorshift(&mut rng) & 3 != 0;
        let m = build(&host, &machine);
        let host_xcr0 = XsaveModel::host_xcr0(&host);
        for row in TABLE.iter().filter(|row| m.has(row.feature)) {
            assert!(row.needs.iter().all(|&n| m.has(n)), "{:?}", row.feature);
            let p = row.place;
            let on_host = (host(p.leaf, p.subleaf)[p.reg as usize] >> p.bit) & 1 != 0;
            match row.gate {
                Gate::State(mask) => assert!(on_host && host_xcr0 & mask == mask),
                Gate::Host | Gate::Rdtscp | Gate::Invpcid | Gate::SpecCtrl => assert!(on_host),
                _ => {}
            }
        }
        assert!(machine.vmx.invpcid || !m.has(Feature::Invpcid));
        assert!(machine.lapic || !m.has(Feature::TscDeadline) && !m.has(Feature::X2apic));
        // XCR0 and the features that use its components go together.
        let xcr0 = m.xsave().xcr0();
        assert_eq!(xcr0 & 4 != 0, m.has(Feature::Avx));
        assert_eq!(xcr0 & 0xe0, if m.has(Feature::Avx512f) { 0xe0 } else { 0 });
        assert_eq!(xcr0 & 0x200 != 0, m.has(Feature::Pku));
        assert_eq!(xcr0 & !0x2e7, 0);
        assert!(xcr0 == 0 || m.xsave().xcr0_is_legal(xcr0));
        let (b0, _, xs) = m.features().banks();
        assert_eq!(
            b0.contains(HvProcessorFeatures0::PCID_SUPPORT),
            m.has(Feature::Pcid)
        );
        assert_eq!(
            xs.contains(HvProcessorXsaveFeatures::AVX2_SUPPORT),
            m.has(Feature::Avx2)
        );
    }
}

/// What the VMM disabled is gone, and so is what needs it.
#[test]
fn disabled() {
    let mut machine = machine();
    machine.disabled.xsave = HvProcessorXsaveFeatures::AVX_SUPPORT;
    machine.disabled.bank0 = HvProcessorFeatures0::PCID_SUPPORT;
    let m = build(&everything, &machine);
    for f in [
        Feature::Avx,
        Feature::Avx2,
        Feature::Fma,
        Feature::Avx512f,
        Feature::Vaes,
    ] {
        assert!(!m.has(f), "{f:?}");
    }
    assert!(!m.has(Feature::Pcid) && !m.has(Feature::Invpcid) && m.has(Feature::Xsave));
    assert_eq!(m.xsave().xcr0(), 0x203);
    assert_eq!(m.cr4_legal_bits() & cr::CR4_PCIDE, 0);

    machine.disabled.xsave = HvProcessorXsaveFeatures::XSAVE_SUPPORT;
    let m = build(&everything, &machine);
    for subleaf in 0..20 {
        assert_eq!(m.lookup(0xd, subleaf, &vp()), [0; 4]);
    }
    assert!(!m.has(Feature::Pku) && m.has(Feature::Gfni));
    assert!(!shown(&m, 1, 0, Reg::Ecx, 27));
}

/// Leaf 0xD: EBX of subleaf 0 follows XCR0, ECX is the most there can be.
#[test]
fn xsave_sizes() {
    let m = build(&everything, &machine());
    let size = |xcr0| m.lookup(0xd, 0, &VpCpuidInput { xcr0, ..vp() });
    assert_eq!(size(1), [0x2e7, 576, 2696, 0]);
    assert_eq!(size(3)[1], 576);
    assert_eq!(size(7)[1], 832);
    assert_eq!(size(0xe7)[1], 2688);
    assert_eq!(size(0x207)[1], 2696);
    let compact = |xcr0| m.lookup(0xd, 1, &VpCpuidInput { xcr0, ..vp() });
    assert_eq!(compact(7), [7, 832, 0, 0]);
    assert_eq!(compact(0x203)[1], 584);
    assert_eq!(compact(0x2e7)[1], 576 + 256 + 64 + 512 + 1024 + 8);
    assert_eq!(m.lookup(0xd, 2, &vp()), [256, 576, 0, 0]);
    for hidden in [3, 4, 8, 10, 17, 18, 63, 64, u32::MAX] {
        assert_eq!(m.lookup(0xd, hidden, &vp()), [0; 4]);
    }
}

#[test]
fn xcr0_rules() {
    let m = build(&everything, &machine());
    for legal in [1, 3, 7, 0xe7, 0x201, 0x2e7] {
        assert!(m.xsave().xcr0_is_legal(legal), "{legal:x}");
    }
    for illegal in [0, 2, 5, 4, 0x27, 0xc7, 0xe3, 0x1f, 0x60007, (1 << 63) | 1] {
        assert!(!m.xsave().xcr0_is_legal(illegal), "{illegal:x}");
    }
}

/// SDM: a leaf outside both ranges answers like the highest basic one.
#[test]
fn ranges() {
    let m = build(&everything, &machine());
    assert_eq!(m.lookup(0, 0, &vp())[0], 0x1f);
    assert_eq!(m.lookup(0x8000_0000, 0, &vp())[0], 0x8000_0008);
    for leaf in [
        0x20,
        0x1000,
        0x3fff_ffff,
        0x7fff_ffff,
        0x8000_0009,
        0xc000_0000,
        u32::MAX,
    ] {
        for subleaf in 0..3 {
            assert_eq!(
                m.lookup(leaf, subleaf, &vp()),
                m.lookup(0x1f, subleaf, &vp())
            );
        }
    }
    let old = |leaf: u32, subleaf: u32| match leaf {
        0 => [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        7 => [0, !0, !0, !0],
        _ => everything(leaf, subleaf),
    };
    let m = build(&old, &machine());
    assert_eq!(m.lookup(0, 0, &vp()), old(0, 0));
    assert_eq!(m.lookup(0x15, 1, &vp()), m.lookup(0xd, 1, &vp()));
    assert!(!m.has(Feature::AvxVnni));
}

/// Every VP one core of one package; the APIC id is what the VP has.
#[test]
fn topology() {
    let m = build(&everything, &machine());
    let at = |vp_count, apic_id| VpCpuidInput {
        vp_count,
        apic_id,
        ..vp()
    };
    for (count, shift) in [(1, 0), (2, 1), (3, 2), (6, 3), (64, 6)] {
        for leaf in [0xb, 0x1f] {
            let v = at(count, count - 1);
            assert_eq!(m.lookup(leaf, 0, &v), [0, 1, 1 << 8, count - 1]);
            assert_eq!(
                m.lookup(leaf, 1, &v),
                [shift, count, (2 << 8) | 1, count - 1]
            );
            assert_eq!(m.lookup(leaf, 2, &v), [0, 0, 2, count - 1]);
        }
        let one = m.lookup(1, 0, &at(count, 5));
        assert_eq!(one[1] >> 24, 5);
        assert_eq!((one[1] >> 16) & 0xff, 1 << shift);
        assert_eq!(one[1] & 0xffff, 0x0800);
        assert_eq!((one[3] >> 28) & 1 != 0, count > 1);
        let l2 = m.lookup(4, 2, &at(count, 0))[0];
        assert_eq!(((l2 >> 14) & 0xfff, l2 >> 26), (0, (1 << shift) - 1));
        let l3 = m.lookup(4, 3, &at(count, 0))[0];
        assert_eq!(
            ((l3 >> 14) & 0xfff, l3 >> 26),
            ((1 << shift) - 1, (1 << shift) - 1)
        );
    }
    assert_eq!(m.lookup(4, 4, &vp()), [0; 4]);
    assert_eq!(m.lookup(4, 99, &vp()), [0; 4]);
}

/// What follows CR4, IA32_APIC_BASE and the mode.
#[test]
fn dynamic_bits() {
    let m = build(&everything, &machine());
    let off = VpCpuidInput {
        cr4_osxsave: false,
        cr4_pke: false,
        apic_enabled: false,
        mode_64_bit: false,
        ..vp()
    };
    for (leaf, reg, bit) in [
        (1, Reg::Ecx, 27),
        (7, Reg::Ecx, 4),
        (1, Reg::Edx, 9),
        (0x8000_0001, Reg::Edx, 11),
    ] {
        assert_ne!(m.lookup(leaf, 0, &vp())[reg as usize] & (1 << bit), 0);
        assert_eq!(m.lookup(leaf, 0, &off)[reg as usize] & (1 << bit), 0);
    }
}

/// Leaf 0x15: the product is the TSC's frequency, exactly, or the leaf is empty.
#[test]
fn frequencies() {
    for (tsc, apic) in [
        (2_900_000_000, 200_000_000),
        (200_000_000, 200_000_000),
        (2_903_999_997, 25_000_000),
    ] {
        let machine = Machine {
            tsc_hz: tsc,
            apic_hz: apic,
            ..machine()
        };
        let m = build(&everything, &machine);
        let [denominator, numerator, crystal, _] = m.lookup(0x15, 0, &vp());
        assert_eq!(u64::from(crystal), apic);
        assert_eq!(
            u64::from(crystal) * u64::from(numerator) / u64::from(denominator),
            tsc
        );
        assert_eq!(
            u64::from(m.lookup(0x16, 0, &vp())[0]),
            (tsc + 500_000) / 1_000_000
        );
    }
    for machine in [
        Machine {
            tsc_hz: 0,
            ..machine()
        },
        Machine {
            apic_hz: 0,
            ..machine()
        },
    ] {
        assert_eq!(build(&everything, &machine).lookup(0x15, 0, &vp()), [0; 4]);
    }
}

#[test]
fn address_widths() {
    let m = build(&everything, &machine());
    assert_eq!(
        m.lookup(0x8000_0008, 0, &vp()),
        [39 | (48 << 8), 1 << 9, 0, 0]
    );
}

/// C-R1.
#[test]
fn hypervisor_bit() {
    let m = build(&everything, &machine());
    assert!(shown(&m, 1, 0, Reg::Ecx, 31));
    let m = build(
        &everything,
        &Machine {
            hypervisor_present: false,
            ..machine()
        },
    );
    assert!(!shown(&m, 1, 0, Reg::Ecx, 31));
}

/// An override with full masks, as QEMU makes for every leaf: identity changes, features go but do not come, what
/// follows the VP's state still does.
#[test]
fn overrides() {
    let m = build(&everything, &machine());
    let mut o = Overrides::new();
    let full = |leaf, subleaf: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]| Parameters {
        input_eax: leaf,
        input_ecx: subleaf.unwrap_or(0),
        subleaf_specific: u8::from(subleaf.is_some()),
        always_override: 1,
        eax,
        eax_mask: !0,
        ebx,
        ebx_mask: !0,
        ecx,
        ecx_mask: !0,
        edx,
        edx_mask: !0,
        ..Default::default()
    };
    let look =
        |o: &Overrides, leaf, subleaf, vp: &VpCpuidInput| m.lookup_with(o, leaf, subleaf, || *vp);
    assert_eq!(look(&o, 1, 0, &vp()), m.lookup(1, 0, &vp()));

    // All bits set: the model's features, plus HTT, which is topology.
    o.register(&full(1, None, [0x600, 0x0708_0800, !0, !0]))
        .unwrap();
    let own = m.lookup(1, 0, &vp());
    assert_eq!(look(&o, 1, 0, &vp()), [0x600, 0x0708_0800, own[2], own[3]]);
    // No bits set: no features; OSXSAVE and APIC still follow, and the hypervisor is not hidden.
    o.register(&full(1, None, [0x600, 0, 0, 0])).unwrap();
    let hypervisor = own[2] & (1 << 31);
    assert_ne!(hypervisor, 0);
    assert_eq!(
        look(&o, 1, 0, &vp()),
        [0x600, 0, hypervisor | (1 << 27), 1 << 9]
    );
    let off = VpCpuidInput {
        cr4_osxsave: false,
        apic_enabled: false,
        ..vp()
    };
    assert_eq!(look(&o, 1, 0, &off), [0x600, 0, hypervisor, 0]);

    o.register(&full(7, Some(0), [2, !0, !0, !0])).unwrap();
    let own = m.lookup(7, 0, &vp());
    assert_eq!(look(&o, 7, 0, &vp())[1..], own[1..]);
    o.register(&full(0xd, Some(0), [!0; 4])).unwrap();
    o.register(&full(0xd, Some(1), [!0; 4])).unwrap();
    for xcr0 in [3, 7, 0xe7] {
        let v = VpCpuidInput { xcr0, ..vp() };
        assert_eq!(look(&o, 0xd, 0, &v), m.lookup(0xd, 0, &v));
        assert_eq!(look(&o, 0xd, 1, &v), m.lookup(0xd, 1, &v));
    }
    o.register(&full(0xa, None, [!0; 4])).unwrap();
    assert_eq!(look(&o, 0xa, 0, &vp()), [0; 4]);
    o.register(&full(0x8000_0002, None, [1, 2, 3, 4])).unwrap();
    assert_eq!(look(&o, 0x8000_0002, 0, &vp()), [1, 2, 3, 4]);
    o.register(&full(0xb, Some(1), [4, 16, 0x201, 9])).unwrap();
    assert_eq!(look(&o, 0xb, 1, &vp()), [4, 16, 0x201, 9]);
    // The hypervisor's leaves.
    o.register(&full(0x4000_0003, None, [!0; 4])).unwrap();
    assert_eq!(
        look(&o, 0x4000_0003, 0, &vp()),
        m.lookup(0x4000_0003, 0, &vp())
    );
}

/// Random overrides never show a feature that the model does not.
#[test]
fn overrides_add_no_feature() {
    let m = build(&random(6), &machine());
    let mut rng = 77;
    for _ in 0..2000 {
        let (leaf, subleaf, _) =
            FEATURE_REGISTERS[xorshift(&mut rng) as usize % FEATURE_REGISTERS.len()];
        let mut word = || xorshift(&mut rng) as u32;
        let mut o = Overrides::new();
        o.register(&Parameters {
            input_eax: leaf,
            input_ecx: subleaf,
            subleaf_specific: (word() & 1) as u8,
            eax: word(),
            eax_mask: word(),
            ebx: word(),
            ebx_mask: word(),
            ecx: word(),
            ecx_mask: word(),
            edx: word(),
            edx_mask: word(),
            ..Default::default()
        })
        .unwrap();
        let r = m.lookup_with(&o, leaf, subleaf, vp);
        for row in TABLE {
            let p = row.place;
            if (p.leaf, p.subleaf) == (leaf, subleaf) && (r[p.reg as usize] >> p.bit) & 1 != 0 {
                assert!(m.has(row.feature) || row.feature == Feature::Hypervisor);
            }
        }
    }
}

/// Any host, any question: an answer.
#[test]
fn total() {
    let mut rng = 9;
    for seed in 0..50u64 {
        let m = build(&|_, _| [0; 4], &Machine::default());
        assert_eq!(m.lookup(seed as u32, 0, &VpCpuidInput::default()).len(), 4);
        let garbage = move |leaf: u32, subleaf: u32| {
            let mut s =
                seed.wrapping_mul(0x9e37_79b9) ^ (u64::from(leaf) << 32) ^ u64::from(subleaf) | 1;
            core::array::from_fn(|_| xorshift(&mut s) as u32)
        };
        let m = build(&garbage, &machine());
        for _ in 0..200 {
            let (leaf, subleaf) = (xorshift(&mut rng) as u32, xorshift(&mut rng) as u32);
            let v = VpCpuidInput {
                vp_count: subleaf,
                apic_id: leaf,
                xcr0: xorshift(&mut rng),
                ..vp()
            };
            let leaf = if leaf & 1 == 0 {
                leaf & 0x8000_003f
            } else {
                leaf
            };
            m.lookup(leaf, subleaf & 0x3f, &v);
        }
    }
}
