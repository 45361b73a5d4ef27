//! `cargo xtask ebpf`: the object of what runs in the kernel, with the same bytes from every checkout.

mod build;
mod inspect;

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

pub(crate) use build::{clippy, doc};

use crate::{paths, run};

/// Builds the eBPF object and installs it as ebpf/fairlead.bpf.o
#[derive(Args)]
pub(crate) struct Ebpf {
    /// Change nothing; fail if the committed object is not up to date with the source
    #[arg(long)]
    check: bool,
}

impl Ebpf {
    pub(crate) fn run(&self) -> Result<()> {
        run::say("building the eBPF object");
        let built = build::object()?;
        inspect::verify(&built)?;
        let committed = paths::object();
        let shown = committed.strip_prefix(paths::workspace()).unwrap_or(&committed).display();
        let old = fs::read(&committed).unwrap_or_default();
        match (self.check, old == built) {
            (_, true) => println!("{shown} is up to date with the source ({} bytes)", built.len()),
            (false, false) => {
                fs::write(&committed, &built).with_context(|| format!("can't write {shown}"))?;
                println!(
                    "{shown} is new ({} bytes, was {}): commit it with the change that made it",
                    built.len(),
                    old.len()
                );
            }
            (true, false) => bail!(
                "{shown} ({} bytes) is out of date: the source gives {} bytes. Run `cargo xtask ebpf` and commit the \
                 result. After a merge, build the object again, never merge it",
                old.len(),
                built.len()
            ),
        }
        Ok(())
    }
}
