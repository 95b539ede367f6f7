// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Messages (TLFS, chapter "Inter-partition communication"; layout by correction E1 of the matrix).

use crate::Wire;

/// Bytes in a message.
pub const HV_MESSAGE_SIZE: usize = 256;
/// Bytes in a message after its header.
pub const HV_MESSAGE_PAYLOAD_BYTE_COUNT: usize = 240;

numbers! { u32;
    HVMSG_NONE = 0x0000_0000,
    HVMSG_UNMAPPED_GPA = 0x8000_0000,
    HVMSG_GPA_INTERCEPT = 0x8000_0001,
    HVMSG_UNACCEPTED_GPA = 0x8000_0003,
    HVMSG_GPA_ATTRIBUTE_INTERCEPT = 0x8000_0004,
    HVMSG_TIMER_EXPIRED = 0x8000_0010,
    HVMSG_INVALID_VP_REGISTER_VALUE = 0x8000_0020,
    HVMSG_UNRECOVERABLE_EXCEPTION = 0x8000_0021,
    HVMSG_UNSUPPORTED_FEATURE = 0x8000_0022,
    HVMSG_OPAQUE_INTERCEPT = 0x8000_003f,
    HVMSG_EVENTLOG_BUFFERCOMPLETE = 0x8000_0040,
    HVMSG_HYPERCALL_INTERCEPT = 0x8000_0050,
    HVMSG_SYNIC_EVENT_INTERCEPT = 0x8000_0060,
    HVMSG_SYNIC_SINT_INTERCEPT = 0x8000_0061,
    HVMSG_SYNIC_SINT_DELIVERABLE = 0x8000_0062,
    HVMSG_ASYNC_CALL_COMPLETION = 0x8000_0070,
    HVMSG_SCHEDULER_VP_SIGNAL_BITSET = 0x8000_0100,
    HVMSG_SCHEDULER_VP_SIGNAL_PAIR = 0x8000_0101,
    HVMSG_X64_IO_PORT_INTERCEPT = 0x8001_0000,
    HVMSG_X64_MSR_INTERCEPT = 0x8001_0001,
    HVMSG_X64_CPUID_INTERCEPT = 0x8001_0002,
    HVMSG_X64_EXCEPTION_INTERCEPT = 0x8001_0003,
    HVMSG_X64_APIC_EOI = 0x8001_0004,
    HVMSG_X64_LEGACY_FP_ERROR = 0x8001_0005,
    HVMSG_X64_IOMMU_PRQ = 0x8001_0006,
    HVMSG_X64_HALT = 0x8001_0007,
    HVMSG_X64_INTERRUPTION_DELIVERABLE = 0x8001_0008,
    HVMSG_X64_SIPI_INTERCEPT = 0x8001_0009,
}

/// `message_flags`: another message waits for this slot.
pub const HV_MESSAGE_FLAG_PENDING: u8 = 1 << 0;

wire_struct! {
    /// `HV_MESSAGE_HEADER`.
    pub struct HvMessageHeader: 16 {
        /// `HVMSG_*`.
        pub message_type: u32,
        /// Bytes of payload.
        pub payload_size: u8,
        /// `HV_MESSAGE_FLAG_*`.
        pub message_flags: u8,
        /// Zero.
        pub reserved: u16,
        /// Partition or port that sent it; 0 for the hypervisor.
        pub sender: u64,
    }
}

wire_struct! {
    /// `HV_MESSAGE`.
    pub struct HvMessage: 256 {
        /// Header.
        pub header: HvMessageHeader,
        /// Payload.
        pub payload: [u8; HV_MESSAGE_PAYLOAD_BYTE_COUNT],
    }
}

impl HvMessage {
    /// Puts a message of the hypervisor into `bytes`, which hold at least [`HV_MESSAGE_SIZE`]; `None` if not, or if
    /// the payload is too long. The rest of the message is left as it was.
    pub fn write_intercept<T: Wire>(
        bytes: &mut [u8],
        message_type: u32,
        payload: &T,
    ) -> Option<()> {
        if T::SIZE > HV_MESSAGE_PAYLOAD_BYTE_COUNT || bytes.len() < HV_MESSAGE_SIZE {
            return None;
        }
        let header = HvMessageHeader {
            message_type,
            payload_size: T::SIZE as u8,
            ..Wire::ZERO
        };
        header.write(bytes)?;
        payload.write(bytes.get_mut(HvMessageHeader::SIZE..)?)
    }
}

wire_struct! {
    /// Payload of `HVMSG_TIMER_EXPIRED` (row F-TM6).
    pub struct HvTimerMessagePayload: 24 {
        /// Timer, 0 to 3.
        pub timer_index: u32,
        /// Zero.
        pub reserved: u32,
        /// When the timer expired, in reference time.
        pub expiration_time: u64,
        /// When the message was delivered, in reference time.
        pub delivery_time: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HvX64ApicEoiMessage;

    #[test]
    fn intercept_message() {
        let mut b = [0xaau8; 256];
        let payload = HvX64ApicEoiMessage {
            vp_index: 1,
            interrupt_vector: 0x31,
        };
        HvMessage::write_intercept(&mut b, HVMSG_X64_APIC_EOI, &payload).unwrap();
        assert_eq!(b[..8], [4, 0, 1, 0x80, 8, 0, 0, 0]);
        assert_eq!(b[16..24], [1, 0, 0, 0, 0x31, 0, 0, 0]);
        assert_eq!(HvMessage::write_intercept(&mut b[..255], 0, &payload), None);
        assert_eq!(HvMessage::write_intercept(&mut b, 0, &[0u8; 241]), None);
    }
}
