//! Connections over time: replies and a pod's own address, P30 to P32; those that are open when a policy comes, P39.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Connection, Probe, ProbeError, Probes, Via};

use crate::grid::{Turn, turn};

/// How long it may take until a connection is made.
const PATIENCE: Duration = Duration::from_millis(300);

#[test]
fn p30_replies_pass() {
    let turn = turn();
    // The clients may be reached by nobody, the servers may reach nobody.
    turn.policy("x/in", "{podSelector: {}, policyTypes: [Ingress]}");
    turn.policy("y/out", "{podSelector: {}, policyTypes: [Egress]}");
    turn.matrix(|cell| cell.is_self() || (cell.server_ns() != "x" && cell.client_ns() != "y"));
    let long = Probe::tcp(turn.pod("y/b").v6(), 80).payload(20_000).answer_payload(100_000);
    let reply = turn.pod("x/a").probe(&long).unwrap();
    assert_eq!((reply.server.got, reply.server.pad.len()), (20_000, 100_000));
}

#[test]
fn p31_a_pod_reaches_itself() {
    let turn = turn();
    turn.policy("x/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    for pod in ["x/a", "x/b", "x/c"].map(|key| turn.pod(key)) {
        for ip in pod.ips() {
            for via in Via::BOTH {
                assert_eq!(pod.via(via).tcp(ip, 80).unwrap().server.pod, pod.key());
                assert_eq!(pod.via(via).udp(ip, 80).unwrap().server.pod, pod.key());
            }
        }
    }
}

#[test]
fn p32_a_pod_reaches_itself_through_its_service() {
    let turn = turn();
    turn.policy("x/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    let other = Probe::tcp(turn.service("x/b")[0], 8080).timeout(PATIENCE);
    // The policy is in force: another pod of the namespace is out of reach.
    turn.lab().wait_until("another pod is out of reach", || match turn.pod("x/a").probe(&other) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for pod in ["x/a", "x/b", "x/c"].map(|key| turn.pod(key)) {
        for ip in turn.service(pod.key()) {
            for via in Via::BOTH {
                assert_eq!(pod.via(via).tcp(ip, 8080).unwrap().server.pod, pod.key());
            }
        }
    }
}

/// Connections of both families to a pod of the same node, to one of the other node, and to both services.
fn connections(turn: &Turn, from: &str, to: &[&str]) -> Vec<(String, Connection)> {
    let mut open = Vec::new();
    for to in to {
        let pods = turn.pod(to).ips().map(|ip| (ip, 80, Via::Socket));
        let services = turn.service(to).into_iter().zip(Via::BOTH).map(|(ip, via)| (ip, 8080, via));
        for (ip, port, via) in pods.into_iter().chain(services) {
            let ip: IpAddr = ip;
            let mut connection = turn.pod(from).via(via).connect(&Probe::tcp(ip, port).timeout(PATIENCE)).unwrap();
            connection.exchange(10, 0).unwrap();
            open.push((format!("{from} to {to} at {ip}"), connection));
        }
    }
    open
}

#[test]
fn p39_open_connections_end_when_a_policy_denies_them() {
    for (key, spec) in [
        ("y/in", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"),
        (
            "x/out",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}",
        ),
    ] {
        let turn = turn();
        let cut = connections(&turn, "x/a", &["y/a", "y/b"]);
        let mut kept = connections(&turn, "z/a", &["x/b", "z/b"]);
        turn.policy(key, spec);
        // All at once: each is silent for as long as an answer is waited for.
        let lab = turn.lab();
        std::thread::scope(|scope| {
            for (name, mut connection) in cut {
                scope.spawn(move || {
                    lab.wait_until(&format!("{name} is cut"), || match connection.exchange(10, 0) {
                        Err(ProbeError::TimedOut) => Ok(()),
                        other => Err(format!("{other:?}")),
                    });
                });
            }
        });
        for (name, connection) in &mut kept {
            connection.exchange(10, 0).unwrap_or_else(|error| panic!("{name}, which is allowed: {error}"));
        }
    }
}

#[test]
fn p39_open_connections_go_on_when_policies_change_that_allow_them() {
    let turn = turn();
    let mut open = connections(&turn, "x/a", &["y/a", "y/b"]);
    for spec in [
        "{podSelector: {}, ingress: [{}]}",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}]}]}",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/8'}}]}]}",
    ] {
        turn.policy("y/in", spec);
        for (name, connection) in &mut open {
            for _ in 0..5 {
                connection.exchange(100, 100).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
    turn.remove("y/in");
    for (name, connection) in &mut open {
        connection.exchange(100, 100).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
