//! `cargo xtask bench`: the programs are built, `fairlead-bench` (tests/) does the rest. What was found is in
//! tests/bench/README.md.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{run, setup::Part, test};

/// Measures Fairlead beside what else does the same, as root, in one run on this machine
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// New connections a second through the translation of addresses, beside the kernel's netfilter
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

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        run::root_prefix()?;
        // nft and ip.
        Part::Cluster.bring()?;
        test::build_binaries()?;
        let program = test::binaries().join("fairlead-bench");
        let mut command = run::as_root(&program.display().to_string())?;
        command.env("FAIRLEAD_BIN_DIR", test::binaries());
        match &self.what {
            What::Load { seconds, rate, json } => {
                command.args(["load", "--seconds", &seconds.to_string(), "--rate", &rate.to_string()]);
                command.args(json.iter().flat_map(|file| ["--json".into(), file.clone().into_os_string()]));
            }
        }
        run::say("measuring: what else runs on this machine is in the numbers");
        run::run(&mut command)
    }
}
