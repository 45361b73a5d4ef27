//! `fairlead policy explain` and `what-if` beside the packets of which they tell: P49, P70.

use std::net::IpAddr;

use fairlead_tests::{Ended, Lab, Node, Probe, Probes, ServiceManifest};
use serde_json::Value;

fn explain(node: &Node, from: &str, to: &str) -> (Ended, Value) {
    let ended = node.fairlead(&["-o", "json", "policy", "explain", "--exit-code", "--from", from, "--to", to]);
    let said = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, said)
}

#[test]
fn p49_p70_what_is_explained_and_foreseen_is_what_packets_meet_and_what_is_in_force() {
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
    let policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: why, name: closed}, \
                  spec: {podSelector: {matchLabels: {app: closed}}, policyTypes: [Ingress]}}";
    let file = std::env::temp_dir().join(format!("fairlead-what-if-{}.yaml", std::process::id()));
    std::fs::write(&file, policy).unwrap();
    let what_if = |more: &[&str]| {
        let asked = [&["-o", "json", "policy", "what-if", "--exit-code", file.to_str().unwrap()][..], more].concat();
        let ended = node.fairlead(&asked);
        let said: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"));
        (ended.code, said)
    };
    let (code, said) = what_if(&[]);
    assert_eq!((code, &said["kind"], &said["opens"]), (3, &Value::from("PolicyWhatIf"), &serde_json::json!([])));
    let closes = said["closes"].as_array().unwrap();
    let is_closed = |from: &str| {
        closes
            .iter()
            .any(|each| each["from"].to_string().contains(from) && each["to"] == serde_json::json!(["why/closed"]))
    };
    assert!(is_closed("why/client") && is_closed("why/open") && is_closed("0.0.0.0/0"), "{said}");
    let missing = node.fairlead(&["policy", "what-if", "--delete", file.to_str().unwrap()]);
    assert!(missing.code == 2 && missing.stderr.contains("no NetworkPolicy why/closed to delete"), "{missing:?}");
    lab.apply(policy);
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
    // Deleted, it would open what it closes.
    let (code, deleted) = what_if(&["--delete"]);
    assert_eq!((code, &deleted["opens"]), (4, &said["closes"]));
    std::fs::remove_file(&file).unwrap();
    // A question that has no answer is no verdict.
    let wrong = node.fairlead(&["policy", "explain", "--exit-code", "--from", "why/client", "--to", "why/nobody:80"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("why/nobody"), "{wrong:?}");
}
