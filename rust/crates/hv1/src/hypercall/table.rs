// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The hypercalls, one row each. A code without a row is answered with HV_STATUS_INVALID_HYPERCALL_CODE.

use hvdef::*;

/// Which handler does the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named like the calls.
pub enum CallId {
    NotifyLongSpinWait,
    GetPartitionProperty,
    SetPartitionProperty,
    InstallIntercept,
    GetVpRegisters,
    SetVpRegisters,
    TranslateVirtualAddress,
    ClearVirtualInterrupt,
    RegisterInterceptResult,
    AssertVirtualInterrupt,
    GetVpCpuidValues,
    GetPartitionPropertyEx,
}

/// Class of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One operation.
    Simple,
    /// One operation for each element of a list.
    Rep,
}

/// Who may make the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// A guest, by VMCALL.
    pub guest: bool,
    /// A VMM, for the partition's parent, by MSHV_ROOT_HVCALL.
    pub parent: bool,
}

/// Size of an input or output block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes at the start.
    pub fixed: u16,
    /// Bytes for each element of the list.
    pub element: u16,
}

impl Size {
    /// Bytes in all for a list of `reps` elements.
    #[inline(always)]
    pub const fn total(self, reps: u16) -> usize {
        self.fixed as usize + self.element as usize * reps as usize
    }
}

/// One hypercall.
#[derive(Clone, Copy, Debug)]
pub struct CallRow {
    /// Code.
    pub code: HvCallCode,
    /// Row of the matrix.
    pub matrix: &'static str,
    /// Handler.
    pub id: CallId,
    /// Class.
    pub kind: Kind,
    /// Whether the input may be in registers.
    pub fast: bool,
    /// Input.
    pub input: Size,
    /// Output.
    pub output: Size,
    /// What a guest needs.
    pub privilege: HvPartitionPrivilege,
    /// Who may call.
    pub doors: Doors,
}

const GUEST: Doors = Doors {
    guest: true,
    parent: false,
};
const PARENT: Doors = Doors {
    guest: false,
    parent: true,
};
const NOTHING: Size = Size {
    fixed: 0,
    element: 0,
};

const fn bytes(fixed: usize) -> Size {
    Size {
        fixed: fixed as u16,
        element: 0,
    }
}

const fn list(fixed: usize, element: usize) -> Size {
    Size {
        fixed: fixed as u16,
        element: element as u16,
    }
}

macro_rules! table {
    ($($matrix:literal $code:ident $id:ident $kind:ident fast $fast:literal $input:expr => $output:expr, $doors:ident;)*) => {
        /// All rows.
        pub const TABLE: &[CallRow] = &[
            $(CallRow {
                code: HvCallCode::$code,
                matrix: $matrix,
                id: CallId::$id,
                kind: Kind::$kind,
                fast: $fast,
                input: $input,
                output: $output,
                privilege: HvPartitionPrivilege::empty(),
                doors: $doors,
            },)*
        ];
    };
}

table! {
    "H-08" HvCallNotifyLongSpinWait NotifyLongSpinWait Simple fast true
        bytes(8) => NOTHING, GUEST;
    "H-44" HvCallGetPartitionProperty GetPartitionProperty Simple fast false
        bytes(HvInputGetPartitionProperty::SIZE) => bytes(HvOutputGetPartitionProperty::SIZE), PARENT;
    "H-45" HvCallSetPartitionProperty SetPartitionProperty Simple fast false
        bytes(HvInputSetPartitionProperty::SIZE) => NOTHING, PARENT;
    "H-4D" HvCallInstallIntercept InstallIntercept Simple fast false
        bytes(HvInputInstallIntercept::SIZE) => NOTHING, PARENT;
    "H-50" HvCallGetVpRegisters GetVpRegisters Rep fast false
        list(HvInputGetVpRegisters::SIZE, 4) => list(0, HvRegisterValue::SIZE), PARENT;
    "H-51" HvCallSetVpRegisters SetVpRegisters Rep fast false
        list(HvInputSetVpRegisters::SIZE, HvRegisterAssoc::SIZE) => NOTHING, PARENT;
    "H-52" HvCallTranslateVirtualAddress TranslateVirtualAddress Simple fast false
        bytes(HvInputTranslateVirtualAddress::SIZE) => bytes(HvOutputTranslateVirtualAddress::SIZE), PARENT;
    "H-56" HvCallClearVirtualInterrupt ClearVirtualInterrupt Simple fast true
        bytes(HvInputClearVirtualInterrupt::SIZE) => NOTHING, PARENT;
    "H-91" HvCallRegisterInterceptResult RegisterInterceptResult Simple fast false
        bytes(HvInputRegisterInterceptResult::SIZE) => NOTHING, PARENT;
    "H-94" HvCallAssertVirtualInterrupt AssertVirtualInterrupt Simple fast false
        bytes(HvInputAssertVirtualInterrupt::SIZE) => NOTHING, PARENT;
    "H-F4" HvCallGetVpCpuidValues GetVpCpuidValues Rep fast false
        list(HvInputGetVpCpuidValues::SIZE, HvCpuidLeafInfo::SIZE) => list(0, 16), PARENT;
    "H-101" HvCallGetPartitionPropertyEx GetPartitionPropertyEx Simple fast false
        bytes(HvInputGetPartitionPropertyEx::SIZE) => bytes(HvPartitionPropertyBanks::SIZE), PARENT;
}

/// Codes that the index covers.
const INDEXED: usize = 0x110;
/// Row number plus one for each code; 0 where there is no row.
const INDEX: [u8; INDEXED] = {
    let mut index = [0; INDEXED];
    let mut i = 0;
    while i < TABLE.len() {
        index[TABLE[i].code.0 as usize] = i as u8 + 1;
        i += 1;
    }
    index
};

/// The row of a call.
#[inline(always)]
pub fn call(code: HvCallCode) -> Option<&'static CallRow> {
    let number = *INDEX.get(usize::from(code.0))?;
    TABLE.get(usize::from(number).checked_sub(1)?)
}
