// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One module per verb.

pub mod check;
pub mod console;
pub mod info;
pub mod list;
pub mod start;
pub mod stats;
pub mod status;
pub mod stop;

use anyhow::Result;
use serde::Serialize;

/// Prints `value` as JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Bytes in the largest unit that divides them.
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units
        .iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes % (1 << shift) == 0)
    {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!(size(512 << 20), "512 MiB");
        assert_eq!(size(3 << 30), "3 GiB");
        assert_eq!(size((1 << 20) + 4096), "1028 KiB");
        assert_eq!(size(0), "0 B");
    }
}
