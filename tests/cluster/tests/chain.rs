//! Plugins of others around ours, called by a real runtime: the reference plugins behind it, as a mesh or an administrator puts
//! them there, and one in front that delegates to it, as Multus does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{World, all_end_well, wait};
use serde_json::{Value, json};

const NODE: &str = "node-2";
const FOLDER: &str = "/etc/cni/net.d";

/// A MAC address that `tuning` gives to pods.
const MAC: &str = "02:00:5e:10:00:01";

#[test]
fn c47_reference_plugins_behind_ours_do_their_work_and_pods_stay_reachable() -> Result<()> {
    let world = World::open()?;
    let strain = world.strain()?;
    let listed = world.in_node(NODE, &["sh", "-c", &format!("ls {FOLDER}/*.conflist")])?;
    let file = listed.lines().next().context("there is a configuration")?.to_owned();
    let before = world.in_node(NODE, &["cat", &file])?;
    let mut list: Value = serde_json::from_str(&before)?;
    let chain = list["plugins"].as_array_mut().context("it has plugins")?;
    chain.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    chain.push(json!({"type": "tuning", "mac": MAC, "sysctl": {"net.ipv4.tcp_syncookies": "0"}}));
    write(&world, &file, &list.to_string())?;
    let result = behind_ours(&world, &file);
    write(&world, &file, &before)?;
    result?;
    all_end_well(strain.start(&world, 5)?)?;
    // Without them the next pods are as always.
    drop(world.renew()?);
    Ok(())
}

fn write(world: &World, file: &str, text: &str) -> Result<()> {
    let script = format!("printf %s \"$1\" >{file}.new && mv {file}.new {file}");
    world.in_node(NODE, &["sh", "-c", &script, "sh", text]).map(drop)
}

/// A server that comes now has what they do, and everybody reaches it, kubelet and other nodes too.
fn behind_ours(world: &World, file: &str) -> Result<()> {
    let ip = next_server(world)?;
    let neighbours = world.in_node(NODE, &["ip", "neighbour", "show", &ip])?;
    ensure!(neighbours.contains(MAC), "tuning gave the pod {MAC}, and the node has {neighbours:?} for {ip}");
    let list: Value = serde_json::from_str(&world.in_node(NODE, &["cat", file])?)?;
    let types: Vec<_> = list["plugins"].as_array().context("plugins")?.iter().map(|one| &one["type"]).collect();
    ensure!(types == ["fairlead-cni", "portmap", "tuning"], "others stay where they are: {types:?}");
    Ok(())
}

/// Replaces the server of the node, and gives the address of the next one.
fn next_server(world: &World) -> Result<String> {
    let of_node = format!("--field-selector=spec.nodeName={NODE}");
    world.own(&["delete", "pod", "--selector=app=echo", &of_node, "--wait"])?;
    wait(Duration::from_secs(60), || {
        let pods = world.json(&["--namespace=strain", "get", "pods", "--selector=app=echo", &of_node])?;
        let pod = pods["items"].get(0).context("no pod yet")?;
        let conditions = pod["status"]["conditions"].as_array().context("no conditions yet")?;
        let ready = conditions.iter().any(|each| each["type"] == "Ready" && each["status"] == "True");
        ensure!(ready, "{}", pod["status"]);
        Ok(pod["status"]["podIP"].as_str().context("no address")?.to_owned())
    })
}

/// The plugin in front notes each call, and hands it on with a configuration of its own making.
#[test]
fn c37_a_plugin_in_front_that_delegates_to_ours_gives_pods_their_network() -> Result<()> {
    const FRONT: &str = "/opt/cni/bin/multus";
    const CALLS: &str = "/run/multus-calls";
    let world = World::open()?;
    let strain = world.strain()?;
    let listed = world.in_node(NODE, &["sh", "-c", &format!("cat {FOLDER}/*.conflist")])?;
    let list: Value = serde_json::from_str(&listed)?;
    let mut delegate = list["plugins"][0].clone();
    delegate["name"] = list["name"].clone();
    delegate["cniVersion"] = list["cniVersion"].clone();
    let program = format!(
        "#!/bin/sh\ncat >/dev/null\necho \"$CNI_COMMAND\" >>{CALLS}\nprintf %s '{delegate}' | exec /opt/cni/bin/fairlead-cni\n"
    );
    let configuration = json!({
        "cniVersion": list["cniVersion"],
        "name": "multus-cni-network",
        "type": "multus",
        "clusterNetwork": "fairlead",
    });
    let front = format!("{FOLDER}/00-multus.conf");
    write(&world, FRONT, &program)?;
    world.in_node(NODE, &["chmod", "0755", FRONT])?;
    write(&world, &front, &configuration.to_string())?;
    let result = (|| {
        next_server(&world)?;
        let calls = world.in_node(NODE, &["cat", CALLS])?;
        ensure!(calls.contains("ADD"), "the runtime calls the plugin in front: {calls:?}");
        all_end_well(strain.start(&world, 5)?)?;
        let status = world.ask(NODE, &["status"])?;
        ensure!(!status["warnings"].to_string().contains("multus"), "it is no trouble: {}", status["warnings"]);
        // What it added goes by it, too, and leaves nothing.
        let before = world.footprint(NODE)?;
        next_server(&world)?;
        wait(Duration::from_secs(60), || {
            let now = world.footprint(NODE)?;
            ensure!(now == before, "{before:?} became {now:?}");
            Ok(())
        })
    })();
    world.in_node(NODE, &["rm", "-f", &front])?;
    let after = next_server(&world);
    world.in_node(NODE, &["rm", "-f", FRONT, CALLS])?;
    result?;
    after?;
    all_end_well(strain.start(&world, 5)?)
}
