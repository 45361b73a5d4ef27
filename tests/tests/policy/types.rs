//! Which policies select a pod, and in which direction: P1 to P4, P6 to P8, P47.

use crate::grid::{Port, turn};

#[test]
fn p1_what_nothing_selects_is_open() {
    let turn = turn();
    turn.matrix(|_| true);
    // One direction of one pod says nothing about the other, nor about other pods.
    turn.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}");
    turn.matrix(|cell| cell.to != "x/a" || cell.is_self());
}

#[test]
fn p2_rules_of_all_policies_add_up() {
    let turn = turn();
    turn.policy("y/from-x", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}");
    turn.policy("y/port-81", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}]}");
    turn.matrix(|cell| {
        cell.server_ns() != "y"
            || cell.is_self()
            || cell.client_ns() == "x"
            || (cell.to == "y/a" && cell.port == Port::Tcp81)
    });
}

#[test]
fn p3_both_ends_must_allow() {
    let turn = turn();
    turn.policy(
        "x/out",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}",
    );
    turn.policy("y/in", "{podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {}}]}]}");
    turn.matrix(|cell| {
        let out = cell.from != "x/a" || cell.server_ns() == "y";
        let into = cell.to != "y/b" || cell.client_ns() == "y";
        cell.is_self() || (out && into)
    });
}

#[test]
fn p4_an_empty_selector_is_the_policys_namespace() {
    let turn = turn();
    turn.policy("x/all", "{podSelector: {}, policyTypes: [Ingress]}");
    turn.matrix(|cell| cell.server_ns() != "x" || cell.is_self());
    turn.policy("x/all", "{policyTypes: [Ingress]}");
    turn.matrix(|cell| cell.server_ns() != "x" || cell.is_self());
}

#[test]
fn p6_types_are_as_listed_and_else_as_the_rules_are() {
    let turn = turn();
    // Ingress by default; Egress with it only when there are egress rules.
    turn.policy("x/none", "{podSelector: {matchLabels: {pod: a}}}");
    turn.policy("x/both", "{podSelector: {matchLabels: {pod: b}}, egress: [{to: [{podSelector: {}}]}]}");
    // A list says all there is to say.
    turn.policy(
        "y/in",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]}",
    );
    turn.policy("y/out", "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress, Egress]}");
    turn.matrix(|cell| {
        let into = !["x/a", "x/b", "y/a"].contains(&cell.to);
        let out = cell.from != "y/b" && (cell.from != "x/b" || cell.server_ns() == "x");
        cell.is_self() || (into && out)
    });
}

#[test]
fn p7_no_list_and_an_empty_list_are_the_same() {
    let turn = turn();
    turn.policy("x/nil", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress]}");
    turn.policy(
        "x/empty",
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress, Egress], ingress: [], egress: []}",
    );
    let closed = |pod: &str| pod == "x/a" || pod == "x/b";
    turn.matrix(|cell| cell.is_self() || !(closed(cell.from) || closed(cell.to)));
}

#[test]
fn p8_an_empty_rule_allows_everything() {
    let turn = turn();
    turn.policy("x/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    turn.matrix(|cell| cell.is_self() || (cell.client_ns() != "x" && cell.server_ns() != "x"));
    turn.policy("x/open", "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}");
    turn.matrix(|_| true);
}

#[test]
fn p47_a_denial_is_silence() {
    let turn = turn();
    for ns in ["x", "y", "z"] {
        turn.policy(&format!("{ns}/closed"), "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    }
    // Every cell that is denied has to time out: no reset, no ICMP error.
    turn.matrix(|cell| cell.from == cell.to);
}
