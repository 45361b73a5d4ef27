//! The CNI configuration: when it appears, and that it stays.

use std::time::Duration;

use fairlead_tests::{Lab, Node, Probes};
use serde_json::Value;

const CONFLIST: &str = "/etc/cni/net.d/10-fairlead.conflist";

fn read(node: &Node) -> Option<Value> {
    let ended = node.run(&["cat", CONFLIST]);
    ended.ok().then(|| serde_json::from_str(&ended.stdout).expect("it is whole at any moment"))
}

fn inode(node: &Node) -> String {
    node.must_run(&["stat", "-c", "%i %y", CONFLIST])
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap_or_default()
}

fn warning(node: &Node, topic: &str) -> Option<String> {
    let status = status(node);
    let found = status["warnings"].as_array()?.iter().find(|each| each[0] == topic)?;
    found[1].as_str().map(str::to_owned)
}

#[test]
fn c28_it_appears_when_pods_can_be_served_and_stays() {
    let lab = Lab::builder().nodes(1).without_agents().start();
    let node = lab.node("node-1");
    // Without a pod range no pod can be served.
    let object = std::fs::read_to_string(lab.objects().directory().join("node_node-1.yaml")).unwrap();
    lab.apply("{apiVersion: v1, kind: Node, metadata: {name: node-1}}");
    node.start_agent();
    let reason = lab.wait_until("the agent says what is missing", || match status(node)["reason"].as_str() {
        Some(reason) if reason.contains("pod range") => Ok(reason.to_owned()),
        other => Err(format!("{other:?}")),
    });
    assert!(reason.contains("--pod-network-cidr") && reason.contains("--cluster-cidr"), "{reason}");
    assert_eq!(read(node), None, "no configuration before pods can be served");
    lab.apply(&object);
    let list = lab.wait_until("the configuration appears", || read(node).ok_or("not yet"));
    assert_eq!(list["plugins"][0]["type"], "fairlead-cni");
    assert_eq!(status(node)["health"], "ready");

    let before = inode(node);
    node.agent().kill9();
    assert_eq!(inode(node), before, "it stays without an agent");
    node.start_agent();
    lab.wait_until("the agent is ready", || match status(node)["health"].as_str() {
        Some("ready") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    node.agent().stop();
    assert_eq!(inode(node), before, "the same file, not touched");
}

#[test]
fn c28_c29_it_comes_back_and_others_before_it_are_named() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    lab.wait_until("the configuration appears", || read(node).ok_or("not yet"));
    assert_eq!(warning(node, "conflist"), None);
    node.must_run(&[
        "sh",
        "-c",
        "echo '{}' > /etc/cni/net.d/05-other.conflist; echo torn > /etc/cni/net.d/10-fairlead.conflist",
    ]);
    let directory = node.must_run(&["stat", "-c", "%i", "/etc/cni/net.d"]);
    // The agent looks every ten seconds.
    let deadline = std::time::Instant::now() + Duration::from_secs(25);
    let text = loop {
        if let Some(text) = warning(node, "conflist") {
            break text;
        }
        assert!(std::time::Instant::now() < deadline, "no warning");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(text.contains("05-other.conflist") && text.contains("remove it"), "{text}");
    assert!(read(node).is_some(), "it is whole again");
    assert_eq!(
        node.must_run(&["stat", "-c", "%i", "/etc/cni/net.d"]),
        directory,
        "a watched directory is never replaced"
    );
    assert_eq!(node.must_run(&["cat", "/etc/cni/net.d/05-other.conflist"]), "{}\n", "another's is not touched");
    let log = node.agent().log();
    assert_eq!(log.matches("05-other.conflist").count(), 1, "it is said once: {log}");
}
