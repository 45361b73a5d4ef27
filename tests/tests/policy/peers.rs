//! Whom a rule means: P5, P9, P11 to P15, P45.

use serde_json::Value;

use crate::grid::{Port, Turn, turn};

/// Whether a selector means the pod of this name.
type Matches = fn(&str) -> bool;

#[test]
fn p5_selectors() {
    let turn = turn();
    let table: [(&str, Matches); 6] = [
        ("{matchLabels: {pod: a}}", |pod| pod == "a"),
        ("{matchExpressions: [{key: pod, operator: In, values: [a, b]}]}", |pod| pod != "c"),
        ("{matchExpressions: [{key: pod, operator: NotIn, values: [a]}]}", |pod| pod != "a"),
        ("{matchExpressions: [{key: none, operator: NotIn, values: [a]}, {key: pod, operator: Exists}]}", |_| true),
        ("{matchExpressions: [{key: none, operator: DoesNotExist}], matchLabels: {pod: b}}", |pod| pod == "b"),
        ("{matchExpressions: [{key: pod, operator: DoesNotExist}]}", |_| false),
    ];
    for (selector, matches) in table {
        // As the policy's subject and as its peer.
        turn.policy(
            "x/rule",
            &format!("{{podSelector: {selector}, ingress: [{{from: [{{podSelector: {selector}}}]}}]}}"),
        );
        turn.matrix(|cell| {
            cell.is_self()
                || cell.server_ns() != "x"
                || !matches(&cell.to[2..])
                || (cell.client_ns() == "x" && matches(&cell.from[2..]))
        });
    }
}

#[test]
fn p9_no_peers_are_all_peers() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}");
    turn.policy("x/empty", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [], ports: [{port: 80}]}]}");
    turn.matrix(|cell| cell.is_self() || !["x/a", "x/b"].contains(&cell.to) || cell.port == Port::Tcp80);
    for ip in turn.pod("x/a").ips() {
        use fairlead_tests::Probes;
        assert_eq!(turn.lab().client().tcp(ip, 80).unwrap().server.pod, "x/a", "all are those outside, too");
    }
}

#[test]
fn p11_peer_and_port_of_one_rule_must_match() {
    let turn = turn();
    turn.policy(
        "x/in",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}, {podSelector: {matchLabels: {pod: b}}}], \
         ports: [{port: 80}, {port: 80, protocol: UDP}]}]}",
    );
    turn.matrix(|cell| {
        let peer = cell.client_ns() == "y" || cell.from == "x/b";
        cell.is_self() || cell.server_ns() != "x" || (peer && cell.port != Port::Tcp81)
    });
}

#[test]
fn p12_pods_of_the_policys_namespace() {
    let turn = turn();
    turn.policy(
        "x/in",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    turn.matrix(|cell| cell.is_self() || cell.to != "x/a" || cell.from == "x/b");
    // A label of a peer changes, and then one of the subject.
    let _c = relabel(&turn, "Pod", "x/c", "pod", "b");
    turn.matrix(|cell| cell.is_self() || cell.to != "x/a" || cell.from == "x/b" || cell.from == "x/c");
    let _a = relabel(&turn, "Pod", "x/a", "pod", "other");
    turn.matrix(|_| true);
}

#[test]
fn p13_all_pods_of_namespaces() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}");
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x" || cell.client_ns() == "y");
    let _z = relabel(&turn, "Namespace", "z", "ns", "y");
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x" || cell.client_ns() != "x");
}

#[test]
fn p14_one_entry_is_and_two_are_or() {
    let turn = turn();
    turn.policy(
        "x/and",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: \
         [{namespaceSelector: {matchLabels: {ns: 'y'}}, podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    turn.policy(
        "x/or",
        "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: \
         [{namespaceSelector: {matchLabels: {ns: 'y'}}}, {podSelector: {matchLabels: {pod: c}}}]}]}",
    );
    turn.policy(
        "x/out",
        "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: \
         [{namespaceSelector: {}, podSelector: {matchLabels: {pod: b}}}]}]}",
    );
    turn.matrix(|cell| {
        let into = match cell.to {
            "x/a" => cell.from == "y/b",
            "x/b" => cell.client_ns() == "y" || cell.from == "x/c",
            _ => true,
        };
        let out = cell.from != "x/c" || cell.to.ends_with('b');
        cell.is_self() || (into && out)
    });
}

#[test]
fn p15_an_empty_peer_matches_nothing() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{}]}]}");
    turn.policy("x/beside", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{}, {podSelector: {}}]}]}");
    turn.matrix(|cell| match cell.to {
        _ if cell.is_self() => true,
        "x/a" => false,
        "x/b" => cell.client_ns() == "x",
        _ => true,
    });
}

#[test]
fn p45_a_namespace_is_selected_by_its_name() {
    let turn = turn();
    turn.policy(
        "x/in",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: \
         [{key: kubernetes.io/metadata.name, operator: In, values: [z]}]}}]}]}",
    );
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x" || cell.client_ns() == "z");
}

/// An object as it was, put back at the end.
struct Relabelled<'a> {
    turn: &'a Turn,
    before: String,
}

/// Changes a label of an object that the lab wrote.
fn relabel<'a>(turn: &'a Turn, kind: &str, key: &str, label: &str, value: &str) -> Relabelled<'a> {
    let file = format!("{}_{}.yaml", kind.to_lowercase(), key.replace('/', "_"));
    let before = std::fs::read_to_string(turn.lab().objects().directory().join(file)).unwrap();
    let mut object: Value = serde_json::from_str(&before).unwrap();
    object["metadata"]["labels"][label] = value.into();
    turn.lab().apply(&object.to_string());
    Relabelled { turn, before }
}

impl Drop for Relabelled<'_> {
    fn drop(&mut self) {
        self.turn.lab().apply(&self.before);
    }
}
