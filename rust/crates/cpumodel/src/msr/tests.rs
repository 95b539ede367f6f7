// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::testing::{build, everything, machine};
use crate::{CpuModel, Machine};
use std::boxed::Box;
use x86def::cr::*;
use x86def::msr::*;

fn model() -> Box<CpuModel> {
    build(&everything, &machine())
}

fn write(msr: u32, value: u64) -> Result<u64, GeneralProtection> {
    let model = model();
    let context = MsrContext {
        model: &model,
        efer: 0,
        paging: false,
    };
    check_write(msr, value, &context).map(|(_, value)| value)
}

const GP: Result<u64, GeneralProtection> = Err(GeneralProtection);

#[test]
fn table_is_in_order() {
    assert!(TABLE.windows(2).all(|w| w[0].last < w[1].first));
    assert!(TABLE.iter().all(|r| r.first <= r.last));
    for r in TABLE {
        assert_eq!(row(r.first).unwrap().name, r.name);
        assert_eq!(row(r.last).unwrap().name, r.name);
    }
    for absent in [
        0x11, 0x12, 0x34, 0xce, 0x480, 0x48a, 0x186, 0x38f, 0x400, 0x6a0, 0xda0, 0xe1,
    ] {
        assert!(row(absent).is_none(), "{absent:x}");
    }
    assert!(row(0xc001_0010).is_none());
}

/// Each slot of the MTRRs has one row.
#[test]
fn mtrr_slots() {
    let mut seen = [false; MTRR_SLOTS];
    for r in TABLE {
        if let (MsrKind::Mtrr(slot), Check::Mtrr(check)) = (r.kind, r.check) {
            assert_eq!(slot, check);
            assert!(!core::mem::replace(&mut seen[slot.index()], true));
        }
    }
    assert!(seen.iter().all(|&s| s));
    let Some(MsrRow {
        kind: MsrKind::Mtrr(slot),
        ..
    }) = row(0x20f)
    else {
        panic!()
    };
    assert_eq!(MtrrSlot::variable(7, true), Some(*slot));
    assert_eq!(MtrrSlot::variable(8, false), None);
}

/// Every row takes its reset value (or is read-only), so state can be put back.
#[test]
fn reset_values_are_legal() {
    for r in TABLE.iter().filter(|r| r.check != Check::ReadOnly) {
        assert_eq!(write(r.first, r.reset), Ok(r.reset), "{}", r.name);
    }
}

/// One legal and one illegal value for each row that refuses any.
#[test]
fn legal_and_illegal() {
    let canonical = [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000];
    let not_canonical = [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63];
    for r in TABLE {
        match r.check {
            Check::Any | Check::Apic => assert_eq!(write(r.first, !0), Ok(!0)),
            Check::ReadOnly => assert_eq!(write(r.first, r.reset), GP),
            Check::Ignored => assert_eq!(write(r.first, !0), Ok(r.reset)),
            Check::Low32 => assert_eq!(write(r.first, !0), Ok(0xffff_ffff)),
            Check::Bits(bits) => {
                assert_eq!(write(r.first, bits), Ok(bits));
                assert_eq!(write(r.first, bits + 1), GP);
                assert_eq!(write(r.first, 1 << 63), GP);
            }
            Check::Canonical => {
                for v in canonical {
                    assert_eq!(write(r.first, v), Ok(v), "{}", r.name);
                }
                for v in not_canonical {
                    assert_eq!(write(r.first, v), GP, "{}", r.name);
                }
            }
            Check::Efer | Check::Pat | Check::Debugctl | Check::SpecCtrl | Check::Mtrr(_) => {}
        }
    }
    assert_eq!(write(0x11, 0), GP);
}

#[test]
fn efer() {
    let model = model();
    let go = |value, efer, paging| {
        check_write(
            IA32_EFER,
            value,
            &MsrContext {
                model: &model,
                efer,
                paging,
            },
        )
        .map(|(_, v)| v)
    };
    let (sce, lme, lma, nxe) = (EFER_SCE, EFER_LME, EFER_LMA, EFER_NXE);
    assert_eq!(go(sce | lme | nxe, 0, false), Ok(sce | lme | nxe));
    assert_eq!(go(lme, 0, true), GP);
    assert_eq!(go(0, lme | lma, true), GP);
    assert_eq!(go(sce | lme | lma, lme | lma, true), Ok(sce | lme | lma));
    // LMA is not the guest's to set or clear.
    assert_eq!(go(lme | lma, lme, false), Ok(lme));
    assert_eq!(go(lme, lme | lma, true), Ok(lme | lma));
    for bit in (0..64).filter(|b| ![0, 8, 10, 11].contains(b)) {
        assert_eq!(go(1 << bit, 0, false), GP, "bit {bit}");
    }
}

#[test]
fn pat() {
    for slot in 0..8 {
        for kind in 0..=255u64 {
            let value = IA32_PAT_RESET & !(0xff << (8 * slot)) | (kind << (8 * slot));
            let legal = [0, 1, 4, 5, 6, 7].contains(&kind);
            assert_eq!(write(IA32_PAT, value).is_ok(), legal, "{value:x}");
        }
    }
}

#[test]
fn mtrr() {
    for kind in 0..=255u64 {
        let legal = [0, 1, 4, 5, 6].contains(&kind);
        assert_eq!(write(IA32_MTRR_DEF_TYPE, 0xc00 | kind).is_ok(), legal);
        assert_eq!(write(0x200, 0x1234_5000 | kind).is_ok(), legal);
        assert_eq!(
            write(0x250, 0x0606_0606_0606_0606 & !0xff | kind).is_ok(),
            legal
        );
        assert_eq!(
            write(0x26f, 0x0006_0606_0606_0606 | (kind << 56)).is_ok(),
            legal
        );
    }
    for bit in (8..64).filter(|b| ![10, 11].contains(b)) {
        assert_eq!(write(IA32_MTRR_DEF_TYPE, 1 << bit), GP);
    }
    for bit in 8..64 {
        assert_eq!(
            write(0x20e, 1 << bit).is_ok(),
            (12..39).contains(&bit),
            "{bit}"
        );
        assert_eq!(
            write(0x20f, 1 << bit).is_ok(),
            (11..39).contains(&bit),
            "{bit}"
        );
    }
    for bit in 0..11 {
        assert_eq!(write(0x20f, 1 << bit), GP);
    }
}

#[test]
fn debugctl_and_spec_ctrl() {
    assert_eq!(write(IA32_DEBUGCTL, 3), Ok(2));
    assert_eq!(write(IA32_DEBUGCTL, 4), GP);
    for bit in 0..64 {
        assert_eq!(write(IA32_SPEC_CTRL, 1 << bit).is_ok(), bit < 3);
    }
}

/// Without the feature there is no register; commands cannot be read.
#[test]
fn features_and_reads() {
    let full = model();
    let least = build(&|_, _| [0; 4], &Machine::default());
    for r in TABLE {
        let command = r.kind == MsrKind::Command;
        assert_eq!(check_read(r.first, &full).is_ok(), !command, "{}", r.name);
        let there = r.needs_any.iter().any(|&f| least.has(f)) || r.needs_any.is_empty();
        assert_eq!(
            check_read(r.first, &least).is_ok(),
            there && !command,
            "{}",
            r.name
        );
        let context = MsrContext {
            model: &least,
            efer: 0,
            paging: false,
        };
        if !there {
            assert!(check_write(r.first, r.reset, &context).is_err());
        }
    }
    assert!(least.has(Feature::Mtrr) && !least.has(Feature::SpecCtrl));
}
