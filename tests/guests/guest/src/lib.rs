// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Micro-guests: small bootable images that assert, from inside a virtual
//! machine, what the SDM and the TLFS promise to a guest.
//!
//! # Build and run
//!
//! ```text
//! cargo build --release --manifest-path tests/guests/Cargo.toml --target-dir build/guests
//! qemu-system-x86_64 -accel tcg -cpu max -m 256 -smp 2 -display none -serial stdio \
//!     -device isa-debug-exit,iobase=0xf4 -kernel build/guests/release/cpuid
//! ```
//!
//! Each file or directory in `images/src/bin` is one image. Any VMM will do that
//! loads an ELF by its PVH note and has a 16550 at 0x3F8; at least 64 MiB of RAM
//! from address 0 and a local APIC at 0xFEE00000 are taken for granted. `triple`
//! ends in a crash of the guest, `bench` measures; all others assert.
//!
//! A machine that boots by BIOS runs the same images through a Multiboot loader
//! (GRUB, SYSLINUX' `mboot.c32`) once the word at file offset 0x1000 is made
//! 0x1BADB002, see `boot.S`. So Bochs by itself can be asked what a processor does.
//!
//! # Who is right
//!
//! Tests say what the SDM and the TLFS say. Where other machines are known to do
//! otherwise:
//!
//! | machine | fails |
//! |---|---|
//! | TCG | skipped there by [`hv::tcg`]: reserved bits, unknown MSRs, ESR, #AC, #XM |
//! | Bochs 3.0 itself | `apic_base_transitions`, `back_to_xapic` (an APIC that was off stays off), `*_software_disabled`, `x2apic_faults`, `x2apic_reserved_bits`, `deadline_fires` (armed after firing), `deadline_follows_adjust`, `tsc_aux` (upper half), `debugctl` |
//! | QEMU with KVM | what `tests/on-kvm` lists, with the reasons; `make test-on-kvm` compares |
//!
//! # Protocol (COM1)
//!
//! | line | meaning |
//! |---|---|
//! | `ok NAME [IDS]` | passed; IDS are rows of the TLFS matrix, or `-` |
//! | `not ok NAME [IDS]: reason` | failed |
//! | `skip NAME: reason` | this machine lacks what the test needs |
//! | `bench NAME ticks MEDIAN min MIN n N` | a measurement in TSC ticks |
//! | `# text` | remark |
//! | `done N_ok N_failed` | the end; then port 0xF4 gets 0 (pass) or 1 (fail) |
//!
//! `without=NAME,NAME` on the command line leaves tests out: those that would end a
//! machine before the others had their turn.
//!
//! # Writing a test
//!
//! A test is a function `fn() -> Verdict` in the table of its image. It fails
//! by panicking (`assert!` and friends) or by an exception nobody expected;
//! the harness reports either and goes on with the next test. Time limits are
//! counted in TSC ticks and in rounds (see [`time`]): under an emulator one
//! tick may be one instruction. Instructions that may fault are run by the
//! functions of [`probe`], which give the fault as an `Err`.
//!
//! Definitions (MSR numbers, bits) are this crate's own, typed from the
//! manuals and not shared with the hypervisor, so that a wrong constant there
//! is seen here.
//!
//! # Safety
//!
//! A guest is one trust domain and owns its machine. Privileged instructions
//! are therefore safe functions here: a test that misuses one breaks its own
//! machine and fails. `unsafe` marks raw memory and assembly.
#![no_std]
#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod apic;
mod boot;
pub mod compat;
pub mod console;
pub mod cpu;
pub mod cpuid;
pub mod expect;
pub mod harness;
pub mod hv;
pub mod idt;
pub mod measure;
mod mem;
pub mod msr;
pub mod paging;
pub mod percpu;
pub mod probe;
pub mod record;
pub mod smp;
pub mod synic;
pub mod time;
pub mod user;
pub mod xstate;

pub use harness::Verdict::Pass;
pub use harness::{Test, Verdict};
