// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Exception vectors (SDM table 7-1).

/// Divide error.
pub const DE: u8 = 0;
/// Debug.
pub const DB: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 2;
/// Breakpoint.
pub const BP: u8 = 3;
/// Invalid opcode.
pub const UD: u8 = 6;
/// Device not available.
pub const NM: u8 = 7;
/// Double fault.
pub const DF: u8 = 8;
/// Invalid TSS.
pub const TS: u8 = 10;
/// Segment not present.
pub const NP: u8 = 11;
/// Stack-segment fault.
pub const SS: u8 = 12;
/// General protection.
pub const GP: u8 = 13;
/// Page fault.
pub const PF: u8 = 14;
/// x87 floating-point error.
pub const MF: u8 = 16;
/// Alignment check.
pub const AC: u8 = 17;
/// Machine check.
pub const MC: u8 = 18;
/// SIMD floating-point error.
pub const XM: u8 = 19;
/// Virtualization exception.
pub const VE: u8 = 20;
/// Control protection.
pub const CP: u8 = 21;

/// Whether the exception pushes an error code (SDM table 7-1).
#[inline]
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, DF | TS | NP | SS | GP | PF | AC | CP)
}

/// The classes that decide when two exceptions make a double fault (SDM table 7-4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Delivered one after the other.
    Benign,
    /// Double fault with another contributory exception.
    Contributory,
    /// Double fault with a contributory exception or a page fault.
    PageFault,
}

/// The class of an exception.
#[inline]
pub const fn class(vector: u8) -> Class {
    match vector {
        DE | TS | NP | SS | GP | CP => Class::Contributory,
        PF | VE => Class::PageFault,
        _ => Class::Benign,
    }
}

/// What becomes of `second`, raised while `first` was being delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combined {
    /// `second` is delivered; `first` comes again when it returns.
    Serial,
    /// A double fault is delivered.
    DoubleFault,
    /// The processor shuts down.
    TripleFault,
}

/// SDM table 7-5.
#[inline]
pub const fn combine(first: u8, second: u8) -> Combined {
    if first == DF {
        return match class(second) {
            Class::Benign => Combined::Serial,
            _ => Combined::TripleFault,
        };
    }
    match (class(first), class(second)) {
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => Combined::DoubleFault,
        _ => Combined::Serial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_7_5() {
        assert_eq!(combine(GP, NP), Combined::DoubleFault);
        assert_eq!(combine(GP, PF), Combined::Serial);
        assert_eq!(combine(PF, PF), Combined::DoubleFault);
        assert_eq!(combine(PF, GP), Combined::DoubleFault);
        assert_eq!(combine(DB, PF), Combined::Serial);
        assert_eq!(combine(DF, GP), Combined::TripleFault);
        assert_eq!(combine(DF, DB), Combined::Serial);
    }
}
