//! `cargo xtask lint`: formatting, clippy on both targets with warnings as errors, and files that are made from others.

use anyhow::{Context, Result};
use clap::Args;

use crate::{ebpf, manifests, run};

/// Checks formatting and manifests and runs clippy, on the host's crates and on the eBPF programs
#[derive(Args)]
pub(crate) struct Lint {}

impl Lint {
    #[expect(clippy::unused_self, reason = "every command runs in the same way")]
    pub(crate) fn run(&self) -> Result<()> {
        run::say("formatting");
        run::run(run::cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` repairs it")?;
        run::say("manifests");
        manifests::check()?;
        run::say("clippy, host");
        run::run(run::cargo().args(["clippy", "--locked", "--all-targets", "--", "-D", "warnings"]))?;
        run::say("clippy, eBPF");
        ebpf::clippy()
    }
}
