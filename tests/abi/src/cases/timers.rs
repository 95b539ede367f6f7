// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Synthetic timers of a VP that its VMM does not run in time.

use crate::guests;
use crate::run::{case, ensure, equal, eventually, Case, Outcome, Stop};
use crate::sys::sleep_ms;
use crate::threads::{interrupted, run_once};
use crate::vm::*;

const REFERENCE_TIME: u32 = 0x3_0005;
const STIMER0_CONFIG: u32 = 0xb_0000;
const STIMER0_COUNT: u32 = 0xb_0001;
const VECTOR: u64 = 0x30;
const ENABLE: u64 = 1;
const PERIODIC: u64 = 1 << 1;
const LAZY: u64 = 1 << 2;
const DIRECT: u64 = 1 << 12;
/// 40 ms.
const PERIOD: u64 = 400_000;
/// Where the guest counts interrupts.
const TICKS: usize = 0x2010;

/// A guest with a periodic timer, and when it was started.
struct Ticking {
    guest: Guest,
    start: u64,
}

impl Ticking {
    fn new(kind: u64) -> Result<Self, Stop> {
        let guest = Guest::new(guests::ticks())?;
        let handler = (ENTRY as u32 + 2).to_le_bytes();
        guest.memory.write(4 * VECTOR as usize, &handler);
        let vp = guest.vp();
        // Until it sleeps.
        let running = run_once(vp);
        eventually("the guest sleeps", 10, || {
            guest.memory.word(guests::COUNTER) > 0
        })?;
        interrupted(running.interrupt()?)?;
        vp.set_register(STIMER0_COUNT, PERIOD)?;
        let start = now(&guest)?;
        let config = ENABLE | PERIODIC | DIRECT | kind | (VECTOR << 4);
        vp.set_register(STIMER0_CONFIG, config)?;
        Ok(Self { guest, start })
    }

    /// Sleeps until `tenths` of the period after the start.
    fn wait(&self, tenths: u64) -> Outcome {
        while now(&self.guest)? < self.start + PERIOD * tenths / 10 {
            sleep_ms(1);
        }
        Ok(())
    }

    /// Runs until then; the interrupts that came meanwhile.
    fn run(&self, tenths: u64) -> Result<u32, Stop> {
        let before = self.guest.memory.word(TICKS);
        let running = run_once(self.guest.vp());
        self.wait(tenths)?;
        interrupted(running.interrupt()?)?;
        Ok(self.guest.memory.word(TICKS) - before)
    }
}

fn now(guest: &Guest) -> Result<u64, Stop> {
    let time = Hvcall::get_property(REFERENCE_TIME).make(&guest.partition);
    let bytes = time.map_err(|e| Stop::Fail(format!("reference time: {e:?}")))?;
    Ok(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")))
}

/// A late tick of a lazy timer comes once, or not at all if the next is near; others catch up.
fn lazy() -> Outcome {
    let timer = Ticking::new(LAZY)?;
    equal("in time", timer.run(13)?, 1)?;
    timer.wait(53)?;
    equal("4 late, then 3", timer.run(83)?, 1 + 3)?;
    timer.wait(117)?;
    equal("3 late, the next near", timer.run(123)?, 1)?;
    equal("in time again", timer.run(143)?, 2)
}

fn not_lazy() -> Outcome {
    let timer = Ticking::new(0)?;
    equal("in time", timer.run(13)?, 1)?;
    timer.wait(53)?;
    let ticks = timer.run(83)?;
    ensure((5..=7).contains(&ticks), || format!("{ticks} ticks"))
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case(
            "timers: late ticks of a lazy timer are left out [F-TM4]",
            lazy,
        )
        .within(60),
        case(
            "timers: late ticks of another are made up for [F-TM3]",
            not_lazy,
        )
        .within(60),
    ]
}
