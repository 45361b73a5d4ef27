//! `cargo xtask e2e`: upstream's own tests of a cluster's network, on a cluster of this machine.
//!
//! Nothing is left out silently: `tests/cluster/left-out` says which specs are of no selection and why, `known-failures` beside
//! it names those that fail, each with the row of the behaviour tables that it waits for.

mod expect;
mod ginkgo;
mod specs;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_cluster::{E2E, Host, Spec};

use self::{
    expect::{Known, Verdict},
    ginkgo::Programs,
};
use crate::{
    cluster::{self, Network},
    paths, run,
    setup::Part,
    tally::Tally,
};

/// The specs of a cluster's network.
const NETWORK_SPECS: &str = r"\[sig-network\]";
/// NetworkPolicy's are of a feature, and take long: they are in the whole, and not in the selection for every day.
const POLICY: &str = " Netpol ";

/// Runs upstream's tests on a cluster: one that is up, or one that is made for it
#[derive(Args)]
pub(crate) struct E2e {
    /// Only specs that match this expression (of Go)
    #[arg(long, value_name = "EXPRESSION")]
    focus: Option<String>,
    /// How many specs run at once
    #[arg(long, default_value_t = 4)]
    procs: usize,
    /// NetworkPolicy's specs too
    #[arg(long)]
    all: bool,
    /// Say what would run, and what not and why
    #[arg(long)]
    list: bool,
    /// Which cluster
    #[arg(long, default_value = "e2e")]
    name: String,
    /// Who is tested, when the cluster is made for it
    #[arg(long, value_enum, default_value = "fairlead")]
    network: Network,
    /// How many nodes a cluster has that is made for it; with fewer than three some specs leave themselves out
    #[arg(long, default_value_t = 3)]
    nodes: u8,
}

impl E2e {
    pub(crate) fn run(&self) -> Result<()> {
        Part::Cluster.require()?;
        Part::TestRoot.require()?;
        let builder = cluster::builder()?;
        builder.build(E2E)?;
        cluster::become_root()?;
        let program = |name: &str| -> Result<PathBuf> {
            let part = E2E.iter().find(|part| part.name == name).context("it is a part of the tests")?;
            builder.path(part)
        };
        let programs = Programs { tests: program("e2e.test")?, ginkgo: program("ginkgo")? };
        let out = paths::target().join("e2e");
        fs::create_dir_all(&out)?;

        let read = |name: &str| -> Result<String> {
            let file = paths::workspace().join("tests/cluster").join(name);
            fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))
        };
        let known = Known::parse(&read("known-failures")?)?;
        let left_out = expect::left_out(&read("left-out")?)?;
        let names = ginkgo::list(&programs, self.focus.as_deref().unwrap_or(NETWORK_SPECS), &out)?;
        let choice = self.choose(&names, &left_out, &known);
        choice.say();
        if self.list {
            println!("{}", choice.chosen.join("\n"));
            return Ok(());
        }
        if choice.chosen.is_empty() {
            bail!("no spec is left to run");
        }

        let host = cluster::host()?;
        let running = host.open(&self.name).ok();
        let own = running.is_none();
        let cluster = match running {
            Some(cluster) => cluster,
            None => cluster::bring_up(&host, &Spec { nodes: self.nodes, ..Spec::new(&self.name) }, self.network, None)?,
        };
        let verdict = self.on(&host, &cluster, &programs, &choice.chosen, &known, &out);
        if own {
            cluster.down()?;
        }
        conclude(&verdict?, &out)
    }

    fn choose<'a>(&self, names: &'a [String], left_out: &[(String, String)], known: &'a Known) -> Choice<'a> {
        let mut choice = Choice::default();
        for name in names {
            // A feature that Fairlead has, though upstream does not ask every cluster for it.
            let policy = name.contains(POLICY);
            let reason = left_out.iter().find(|(text, _)| !policy && name.contains(text.as_str()));
            if let Some(reason) = known.cannot.get(name) {
                *choice.not.entry(reason.clone()).or_default() += 1;
            } else if let Some((text, reason)) = reason {
                *choice.not.entry(format!("{text}: {reason}")).or_default() += 1;
            } else if policy && !self.all && self.focus.is_none() {
                *choice.not.entry("NetworkPolicy: with --all".to_owned()).or_default() += 1;
            } else {
                choice.chosen.push(name);
            }
        }
        choice
    }

    fn on(
        &self,
        host: &Host,
        cluster: &fairlead_cluster::Cluster,
        programs: &Programs,
        chosen: &[&str],
        known: &Known,
        out: &std::path::Path,
    ) -> Result<Verdict> {
        host.load_test_images(cluster)?;
        let network = cluster.network();
        run::say(format!("{} specs on {} nodes with {network}", chosen.len(), cluster.spec().nodes));
        let begin = Instant::now();
        let ran = ginkgo::run(programs, cluster, chosen, self.procs, out)?;
        run::say(format!("they took {} s", begin.elapsed().as_secs()));
        // What Fairlead lacks the peer has.
        let none = Known::default();
        let known = if network == Network::Fairlead.word() { known } else { &none };
        Ok(expect::judge(chosen, &ran, known))
    }
}

/// Which specs run.
#[derive(Default)]
struct Choice<'a> {
    chosen: Vec<&'a str>,
    /// How many do not, by reason.
    not: BTreeMap<String, usize>,
}

impl Choice<'_> {
    fn say(&self) {
        run::say(format!("{} specs", self.chosen.len()));
        for (reason, count) in &self.not {
            run::say(format!("{count:>5} not: {reason}"));
        }
    }
}

fn conclude(verdict: &Verdict, out: &std::path::Path) -> Result<()> {
    for name in &verdict.passed {
        println!("passed  {name}");
    }
    for (name, why) in &verdict.left_out {
        println!("not     {name}: {why}");
    }
    for (name, row) in &verdict.known {
        println!("known   {name}: waits for {row}");
    }
    for line in &verdict.wrong {
        println!("FAILED  {line}");
    }
    println!("the whole story: ginkgo.log and junit.xml in {}", out.display());
    Tally { passed: verdict.passed.len() + verdict.known.len(), failed: verdict.wrong.len() }.conclude()
}
