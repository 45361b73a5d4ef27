//! Nodes as peers: P33 to P35; and what is no TCP or UDP: P37.

use std::time::Duration;

use fairlead_tests::{Ping, Probe, ProbeError, Probes, Via};

use crate::grid::{turn, verdict};

#[test]
fn p33_the_own_node_reaches_its_pods() {
    let turn = turn();
    turn.policy("x/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}");
    for key in ["x/a", "x/b"] {
        let pod = turn.pod(key);
        for ip in pod.ips() {
            for probe in [Probe::tcp(ip, 80), Probe::udp(ip, 80)] {
                for node in turn.lab().nodes() {
                    let own = node.name() == pod.node().name();
                    turn.lab().wait_until(&format!("{} meets the policy of {key} at {ip}", node.name()), || {
                        verdict(node.vantage(), &probe, own, Some(key))
                    });
                }
            }
            pod.node().ping(&Ping::new(ip)).unwrap();
        }
    }
}

#[test]
fn p34_egress_to_the_own_node_is_subject_to_policy() {
    const PORT: u16 = 9091;
    let turn = turn();
    let pod = turn.pod("x/a");
    for node in turn.lab().nodes() {
        node.serve(node.name(), &[PORT], &[PORT]);
    }
    let meets = |allow: &dyn Fn(&str) -> bool| {
        for node in turn.lab().nodes() {
            for probe in node.ips().into_iter().flat_map(|ip| [Probe::tcp(ip, PORT), Probe::udp(ip, PORT)]) {
                turn.lab().wait_until(&format!("x/a meets its policy for {}", node.name()), || {
                    verdict(&pod.via(Via::Socket), &probe, allow(node.name()), Some(node.name()))
                });
            }
        }
    };
    meets(&|_| true);
    turn.policy("x/out", "{podSelector: {}, policyTypes: [Egress]}");
    meets(&|_| false);
    turn.policy(
        "x/out",
        &format!(
            "{{podSelector: {{}}, egress: [{{to: [{{ipBlock: {{cidr: {}/32}}}}, {{ipBlock: {{cidr: '{}/128'}}}}]}}], \
         policyTypes: [Egress]}}",
            pod.node().v4(),
            pod.node().v6(),
        ),
    );
    meets(&|node| node == pod.node().name());
}

#[test]
fn p35_another_node_is_an_address() {
    let turn = turn();
    let pod = turn.pod("x/a");
    let other = turn.lab().nodes().iter().find(|node| node.name() != pod.node().name()).unwrap();
    let reaches = |allow: bool| {
        for ip in pod.ips() {
            turn.lab().wait_until("the other node meets the policy", || {
                verdict(other.vantage(), &Probe::tcp(ip, 80), allow, Some("x/a"))
            });
        }
    };
    turn.policy("x/in", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}");
    reaches(false);
    turn.policy("x/in", &format!(
        "{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {}/32}}}}, {{ipBlock: {{cidr: '{}/128'}}}}]}}]}}",
        other.v4(),
        other.v6(),
    ));
    reaches(true);
    turn.policy("x/in", "{podSelector: {}, ingress: [{}]}");
    reaches(true);
}

#[test]
fn p37_icmp_needs_a_rule_without_ports_and_errors_of_allowed_flows_pass() {
    let turn = turn();
    // The node's hint that a port is closed answers a datagram that was allowed.
    turn.policy("x/closed", "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}");
    turn.policy(
        "x/ports",
        "{podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{protocol: TCP}, {protocol: UDP}]}]}",
    );
    turn.policy("x/any", "{podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{namespaceSelector: {}}]}]}");
    let silence = Duration::from_millis(100);
    for server in ["y/a", "y/b"].map(|key| turn.pod(key)) {
        for ip in server.ips() {
            assert_eq!(turn.pod("x/a").udp(ip, 9999), Err(ProbeError::Refused), "{ip}");
            turn.pod("x/a").ping(&Ping::new(ip)).unwrap();
        }
        for (to, answers) in [("x/a", false), ("x/b", false), ("x/c", true)] {
            for ip in turn.pod(to).ips() {
                turn.lab().wait_until(&format!("{to} meets its policy for pings at {ip}"), || {
                    match server.ping(&Ping::new(ip).timeout(if answers {
                        Duration::from_millis(900)
                    } else {
                        silence
                    })) {
                        Ok(_) if answers => Ok(()),
                        Err(ProbeError::TimedOut) if !answers => Ok(()),
                        other => Err(other),
                    }
                });
            }
        }
    }
}
