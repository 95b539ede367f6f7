// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Runs an image's table of tests and reports.

use crate::idt::{self, Frame, Outcome};
use crate::{apic, boot, console, cpu, hv, percpu, say, smp};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How a test that did not panic ended.
pub enum Verdict {
    /// It holds.
    Pass,
    /// It cannot be asked on this machine, with the reason.
    Skip(&'static str),
}

/// One row of an image's table.
pub struct Test {
    /// Name, unique in the image.
    pub name: &'static str,
    /// Matrix rows covered, `-` for none.
    pub ids: &'static str,
    /// The test.
    pub run: fn() -> Verdict,
}

/// A row of the table: `test!(name, "IDS", function)`.
#[macro_export]
macro_rules! test {
    ($name:ident, $ids:literal, $run:expr) => {
        $crate::Test {
            name: stringify!($name),
            ids: $ids,
            run: $run,
        }
    };
}

/// Skips the test unless the condition holds.
#[macro_export]
macro_rules! require {
    ($condition:expr, $reason:literal) => {
        if !$condition {
            return $crate::Verdict::Skip($reason);
        }
    };
}

/// Makes an image of a table of tests.
#[macro_export]
macro_rules! image {
    ($name:literal, [$($test:expr),* $(,)?]) => {
        #[no_mangle]
        extern "C" fn guest_main() -> ! {
            static TESTS: &[$crate::Test] = &[$($test),*];
            $crate::harness::run($name, TESTS)
        }
    };
}

static TESTS: AtomicUsize = AtomicUsize::new(0);
static CURRENT: AtomicUsize = AtomicUsize::new(usize::MAX);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);

const LEFT_FAILED: u64 = 1;

fn current_test() -> Option<&'static Test> {
    let table = TESTS.load(Ordering::Acquire) as *const Test;
    let (index, count) = (
        CURRENT.load(Ordering::Acquire),
        COUNT.load(Ordering::Acquire),
    );
    // SAFETY: `run` stored the address and length of a static table.
    (index < count).then(|| unsafe { &*table.add(index) })
}

/// Name of the running test.
pub fn current() -> &'static str {
    current_test().map_or("boot", |t| t.name)
}

extern "C" fn run_one(index: u64) {
    let test = current_test().expect("set by run");
    debug_assert_eq!(index as usize, CURRENT.load(Ordering::Relaxed));
    let verdict = if LEFT_OUT.load(Ordering::Relaxed) >> index & 1 != 0 {
        Verdict::Skip("left out")
    } else {
        (test.run)()
    };
    match verdict {
        Verdict::Pass if FAILED.load(Ordering::Acquire) => {}
        Verdict::Pass => say!("ok {} [{}]", test.name, test.ids),
        Verdict::Skip(reason) => {
            say!("skip {}: {}", test.name, reason);
            SKIPPED.store(true, Ordering::Relaxed);
        }
    }
}

/// Bits of the tests that the command line leaves out (`without=NAME,NAME`) because they would end this machine.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

fn left_out(tests: &[Test]) -> u64 {
    assert!(tests.len() <= 64);
    let names = || {
        boot::command_line()
            .split(' ')
            .filter_map(|word| word.strip_prefix("without="))
            .flat_map(|names| names.split(','))
    };
    let bit = |(index, test): (usize, &Test)| u64::from(names().any(|n| n == test.name)) << index;
    tests.iter().enumerate().map(bit).sum()
}

static SKIPPED: AtomicBool = AtomicBool::new(false);

/// Runs all tests, prints the summary and ends the machine.
pub fn run(image: &'static str, tests: &'static [Test]) -> ! {
    say!("# image {image}");
    // Before a test writes where the loader left it.
    LEFT_OUT.store(left_out(tests), Ordering::Relaxed);
    TESTS.store(tests.as_ptr() as usize, Ordering::Release);
    COUNT.store(tests.len(), Ordering::Release);
    let (mut ok, mut failed) = (0, 0);
    for index in 0..tests.len() {
        CURRENT.store(index, Ordering::Release);
        FAILED.store(false, Ordering::Release);
        SKIPPED.store(false, Ordering::Relaxed);
        idt::reset_hooks();
        cpu::cli();
        if idt::guarded(run_one, index as u64) != Outcome::Returned
            || FAILED.load(Ordering::Acquire)
        {
            failed += 1;
            recover();
        } else if !SKIPPED.load(Ordering::Relaxed) {
            ok += 1;
        }
    }
    say!("done {ok} {failed}");
    console::exit(failed != 0)
}

/// After a failure: state that would spoil the tests behind it.
fn recover() {
    cpu::cli();
    if smp::busy() {
        smp::restart();
    }
    apic::init();
    cpu::set_cr8(0);
    hv::forget();
    for vector in 32..=255 {
        idt::hook(vector, |_| apic::eoi());
    }
    for _ in 32..=255 {
        apic::eoi(); // whatever is in service
        cpu::take_interrupts(); // and whatever is pending
    }
    cpu::set_dr7(0x400);
    if crate::cpuid::RDTSCP.present() {
        let _ = crate::probe::wrmsr(crate::msr::IA32_TSC_AUX, 0);
    }
}

/// Reports the running test as failed; the first reason is the one that counts.
pub fn fail(reason: core::fmt::Arguments<'_>) {
    let cpu = percpu::index();
    if FAILED.swap(true, Ordering::AcqRel) {
        say!("# {} on CPU {cpu}: {reason}", current());
        return;
    }
    let ids = current_test().map_or("-", |t| t.ids);
    if cpu == 0 {
        say!("not ok {} [{}]: {}", current(), ids, reason);
    } else {
        say!("not ok {} [{}]: on CPU {cpu}: {}", current(), ids, reason);
    }
}

pub(crate) fn unexpected(frame: &Frame, cr2: u64) -> ! {
    let name = idt::vector_name(frame.vector as u8);
    fail(format_args!(
        "unexpected {name} vector {} error {:#x} rip {:#x}:{:#x} rsp {:#x} rflags {:#x} cr2 {:#x}",
        frame.vector, frame.error, frame.cs, frame.rip, frame.rsp, frame.rflags, cr2
    ));
    idt::leave(LEFT_FAILED)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let line = info.location().map_or(0, |l| l.line());
    fail(format_args!("line {line}: {}", info.message()));
    idt::leave(LEFT_FAILED)
}
