//! `cargo xtask bench`: the programs are built, `fairlead-bench` (tests/) does the rest. What was found is in
//! tests/bench/README.md.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use fairlead_cluster::{CLUSTER, KUBE_PROXY};

use crate::{cluster::builder, paths, run, setup::Part, test, vm};

/// Compares Fairlead with other software that does the same, as root, in one run on this machine
#[derive(Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// New connections per second through NAT, compared with the kernel's netfilter
    Load {
        /// Seconds of load on each path, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// New connections per second; 0: as many as are answered
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// Only rows with this in their name
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// A connection from outside to a NodePort whose backend is on another node, with XDP compared with tcx
    Xdp {
        /// Seconds of load on each row, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// ADD and DEL of pods, one at a time and thirty at once, beside the reference plugin bridge with host-local
    Cni {
        /// Rounds of twenty pods one at a time and thirty at once, on each side
        #[arg(long, default_value_t = 4)]
        rounds: u32,
        /// Measure the programs of this directory before those of this tree: fairlead and fairlead-cni of another version
        #[arg(long, value_name = "DIRECTORY")]
        before: Option<PathBuf>,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Answers of fairlead-dns, compared with CoreDNS with the same objects and kubeadm's Corefile
    Dns {
        /// Seconds of load on each row, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Queries per second; 0: as many as are answered
        #[arg(long, default_value_t = 0)]
        rate: u32,
        /// Only rows with this in their name
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// How much longer an answer of fairlead-dns takes whose name a rule with domainNames has, release builds
    Names {
        /// Answers of each kind
        #[arg(long, default_value_t = 10_000)]
        answers: usize,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Nanoseconds of the walks that most packets take, through the committed object on the running kernel
    Walk {
        /// How often each packet is run
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// Many queries to fairlead-dns while its upstream servers die, lie, truncate and come back: nothing is lost, and memory
    /// and open files stay what they are
    SoakDns {
        /// Number of queries
        #[arg(long, default_value_t = 10_000_000)]
        questions: u64,
    },
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        run::root_prefix()?;
        if let What::Walk { runs } = &self.what {
            return vm::measure(*runs);
        }
        // nft and ip.
        Part::Cluster.bring()?;
        // What is measured there runs in user space.
        let binaries = if matches!(self.what, What::Names { .. }) {
            release_binaries()?
        } else {
            test::build_binaries()?;
            test::binaries()
        };
        let program = binaries.join("fairlead-bench");
        let mut command = run::as_root(&program.display().to_string())?;
        command.env("FAIRLEAD_BIN_DIR", binaries);
        match &self.what {
            What::Load { seconds, rate, only, json } => {
                command.args(["load", "--seconds", &seconds.to_string(), "--rate", &rate.to_string()]);
                command.args(only.iter().flat_map(|text| ["--only", text]));
                command.args(json.iter().flat_map(|file| ["--json".into(), file.clone().into_os_string()]));
            }
            What::Cni { rounds, before, json } => {
                let plugins = plugins()?;
                let plugins = plugins.to_string_lossy();
                let rounds = rounds.to_string();
                if let Some(before) = before {
                    let mut other = run::as_root(&program.display().to_string())?;
                    other.env("FAIRLEAD_BIN_DIR", std::fs::canonicalize(before)?);
                    run::run(other.args(["cni", "--label", "Fairlead before", "--rounds", &rounds]))?;
                }
                command.args(["cni", "--rounds", &rounds, "--plugins", &plugins]);
                command.args(json.iter().flat_map(|file| ["--json".into(), file.clone().into_os_string()]));
            }
            What::Dns { seconds, rate, only, json } => {
                command.args(["dns", "--seconds", &seconds.to_string(), "--rate", &rate.to_string()]);
                command.arg("--program").arg(prepare_dns()?);
                command.args(only.iter().flat_map(|text| ["--only", text]));
                command.args(json.iter().flat_map(|file| ["--json".into(), file.clone().into_os_string()]));
            }
            What::Xdp { seconds, json } => {
                command.args(["xdp", "--seconds", &seconds.to_string()]);
                command.args(json.iter().flat_map(|file| ["--json".into(), file.clone().into_os_string()]));
            }
            What::Names { answers, json } => {
                command.args(["names", "--answers", &answers.to_string()]);
                command.args(json.iter().flat_map(|file| ["--json".into(), file.clone().into_os_string()]));
            }
            What::Walk { .. } => {}
            What::SoakDns { questions } => {
                command.args(["soak-dns", "--questions", &questions.to_string(), "--program"]).arg(release_dns()?);
            }
        }
        run::say("measuring: other load on this machine affects the numbers");
        run::run(&mut command)
    }
}

/// The directory of the reference plugins, built.
fn plugins() -> Result<PathBuf> {
    let builder = builder()?;
    let parts: Vec<_> =
        KUBE_PROXY.iter().filter(|part| ["bridge", "host-local"].contains(&part.name)).copied().collect();
    builder.build(&parts)?;
    let bridge = parts.first().context("the cluster's parts have no bridge plugin")?;
    Ok(builder.path(bridge)?.parent().context("the path of the bridge plugin has no directory")?.to_owned())
}

/// What the comparison with CoreDNS takes: the parts of a cluster, since there is no network where it runs, and
/// fairlead-dns as it is released.
fn prepare_dns() -> Result<PathBuf> {
    Part::Dnsperf.bring()?;
    let coredns = KUBE_PROXY.iter().filter(|part| part.name == "coredns");
    let parts: Vec<_> = CLUSTER.iter().chain(coredns).copied().collect();
    builder()?.build(&parts)?;
    release_dns()
}

/// Builds the programs of a lab as they are released. Returns their directory.
fn release_binaries() -> Result<PathBuf> {
    run::say("building the release build of the programs");
    run::run(run::cargo().args(["build", "--locked", "--release", "--bins"]))?;
    Ok(paths::target().join("release"))
}

/// Builds fairlead-dns as it is released.
fn release_dns() -> Result<PathBuf> {
    run::say("building the release build of fairlead-dns");
    run::run(run::cargo().args(["build", "--locked", "--release", "-p", "fairlead-dns"]))?;
    Ok(paths::target().join("release/fairlead-dns"))
}
