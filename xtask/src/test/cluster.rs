//! Tests on a real cluster, with Fairlead installed as users do it.

use std::process::{self, Command};

use anyhow::{Result, bail};
use fairlead_cluster::{Cluster, Host, KUBE_PROXY, Spec};

use super::{Outcome, host};
use crate::{cluster, image, run};

/// The cluster's name, so that one which a developer looks at stays as it is.
const NAME: &str = "test";

/// How long a soak takes as part of a full run, in minutes.
pub(super) const SOAK: u64 = 10;

/// Puts every kind of load on a cluster for that long, first beside another network.
pub(super) fn soak(minutes: u64) -> Result<Outcome> {
    on_cluster("soak", |command| {
        command.args(["--test", "soak", "--", "--ignored"]).env("FAIRLEAD_SOAK_MINUTES", minutes.to_string());
    })
}

/// Services alone and NetworkPolicy alone beside another network.
pub(super) fn parts() -> Result<Outcome> {
    on_cluster("parts", |command| {
        command.args(["--test", "parts", "--", "--ignored"]);
    })
}

/// Brings a cluster up without a network and without bpffs on its nodes, runs the tests of `tests/cluster` on it one after
/// the other, and takes it down.
/// They install Fairlead themselves, and begin with that.
pub(super) fn run(filter: Option<&str>) -> Result<Outcome> {
    on_cluster(NAME, |command| {
        command.args(["--test", "*"]).args(filter).arg("--");
    })
}

fn on_cluster(name: &str, select: impl FnOnce(&mut Command)) -> Result<Outcome> {
    if !run::is_root() {
        bail!("a cluster needs root (namespaces, mounts, cgroups): run `cargo xtask test` as root");
    }
    let host = cluster::host()?;
    host.builder.build(KUBE_PROXY)?;
    let images = [image::build_default()?, image::build_lab()?];
    let up = bring_up(&host, name, &images)?;
    let mut command = run::cargo();
    command.args(["test", "--locked", "--no-fail-fast", "--package", "fairlead-cluster-tests"]);
    select(&mut command);
    command
        .args(["--test-threads=1", "--nocapture"])
        .env("FAIRLEAD_CLUSTER", name)
        // By this process, since the file may be another one by now: the tests' build may have made it anew.
        .env("FAIRLEAD_XTASK", format!("/proc/{}/exe", process::id()));
    let outcome = host::cargo_test(&mut command);
    up.down()?;
    outcome
}

fn bring_up(host: &Host, name: &str, images: &[std::path::PathBuf]) -> Result<Cluster> {
    host.down(name)?;
    let up = host.up_guarded(&Spec { bpffs: false, ..Spec::new(name) })?;
    images.iter().try_for_each(|archive| up.load(archive))?;
    Ok(up)
}
