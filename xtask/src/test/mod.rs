//! `cargo xtask test`: everything that must pass, what fails soonest first.

mod arm64;
mod cluster;
mod fuzz;
mod host;
mod reading;
mod steps;

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use self::steps::{Run, Step};
use crate::{paths, run, setup::Part, tally::Tally};

/// Runs every test: units, behaviour in the lab (as root), the kernel matrix, a real cluster, upstream's specs
#[derive(Args)]
pub(crate) struct Test {
    /// Only tests and fuzz targets whose name contains this; without the kernel matrix and clusters
    filter: Option<String>,
    /// Without the kernel matrix and clusters
    #[arg(long)]
    quick: bool,
    /// Only the tests on a real cluster
    #[arg(long, conflicts_with = "quick")]
    cluster: bool,
    /// Those on another Kubernetes, by its minor version: a folder of tests/cluster/versions
    #[arg(long, value_name = "MINOR", requires = "cluster")]
    kubernetes: Option<String>,
    /// Also what takes too long for every change: frames through every kernel, all of upstream's network specs
    #[arg(long, conflicts_with_all = ["quick", "cluster", "filter"])]
    full: bool,
    /// Only the soak: every kind of load on a real cluster while endpoints, pods, policies and agents come and go, first with
    /// kube-proxy
    #[arg(long, conflicts_with_all = ["quick", "cluster", "full", "filter"])]
    soak: bool,
    /// How long the soak takes with each network
    #[arg(long, requires = "soak", default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..))]
    minutes: u64,
    /// Show the steps and how long each takes, and run nothing
    #[arg(long)]
    list: bool,
    /// How many behaviour tests run at once; each has its own lab [default: the number of CPUs]
    #[arg(long)]
    threads: Option<usize>,
}

/// What a step came to.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    /// What failed: its name, and what it said in lines behind.
    failures: Vec<String>,
}

impl Outcome {
    /// A step that could not be run is one failed test.
    fn broken(step: &str, error: &anyhow::Error) -> Self {
        Self { tally: Tally::one(false), failures: vec![format!("{step}: {error:#}")] }
    }
}

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        let start = Instant::now();
        let run = self.which();
        let steps: Vec<&Step> = steps::of(run).collect();
        if self.list {
            println!("{}", steps::table(&steps));
            return Ok(());
        }
        run::root_prefix()?;
        steps.iter().flat_map(|step| step.needs).copied().try_for_each(Part::bring)?;
        if !matches!(run, Run::Cluster | Run::Soak) {
            build_binaries()?;
        }
        self.conclude(start, &steps)
    }

    fn which(&self) -> Run {
        match self {
            Self { full: true, .. } => Run::Full,
            Self { soak: true, .. } => Run::Soak,
            Self { cluster: true, .. } => Run::Cluster,
            Self { quick: true, .. } => Run::Quick,
            Self { filter: Some(_), .. } => Run::Named,
            _ => Run::Whole,
        }
    }

    /// How long a soak takes.
    fn soak_minutes(&self) -> u64 {
        if self.soak { self.minutes } else { cluster::SOAK }
    }

    fn kubernetes(&self) -> Option<&str> {
        self.kubernetes.as_deref()
    }

    fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    /// Runs the steps and says what they came to.
    fn conclude(&self, start: Instant, steps: &[&Step]) -> Result<()> {
        let mut total = Outcome::default();
        let mut lines = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let name = step.name;
            run::say(format!("[{}/{}] {name}", index + 1, steps.len()));
            let begin = Instant::now();
            let outcome = (step.act)(self).unwrap_or_else(|error| Outcome::broken(name, &error));
            lines.push(format!("{name:<16} {:<24} {:>4} s", outcome.tally.to_string(), begin.elapsed().as_secs()));
            total.tally += outcome.tally;
            total.failures.extend(outcome.failures);
        }

        println!("\n{}", lines.join("\n"));
        for failure in &total.failures {
            println!("FAILED {failure}");
        }
        println!("after {} s:", start.elapsed().as_secs());
        if total.tally == Tally::default() {
            bail!("no test has this in its name");
        }
        total.tally.conclude()
    }
}

/// Builds every program once, where tests and the demo look for them.
pub(crate) fn build_binaries() -> Result<()> {
    run::say("building the programs");
    run::run(run::cargo().args(["build", "--locked", "--bins"]))
}

/// Where [`build_binaries`] puts them. The development profile: it is built in a third of the time, and what is hot
/// runs in the kernel.
pub(crate) fn binaries() -> std::path::PathBuf {
    paths::target().join("debug")
}
