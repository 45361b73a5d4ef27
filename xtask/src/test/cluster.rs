//! Tests on a real cluster, with Fairlead installed as users do it.

use std::{
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Result, bail};
use fairlead_cluster::{Cluster, Host, KUBE_PROXY, Spec};

use super::{Outcome, host};
use crate::{cluster, image, run};

/// The cluster's name, so that one which a developer looks at stays as it is.
const NAME: &str = "test";

/// The tests that also run on other versions of Kubernetes: installing, what its parts lose when they are killed, admission,
/// upgrades, and leaving for kube-proxy and back.
const ON_EVERY_VERSION: [&str; 5] = ["install", "kill", "node_ranges", "rollout", "uninstall"];

/// Those that also run where kubeadm has made the control plane, in pods.
const WITH_KUBEADM: [&str; 4] = ["install", "names", "restart_node", "rollout"];

/// How long a soak takes as part of a full run, in minutes.
pub(super) const SOAK: u64 = 10;

/// Puts every kind of load on a cluster for that long, first beside another network.
pub(super) fn soak(minutes: u64) -> Result<Outcome> {
    on_cluster(&spec("soak"), |command| {
        command.args(["--test", "soak", "--", "--ignored"]).env("FAIRLEAD_SOAK_MINUTES", minutes.to_string());
    })
}

/// Services alone and NetworkPolicy alone beside another network.
pub(super) fn parts() -> Result<Outcome> {
    on_cluster(&spec("parts"), |command| {
        command.args(["--test", "parts", "--", "--ignored"]);
    })
}

/// Brings a cluster up without a network and without bpffs on its nodes, runs the tests of `tests/cluster` on it one after
/// the other, and takes it down.
/// They install Fairlead themselves, and begin with that. `kubernetes` is another version than the one that everything runs on.
pub(super) fn run(filter: Option<&str>, kubernetes: Option<&str>) -> Result<Outcome> {
    on_cluster(&Spec { kubernetes: kubernetes.map(str::to_owned), ..spec(NAME) }, |command| {
        command.args(["--test", "*"]).args(filter).arg("--");
    })
}

/// Some of these tests on a cluster of each other version that is pinned.
pub(super) fn other_versions() -> Result<Outcome> {
    let mut total = Outcome::default();
    for version in cluster::builder()?.versions()? {
        run::say(format!("Kubernetes {version}"));
        let outcome = on_cluster(&Spec { kubernetes: Some(version.clone()), ..spec("version") }, |command| {
            command.args(ON_EVERY_VERSION.iter().flat_map(|test| ["--test", test])).arg("--");
        })
        .unwrap_or_else(|error| Outcome::broken("cluster", &error));
        total.tally += outcome.tally;
        total.failures.extend(outcome.failures.iter().map(|failure| format!("Kubernetes {version}: {failure}")));
    }
    Ok(total)
}

/// Some of these tests on a cluster that kubeadm has made.
pub(super) fn kubeadm() -> Result<Outcome> {
    on_cluster(&Spec { kubeadm: true, nodes: 3, ..spec("kubeadm") }, |command| {
        command.args(WITH_KUBEADM.iter().flat_map(|test| ["--test", test])).arg("--");
    })
}

/// Nodes without a file system for eBPF objects: Fairlead mounts its own.
fn spec(name: &str) -> Spec {
    Spec { bpffs: false, ..Spec::new(name) }
}

fn on_cluster(spec: &Spec, select: impl FnOnce(&mut Command)) -> Result<Outcome> {
    if !run::is_root() {
        bail!("a cluster needs root (namespaces, mounts, cgroups): run `cargo xtask test` as root");
    }
    let host = cluster::host()?;
    host.builder.of(spec.kubernetes.as_deref()).build(KUBE_PROXY)?;
    let images = [image::build_default()?, image::build_lab()?];
    let up = bring_up(&host, spec, &images)?;
    let mut command = run::cargo();
    command.args(["test", "--locked", "--no-fail-fast", "--package", "fairlead-cluster-tests"]);
    select(&mut command);
    command
        .args(["--test-threads=1", "--nocapture"])
        .env("FAIRLEAD_CLUSTER", &spec.name)
        // By this process, since the file may be another one by now: the tests' build may have made it anew.
        .env("FAIRLEAD_XTASK", format!("/proc/{}/exe", process::id()));
    let outcome = host::cargo_test(&mut command);
    up.down()?;
    outcome
}

fn bring_up(host: &Host, spec: &Spec, images: &[PathBuf]) -> Result<Cluster> {
    host.down(&spec.name)?;
    let up = host.up_guarded(spec)?;
    images.iter().try_for_each(|archive| up.load(archive))?;
    Ok(up)
}
