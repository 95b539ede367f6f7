// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The calls for sets of VPs, against a simple model of the TLFS that works on bytes.

#![allow(clippy::precedence)] // Control words, field by field.

use super::*;
use crate::testing::{all, limits, xorshift};
use crate::{VpMask, MAX_VPS};
use hvdef::HvSyntheticProcessorFeatures as Feature;
use std::vec::Vec;

const KERNEL: Caller = Caller {
    cpl: 0,
    protected_mode: true,
};
const FAST: u64 = 1 << 16;

/// Input in memory; counts reads of each word.
struct Memory {
    words: Vec<u64>,
    reads: Vec<u32>,
}

impl Memory {
    fn new(words: &[u64]) -> Self {
        Self {
            words: words.to_vec(),
            reads: std::vec![0; words.len()],
        }
    }
}

impl Words for Memory {
    fn word(&mut self, index: usize) -> Result<u64, Stop> {
        self.reads[index] += 1;
        assert_eq!(self.reads[index], 1, "word {index} was read twice");
        Ok(self.words[index])
    }
}

fn arguments(control: u64, input: u64) -> Arguments {
    Arguments {
        control: HvHypercallInput(control),
        input,
        output: 0,
    }
}

fn judge(control: u64, input: u64, features: &PartitionFeatures) -> Dispatch {
    dispatch(&arguments(control, input), &KERNEL, 1, features)
}

fn status(d: Dispatch) -> u16 {
    match d {
        Dispatch::Done(r) => r.status().0,
        Dispatch::Call(_) => 0,
        other => panic!("{other:?}"),
    }
}

fn with(granted: Feature) -> PartitionFeatures {
    PartitionFeatures::new(
        Feature::HYPERVISOR_PRESENT | Feature::HV1 | granted,
        limits(),
    )
}

fn ipi(words: &[u64], var: u64, ex: bool) -> Result<ClusterIpi, Stop> {
    ClusterIpi::read(&mut Memory::new(words), HvHypercallInput(var << 17), ex)
}

fn flush(
    words: &[u64],
    var: u64,
    reps: (u64, u64),
    list: bool,
    ex: bool,
) -> Result<FlushRequest, Stop> {
    let control = HvHypercallInput(var << 17 | reps.1 << 32 | reps.0 << 48);
    FlushRequest::read(&mut Memory::new(words), control, &all(), list, ex)
}

const BAD_INPUT: Stop = Stop::Status(HV_STATUS_INVALID_HYPERCALL_INPUT);
const BAD_PARAMETER: Stop = Stop::Status(HV_STATUS_INVALID_PARAMETER);

/// C-R8, C-4A2, C-4A10, C-4A11: without its feature a call is denied, and no bit recommends it.
#[test]
fn features_open_calls() {
    let calls = [
        (0x02, Feature::TB_FLUSH_HYPERCALLS),
        (0x03 | 1 << 32, Feature::TB_FLUSH_HYPERCALLS),
        (0x0b, Feature::SYNTHETIC_CLUSTER_IPI),
        (
            0x13,
            Feature::TB_FLUSH_HYPERCALLS | Feature::EXTENDED_PROCESSOR_MASKS,
        ),
        (
            0x14 | 1 << 32,
            Feature::TB_FLUSH_HYPERCALLS | Feature::EXTENDED_PROCESSOR_MASKS,
        ),
        (
            0x15,
            Feature::SYNTHETIC_CLUSTER_IPI | Feature::EXTENDED_PROCESSOR_MASKS,
        ),
    ];
    for (control, needs) in calls {
        for bits in 0..8 {
            let mut granted = Feature::empty();
            for (bit, feature) in [
                Feature::TB_FLUSH_HYPERCALLS,
                Feature::SYNTHETIC_CLUSTER_IPI,
                Feature::EXTENDED_PROCESSOR_MASKS,
            ]
            .into_iter()
            .enumerate()
            {
                if bits >> bit & 1 != 0 {
                    granted |= feature;
                }
            }
            let f = with(granted);
            let expected = if granted.contains(needs) { 0 } else { 6 };
            assert_eq!(
                status(judge(control, 0, &f)),
                expected,
                "{control:x} {bits}"
            );
            // what is denied tells nothing else.
            if expected == 6 {
                assert_eq!(status(judge(control | 1 << 63, 1, &f)), 6);
            }
            let r = f.recommendations.bits();
            assert_eq!(r >> 2 & 1, bits & 1);
            assert_eq!(r >> 10 & 1, bits >> 1 & 1);
            assert_eq!(r >> 11 & 1, u32::from(bits & 4 != 0 && bits & 3 != 0));
        }
    }
}

/// control word before alignment before parameters.
#[test]
fn control_word_and_place() {
    let f = all();
    for (code, rep, variable, fixed) in [
        (0x02, false, false, 24),
        (0x03, true, false, 24),
        (0x0b, false, false, 16),
        (0x13, false, true, 32),
        (0x14, true, true, 32),
        (0x15, false, true, 24),
    ] {
        let one = if rep { code | 1 << 32 } else { code };
        assert_eq!(status(judge(one, 0, &f)), 0);
        for bit in [27, 28, 29, 30, 31, 44, 45, 46, 47, 60, 61, 62, 63] {
            assert_eq!(
                status(judge(one | 1 << bit, 1, &f)),
                3,
                "{code:x} bit {bit}"
            );
        }
        let other = if rep { code } else { code | 1 << 32 };
        assert_eq!(status(judge(other, 0, &f)), 3);
        assert_eq!(status(judge(one | 1 << 48, 0, &f)), 3);
        assert_eq!(
            status(judge(one | 1 << 17, 0, &f)),
            if variable { 0 } else { 3 }
        );
        for bad in [1, 4, 0x1000 - fixed + 8, 1 << 39, !7] {
            assert_eq!(status(judge(one, bad, &f)), 4, "{code:x} at {bad:x}");
        }
        let size = fixed + if rep { 8 } else { 0 };
        assert_eq!(status(judge(one, 0x1000 - size, &f)), 0);
        if variable {
            assert_eq!(status(judge(one | 1 << 17, 0x1000 - size, &f)), 4);
            assert_eq!(status(judge(one | 0x3ff << 17, 0, &f)), 4);
        }
        if rep {
            let fits = (4096 - fixed) / 8;
            assert_eq!(status(judge(code | fits << 32, 0, &f)), 0);
            assert_eq!(status(judge(code | (fits + 1) << 32, 0, &f)), 4);
        }
    }
}

/// what registers hold; without the feature bit XMM input is #UD, but not general registers.
#[test]
fn fast_input() {
    let f = all();
    assert!(f.xmm_input());
    for (code, words) in [(0x02, 3), (0x0b, 2), (0x13, 4), (0x15, 3)] {
        assert_eq!(status(judge(code | FAST, u64::MAX, &f)), 0, "{code:x}");
        let mut less = all();
        less.edx = hvdef::HvFeaturesEdx::empty();
        let d = judge(code | FAST, 0, &less);
        assert_eq!(d == Dispatch::Undefined, words > 2, "{code:x}");
    }
    // 112 bytes: 11 addresses behind 24 bytes, 10 behind 32.
    assert_eq!(status(judge(0x03 | FAST | 11 << 32, 0, &f)), 0);
    assert_eq!(status(judge(0x03 | FAST | 12 << 32, 0, &f)), 3);
    assert_eq!(status(judge(0x14 | FAST | 10 << 32, 0, &f)), 0);
    assert_eq!(status(judge(0x14 | FAST | 1 << 17 | 10 << 32, 0, &f)), 3);
    assert_eq!(status(judge(0x15 | FAST | 11 << 17, 0, &f)), 0);
    assert_eq!(status(judge(0x15 | FAST | 12 << 17, 0, &f)), 3);
}

/// H-0B: vectors, VTL, padding.
#[test]
fn ipi_parameters() {
    for vector in (0..0x200).chain([0x1_0020, 0x8000_0020, u64::from(u32::MAX)]) {
        let expected = if (0x10..0x100).contains(&vector) {
            Ok(ClusterIpi {
                vector: vector as u8,
                targets: VpMask::first_bank(5),
            })
        } else {
            Err(BAD_PARAMETER)
        };
        assert_eq!(ipi(&[vector, 5], 0, false), expected, "{vector:x}");
        assert_eq!(ipi(&[vector, 0, 1, 5], 1, true), expected, "{vector:x}");
    }
    for vtl in 0..=0xff {
        let legal = vtl & 0xe0 == 0 && (vtl & 0x10 == 0 || vtl & 0xf == 0);
        let got = ipi(&[0x20 | vtl << 32 | 0xabcdef << 40, 1], 0, false);
        assert_eq!(got.is_ok(), legal, "{vtl:x}");
    }
}

/// The VPs of a set by the TLFS's words: bank after bank, only those that are valid.
fn model_of_set(format: u64, banks: u64, contents: &[u64]) -> Option<Vec<bool>> {
    let mut vps = std::vec![false; 4096];
    match format {
        1 => vps.fill(true),
        0 => {
            let mut next = 0;
            for bank in 0..64 {
                if banks & 1 << bank != 0 {
                    let mask = contents.get(next)?;
                    next += 1;
                    for i in 0..64 {
                        vps[bank * 64 + i] = mask & 1 << i != 0;
                    }
                }
            }
            if next != contents.len() {
                return None;
            }
        }
        _ => unreachable!(),
    }
    Some(vps)
}

/// Sparse VP sets of up to 64 banks against the model.
#[test]
fn vp_sets() {
    let mut rng = 77;
    let mut wrong = 0;
    for round in 0..200_000 {
        let mut banks = xorshift(&mut rng);
        // Few banks, many, none.
        for _ in 0..round % 5 {
            banks &= xorshift(&mut rng);
        }
        let mut var = u64::from(banks.count_ones());
        if round % 7 == 0 {
            var = xorshift(&mut rng) % 65;
        }
        let format = u64::from(round % 11 == 0);
        let mut words = std::vec![0x30, format, banks];
        words.extend((0..var).map(|_| xorshift(&mut rng)));
        let got = ipi(&words, var, true);
        match model_of_set(format, banks, &words[3..]) {
            Some(vps) => {
                let mask = got.unwrap().targets;
                for (vp, &set) in (0..MAX_VPS).zip(&vps) {
                    assert_eq!(mask.contains(vp), set);
                }
            }
            None => {
                wrong += 1;
                assert_eq!(got, Err(BAD_INPUT));
            }
        }
    }
    assert!(wrong > 1000);
    for format in [2, 3, u64::MAX, 1 << 32] {
        assert_eq!(ipi(&[0x30, format, 0], 0, true), Err(BAD_PARAMETER));
    }
}

/// H-02, H-13: flags, address space, mask.
#[test]
fn flush_parameters() {
    for flags in (0..64).chain([1 << 32, u64::MAX]) {
        for (list, ex) in [(false, false), (true, false), (false, true), (true, true)] {
            let reps = (0, u64::from(list));
            let words: &[u64] = if ex {
                &[0x1000, flags, 0, 1, 6, 0x5000]
            } else {
                &[0x1000, flags, 6, 0x5000]
            };
            let got = flush(words, u64::from(ex), reps, list, ex);
            let legal = if list { 0b1011 } else { 0b0111 };
            if flags & !legal != 0 {
                assert_eq!(got, Err(BAD_PARAMETER), "{flags:x} {list} {ex}");
                continue;
            }
            let expected = if flags & 1 != 0 {
                VpMask::ALL
            } else {
                VpMask::first_bank(6)
            };
            assert_eq!(got.unwrap().targets, expected);
            assert_eq!(got.unwrap().pages().is_some(), list);
        }
    }
    // CR3 has 39 bits here.
    for space in [1 << 39, 1 << 63, u64::MAX] {
        assert_eq!(
            flush(&[space, 0, 1], 0, (0, 0), false, false),
            Err(BAD_PARAMETER)
        );
        assert!(flush(&[space, 2, 1], 0, (0, 0), false, false).is_ok());
    }
    assert!(flush(&[(1 << 39) - 1, 0, 1], 0, (0, 0), false, false).is_ok());
    // K-04's note: an empty mask means everybody; an empty set nobody.
    let got = flush(&[0, 2, 0], 0, (0, 0), false, false).unwrap();
    assert_eq!(got.targets, VpMask::ALL);
    let got = flush(&[0, 2, 0, 0], 0, (0, 0), false, true).unwrap();
    assert_eq!(got.targets, VpMask::EMPTY);
    // Without the feature the extended format is a reserved flag.
    let f = with(Feature::TB_FLUSH_HYPERCALLS);
    let control = HvHypercallInput(1 << 32);
    let got = FlushRequest::read(&mut Memory::new(&[0, 10, 1, 0]), control, &f, true, false);
    assert_eq!(got, Err(BAD_PARAMETER));
}

/// H-03, H-14, A-03, A-20: ranges from the first repetition on, against a model that has no limit.
#[test]
fn flush_lists() {
    let mut rng = 3;
    let mut by_page = 0;
    for round in 0..100_000u64 {
        let (ex, extended) = (round & 1 != 0, round & 2 != 0);
        let count = 1 + xorshift(&mut rng) % 20;
        let start = xorshift(&mut rng) % count;
        let var = if ex { xorshift(&mut rng) % 3 } else { 0 };
        let flags = 2 | if extended { 8 } else { 0 };
        let mut words = std::vec![0, flags];
        if ex {
            words.extend([0, (1 << var) - 1]);
            words.extend((0..var).map(|_| 1));
        } else {
            words.push(1);
        }
        let mut expected = Some(Vec::new());
        for i in 0..count {
            let more = match xorshift(&mut rng) % 6 {
                0 => xorshift(&mut rng) & 0xfff,
                1 => 1 << 11,
                n => n - 2,
            };
            let canonical = xorshift(&mut rng) as i64 >> 8;
            let wild = xorshift(&mut rng);
            let entry = if wild % 8 == 0 {
                wild
            } else {
                canonical as u64
            } & !0xfff
                | more;
            words.push(entry);
            if i < start {
                continue;
            }
            if extended && more & 1 << 11 != 0 {
                expected = None;
            }
            if let Some(pages) = &mut expected {
                for page in 0..=more {
                    let gva = (entry & !0xfff).wrapping_add(page * 4096);
                    if gva >> 56 == 0 || gva >> 56 == 0xff {
                        pages.push(gva);
                    }
                }
            }
        }
        let got = flush(&words, var, (start, count), true, ex).unwrap();
        let expected = expected.filter(|pages| pages.len() <= FLUSH_PAGES);
        by_page += u32::from(expected.is_some());
        assert_eq!(got.pages(), expected.as_deref());
    }
    assert!(by_page > 1000);
}

/// Input that cannot be read stops the call wherever it ends; nothing is judged before it is read.
#[test]
fn unreadable_input() {
    struct Ends(usize);
    impl Words for Ends {
        fn word(&mut self, index: usize) -> Result<u64, Stop> {
            if index < self.0 {
                Ok(0x20)
            } else {
                Err(Stop::Unreadable)
            }
        }
    }
    for end in 0..2 {
        let got = ClusterIpi::read(&mut Ends(end), HvHypercallInput(0), false);
        assert_eq!(got, Err(Stop::Unreadable));
    }
    for end in 0..3 {
        let got = FlushRequest::read(&mut Ends(end), HvHypercallInput(0), &all(), false, false);
        assert_eq!(got, Err(Stop::Unreadable));
    }
}
