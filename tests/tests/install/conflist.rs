//! The CNI configuration: when it appears, and that it stays.

use std::time::{Duration, Instant};

use fairlead_tests::{Lab, Node, Probes};
use serde_json::Value;

const CONFLIST: &str = "/etc/cni/net.d/10-fairlead.conflist";

fn read(node: &Node) -> Option<Value> {
    let ended = node.run(&["cat", CONFLIST]);
    ended.ok().then(|| serde_json::from_str(&ended.stdout).expect("it is whole at any moment"))
}

/// Waits as long as the agent, which looks every ten seconds, may need.
fn eventually<T, E: std::fmt::Debug>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(45);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= deadline => panic!("it is still not so that {what}: {reason:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Replaces it as others do: by rename, so that no reader sees half of it.
fn replace(node: &Node, list: &Value) {
    let script = format!("cat >/etc/cni/net.d/.theirs && mv /etc/cni/net.d/.theirs {CONFLIST}");
    let ended = node.run_with(&["sh", "-c", &script], &[], &list.to_string());
    assert!(ended.ok(), "{ended:?}");
}

fn types(list: &Value) -> Vec<&str> {
    list["plugins"].as_array().unwrap().iter().map(|plugin| plugin["type"].as_str().unwrap()).collect()
}

fn inode(node: &Node) -> String {
    node.must_run(&["stat", "-c", "%i %y", CONFLIST])
}

fn status(node: &Node) -> Value {
    serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap_or_default()
}

fn warning(node: &Node, topic: &str) -> Option<String> {
    let status = status(node);
    let found = status["warnings"].as_array()?.iter().find(|each| each["topic"] == topic)?;
    found["text"].as_str().map(str::to_owned)
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
    let text = eventually("the agent warns", || warning(node, "conflist").ok_or("no warning"));
    assert!(text.contains("05-other.conflist") && text.contains("remove it"), "{text}");
    eventually("it is whole again", || {
        let text = node.run(&["cat", CONFLIST]).stdout;
        serde_json::from_str::<Value>(&text).map_err(|error| format!("{text:?}: {error}"))
    });
    assert_eq!(
        node.must_run(&["stat", "-c", "%i", "/etc/cni/net.d"]),
        directory,
        "a watched directory is never replaced"
    );
    assert_eq!(node.must_run(&["cat", "/etc/cni/net.d/05-other.conflist"]), "{}\n", "another's is not touched");
    let log = node.agent().log();
    assert_eq!(log.matches("05-other.conflist").count(), 1, "it is said once: {log}");
}

/// Waits for the agent's next look at the directory, which is within ten seconds.
fn looked(node: &Node) {
    let marker = "/etc/cni/net.d/00-marker.conf";
    node.must_run(&["sh", "-c", &format!("echo '{{}}' >{marker}")]);
    eventually("the agent has looked", || warning(node, "conflist").ok_or("no warning"));
    node.must_run(&["rm", marker]);
    eventually("the agent has looked again", || warning(node, "conflist").map_or(Ok(()), Err));
}

#[test]
fn c35_c36_what_others_append_stays_and_the_settings_plugins_stand_behind_ours() {
    let chain = r#"{"type":"tuning","sysctl":{"net.core.somaxconn":"512"}}"#;
    let lab = Lab::builder().nodes(1).agent(&["--cni-chain", chain]).start();
    let node = lab.node("node-1");
    let mut list = lab.wait_until("the configuration appears", || read(node).ok_or("not yet"));
    assert_eq!(types(&list), ["fairlead-cni", "tuning"]);
    // As istio-cni does: append itself, and write the whole file.
    list["plugins"].as_array_mut().unwrap().push(serde_json::json!({"type": "istio-cni", "log_level": "info"}));
    replace(node, &list);
    let before = inode(node);
    looked(node);
    assert_eq!(inode(node), before, "it is not touched");
    // Our entry is damaged and put right: theirs is still there.
    list["plugins"][0]["socket"] = "/elsewhere".into();
    replace(node, &list);
    let after = eventually("our entry is right again", || match read(node) {
        Some(list) if list["plugins"][0].get("socket").is_none() => Ok(list),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(types(&after), ["fairlead-cni", "tuning", "istio-cni"]);
    assert_eq!(after["plugins"][2]["log_level"], "info");
    // An agent whose setting names no plugin takes its own away, and nobody else's.
    node.agent().stop();
    node.launch_agent_with(&[]);
    let after = eventually("the setting's plugin is gone", || match read(node) {
        Some(list) if types(&list).len() == 2 => Ok(list),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(types(&after), ["fairlead-cni", "istio-cni"]);
    let log = node.agent().log();
    assert!(log.contains("istio-cni"), "the log names whom it leaves alone: {log}");
}

#[test]
fn c35_a_file_that_is_no_list_is_copied_and_replaced() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    lab.wait_until("the configuration appears", || read(node).ok_or("not yet"));
    node.must_run(&["sh", "-c", &format!("echo torn >{CONFLIST}")]);
    eventually("it is whole again", || {
        let text = node.run(&["cat", CONFLIST]).stdout;
        serde_json::from_str::<Value>(&text).map_err(|error| format!("{text:?}: {error}"))
    });
    assert_eq!(node.must_run(&["cat", &format!("{CONFLIST}.broken")]), "torn\n");
    assert!(node.agent().log().contains(".broken"), "the log says where the copy is");
}

#[test]
fn c37_multus_in_front_is_no_finding_and_another_network_is_one() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    node.fairlead(&["install"]);
    let list = lab.wait_until("the configuration appears", || read(node).ok_or("not yet"));
    let multus = serde_json::json!({
        "cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": [list],
    });
    let path = "/etc/cni/net.d/00-multus.conf";
    let ended = node.run_with(&["tee", path], &[], &multus.to_string());
    assert!(ended.ok(), "{ended:?}");
    let findings = || node.fairlead(&["doctor", "-o", "json"]).stdout;
    assert!(!findings().contains("00-multus.conf"), "{}", findings());
    looked(node);
    assert_eq!(warning(node, "conflist"), None);
    // The same file, but pods go elsewhere.
    node.must_run(&["sed", "-i", "s/fairlead-cni/bridge/g; s/\"fairlead\"/\"other\"/g", path]);
    assert!(findings().contains("00-multus.conf"), "{}", findings());
    let warning = eventually("the agent says so too", || warning(node, "conflist").ok_or("no warning"));
    assert!(warning.contains("00-multus.conf"), "{warning}");
}
