//! The benches, as `cargo xtask bench` starts them.

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use fairlead_tests::bench;

#[derive(Parser)]
#[command(about = "Fairlead beside what else does the same, in one run on this machine")]
enum Bench {
    /// New connections a second through the translation of addresses
    Load {
        /// Seconds of load on each path, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// New connections a second; 0: as many as are answered
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> Result<ExitCode> {
    let Bench::Load { seconds, rate, json } = Bench::parse();
    let findings = bench::load::run(seconds, rate)?;
    print!("{findings}");
    if let Some(file) = json {
        fs::write(&file, serde_json::to_string_pretty(&findings)?)
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(if findings.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
