// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What partitions and VPs that do nothing cost, beside page tables; and that the VMM's cgroup is charged for it.

use super::kept::{number, Cgroup};
use crate::guests;
use crate::run::{case, ensure, good, Case, Outcome, Stop};
use crate::sys::sleep_ms;
use crate::vm::*;

const KIB: u64 = 1 << 10;
/// The most that one may cost.
const PARTITION: u64 = 256 * KIB;
const VP: u64 = 64 * KIB;
/// So many at once: counters of memory are exact to some hundred KiB only.
const MANY: u32 = 64;

/// Bytes that each of `MANY` costs that `make` makes, by what the cgroup is charged.
fn cost<T>(group: &Cgroup, make: impl FnOnce() -> Result<T, Stop>) -> Result<u64, Stop> {
    let charged = || {
        // What was freed before is back, and what was allocated is counted.
        sleep_ms(200);
        number(&group.file("memory.current"))
    };
    let before = charged()?;
    let made = make()?;
    let after = charged()?;
    drop(made);
    Ok(after.saturating_sub(before) / u64::from(MANY))
}

fn idle() -> Outcome {
    let group = Cgroup::new()?;
    // What is allocated once is there then.
    drop(Guest::new(guests::halt())?);
    let partition = cost(&group, || {
        let all: Vec<_> = (0..MANY).map(|_| Partition::ready()).collect();
        Ok(all)
    })?;
    let vp = cost(&group, || {
        let partition = Partition::ready();
        let mut all = Vec::new();
        for index in 0..MANY {
            let vp = good("CREATE_VP", partition.create_vp(index))?;
            // The VMCS is made at the first use.
            vp.register(names::HV_X64_REGISTER_RIP)?;
            all.push(vp);
        }
        Ok(all)
    })?;
    println!(
        "# idle: a partition costs {} KiB, a VP {} KiB",
        partition / KIB,
        vp / KIB
    );
    for (what, cost, least, most) in [
        ("partition", partition, 4 * KIB, PARTITION),
        // VMCS, APIC page, XSAVE area, register, message and SynIC pages.
        ("VP", vp, 24 * KIB, VP),
    ] {
        // What is not charged a process could have without bound.
        ensure((least..=most).contains(&cost), || {
            format!("a {what} costs {cost} bytes, which are not {least} to {most}")
        })?;
    }
    Ok(())
}

pub fn cases() -> Vec<Case> {
    vec![case(
        "idle partitions and VPs: what they cost the VMM's cgroup",
        idle,
    )]
}
