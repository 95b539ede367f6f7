// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Registers and the bits they keep.

use guest::apic::*;
use guest::{cpu, Pass, Verdict};

pub fn at_reset() -> Verdict {
    let version = read(VERSION);
    assert!(
        (0x10..=0x15).contains(&(version & 0xff)),
        "version {version:#x}"
    );
    assert!(
        (3..=7).contains(&(version >> 16 & 0xff)),
        "version {version:#x}"
    );
    assert_eq!((read(TPR), read(PPR)), (0, 0));
    assert_eq!(read(SVR), SVR_ENABLE | u32::from(SPURIOUS));
    for bank in 0..8 {
        let at = bank * 0x10;
        assert_eq!(
            (read(ISR + at), read(IRR + at)),
            (0, 0),
            "vectors from {}",
            bank * 32
        );
    }
    assert_eq!((read(TIMER_INITIAL), read(TIMER_CURRENT)), (0, 0));
    Pass
}

pub fn lvt() -> Verdict {
    for (register, keeps) in [
        (LVT_TIMER, 0x300ff & !TIMER_DEADLINE),
        (LVT_LINT0, 0x1a7ff),
        (LVT_LINT1, 0x1a7ff),
        (LVT_ERROR, 0x100ff),
    ] {
        write(register, keeps & 0xff | LVT_MASKED);
        assert_eq!(
            read(register),
            keeps & 0xff | LVT_MASKED,
            "register {register:#x}"
        );
        for bit in [8, 13, 15, 17] {
            if keeps >> bit & 1 != 0 {
                write(register, 1 << bit | LVT_MASKED | 0x50);
                assert_eq!(
                    read(register),
                    1 << bit | LVT_MASKED | 0x50,
                    "register {register:#x}"
                );
            }
        }
        write(register, LVT_MASKED);
    }
    for divide in [0, 1, 2, 3, 8, 9, 0xa, 0xb] {
        write(TIMER_DIVIDE, divide);
        assert_eq!(read(TIMER_DIVIDE), divide);
    }
    Pass
}

pub fn tpr_is_cr8() -> Verdict {
    for class in 0..16u32 {
        cpu::set_cr8(u64::from(class));
        assert_eq!(read(TPR), class << 4, "TPR after CR8");
        write(TPR, (15 - class) << 4);
        assert_eq!(cpu::cr8(), u64::from(15 - class), "CR8 after TPR");
    }
    write(TPR, 0x37);
    assert_eq!(
        (read(TPR), cpu::cr8()),
        (0x37, 3),
        "the sub-class is TPR's alone"
    );
    cpu::set_cr8(2);
    assert_eq!(read(TPR), 0x20, "CR8 clears the sub-class");
    cpu::set_cr8(0);
    Pass
}
