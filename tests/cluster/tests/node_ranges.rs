//! The component `node-ranges`: the API server refuses what kubelets would name as ranges for pods.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead_cluster_tests::{World, wait};

const NODE: &str = "node-1";

/// What `kubectl annotate` says, by a kubelet or by the administrator. Nothing is written.
fn annotate(world: &World, annotation: &str, kubelet: bool) -> Result<String> {
    let by = [format!("--as=system:node:{NODE}"), "--as-group=system:nodes".to_owned()];
    let mut arguments = vec!["annotate", "node", NODE, annotation, "--overwrite", "--dry-run=server"];
    if kubelet {
        arguments.extend(by.iter().map(String::as_str));
    }
    world.cluster.kubectl(&arguments)
}

#[test]
fn c50_the_component_keeps_kubelets_from_naming_ranges() -> Result<()> {
    let world = World::open()?;
    let component = fairlead_tree::path("manifests/components/node-ranges")?.display().to_string();
    world.cluster.kubectl(&["apply", "--kustomize", &component])?;
    let result = is_refused(&world);
    world.cluster.kubectl(&["delete", "--kustomize", &component])?;
    result
}

fn is_refused(world: &World) -> Result<()> {
    let range = "fairlead.io/pod-cidrs=10.99.1.0/24";
    // The server takes a moment to know a new policy.
    wait(Duration::from_secs(20), || {
        let said = annotate(world, range, true).map_or_else(|error| format!("{error:#}"), |_| String::new());
        ensure!(said.contains("may be written by those alone who may set podcidrs"), "{said:?}");
        Ok(())
    })?;
    annotate(world, range, false)?;
    annotate(world, "example.com/other=1", true)?;
    // A Node of its own, with ranges: refused by the second rule, since the annotation is not there.
    let node = format!(
        r#"{{"apiVersion": "v1", "kind": "Node", "metadata": {{"name": "late"}}, "spec": {{"podCIDR": "10.99.2.0/24", {}}}}}"#,
        r#""podCIDRs": ["10.99.2.0/24"]"#
    );
    let file = world.cluster.directory().join("late.json");
    std::fs::write(&file, node)?;
    let file = file.display().to_string();
    let create = ["create", "--filename", &file, "--dry-run=server"];
    let by = ["--as=system:node:late", "--as-group=system:nodes"];
    let refused = world.cluster.kubectl(&[&create[..], &by[..]].concat());
    let said = refused.map_or_else(|error| format!("{error:#}"), |_| String::new());
    ensure!(said.contains("a kubelet may not write spec.podCIDRs"), "{said:?}");
    world.cluster.kubectl(&create)?;
    Ok(())
}
