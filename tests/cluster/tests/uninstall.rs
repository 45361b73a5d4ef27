//! Taking Fairlead away: another network works on the same nodes, and Fairlead after that.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{World, all_end_well, wait};

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

/// The template by which the guide lists the pods that a drain leaves and that have to be made anew.
fn remaining() -> Result<String> {
    let page = std::fs::read_to_string(fairlead_tree::path("manifests/book/src/operate/migrate.md")?)?;
    let template = page.split("-o go-template='").nth(1).and_then(|rest| rest.split('\'').next());
    Ok(format!("go-template={}", template.context("the guide has no template")?))
}

/// As the book says, by the label and with the pods that a drain leaves, which are cut off until they are deleted.
#[test]
#[ignore = "it has not run on a cluster yet"]
fn c51_one_node_is_uninstalled_and_comes_back() -> Result<()> {
    let world = World::open()?;
    let strain = world.strain()?;
    let node = "node-2";
    let label = |value: &str| world.cluster.kubectl(&["label", "node", node, &format!("fairlead.io/off{value}")]);
    let field = format!("--field-selector=spec.nodeName={node}");
    label("=yes")?;
    let agent = "--selector=app.kubernetes.io/name=fairlead";
    world.system(&["wait", "pod", agent, &field, "--for=delete", "--timeout=60s"])?;
    let image = concat!("--image=localhost/fairlead:", env!("CARGO_PKG_VERSION"));
    let node_path = format!("node/{node}");
    let said = world.cluster.kubectl(&[
        "debug",
        &node_path,
        "--profile=sysadmin",
        image,
        "--",
        "/usr/bin/fairlead",
        "uninstall",
    ])?;
    let debugger = said.split_whitespace().find(|word| word.starts_with("node-debugger-")).context("a pod's name")?;
    let debugger = format!("pod/{debugger}");
    let phase = "--for=jsonpath={.status.phase}=Succeeded";
    world.cluster.kubectl(&["wait", &debugger, phase, "--timeout=60s"])?;
    ensure!(world.cluster.kubectl(&["logs", &debugger])?.contains("outcome"));
    world.cluster.kubectl(&["delete", &debugger, "--wait=false"])?;
    let left = state(&world, node)?;
    // The directory that fairlead-dns of this node has mounted is kubelet's.
    ensure!(!left.replace("/run/fairlead", "").contains("fairlead"), "{node} still has something of Fairlead:\n{left}");

    label("-")?;
    world.system(&["rollout", "status", "daemonset/fairlead", "--timeout=120s"])?;
    wait(Duration::from_secs(60), || world.nodes_are_ready())?;
    ensure!(strain.glance(&world)?.iter().any(|report| report.failures() > 0), "the pods that stayed were not cut off");
    let pods = world.cluster.kubectl(&["get", "pods", "--all-namespaces", &field, "--output", &remaining()?])?;
    let words: Vec<&str> = pods.split_whitespace().collect();
    ensure!(words.len() >= 4 && words.contains(&"kube-system"), "{pods}");
    for pod in words.chunks(2) {
        ensure!(!pod[1].starts_with("fairlead-") || pod[1].starts_with("fairlead-dns-"), "{pods}");
        world.cluster.kubectl(&["delete", "pod", "--wait=false", "--namespace", pod[0], pod[1]])?;
    }
    for pod in words.chunks(2) {
        world.cluster.kubectl(&["wait", "pod", "--for=delete", "--timeout=60s", "--namespace", pod[0], pod[1]])?;
    }
    world.settle()?;
    all_end_well(world.strain()?.start(&world, 5)?)
}
