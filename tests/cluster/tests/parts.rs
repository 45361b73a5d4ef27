//! One part of Fairlead beside the reference bridge plugin: NetworkPolicy beside kube-proxy, then Services in its place.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{SYSTEM, Strain, World, all_end_well, wait};

/// What a node has that a network may change, without what comes and goes with pods and connections.
fn state(world: &World, node: &str) -> Result<String> {
    let commands: [&[&str]; 4] = [
        &["find", "/sys/fs/bpf", "/opt/cni/bin", "/etc/cni/net.d", "-mindepth", "1"],
        &["sh", "-c", "ip -4 route show table all | grep -v veth | sort"],
        &["sh", "-c", "ip -brief link | grep -v veth | sed 's/ .*//'"],
        &["sh", "-c", "ls -d /run/fairlead 2>/dev/null || true"],
    ];
    Ok(commands.iter().map(|command| world.in_node(node, command)).collect::<Result<Vec<_>>>()?.join("--\n"))
}

fn overlay(name: &str) -> Result<String> {
    Ok(fairlead_tree::path("manifests/overlays")?.join(name).display().to_string())
}

/// Waits until every pod of the tests has been found on its node. A server and a client; CoreDNS is somewhere.
fn finds_pods(world: &World, node: &str) -> Result<()> {
    let status = world.ask(node, &["status"])?;
    let known = status["pods"].as_array().context("status lists pods")?.len();
    ensure!(known >= 2, "{node}: {status:#}");
    Ok(())
}

/// Applies an overlay, and waits until all is well on every node.
fn install(world: &World, name: &str) -> Result<()> {
    world.cluster.kubectl(&["apply", "--kustomize", &overlay(name)?])?;
    if let Err(error) = world.system(&["rollout", "status", "daemonset/fairlead", "--timeout=120s"]) {
        let log = world.system(&["logs", "daemonset/fairlead", "--all-containers", "--tail=50"]);
        return Err(error.context(log.unwrap_or_default()));
    }
    for node in world.nodes() {
        wait(Duration::from_secs(30), || {
            finds_pods(world, &node)?;
            let status = world.ask(&node, &["status"])?;
            ensure!(status["warnings"].as_array().is_some_and(Vec::is_empty), "{node}: {status:#}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Takes an overlay away, as the book says.
fn remove(world: &World, name: &str) -> Result<()> {
    world.cluster.kubectl(&["delete", "--kustomize", &overlay(name)?, "--wait"])?;
    let selector = "--selector=app.kubernetes.io/name=fairlead";
    world.system(&["wait", "--for=delete", "pod", selector, "--timeout=60s"])?;
    let folder = fairlead_tree::path("manifests/remove")?.display().to_string();
    world.cluster.kubectl(&["apply", "--kustomize", &folder])?;
    world.system(&["rollout", "status", "daemonset/fairlead-remove", "--timeout=120s"])?;
    world.cluster.kubectl(&["delete", "--kustomize", &folder, "--wait"])?;
    let selector = "--selector=app.kubernetes.io/name=fairlead-remove";
    world.system(&["wait", "--for=delete", "pod", selector, "--timeout=60s"]).map(drop)
}

/// Waits until every client gets all, or nothing, of what it asks for.
fn becomes(world: &World, strain: &Strain, open: bool) -> Result<()> {
    wait(Duration::from_secs(30), || {
        for report in strain.glance(world)? {
            let (attempted, failed) = (report.short.attempted + report.udp.attempted, report.failures());
            ensure!(attempted > 0 && failed == if open { 0 } else { attempted }, "{report:?}");
        }
        Ok(())
    })
}

const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: strain}
spec: {podSelector: {matchLabels: {app: echo}}, policyTypes: [Ingress]}
";

#[test]
#[ignore = "takes minutes: `cargo xtask test --full`"]
fn c54_c55_c56_one_part_beside_the_reference_bridge_plugin() -> Result<()> {
    let world = World::bare()?;
    world.host.install_kube_proxy(&world.cluster)?;
    world.cluster.wait_until_ready()?;
    let strain = world.strain()?;
    all_end_well(strain.start(&world, 3)?)?;
    let nodes = world.nodes();
    let before: Vec<String> = nodes.iter().map(|node| state(&world, node)).collect::<Result<_>>()?;

    // NetworkPolicy beside kube-proxy. Its coming is noticed by nobody, nor is an agent that is killed.
    let load = strain.start(&world, 40)?;
    install(&world, "policy-only")?;
    world.kill_process("fairlead", &nodes[0])?;
    install(&world, "policy-only")?;
    all_end_well(load)?;
    world.cluster.apply(CLOSED)?;
    becomes(&world, &strain, false)?;
    world.system(&["rollout", "restart", "daemonset/fairlead"])?;
    for report in strain.glance(&world)? {
        ensure!(
            report.short.attempted > 0 && report.failures() == report.short.attempted + report.udp.attempted,
            "{report:?}"
        );
    }
    world.system(&["rollout", "status", "daemonset/fairlead", "--timeout=120s"])?;
    becomes(&world, &strain, false)?;
    // Pods that come while it is in force are judged as well, and the node may still ask them.
    world.own(&["delete", "pods", "--selector=app=echo", "--wait", "--timeout=60s"])?;
    world.own(&["rollout", "status", "daemonset/echo", "--timeout=60s"])?;
    becomes(&world, &strain, false)?;
    world.own(&["delete", "networkpolicy", "closed"])?;
    becomes(&world, &strain, true)?;
    all_end_well(strain.start(&world, 5)?)?;
    remove(&world, "policy-only")?;
    for (node, before) in nodes.iter().zip(&before) {
        let after = state(&world, node)?;
        ensure!(after == *before, "{node} is not as it was:\n{before}\nnow:\n{after}");
    }
    all_end_well(strain.start(&world, 3)?)?;

    // Services in place of kube-proxy. No agent is ready beside it, since it has the port for health.
    world.cluster.kubectl(&["apply", "--kustomize", &overlay("proxy-only")?])?;
    for node in &nodes {
        wait(Duration::from_secs(60), || finds_pods(&world, node))?;
        world.cluster.stop_kube_proxy(node)?;
    }
    world.cluster.kubectl(&["--namespace", SYSTEM, "rollout", "restart", "daemonset/fairlead"])?;
    install(&world, "proxy-only")?;
    let load = strain.start(&world, 20)?;
    world.kill_process("fairlead", &nodes[1])?;
    all_end_well(load)?;
    world.cluster.apply(CLOSED)?;
    becomes(&world, &strain, true)?;
    world.own(&["delete", "networkpolicy", "closed"])?;
    remove(&world, "proxy-only")?;
    for (node, before) in nodes.iter().zip(&before) {
        let after = state(&world, node)?;
        ensure!(after == *before, "{node} is not as it was:\n{before}\nnow:\n{after}");
    }
    Ok(())
}
