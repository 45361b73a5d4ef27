//! `fairlead policy explain` beside the packets of which it tells: P49.

use std::net::IpAddr;

use fairlead_tests::{Ended, Lab, Node, Probe, Probes, ServiceManifest};
use serde_json::Value;

fn explain(node: &Node, from: &str, to: &str) -> (Ended, Value) {
    let ended = node.fairlead(&["-o", "json", "policy", "explain", "--exit-code", "--from", from, "--to", to]);
    let said = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, said)
}

#[test]
fn p49_what_is_explained_is_what_packets_meet_and_what_is_in_force() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let client = node.pod("why/client").label("app", "client").start();
    let open = node.pod("why/open").label("app", "open").port_name(80, "web").tcp(80).start();
    let closed = node.pod("why/closed").label("app", "closed").tcp(80).start();
    let service = |name: &str, ip: &str| ServiceManifest::new(&format!("why/{name}")).ips(&[ip]).tcp("http", 8080, 80);
    lab.apply(&service("open", "10.96.5.1").endpoints(&[&open]).yaml());
    lab.apply(&service("closed", "10.96.5.2").endpoints(&[&closed]).yaml());
    lab.apply(&service("both", "10.96.5.3").endpoints(&[&open, &closed]).yaml());
    lab.apply(&service("empty", "10.96.5.4").yaml());
    lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: why, name: closed}, \
         spec: {podSelector: {matchLabels: {app: closed}}, policyTypes: [Ingress]}}",
    );
    lab.wait_until("the policy is in force", || match client.tcp(closed.v4(), 80) {
        Err(error) => Ok(error),
        Ok(reply) => Err(reply.server.pod),
    });
    let multicast = "224.0.0.251:5353/udp";
    for (to, verdict, reason, code) in [
        ("why/open:web", "allowed", None, 0),
        ("service/why/open:http", "allowed", None, 0),
        ("10.96.5.1:8080", "allowed", None, 0),
        ("why/closed:80", "dropped", Some("ingress_policy"), 3),
        ("10.96.5.2:8080", "dropped", Some("ingress_policy"), 3),
        ("10.96.5.3:8080", "partly", Some("ingress_policy"), 4),
        ("10.96.5.4:8080", "refused", Some("rejected"), 3),
        (multicast, "dropped", Some("multicast"), 3),
    ] {
        let said = lab.wait_until("it is explained so", || {
            let (ended, said) = explain(node, "why/client", to);
            let is = said["verdict"] == verdict && ended.code == code;
            let reasons: Vec<&str> = reason.into_iter().collect();
            if is && said["reasons"] == serde_json::json!(reasons) { Ok(said) } else { Err((ended.code, said)) }
        });
        // Neither of the last two asks a policy.
        let judged = !["10.96.5.4:8080", multicast].contains(&to);
        assert_eq!(said["in_force"], if judged { Value::Bool(true) } else { Value::Null }, "{said}");
    }
    // As packets have it.
    let reached = |ip: &str| client.probe(&Probe::tcp(ip.parse::<IpAddr>().unwrap(), 8080)).is_ok();
    assert!(reached("10.96.5.1") && !reached("10.96.5.2") && !reached("10.96.5.4"));
    // A question that has no answer is no verdict.
    let wrong = node.fairlead(&["policy", "explain", "--exit-code", "--from", "why/client", "--to", "why/nobody:80"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("why/nobody"), "{wrong:?}");
}
