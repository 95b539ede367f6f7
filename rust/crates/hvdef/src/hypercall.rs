// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Hypercall codes, and the input and result values (TLFS, chapter "Hypercall interface"; rows ).

use crate::HvStatus;

/// Code of a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvCallCode(pub u16);

macro_rules! calls {
    ($($name:ident = $value:literal,)*) => {
        #[allow(non_upper_case_globals)] // The specification's spelling.
        impl HvCallCode {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                pub const $name: Self = Self($value);
            )*

            /// The specification's name of the call.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

calls! {
    HvCallSwitchVirtualAddressSpace = 0x0001,
    HvCallFlushVirtualAddressSpace = 0x0002,
    HvCallFlushVirtualAddressList = 0x0003,
    HvCallGetLogicalProcessorRunTime = 0x0004,
    HvCallNotifyLongSpinWait = 0x0008,
    HvCallParkedVirtualProcessors = 0x0009,
    HvCallSendSyntheticClusterIpi = 0x000b,
    HvCallModifyVtlProtectionMask = 0x000c,
    HvCallEnablePartitionVtl = 0x000d,
    HvCallDisablePartitionVtl = 0x000e,
    HvCallEnableVpVtl = 0x000f,
    HvCallDisableVpVtl = 0x0010,
    HvCallVtlCall = 0x0011,
    HvCallVtlReturn = 0x0012,
    HvCallFlushVirtualAddressSpaceEx = 0x0013,
    HvCallFlushVirtualAddressListEx = 0x0014,
    HvCallSendSyntheticClusterIpiEx = 0x0015,
    HvCallCreatePartition = 0x0040,
    HvCallInitializePartition = 0x0041,
    HvCallFinalizePartition = 0x0042,
    HvCallDeletePartition = 0x0043,
    HvCallGetPartitionProperty = 0x0044,
    HvCallSetPartitionProperty = 0x0045,
    HvCallGetPartitionId = 0x0046,
    HvCallGetNextChildPartition = 0x0047,
    HvCallDepositMemory = 0x0048,
    HvCallWithdrawMemory = 0x0049,
    HvCallGetMemoryBalance = 0x004a,
    HvCallMapGpaPages = 0x004b,
    HvCallUnmapGpaPages = 0x004c,
    HvCallInstallIntercept = 0x004d,
    HvCallCreateVp = 0x004e,
    HvCallDeleteVp = 0x004f,
    HvCallGetVpRegisters = 0x0050,
    HvCallSetVpRegisters = 0x0051,
    HvCallTranslateVirtualAddress = 0x0052,
    HvCallReadGpa = 0x0053,
    HvCallWriteGpa = 0x0054,
    HvCallAssertVirtualInterruptLegacy = 0x0055,
    HvCallClearVirtualInterrupt = 0x0056,
    HvCallCreatePortLegacy = 0x0057,
    HvCallDeletePort = 0x0058,
    HvCallConnectPortLegacy = 0x0059,
    HvCallGetPortProperty = 0x005a,
    HvCallDisconnectPort = 0x005b,
    HvCallPostMessage = 0x005c,
    HvCallSignalEvent = 0x005d,
    HvCallSavePartitionState = 0x005e,
    HvCallRestorePartitionState = 0x005f,
    HvCallInitializeEventLogBufferGroup = 0x0060,
    HvCallFinalizeEventLogBufferGroup = 0x0061,
    HvCallCreateEventLogBuffer = 0x0062,
    HvCallDeleteEventLogBuffer = 0x0063,
    HvCallMapEventLogBuffer = 0x0064,
    HvCallUnmapEventLogBuffer = 0x0065,
    HvCallSetEventLogGroupSources = 0x0066,
    HvCallReleaseEventLogBuffer = 0x0067,
    HvCallFlushEventLogBuffer = 0x0068,
    HvCallPostDebugData = 0x0069,
    HvCallRetrieveDebugData = 0x006a,
    HvCallResetDebugSession = 0x006b,
    HvCallMapStatsPage = 0x006c,
    HvCallUnmapStatsPage = 0x006d,
    HvCallMapSparseGpaPages = 0x006e,
    HvCallSetSystemProperty = 0x006f,
    HvCallSetPortProperty = 0x0070,
    HvCallAddLogicalProcessor = 0x0076,
    HvCallRemoveLogicalProcessor = 0x0077,
    HvCallQueryNumaDistance = 0x0078,
    HvCallSetLogicalProcessorProperty = 0x0079,
    HvCallGetLogicalProcessorProperty = 0x007a,
    HvCallGetSystemProperty = 0x007b,
    HvCallMapDeviceInterrupt = 0x007c,
    HvCallUnmapDeviceInterrupt = 0x007d,
    HvCallRetargetDeviceInterrupt = 0x007e,
    HvCallNotifyPortRingEmpty = 0x008b,
    HvCallRegisterInterceptResult = 0x0091,
    HvCallUnregisterInterceptResult = 0x0092,
    HvCallAssertVirtualInterrupt = 0x0094,
    HvCallCreatePort = 0x0095,
    HvCallConnectPort = 0x0096,
    HvCallStartVirtualProcessor = 0x0099,
    HvCallGetVpIndexFromApicId = 0x009a,
    HvCallTranslateVirtualAddressEx = 0x00ac,
    HvCallCheckForIoIntercept = 0x00ad,
    HvCallFlushGuestPhysicalAddressSpace = 0x00af,
    HvCallFlushGuestPhysicalAddressList = 0x00b0,
    HvCallSignalEventDirect = 0x00c0,
    HvCallPostMessageDirect = 0x00c1,
    HvCallDispatchVp = 0x00c2,
    HvCallGetGpaPagesAccessStates = 0x00c9,
    HvCallAcceptGpaPages = 0x00d9,
    HvCallModifySparseGpaPageHostVisibility = 0x00db,
    HvCallMapVpStatePage = 0x00e1,
    HvCallUnmapVpStatePage = 0x00e2,
    HvCallGetVpState = 0x00e3,
    HvCallSetVpState = 0x00e4,
    HvCallGetVpCpuidValues = 0x00f4,
    HvCallGetPartitionPropertyEx = 0x0101,
    HvCallMmioRead = 0x0106,
    HvCallMmioWrite = 0x0107,
    HvCallSetPartitionPropertyEx = 0x010a,
    HvCallInstallInterceptEx = 0x0110,
    HvExtCallQueryCapabilities = 0x8001,
    HvExtCallGetBootZeroedMemory = 0x8002,
    HvExtCallMemoryHeatHint = 0x8003,
}

/// The hypercall input value ("control"): what is called and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvHypercallInput(pub u64);

impl HvHypercallInput {
    /// Input in registers.
    pub const FAST: u64 = 1 << 16;
    /// For the hypervisor below (bit 31).
    pub const NESTED: u64 = 1 << 31;
    /// Reserved, zero: bits 30:27, 47:44, 63:60.
    pub const RESERVED: u64 = 0xf000_f000_7800_0000;
    /// Repetitions that the 12-bit fields can express, plus one.
    pub const MAX_REPS: u16 = 1 << 12;

    /// A simple call with input in memory.
    #[inline]
    pub const fn new(code: HvCallCode) -> Self {
        Self(code.0 as u64)
    }

    /// The call.
    #[inline]
    pub const fn code(self) -> HvCallCode {
        HvCallCode(self.0 as u16)
    }

    /// Whether the input is in registers.
    #[inline]
    pub const fn fast(self) -> bool {
        self.0 & Self::FAST != 0
    }

    /// Size of the variable part of the header in units of 8 bytes.
    #[inline]
    pub const fn variable_header_size(self) -> u16 {
        (self.0 >> 17) as u16 & 0x3ff
    }

    /// Whether the call is for the hypervisor below.
    #[inline]
    pub const fn nested(self) -> bool {
        self.0 & Self::NESTED != 0
    }

    /// Number of repetitions; 0 for a simple call.
    #[inline]
    pub const fn rep_count(self) -> u16 {
        (self.0 >> 32) as u16 & 0xfff
    }

    /// First repetition to do.
    #[inline]
    pub const fn rep_start(self) -> u16 {
        (self.0 >> 48) as u16 & 0xfff
    }

    /// The same call, to be continued at repetition `start` (row A-20).
    #[inline]
    pub const fn with_rep_start(self, start: u16) -> Self {
        Self(self.0 & !(0xfff << 48) | (((start & 0xfff) as u64) << 48))
    }

    /// The same call with `count` repetitions.
    #[inline]
    pub const fn with_rep_count(self, count: u16) -> Self {
        Self(self.0 & !(0xfff << 32) | (((count & 0xfff) as u64) << 32))
    }

    /// The same call with its input in registers.
    #[inline]
    pub const fn with_fast(self) -> Self {
        Self(self.0 | Self::FAST)
    }
}

/// The hypercall result value: status and repetitions completed (absolute, not relative to the start).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HvHypercallResult(pub u64);

impl HvHypercallResult {
    /// The answer of a simple call.
    #[inline]
    pub const fn simple(status: HvStatus) -> Self {
        Self(status.0 as u64)
    }

    /// The answer of a rep call.
    #[inline]
    pub const fn rep(status: HvStatus, completed: u16) -> Self {
        Self(status.0 as u64 | (((completed & 0xfff) as u64) << 32))
    }

    /// Status of the call.
    #[inline]
    pub const fn status(self) -> HvStatus {
        HvStatus(self.0 as u16)
    }

    /// Repetitions completed.
    #[inline]
    pub const fn reps_completed(self) -> u16 {
        (self.0 >> 32) as u16 & 0xfff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// each field sits where the specification says, and the reserved mask is the rest.
    #[test]
    fn control_word_layout() {
        let i = HvHypercallInput(!HvHypercallInput::RESERVED);
        assert_eq!(i.code().0, 0xffff);
        assert!(i.fast() && i.nested());
        assert_eq!(i.variable_header_size(), 0x3ff);
        assert_eq!(i.rep_count(), 0xfff);
        assert_eq!(i.rep_start(), 0xfff);
        let known = 0xffff | (1 << 16) | (0x3ff << 17) | (1 << 31) | (0xfff << 32) | (0xfff << 48);
        assert_eq!(!known, HvHypercallInput::RESERVED);
        assert_eq!(
            HvHypercallInput(3)
                .with_rep_count(5)
                .with_rep_start(2)
                .with_fast()
                .0,
            0x0002_0005_0001_0003
        );
        assert_eq!(HvHypercallResult::rep(HvStatus(5), 7).0, 0x7_0000_0005);
    }

    #[test]
    fn calls_have_names() {
        assert_eq!(HvCallCode(0x5c).name(), Some("HvCallPostMessage"));
        assert_eq!(HvCallCode(0xfff).name(), None);
    }
}
