//! Taking Fairlead away: another network works on the same nodes, and Fairlead after that.

use anyhow::{Result, ensure};
use fairlead_cluster_tests::{World, all_end_well};

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
    all_end_well(world.renew()?.start(&world, 5)?)?;
    world.cluster.remove_kube_proxy()?;

    // CoreDNS is there, as it is on most clusters: both answer, and it can be retired and called back.
    world.install()?;
    world.system(&["rollout", "restart", "deployment/coredns"])?;
    world.system(&["rollout", "status", "deployment/coredns", "--timeout=120s"])?;
    let strain = world.renew()?;
    all_end_well(strain.start(&world, 5)?)?;
    let load = strain.start(&world, 30)?;
    for replicas in [0, 2, 0] {
        world.system(&["scale", "deployment", "coredns", &format!("--replicas={replicas}")])?;
        world.system(&["rollout", "status", "deployment/coredns", "--timeout=60s"])?;
    }
    all_end_well(load)?;
    world.remove_coredns()
}
