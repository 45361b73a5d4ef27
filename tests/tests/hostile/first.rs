//! Programs of others that see a pod's packets before Fairlead's, and decide on them.

use std::time::Duration;

use fairlead_tests::{Probe, Probes, binary};
use serde_json::Value;

use crate::unhook::{Stage, host_side, repaired_after, status};

/// The agent looks every ten seconds: nothing tells of such a program.
const FOUND: Duration = Duration::from_secs(40);

/// Puts a program that lets everything pass before all others, at pods' interfaces and the uplink.
fn precede(stage: &Stage, pins: &str) {
    let lab = binary("fairlead-lab").unwrap();
    let [open, closed] = [&stage.open, &stage.closed].map(host_side);
    let pins = format!("/sys/fs/bpf/{pins}");
    stage.node().must_run(&[lab.to_str().unwrap(), "precede", &open, &closed, "eth0", "--pins", &pins]);
}

#[test]
fn c46_programs_of_others_do_not_stay_before_those_of_pods_and_uplinks() {
    let stage = Stage::new();
    let node = stage.node();
    node.agent().kill9();
    precede(&stage, "others-1");
    // It does let past policy who may not.
    for ip in stage.closed.ips() {
        stage.open.probe(&Probe::tcp(ip, 80)).unwrap();
    }
    node.start_agent();
    stage.lab.wait_until("the agent is ready", || {
        let said = node.fairlead(&["status", "-o", "json"]).stdout;
        let status: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
        if status["health"] == "ready" { Ok(()) } else { Err(said) }
    });
    stage.assert_policy_holds("an agent has begun");
    let mut open: Vec<_> = stage.open.ips().map(|ip| stage.closed.connect(&Probe::tcp(ip, 80)).unwrap()).into();
    repaired_after(node, FOUND, &["program"], || precede(&stage, "others-2"));
    stage.assert_policy_holds("the agent has looked");
    for connection in &mut open {
        connection.exchange(10, 10).unwrap();
    }
    let status = status(node);
    assert_eq!(status["health"], "ready", "{status}");
    let what = status["repairs"][0]["what"].as_str().unwrap();
    assert!(what.contains("the first position of the program"), "{what}");
    // All is where the next agent looks for it.
    node.agent().kill9();
    stage.assert_policy_holds("without an agent");
}
