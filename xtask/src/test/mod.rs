//! `cargo xtask test`: everything that must pass, what fails soonest first.

mod cluster;
mod fuzz;
mod host;

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_cluster::CLUSTER;

use crate::{e2e::E2e, paths, run, setup::Part, tally::Tally, vm::Vm};

/// Runs every test: units, behaviour in the lab (as root), fuzz targets, the kernel matrix, a real cluster, upstream's specs
#[derive(Args)]
pub(crate) struct Test {
    /// Only tests whose name contains this; without fuzz targets of another name, the kernel matrix and clusters
    filter: Option<String>,
    /// Without fuzz targets, the kernel matrix and clusters
    #[arg(long)]
    quick: bool,
    /// Only the tests on a real cluster
    #[arg(long, conflicts_with = "quick")]
    cluster: bool,
    /// How many behaviour tests run at once; each has a lab of its own [default: the number of CPUs]
    #[arg(long)]
    threads: Option<usize>,
}

/// What a step came to.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    /// Names of what failed.
    failures: Vec<String>,
}

impl Outcome {
    /// A step that could not be run is one failed test.
    fn broken(step: &str, error: &anyhow::Error) -> Self {
        Self { tally: Tally::one(false), failures: vec![format!("{step}: {error:#}")] }
    }
}

/// One step: what it is called and how it is run.
type Step<'a> = (&'a str, Box<dyn Fn() -> Result<Outcome> + 'a>);

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        let start = Instant::now();
        run::root_prefix()?;
        if self.cluster {
            Part::Cluster.bring()?;
            return conclude(start, &[("cluster", Box::new(|| cluster::run(self.filter.as_deref())))]);
        }
        let whole = !self.quick && self.filter.is_none();
        if whole {
            [Part::Emulator, Part::Kernels, Part::Cluster, Part::TestRoot].into_iter().try_for_each(Part::bring)?;
        }
        if self.filter.is_none() {
            // Behaviour tests start API servers where no network is: what Go has to fetch is fetched here.
            crate::cluster::builder()?.build(CLUSTER)?;
        }
        build_binaries()?;

        let mut steps: Vec<Step<'_>> = vec![
            ("unit tests", Box::new(|| host::units(self.filter.as_deref()))),
            ("behaviour tests", Box::new(|| host::behaviour(self.filter.as_deref(), self.threads))),
        ];
        if !self.quick {
            steps.push(("fuzz targets", Box::new(|| fuzz::all(self.filter.as_deref()))));
        }
        if whole {
            steps.push(("kernel matrix", Box::new(matrix)));
            steps.push(("cluster", Box::new(|| cluster::run(None))));
            steps.push(("upstream's specs", Box::new(conformance)));
        }
        conclude(start, &steps)
    }
}

/// Runs the steps and says what they came to.
fn conclude(start: Instant, steps: &[Step<'_>]) -> Result<()> {
    let mut total = Outcome::default();
    let mut lines = Vec::new();
    for (index, (name, step)) in steps.iter().enumerate() {
        run::say(format!("[{}/{}] {name}", index + 1, steps.len()));
        let begin = Instant::now();
        let outcome = step().unwrap_or_else(|error| Outcome::broken(name, &error));
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

/// The matrix has said what is wrong in its own words.
fn matrix() -> Result<Outcome> {
    let tally = Vm::default().tally()?;
    let failures =
        (tally.failed > 0).then(|| "kernel matrix: see the verifiers' logs above, or `cargo xtask vm`".to_owned());
    Ok(Outcome { tally, failures: failures.into_iter().collect() })
}

/// What upstream asks of the network of every cluster.
fn conformance() -> Result<Outcome> {
    let verdict = E2e::conformance().verdict()?.context("they are not only listed")?;
    Ok(Outcome { tally: verdict.tally(), failures: verdict.wrong })
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
