// SPDX-License-Identifier: GPL-2.0 OR MIT

//! [`dispatch`] against a model of the TLFS' chapter on hypercalls, with a table of its own (A-01 to,
//! C-R8).

#![allow(clippy::precedence)] // Control words, field by field.

use super::*;
use crate::testing::{limits, xorshift};
use hvdef::HvSyntheticProcessorFeatures as Feature;

/// What #UD counts as.
const UNDEFINED: u16 = 0xffff;

/// Code, list?, fast form?, header of variable size?, input and its elements, output and its elements, what it needs.
type Model = (u16, bool, bool, bool, [u64; 4], Feature);

const SETS: Feature = Feature::EXTENDED_PROCESSOR_MASKS;
const FLUSH: Feature = Feature::TB_FLUSH_HYPERCALLS;
const IPI: Feature = Feature::SYNTHETIC_CLUSTER_IPI;
const EVENTS: Feature = Feature::SIGNAL_EVENTS;
const START: Feature = Feature::START_VIRTUAL_PROCESSOR;
const REGISTERS: Feature = Feature::ACCESS_VP_REGS;

const MODEL: &[Model] = &[
    (0x02, false, true, false, [24, 0, 0, 0], FLUSH),
    (0x03, true, true, false, [24, 8, 0, 0], FLUSH),
    (0x08, false, true, false, [8, 0, 0, 0], Feature::empty()),
    (0x0b, false, true, false, [16, 0, 0, 0], IPI),
    (0x13, false, true, true, [32, 0, 0, 0], FLUSH.union(SETS)),
    (0x14, true, true, true, [32, 8, 0, 0], FLUSH.union(SETS)),
    (0x15, false, true, true, [24, 0, 0, 0], IPI.union(SETS)),
    (0x50, true, true, false, [16, 4, 0, 16], REGISTERS),
    (0x51, true, true, false, [16, 32, 0, 0], REGISTERS),
    (0x5c, false, false, false, [256, 0, 0, 0], EVENTS),
    (0x5d, false, true, false, [8, 0, 0, 0], EVENTS),
    (0x69, false, false, false, [8, 0, 8, 0], Feature::empty()),
    (0x6a, false, false, false, [16, 0, 8, 0], Feature::empty()),
    (0x6b, false, true, false, [8, 0, 0, 0], Feature::empty()),
    (0x99, false, false, false, [240, 0, 0, 0], START),
    (0x9a, true, true, false, [16, 8, 0, 8], START),
];

/// The status, 0xffff for #UD; `None`: the call is made.
fn expected(control: u64, input: u64, output: u64, granted: Feature) -> Option<u16> {
    let code = control as u16;
    let reserved = control & 0xf000_f000_7800_0000 != 0;
    let Some(&(_, list, has_fast, variable, sizes, needs)) = MODEL.iter().find(|m| m.0 == code)
    else {
        return Some(if reserved { 3 } else { 2 });
    };
    let outputs = sizes[2] + sizes[3] * (control >> 32 & 0xfff) != 0;
    let fast = control >> 16 & 1 != 0;
    if fast && has_fast && outputs && !granted.contains(Feature::FAST_HYPERCALL_OUTPUT) {
        return Some(UNDEFINED);
    }
    if !granted.contains(needs) {
        return Some(6);
    }
    let header = control >> 17 & 0x3ff;
    let (count, start) = (control >> 32 & 0xfff, control >> 48 & 0xfff);
    let nested = control >> 31 & 1 != 0;
    let [fixed, element, out_fixed, out_element] = sizes;
    let variable_bytes = if variable { header * 8 } else { 0 };
    let in_size = fixed + variable_bytes + element * count;
    let out_size = out_fixed + out_element * count;
    let bad_reps = if list {
        start >= count
    } else {
        count != 0 || start != 0
    };
    if reserved
        || nested
        || bad_reps
        || header != 0 && !variable
        || fast && (!has_fast || in_size > 112)
        || fast && out_size != 0 && in_size.div_ceil(16) * 16 + out_size > 112
    {
        return Some(3);
    }
    if fast {
        return None;
    }
    let misplaced =
        |at: u64, size: u64| size != 0 && (at % 8 != 0 || at >> 39 != 0 || at % 4096 + size > 4096);
    let overlap = || {
        out_size != 0 && (0..in_size).any(|i| (output..output + out_size).contains(&(input + i)))
    };
    (misplaced(input, in_size) || misplaced(output, out_size) || overlap()).then_some(4)
}

/// ≥ 10^6 calls: mostly known codes, control words that are nearly right, addresses at the ends of pages.
#[test]
fn random_calls() {
    let mut rng = 3;
    let mut seen = [0u32; 8];
    let caller = Caller {
        cpl: 0,
        protected_mode: true,
    };
    for _ in 0..1_200_000 {
        let mut random = |n: u64| xorshift(&mut rng) % n;
        let code = if random(8) == 0 {
            random(0x1_0000)
        } else {
            u64::from(MODEL[random(MODEL.len() as u64) as usize].0)
        };
        let list = MODEL
            .iter()
            .any(|m| u64::from(m.0) == code && m.1 != (random(16) == 0));
        let mut control = code | random(2) * random(2) << 16;
        if random(4) == 0 {
            control |= random(12) << 17;
        }
        if list {
            let count = match random(3) {
                0 => 1,
                1 => random(16),
                _ => random(0x1000),
            };
            control |= count << 32 | random(4) / 3 * random(count + 1) << 48;
        }
        if random(6) == 0 {
            control ^= 1 << random(64);
        }
        let mut place = |near: u64| {
            let page = near + 0x1000 * random(2);
            let at = page
                + match random(4) {
                    0 => 0,
                    1 => 8 * random(512),
                    2 => 0x1000 - 8 * random(40),
                    _ => 8 * random(8),
                };
            if random(12) == 0 {
                at ^ 1 << random(64)
            } else {
                at
            }
        };
        let (input, output) = (place(0x10_0000), place(0x10_0000));
        let granted = Feature(if random(3) == 0 {
            xorshift(&mut rng)
        } else {
            u64::MAX
        }) | Feature::HYPERVISOR_PRESENT
            | Feature::HV1;
        let features = PartitionFeatures::new(granted, limits());
        let arguments = Arguments {
            control: HvHypercallInput(control),
            input,
            output,
        };
        let got = match dispatch(&arguments, &caller, 1, &features) {
            Dispatch::Undefined => Some(UNDEFINED),
            Dispatch::Done(result) => {
                assert_eq!(result.0 >> 16, 0);
                Some(result.0 as u16)
            }
            Dispatch::Yield(result) => {
                assert_eq!((code, result.0), (8, 0));
                None
            }
            Dispatch::Call(_) => None,
        };
        let wanted = expected(control, input, output, granted);
        assert_eq!(got, wanted, "{control:#x} {input:#x} {output:#x}");
        seen[usize::from(wanted.unwrap_or(0)) & 7] += 1;
    }
    // Each outcome is met often.
    for status in [0, 2, 3, 4, 6, 7] {
        assert!(seen[status] > 2_000, "{status}: {seen:?}");
    }
}

/// H-50, H-51, H-99, H-9A: whom the header names.
#[test]
fn headers() {
    struct Header([u64; 2]);
    impl Words for Header {
        fn word(&mut self, index: usize) -> Result<u64, Stop> {
            Ok(self.0[index])
        }
    }
    let who = Requester {
        partition_id: 7,
        vp_index: 3,
    };
    let stop = |status: u16| Stop::Status(HvStatus(status));
    for partition in [0, 6, 8, u64::MAX - 1] {
        let mut header = Header([partition, 0]);
        assert_eq!(who.of_registers(&mut header), Err(stop(0xd)));
        assert_eq!(who.of_apic_ids(&mut header), Err(stop(0xd)));
        assert_eq!(who.of_start(&mut header), Err(stop(0xd)));
    }
    for partition in [7, u64::MAX] {
        let registers = |word| who.of_registers(&mut Header([partition, word]));
        assert_eq!(registers(0xffff_fffe), Ok(3));
        assert_eq!(registers(9), Ok(9));
        for bit in 32..64 {
            // A level that is not to be used does not matter.
            let wanted = if bit < 37 { Ok(9) } else { Err(stop(5)) };
            assert_eq!(registers(9 | 1 << bit), wanted, "{bit}");
        }
        assert_eq!(registers(9 | 0x11 << 32), Err(stop(5)));
        for vtl in 0..=255 {
            let wanted = if vtl == 0 { Ok(()) } else { Err(stop(0x51)) };
            // Padding behind it is ignored.
            let ids = Header([partition, vtl | !0xff]);
            assert_eq!(who.of_apic_ids(&mut { ids }), wanted);
            let start = Header([partition, 5 | vtl << 32 | 0xff_ffff << 40]);
            assert_eq!(who.of_start(&mut { start }), Ok((5, wanted)));
        }
    }
}
