//! Policies in audit mode, with packets: P74 and P75.

use fairlead_tests::{Lab, Node, Pod, Probe, ProbeError, Probes, ServiceManifest};
use serde_json::Value;

fn policy(mode: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
         metadata: {{namespace: shop, name: strict{mode}}}, \
         spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], \
         ingress: [{{ports: [{{port: 81}}]}}]}}}}"
    )
}

const AUDIT: &str = ", annotations: {fairlead.io/mode: audit}";

fn audit(node: &Node) -> Value {
    let ended = node.fairlead(&["-o", "json", "policy", "audit"]);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(said["kind"], "PolicyAudit");
    said
}

/// Pod, direction, peer, port and number of flows that would have been dropped.
fn flows(node: &Node) -> Vec<(String, String, String, u64, u64)> {
    let said = audit(node);
    let text = |flow: &Value, field: &str| flow[field].as_str().unwrap().to_owned();
    let flow = |flow: &Value| {
        assert_eq!((&flow["policies"][0], &flow["rule"]), (&Value::from("shop/strict"), &Value::Null), "{flow}");
        let (port, flows) = (flow["port"].as_u64().unwrap(), flow["flows"].as_u64().unwrap());
        (text(flow, "pod"), text(flow, "direction"), text(flow, "peer"), port, flows)
    };
    said["flows"].as_array().unwrap().iter().map(flow).collect()
}

fn passes(client: &Pod, server: &Pod, port: u16) {
    for ip in server.ips() {
        assert_eq!(client.tcp(ip, port).unwrap().server.pod, server.key());
    }
}

#[test]
fn p74_p75_a_policy_in_audit_mode_drops_nothing_and_says_what_it_would_drop() {
    let lab = Lab::builder().nodes(2).start();
    let [near, far] = ["node-1", "node-2"].map(|name| lab.node(name));
    let web = near.pod("shop/web").label("app", "web").tcp(80).tcp(81).start();
    let (client, other) = (near.pod("shop/client").start(), far.pod("shop/other").start());
    let service = ServiceManifest::new("shop/web").ips(&["10.96.74.1"]).tcp("http", 8080, 80).endpoint(&web);
    lab.apply(&service.node_ports(&[30_074]).yaml());
    let node_port: std::net::IpAddr = near.v4().into();
    lab.wait_until("the service answers", || lab.client().tcp(node_port, 30_074));
    assert!(near.fairlead(&["policy", "audit"]).stdout.contains("no policy is in audit mode"));

    lab.apply(&policy(AUDIT));
    lab.wait_until("the policy is audited", || match &audit(near)["policies"][0]["policy"] {
        name if name == "shop/strict" => Ok(()),
        other => Err(other.to_string()),
    });
    passes(&client, &web, 80);
    passes(&other, &web, 80);
    passes(&client, &web, 81);
    let vip: std::net::IpAddr = "10.96.74.1".parse().unwrap();
    client.tcp(vip, 8080).unwrap();
    lab.client().tcp(node_port, 30_074).unwrap();
    // By way of the Service and straight to the pod are one: the rule would see the pod's port.
    let outside = lab.wait_until("what would be dropped is said", || {
        let all = flows(near);
        let of = |peer: &str| all.iter().find(|flow| flow.2 == peer).map(|flow| flow.4);
        let outside = all.iter().find(|flow| !flow.2.starts_with("shop/")).cloned();
        match (of("shop/client"), of("shop/other"), outside) {
            (Some(3..), Some(2..), Some(outside)) => Ok(outside),
            _ => Err(all),
        }
    });
    assert_eq!((outside.2.as_str(), outside.3), ("172.18.0.100", 80), "the client's own address");
    let all = flows(near);
    assert!(
        all.iter().all(|flow| (flow.0.as_str(), flow.1.as_str(), flow.3) == ("shop/web", "ingress", 80)),
        "{all:?}"
    );
    let text = near.fairlead(&["policy", "audit", "--pod", "shop/web"]).stdout;
    assert!(text.contains("shop/strict") && text.contains("none allows it"), "{text}");
    assert!(flows(far).is_empty(), "the other node has no pod of it");

    // In force it drops just that, and nothing of it is said any more.
    lab.apply(&policy(""));
    for ip in web.ips() {
        lab.wait_until("the policy is in force", || match client.probe(&Probe::tcp(ip, 80)) {
            Err(ProbeError::TimedOut) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    passes(&client, &web, 81);
    lab.wait_until("it is no longer audited", || match audit(near)["policies"].as_array().unwrap().len() {
        0 => Ok(()),
        count => Err(count),
    });

    // And back: connections pass again.
    lab.apply(&policy(AUDIT));
    for ip in web.ips() {
        lab.wait_until("the policy is in audit mode", || client.tcp(ip, 80));
    }
}
