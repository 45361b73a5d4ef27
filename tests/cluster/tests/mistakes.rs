//! What an administrator gets wrong is said, and costs nobody anything.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{World, all_end_well, wait};
use serde_json::Value;

/// One node is tried, the others go on as they were, and so does the traffic of all.
#[test]
fn a_wrong_setting_stops_the_rollout_and_nothing_else() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 40)?;
    let settings = world.json(&["--namespace=kube-system", "get", "configmap", "fairlead"])?;
    let text = settings["data"]["fairlead.yaml"].as_str().context("there are settings")?;
    let wrong = serde_json::json!({"data": {"fairlead.yaml": format!("{text}\ntunel: always\n")}}).to_string();
    world.system(&["patch", "configmap", "fairlead", "--patch", &wrong])?;
    world.system(&["rollout", "restart", "daemonset/fairlead"])?;
    let broken = wait(Duration::from_secs(40), || {
        let pods = world.pods_of("fairlead")?;
        let failed = |pod: &&Value| pod["status"]["initContainerStatuses"][0]["restartCount"].as_u64() > Some(0);
        let failed: Vec<_> = pods.iter().filter(failed).collect();
        ensure!(failed.len() == 1, "{} pods fail", failed.len());
        Ok(failed[0]["metadata"]["name"].as_str().unwrap_or_default().to_owned())
    })?;
    let said = world.system(&["logs", &broken, "--container=install"])?;
    ensure!(said.contains("tunel") && said.contains("tunnel"), "{said}");
    world.nodes_are_ready()?;
    // The right one again; the pod is made anew so as not to wait for its next attempt.
    world.cluster.kubectl(&["apply", "--kustomize", &world.manifests()?])?;
    world.system(&["delete", "pod", &broken, "--wait"])?;
    world.settle()?;
    all_end_well(load)
}

/// An agent that may not read something names it, and goes on with what is in force.
#[test]
fn a_missing_rule_is_named_and_policies_stay() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 40)?;
    let role = world.json(&["get", "clusterrole", "fairlead"])?;
    let rules = role["rules"].as_array().context("there are rules")?;
    let policies =
        rules.iter().position(|rule| rule["resources"][0] == "networkpolicies").context("one is for policies")?;
    let patch = format!(r#"[{{"op": "remove", "path": "/rules/{policies}"}}]"#);
    world.cluster.kubectl(&["patch", "clusterrole", "fairlead", "--type=json", "--patch", &patch])?;
    world.kill_process("fairlead", "node-1")?;
    wait(Duration::from_secs(30), || {
        let status = world.ask("node-1", &["status"])?.to_string();
        ensure!(status.contains("networkpolicies") && status.contains("forbidden"), "{status}");
        Ok(())
    })?;
    world.install()?;
    all_end_well(load)
}
