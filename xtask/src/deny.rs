//! `cargo xtask deny`: licences, sources and duplicates of dependencies, as `deny.toml` has them.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use clap::Args;

use crate::{paths, pins, run, setup::Part};

/// Checks dependencies against deny.toml: licences, bans and sources, or what is named
///
/// `advisories` needs the network: its database is on GitHub.
#[derive(Args)]
pub(crate) struct Deny {
    /// What to check
    #[arg(value_name = "CHECK", default_values = ["licenses", "bans", "sources"])]
    checks: Vec<String>,
}

impl Deny {
    pub(crate) fn run(&self) -> Result<()> {
        check(&self.checks)
    }
}

/// Everything that can be checked without a database.
pub(crate) fn offline() -> Result<()> {
    check(&["licenses", "bans", "sources"].map(str::to_owned))
}

fn check(checks: &[String]) -> Result<()> {
    Part::CargoDeny.require()?;
    let mut command = Command::new(program()?);
    command.current_dir(paths::workspace()).args(["--locked", "--workspace", "check", "--hide-inclusion-graph"]);
    run::run(command.args(checks))
}

/// Where it is in the cache. The folder names the version.
pub(crate) fn root() -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("cargo-deny-{}", pins::CARGO_DENY)))
}

/// The program.
pub(crate) fn program() -> Result<PathBuf> {
    Ok(root()?.join("bin/cargo-deny"))
}
