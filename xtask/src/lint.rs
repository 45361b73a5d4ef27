//! `cargo xtask lint`: formatting, clippy on both targets and documentation with warnings as errors, dependencies, and files
//! that are made from others.

use anyhow::{Context, Result};
use clap::Args;

use crate::{deny, ebpf, manifests, run};

/// Every package but the programs, which compile for the kernel alone.
const HOST: [&str; 4] = ["--locked", "--workspace", "--exclude", "fairlead-programs"];

/// Packages that are programs alone.
const WITHOUT_LIBRARY: [&str; 4] = ["fairlead-datapath-fuzz", "fairlead-dns-fuzz", "fairlead-verifier", "xtask"];

/// Checks formatting, manifests, dependencies and documentation and runs clippy, on the host's crates and the eBPF programs
#[derive(Args)]
pub(crate) struct Lint {}

impl Lint {
    #[expect(clippy::unused_self, reason = "every command runs in the same way")]
    pub(crate) fn run(&self) -> Result<()> {
        run::say("formatting");
        run::run(run::cargo().args(["fmt", "--all", "--check"])).context("fix it with `cargo fmt --all`")?;
        run::say("manifests");
        manifests::check()?;
        run::say("dependencies");
        deny::offline()?;
        run::say("clippy, host");
        run::run(run::cargo().arg("clippy").args(HOST).args(["--all-targets", "--", "-D", "warnings"]))?;
        run::say("clippy, eBPF");
        ebpf::clippy()?;
        run::say("documentation");
        // Programs named as their library document the same page.
        run::run(run::documented(run::cargo().arg("doc").args(HOST).arg("--lib")))?;
        let packages = WITHOUT_LIBRARY.iter().flat_map(|package| ["--package", package]);
        run::run(run::documented(run::cargo().args(["doc", "--locked", "--bins"]).args(packages)))?;
        ebpf::doc()
    }
}
