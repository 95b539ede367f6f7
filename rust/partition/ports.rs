// SPDX-License-Identifier: GPL-2.0

//! Ports and connections: how guests send messages and events to other partitions. A port is made for the partition
//! that receives, and names the one that may connect; a connection belongs to the one that sends.
//!
//! Ports are in a list of the machine's, because their partitions do not know each other. A port ends with
//! HvCallDeletePort or with its partition's file, and its connections remain, useless.
//!
//! Locks: `Machine::ports` or `Partition::connections`, then a port's `state`, or the map lock; nothing else is locked under them.

use super::hvcall::read;
use super::synic::interrupt;
use super::Partition;
use crate::sys::pages::Pages;
use crate::vp::shared::VpShared;
use hv1::port::{PortKind, PortTarget, PostMessage, SignalEvent, ID_BITS, PORT_BUFFERS};
use hv1::synic::Outcome;
use hv1::OverlayKind;
use hvdef::*;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};

/// Ports of a partition, and connections of one, at most.
const MOST: usize = 256;

/// Monitor ports of a partition, and connections of one to such, at most each.
pub(super) const MOST_MONITORS: usize = 8;

/// A message that waits.
struct Queued {
    message_type: u32,
    size: usize,
    payload: [u8; HV_MESSAGE_PAYLOAD_BYTE_COUNT],
}

impl Queued {
    fn payload(&self) -> &[u8] {
        self.payload.get(..self.size).unwrap_or(&[])
    }
}

struct State {
    /// Who receives; `None`: the port was deleted.
    owner: Option<Arc<Partition>>,
    /// Has capacity for [`PORT_BUFFERS`].
    queue: KVec<Queued>,
    /// HV_PORT_PROPERTY_POST_COUNT.
    posts: u64,
    /// HV_PORT_PROPERTY_PREFERRED_TARGET_VP.
    preferred: Option<u32>,
}

/// A port.
#[pin_data]
pub(crate) struct Port {
    id: u32,
    owner_id: u64,
    /// Id of the partition that may connect.
    peer: u64,
    kind: PortKind,
    /// What a monitor port shares with its connection.
    page: Option<Arc<Pages>>,
    #[pin]
    state: Mutex<State>,
}

/// A connection.
pub(crate) struct Connection {
    id: u32,
    port: Arc<Port>,
    /// Of a monitor port: it is visible in the partition of the connection.
    page: Option<Arc<Pages>>,
}

impl Connection {
    /// The page by which its partition's guest sends.
    pub(super) fn monitor(&self) -> Option<&Arc<Pages>> {
        self.page.as_ref()
    }

    /// It is taken out of `partition`.
    fn end(self, partition: &Partition) {
        if let Some(page) = &self.page {
            partition.place_page(page.phys(), OverlayKind::Monitor, None);
        }
    }
}

impl Port {
    /// Nothing is sent to it, and nothing waits in it, any more.
    fn delete(&self) {
        let mut state = self.state.lock();
        let owner = state.owner.take();
        state.queue.clear();
        drop(state);
        if let (Some(owner), Some(page)) = (&owner, &self.page) {
            owner.place_page(page.phys(), OverlayKind::Monitor, None);
        }
        drop(owner);
    }

    /// Where messages and events go; none by a monitor port.
    fn target(&self) -> HvResult<&PortTarget> {
        match &self.kind {
            PortKind::Target(target) => Ok(target),
            PortKind::Monitor(_) => Err(HV_STATUS_INVALID_PORT_ID),
        }
    }

    fn is(&self, owner_id: u64, id: u32) -> bool {
        (self.owner_id, self.id) == (owner_id, id)
    }
}

/// HvCallCreatePort, for `partition`.
pub(super) fn create(partition: &Arc<Partition>, input: &[u8]) -> HvResult<()> {
    let mut request: HvInputCreatePort = read(input)?;
    request.port_partition = partition.summary.id;
    let kind = PortKind::new(&request)?;
    let config = partition
        .config()
        .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
    let no_memory = |_| HV_STATUS_INSUFFICIENT_MEMORY;
    let page = match kind {
        PortKind::Target(target) => {
            if target.vp.is_some_and(|vp| partition.vp(vp).is_none()) {
                return Err(HV_STATUS_INVALID_VP_INDEX);
            }
            None
        }
        PortKind::Monitor(gpn) if !config.features.gpn_in_range(gpn) => {
            return Err(HV_STATUS_INVALID_PARAMETER)
        }
        PortKind::Monitor(_) => {
            let page = Pages::new(0).map_err(no_memory)?;
            Some(Arc::new(page, GFP_KERNEL_ACCOUNT).map_err(no_memory)?)
        }
    };
    let queue = KVec::with_capacity(PORT_BUFFERS, GFP_KERNEL_ACCOUNT).map_err(no_memory)?;
    let port = Arc::pin_init(
        pin_init!(Port {
            id: request.port_id,
            owner_id: partition.summary.id,
            peer: request.connection_partition,
            kind,
            page,
            state <- new_mutex!(State {
                owner: Some(partition.clone()),
                queue,
                posts: 0,
                preferred: None,
            }),
        }),
        GFP_KERNEL_ACCOUNT,
    )
    .map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)?;
    let mut ports = partition.machine.ports.lock();
    let mine = || ports.iter().filter(|p| p.owner_id == port.owner_id);
    let status = if mine().any(|p| p.id == port.id) {
        Err(HV_STATUS_INVALID_PORT_ID)
    } else if mine().count() >= MOST
        || port.page.is_some() && mine().filter(|p| p.page.is_some()).count() >= MOST_MONITORS
    {
        Err(HV_STATUS_INSUFFICIENT_MEMORY)
    } else {
        ports
            .push(port.clone(), GFP_KERNEL_ACCOUNT)
            .map_err(no_memory)
    };
    // Before somebody can delete the port.
    if let (Ok(()), PortKind::Monitor(gpn), Some(page)) = (status, kind, &port.page) {
        partition.place_page(page.phys(), OverlayKind::Monitor, Some(gpn));
    }
    drop(ports);
    if status.is_err() {
        port.delete();
    }
    status
}

/// HvCallDeletePort.
pub(super) fn delete(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request: HvInputDeletePort = read(input)?;
    let mut ports = partition.machine.ports.lock();
    let at = ports
        .iter()
        .position(|p| p.is(partition.summary.id, request.id))
        .ok_or(HV_STATUS_INVALID_PORT_ID)?;
    let port = ports.remove(at);
    drop(ports);
    if let Ok(port) = port {
        port.delete();
    }
    Ok(())
}

/// HvCallConnectPort, for `partition`.
pub(super) fn connect(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request: HvInputConnectPort = read(input)?;
    if request.connection_id >> ID_BITS != 0 {
        return Err(HV_STATUS_INVALID_CONNECTION_ID);
    }
    let port = {
        let ports = partition.machine.ports.lock();
        let found = ports
            .iter()
            .find(|p| p.is(request.port_partition, request.port_id));
        found.cloned()
    };
    // Another's port is as good as none.
    let port = port
        .filter(|port| port.peer == partition.summary.id)
        .ok_or(HV_STATUS_INVALID_PORT_ID)?;
    let gpn = port.kind.check_connection(&request)?;
    if let Some(gpn) = gpn {
        let config = partition
            .config()
            .map_err(|_| HV_STATUS_INVALID_PARTITION_STATE)?;
        if !config.features.gpn_in_range(gpn) {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
    }
    let mut connections = partition.connections.lock();
    if connections.iter().any(|c| c.id == request.connection_id) {
        return Err(HV_STATUS_INVALID_CONNECTION_ID);
    }
    if connections.iter().any(|c| Arc::ptr_eq(&c.port, &port)) {
        return Err(HV_STATUS_INVALID_PORT_ID);
    }
    let monitors = connections.iter().filter(|c| c.page.is_some()).count();
    if connections.len() >= MOST || gpn.is_some() && monitors >= MOST_MONITORS {
        return Err(HV_STATUS_INSUFFICIENT_MEMORY);
    }
    let page = port.page.clone();
    let connection = Connection {
        id: request.connection_id,
        port,
        page: page.clone(),
    };
    connections
        .push(connection, GFP_KERNEL_ACCOUNT)
        .map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)?;
    if let (Some(gpn), Some(page)) = (gpn, page) {
        partition.place_page(page.phys(), OverlayKind::Monitor, Some(gpn));
        drop(connections);
        partition.watch_monitors();
    }
    Ok(())
}

/// HvCallDisconnectPort. What waits in the port stays there.
pub(super) fn disconnect(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request: HvInputDeletePort = read(input)?;
    let mut connections = partition.connections.lock();
    let at = connections
        .iter()
        .position(|c| c.id == request.id)
        .ok_or(HV_STATUS_INVALID_CONNECTION_ID)?;
    let connection = connections.remove(at);
    drop(connections);
    if let Ok(connection) = connection {
        connection.end(partition);
        partition.watch_monitors();
    }
    Ok(())
}

/// The port of `partition` that a call about properties names.
fn named(partition: &Partition, id: u32, reserved: u32) -> HvResult<Arc<Port>> {
    let ports = partition.machine.ports.lock();
    let found = ports
        .iter()
        .find(|p| reserved == 0 && p.is(partition.summary.id, id));
    found.cloned().ok_or(HV_STATUS_INVALID_PORT_ID)
}

/// HvCallGetPortProperty.
pub(super) fn get_property(partition: &Partition, input: &[u8], output: &mut [u8]) -> HvResult<()> {
    let request: HvInputGetPortProperty = read(input)?;
    let port = named(partition, request.id, request.reserved)?;
    let state = port.state.lock();
    let value = match request.code {
        HV_PORT_PROPERTY_POST_COUNT => state.posts,
        HV_PORT_PROPERTY_PREFERRED_TARGET_VP => u64::from(state.preferred.unwrap_or(HV_ANY_VP)),
        _ => return Err(HV_STATUS_UNKNOWN_PROPERTY),
    };
    value.write(output).ok_or(HV_STATUS_INVALID_PARAMETER)
}

/// HvCallSetPortProperty. Nobody sets a count.
pub(super) fn set_property(partition: &Partition, input: &[u8]) -> HvResult<()> {
    let request: HvInputSetPortProperty = read(input)?;
    let port = named(partition, request.id, request.reserved)?;
    if request.code != HV_PORT_PROPERTY_PREFERRED_TARGET_VP {
        return Err(HV_STATUS_UNKNOWN_PROPERTY);
    }
    // A port that names its VP has no choice.
    let PortKind::Target(PortTarget { vp: None, .. }) = port.kind else {
        return Err(HV_STATUS_INVALID_PARAMETER);
    };
    let preferred = match u32::try_from(request.value) {
        Ok(HV_ANY_VP) => None,
        Ok(vp) if partition.vp(vp).is_some() => Some(vp),
        _ => return Err(HV_STATUS_INVALID_VP_INDEX),
    };
    port.state.lock().preferred = preferred;
    Ok(())
}

/// The partition's file is closed.
pub(super) fn close(partition: &Partition) {
    loop {
        let mut ports = partition.machine.ports.lock();
        let mine = |p: &Arc<Port>| p.owner_id == partition.summary.id;
        let Some(at) = ports.iter().position(mine) else {
            break;
        };
        let port = ports.remove(at);
        drop(ports);
        if let Ok(port) = port {
            port.delete();
        }
    }
    let connections = ::core::mem::take(&mut *partition.connections.lock());
    for connection in connections {
        connection.end(partition);
    }
    partition.watch_monitors();
}

impl Partition {
    /// The port behind connection `id`.
    fn connected(&self, id: u32) -> HvResult<Arc<Port>> {
        let connections = self.connections.lock();
        connections
            .iter()
            .find(|c| c.id == id)
            .map(|c| c.port.clone())
            .ok_or(HV_STATUS_INVALID_CONNECTION_ID)
    }

    /// HvCallPostMessage of this partition's guest; `payload` is all that it could send.
    pub(crate) fn post_message(&self, request: &PostMessage, payload: &[u8]) -> HvResult<()> {
        let port = self.connected(request.connection)?;
        let mut state = port.state.lock();
        let Some(owner) = state.owner.clone() else {
            return Err(HV_STATUS_INVALID_PORT_ID);
        };
        let to = port.target()?;
        if to.flags.is_some() {
            return Err(HV_STATUS_INVALID_PORT_ID);
        }
        let (message_type, size) = request.check()?;
        if state.queue.len() >= PORT_BUFFERS {
            return Err(HV_STATUS_INSUFFICIENT_BUFFERS);
        }
        let takes = VpShared::takes_messages;
        let (_, target) = receiver(&owner, to, state.preferred, takes)?;
        if !target.takes_messages() {
            return Err(HV_STATUS_INVALID_SYNIC_STATE);
        }
        let mut message = Queued {
            message_type,
            size,
            payload: [0; HV_MESSAGE_PAYLOAD_BYTE_COUNT],
        };
        for (to, from) in message.payload.iter_mut().zip(payload) {
            *to = *from;
        }
        state
            .queue
            .push_within_capacity(message)
            .map_err(|_| HV_STATUS_INSUFFICIENT_BUFFERS)?;
        state.posts += 1;
        port.deliver(&owner, to, &mut state);
        drop(state);
        Ok(())
    }

    /// HvCallSignalEvent of this partition's guest.
    pub(crate) fn signal_event(&self, request: &SignalEvent) -> HvResult<()> {
        let port = self.connected(request.connection)?;
        let owner = port.state.lock().owner.clone();
        let owner = owner.ok_or(HV_STATUS_INVALID_PORT_ID)?;
        let to = port.target()?;
        let flags = to.flags.ok_or(HV_STATUS_INVALID_PORT_ID)?;
        let flag = request.flag(flags)?;
        let (vp, target) = receiver(&owner, to, None, VpShared::takes_events)?;
        // A masked SINT takes messages, but no events.
        if target.synic.is_masked(to.sint) {
            return Err(HV_STATUS_INVALID_SYNIC_STATE);
        }
        let page = target.siefp.words();
        let (outcome, _) = target.synic.signal(page, to.sint, flag);
        match outcome {
            Outcome::Off => Err(HV_STATUS_INVALID_SYNIC_STATE),
            other => {
                interrupt(&owner, target, vp, other);
                Ok(())
            }
        }
    }

    /// Messages that wait for the VP `index` are dropped (TLFS 2.0, 14.2.2: its queues are empty after its reset).
    pub(crate) fn forget_messages(&self, index: u32) {
        let ports = self.machine.ports.lock();
        let mine = ports.iter().filter(|p| p.owner_id == self.summary.id);
        for port in mine.filter(|p| p.target().is_ok_and(|to| to.vp == Some(index))) {
            port.state.lock().queue.clear();
        }
    }

    /// Messages for the partition that wait: what of them now finds its slot free goes there.
    pub(crate) fn deliver_messages(&self, vp: &VpShared) {
        vp.clear_messages_wait();
        let ports = self.machine.ports.lock();
        for port in ports.iter().filter(|p| p.owner_id == self.summary.id) {
            if let Ok(to) = port.target() {
                port.deliver(self, to, &mut port.state.lock());
            }
        }
    }
}

/// The VP of `owner` that the port is for: the one it names, or the one that it prefers, or the first that `takes`.
fn receiver<'a>(
    owner: &'a Partition,
    target: &PortTarget,
    preferred: Option<u32>,
    takes: impl Fn(&VpShared) -> bool,
) -> HvResult<(u32, &'a VpShared)> {
    let vp = |index: u32| owner.vp(index).map(|vp| (index, &vp.shared));
    match target.vp {
        Some(index) => vp(index),
        None => preferred
            .and_then(vp)
            .filter(|(_, shared)| takes(shared))
            .or_else(|| owner.shared_vps().find(|(_, shared)| takes(shared))),
    }
    .ok_or(HV_STATUS_INVALID_VP_INDEX)
}

impl Port {
    /// Delivers as much as the target's slot takes, in the order in which it was posted (F-SY2, F-SY8).
    fn deliver(&self, owner: &Partition, to: &PortTarget, state: &mut State) {
        let mut told = false;
        while let Some(message) = state.queue.first() {
            let takes = VpShared::takes_messages;
            let Ok((vp, target)) = receiver(owner, to, state.preferred, takes) else {
                return;
            };
            let outcome = target.synic.post(
                target.simp.words(),
                to.sint,
                message.message_type,
                u64::from(self.id),
                message.payload(),
            );
            match outcome {
                // From now on the VP tells when a slot may be free; it may have become so before.
                Outcome::Busy | Outcome::Off if !told => {
                    told = true;
                    target.set_messages_wait();
                }
                Outcome::Busy | Outcome::Off => return,
                other => {
                    let _ = state.queue.remove(0);
                    told = false;
                    interrupt(owner, target, vp, other);
                }
            }
        }
    }
}
