// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `hvrsctl check`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::host::{self, Host, Item, Verdict};

/// Tell, item by item, whether this host can run hvrs
///
/// The exit status is 0 when nothing stands in the way, and 1 otherwise.
#[derive(Args)]
pub struct Check {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    result: Verdict,
    items: Vec<Item>,
}

impl Check {
    /// Prints the items.
    pub fn run(self) -> Result<ExitCode> {
        let items = host::check(&Host::this());
        let result = items
            .iter()
            .map(|item| item.result)
            .max()
            .unwrap_or(Verdict::Ok);
        let status = if result == Verdict::Fail {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
        if self.json {
            super::print_json(&Report { result, items })?;
            return Ok(status);
        }
        for item in &items {
            println!("{:<4}  {}: {}", item.result.word(), item.name, item.detail);
            if let Some(remedy) = &item.remedy {
                println!("      → {remedy}");
            }
        }
        println!();
        println!(
            "{}",
            match result {
                Verdict::Fail => "This host cannot run hvrs as it is.",
                _ => "This host can run hvrs.",
            }
        );
        Ok(status)
    }
}
