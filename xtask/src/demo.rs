//! `cargo xtask demo`: the programs are built, `fairlead-demo` (tests/) does the rest.

use std::os::unix::process::CommandExt as _;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{run, test};

const DEMO: &str = "fairlead-demo";

/// Runs a small cluster of real manifests on this machine, as root, and shows what Fairlead does for it
#[derive(Args)]
pub(crate) struct Demo {
    /// Leave the cluster up and say how to look around
    #[arg(long)]
    keep: bool,
    /// How to print what was found: `text` or `json`
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: String,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<()> {
        run::root_prefix()?;
        test::build_binaries()?;
        let program = test::binaries().join(DEMO);
        if !program.is_file() {
            bail!("{DEMO} was not built: it is a program of the package fairlead-tests");
        }
        let mut command = run::as_root(&program.display().to_string())?;
        command.env("FAIRLEAD_BIN_DIR", test::binaries()).args(self.keep.then_some("--keep"));
        command.args(["--output", &self.output]);
        run::say("starting the demo");
        // In place of this process: what a terminal sends on Ctrl-C goes to the demo, which cleans up.
        Err(command.exec()).with_context(|| format!("can't start {}", program.display()))
    }
}
