// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Ports, and what a guest sends to them (H-57, H-59, H-5C, H-5D, F-SY8, F-SY10).

use crate::hypercall::{Stop, Words};
use hvdef::*;

/// Ids of ports and connections have 24 bits.
pub const ID_BITS: u32 = 24;
/// Message buffers of a port (F-SY8).
pub const PORT_BUFFERS: usize = 16;

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// For messages or events.
    Target(PortTarget),
    /// For monitored notifications: the page number in its partition.
    Monitor(u64),
}

/// A page that a monitor port or a connection to one names.
fn monitor_page(address: u64) -> HvResult<u64> {
    if address % HV_HYP_PAGE_SIZE as u64 != 0 {
        return Err(HV_STATUS_INVALID_ALIGNMENT);
    }
    Ok(address >> HV_HYP_PAGE_SHIFT)
}

impl PortKind {
    /// Judges HvCallCreatePort's input, but for what the caller knows: ids in use, partitions, whether VP or page exists.
    pub fn new(request: &HvInputCreatePort) -> HvResult<Self> {
        if request.port_type != HV_PORT_TYPE_MONITOR {
            return PortTarget::new(request).map(Self::Target);
        }
        PortTarget::check_partitions(request)?;
        if request.flags != 0 {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        let address = u64::from(request.target_sint) | (u64::from(request.target_vp) << 32);
        monitor_page(address).map(Self::Monitor)
    }

    /// Whether HvCallConnectPort's input fits the port; the page that it names, if the port is a monitor port.
    pub fn check_connection(&self, request: &HvInputConnectPort) -> HvResult<Option<u64>> {
        let port_type = match self {
            Self::Monitor(_) => HV_PORT_TYPE_MONITOR,
            Self::Target(PortTarget { flags: None, .. }) => HV_PORT_TYPE_MESSAGE,
            Self::Target(_) => HV_PORT_TYPE_EVENT,
        };
        let [address, rest @ ..] = request.info;
        let zero = request.reserved0 == 0
            && request.reserved1 == 0
            && request.reserved2 == 0
            && request.connection_vtl == 0
            && rest == [0; 2];
        if request.port_type != port_type || !zero {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        match self {
            Self::Monitor(_) => monitor_page(address).map(Some),
            Self::Target(_) if address == 0 => Ok(None),
            Self::Target(_) => Err(HV_STATUS_INVALID_PARAMETER),
        }
    }
}

/// What a port takes, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortTarget {
    /// Synthetic interrupt source.
    pub sint: u8,
    /// VP; `None`: any.
    pub vp: Option<u32>,
    /// Event flags: first and number; `None`: messages.
    pub flags: Option<(u16, u16)>,
}

impl PortTarget {
    /// What every kind of port asks for.
    fn check_partitions(request: &HvInputCreatePort) -> HvResult<()> {
        if request.port_id >> ID_BITS != 0 {
            return Err(HV_STATUS_INVALID_PORT_ID);
        }
        if request.port_partition == request.connection_partition
            || request.connection_partition == 0
        {
            return Err(HV_STATUS_INVALID_PARTITION_ID);
        }
        if request.reserved != 0 || request.port_vtl != 0 || request.min_connection_vtl != 0 {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        Ok(())
    }

    fn new(request: &HvInputCreatePort) -> HvResult<Self> {
        Self::check_partitions(request)?;
        // SINT 0 is the hypervisor's (F-SY10).
        if !(1..16).contains(&request.target_sint) {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        let (base, count) = (request.flags as u16, (request.flags >> 16) as u16);
        let flags = match request.port_type {
            HV_PORT_TYPE_MESSAGE if request.flags == 0 => None,
            // The sum may be all of them (E9).
            HV_PORT_TYPE_EVENT
                if request.flags >> 32 == 0
                    && count != 0
                    && u32::from(base) + u32::from(count) <= u32::from(HV_EVENT_FLAGS_COUNT) =>
            {
                Some((base, count))
            }
            _ => return Err(HV_STATUS_INVALID_PARAMETER),
        };
        Ok(Self {
            sint: request.target_sint as u8,
            vp: (request.target_vp != HV_ANY_VP).then_some(request.target_vp),
            flags,
        })
    }
}

/// HvCallPostMessage: what is said of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostMessage {
    /// Connection.
    pub connection: u32,
    message_type: u32,
    size: u32,
    reserved: u32,
}

impl PostMessage {
    /// Bytes of input before the payload.
    pub const HEADER: usize = 16;

    /// Reads it.
    pub fn read(input: &mut impl Words) -> Result<Self, Stop> {
        let (first, second) = (input.word(0)?, input.word(1)?);
        Ok(Self {
            connection: first as u32,
            reserved: (first >> 32) as u32,
            message_type: second as u32,
            size: (second >> 32) as u32,
        })
    }

    /// Type and size of the message, once the connection is known to be one.
    pub fn check(&self) -> HvResult<(u32, usize)> {
        let kind = self.message_type;
        let size = self.size as usize;
        if self.reserved != 0
            || kind == HVMSG_NONE
            || kind >> 31 != 0
            || size > HV_MESSAGE_PAYLOAD_BYTE_COUNT
        {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        Ok((kind, size))
    }
}

/// HvCallSignalEvent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalEvent {
    /// Connection.
    pub connection: u32,
    flag: u32,
}

impl SignalEvent {
    /// The event that a monitor page names (F-SY11).
    pub const fn new(connection: u32, flag: u32) -> Self {
        Self { connection, flag }
    }

    /// Reads it.
    pub fn read(input: &mut impl Words) -> Result<Self, Stop> {
        let word = input.word(0)?;
        Ok(Self {
            connection: word as u32,
            // Reserved bits make it larger than any.
            flag: (word >> 32) as u32,
        })
    }

    /// The flag in the page, of a port with these flags.
    pub fn flag(&self, (base, count): (u16, u16)) -> HvResult<u16> {
        match u16::try_from(self.flag) {
            Ok(flag) if flag < count => Ok(base.wrapping_add(flag)),
            _ => Err(HV_STATUS_INVALID_PARAMETER),
        }
    }
}

#[cfg(test)]
#[allow(clippy::precedence)] // Words, field by field.
mod tests {
    use super::*;
    use crate::testing::xorshift;

    fn request(port_type: u32, sint: u32, flags: u64) -> HvInputCreatePort {
        HvInputCreatePort {
            port_partition: 1,
            port_id: 0x12_3456,
            connection_partition: 2,
            port_type,
            target_sint: sint,
            target_vp: HV_ANY_VP,
            flags,
            ..Wire::ZERO
        }
    }

    /// H-57.
    #[test]
    fn ports() {
        let message = PortTarget::new(&request(1, 2, 0)).unwrap();
        assert_eq!((message.sint, message.vp, message.flags), (2, None, None));
        let event = PortTarget::new(&request(2, 15, 2048 << 16)).unwrap();
        assert_eq!(event.flags, Some((0, 2048)));
        let bad = Err(HV_STATUS_INVALID_PARAMETER);
        for sint in [0, 16, u32::MAX] {
            assert_eq!(PortTarget::new(&request(1, sint, 0)), bad);
        }
        for (kind, flags) in [
            (0, 0),
            (1, 1),
            (2, 0),
            (2, 1 | 2048 << 16),
            (2, 0xffff | 0xffff << 16),
            (2, 1 << 32 | 1 << 16),
            (4, 0),
        ] {
            assert_eq!(PortTarget::new(&request(kind, 1, flags)), bad);
        }
        let mut itself = request(1, 1, 0);
        itself.connection_partition = 1;
        let wrong = Err(HV_STATUS_INVALID_PARTITION_ID);
        assert_eq!(PortTarget::new(&itself), wrong);
        let mut wide = request(1, 1, 0);
        wide.port_id = 1 << 24;
        assert_eq!(PortTarget::new(&wide), Err(HV_STATUS_INVALID_PORT_ID));
    }

    /// H-57, H-59, F-SY11.
    #[test]
    fn monitors() {
        let port = |low, high, flags| {
            let mut request = request(3, low, flags);
            request.target_vp = high;
            PortKind::new(&request)
        };
        let monitor = port(0x5000, 2, 0);
        assert_eq!(monitor, Ok(PortKind::Monitor(0x20_0005)));
        assert_eq!(port(0x5001, 0, 0), Err(HV_STATUS_INVALID_ALIGNMENT));
        assert_eq!(port(0x5000, 0, 1), Err(HV_STATUS_INVALID_PARAMETER));
        let connect = |port_type, info| HvInputConnectPort {
            port_type,
            info,
            ..Wire::ZERO
        };
        let monitor = monitor.unwrap();
        let check = |port_type, info| monitor.check_connection(&connect(port_type, info));
        assert_eq!(check(3, [0x7000, 0, 0]), Ok(Some(7)));
        let bad = Err(HV_STATUS_INVALID_PARAMETER);
        for (port_type, info) in [(2, [0; 3]), (3, [0x7000, 1, 0]), (3, [0x7000, 0, 1])] {
            assert_eq!(check(port_type, info), bad);
        }
        let unaligned = Err(HV_STATUS_INVALID_ALIGNMENT);
        assert_eq!(check(3, [0x7008, 0, 0]), unaligned);
        let message = PortKind::new(&request(1, 1, 0)).unwrap();
        assert_eq!(message.check_connection(&connect(1, [0; 3])), Ok(None));
        assert_eq!(message.check_connection(&connect(1, [0x7000, 0, 0])), bad);
    }

    struct One([u64; 2]);
    impl Words for One {
        fn word(&mut self, index: usize) -> Result<u64, Stop> {
            Ok(self.0[index])
        }
    }

    /// H-5C, H-5D: against the sentences of the TLFS, as arithmetic.
    #[test]
    fn random_messages_and_events() {
        let mut rng = 5;
        for _ in 0..300_000 {
            let mut near = |n: u64| xorshift(&mut rng) % n;
            let mut words = [near(4) | near(8) / 7 << 32, 0];
            words[1] = near(3) << (31 * near(2)) | (230 + near(20)) << 32;
            let message = PostMessage::read(&mut One(words)).unwrap();
            let (kind, size) = (words[1] as u32, words[1] >> 32);
            let good = words[0] >> 32 == 0 && kind != 0 && kind < 1 << 31 && size <= 240;
            let wanted = if good {
                Ok((kind, size as usize))
            } else {
                Err(HV_STATUS_INVALID_PARAMETER)
            };
            assert_eq!(message.check(), wanted);
            let word = near(1 << 10) << 32 | near(8) / 7 << 48 | near(9);
            let (base, count) = (near(1000) as u16, 1 + near(1000) as u16);
            let event = SignalEvent::read(&mut One([word, 0])).unwrap();
            let wanted = if word >> 32 < u64::from(count) {
                Ok(base + (word >> 32) as u16)
            } else {
                Err(HV_STATUS_INVALID_PARAMETER)
            };
            assert_eq!(event.flag((base, count)), wanted);
        }
    }
}
