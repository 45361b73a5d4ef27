//! Taking Fairlead away: another network works on the same nodes, and Fairlead after that.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead_cluster_tests::{World, wait};

/// What a node has that a network may change.
fn state(world: &World, node: &str) -> Result<String> {
    let commands: [&[&str]; 7] = [
        &["ip", "-brief", "link"],
        &["ip", "-4", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "neigh", "show", "nud", "permanent"],
        &["find", "/sys/fs/bpf", "/opt/cni/bin", "/etc/cni/net.d", "-mindepth", "1"],
        &["sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter"],
        &["sh", "-c", "ls -d /run/fairlead 2>/dev/null || true"],
    ];
    Ok(commands.iter().map(|command| world.in_node(node, command)).collect::<Result<Vec<_>>>()?.join("--\n"))
}

#[test]
fn another_network_works_after_it_and_it_after_that() -> Result<()> {
    let world = World::open()?;
    world.strain()?;
    world.uninstall()?;
    for node in world.nodes() {
        let left = state(&world, &node)?;
        ensure!(!left.contains("fairlead"), "{node} still has something of Fairlead:\n{left}");
    }
    world.host.install_kube_proxy(&world.cluster)?;
    world.cluster.wait_until_ready()?;
    for running in world.renew()?.start(&world, 5)? {
        running.ends_well()?;
    }
    world.cluster.remove_kube_proxy()?;
    world.remove_coredns()?;
    world.install()?;
    let strain = world.renew()?;
    wait(Duration::from_secs(60), || {
        strain.start(&world, 5)?.into_iter().try_for_each(|load| load.ends_well().map(drop))
    })
}
