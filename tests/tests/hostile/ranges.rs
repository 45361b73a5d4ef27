//! Nodes to which the control plane gives no range for pods.

use std::time::Duration;

use fairlead_tests::{Lab, Node, Probe, ProbeError, Probes, ServiceManifest};
use serde_json::json;

/// What nobody answers in this time is dropped.
const SILENCE: Duration = Duration::from_millis(300);

/// The Node object without `spec.podCIDRs`, and with ranges in the annotation.
fn annotated(node: &Node, ranges: &str) -> String {
    let kept = node.manifest().lines().filter(|line| !line.contains("podCIDR")).collect::<Vec<_>>().join("\n");
    let text = kept.replace("spec:", "spec: {}").replace(
        &format!("  name: {}\n", node.name()),
        &format!("  name: {}\n  annotations: {{fairlead.io/pod-cidrs: \"{ranges}\"}}\n", node.name()),
    );
    assert!(text.contains("annotations") && text.contains("spec: {}"), "{text}");
    text
}

fn stranger(name: &str, ranges: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"fairlead.io/pod-cidrs": ranges},
        },
        "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.71"}]},
    })
    .to_string()
}

#[track_caller]
fn says(lab: &Lab, node: &Node, what: &[&str]) {
    lab.wait_until(&format!("the status of {} has {what:?}", node.name()), || {
        let status = node.fairlead(&["status"]).stdout;
        if what.iter().all(|what| status.contains(what)) { Ok(()) } else { Err(status) }
    });
}

#[test]
fn c50_a_nodes_annotation_gives_its_range_and_takes_nobody_elses() {
    let permitted = "--annotated-ranges=10.244.0.0/16,fd00:10:244::/56";
    let lab = Lab::builder().nodes(2).agent(&[permitted]).without_agents().start();
    let (first, second) = (lab.node("node-1"), lab.node("node-2"));
    lab.apply(&annotated(first, "10.244.77.0/24,fd00:10:244:4d::/64"));
    // It has the first one's, and both come at the same time.
    lab.apply(&annotated(second, "10.244.76.0/23"));
    first.start_agent();
    second.launch_agent();
    says(&lab, second, &["Node node-2 has no pod range", "overlaps 10.244.77.0/24 of node node-1", "kubectl annotate"]);
    lab.apply(&annotated(second, "10.244.78.0/24,fd00:10:244:4e::/64"));
    second.agent().wait_ready();

    let client = first.pod("ranges/client").label("app", "trusted").tcp(8080).start();
    let server = second.pod("ranges/server").label("role", "closed").tcp(8080).start();
    assert_eq!([client.v4().octets()[2], server.v4().octets()[2]], [77, 78]);
    assert_eq!([client.v6().segments()[3], server.v6().segments()[3]], [0x4d, 0x4e]);
    // Its pods are peers by their labels, so their addresses count on the other node; and it has the routes there.
    let peer = json!({"from": [{"podSelector": {"matchLabels": {"app": "trusted"}}}]});
    let spec =
        json!({"podSelector": {"matchLabels": {"role": "closed"}}, "policyTypes": ["Ingress"], "ingress": [peer]});
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "ranges", "name": "closed"},
        "spec": spec,
    });
    lab.apply(&policy.to_string());
    let stranger_pod = first.pod("ranges/stranger").start();
    for (to, back) in server.ips().into_iter().zip(client.ips()) {
        lab.wait_until("a stranger is kept out", || match stranger_pod.probe(&Probe::tcp(to, 8080).timeout(SILENCE)) {
            Err(ProbeError::TimedOut) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        lab.wait_until("the trusted pod is let in", || client.tcp(to, 8080));
        lab.wait_until("and is reached", || server.tcp(back, 8080));
    }

    // Others get nothing of what is somebody's, and take nothing from whom it is.
    lab.apply(&ServiceManifest::new("ranges/service").ips(&["10.244.90.10"]).tcp("http", 80, 8080).yaml());
    let refused = [
        ("thief", "10.244.77.0/25", "10.244.77.0/25 overlaps 10.244.77.0/24 of node node-1"),
        ("beside", "10.244.90.0/24", "holds 10.244.90.10, the address of Service ranges/service"),
        ("outside", "10.245.0.0/24", "10.245.0.0/24 is in no prefix of the setting `annotatedRanges`"),
    ];
    for (name, ranges, why) in refused {
        lab.apply(&stranger(name, ranges));
        for node in [first, second] {
            says(&lab, node, &[&format!("Node {name}"), why]);
        }
        let routes = second.must_run(&["ip", "route", "show", "table", "all"]);
        assert!(!routes.contains(ranges), "{routes}");
    }
    for to in server.ips() {
        let answer: Result<_, ProbeError> = client.tcp(to, 8080);
        assert!(answer.is_ok(), "{answer:?}");
    }
    // What was refused is given once it is free.
    lab.delete("Service", "ranges/service");
    lab.wait_until("the range is the node's once no Service has it", || {
        let routes = second.must_run(&["ip", "route", "show", "table", "all"]);
        if routes.contains("10.244.90.0/24") { Ok(()) } else { Err(routes) }
    });
}
