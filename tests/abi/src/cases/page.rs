// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The register page, and mmap(2) on a VP's file.

use mshv_bindings::*;

use crate::cases::device::map;
use crate::cases::messages::io;
use crate::guests;
use crate::run::{case, ensure, equal, errno, good, Case, Outcome, Stop};
use crate::sys::PAGE;
use crate::threads::{interrupted, run_on, started};
use crate::vm::names::*;
use crate::vm::*;

/// A VP's register page.
pub struct Page(*mut hv_vp_register_page);

impl Page {
    pub fn map(vp: &Vp) -> Result<Self, Stop> {
        // SAFETY: A new mapping of one page.
        let addr = unsafe {
            use std::os::fd::AsRawFd;
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vp.as_raw_fd(),
                0,
            )
        };
        ensure(addr != libc::MAP_FAILED, || {
            format!("mmap: {:?}", crate::sys::last())
        })?;
        Ok(Self(addr.cast()))
    }

    pub fn read(&self) -> hv_vp_register_page {
        // SAFETY: Mapped for the process's life; only this thread runs the VP.
        unsafe { self.0.read_volatile() }
    }

    pub fn write(&self, page: hv_vp_register_page) {
        // SAFETY: As above.
        unsafe { self.0.write_volatile(page) }
    }
}

fn page_dirty() -> Outcome {
    let guest = Guest::new(guests::page())?;
    let vp = guest.vp();
    // CR4.OSFXSR: it uses SSE.
    vp.set_register(HV_X64_REGISTER_CR4, 0x200)?;
    let page = Page::map(vp)?;
    let p = page.read();
    equal(
        "version, valid, dirty before the first run",
        (p.version, p.isvalid, p.dirty),
        (1, 1, 0),
    )?;
    // SAFETY: Plain registers.
    equal(
        "RIP before the first run",
        unsafe { p.__bindgen_anon_1.__bindgen_anon_1.rip },
        ENTRY,
    )?;
    let message = vp.message()?;
    let info = io(&message)?;
    let mut p = page.read();
    // SAFETY: Plain registers.
    unsafe {
        let r = p.__bindgen_anon_1.__bindgen_anon_1;
        equal("valid, dirty", (p.isvalid, p.dirty), (1, 0))?;
        equal("RIP", r.rip, info.header.rip)?;
        equal("RFLAGS", r.rflags, info.header.rflags)?;
        let gprs = r.__bindgen_anon_1.__bindgen_anon_1;
        equal("RAX, RBX", (gprs.rax, gprs.rbx), (0x1111_1111, 0x2222_2222))?;
        equal("CR0, EFER", (p.cr0, p.efer), (0x6000_0010, 0))?;
        equal(
            "XMM0",
            p.__bindgen_anon_2.xmm_registers[0].as_u128(),
            0x2222_2222,
        )?;
        equal(
            "XMM3",
            p.__bindgen_anon_2.xmm_registers[3].as_u128(),
            0x1111_1111,
        )?;
        equal("CS base", p.__bindgen_anon_3.segment_registers[1].base, 0)?;
        // Changed, but for the instruction pointer not marked: only RIP is taken.
        let r = &mut p.__bindgen_anon_1.__bindgen_anon_1;
        r.rip += 2;
        r.__bindgen_anon_1.__bindgen_anon_1.rax = 0xdead;
        r.__bindgen_anon_1.__bindgen_anon_1.rbx = 0xdead;
        r.rflags |= 1;
    }
    p.dirty = 1 << HV_X64_REGISTER_CLASS_IP;
    page.write(p);
    let second = io(&vp.message()?)?;
    equal("second port", second.port_number, 0x81)?;
    let stored = |at| guest.memory.word(at);
    equal(
        "EAX, EBX of the guest",
        (stored(0x2000), stored(0x2004)),
        (0x1111_1111, 0x2222_2222),
    )?;
    equal(
        "XMM0, XMM3 of the guest",
        (stored(0x2008), stored(0x200c)),
        (0x2222_2222, 0x1111_1111),
    )?;
    equal("carry", stored(0x2010) & 1, 0)?;
    equal("dirty, consumed", page.read().dirty, 0)
}

/// A page that says it is valid is what the VP has: also after a signal, after hypercalls, and with what the VMM wrote to it.
fn page_agrees() -> Outcome {
    let guest = Guest::new(guests::page())?;
    let vp = guest.vp();
    vp.set_register(HV_X64_REGISTER_CR4, 0x200)?;
    let page = Page::map(vp)?;
    // SAFETY: Plain registers.
    let rip = |p: &hv_vp_register_page| unsafe { p.__bindgen_anon_1.__bindgen_anon_1.rip };
    let agrees = |when: &str| {
        let p = page.read();
        let own = vp.register(HV_X64_REGISTER_RIP)?;
        ensure(p.isvalid == 0 || rip(&p) == own, || {
            format!("{when}: RIP is {own:#x}, in a valid page {:#x}", rip(&p))
        })
    };
    vp.message()?;
    equal("valid at a message", page.read().isvalid, 1)?;
    agrees("at a message")?;
    // Marked, and asked for by hypercall.
    let mut p = page.read();
    // SAFETY: Plain registers.
    unsafe { p.__bindgen_anon_1.__bindgen_anon_1.rip += 2 };
    p.dirty = 1 << HV_X64_REGISTER_CLASS_IP;
    page.write(p);
    equal(
        "RIP, written to the page",
        vp.register(HV_X64_REGISTER_RIP)?,
        rip(&p),
    )?;
    equal("dirty, consumed", page.read().dirty, 0)?;
    agrees("after that")?;
    vp.set_register(HV_X64_REGISTER_RIP, 0x1234)?;
    agrees("set by hypercall")?;
    // A guest that is stopped by a signal between two messages.
    let guest = Guest::new(guests::spin())?;
    let page = Page::map(guest.vp())?;
    let before = page.read();
    let running = run_on(guest.vp());
    started(&guest.memory)?;
    interrupted(running.interrupt()?)?;
    let own = guest.vp().register(HV_X64_REGISTER_RIP)?;
    ensure(own != rip(&before), || "the guest did not run".into())?;
    let after = page.read();
    ensure(after.isvalid == 0 || rip(&after) == own, || {
        format!(
            "after a signal: RIP is {own:#x}, in a valid page {:#x}",
            rip(&after)
        )
    })
}

fn page_all() -> Outcome {
    let guest = Guest::new(guests::page())?;
    let vp = guest.vp();
    // CR4.OSFXSR: it uses SSE.
    vp.set_register(HV_X64_REGISTER_CR4, 0x200)?;
    let page = Page::map(vp)?;
    vp.message()?;
    let mut p = page.read();
    // SAFETY: Plain registers.
    unsafe {
        let r = &mut p.__bindgen_anon_1.__bindgen_anon_1;
        r.rip += 2;
        r.__bindgen_anon_1.__bindgen_anon_1.rax = 0xaaaa;
        r.__bindgen_anon_1.__bindgen_anon_1.rbx = 0xbbbb;
        r.__bindgen_anon_1.__bindgen_anon_1.rsp = 0x7000;
        r.rflags |= 1;
        p.__bindgen_anon_2.xmm_registers[0] = from_u128(0x1234_5678);
        p.__bindgen_anon_3.segment_registers[3].base = 0x1_0000;
    }
    p.dirty = 0x1f;
    page.write(p);
    let info = io(&vp.message()?)?;
    equal("port", info.port_number, 0x81)?;
    let stored = |at: usize| guest.memory.word(0x1_0000 + at);
    equal(
        "EAX, EBX",
        (stored(0x2000), stored(0x2004)),
        (0xaaaa, 0xbbbb),
    )?;
    equal(
        "XMM0, XMM3",
        (stored(0x2008), stored(0x200c)),
        (0x1234_5678, 0x1111_1111),
    )?;
    equal("carry", stored(0x2010) & 1, 1)?;
    equal("RSP", vp.register(HV_X64_REGISTER_RSP)?, 0x7000)
}

/// What is dirty in the page a call tells, and the last that was set is what the guest gets.
fn page_and_calls() -> Outcome {
    const RBX: u32 = HV_X64_REGISTER_RAX + 3;
    const CR8: u32 = 0x4_0004;
    const XMM0: u32 = 0x3_0000;
    const XMM3: u32 = XMM0 + 3;
    const XSAVE_XMM: usize = 160;
    let guest = Guest::new(guests::page())?;
    let vp = guest.vp();
    let page = Page::map(vp)?;
    // CR4.OSFXSR: it uses SSE.
    vp.set(&[(HV_X64_REGISTER_CR4, (0x200, 0)), (CR8, (5, 0))])
        .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let first = io(&vp.message()?)?;
    let behind = first.header.rip + 2;
    let mut p = page.read();
    // SAFETY: Plain registers.
    unsafe {
        let r = &mut p.__bindgen_anon_1.__bindgen_anon_1;
        r.rip = 0xdead;
        r.__bindgen_anon_1.__bindgen_anon_1.rax = 0xaaaa;
        r.__bindgen_anon_1.__bindgen_anon_1.rbx = 0xdead;
        p.__bindgen_anon_2.xmm_registers[0] = from_u128(0x1234_5678);
        p.__bindgen_anon_2.xmm_registers[3] = from_u128(0xdead);
    }
    p.dirty = 0x1f;
    page.write(p);
    let told = [HV_X64_REGISTER_RIP, HV_X64_REGISTER_RAX, RBX, XMM0];
    let told = vp.get(&told).map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let wanted = [(0xdead, 0), (0xaaaa, 0), (0xdead, 0), (0x1234_5678, 0)];
    equal("RIP, RAX, RBX, XMM0", &told[..], &wanted[..])?;
    let state = crate::sys::Memory::new(PAGE);
    crate::cases::state::get_state(vp, 1, &state)?;
    equal("XMM0 in XSAVE", state.word(XSAVE_XMM), 0x1234_5678)?;
    vp.set(&[
        (HV_X64_REGISTER_RIP, (behind, 0)),
        (RBX, (0xbbbb, 0)),
        (XMM3, (0x3333, 0)),
    ])
    .map_err(|e| Stop::Fail(format!("{e:?}")))?;
    let p = page.read();
    // SAFETY: Plain registers.
    unsafe {
        let r = p.__bindgen_anon_1.__bindgen_anon_1;
        let gprs = r.__bindgen_anon_1.__bindgen_anon_1;
        let got = (p.isvalid, r.rip, gprs.rax, gprs.rbx);
        equal(
            "valid, RIP, RAX, RBX after a call",
            got,
            (1, behind, 0xaaaa, 0xbbbb),
        )?;
        let xmm = p.__bindgen_anon_2.xmm_registers[3].as_u128();
        equal("XMM3 in the page", xmm, 0x3333)?;
    }
    equal("second port", io(&vp.message()?)?.port_number, 0x81)?;
    let stored = |at| guest.memory.word(at);
    equal(
        "EAX, EBX of the guest",
        (stored(0x2000), stored(0x2004)),
        (0xaaaa, 0xbbbb),
    )?;
    equal(
        "XMM0, XMM3 of the guest",
        (stored(0x2008), stored(0x200c)),
        (0x1234_5678, 0x3333),
    )
}

fn from_u128(value: u128) -> hv_u128 {
    hv_u128 {
        low_part: value as u64,
        high_part: (value >> 64) as u64,
    }
}

trait AsU128 {
    fn as_u128(&self) -> u128;
}

impl AsU128 for hv_u128 {
    fn as_u128(&self) -> u128 {
        (u128::from(self.high_part) << 64) | u128::from(self.low_part)
    }
}

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "register page: calls tell what is dirty in it",
            page_and_calls,
        ),
        case(
            "register page: valid only while it is what the VP has",
            page_agrees,
        ),
        case(
            "register page: contents; only what is marked dirty is taken [V-S6]",
            page_dirty,
        ),
        case("register page: all groups dirty [V-S6]", page_all),
        case("register page: RIP behind a triple fault ends it", || {
            let guest = Guest::new(guests::triple_fault())?;
            guest
                .memory
                .write(ENTRY as usize + 0x100, guests::port_80().bytes());
            let page = Page::map(guest.vp())?;
            for _ in 0..2 {
                let message = guest.vp().message()?;
                let wanted = hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION;
                equal("message", message.header.message_type, wanted)?;
            }
            let mut p = page.read();
            p.__bindgen_anon_1.__bindgen_anon_1.rip = ENTRY + 0x100;
            p.dirty = 1 << HV_X64_REGISTER_CLASS_IP;
            page.write(p);
            equal("port", io(&guest.vp().message()?)?.port_number, 0x80)
        }),
        case("VP mmap: page 1 holds the message of RUN_VP [V-S7]", || {
            let guest = Guest::new(guests::ports())?;
            let page = good("page 1", map(guest.vp(), PAGE, PAGE))?;
            for _ in 0..3 {
                let message = guest.vp().message()?;
                // SAFETY: A mapped page and a message, both of plain bytes.
                let (mapped, given) = unsafe {
                    let size = size_of::<hv_message>();
                    let given = std::slice::from_raw_parts((&raw const message).cast::<u8>(), size);
                    (
                        std::slice::from_raw_parts(page as *const u8, size).to_vec(),
                        given.to_vec(),
                    )
                };
                equal("message", mapped, given)?;
                crate::threads::skip(guest.vp(), &message)
                    .map_err(|e| Stop::Fail(format!("{e:?}")))?;
            }
            Ok(())
        }),
        case(
            "VP mmap: pages 0 and 1 are there, 2 gives ENODEV, others EINVAL [V-I19]",
            || {
                let vp = Partition::ready().vp(0);
                good("page 0", map(&vp, 0, PAGE))?;
                good("page 0 again", map(&vp, 0, PAGE))?;
                errno("page 2", map(&vp, 2 * PAGE, PAGE), libc::ENODEV)?;
                for page in [3, 4, 0xffff, 1 << 32, 1 << 40] {
                    errno(
                        &format!("page {page:#x}"),
                        map(&vp, page * PAGE, PAGE),
                        libc::EINVAL,
                    )?;
                }
                Ok(())
            },
        ),
        case("VP mmap: more than a page gives EINVAL [V-I19]", || {
            let vp = Partition::ready().vp(0);
            for len in [2 * PAGE, 16 * PAGE, 2 << 20] {
                errno(&format!("{len:#x} bytes"), map(&vp, 0, len), libc::EINVAL)?;
            }
            Ok(())
        }),
        case("VP mmap: the page outlives the files", || {
            let vp = Partition::ready().vp(0);
            let page = Page::map(&vp)?;
            drop(vp);
            equal("version", page.read().version, 1)?;
            page.write(hv_vp_register_page::default());
            equal("version, cleared", page.read().version, 0)
        }),
        case("VP mmap: while the VP runs on another thread", || {
            let guest = Guest::new(guests::count())?;
            let running = crate::threads::run_on(guest.vp());
            crate::threads::started(&guest.memory)?;
            let vp = guest.vp().clone();
            let mapping = crate::threads::Running::start(move |_| map(&vp, 0, PAGE));
            let mapped = mapping.wait(5);
            // Whoever waits for the VP gets on now.
            let ended = running.interrupt();
            good("mmap", mapped?)?;
            crate::threads::interrupted(ended?)
        }),
    ]
}
