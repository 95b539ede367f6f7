// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::testing::{all, limits, xorshift};
use hvdef::*;

struct Env;

impl VpEnv for Env {
    fn vp_index(&self) -> u32 {
        5
    }
    fn reference_time_100ns(&self) -> u64 {
        1234
    }
    fn runtime_100ns(&self) -> u64 {
        77
    }
}

fn get(msr: u32, state: &PartitionState) -> Result<u64, MsrError> {
    read_msr(msr, Origin::Guest, &all(), state, &Env)
}

fn set(msr: u32, value: u64, state: &mut PartitionState) -> Result<MsrEffect, MsrError> {
    write_msr(msr, value, Origin::Guest, &all(), state)
}

fn host_set(msr: u32, value: u64, state: &mut PartitionState) -> Result<MsrEffect, MsrError> {
    write_msr(msr, value, Origin::Host, &all(), state)
}

fn at(kind: OverlayKind, gpn: Option<u64>) -> Result<MsrEffect, MsrError> {
    Ok(MsrEffect::Overlay {
        overlay: Overlay::partition(kind),
        gpn,
    })
}

const GP: MsrError = MsrError::GeneralProtection;

/// M-00, M-01: the order in which a guest sets up its page.
#[test]
fn hypercall_page() {
    let mut s = PartitionState::new();
    assert_eq!(
        set(HV_X64_MSR_HYPERCALL, 0x5001, &mut s),
        at(OverlayKind::HypercallPage, None)
    );
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0x5000));
    assert_eq!(
        set(HV_X64_MSR_GUEST_OS_ID, 1 << 63, &mut s),
        Ok(MsrEffect::None)
    );
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0x5000));
    assert_eq!(
        set(HV_X64_MSR_HYPERCALL, 0x5001, &mut s),
        at(OverlayKind::HypercallPage, Some(5))
    );
    assert_eq!(
        set(HV_X64_MSR_GUEST_OS_ID, 0, &mut s),
        at(OverlayKind::HypercallPage, None)
    );
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0x5000));
}

/// M-01: a page number beyond the address space is #GP and changes nothing; reserved bits are kept.
#[test]
fn hypercall_page_bounds() {
    let mut s = PartitionState::new();
    set(HV_X64_MSR_GUEST_OS_ID, 1, &mut s).unwrap();
    let last = (1u64 << 39) - 0x1000;
    assert_eq!(
        set(HV_X64_MSR_HYPERCALL, last | 1, &mut s),
        at(OverlayKind::HypercallPage, Some(last >> 12))
    );
    for value in [1u64 << 39, 1 << 63, !0] {
        assert_eq!(set(HV_X64_MSR_HYPERCALL, value, &mut s), Err(GP));
    }
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(last | 1));
    set(HV_X64_MSR_HYPERCALL, 0xffd, &mut s).unwrap();
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0xffd));
}

/// M-01, C-3D18: locked means locked, even against a change of the guest OS id to itself; the VMM can restore.
#[test]
fn hypercall_lock() {
    let mut s = PartitionState::new();
    set(HV_X64_MSR_GUEST_OS_ID, 1, &mut s).unwrap();
    set(HV_X64_MSR_HYPERCALL, 0x5003, &mut s).unwrap();
    assert_eq!(set(HV_X64_MSR_HYPERCALL, 0x6001, &mut s), Err(GP));
    assert_eq!(set(HV_X64_MSR_HYPERCALL, 0, &mut s), Err(GP));
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0x5003));
    assert!(host_set(HV_X64_MSR_HYPERCALL, 0, &mut s).is_ok());
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0));
}

/// A VMM restores HYPERCALL before GUEST_OS_ID, and writes zeroes at reset.
#[test]
fn host_order() {
    let mut s = PartitionState::new();
    assert_eq!(
        host_set(HV_X64_MSR_HYPERCALL, 0x5001, &mut s),
        at(OverlayKind::HypercallPage, Some(5))
    );
    assert_eq!(
        host_set(HV_X64_MSR_GUEST_OS_ID, 9, &mut s),
        Ok(MsrEffect::None)
    );
    assert_eq!(get(HV_X64_MSR_HYPERCALL, &s), Ok(0x5001));
    assert_eq!(
        host_set(HV_X64_MSR_HYPERCALL, 0, &mut s),
        at(OverlayKind::HypercallPage, None)
    );
    assert_eq!(
        host_set(HV_X64_MSR_GUEST_OS_ID, 0, &mut s),
        Ok(MsrEffect::None)
    );
    assert_eq!(s, PartitionState::new());
}

/// M-21: out of range is no fault.
#[test]
fn reference_tsc() {
    let mut s = PartitionState::new();
    let k = OverlayKind::ReferenceTsc;
    assert_eq!(
        set(HV_X64_MSR_REFERENCE_TSC, 0x7001, &mut s),
        at(k, Some(7))
    );
    assert_eq!(
        set(HV_X64_MSR_REFERENCE_TSC, (1 << 39) | 0xfff, &mut s),
        at(k, None)
    );
    assert_eq!(get(HV_X64_MSR_REFERENCE_TSC, &s), Ok((1 << 39) | 0xfff));
    assert_eq!(set(HV_X64_MSR_REFERENCE_TSC, 0x7000, &mut s), at(k, None));
}

/// M-02, M-10, M-20, M-22, M-23: values, and #GP for writes.
#[test]
fn read_only() {
    let mut s = PartitionState::new();
    for (msr, value) in [
        (HV_X64_MSR_VP_INDEX, 5),
        (HV_X64_MSR_VP_RUNTIME, 77),
        (HV_X64_MSR_TIME_REF_COUNT, 1234),
        (HV_X64_MSR_TSC_FREQUENCY, limits().tsc_hz),
        (HV_X64_MSR_APIC_FREQUENCY, limits().apic_hz),
    ] {
        assert_eq!(get(msr, &s), Ok(value));
        assert_eq!(read_msr_hot(msr, &all(), &Env), Some(Ok(value)));
        assert_eq!(set(msr, value, &mut s), Err(GP));
    }
    assert_eq!(read_msr_hot(HV_X64_MSR_HYPERCALL, &all(), &Env), None);
}

/// C-R8: the hot and the full read agree on every number, with and without the privilege.
#[test]
fn privileges() {
    let mut rng = 11;
    let state = PartitionState::new();
    for _ in 0..64 {
        let asked = HvSyntheticProcessorFeatures(xorshift(&mut rng) | 3);
        let f = PartitionFeatures::new(asked, limits());
        for msr in 0x4000_0000..0x4000_0120 {
            let full = read_msr(msr, Origin::Guest, &f, &state, &Env);
            if let Some(hot) = read_msr_hot(msr, &f, &Env) {
                assert_eq!(hot, full);
            }
            // The VP's own registers are read elsewhere; EOI cannot be read.
            let own = read_vp_msr(msr, Origin::Guest, &f, &VpState::new());
            let readable = own.map_or(full.is_ok(), |r| r.is_ok());
            let granted = row(msr).is_some_and(|r| f.privileges.contains(r.privilege));
            // Bits of EDX open these, of which the machine decides about one.
            let open = match msr {
                HV_X64_MSR_EOI | HV_X64_MSR_NPIEP_CONFIG => false,
                HV_X64_MSR_STIME_UNHALTED_TIMER_CONFIG | HV_X64_MSR_STIME_UNHALTED_TIMER_COUNT => f
                    .edx
                    .contains(HvFeaturesEdx::SYNTHETIC_TIME_UNHALTED_TIMER_AVAILABLE),
                _ => true,
            };
            assert_eq!(readable, granted && open, "{msr:x}");
            assert_eq!(is_withheld(msr, &f), row(msr).is_some() && !granted);
        }
    }
}

/// M-100, M-105: the parameters are kept, a text is at most a page, a VMM reports nothing.
#[test]
fn crash() {
    let mut s = PartitionState::new();
    let can = HV_CRASH_CTL_NOTIFY | HV_CRASH_CTL_MESSAGE;
    assert_eq!(get(HV_X64_MSR_CRASH_CTL, &s), Ok(can));
    for (msr, n) in (HV_X64_MSR_CRASH_P0..=HV_X64_MSR_CRASH_P4).zip(1u64..) {
        assert_eq!(get(msr, &s), Ok(0));
        set(msr, n << 20, &mut s).unwrap();
        assert_eq!(get(msr, &s), Ok(n << 20));
    }
    let parameters = [1u64, 2, 3, 4, 5].map(|n| n << 20);
    let crash = |text| Ok(MsrEffect::Crash(Crash { parameters, text }));
    assert_eq!(set(HV_X64_MSR_CRASH_CTL, 1 << 63, &mut s), crash(None));
    let text = Some((4 << 20, 4096));
    assert_eq!(set(HV_X64_MSR_CRASH_CTL, can, &mut s), crash(text));
    assert_eq!(
        set(HV_X64_MSR_CRASH_CTL, 1 << 62, &mut s),
        Ok(MsrEffect::None)
    );
    assert_eq!(
        host_set(HV_X64_MSR_CRASH_CTL, can, &mut s),
        Ok(MsrEffect::None)
    );
    assert_eq!(get(HV_X64_MSR_CRASH_CTL, &s), Ok(can));
}

/// M-E0, M-E1: each register places its own page, read-only; reserved bits are kept (F-ST1).
#[test]
fn statistics_pages() {
    let mut s = PartitionState::new();
    for (msr, kind) in [
        (HV_X64_MSR_STATS_PARTITION_RETAIL_PAGE, OverlayKind::Stats),
        (
            HV_X64_MSR_STATS_PARTITION_INTERNAL_PAGE,
            OverlayKind::InternalStats,
        ),
    ] {
        assert_eq!(get(msr, &s), Ok(0));
        assert_eq!(set(msr, 0x7ff1, &mut s), at(kind, Some(7)));
        assert_eq!(get(msr, &s), Ok(0x7ff1));
        assert_eq!(set(msr, (1 << 39) | 1, &mut s), at(kind, None));
        assert_eq!(set(msr, 0x7000, &mut s), at(kind, None));
    }
    // C-3A8: not without the privilege.
    let mut limits = limits();
    limits.asked = HvPartitionPrivilege::empty();
    let f = PartitionFeatures::new(HvSyntheticProcessorFeatures(u64::MAX), limits);
    let msr = HV_X64_MSR_STATS_PARTITION_RETAIL_PAGE;
    assert_eq!(read_msr(msr, Origin::Guest, &f, &s, &Env), Err(GP));
    assert_eq!(write_msr(msr, 1, Origin::Guest, &f, &mut s), Err(GP));
}

/// Every number around the range, written with walking ones: what is not there is #GP.
#[test]
fn sweep() {
    let none = PartitionFeatures::new(HvSyntheticProcessorFeatures::HYPERVISOR_PRESENT, limits());
    for msr in (0x3fff_fff0..0x4000_0200).chain(0x4000_0ff0..0x4000_2010) {
        let mine = HV_X64_MSR_RANGE.contains(&msr);
        let there = row(msr).is_some();
        let mut s = PartitionState::new();
        for value in (0..64).map(|b| 1 << b).chain([0]) {
            let before = s;
            let r = set(msr, value, &mut s);
            match (mine, there) {
                (false, _) => assert_eq!(r, Err(MsrError::NotMine)),
                (true, false) => assert_eq!(r, Err(GP)),
                _ => (),
            }
            if r.is_err() {
                assert_eq!(s, before);
            }
            assert!(write_msr(msr, value, Origin::Guest, &none, &mut s).is_err());
        }
    }
}

/// M-03: reads zero; only bit 0, and only a guest's, resets.
#[test]
fn reset() {
    let mut s = PartitionState::new();
    assert_eq!(get(HV_X64_MSR_RESET, &s), Ok(0));
    assert_eq!(set(HV_X64_MSR_RESET, 0, &mut s), Ok(MsrEffect::None));
    assert_eq!(set(HV_X64_MSR_RESET, 1, &mut s), Ok(MsrEffect::Reset));
    assert_eq!(host_set(HV_X64_MSR_RESET, 0, &mut s), Ok(MsrEffect::None));
    assert_eq!(host_set(HV_X64_MSR_RESET, 1, &mut s), Err(GP));
    for bit in 1..64 {
        assert_eq!(set(HV_X64_MSR_RESET, 1 << bit, &mut s), Err(GP));
        assert_eq!(set(HV_X64_MSR_RESET, (1 << bit) | 1, &mut s), Err(GP));
    }
    assert_eq!(s, PartitionState::new());
}

/// M-118: one bit, which a guest cannot clear.
#[test]
fn tsc_invariant() {
    let mut s = PartitionState::new();
    const MSR: u32 = HV_X64_MSR_TSC_INVARIANT_CONTROL;
    assert_eq!(get(MSR, &s), Err(GP));
    let mut f = all();
    f.grant_tsc_invariant();
    let get = |s: &PartitionState| read_msr(MSR, Origin::Guest, &f, s, &Env);
    let set = |value, origin, s: &mut _| write_msr(MSR, value, origin, &f, s);
    assert_eq!(get(&s), Ok(0));
    for bit in 1..64 {
        assert_eq!(set(1 << bit, Origin::Guest, &mut s), Err(GP));
        assert_eq!(set((1 << bit) | 1, Origin::Host, &mut s), Err(GP));
    }
    assert_eq!(set(0, Origin::Guest, &mut s), Ok(MsrEffect::None));
    assert!(!s.tsc_invariant());
    for _ in 0..2 {
        assert_eq!(set(1, Origin::Guest, &mut s), Ok(MsrEffect::None));
        assert_eq!((get(&s), s.tsc_invariant()), (Ok(1), true));
    }
    assert_eq!(set(0, Origin::Guest, &mut s), Err(GP));
    assert_eq!(get(&s), Ok(1));
    assert_eq!(set(0, Origin::Host, &mut s), Ok(MsrEffect::None));
    assert_eq!(get(&s), Ok(0));
    let mut none = PartitionFeatures::new(HvSyntheticProcessorFeatures(1), limits());
    none.grant_tsc_invariant();
    assert_eq!(none.privileges, HvPartitionPrivilege::empty());
}
