//! One `kubectl apply` on a cluster without any network.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{World, all_end_well, wait};

/// The first test of all finds nodes that are not ready and pods that wait.
#[test]
fn apply_makes_nodes_ready_and_waiting_pods_run() -> Result<()> {
    let world = World::open()?;
    let strain = world.strain()?;
    all_end_well(strain.start(&world, 5)?)
}

/// The conflist names the plugin that was installed, and the runtime has taken it.
#[test]
fn files_are_where_the_runtime_looks() -> Result<()> {
    let world = World::open()?;
    for node in world.nodes() {
        let conflist = world.in_node(&node, &["cat", "/etc/cni/net.d/10-fairlead.conflist"])?;
        ensure!(conflist.contains("\"fairlead-cni\""), "{conflist}");
        world.in_node(&node, &["test", "-x", "/opt/cni/bin/fairlead-cni"])?;
        // Nothing half-written stays.
        for folder in ["/etc/cni/net.d", "/opt/cni/bin"] {
            let names = world.in_node(&node, &["ls", "-A", folder])?;
            ensure!(!names.lines().any(|name| name.starts_with('.')), "{node} has {names:?} in {folder}");
        }
    }
    Ok(())
}

/// What is applied is what is rendered in the repository.
#[test]
fn install_yaml_is_taken_by_the_api_server() -> Result<()> {
    let world = World::open()?;
    let file = fairlead_tree::path("manifests/install.yaml")?;
    world.cluster.kubectl(&["apply", "--dry-run=server", "--filename", &file.display().to_string()])?;
    Ok(())
}

/// The small role is enough: no watch is refused.
#[test]
fn every_agent_is_well() -> Result<()> {
    let world = World::open()?;
    for node in world.nodes() {
        wait(Duration::from_secs(30), || {
            let status = world.ask(&node, &["status"])?;
            ensure!(status["health"] == "ready", "{node}: {status:#}");
            Ok(())
        })?;
        // Of a cluster that is idle, and as small as this one.
        let resident = world.resident("fairlead", &node)?;
        println!("the agent of {node} has {resident} KiB in memory");
        ensure!(resident < 40 * 1024, "the agent of {node} has {resident} KiB in memory");
    }
    Ok(())
}

/// Nothing stops Fairlead where it runs, as it sees it itself.
#[test]
fn the_doctor_of_every_agent_finds_nothing_that_stops_it() -> Result<()> {
    let world = World::open()?;
    for node in world.nodes() {
        let report = world.ask(&node, &["doctor"])?;
        let findings = report["findings"].as_array().context("there are findings")?;
        let stops = findings.iter().find(|finding| finding["severity"] == "blocks");
        ensure!(stops.is_none(), "{node}: {report:#}");
    }
    Ok(())
}
