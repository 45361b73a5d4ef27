//! Ports and protocols of rules: P10, P20 to P25, P27.

use fairlead_tests::{Ping, Probes};

use crate::grid::{Port, turn};

#[test]
fn p10_no_ports_are_all_ports_of_all_protocols() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: 'y'}}}]}]}");
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x" || cell.client_ns() == "y");
    let silence = std::time::Duration::from_millis(100);
    for ip in turn.pod("x/a").ips() {
        turn.pod("y/a").ping(&Ping::new(ip)).unwrap();
        turn.pod("z/a").ping(&Ping::new(ip).timeout(silence)).unwrap_err();
    }
}

#[test]
fn p20_no_protocol_is_tcp() {
    let turn = turn();
    turn.policy("x/tcp", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}");
    turn.policy("x/udp", "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 80, protocol: UDP}]}]}");
    turn.policy("x/sctp", "{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}");
    turn.matrix(|cell| match cell.to {
        _ if cell.is_self() => true,
        "x/a" => cell.port == Port::Tcp80,
        "x/b" => cell.port == Port::Udp80,
        "x/c" => false,
        _ => true,
    });
}

#[test]
fn p21_no_port_is_every_port_of_the_protocol() {
    let turn = turn();
    turn.policy("x/tcp", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: TCP}]}]}");
    turn.policy("x/udp", "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{protocol: UDP}]}]}");
    turn.matrix(|cell| match cell.to {
        _ if cell.is_self() => true,
        "x/a" => cell.port != Port::Udp80,
        "x/b" => cell.port == Port::Udp80,
        _ => true,
    });
}

#[test]
fn p22_ranges_of_ports_include_both_ends() {
    let turn = turn();
    turn.policy("x/last", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 70, endPort: 80}]}]}");
    turn.policy("x/first", "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 81, endPort: 32000}]}]}");
    turn.policy("x/both", "{podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: 80, endPort: 81}]}]}");
    turn.matrix(|cell| match cell.to {
        _ if cell.is_self() => true,
        "x/a" => cell.port == Port::Tcp80,
        "x/b" => cell.port == Port::Tcp81,
        "x/c" => cell.port != Port::Udp80,
        _ => true,
    });
}

#[test]
fn p23_named_port_per_destination() {
    let turn = turn();
    turn.policy("x/web", "{podSelector: {}, ingress: [{ports: [{port: web}]}]}");
    // The pods named c call their port 81 so.
    let web = |pod: &str| if pod.ends_with('c') { Port::Tcp81 } else { Port::Tcp80 };
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x" || cell.port == web(cell.to));
}

#[test]
fn p24_named_port_of_each_destination_of_egress() {
    let turn = turn();
    turn.policy("x/web", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}");
    let web = |pod: &str| if pod.ends_with('c') { Port::Tcp81 } else { Port::Tcp80 };
    turn.matrix(|cell| cell.is_self() || cell.client_ns() != "x" || cell.port == web(cell.to));
}

#[test]
fn p25_a_name_of_nobody_matches_nothing_and_still_isolates() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: nobody}]}]}");
    turn.policy("x/sctp", "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: web, protocol: SCTP}]}]}");
    turn.policy(
        "y/out",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: nobody}]}]}",
    );
    turn.matrix(|cell| cell.is_self() || !(["x/a", "x/b"].contains(&cell.to) || cell.from == "y/a"));
}

#[test]
fn p27_ports_are_those_of_the_pod() {
    let turn = turn();
    // The services' port is 8080.
    turn.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}");
    turn.policy("x/service", "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 8080}]}]}");
    turn.policy(
        "y/out",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}",
    );
    turn.policy(
        "y/service",
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{ports: [{port: 8080}]}]}",
    );
    turn.matrix(|cell| {
        let http = cell.port == Port::Tcp80;
        let into = cell.to != "x/b" && (cell.to != "x/a" || http);
        let out = cell.from != "y/b" && (cell.from != "y/a" || http);
        cell.is_self() || (into && out)
    });
}
