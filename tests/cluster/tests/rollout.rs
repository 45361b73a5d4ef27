//! Replacing Fairlead on a running cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{SYSTEM, World, all_end_well, wait};

/// A restart of all pods, another image, then the first one again.
#[test]
fn a_rolling_restart_an_upgrade_and_its_withdrawal_lose_nothing() -> Result<()> {
    const NEXT: &str = "localhost/fairlead:next";
    let world = World::open()?;
    for node in world.nodes() {
        world.cluster.tag_image(&node, concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION")), NEXT)?;
    }
    let load = world.strain()?.start(&world, 110)?;
    world.roll_out()?;
    world.upgrade(NEXT)?;
    world.install()?;
    all_end_well(load)
}

/// Who uses one port for many queries asks one server for as long as that serves. It answers until no agent sends it any.
#[test]
fn a_dns_server_that_leaves_answers_for_longer_than_it_is_in_the_service() -> Result<()> {
    let world = World::open()?;
    let strain = world.strain()?;
    let pods = world.pods_of("fairlead-dns")?;
    let pod = pods.iter().find(|pod| pod["spec"]["nodeName"] == "node-1").context("node-1 has a DNS server")?;
    let leaves = pod["metadata"]["name"].as_str().context("it has a name")?;
    let address = pod["status"]["podIP"].as_str().context("it has an address")?.parse()?;
    world.system(&["delete", "pod", leaves, "--wait=false"])?;
    wait(Duration::from_secs(20), || {
        let slices =
            world.json(&["--namespace", SYSTEM, "get", "endpointslices", "-lkubernetes.io/service-name=kube-dns"])?;
        let slices = slices["items"].as_array().context("a list")?;
        let mut endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        let serves = endpoints.any(|e| e["targetRef"]["name"] == *leaves && e["conditions"]["serving"] == true);
        ensure!(!serves, "{leaves} still serves");
        Ok(())
    })?;
    all_end_well(strain.asking(address).start(&world, 2)?)?;
    world.settle()
}
