// SPDX-License-Identifier: GPL-2.0 OR MIT

//! HvCallStartVirtualProcessor (H-99): the state in which a VP is to start, whether a CPU takes it, and how it gets
//! from the caller to the VP.

use super::input::{Stop, Words};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hvdef::{HvU128, HvX64SegmentRegister, HvX64TableRegister};
use x86def::cr;
use x86def::segment::{ar, rights_from_attributes};

/// Words of `HV_INITIAL_VP_CONTEXT`.
pub const CONTEXT_WORDS: usize = 28;
/// The context's place in the input.
const FIRST: usize = 2;

/// `HV_INITIAL_VP_CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialVpContext(pub [u64; CONTEXT_WORDS]);

/// Positions in it.
mod at {
    pub(super) const CS: usize = 3;
    pub(super) const DS: usize = 5;
    pub(super) const ES: usize = 7;
    pub(super) const FS: usize = 9;
    pub(super) const GS: usize = 11;
    pub(super) const SS: usize = 13;
    pub(super) const TR: usize = 15;
    pub(super) const LDTR: usize = 17;
    pub(super) const IDTR: usize = 19;
    pub(super) const GDTR: usize = 21;
}

/// What the partition's processors can do.
#[derive(Clone, Copy, Debug)]
pub struct ContextLimits {
    /// Bits that CR4 may have.
    pub cr4: u64,
    /// Bits that EFER may have.
    pub efer: u64,
    /// Bits of a physical address.
    pub physical_address_bits: u8,
}

macro_rules! segments {
    ($($name:ident $at:ident;)*) => {
        $(
            #[doc = concat!(stringify!($at), ".")]
            pub fn $name(&self) -> HvX64SegmentRegister {
                self.value(at::$at).segment()
            }
        )*
    };
}

impl InitialVpContext {
    /// Reads the context behind the call's header.
    #[inline]
    pub fn read(input: &mut impl Words) -> Result<Self, Stop> {
        let mut words = [0; CONTEXT_WORDS];
        for (i, to) in words.iter_mut().enumerate() {
            *to = input.word(FIRST + i)?;
        }
        Ok(Self(words))
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn value(&self, at: usize) -> HvU128 {
        HvU128 {
            low: self.word(at),
            high: self.word(at + 1),
        }
    }

    /// RIP.
    pub fn rip(&self) -> u64 {
        self.word(0)
    }

    /// RSP.
    pub fn rsp(&self) -> u64 {
        self.word(1)
    }

    /// RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.word(2)
    }

    segments! {
        cs CS;
        ds DS;
        es ES;
        fs FS;
        gs GS;
        ss SS;
        tr TR;
        ldtr LDTR;
    }

    /// IDTR.
    pub fn idtr(&self) -> HvX64TableRegister {
        self.value(at::IDTR).table()
    }

    /// GDTR.
    pub fn gdtr(&self) -> HvX64TableRegister {
        self.value(at::GDTR).table()
    }

    /// EFER.
    pub fn efer(&self) -> u64 {
        self.word(23)
    }

    /// CR0.
    pub fn cr0(&self) -> u64 {
        self.word(24)
    }

    /// CR3.
    pub fn cr3(&self) -> u64 {
        self.word(25)
    }

    /// CR4.
    pub fn cr4(&self) -> u64 {
        self.word(26)
    }

    /// IA32_PAT.
    pub fn pat(&self) -> u64 {
        self.word(27)
    }

    /// Whether a CPU can be in this state: what VM entry checks (SDM 27.3.1), for an unrestricted guest. Not taken are
    /// virtual-8086 mode and PAE paging outside of IA-32e mode, which need more than the context has.
    pub fn is_legal(&self, limits: &ContextLimits) -> bool {
        let (cr0, cr4, efer) = (self.cr0(), self.cr4(), self.efer());
        let paging = cr0 & cr::CR0_PG != 0;
        let long = efer & cr::EFER_LMA != 0;
        let controls = cr0 & !CR0_BITS == 0
            && (!paging || cr0 & cr::CR0_PE != 0)
            && cr0 & (cr::CR0_NW | cr::CR0_CD) != cr::CR0_NW
            && cr4 & !limits.cr4 == 0
            && efer & !limits.efer == 0
            && long == (paging && efer & cr::EFER_LME != 0)
            && (!paging || long == (cr4 & cr::CR4_PAE != 0))
            && (long || cr4 & cr::CR4_PCIDE == 0)
            && fits(self.cr3(), limits.physical_address_bits);
        let pat = self.pat().to_le_bytes();
        let memory_types = pat.iter().all(|t| matches!(t, 0 | 1 | 4..=7));
        let rflags = self.rflags();
        let flags = rflags & RFLAGS_ZERO == 0 && rflags & cr::RFLAGS_FIXED != 0;
        let width = if cr4 & cr::CR4_LA57 != 0 { 57 } else { 48 };
        let canonical = |address: u64| {
            let unused = 64 - width;
            (((address << unused) as i64) >> unused) as u64 == address
        };
        let code_64 = long && u32::from(self.cs().attributes) & ar::L != 0;
        let rip = if code_64 {
            canonical(self.rip())
        } else {
            self.rip() >> 32 == 0
        };
        let tables = canonical(self.gdtr().base) && canonical(self.idtr().base);
        controls
            && memory_types
            && flags
            && rip
            && tables
            && self.code_and_stack(long, cr0 & cr::CR0_PE != 0)
            && [self.ds(), self.es()]
                .into_iter()
                .all(|s| is_data(s, false))
            && [self.fs(), self.gs()]
                .into_iter()
                .all(|s| is_data(s, true) && canonical(s.base))
            && is_system(self.tr(), if long { &[11] } else { &[3, 11] })
            && usable(self.tr())
            && canonical(self.tr().base)
            && (!usable(self.ldtr()) || is_system(self.ldtr(), &[2]) && canonical(self.ldtr().base))
    }

    fn code_and_stack(&self, long: bool, protected: bool) -> bool {
        let (cs, ss) = (self.cs(), self.ss());
        let (cs_rights, ss_dpl) = (rights(cs), ar::dpl(rights(ss)));
        let dpl = ar::dpl(cs_rights);
        let type_fits = match kind(cs) {
            9 | 11 => dpl == ss_dpl,
            13 | 15 => dpl <= ss_dpl,
            // A data segment, as after RESET.
            3 => dpl == 0 && ss_dpl == 0,
            _ => false,
        };
        let both_sizes = long && cs_rights & ar::L != 0 && cs_rights & ar::DB != 0;
        let stack = !usable(ss) || matches!(kind(ss), 3 | 7) && is_memory(ss) && ss.base >> 32 == 0;
        usable(cs)
            && type_fits
            && is_memory(cs)
            && !both_sizes
            && cs.base >> 32 == 0
            && stack
            && (protected || ss_dpl == 0)
    }
}

/// Bits of CR0 that have a meaning.
const CR0_BITS: u64 = cr::CR0_PE
    | cr::CR0_MP
    | cr::CR0_EM
    | cr::CR0_TS
    | cr::CR0_ET
    | cr::CR0_NE
    | cr::CR0_WP
    | cr::CR0_AM
    | cr::CR0_NW
    | cr::CR0_CD
    | cr::CR0_PG;

/// Bits of RFLAGS that are always 0, and VM.
const RFLAGS_ZERO: u64 = !0x3f_7fd7 | cr::RFLAGS_VM;

fn fits(address: u64, bits: u8) -> bool {
    bits >= 64 || address >> bits == 0
}

fn rights(s: HvX64SegmentRegister) -> u32 {
    rights_from_attributes(s.attributes)
}

fn usable(s: HvX64SegmentRegister) -> bool {
    rights(s) & ar::UNUSABLE == 0
}

fn kind(s: HvX64SegmentRegister) -> u16 {
    s.attributes & 0xf
}

/// Reserved bits, and a limit that the granularity can express.
fn is_shaped(s: HvX64SegmentRegister) -> bool {
    let pages = rights(s) & ar::G != 0;
    s.attributes & 0xf00 == 0
        && if pages {
            s.limit & 0xfff == 0xfff
        } else {
            s.limit >> 20 == 0
        }
}

/// Code or data.
fn is_memory(s: HvX64SegmentRegister) -> bool {
    rights(s) & ar::S != 0 && is_shaped(s)
}

/// DS, ES, FS or GS: accessed, and readable if it is code.
fn is_data(s: HvX64SegmentRegister, long_base: bool) -> bool {
    !usable(s)
        || kind(s) & 1 != 0
            && kind(s) & 0b1010 != 0b1000
            && is_memory(s)
            && (long_base || s.base >> 32 == 0)
}

/// TR or LDTR: in the GDT.
fn is_system(s: HvX64SegmentRegister, kinds: &[u16]) -> bool {
    kinds.contains(&kind(s)) && rights(s) & ar::S == 0 && is_shaped(s) && s.selector & 4 == 0
}

/// The way of a context from a caller to a VP that waits for its start. The VP's thread owns the states; whoever
/// starts it takes it from one that waits to one that will start.
#[derive(Debug)]
pub struct StartSlot {
    state: AtomicU32,
    words: [AtomicU64; CONTEXT_WORDS],
}

const RUNS: u32 = 0;
const WAITS: u32 = 1;
/// Somebody writes the context.
const CLAIMED: u32 = 2;
const READY: u32 = 3;

impl Default for StartSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl StartSlot {
    /// Of a VP that runs.
    pub const fn new() -> Self {
        Self {
            state: AtomicU32::new(RUNS),
            words: [const { AtomicU64::new(0) }; CONTEXT_WORDS],
        }
    }

    #[inline]
    fn change(&self, from: u32, to: u32) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The VP waits to be started; if it does already, nothing changes.
    #[inline]
    pub fn wait(&self) {
        let _ = self.change(RUNS, WAITS);
    }

    /// Whether [`Self::start`] could do it now.
    #[inline]
    pub fn waits(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITS
    }

    /// A start-up IPI starts the VP. False: a call was first.
    #[inline]
    pub fn take_sipi(&self) -> bool {
        self.change(WAITS, RUNS)
    }

    /// The VMM has made the VP run.
    #[inline]
    pub fn run(&self) {
        self.state.store(RUNS, Ordering::Release);
    }

    /// Gives the VP a context, for any thread. False: it does not wait for one.
    pub fn start(&self, context: &InitialVpContext) -> bool {
        if !self.change(WAITS, CLAIMED) {
            return false;
        }
        for (to, from) in self.words.iter().zip(context.0) {
            to.store(from, Ordering::Relaxed);
        }
        self.change(CLAIMED, READY)
    }

    /// The VP takes its context, and runs.
    pub fn take(&self) -> Option<InitialVpContext> {
        if self.state.load(Ordering::Acquire) != READY {
            return None;
        }
        let mut words = [0; CONTEXT_WORDS];
        for (to, from) in words.iter_mut().zip(&self.words) {
            *to = from.load(Ordering::Relaxed);
        }
        self.state.store(RUNS, Ordering::Release);
        Some(InitialVpContext(words))
    }
}

#[cfg(test)]
mod tests;
