//! `cargo xtask e2e`: upstream's own tests of a cluster's network, on a cluster of this machine.
//!
//! Nothing is left out silently: `tests/cluster/known-failures` names every spec that fails, with the row of the behaviour
//! tables that it waits for, and every one that can't run here, with the reason.

mod cluster_policies;
mod expect;
mod ginkgo;
mod specs;

pub(crate) use self::expect::Verdict;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_cluster::{Cluster, E2E, Host, Spec};

use self::{cluster_policies::Place, expect::Known, ginkgo::Programs};
use crate::{
    cluster::{self, Network},
    paths, run,
    setup::Part,
};

/// The specs of a cluster's network.
const NETWORK_SPECS: &str = r"\[sig-network\]";
/// What those of every cluster have in their names.
const CONFORMANCE: &str = r"\[sig-network\].*\[Conformance\]";
/// Parts of names of those that take long, that upstream does not ask of every cluster, or that need two nodes in each of
/// three zones: with `--all`.
const LONG: [&str; 6] = [
    "[Feature:",
    " Netpol ",
    "[Slow]",
    "[Serial]",
    "on multiple nodes when using",
    "or fall back to same zone when using",
];

/// Runs upstream's tests on a cluster: one that is up, or one that is created for them
#[derive(Args)]
pub(crate) struct E2e {
    /// Only specs that match this expression (of Go)
    #[arg(long, value_name = "EXPRESSION")]
    focus: Option<String>,
    /// How many specs run at once
    #[arg(long, default_value_t = 4)]
    procs: usize,
    /// Also slow specs and those of features: NetworkPolicy, the second address family
    #[arg(long)]
    all: bool,
    /// Instead, upstream's conformance tests of ClusterNetworkPolicy
    #[arg(long, conflicts_with_all = ["focus", "all", "list"])]
    cluster_policies: bool,
    /// Of these, those that send SCTP, on a cluster in a guest whose kernel has it
    #[arg(long, requires = "cluster_policies")]
    guest: bool,
    /// The guest's accelerator. KVM is faster where it works; emulation works everywhere, and takes hours
    #[arg(long, default_value = "tcg", value_parser = ["tcg", "kvm"], requires = "guest")]
    accel: String,
    /// This is the guest
    #[arg(long, hide = true, requires_all = ["cluster_policies", "image"], conflicts_with = "guest")]
    in_guest: bool,
    /// An existing image of Fairlead, instead of building one, when the cluster is created for it
    #[arg(long, value_name = "ARCHIVE")]
    image: Option<PathBuf>,
    /// Print what would run, and what would not and why
    #[arg(long)]
    list: bool,
    /// Which cluster
    #[arg(long, default_value = "e2e")]
    name: String,
    /// What is tested, when the cluster is created for it
    #[arg(long, value_enum, default_value = "fairlead")]
    network: Network,
    /// Number of nodes of a cluster that is created for it [default: 3, with --all 6: some specs need that many]
    #[arg(long)]
    nodes: Option<u8>,
}

impl E2e {
    /// Those that every cluster must pass, on one that is made for them.
    pub(crate) fn conformance() -> Self {
        let (focus, name) = (Some(CONFORMANCE.to_owned()), "conformance".to_owned());
        Self {
            focus,
            procs: 4,
            all: false,
            cluster_policies: false,
            guest: false,
            accel: "tcg".to_owned(),
            in_guest: false,
            image: None,
            list: false,
            name,
            network: Network::Fairlead,
            nodes: None,
        }
    }

    /// Those of all features, too, on one that is made for them.
    pub(crate) fn everything() -> Self {
        Self { focus: None, all: true, name: "everything".to_owned(), ..Self::conformance() }
    }

    /// Those of ClusterNetworkPolicy.
    pub(crate) fn cluster_policies() -> Result<Verdict> {
        let verdict = cluster_policies::run(Place::Here, None)?;
        verdict.say();
        Ok(verdict)
    }

    /// Those of them that send SCTP, in a guest.
    pub(crate) fn cluster_policies_in_guest() -> Result<Verdict> {
        let verdict = cluster_policies::in_guest("tcg", None)?;
        verdict.say();
        Ok(verdict)
    }

    pub(crate) fn run(&self) -> Result<()> {
        Part::Cluster.require()?;
        Part::TestRoot.require()?;
        cluster::become_root()?;
        if self.cluster_policies {
            let image = self.image.as_deref();
            let verdict = if self.guest {
                cluster_policies::in_guest(&self.accel, image)?
            } else {
                cluster_policies::run(if self.in_guest { Place::Guest } else { Place::Here }, image)?
            };
            verdict.say();
            verdict.tally().conclude();
        }
        self.verdict()?.map_or(Ok(()), |verdict| verdict.tally().conclude())
    }

    /// What became of the specs, which is printed too; nothing if they were only to be listed.
    pub(crate) fn verdict(&self) -> Result<Option<Verdict>> {
        let builder = cluster::builder()?;
        builder.build(E2E)?;
        let program = |name: &str| -> Result<PathBuf> {
            let part = E2E.iter().find(|part| part.name == name).context("it is a part of the tests")?;
            builder.path(part)
        };
        let programs = Programs { tests: program("e2e.test")?, ginkgo: program("ginkgo")? };
        let out = paths::target().join("e2e");
        fs::create_dir_all(&out)?;

        let file = paths::workspace().join("tests/cluster/known-failures");
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let known = Known::parse(&text)?;
        let names = ginkgo::list(&programs, self.focus.as_deref().unwrap_or(NETWORK_SPECS), &out)?;
        if self.focus.is_none() {
            known.are_among(&names)?;
        }
        let choice = self.choose(&names, &known);
        choice.say();
        if self.list {
            println!("{}", choice.chosen.join("\n"));
            return Ok(None);
        }
        if choice.chosen.is_empty() {
            bail!("no spec is left to run");
        }

        let host = cluster::host()?;
        let cluster = match host.open(&self.name) {
            Ok(running) => running,
            Err(_) => self.own_cluster(&host)?,
        };
        let verdict = self.on(&host, &cluster, &programs, &choice.chosen, &known, &out)?;
        verdict.say();
        println!("full output: ginkgo.log and junit.xml in {}", out.display());
        Ok(Some(verdict))
    }

    /// A cluster that goes when it is dropped. Nodes are in two subnets, so that pods meet by both ways that Fairlead has;
    /// its peer has one.
    fn own_cluster(&self, host: &Host) -> Result<Cluster> {
        let archive = cluster::archive(self.network, self.image.as_deref())?;
        let subnets = if self.network == Network::Fairlead { 2 } else { 1 };
        let nodes = self.nodes.unwrap_or(if self.all { 6 } else { 3 });
        let cluster = host.up_guarded(&Spec { nodes, subnets, ..Spec::new(&self.name) })?;
        cluster::install(host, &cluster, self.network, archive.as_deref())?;
        Ok(cluster)
    }

    fn choose<'a>(&self, names: &'a [String], known: &'a Known) -> Choice<'a> {
        let mut choice = Choice::default();
        for name in names {
            if let Some(reason) = known.cannot.get(name) {
                *choice.not.entry(reason.clone()).or_default() += 1;
            } else if !self.all && self.focus.is_none() && LONG.iter().any(|part| name.contains(part)) {
                *choice.not.entry("with --all".to_owned()).or_default() += 1;
            } else {
                choice.chosen.push(name);
            }
        }
        choice
    }

    fn on(
        &self,
        host: &Host,
        cluster: &Cluster,
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
            run::say(format!("{count:>5} skipped: {reason}"));
        }
    }
}
