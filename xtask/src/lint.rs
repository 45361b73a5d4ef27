//! `cargo xtask lint`: formatting, clippy on both targets and documentation with warnings as errors, dependencies, and files
//! that are made from others.

use anyhow::{Context, Result};
use clap::Args;

use crate::{deny, ebpf, manifests, run};

/// Every package but the programs, which compile for the kernel alone.
const HOST: [&str; 4] = ["--locked", "--workspace", "--exclude", "fairlead-programs"];

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
        // Programs named as their library document the same page; xtask is the one that has no library.
        let doc = |packages: &[&str], targets| {
            let mut doc = run::cargo();
            doc.arg("doc").args(packages).args(["--no-deps", "--document-private-items", targets]);
            // Nothing is published: who reads these pages reads private items too.
            run::run(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"))
        };
        doc(&HOST, "--lib")?;
        doc(&["--locked", "--package", "xtask"], "--bins")
    }
}
