// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The synthetic debugger (TLFS, guest debugging): a kernel debugger in the guest talks to one elsewhere. It posts and
//! retrieves data by hypercalls, or sends and receives frames by MSRs; here both become datagrams of a UDP socket.
//!
//! By MSRs the guest thinks of a network card of its own: its frames have Ethernet, IPv4 and UDP headers, which come off on
//! the way out and are made on the way in.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hvdef::*;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemoryMmap;

/// Bytes of one call's data (`HV_DEBUG_MAXIMUM_DATA_SIZE`).
const MAXIMUM_DATA: usize = 4088;
const PAGE: u64 = 4096;
/// Datagrams that wait for the guest at most; later ones are lost, as on a network.
const WAITING: usize = 64;
/// How often a thread that waits looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

/// Options of the calls: wait for data, tell inactivity; purge incoming or outgoing data.
const RETRIEVE_LOOP: u32 = 1;
const RETRIEVE_TEST_ACTIVITY: u32 = 2;
const PURGE_INCOMING: u32 = 1;

/// HV_X64_MSR_SYNTH_DEBUG_CONTROL: send, with the frame's size in bits 31:16, or receive.
const CONTROL_SEND: u64 = 1;
const CONTROL_RECEIVE: u64 = 2;
/// HV_X64_MSR_SYNTH_DEBUG_STATUS: what became of it, with the size of what was received in bits 31:16.
const STATUS_SENT: u64 = 1;
const STATUS_RECEIVED: u64 = 4;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const HEADERS: usize = ETHERNET + IPV4 + UDP;

/// Whom the guest says to be, by the frames that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Guest {
    mac: [u8; 6],
    ip: [u8; 4],
    port: u16,
}

#[derive(Default)]
struct State {
    /// What came, oldest first.
    incoming: VecDeque<Vec<u8>>,
    /// Something came since HvCallRetrieveDebugData was last called.
    active: bool,
    guest: Guest,
    status: u64,
    send_page: u64,
    receive_page: u64,
    pending_page: u64,
    options: u64,
}

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    memory: GuestMemoryMmap,
    socket: UdpSocket,
    peer: SocketAddr,
    end: AtomicBool,
}

/// The debugger's device. Dropping it ends its thread.
pub struct Debugger {
    shared: Arc<Shared>,
    receiver: Option<JoinHandle<()>>,
}

impl Debugger {
    /// One that talks to `peer`.
    pub fn new(peer: SocketAddr, memory: GuestMemoryMmap) -> io::Result<Self> {
        let any: SocketAddr = match peer.ip() {
            IpAddr::V4(_) => ([0; 4], 0).into(),
            IpAddr::V6(_) => ([0; 16], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(peer)?;
        socket.set_read_timeout(Some(TICK))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            arrived: Condvar::new(),
            memory,
            socket,
            peer,
            end: AtomicBool::new(false),
        });
        let receiver = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("debugger".into())
                .spawn(move || shared.receive())?
        };
        Ok(Self {
            shared,
            receiver: Some(receiver),
        })
    }

    /// HvCallPostDebugData, HvCallRetrieveDebugData or HvCallResetDebugSession: the status. The module has judged control word
    /// and addresses. `ends` tells whether the guest is to end, for which nothing may be waited.
    pub fn call(&self, control: u64, input: u64, output: u64, ends: impl Fn() -> bool) -> HvStatus {
        let control = HvHypercallInput(control);
        let result = match control.code() {
            HvCallCode::HvCallPostDebugData => self.post(input, output),
            HvCallCode::HvCallRetrieveDebugData => self.retrieve(input, output, ends),
            HvCallCode::HvCallResetDebugSession if control.fast() => self.reset(input as u32),
            HvCallCode::HvCallResetDebugSession => self
                .words(input)
                .and_then(|[word, _]| self.reset(word as u32)),
            _ => Err(HV_STATUS_INVALID_HYPERCALL_CODE),
        };
        result.err().unwrap_or(HV_STATUS_SUCCESS)
    }

    fn words(&self, gpa: u64) -> HvResult<[u64; 2]> {
        let mut bytes = [0; 16];
        // The second word is not always there.
        let len = (PAGE - gpa % PAGE).min(16) as usize;
        self.read(gpa, &mut bytes[..len])?;
        Ok([0, 8].map(|at| u64::read(&bytes[at..]).unwrap_or(0)))
    }

    fn read(&self, gpa: u64, bytes: &mut [u8]) -> HvResult<()> {
        let memory = &self.shared.memory;
        memory
            .read_slice(bytes, GuestAddress(gpa))
            .map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> HvResult<()> {
        let memory = &self.shared.memory;
        memory
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|_| HV_STATUS_INSUFFICIENT_MEMORY)
    }

    /// The size of data that follow 8 bytes at `gpa`, with the call's options, of which `allowed` may be set.
    fn sized(word: u64, gpa: u64, allowed: u32) -> HvResult<(usize, u32)> {
        let (count, options) = (word as u32 as usize, (word >> 32) as u32);
        let end = gpa % PAGE + 8 + count as u64;
        if count > MAXIMUM_DATA || end > PAGE || options & !allowed != 0 {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        Ok((count, options))
    }

    fn post(&self, input: u64, output: u64) -> HvResult<()> {
        let [word, _] = self.words(input)?;
        let (count, _) = Self::sized(word, input, 1)?;
        let mut data = [0; MAXIMUM_DATA];
        let data = &mut data[..count];
        self.read(input + 8, data)?;
        if count != 0 {
            self.shared.send(data)?;
        }
        // Nothing waits here to be sent.
        self.write(output, &[0; 8])
    }

    fn retrieve(&self, input: u64, output: u64, ends: impl Fn() -> bool) -> HvResult<()> {
        let [word, timeout] = self.words(input)?;
        let allowed = RETRIEVE_LOOP | RETRIEVE_TEST_ACTIVITY;
        let (count, options) = Self::sized(word, output, allowed)?;
        let mut state = self.shared.lock();
        let active = std::mem::take(&mut state.active);
        if options & RETRIEVE_TEST_ACTIVITY != 0 && !active {
            return Err(HV_STATUS_INACTIVE);
        }
        if options & RETRIEVE_LOOP != 0 {
            let begin = Instant::now();
            let timeout = Duration::from_nanos(timeout.saturating_mul(100));
            while state.incoming.is_empty() && !ends() {
                let left = timeout.saturating_sub(begin.elapsed());
                if left.is_zero() {
                    break;
                }
                let arrived = &self.shared.arrived;
                let waited = arrived.wait_timeout(state, left.min(TICK));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let mut data = state.incoming.pop_front().ok_or(HV_STATUS_NO_DATA)?;
        if data.len() > count {
            let rest = data.split_off(count);
            state.incoming.push_front(rest);
        }
        self.shared.tell_pending(&state);
        let remaining: usize = state.incoming.iter().map(Vec::len).sum();
        drop(state);
        let mut answer = Vec::with_capacity(8 + data.len());
        answer.extend_from_slice(&(data.len() as u32).to_le_bytes());
        answer.extend_from_slice(&(remaining as u32).to_le_bytes());
        answer.extend_from_slice(&data);
        self.write(output, &answer)
    }

    fn reset(&self, options: u32) -> HvResult<()> {
        if options == 0 || options & !3 != 0 {
            return Err(HV_STATUS_INVALID_PARAMETER);
        }
        let mut state = self.shared.lock();
        // Nothing outgoing waits.
        if options & PURGE_INCOMING == 0 || state.incoming.is_empty() {
            return Err(HV_STATUS_NO_DATA);
        }
        state.incoming.clear();
        self.shared.tell_pending(&state);
        Ok(())
    }

    /// RDMSR of one of the debugger's registers.
    pub fn read_msr(&self, number: u32) -> u64 {
        let state = self.shared.lock();
        match number {
            HV_X64_MSR_SYNTH_DEBUG_STATUS => state.status,
            HV_X64_MSR_SYNTH_DEBUG_SEND_BUFFER => state.send_page,
            HV_X64_MSR_SYNTH_DEBUG_RECEIVE_BUFFER => state.receive_page,
            HV_X64_MSR_SYNTH_DEBUG_PENDING_BUFFER => state.pending_page,
            HV_X64_MSR_DEBUG_DEVICE_OPTIONS => state.options,
            // CONTROL is a command.
            _ => 0,
        }
    }

    /// WRMSR to one of them.
    pub fn write_msr(&self, number: u32, value: u64) {
        let mut state = self.shared.lock();
        match number {
            HV_X64_MSR_SYNTH_DEBUG_CONTROL if value & CONTROL_SEND != 0 => {
                let size = (value >> 16) as u16;
                let page = state.send_page;
                state.status = match self.send_frame(page, size, &mut state.guest) {
                    Ok(()) => STATUS_SENT,
                    Err(_) => 0,
                };
            }
            HV_X64_MSR_SYNTH_DEBUG_CONTROL if value & CONTROL_RECEIVE != 0 => {
                state.status = 0;
                if let Some(data) = state.incoming.pop_front() {
                    let frame = frame(&data, self.shared.peer, &state.guest);
                    if self.write(state.receive_page, &frame).is_ok() {
                        state.status = STATUS_RECEIVED | ((frame.len() as u64) << 16);
                    }
                    self.shared.tell_pending(&state);
                }
            }
            HV_X64_MSR_SYNTH_DEBUG_SEND_BUFFER => state.send_page = value & !(PAGE - 1),
            HV_X64_MSR_SYNTH_DEBUG_RECEIVE_BUFFER => state.receive_page = value & !(PAGE - 1),
            HV_X64_MSR_SYNTH_DEBUG_PENDING_BUFFER => {
                state.pending_page = value & !(PAGE - 1);
                self.shared.tell_pending(&state);
            }
            HV_X64_MSR_DEBUG_DEVICE_OPTIONS => state.options = value,
            _ => {}
        }
    }

    fn send_frame(&self, page: u64, size: u16, guest: &mut Guest) -> HvResult<()> {
        let mut frame = vec![0; usize::from(size).min(PAGE as usize)];
        self.read(page, &mut frame)?;
        // What is not for the debugger gets lost, as with a wire that leads nowhere else.
        if let Some((data, from)) = payload(&frame) {
            *guest = from;
            self.shared.send(&frame[data])?;
        }
        Ok(())
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, data: &[u8]) -> HvResult<()> {
        match self.socket.send(data) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(HV_STATUS_INSUFFICIENT_BUFFERS)
            }
            // Nobody listens yet: a debugger may come later.
            _ => Ok(()),
        }
    }

    /// The first byte of the pending page tells the guest whether something waits.
    fn tell_pending(&self, state: &State) {
        if state.pending_page != 0 {
            let byte = u8::from(!state.incoming.is_empty());
            // A page that is not there is the guest's mistake.
            let _ = self
                .memory
                .write_slice(&[byte], GuestAddress(state.pending_page));
        }
    }

    /// The thread that takes datagrams.
    fn receive(&self) {
        let mut buffer = [0; MAXIMUM_DATA];
        while !self.end.load(Ordering::Relaxed) {
            let Ok(len) = self.socket.recv(&mut buffer) else {
                continue;
            };
            let mut state = self.lock();
            state.active = true;
            if len != 0 && state.incoming.len() < WAITING {
                state.incoming.push_back(buffer[..len].to_vec());
                self.tell_pending(&state);
                self.arrived.notify_all();
            }
        }
    }
}

/// Where a frame's data are, and who sent it, if it is UDP over IPv4.
fn payload(frame: &[u8]) -> Option<(Range<usize>, Guest)> {
    let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 0xf) * 4;
    if word(12)? != 0x800 || ip[0] >> 4 != 4 || header < IPV4 || *ip.get(9)? != 17 {
        return None;
    }
    let udp = ETHERNET + header;
    let end = udp + usize::from(word(udp + 4)?);
    let guest = Guest {
        mac: *frame.get(6..)?.first_chunk()?,
        ip: *ip.get(12..)?.first_chunk()?,
        port: word(udp)?,
    };
    (end >= udp + UDP && end <= frame.len()).then_some((udp + UDP..end, guest))
}

/// A frame with `data`, or what of it fits a page, from `peer` to `guest`.
fn frame(data: &[u8], peer: SocketAddr, guest: &Guest) -> Vec<u8> {
    let data = &data[..data.len().min(PAGE as usize - HEADERS)];
    let from = match peer.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let mut frame = Vec::with_capacity(HEADERS + data.len());
    frame.extend_from_slice(&guest.mac);
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    let udp_len = (UDP + data.len()) as u16;
    let total = udp_len + IPV4 as u16;
    let mut ip = [0; IPV4];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&from);
    ip[16..20].copy_from_slice(&guest.ip);
    let checksum = ones_complement(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend_from_slice(&ip);
    for word in [peer.port(), guest.port, udp_len, 0] {
        // No checksum: IPv4 does not ask for it.
        frame.extend_from_slice(&word.to_be_bytes());
    }
    frame.extend_from_slice(data);
    frame
}

/// The checksum of an IPv4 header (RFC 1071).
fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| (u32::from(pair[0]) << 8) | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: u64 = 0x1000;
    const OUTPUT: u64 = 0x2000;
    const POST: u64 = 0x69;
    const RETRIEVE: u64 = 0x6a;
    const RESET: u64 = 0x6b | (1 << 16);

    /// A debugger's socket, and the device that talks to it.
    fn pair() -> (UdpSocket, Debugger) {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x8000)]).unwrap();
        let near = Debugger::new(far.local_addr().unwrap(), memory).unwrap();
        (far, near)
    }

    fn put(debugger: &Debugger, gpa: u64, words: &[u64]) {
        for (n, word) in words.iter().enumerate() {
            debugger
                .write(gpa + 8 * n as u64, &word.to_le_bytes())
                .unwrap();
        }
    }

    fn call(debugger: &Debugger, control: u64, input: u64, output: u64) -> u16 {
        debugger.call(control, input, output, || false).0
    }

    /// Answers what it got, and waits until the device has it.
    fn answer(far: &UdpSocket, debugger: &Debugger, data: &[u8]) {
        let port = debugger.shared.socket.local_addr().unwrap().port();
        let before = debugger.shared.lock().incoming.len();
        far.send_to(data, ("127.0.0.1", port)).unwrap();
        while debugger.shared.lock().incoming.len() == before {
            std::thread::yield_now();
        }
    }

    #[test]
    fn calls() {
        let (far, near) = pair();
        put(&near, INPUT, &[5, 0]);
        near.write(INPUT + 8, b"hello").unwrap();
        assert_eq!(call(&near, POST, INPUT, OUTPUT), 0);
        let mut got = [0; 100];
        let len = far.recv(&mut got).unwrap();
        assert_eq!(&got[..len], b"hello");

        put(&near, INPUT, &[4088, 0]);
        assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0x1b, "no data");
        answer(&far, &near, b"0123456789");
        answer(&far, &near, b"abc");
        put(&near, INPUT, &[4, 0]);
        assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0);
        let mut answered = [0; 12];
        near.read(OUTPUT, &mut answered).unwrap();
        assert_eq!(answered, *b"\x04\0\0\0\x09\0\0\x000123");
        put(&near, INPUT, &[4088 | (2 << 32), 0]);
        assert_eq!(
            call(&near, RETRIEVE, INPUT, OUTPUT),
            0x1c,
            "nothing new came"
        );
        put(&near, INPUT, &[4088, 0]);
        assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0, "but some is left");
        assert_eq!(call(&near, RESET, 1, 0), 0);
        assert_eq!(call(&near, RESET, 1, 0), 0x1b, "nothing is left");
        // As much as one call takes.
        answer(&far, &near, &[7; MAXIMUM_DATA]);
        assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0);
        near.read(OUTPUT, &mut answered).unwrap();
        assert_eq!(answered, *b"\xf8\x0f\0\0\0\0\0\0\x07\x07\x07\x07");
        answer(&far, &near, b"purged");
        assert_eq!(call(&near, RESET, 1, 0), 0);
        assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0x1b);
    }

    /// HvCallRetrieveDebugData waits as long as it was told, and no longer than the guest lives.
    #[test]
    fn waits() {
        let (far, near) = pair();
        put(&near, INPUT, &[4088 | (1 << 32), 300_000]);
        let begin = Instant::now();
        assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0x1b);
        assert!(begin.elapsed() >= Duration::from_millis(30));
        put(&near, INPUT, &[4088 | (1 << 32), u64::MAX]);
        let port = near.shared.socket.local_addr().unwrap().port();
        std::thread::scope(|scope| {
            scope.spawn(|| far.send_to(b"x", ("127.0.0.1", port)).unwrap());
            assert_eq!(call(&near, RETRIEVE, INPUT, OUTPUT), 0);
        });
        assert_eq!(near.call(RETRIEVE, INPUT, OUTPUT, || true).0, 0x1b);
    }

    #[test]
    fn wrong_parameters() {
        let (_far, near) = pair();
        for (word, at) in [
            (4089, INPUT),
            (u64::from(u32::MAX), INPUT),
            (1 | (4 << 32), INPUT),
            (4081, INPUT + 8),
        ] {
            put(&near, at, &[word, 0]);
            assert_eq!(call(&near, POST, at, OUTPUT), 5, "{word:#x}");
        }
        for (word, at) in [(4089, OUTPUT), (1 | (4 << 32), OUTPUT), (4081, OUTPUT + 8)] {
            put(&near, INPUT, &[word, 0]);
            assert_eq!(call(&near, RETRIEVE, INPUT, at), 5, "{word:#x}");
        }
        for options in [0, 4, 1 << 31] {
            assert_eq!(call(&near, RESET, options, 0), 5);
        }
        put(&near, INPUT, &[0, 0]);
        assert_eq!(call(&near, POST, INPUT, OUTPUT), 0, "no data is no mistake");
    }

    #[test]
    fn frames() {
        let (far, near) = pair();
        let guest = Guest {
            mac: [2, 1, 2, 3, 4, 5],
            ip: [169, 254, 0, 7],
            port: 50_000,
        };
        // A frame to the guest looks like one from it, with both sides swapped.
        let mut sent = frame(
            b"frame",
            "169.254.0.7:50000".parse().unwrap(),
            &Guest::default(),
        );
        sent[6..12].copy_from_slice(&guest.mac);
        assert_eq!(ones_complement(&sent[14..34]), 0);
        near.write(0x3000, &sent).unwrap();
        near.write_msr(HV_X64_MSR_SYNTH_DEBUG_SEND_BUFFER, 0x3000);
        near.write_msr(HV_X64_MSR_SYNTH_DEBUG_RECEIVE_BUFFER, 0x4000);
        near.write_msr(HV_X64_MSR_SYNTH_DEBUG_PENDING_BUFFER, 0x5000);
        let control = |value| {
            near.write_msr(HV_X64_MSR_SYNTH_DEBUG_CONTROL, value);
            near.read_msr(HV_X64_MSR_SYNTH_DEBUG_STATUS)
        };
        assert_eq!(control(CONTROL_RECEIVE), 0);
        assert_eq!(
            control(CONTROL_SEND | ((sent.len() as u64) << 16)),
            STATUS_SENT
        );
        let mut got = [0; 100];
        let len = far.recv(&mut got).unwrap();
        assert_eq!(&got[..len], b"frame");
        answer(&far, &near, b"answer");
        let pending = || {
            let mut byte = [0];
            near.read(0x5000, &mut byte).unwrap();
            byte[0]
        };
        assert_eq!(pending(), 1);
        let status = control(CONTROL_RECEIVE);
        assert_eq!(status, STATUS_RECEIVED | ((HEADERS as u64 + 6) << 16));
        assert_eq!(pending(), 0);
        let mut received = [0; HEADERS + 6];
        near.read(0x4000, &mut received).unwrap();
        let (data, from) = payload(&received).unwrap();
        assert_eq!(&received[data], b"answer");
        assert_eq!(from.port, far.local_addr().unwrap().port());
        assert_eq!(received[..6], guest.mac);
        assert_eq!(received[30..34], guest.ip);
        // What is no datagram goes nowhere, whatever it is.
        for len in 0..sent.len() {
            assert_eq!(payload(&sent[..len]), None, "{len}");
        }
        sent[23] = 6;
        assert_eq!(payload(&sent), None);
    }
}
