// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use hvdef::HVMSG_TIMER_EXPIRED;
use std::boxed::Box;
use std::sync::Arc;
use std::thread;

fn page() -> Box<SynicPage> {
    Box::new([const { AtomicU32::new(0) }; HV_HYP_PAGE_SIZE / 4])
}

fn registers() -> Synic {
    let mut s = Synic::new();
    (s.scontrol, s.simp, s.siefp) = (1, 0x5001, 0x6001);
    s.write_sint(2, 0x35).unwrap();
    s
}

fn shared(registers: &Synic) -> SynicShared {
    let s = SynicShared::new();
    s.publish(registers);
    s
}

fn enabled() -> SynicShared {
    shared(&registers())
}

fn post(s: &SynicShared, page: &SynicPage, sint: u8) -> Outcome {
    s.post(page, sint, HVMSG_TIMER_EXPIRED, 7, &[1, 2, 3, 4, 5])
}

/// M-90, F-SY12.
#[test]
fn sint_values() {
    let mut s = Synic::new();
    for sint in 0..16 {
        assert_eq!(s.sint(sint), 0x10000);
        for vector in 0..16 {
            assert!(s.write_sint(sint, vector).is_err());
            assert!(s.write_sint(sint, vector | 0x2_0000).is_err());
            assert!(s.write_sint(sint, vector | 0x1_0000).is_ok());
        }
        // Reserved bits are kept.
        s.write_sint(sint, !0x1_0000).unwrap();
        assert_eq!(s.sint(sint), !0x1_0000);
    }
    assert_eq!(s.sint(16), 0x10000);
}

/// F-SY5, F-SY7: it can be changed at any time, and vectors may be shared.
#[test]
fn auto_eoi() {
    let mut s = Synic::new();
    assert!(!s.ends_by_itself(0x30));
    s.write_sint(1, 0x2_0030).unwrap();
    s.write_sint(9, 0x30).unwrap();
    assert!(s.ends_by_itself(0x30) && !s.ends_by_itself(0x31));
    s.write_sint(1, 0x30).unwrap();
    assert!(!s.ends_by_itself(0x30));
    s.write_sint(15, 0x2_0030).unwrap();
    assert!(s.ends_by_itself(0x30));
    s.write_sint(15, 0x3_0030).unwrap();
    assert!(!s.ends_by_itself(0x30));
}

/// F-SY2, E1: the layout; then the slot is taken.
#[test]
fn message() {
    let (s, page) = (enabled(), page());
    assert_eq!(post(&s, &page, 2), Outcome::Interrupt(0x35));
    let word = |i: usize| page[2 * 64 + i].load(Ordering::Relaxed);
    assert_eq!(word(0), 0x8000_0010);
    assert_eq!((word(1), word(2), word(3)), (5, 7, 0));
    assert_eq!((word(4), word(5)), (0x0403_0201, 5));
    assert_eq!(post(&s, &page, 2), Outcome::Busy);
    assert_eq!(word(1), 0x105);
    page[2 * 64].store(0, Ordering::Relaxed);
    assert_eq!(s.post(&page, 2, 1, 0, &[9; 300]), Outcome::Interrupt(0x35));
    assert_eq!(word(1), 240);
    // The slots beside it are untouched.
    let used = page.iter().filter(|w| w.load(Ordering::Relaxed) != 0);
    assert_eq!(used.count(), 62);
}

/// F-SY1, F-SY3, F-SY6: off, masked, polling.
#[test]
fn where_no_interrupt_comes() {
    let page = page();
    for change in [
        |s: &mut Synic| s.scontrol = 0,
        |s: &mut Synic| s.simp = 0x5000,
    ] {
        let mut s = registers();
        change(&mut s);
        assert_eq!(post(&shared(&s), &page, 2), Outcome::Off);
    }
    assert_eq!(post(&SynicShared::new(), &page, 2), Outcome::Off);
    let mut s = registers();
    s.write_sint(3, 0x1_0035).unwrap();
    s.write_sint(4, 0x4_0035).unwrap();
    let s = shared(&s);
    assert_eq!(post(&s, &page, 3), Outcome::Silent);
    assert_eq!(post(&s, &page, 3), Outcome::Busy);
    assert_eq!(post(&s, &page, 4), Outcome::Silent);
    assert_eq!(post(&s, &page, 16), Outcome::Off);
    assert_eq!(page[192].load(Ordering::Relaxed), HVMSG_TIMER_EXPIRED);
}

/// F-SY9.
#[test]
fn events() {
    let (s, page) = (enabled(), page());
    for flag in [0, 31, 32, 2047] {
        let first = (Outcome::Interrupt(0x35), true);
        assert_eq!(s.signal(&page, 2, flag), first);
        assert_eq!(s.signal(&page, 2, flag), (Outcome::Silent, false));
        let at = 2 * 64 + usize::from(flag) / 32;
        assert_ne!(page[at].load(Ordering::Relaxed) & (1 << (flag % 32)), 0);
    }
    assert_eq!(s.signal(&page, 3, 7), (Outcome::Silent, true));
    let off = (Outcome::Off, false);
    assert_eq!(s.signal(&page, 2, 2048), off);
    assert_eq!(s.signal(&page, 16, 0), off);
    let mut s = registers();
    s.siefp = 0;
    assert_eq!(shared(&s).signal(&page, 2, 5), off);
}

/// Two who post at a time do not mix their messages.
#[test]
fn one_fills_a_slot_at_a_time() {
    let page: Arc<SynicPage> = Arc::from(page());
    let s = Arc::new(enabled());
    let senders: std::vec::Vec<_> = (1u32..4)
        .map(|n| {
            let (page, s) = (page.clone(), s.clone());
            thread::spawn(move || {
                let body = [n as u8; 240];
                for _ in 0..20_000 {
                    if s.post(&page, 2, n, n.into(), &body) != Outcome::Busy {
                        let slot = &page[128..192];
                        assert_eq!(slot[0].load(Ordering::Relaxed), n);
                        for word in &slot[4..] {
                            assert_eq!(word.load(Ordering::Relaxed), n * 0x0101_0101);
                        }
                        slot[0].store(0, Ordering::Release);
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
}

/// F-SY2: whoever finds the slot taken is told by the guest when it is free, whatever the order of their steps.
#[test]
fn no_message_is_forgotten() {
    const MESSAGES: u32 = 20_000;
    let page: Arc<SynicPage> = Arc::from(page());
    let eom = Arc::new(AtomicU32::new(0));
    let guest = {
        let (page, eom) = (page.clone(), eom.clone());
        thread::spawn(move || {
            let slot = &page[128..192];
            for n in 1..=MESSAGES {
                while slot[0].load(Ordering::Acquire) != n {
                    thread::yield_now();
                }
                assert_eq!(slot[4].load(Ordering::Relaxed), n);
                slot[0].store(0, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if slot[1].load(Ordering::Relaxed) & PENDING != 0 {
                    eom.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
    };
    let s = enabled();
    for n in 1..=MESSAGES {
        let seen = eom.load(Ordering::SeqCst);
        if s.post(&page, 2, n, 0, &n.to_le_bytes()) == Outcome::Busy {
            while eom.load(Ordering::SeqCst) == seen {
                thread::yield_now();
            }
            assert_eq!(
                s.post(&page, 2, n, 0, &n.to_le_bytes()),
                Outcome::Interrupt(0x35)
            );
        }
    }
    guest.join().unwrap();
}
