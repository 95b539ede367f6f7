// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The hypercalls, one row each. A code without a row is answered with HV_STATUS_INVALID_HYPERCALL_CODE.

use hvdef::*;

/// Which handler does the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Named like the calls.
pub enum CallId {
    FlushVirtualAddressSpace,
    FlushVirtualAddressList,
    NotifyLongSpinWait,
    SendSyntheticClusterIpi,
    FlushVirtualAddressSpaceEx,
    FlushVirtualAddressListEx,
    SendSyntheticClusterIpiEx,
    GetPartitionProperty,
    SetPartitionProperty,
    InstallIntercept,
    GetVpRegisters,
    SetVpRegisters,
    TranslateVirtualAddress,
    ReadGpa,
    WriteGpa,
    ClearVirtualInterrupt,
    RegisterInterceptResult,
    AssertVirtualInterrupt,
    SignalEventDirect,
    PostMessageDirect,
    GetGpaPagesAccessStates,
    GetVpCpuidValues,
    GetPartitionPropertyEx,
    StartVirtualProcessor,
    GetVpIndexFromApicId,
    PostMessage,
    SignalEvent,
    CreatePort,
    DeletePort,
    ConnectPort,
    DisconnectPort,
    GetPortProperty,
    SetPortProperty,
    PostDebugData,
    RetrieveDebugData,
    ResetDebugSession,
}

impl CallId {
    /// [`CallRow::counter`].
    const fn counter(self) -> HvVpCounter {
        match self {
            Self::FlushVirtualAddressSpace
            | Self::FlushVirtualAddressList
            | Self::FlushVirtualAddressSpaceEx
            | Self::FlushVirtualAddressListEx => HvVpCounter::VirtualMmuHypercalls,
            Self::SendSyntheticClusterIpi | Self::SendSyntheticClusterIpiEx => {
                HvVpCounter::VirtualInterruptHypercalls
            }
            Self::PostMessage | Self::SignalEvent => HvVpCounter::SyntheticInterruptHypercalls,
            Self::GetVpRegisters
            | Self::SetVpRegisters
            | Self::StartVirtualProcessor
            | Self::GetVpIndexFromApicId => HvVpCounter::VirtualProcessorHypercalls,
            _ => HvVpCounter::OtherHypercalls,
        }
    }
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
    /// Whether the header goes on with as many words as the control word says.
    pub variable: bool,
    /// Bytes for each element of the list.
    pub element: u16,
}

impl Size {
    /// Bytes in all for a list of `reps` elements, without a variable header.
    #[inline(always)]
    pub const fn total(self, reps: u16) -> usize {
        self.fixed as usize + self.element as usize * reps as usize
    }

    /// Bytes in all of what `control` announces.
    #[inline(always)]
    pub const fn announced(self, control: HvHypercallInput) -> usize {
        let header = if self.variable {
            control.variable_header_size() as usize * 8
        } else {
            0
        };
        self.total(control.rep_count()) + header
    }
}

/// One hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Where a VP counts the call that it makes (F-ST7).
    pub counter: HvVpCounter,
    /// What a guest needs.
    pub privilege: HvPartitionPrivilege,
    /// What the partition needs, where no privilege stands for it.
    pub feature: HvSyntheticProcessorFeatures,
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
const BOTH: Doors = Doors {
    guest: true,
    parent: true,
};
const NOTHING: Size = Size {
    fixed: 0,
    variable: false,
    element: 0,
};

const fn bytes(fixed: usize) -> Size {
    Size {
        fixed: fixed as u16,
        variable: false,
        element: 0,
    }
}

const fn list(fixed: usize, element: usize) -> Size {
    Size {
        fixed: fixed as u16,
        variable: false,
        element: element as u16,
    }
}

/// With a VP set: its banks are the variable header.
const fn vp_set(fixed: usize, element: usize) -> Size {
    Size {
        fixed: fixed as u16,
        variable: true,
        element: element as u16,
    }
}

type Feature = HvSyntheticProcessorFeatures;
const FREE: Feature = Feature::empty();
const FLUSH: Feature = Feature::TB_FLUSH_HYPERCALLS;
const IPI: Feature = Feature::SYNTHETIC_CLUSTER_IPI;
const SETS: Feature = Feature::EXTENDED_PROCESSOR_MASKS;
const REGISTERS: Feature = Feature::ACCESS_VP_REGS;
const EVENTS: Feature = Feature::SIGNAL_EVENTS;
const START: Feature = Feature::START_VIRTUAL_PROCESSOR;

macro_rules! table {
    ($($matrix:literal $code:ident $id:ident $kind:ident fast $fast:literal $input:expr => $output:expr, $doors:ident $feature:expr $(, $privilege:ident)?;)*) => {
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
                counter: CallId::$id.counter(),
                privilege: HvPartitionPrivilege::empty()$(.union(HvPartitionPrivilege::$privilege))?,
                feature: $feature,
                doors: $doors,
            },)*
        ];
    };
}

table! {
    "H-02" HvCallFlushVirtualAddressSpace FlushVirtualAddressSpace Simple fast true
        bytes(24) => NOTHING, GUEST FLUSH;
    "H-03" HvCallFlushVirtualAddressList FlushVirtualAddressList Rep fast true
        list(24, 8) => NOTHING, GUEST FLUSH;
    "H-08" HvCallNotifyLongSpinWait NotifyLongSpinWait Simple fast true
        bytes(8) => NOTHING, GUEST FREE;
    "H-0B" HvCallSendSyntheticClusterIpi SendSyntheticClusterIpi Simple fast true
        bytes(16) => NOTHING, GUEST IPI;
    "H-13" HvCallFlushVirtualAddressSpaceEx FlushVirtualAddressSpaceEx Simple fast true
        vp_set(32, 0) => NOTHING, GUEST FLUSH.union(SETS);
    "H-14" HvCallFlushVirtualAddressListEx FlushVirtualAddressListEx Rep fast true
        vp_set(32, 8) => NOTHING, GUEST FLUSH.union(SETS);
    "H-15" HvCallSendSyntheticClusterIpiEx SendSyntheticClusterIpiEx Simple fast true
        vp_set(24, 0) => NOTHING, GUEST IPI.union(SETS);
    "H-44" HvCallGetPartitionProperty GetPartitionProperty Simple fast false
        bytes(HvInputGetPartitionProperty::SIZE) => bytes(HvOutputGetPartitionProperty::SIZE), PARENT FREE;
    "H-45" HvCallSetPartitionProperty SetPartitionProperty Simple fast false
        bytes(HvInputSetPartitionProperty::SIZE) => NOTHING, PARENT FREE;
    "H-4D" HvCallInstallIntercept InstallIntercept Simple fast false
        bytes(HvInputInstallIntercept::SIZE) => NOTHING, PARENT FREE;
    "H-50" HvCallGetVpRegisters GetVpRegisters Rep fast true
        list(HvInputGetVpRegisters::SIZE, 4) => list(0, HvRegisterValue::SIZE), BOTH REGISTERS;
    "H-51" HvCallSetVpRegisters SetVpRegisters Rep fast true
        list(HvInputSetVpRegisters::SIZE, HvRegisterAssoc::SIZE) => NOTHING, BOTH REGISTERS;
    "H-52" HvCallTranslateVirtualAddress TranslateVirtualAddress Simple fast false
        bytes(HvInputTranslateVirtualAddress::SIZE) => bytes(HvOutputTranslateVirtualAddress::SIZE), PARENT FREE;
    "H-53" HvCallReadGpa ReadGpa Simple fast false
        bytes(HvInputReadGpa::SIZE) => bytes(HvOutputReadGpa::SIZE), PARENT FREE;
    "H-54" HvCallWriteGpa WriteGpa Simple fast false
        bytes(HvInputWriteGpa::SIZE) => bytes(HvOutputWriteGpa::SIZE), PARENT FREE;
    "H-56" HvCallClearVirtualInterrupt ClearVirtualInterrupt Simple fast true
        bytes(HvInputClearVirtualInterrupt::SIZE) => NOTHING, PARENT FREE;
    "H-58" HvCallDeletePort DeletePort Simple fast true
        bytes(HvInputDeletePort::SIZE) => NOTHING, PARENT FREE;
    "H-5A" HvCallGetPortProperty GetPortProperty Simple fast false
        bytes(HvInputGetPortProperty::SIZE) => bytes(8), PARENT FREE;
    "H-70" HvCallSetPortProperty SetPortProperty Simple fast false
        bytes(HvInputSetPortProperty::SIZE) => NOTHING, PARENT FREE;
    "H-5B" HvCallDisconnectPort DisconnectPort Simple fast true
        bytes(HvInputDeletePort::SIZE) => NOTHING, PARENT FREE;
    "H-5C" HvCallPostMessage PostMessage Simple fast false
        bytes(256) => NOTHING, GUEST EVENTS;
    "H-5D" HvCallSignalEvent SignalEvent Simple fast true
        bytes(8) => NOTHING, GUEST EVENTS;
    "H-57" HvCallCreatePort CreatePort Simple fast false
        bytes(HvInputCreatePort::SIZE) => NOTHING, PARENT FREE;
    "H-59" HvCallConnectPort ConnectPort Simple fast false
        bytes(HvInputConnectPort::SIZE) => NOTHING, PARENT FREE;
    // The VMM answers these three. Behind the input of the first and the output of the second is data, as much as they say.
    "H-69" HvCallPostDebugData PostDebugData Simple fast false
        bytes(8) => bytes(8), GUEST FREE, DEBUGGING;
    "H-6A" HvCallRetrieveDebugData RetrieveDebugData Simple fast false
        bytes(16) => bytes(8), GUEST FREE, DEBUGGING;
    "H-6B" HvCallResetDebugSession ResetDebugSession Simple fast true
        bytes(8) => NOTHING, GUEST FREE, DEBUGGING;
    "H-91" HvCallRegisterInterceptResult RegisterInterceptResult Simple fast false
        bytes(HvInputRegisterInterceptResult::SIZE) => NOTHING, PARENT FREE;
    "H-94" HvCallAssertVirtualInterrupt AssertVirtualInterrupt Simple fast false
        bytes(HvInputAssertVirtualInterrupt::SIZE) => NOTHING, PARENT FREE;
    "H-99" HvCallStartVirtualProcessor StartVirtualProcessor Simple fast false
        bytes(240) => NOTHING, GUEST START;
    // Elements are 8 bytes, the upper half padding, as the TLFS has it; Linux asks for one only.
    "H-9A" HvCallGetVpIndexFromApicId GetVpIndexFromApicId Rep fast true
        list(16, 8) => list(0, 8), GUEST START;
    "H-C0" HvCallSignalEventDirect SignalEventDirect Simple fast false
        bytes(HvInputSignalEventDirect::SIZE) => bytes(HvOutputSignalEventDirect::SIZE), PARENT FREE;
    "H-C1" HvCallPostMessageDirect PostMessageDirect Simple fast false
        bytes(HvInputPostMessageDirect::SIZE) => NOTHING, PARENT FREE;
    "H-C9" HvCallGetGpaPagesAccessStates GetGpaPagesAccessStates Rep fast false
        list(HvInputGetGpaPagesAccessStates::SIZE, 0) => list(0, 1), PARENT FREE;
    "H-F4" HvCallGetVpCpuidValues GetVpCpuidValues Rep fast false
        list(HvInputGetVpCpuidValues::SIZE, HvCpuidLeafInfo::SIZE) => list(0, 16), PARENT FREE;
    "H-101" HvCallGetPartitionPropertyEx GetPartitionPropertyEx Simple fast false
        bytes(HvInputGetPartitionPropertyEx::SIZE) => bytes(HvPartitionPropertyBanks::SIZE), PARENT FREE;
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
