// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Guest debugging (TLFS 2.0A, chapter 18, and the synthetic debugger's MSRs). On the other side somebody sends back what
//! comes.
#![no_std]
#![no_main]

use guest::hv::{self, INVALID_PARAMETER, SUCCESS};
use guest::{cpu, cpuid, image, paging, require, test, time, Pass, Verdict};

const POST: u64 = 0x69;
const RETRIEVE: u64 = 0x6a;
const RESET: u64 = 0x6b;
const FAST: u64 = 1 << 16;
const NO_DATA: u64 = 0x1b;
const INACTIVE: u64 = 0x1c;

/// Wait for data; an error if nothing came since the last time.
const LOOP: u64 = 1 << 32;
const TEST_ACTIVITY: u64 = 2 << 32;
/// A minute, in 100 ns: the emulated machine is slow.
const LONG: u64 = 600_000_000;

const CONTROL: u32 = 0x4000_00f1;
const STATUS: u32 = 0x4000_00f2;
const SEND_BUFFER: u32 = 0x4000_00f3;
const RECEIVE_BUFFER: u32 = 0x4000_00f4;
const PENDING_BUFFER: u32 = 0x4000_00f5;
const OPTIONS: u32 = 0x4000_00ff;

fn calls() -> bool {
    hv::present() && cpuid::leaf(0x4000_0003).ebx >> 11 & 1 != 0
}

fn registers() -> bool {
    hv::present() && cpuid::leaf(0x4000_0003).edx >> 11 & 1 != 0
}

/// A page as bytes.
fn bytes(page: u64) -> &'static mut [u8] {
    // SAFETY: a page of this test's, which nobody else has a reference to.
    unsafe { core::slice::from_raw_parts_mut(page as *mut u8, 4096) }
}

fn word(page: u64, at: usize) -> u32 {
    // SAFETY: as above; the hypervisor writes it.
    unsafe { ((page + 4 * at as u64) as *const u32).read_volatile() }
}

struct Session {
    input: u64,
    output: u64,
}

impl Session {
    fn new() -> Self {
        let _ = hv::enable_page(paging::frame());
        Self {
            input: paging::frame(),
            output: paging::frame(),
        }
    }

    fn call(&self, control: u64, words: &[u64]) -> u64 {
        for (to, from) in bytes(self.input).chunks_mut(8).zip(words) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        hv::vmcall(control, self.input, self.output).expect("a hypercall")
    }

    fn post(&self, data: &[u8]) -> u64 {
        bytes(self.input)[8..8 + data.len()].copy_from_slice(data);
        self.call(POST, &[data.len() as u64])
    }

    /// What comes, waiting for it.
    fn retrieve(&self, count: u64) -> (u64, &'static [u8], u32) {
        let status = self.call(RETRIEVE, &[count | LOOP, LONG]);
        let len = word(self.output, 0) as usize;
        (
            status,
            &bytes(self.output)[8..][..len],
            word(self.output, 1),
        )
    }
}

fn post_and_retrieve() -> Verdict {
    require!(calls(), "no Debugging");
    let session = Session::new();
    assert_eq!(session.call(RETRIEVE, &[4088, 0]), NO_DATA);
    bytes(session.output)[..4].fill(0xff);
    assert_eq!(session.post(b"hello, debugger"), SUCCESS);
    assert_eq!(word(session.output, 0), 0, "bytes that wait to be sent");
    assert_eq!(session.retrieve(5), (SUCCESS, &b"hello"[..], 10));
    assert_eq!(session.retrieve(4088), (SUCCESS, &b", debugger"[..], 0));
    // As much as one call can hold.
    bytes(session.input)[8..].fill(0x5a);
    assert_eq!(session.call(POST, &[4088]), SUCCESS);
    let mut all = 0;
    while all < 4088 {
        let (status, data, _) = session.retrieve(4088);
        assert_eq!(status, SUCCESS);
        assert!(data.iter().all(|b| *b == 0x5a));
        all += data.len();
    }
    assert_eq!(all, 4088);
    Pass
}

fn statuses() -> Verdict {
    require!(calls(), "no Debugging");
    let session = Session::new();
    for words in [[4089, 0], [u64::MAX >> 32, 0], [2 << 32, 0]] {
        assert_eq!(session.call(POST, &words), INVALID_PARAMETER);
    }
    for words in [[4089, 0], [4 << 32, 0]] {
        assert_eq!(session.call(RETRIEVE, &words), INVALID_PARAMETER);
    }
    // A control word is judged before: no fast form, no list.
    assert_eq!(session.call(POST | FAST, &[0]), 3);
    assert_eq!(session.call(RETRIEVE | 1 << 32, &[0, 0]), 3);
    assert_eq!(hv::vmcall(POST, session.input + 4, session.output), Ok(4));
    Pass
}

fn reset() -> Verdict {
    require!(calls(), "no Debugging");
    let session = Session::new();
    let reset = |options| hv::vmcall(RESET | FAST, options, 0).expect("a hypercall");
    for options in [0, 4, 1 << 31] {
        assert_eq!(reset(options), INVALID_PARAMETER);
    }
    assert_eq!(reset(1), NO_DATA);
    assert_eq!(reset(2), NO_DATA, "nothing waits to be sent");
    assert_eq!(session.post(b"1234"), SUCCESS);
    assert_eq!(session.retrieve(1), (SUCCESS, &b"1"[..], 3));
    // In memory, too.
    assert_eq!(session.call(RESET, &[1]), SUCCESS);
    assert_eq!(session.call(RETRIEVE, &[4088, 0]), NO_DATA);
    assert_eq!(session.call(RETRIEVE, &[4088 | TEST_ACTIVITY, 0]), INACTIVE);
    Pass
}

/// An Ethernet frame with an IPv4 packet with a UDP datagram.
fn frame(to: &mut [u8], data: &[u8]) -> usize {
    const HEADERS: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 8, 0, // to, from, IPv4
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 169, 254, 0, 7, 127, 0, 0, 1, // UDP
        0xc3, 0x51, 0xc3, 0x50, 0, 0, 0, 0,
    ];
    to[..42].copy_from_slice(&HEADERS);
    to[16..18].copy_from_slice(&(28 + data.len() as u16).to_be_bytes());
    to[38..40].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
    to[42..][..data.len()].copy_from_slice(data);
    42 + data.len()
}

fn frames() -> Verdict {
    require!(registers(), "no debug registers");
    let [send, receive, pending] = [(); 3].map(|()| paging::frame());
    for (msr, page) in [
        (SEND_BUFFER, send),
        (RECEIVE_BUFFER, receive),
        (PENDING_BUFFER, pending),
    ] {
        cpu::wrmsr(msr, page);
        assert_eq!(cpu::rdmsr(msr), page);
    }
    cpu::wrmsr(CONTROL, 2);
    assert_eq!(cpu::rdmsr(STATUS), 0, "nothing came");
    let len = frame(bytes(send), b"a frame");
    cpu::wrmsr(CONTROL, 1 | (len as u64) << 16);
    assert_eq!(cpu::rdmsr(STATUS), 1, "not sent");
    assert!(time::reached(|| {
        // An exit now and then lets the other side run.
        cpu::outb(0x80, 0);
        word(pending, 0) & 0xff == 1
    }));
    cpu::wrmsr(CONTROL, 2);
    assert_eq!(cpu::rdmsr(STATUS), 4 | (len as u64) << 16);
    assert_eq!(word(pending, 0) & 0xff, 0);
    let (sent, got) = (bytes(send), bytes(receive));
    assert_eq!(got[42..len], *b"a frame");
    assert_eq!(got[..6], sent[6..12], "whom it is for");
    assert_eq!((&got[26..30], &got[30..34]), (&sent[30..34], &sent[26..30]));
    assert_eq!((&got[34..36], &got[36..38]), (&sent[36..38], &sent[34..36]));
    Pass
}

fn options() -> Verdict {
    require!(registers(), "no debug registers");
    assert_eq!(cpu::rdmsr(OPTIONS), 0, "by MSRs");
    cpu::wrmsr(OPTIONS, 4);
    assert_eq!(cpu::rdmsr(OPTIONS), 4);
    Pass
}

image!(
    "debug",
    [
        test!(
            post_and_retrieve,
            "H-69 H-6A C-3B11 C-3D1 F-DB1",
            post_and_retrieve
        ),
        test!(statuses, "H-69 H-6A", statuses),
        test!(reset, "H-6B F-DB1", reset),
        test!(frames, "M-F1 C-3A12 C-3D11", frames),
        test!(options, "M-FF", options),
    ]
);
