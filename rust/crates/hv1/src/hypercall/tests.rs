// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::testing::{all, limits, xorshift};
use hvdef::HvSyntheticProcessorFeatures;

const KERNEL: Caller = Caller {
    cpl: 0,
    protected_mode: true,
};
const SPIN: u64 = 8;

fn go(control: u64, input: u64, output: u64) -> Dispatch {
    let a = Arguments {
        control: HvHypercallInput(control),
        input,
        output,
    };
    dispatch(&a, &KERNEL, 1, &all())
}

fn status(d: Dispatch) -> HvStatus {
    match d {
        Dispatch::Undefined => panic!("#UD"),
        Dispatch::Done(r) | Dispatch::Yield(r) => r.status(),
        Dispatch::Call(row) => panic!("{row:?} wants its input"),
    }
}

/// all 65,536 codes, memory and fast; only the ones with a row for guests are known.
#[test]
fn every_code() {
    for code in 0..=u64::from(u16::MAX) {
        for fast in [0, 1 << 16] {
            let d = go(code | fast, 0, 0);
            match code {
                SPIN => assert_eq!(d, Dispatch::Yield(HvHypercallResult(0))),
                // Lists want a count.
                0x03 | 0x14 | 0x50 | 0x51 | 0x9a => {
                    assert_eq!(d, Dispatch::Done(HvHypercallResult(3)))
                }
                // Input and output lie on each other.
                0x69 | 0x6a if fast == 0 => assert_eq!(d, Dispatch::Done(HvHypercallResult(4))),
                0x69 | 0x6a => assert_eq!(d, Dispatch::Done(HvHypercallResult(3))),
                0x99 | 0x5c if fast != 0 => assert_eq!(d, Dispatch::Done(HvHypercallResult(3))),
                0x02 | 0x0b | 0x13 | 0x15 | 0x99 | 0x5c | 0x5d | 0x6b => {
                    assert!(matches!(d, Dispatch::Call(_)), "{code:x}")
                }
                _ => assert_eq!(d, Dispatch::Done(HvHypercallResult(2)), "{code:x}"),
            }
        }
    }
}

///
#[test]
fn mode() {
    let a = Arguments {
        control: HvHypercallInput(SPIN),
        input: 0,
        output: 0,
    };
    for cpl in 0..4 {
        for protected_mode in [false, true] {
            let d = dispatch(
                &a,
                &Caller {
                    cpl,
                    protected_mode,
                },
                1,
                &all(),
            );
            assert_eq!(d == Dispatch::Undefined, cpl != 0 || !protected_mode);
        }
    }
    assert_eq!(dispatch(&a, &KERNEL, 0, &all()), Dispatch::Undefined);
    let none = PartitionFeatures::new(HvSyntheticProcessorFeatures(0), limits());
    assert_eq!(dispatch(&a, &KERNEL, 1, &none), Dispatch::Undefined);
}

/// each bit of the control word alone.
#[test]
fn control_word_bits() {
    for bit in 16..64 {
        let d = status(go(SPIN | (1 << bit), 0, 0));
        let legal = bit == 16;
        assert_eq!(d == HV_STATUS_SUCCESS, legal, "bit {bit}");
        if !legal {
            assert_eq!(d, HV_STATUS_INVALID_HYPERCALL_INPUT, "bit {bit}");
        }
    }
    assert_eq!(
        status(go(0x7fff | (1 << 63), 0, 0)),
        HV_STATUS_INVALID_HYPERCALL_INPUT
    );
    assert_eq!(
        status(go(0x7fff | (5 << 32), 0, 0)),
        HV_STATUS_INVALID_HYPERCALL_CODE
    );
}

/// where the input may be; a call without output ignores that address, a fast call ignores both.
#[test]
fn parameter_blocks() {
    for gpa in [1, 4, 7, 0xfff, 1 << 39, u64::MAX - 7] {
        assert_eq!(
            status(go(SPIN, gpa, 0)),
            HV_STATUS_INVALID_ALIGNMENT,
            "{gpa:x}"
        );
        assert_eq!(status(go(SPIN | (1 << 16), gpa, gpa)), HV_STATUS_SUCCESS);
    }
    for gpa in [0, 8, 0xff8, (1 << 39) - 8] {
        assert_eq!(status(go(SPIN, gpa, 3)), HV_STATUS_SUCCESS);
    }
    assert!(!block_is_legal(0xff8, 16, &all()));
    assert!(block_is_legal(0xff0, 16, &all()));
}

/// A-03 for a rep call, seen through its row.
#[test]
fn reps() {
    let row = call(HvCallCode::HvCallGetVpRegisters).unwrap();
    let word = HvHypercallInput::new(row.code);
    let legal = |count, start| {
        check_control(row, word.with_rep_count(count).with_rep_start(start)).is_success()
    };
    assert!(!legal(0, 0));
    assert!(legal(1, 0));
    assert!(legal(0xfff, 0xffe));
    assert!(!legal(4, 4));
    assert!(!legal(4, 5));
    // 16 + 16 bytes of input and four registers of output fill RDX, R8 and XMM0 to XMM4.
    let fast = |count| check_control(row, word.with_rep_count(count).with_fast()).is_success();
    assert!(fast(1) && fast(4) && !fast(5));
    // One without a fast form.
    let row = call(HvCallCode::HvCallStartVirtualProcessor).unwrap();
    let word = HvHypercallInput::new(row.code);
    assert!(check_control(row, word).is_success());
    assert!(!check_control(row, word.with_fast()).is_success());
}

///
#[test]
fn registers() {
    let mut rng = 5;
    for _ in 0..1000 {
        let gprs: [u64; 16] = core::array::from_fn(|_| xorshift(&mut rng));
        let a = Convention::Bits64.arguments(&gprs);
        assert_eq!(
            (a.control.0, a.input, a.output),
            (gprs[1], gprs[2], gprs[8])
        );
        let low = |r: usize| gprs[r] & 0xffff_ffff;
        let b = Convention::Bits32.arguments(&gprs);
        assert_eq!(b.control.0, (low(2) << 32) | low(0));
        assert_eq!(b.input, (low(3) << 32) | low(1));
        assert_eq!(b.output, (low(7) << 32) | low(6));

        let answer = HvHypercallResult::rep(HvStatus(5), 0x123);
        let mut after = gprs;
        Convention::Bits64.set_result(&mut after, answer);
        assert_eq!(after[0], 0x123_0000_0005);
        assert_eq!(after[1..], gprs[1..]);
        let mut after = gprs;
        Convention::Bits32.set_result(&mut after, answer);
        assert_eq!((after[0], after[2]), (5, 0x123));
        assert_eq!((after[1], &after[3..]), (gprs[1], &gprs[3..]));
    }
    assert_eq!(Convention::select(true, true), Convention::Bits64);
    assert_eq!(Convention::select(true, false), Convention::Bits32);
    assert_eq!(Convention::select(false, true), Convention::Bits32);
}

/// Random control words from a random mode: always an answer, and never success for an unknown call.
#[test]
fn random_words() {
    let mut rng = 99;
    for _ in 0..200_000 {
        let control = xorshift(&mut rng);
        let d = go(control, xorshift(&mut rng), xorshift(&mut rng));
        assert!(d != Dispatch::Undefined);
        if u64::from(control as u16) != SPIN {
            assert!(!status(d).is_success());
        }
    }
}

/// The VMM's door: codes, reps, sizes.
#[test]
fn parent_door() {
    for row in TABLE.iter().filter(|row| row.doors.parent) {
        let reps = u16::from(row.kind == Kind::Rep);
        let (input, output) = (row.input.total(reps), row.output.total(reps));
        assert_eq!(
            check_parent_call(row.code, reps, input, output).unwrap().id,
            row.id
        );
        assert_eq!(
            check_parent_call(row.code, reps, input - 1, output).err(),
            Some(HV_STATUS_INVALID_PARAMETER)
        );
        assert_eq!(
            check_parent_call(row.code, reps ^ 1, 4096, 4096).err(),
            Some(HV_STATUS_INVALID_HYPERCALL_INPUT)
        );
        if output != 0 {
            let short = check_parent_call(row.code, reps, input, output - 1);
            assert_eq!(short.err(), Some(HV_STATUS_INVALID_PARAMETER));
        }
    }
    let known = (0..=u16::MAX)
        .filter(|&c| {
            check_parent_call(HvCallCode(c), 0, 4096, 4096).err()
                != Some(HV_STATUS_INVALID_HYPERCALL_CODE)
        })
        .count();
    assert_eq!(known, TABLE.iter().filter(|row| row.doors.parent).count());
    assert!(check_parent_call(HvCallCode::HvCallGetVpRegisters, 4096, 1 << 20, 1 << 20).is_err());
}

/// M-01: the page is VMCALL, RET and traps.
#[test]
fn page() {
    assert_eq!(HYPERCALL_PAGE_VMX[..4], [0x0f, 0x01, 0xc1, 0xc3]);
    assert!(HYPERCALL_PAGE_VMX[4..].iter().all(|&b| b == 0xcc));
}
