//! A pod that kubelet has from a file: the runtime knows it under the hash of that, the API under the uid of its mirror.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{World, static_pod, wait};

const FILE: &str = "/etc/kubernetes/manifests/fixed.yaml";

#[test]
fn c38_a_static_pod_starts_and_goes() -> Result<()> {
    let world = World::open()?;
    let _namespace = world.strain()?;
    let write = format!("mkdir -p $(dirname {FILE}) && printf %s \"$1\" >{FILE}");
    world.in_node("node-1", &["sh", "-c", &write, "sh", &static_pod()])?;
    let result = starts(&world);
    world.in_node("node-1", &["rm", "-f", FILE])?;
    result?;
    wait(Duration::from_secs(60), || {
        let pods = world.ask("node-1", &["status"])?["pods"].to_string();
        ensure!(!pods.contains("fixed-node-1"), "the agent still has it: {pods}");
        Ok(())
    })
}

/// Its probe, which kubelet makes, is answered once it has a network.
fn starts(world: &World) -> Result<()> {
    let pod = wait(Duration::from_secs(60), || {
        let pod = world.json(&["--namespace=strain", "get", "pod", "fixed-node-1"])?;
        let conditions = pod["status"]["conditions"].as_array().context("it has conditions")?;
        let ready = conditions.iter().any(|each| each["type"] == "Ready" && each["status"] == "True");
        ensure!(ready, "{}", pod["status"]);
        Ok(pod)
    })?;
    let hash = &pod["metadata"]["annotations"]["kubernetes.io/config.hash"];
    ensure!(hash.is_string() && *hash != pod["metadata"]["uid"], "it is a mirror: {}", pod["metadata"]);
    let pods = world.ask("node-1", &["status"])?["pods"].to_string();
    ensure!(pods.contains("strain/fixed-node-1"), "{pods}");
    Ok(())
}
