//! The rows of the behaviour table by name, and any cluster: tables and model agree.

use std::net::IpAddr;

use fairlead_datapath::peer::PeerFlags;
use fairlead_datapath::{Addr, peer};
use fairlead_objects::{Action, ClusterRule, Node, Operator, Peer, Phase, PolicyPort, PortMatch, Protocol, Selector};
use proptest::prelude::*;

use super::testing::*;
use super::*;
use crate::compile::policy::reference::Flow;
use crate::masquerade::{self, Masquerade};
use crate::plan::policy::State;

/// Whether a flow between two pods of this node may pass, on both addresses, by the tables; and the model agrees.
fn passes(cluster: &Cluster, from: &str, to: &str, proto: u8, port: u16) -> bool {
    let verdicts = [0, 1].map(|family| {
        let (a, b) = (cluster.ip_of(from, family), cluster.ip_of(to, family));
        judged(cluster, from, Direction::Egress, Flow { peer: b, proto, port })
            && judged(cluster, to, Direction::Ingress, Flow { peer: a, proto, port })
    });
    assert_eq!(verdicts[0], verdicts[1], "families differ: {from} -> {to} {proto}/{port}");
    verdicts[0]
}

/// One direction of a pod of this node. The model must agree, and the bit must name the rule that the model names.
fn judged(cluster: &Cluster, pod: &str, direction: Direction, flow: Flow) -> bool {
    let state = cluster.tables();
    let local = cluster.local.iter().find(|local| local.key == key(pod)).unwrap();
    let (allow, set, bit) = ask(state.content(), local.slot, direction, flow);
    let (expected, rule) = model(cluster, local, direction, flow);
    assert_eq!(allow, expected, "{pod} {direction} {flow:?}");
    assert_eq!(state.rule(set, bit), rule.as_ref());
    allow
}

fn ingress(cluster: &Cluster, pod: &str, peer: &str, proto: u8, port: u16) -> bool {
    judged(cluster, pod, Direction::Ingress, Flow { peer: ip(peer), proto, port })
}

fn egress(cluster: &Cluster, pod: &str, peer: &str, proto: u8, port: u16) -> bool {
    judged(cluster, pod, Direction::Egress, Flow { peer: ip(peer), proto, port })
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

#[test]
fn p1_what_nothing_selects_is_open() {
    let cluster = Cluster::grid().policy("x/deny", "pod=b", Some(&[]), Some(&[]));
    assert!(passes(&cluster, "x/a", "x/c", TCP, 80));
    assert!(passes(&cluster, "y/a", "x/a", SCTP, 80));
    assert!(ingress(&cluster, "x/a", "192.0.2.1", 1, 0));
    assert_eq!(compile(&cluster.world()).pods[&10].ingress, Judge::Nobody);
}

#[test]
fn p2_rules_of_all_policies_add_up() {
    let cluster = Cluster::grid()
        .policy("x/deny", "", Some(&[]), None)
        .policy("x/one", "pod=a", Some(&[rule(&[pods("pod=b")], &[])]), None)
        .policy("x/two", "pod=a", Some(&[rule(&[pods("pod=c")], &[tcp(80)])]), None);
    assert!(passes(&cluster, "x/b", "x/a", TCP, 81));
    assert!(passes(&cluster, "x/c", "x/a", TCP, 80));
    assert!(!passes(&cluster, "x/c", "x/a", TCP, 81));
    assert!(!passes(&cluster, "x/a", "x/b", TCP, 80));
}

#[test]
fn p3_both_ends_must_allow() {
    let cluster = Cluster::grid().policy("x/out", "pod=a", None, Some(&[rule(&[pods_of("ns=y", "")], &[])])).policy(
        "y/in",
        "pod=b",
        Some(&[rule(&[pods_of("ns=x", "pod=a")], &[])]),
        None,
    );
    assert!(passes(&cluster, "x/a", "y/b", TCP, 80));
    assert!(passes(&cluster, "x/a", "y/a", TCP, 80));
    assert!(!passes(&cluster, "x/b", "y/b", TCP, 80));
    assert!(!passes(&cluster, "x/a", "z/a", TCP, 80));
}

#[test]
fn p4_an_empty_selector_is_the_policys_namespace() {
    let cluster = Cluster::grid().policy("x/deny", "", Some(&[]), None);
    for pod in ["x/a", "x/b", "x/c"] {
        assert!(!passes(&cluster, "y/a", pod, TCP, 80));
    }
    assert!(passes(&cluster, "x/a", "y/a", TCP, 80));
}

#[test]
fn p5_selectors() {
    let all = |r| Peer::Pods { namespaces: Some(Selector::everything()), pods: Selector::All(r) };
    let cases: [(&[_], [bool; 3]); 5] = [
        (&[requirement("pod", Operator::In, &["a", "b"])], [true, true, false]),
        (&[requirement("pod", Operator::NotIn, &["a"])], [false, true, true]),
        (&[requirement("other", Operator::NotIn, &["a"])], [true, true, true]),
        (&[requirement("other", Operator::DoesNotExist, &[])], [true, true, true]),
        (&[requirement("pod", Operator::Exists, &[]), requirement("pod", Operator::In, &["c"])], [false, false, true]),
    ];
    for (requirements, expected) in cases {
        let peer = all(requirements.iter().cloned().collect());
        let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[peer], &[])]), None);
        let got = ["y/a", "y/b", "y/c"].map(|from| passes(&cluster, from, "x/a", TCP, 80));
        assert_eq!(got, expected, "{requirements:?}");
    }
}

#[test]
fn p6_p7_a_direction_with_no_rules_is_closed_and_one_not_named_is_open() {
    let cluster = Cluster::grid().policy("x/p", "pod=a", None, Some(&[]));
    assert!(!passes(&cluster, "x/a", "x/b", TCP, 80));
    assert!(passes(&cluster, "x/b", "x/a", TCP, 80));
}

#[test]
fn p8_p9_p10_an_empty_rule_allows_everything() {
    let cluster = Cluster::grid().policy("x/deny", "", Some(&[]), Some(&[])).policy(
        "x/all",
        "",
        Some(&[rule(&[], &[])]),
        Some(&[rule(&[], &[])]),
    );
    for peer in ["10.244.1.13", "192.0.2.1", "172.18.0.2", "2001:db8::1"] {
        for (proto, port) in [(TCP, 80), (UDP, 1), (SCTP, 9), (1, 0), (58, 0), (47, 0)] {
            assert!(ingress(&cluster, "x/a", peer, proto, port) && egress(&cluster, "x/a", peer, proto, port));
        }
    }
}

#[test]
fn p11_peer_and_port_of_one_rule_must_match() {
    let cluster = Cluster::grid().policy(
        "x/p",
        "pod=a",
        Some(&[rule(&[pods("pod=b"), pods("pod=c")], &[tcp(80), udp(53)]), rule(&[pods_of("ns=y", "")], &[tcp(81)])]),
        None,
    );
    assert!(passes(&cluster, "x/b", "x/a", TCP, 80) && passes(&cluster, "x/c", "x/a", UDP, 53));
    assert!(passes(&cluster, "y/a", "x/a", TCP, 81));
    assert!(!passes(&cluster, "x/b", "x/a", TCP, 81) && !passes(&cluster, "y/a", "x/a", TCP, 80));
}

#[test]
fn p12_p13_p14_pods_of_a_namespace_and_the_and_of_both() {
    let one = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[pods("pod=b")], &[])]), None);
    assert!(passes(&one, "x/b", "x/a", TCP, 80) && !passes(&one, "y/b", "x/a", TCP, 80));
    let namespace = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[pods_of("ns=y", "")], &[])]), None);
    assert!(passes(&namespace, "y/c", "x/a", TCP, 80) && !passes(&namespace, "x/b", "x/a", TCP, 80));
    let both = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[pods_of("ns=y", "pod=b")], &[])]), None);
    assert!(passes(&both, "y/b", "x/a", TCP, 80));
    assert!(!passes(&both, "y/a", "x/a", TCP, 80) && !passes(&both, "x/b", "x/a", TCP, 80));
    let either =
        Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[pods_of("ns=y", ""), pods("pod=b")], &[])]), None);
    assert!(passes(&either, "y/a", "x/a", TCP, 80) && passes(&either, "x/b", "x/a", TCP, 80));
    assert!(!passes(&either, "z/b", "x/a", TCP, 80));
}

#[test]
fn p15_p46_what_cant_be_read_matches_nothing_and_still_isolates() {
    for peers in [&[Peer::Nothing][..], &[Peer::Pods { namespaces: None, pods: Selector::Invalid }]] {
        let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(peers, &[])]), None);
        assert!(!passes(&cluster, "x/b", "x/a", TCP, 80));
        assert!(!ingress(&cluster, "x/a", "192.0.2.1", TCP, 80));
    }
}

#[test]
fn p16_p17_blocks_and_exceptions_which_are_their_own_entrys_only() {
    let cut = block("192.0.2.0/24", &["192.0.2.128/25"]);
    let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(std::slice::from_ref(&cut), &[])]), None);
    assert!(ingress(&cluster, "x/a", "192.0.2.1", TCP, 80));
    assert!(!ingress(&cluster, "x/a", "192.0.2.129", TCP, 80));
    assert!(!ingress(&cluster, "x/a", "192.0.3.1", TCP, 80));
    let cluster = cluster.policy("x/q", "pod=a", Some(&[rule(&[cut, block("192.0.2.130/32", &[])], &[])]), None);
    assert!(ingress(&cluster, "x/a", "192.0.2.130", TCP, 80));
    assert!(!ingress(&cluster, "x/a", "192.0.2.129", TCP, 80));
}

#[test]
fn p17_a_longer_prefix_hides_nothing_of_a_shorter_one() {
    let rules = [rule(&[block("10.0.0.0/8", &[])], &[tcp(80)]), rule(&[block("10.1.0.0/16", &[])], &[tcp(81)])];
    let cluster = Cluster::grid().policy("x/p", "pod=a", None, Some(&rules));
    assert!(egress(&cluster, "x/a", "10.1.2.3", TCP, 80) && egress(&cluster, "x/a", "10.1.2.3", TCP, 81));
    assert!(egress(&cluster, "x/a", "10.2.2.3", TCP, 80) && !egress(&cluster, "x/a", "10.2.2.3", TCP, 81));
}

#[test]
fn p19_blocks_match_pods_and_nodes_too() {
    let cluster = Cluster::grid()
        .pod("z/far", 2, 9, "pod=far")
        .policy("x/p", "pod=a", None, Some(&[rule(&[block("10.244.0.0/16", &["10.244.1.11/32"])], &[])]))
        .policy("y/p", "pod=a", None, Some(&[rule(&[block("172.18.0.2/32", &[])], &[])]));
    assert!(egress(&cluster, "x/a", "10.244.1.13", TCP, 80));
    assert!(!egress(&cluster, "x/a", "10.244.1.11", TCP, 80));
    assert!(egress(&cluster, "x/a", "10.244.2.9", TCP, 80));
    assert!(egress(&cluster, "x/a", "10.244.2.77", TCP, 80));
    assert!(egress(&cluster, "y/a", "172.18.0.2", TCP, 80) && !egress(&cluster, "y/a", "172.18.0.1", TCP, 80));
}

#[test]
fn p20_p21_protocols_are_told_apart() {
    let any = |protocol| PolicyPort { protocol, port: PortMatch::Any };
    for (allowed, others) in [(Protocol::Sctp, [TCP, UDP]), (Protocol::Udp, [TCP, SCTP]), (Protocol::Tcp, [UDP, SCTP])]
    {
        let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[], &[any(allowed)])]), None);
        assert!(passes(&cluster, "x/b", "x/a", allowed.number(), 80));
        assert!(passes(&cluster, "x/b", "x/a", allowed.number(), 0), "a later fragment");
        for other in others {
            assert!(!passes(&cluster, "x/b", "x/a", other, 80));
        }
    }
}

#[test]
fn p22_ranges_of_ports_include_both_ends() {
    let range = |a, b| PolicyPort { protocol: Protocol::Tcp, port: PortMatch::Range(a, b) };
    for (first, last) in
        [(80_u16, 84_u16), (53, 1000), (1, 65_535), (1023, 1024), (32_768, 65_535), (1000, 1015), (1000, 1016)]
    {
        let rules = [rule(&[pods("pod=b")], &[range(first, last)]), rule(&[pods("pod=b")], &[tcp(81)])];
        let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&rules), None);
        for port in [first.saturating_sub(1), first, first.midpoint(last), last, last.saturating_add(1), 81, 0] {
            let expected = port == 81 || (port != 0 && first <= port && port <= last);
            assert_eq!(passes(&cluster, "x/b", "x/a", TCP, port), expected, "{port} of {first}-{last}");
            assert!(!passes(&cluster, "x/b", "x/a", UDP, port));
        }
    }
}

#[test]
fn p23_named_port_per_destination() {
    let cluster = Cluster::grid()
        .with("x/a", |pod| pod.container_ports = vec![declared("web", 80, Protocol::Tcp)])
        .with("x/b", |pod| pod.container_ports = vec![declared("web", 8080, Protocol::Tcp)])
        .policy("x/p", "", Some(&[rule(&[], &[named(Protocol::Tcp, "web")])]), None);
    assert!(passes(&cluster, "y/a", "x/a", TCP, 80) && !passes(&cluster, "y/a", "x/a", TCP, 8080));
    assert!(passes(&cluster, "y/a", "x/b", TCP, 8080) && !passes(&cluster, "y/a", "x/b", TCP, 80));
    assert!(!passes(&cluster, "y/a", "x/c", TCP, 80));
}

#[test]
fn p24_named_port_of_each_destination_of_egress() {
    let everywhere = [rule(&[], &[named(Protocol::Tcp, "web")])];
    let cluster = Cluster::grid()
        .with("y/a", |pod| pod.container_ports = vec![declared("web", 80, Protocol::Tcp)])
        .with("y/b", |pod| pod.container_ports = vec![declared("web", 8080, Protocol::Tcp)])
        .policy("x/p", "pod=a", None, Some(&everywhere))
        .policy("x/q", "pod=b", None, Some(&[rule(&[pods_of("ns=y", "pod=a")], &everywhere[0].ports)]));
    assert!(passes(&cluster, "x/a", "y/a", TCP, 80) && !passes(&cluster, "x/a", "y/a", TCP, 8080));
    assert!(passes(&cluster, "x/a", "y/b", TCP, 8080) && !passes(&cluster, "x/a", "y/b", TCP, 80));
    assert!(!passes(&cluster, "x/a", "y/c", TCP, 80));
    assert!(!egress(&cluster, "x/a", "192.0.2.1", TCP, 80) && !egress(&cluster, "x/a", "172.18.0.1", TCP, 80));
    assert!(passes(&cluster, "x/b", "y/a", TCP, 80) && !passes(&cluster, "x/b", "y/b", TCP, 8080));
}

#[test]
fn p25_p26_a_name_of_another_protocol_or_of_nobody_matches_nothing_and_still_isolates() {
    for port in [named(Protocol::Udp, "web"), named(Protocol::Tcp, "nobody")] {
        let rules = [rule(&[], std::slice::from_ref(&port))];
        let cluster = Cluster::grid()
            .with("x/a", |pod| pod.container_ports = vec![declared("web", 80, Protocol::Tcp)])
            .policy("x/p", "pod=a", Some(&rules), None)
            .policy("y/p", "pod=a", None, Some(&rules));
        assert!(!passes(&cluster, "x/b", "x/a", TCP, 80));
        assert!(!passes(&cluster, "y/a", "x/c", TCP, 80) && !passes(&cluster, "y/a", "x/c", UDP, 80));
    }
}

#[test]
fn p27_ports_are_those_of_the_pod() {
    let cluster = Cluster::grid().policy("x/p", "pod=a", None, Some(&[rule(&[pods("pod=b")], &[tcp(8080)])]));
    assert!(passes(&cluster, "x/a", "x/b", TCP, 8080) && !passes(&cluster, "x/a", "x/b", TCP, 80));
}

#[test]
fn p31_p33_self_and_own_node_are_explained() {
    let cluster = Cluster::grid().policy("x/deny", "", Some(&[]), Some(&[]));
    let world = cluster.world();
    let pod = cluster.ip_of("x/a", 0);
    let allows = |from| explain(&world, Path { from, to: pod, proto: TCP, port: 80, service: false }).dropped.is_none();
    assert!(allows(pod) && allows(ip("172.18.0.1")) && !allows(ip("172.18.0.2")));
}

#[test]
fn p36_host_network_pods_and_nodes_are_no_selectors_peers() {
    let cluster = Cluster::grid()
        .pod("y/agent", 2, 7, "pod=a")
        .with("y/agent", |pod| {
            pod.host_network = true;
            pod.ips = vec![ip("172.18.0.2")];
        })
        .policy("x/p", "pod=a", Some(&[rule(&[pods_of("", "")], &[])]), None);
    assert!(!ingress(&cluster, "x/a", "172.18.0.2", TCP, 80));
    assert!(ingress(&cluster, "x/a", "10.244.1.13", TCP, 80));
}

#[test]
fn p37_other_protocols_need_a_rule_without_ports() {
    let cluster = Cluster::grid().policy(
        "x/p",
        "pod=a",
        Some(&[rule(&[pods("pod=b")], &[]), rule(&[pods("pod=c")], &[tcp(80)])]),
        None,
    );
    assert!(passes(&cluster, "x/b", "x/a", 1, 0) && passes(&cluster, "x/b", "x/a", 58, 0));
    assert!(!passes(&cluster, "x/c", "x/a", 1, 0) && !passes(&cluster, "x/c", "x/a", 58, 0));
}

#[test]
fn p38_blocks_speak_of_their_family_only() {
    let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[block("0.0.0.0/0", &[])], &[])]), None);
    assert!(ingress(&cluster, "x/a", "192.0.2.1", TCP, 80) && !ingress(&cluster, "x/a", "2001:db8::1", TCP, 80));
    assert!(!ingress(&cluster, "x/a", "fd00:10:244:1::b", TCP, 80));
    let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[block("::/0", &[])], &[])]), None);
    assert!(!ingress(&cluster, "x/a", "192.0.2.1", TCP, 80) && ingress(&cluster, "x/a", "2001:db8::1", TCP, 80));
}

#[test]
fn p40_a_pod_whose_object_is_not_known_has_no_traffic() {
    let mut cluster = Cluster::grid();
    cluster.pods.retain(|pod| pod.key != key("x/a"));
    assert!(!ingress(&cluster, "x/a", "10.244.1.11", TCP, 80) && !egress(&cluster, "x/a", "10.244.1.11", TCP, 80));
    let mut cluster = Cluster::grid().with("x/a", |pod| pod.uid = "new".to_owned());
    cluster.local[0].uid = "old".to_owned();
    assert!(!ingress(&cluster, "x/a", "10.244.1.11", TCP, 80));
    cluster.local[0].uid = "new".to_owned();
    assert!(ingress(&cluster, "x/a", "10.244.1.11", TCP, 80));
}

#[test]
fn c38_the_object_of_a_static_pod_is_its_mirror() {
    let mut cluster = Cluster::grid().with("x/a", |pod| {
        pod.uid = "of-the-mirror".to_owned();
        pod.static_uid = Some("hash".to_owned());
    });
    cluster.local[0].uid = "hash".to_owned();
    assert!(ingress(&cluster, "x/a", "10.244.1.11", TCP, 80));
    // The file has changed: the mirror is that of the next pod, or this one of an earlier.
    cluster.local[0].uid = "hash-of-before".to_owned();
    assert!(!ingress(&cluster, "x/a", "10.244.1.11", TCP, 80));
}

#[test]
fn p42_a_finished_pods_address_is_its_successors() {
    let cluster = Cluster::grid()
        .pod("y/done", 2, 9, "pod=old")
        .with("y/done", |pod| pod.phase = Phase::Succeeded)
        .pod("y/next", 2, 9, "pod=new")
        .policy("x/p", "pod=a", Some(&[rule(&[pods_of("", "pod=old")], &[])]), None)
        .policy("x/q", "pod=b", Some(&[rule(&[pods_of("", "pod=new")], &[])]), None);
    assert!(!ingress(&cluster, "x/a", "10.244.2.9", TCP, 80) && ingress(&cluster, "x/b", "10.244.2.9", TCP, 80));
}

#[test]
fn p43_p44_terminating_pods_count_and_pods_without_address_do_not_yet() {
    let cluster = Cluster::grid()
        .pod("y/ending", 2, 9, "pod=p")
        .with("y/ending", |pod| pod.terminating = true)
        .pod("y/early", 2, 8, "pod=p")
        .with("y/early", |pod| pod.ips.clear())
        .policy("x/p", "pod=a", Some(&[rule(&[pods_of("", "pod=p")], &[])]), None);
    assert!(ingress(&cluster, "x/a", "10.244.2.9", TCP, 80));
    assert!(!ingress(&cluster, "x/a", "10.244.2.8", TCP, 80));
}

#[test]
fn p48_an_address_that_its_node_may_not_give_makes_no_peer_of_a_pod() {
    let cluster = Cluster::grid()
        .pod("y/victim", 2, 9, "pod=v")
        .pod("y/thief", 2, 8, "pod=t")
        .with("y/thief", |pod| pod.ips = ["10.244.2.8", "10.244.1.200", "192.0.2.1"].map(ip).into())
        .pod("y/a-thief", 2, 9, "pod=t")
        .with("y/a-thief", |pod| pod.node_name = Some("n1".to_owned()))
        .policy("x/p", "pod=a", Some(&[rule(&[pods_of("", "pod=t")], &[])]), None)
        .policy("x/q", "pod=b", Some(&[rule(&[pods_of("", "pod=v")], &[])]), None);
    assert!(ingress(&cluster, "x/a", "10.244.2.8", TCP, 80), "its own");
    assert!(!ingress(&cluster, "x/a", "10.244.1.200", TCP, 80), "of another node's range");
    assert!(!ingress(&cluster, "x/a", "192.0.2.1", TCP, 80), "of a host outside");
    assert!(!ingress(&cluster, "x/a", "10.244.2.9", TCP, 80) && ingress(&cluster, "x/b", "10.244.2.9", TCP, 80));
    // Whichever comes first: without its Node a pod is nobody, and with it who it is.
    let mut early = cluster.clone();
    let n2 = early.nodes.pop();
    assert!(!ingress(&early, "x/a", "10.244.2.8", TCP, 80));
    early.nodes.extend(n2);
    assert!(ingress(&early, "x/a", "10.244.2.8", TCP, 80));
    // A Node without ranges is given them later.
    let ranges = std::mem::take(&mut early.nodes[1].pod_cidrs);
    assert!(!ingress(&early, "x/a", "10.244.2.8", TCP, 80));
    early.nodes[1].pod_cidrs = ranges;
    assert!(ingress(&early, "x/a", "10.244.2.8", TCP, 80));
    // A node does not take a pod's address either.
    early.nodes.push(Node { name: "n0".to_owned(), internal_ips: vec![ip("10.244.2.9")], ..early.nodes[0].clone() });
    early.nodes[2].pod_cidrs.clear();
    assert!(ingress(&early, "x/b", "10.244.2.9", TCP, 80));
}

#[test]
fn p45_a_namespace_is_selected_by_its_name() {
    let peer = pods_of("kubernetes.io/metadata.name=y", "");
    let cluster = Cluster::grid().policy("x/p", "pod=a", Some(&[rule(&[peer], &[])]), None);
    assert!(passes(&cluster, "y/b", "x/a", TCP, 80) && !passes(&cluster, "z/b", "x/a", TCP, 80));
}

#[test]
fn addresses_that_meet_the_same_atoms_share_a_class_and_labels_nobody_asks_for_make_none() {
    let cluster = Cluster::grid()
        .pod("y/other", 2, 9, "pod=a,release=1")
        .policy("x/p", "pod=a", Some(&[rule(&[pods_of("", "pod=a")], &[])]), None)
        .policy("y/elsewhere", "pod=other", Some(&[rule(&[pods_of("", "pod=b")], &[])]), None);
    let wanted = compile(&cluster.world());
    assert_eq!(wanted.classes.len(), 2);
    assert_eq!(wanted.sets.len(), 1);
}

/// A mode, and prefixes that may be in, around and beside those of policies and nodes.
fn any_masquerade() -> impl Strategy<Value = Masquerade> {
    const ALL: [&str; 12] = [
        "10.0.0.0/8",
        "10.128.0.0/9",
        "10.244.0.0/16",
        "10.244.2.128/25",
        "169.254.0.0/16",
        "169.254.42.0/24",
        "192.0.2.0/24",
        "0.0.0.0/0",
        "fd00::/8",
        "fd00:10:244::/56",
        "2001:db8::/32",
        "::/0",
    ];
    let mode = prop_oneof![3 => Just(masquerade::Mode::Auto), 1 => Just(masquerade::Mode::Never)];
    (mode, prop::sample::subsequence(&ALL[..], 0..4)).prop_map(|(mode, texts)| {
        let except = texts.iter().map(|text| text.parse().unwrap()).collect();
        Masquerade { mode, except, ..Masquerade::default() }
    })
}

/// Whether pods go somewhere outside with their own addresses: to a link-local address, where an exception names it.
fn keeps(masquerade: &Masquerade, ip: IpAddr) -> bool {
    let mut holding = masquerade.except.iter().filter(|prefix| prefix.contains(ip));
    match ip {
        IpAddr::V4(v4) if v4.is_link_local() => holding.any(|prefix| prefix.to_string().starts_with("169.254.")),
        _ => masquerade.mode == masquerade::Mode::Never || holding.next().is_some(),
    }
}

fn ns(name: &str) -> Peer {
    pods_of(&format!("ns={name}"), "")
}

use Action::{Accept, Deny, Pass};

#[test]
fn p54_priority_then_name_then_order_decide_in_the_admin_tier() {
    let cluster = Cluster::grid()
        .policy("x/open", "", Some(&[rule(&[], &[])]), None)
        .cluster_policy(cnp("Admin/20/a", "ns=x", &[does(Deny, &[ns("y"), ns("z")], &[])], &[]))
        .cluster_policy(cnp("Admin/10/z", "ns=x", &[does(Accept, &[ns("y")], &[tcp(80)])], &[]))
        .cluster_policy(cnp("Admin/10/b", "ns=x", &[does(Deny, &[pods_of("ns=y", "pod=b")], &[])], &[]));
    assert!(passes(&cluster, "y/a", "x/a", TCP, 80) && !passes(&cluster, "y/a", "x/a", TCP, 81));
    assert!(!passes(&cluster, "y/b", "x/a", TCP, 80), "of one priority the name decides");
    assert!(!passes(&cluster, "z/a", "x/a", TCP, 80) && passes(&cluster, "x/b", "x/a", TCP, 80));
    let rules = [does(Accept, &[ns("y")], &[tcp(80)]), does(Deny, &[ns("y")], &[]), does(Accept, &[ns("y")], &[])];
    let cluster = Cluster::grid().cluster_policy(cnp("Admin/0/c", "ns=x", &rules, &[]));
    assert!(passes(&cluster, "y/a", "x/a", TCP, 80) && !passes(&cluster, "y/a", "x/a", TCP, 81));
}

#[test]
fn p55_p56_pass_and_the_tiers_after_it() {
    let pass = cnp("Admin/1/pass", "ns=x", &[does(Pass, &[ns("y")], &[tcp(80)])], &[]);
    let admin = cnp("Admin/2/deny", "ns=x", &[does(Deny, &[ns("y"), ns("z")], &[])], &[]);
    let base = cnp(
        "Baseline/0/base",
        "ns=x",
        &[does(Pass, &[pods_of("ns=y", "pod=c")], &[]), does(Deny, &[ns("y")], &[])],
        &[],
    );
    let cluster = Cluster::grid().cluster_policy(base).cluster_policy(admin).cluster_policy(pass);
    assert!(!passes(&cluster, "y/a", "x/a", TCP, 80), "passed, and denied by Baseline");
    assert!(passes(&cluster, "y/c", "x/a", TCP, 80), "passed twice");
    assert!(!passes(&cluster, "y/c", "x/a", TCP, 81), "not passed");
    assert!(passes(&cluster, "x/b", "x/a", TCP, 80));
    // NetworkPolicies have the last word on whom they select, in their direction.
    let selected = cluster.clone().policy("x/p", "pod=a", Some(&[rule(&[pods_of("ns=y", "pod=a")], &[])]), None);
    assert!(passes(&selected, "y/a", "x/a", TCP, 80) && !passes(&selected, "y/a", "x/a", TCP, 81));
    assert!(!passes(&selected, "y/c", "x/a", TCP, 80) && !passes(&selected, "x/b", "x/a", TCP, 80));
    assert!(!passes(&selected, "y/a", "x/b", TCP, 80), "another pod is not selected");
    let egress = cluster.policy("x/p", "pod=a", None, Some(&[]));
    assert!(!passes(&egress, "y/a", "x/a", TCP, 80), "the other direction is not isolated");
}

#[test]
fn p57_p60_what_no_rule_matches_is_as_before_and_the_other_end_is_asked() {
    let cluster = Cluster::grid()
        .cluster_policy(cnp("Admin/1/c", "ns=x", &[], &[does(Accept, &[ns("y")], &[])]))
        .policy("y/closed", "pod=b", Some(&[]), None);
    assert!(passes(&cluster, "x/a", "z/a", TCP, 80) && passes(&cluster, "z/a", "x/a", TCP, 80));
    assert!(passes(&cluster, "x/a", "y/a", TCP, 80) && !passes(&cluster, "x/a", "y/b", TCP, 80));
    assert_eq!(compile(&cluster.world()).pods[&10].ingress, Judge::Nobody);
    let closed = cluster.policy("x/closed", "", None, Some(&[]));
    assert!(passes(&closed, "x/a", "y/a", TCP, 80) && !passes(&closed, "x/a", "z/a", TCP, 80));
}

#[test]
fn p58_networks_and_nodes() {
    let mut cluster = Cluster::grid();
    cluster.nodes[1].labels = labels("role=db");
    let rules = [
        does(Accept, &[block("10.244.1.13/32", &[])], &[]),
        does(Deny, &[nodes("role=db"), block("10.0.0.0/8", &[]), block("192.0.2.0/24", &[])], &[]),
    ];
    let cluster = cluster.cluster_policy(cnp("Admin/1/c", "ns=x", &[], &rules));
    for (peer, allowed) in [
        ("172.18.0.1", true),
        ("172.18.0.2", false),
        ("fd00:172:18::2", false),
        ("fd00:172:18::1", true),
        ("10.244.1.13", true),
        ("10.244.1.14", false),
        ("192.0.2.1", false),
        ("2001:db8::1", true),
    ] {
        assert_eq!(egress(&cluster, "x/a", peer, TCP, 80), allowed, "{peer}");
        assert_eq!(egress(&cluster, "x/a", peer, 1, 0), allowed, "{peer} ICMP");
    }
}

#[test]
fn p58_a_pod_that_nobody_knows_is_denied_with_those_that_are() {
    let rules = [
        does(Accept, &[pods_of("ns=y", "")], &[tcp(80)]),
        does(Deny, &[pods_of("ns=y", "pod=a")], &[tcp(80), tcp(81)]),
    ];
    let cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &rules, &[]));
    for unknown in ["10.244.2.99", "fd00:10:244:2::99"] {
        assert!(!ingress(&cluster, "x/a", unknown, TCP, 80) && !ingress(&cluster, "x/a", unknown, TCP, 81));
        assert!(ingress(&cluster, "x/a", unknown, TCP, 82));
    }
    assert!(ingress(&cluster, "x/a", "192.0.2.1", TCP, 81) && ingress(&cluster, "x/a", "172.18.0.2", TCP, 81));
    let known = cluster.pod("z/new", 2, 0x99, "pod=a");
    assert!(ingress(&known, "x/a", "fd00:10:244:2::99", TCP, 80));
}

#[test]
fn p58_a_pod_of_a_namespace_that_nobody_knows_is_denied_with_those_that_are() {
    let deny = [does(Deny, &[ns("q")], &[tcp(80)])];
    let mut cluster = Cluster::grid().pod("y/new", 2, 0x99, "").cluster_policy(cnp("Admin/1/c", "ns=x", &deny, &[]));
    assert!(passes(&cluster, "y/a", "x/a", TCP, 80) && ingress(&cluster, "x/a", "fd00:10:244:2::99", TCP, 80));
    cluster.namespaces.retain(|namespace| namespace.name != "y");
    assert!(
        !ingress(&cluster, "x/a", "fd00:10:244:2::99", TCP, 80)
            && ingress(&cluster, "x/a", "fd00:10:244:2::99", TCP, 81)
    );
    assert!(passes(&cluster, "z/a", "x/a", TCP, 80));
}

#[test]
fn p58_a_pod_that_nobody_knows_is_not_passed_on() {
    let rules = [does(Pass, &[ns("y")], &[tcp(80)]), does(Accept, &[ns("y"), ns("z"), block("0.0.0.0/0", &[])], &[])];
    let cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &[], &rules));
    assert!(!egress(&cluster, "x/a", "10.244.2.99", TCP, 80) && egress(&cluster, "x/a", "10.244.2.99", TCP, 81));
    assert!(passes(&cluster, "x/a", "y/a", TCP, 80) && egress(&cluster, "x/a", "192.0.2.1", TCP, 80));
}

#[test]
fn p58_the_names_of_ports_of_a_pod_that_nobody_knows_may_be_any() {
    for action in [Deny, Pass] {
        let rules =
            [does(action, &[ns("y")], &[named(Protocol::Tcp, "web")]), does(Accept, &[block("0.0.0.0/0", &[])], &[])];
        let cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &[], &rules));
        assert!(!egress(&cluster, "x/a", "10.244.2.99", TCP, 80) && egress(&cluster, "x/a", "10.244.2.99", UDP, 80));
        assert!(passes(&cluster, "x/a", "y/a", TCP, 80), "it is known, and has no such port");
    }
}

#[test]
fn p57_a_pod_whose_namespace_is_not_known_waits_for_it_where_policies_of_the_cluster_ask() {
    let mut cluster = Cluster::grid();
    cluster.namespaces.remove(0);
    assert_eq!(compile(&cluster.world()).pods[&10].ingress, Judge::Nobody);
    let cluster = cluster.cluster_policy(cnp("Admin/1/c", "ns=q", &[does(Deny, &[ns("y")], &[])], &[]));
    let wanted = compile(&cluster.world());
    assert_eq!((wanted.pods[&10].ingress, wanted.pods[&13].ingress), (Judge::Pending, Judge::Nobody));
}

#[test]
fn p69_what_is_not_known_is_accepted_by_nothing_and_denied_by_what_may_mean_it() {
    let any_namespace = [rule(&[pods_of("", "")], &[])];
    let accept = Cluster::grid().pod("y/new", 2, 0x99, "pod=a").policy("x/p", "", Some(&any_namespace), None);
    let deny = [does(Deny, &[pods_of("ns=q", "")], &[])];
    let denied = Cluster::grid().pod("y/new", 2, 0x99, "pod=a").cluster_policy(cnp("Admin/1/c", "ns=x", &deny, &[]));
    let without = |cluster: &Cluster| {
        let mut cluster = cluster.clone();
        cluster.namespaces.retain(|namespace| namespace.name != "y");
        cluster
    };
    let from = |cluster: &Cluster, peer| ingress(cluster, "x/a", peer, TCP, 80);
    // The Namespace of a peer.
    let new = "fd00:10:244:2::99";
    assert!(from(&accept, new) && !from(&without(&accept), new));
    assert!(from(&denied, new) && !from(&without(&denied), new));
    // The Namespace of a pod itself: NetworkPolicies alone do not ask for it.
    assert!(passes(&without(&accept), "y/a", "z/a", TCP, 80));
    let pending = |cluster: &Cluster| compile(&cluster.world()).pods[&13].egress == Judge::Pending;
    assert!(!pending(&without(&accept)) && pending(&without(&denied)) && !pending(&denied));
    // The Pod object.
    let mut objectless = accept.clone();
    objectless.pods.retain(|pod| pod.key != key("y/a"));
    assert!(pending(&objectless));
    // The Node: its range is known for nobody's, and what is in it for an address outside.
    let unknown = "10.244.2.77";
    assert!(!from(&denied, unknown));
    let mut nodeless = denied.clone();
    nodeless.nodes.truncate(1);
    assert!(from(&nodeless, unknown));
}

/// How many places the egress of x/a takes.
fn places(cluster: &Cluster) -> usize {
    let world = cluster.world();
    let draft = Draft::new(&world);
    let Judge::Set(set) = draft.pods()[&10].egress else { return 0 };
    draft.demand(set).rules
}

#[test]
fn p67_names_of_ports_cost_places_for_the_pods_that_the_rule_is_about_alone() {
    let web = [named(Protocol::Tcp, "web")];
    let to = |peers: &[Peer]| {
        let cluster = Cluster::grid().with("y/a", |pod| pod.container_ports = vec![declared("web", 80, Protocol::Tcp)]);
        cluster.cluster_policy(cnp("Admin/1/c", "ns=x", &[], &[does(Accept, peers, &web)]))
    };
    let crowd = |cluster: Cluster| {
        cluster.with("z/a", |pod| {
            pod.container_ports = (1000..1400).map(|port| declared("web", port, Protocol::Tcp)).collect();
        })
    };
    assert_eq!(places(&to(&[ns("y")])), 2);
    assert_eq!(places(&crowd(to(&[ns("y")]))), 2);
    assert!(passes(&crowd(to(&[ns("y")])), "x/a", "y/a", TCP, 80));
    // Pods that it is about cost it, and so do all that may be, where addresses or nobody are named.
    for peers in [&[ns("y"), ns("z")][..], &[block("10.0.0.0/8", &[])], &[]] {
        assert_eq!(places(&crowd(to(peers))), 802, "{peers:?}");
    }
}

#[test]
fn p67_names_that_stand_for_more_than_fits_are_not_compiled_to_the_end() {
    let rules = [does(Deny, &[ns("y")], &[named(Protocol::Tcp, "web")])];
    let cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &[], &rules)).with("y/a", |pod| {
        pod.container_ports = (1..=60_000).map(|port| declared("web", port, Protocol::Tcp)).collect();
    });
    assert!((2049..=4100).contains(&places(&cluster)), "{}", places(&cluster));
    // It does not fit, and nothing passes, which the rule would not deny either.
    let flow = |port| Flow { peer: cluster.ip_of("y/a", 0), proto: TCP, port };
    let state = cluster.tables();
    assert!([1, 60_000, 60_001].iter().all(|port| !ask(state.content(), 10, Direction::Egress, flow(*port)).0));
}

#[test]
fn p59_named_ports_are_those_of_any_protocol() {
    let named = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| named(protocol, "web"));
    let both = |direction: Direction| {
        let rules = [does(Deny, &[ns("y")], &named)];
        let (ingress, egress) =
            if direction == Direction::Ingress { (&rules[..], &[][..]) } else { (&[][..], &rules[..]) };
        let declare = |pod: &mut fairlead_objects::Pod| {
            pod.container_ports = vec![declared("web", 80, Protocol::Tcp), declared("web", 53, Protocol::Udp)];
        };
        let cluster = Cluster::grid().with("x/a", declare).with("y/a", declare);
        cluster.cluster_policy(cnp("Admin/1/c", "ns=x", ingress, egress))
    };
    let ingress = both(Direction::Ingress);
    assert!(!passes(&ingress, "y/a", "x/a", TCP, 80) && !passes(&ingress, "y/b", "x/a", UDP, 53));
    assert!(passes(&ingress, "y/a", "x/a", UDP, 80) && passes(&ingress, "y/a", "x/b", TCP, 80));
    let egress = both(Direction::Egress);
    assert!(!passes(&egress, "x/a", "y/a", TCP, 80) && !passes(&egress, "x/b", "y/a", UDP, 53));
    assert!(passes(&egress, "x/a", "y/b", TCP, 80) && passes(&egress, "x/a", "y/a", SCTP, 80));
}

#[test]
fn p61_a_pod_and_itself_through_a_service() {
    let own = |cluster: &Cluster, direction| {
        judged(cluster, "x/a", direction, Flow { peer: cluster.ip_of("x/a", 0), proto: TCP, port: 80 })
    };
    let closed = Cluster::grid().policy("x/deny", "", Some(&[]), Some(&[]));
    assert!(own(&closed, Direction::Ingress) && own(&closed, Direction::Egress), "P32");
    let denied = closed.clone().cluster_policy(cnp("Admin/1/c", "ns=x", &[does(Deny, &[ns("x")], &[])], &[]));
    assert!(!own(&denied, Direction::Ingress) && own(&denied, Direction::Egress));
    let base = Cluster::grid().cluster_policy(cnp("Baseline/1/c", "ns=x", &[], &[does(Deny, &[ns("x")], &[])]));
    assert!(own(&base, Direction::Ingress) && !own(&base, Direction::Egress));
    let over = base.policy("x/open", "", None, Some(&[]));
    assert!(own(&over, Direction::Egress), "Baseline is not asked");
}

#[test]
fn p62_pods_in_their_nodes_network_are_neither_subjects_nor_peers_by_label() {
    let mut cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &[does(Deny, &[ns("y")], &[])], &[]));
    let host = "172.18.0.2";
    cluster = cluster.pod("y/host", 2, 9, "pod=host").with("y/host", |pod| {
        pod.host_network = true;
        pod.ips = vec![ip(host)];
    });
    assert!(ingress(&cluster, "x/a", host, TCP, 80));
}

#[test]
fn p63_what_cant_be_read_closes_its_pods_and_nobody_elses() {
    let unread = |action| ClusterRule { matches: None, ..does(action, &[], &[]) };
    let rules = [unread(Accept), does(Deny, &[], &[])];
    let cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &rules, &[]));
    assert!(!passes(&cluster, "y/a", "x/a", TCP, 80) && !ingress(&cluster, "x/a", "192.0.2.1", 1, 0));
    assert!(passes(&cluster, "x/a", "y/a", TCP, 80) && passes(&cluster, "z/a", "y/a", TCP, 80));
}

#[test]
fn p67_tiers_beyond_a_page_keep_their_order() {
    let many = |action| (1..=200).map(|port| does(action, &[ns("y")], &[tcp(port)])).collect::<Vec<_>>();
    let last = does(Deny, &[ns("y")], &[]);
    let admin: Vec<_> =
        many(Accept).into_iter().chain(many(Pass)).chain([does(Pass, &[ns("y")], &[udp(9)]), last.clone()]).collect();
    let cluster = Cluster::grid().cluster_policy(cnp("Admin/1/c", "ns=x", &admin, &[])).cluster_policy(cnp(
        "Baseline/1/d",
        "ns=x",
        &[does(Deny, &[ns("y"), ns("z")], &[udp(9)])],
        &[],
    ));
    for (from, proto, port, allowed) in [
        ("y/a", TCP, 1, true),
        ("y/a", TCP, 200, true),
        ("y/a", TCP, 201, false),
        ("y/a", UDP, 9, false),
        ("z/a", UDP, 9, false),
        ("z/a", UDP, 10, true),
        ("y/a", UDP, 10, false),
    ] {
        assert_eq!(passes(&cluster, from, "x/a", proto, port), allowed, "{from} {proto} {port}");
    }
    let open = cluster.policy("x/open", "", Some(&[rule(&[], &[udp(9)])]), None);
    assert!(passes(&open, "y/a", "x/a", UDP, 9) && !passes(&open, "z/a", "x/a", UDP, 10));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn pods_keep_their_addresses_in_what_is_named_for_it_and_policy_does_not_change(
        cluster in any_cluster(),
        masquerade in any_masquerade(),
        more in prop::collection::vec(any::<u32>(), 8),
    ) {
        let plain = cluster.tables();
        let with = Cluster { own_sources: masquerade.own_sources(), ..cluster.clone() };
        let (with, ranges) = (with.tables(), cluster.nodes.iter().flat_map(|node| &node.pod_cidrs));
        let ranges: Vec<_> = ranges.copied().collect();
        // Anywhere, and within the prefixes in use.
        let near = more.iter().flat_map(|bits| {
            let v4 = [(0, 0), (0x0a00_0000, 8), (0x0af4_0000, 16), (0xa9fe_0000, 16), (0xa9fe_2a00, 24), (0xc000_0200_u32, 24)];
            let v4 = v4.map(|(base, len)| base | bits >> len);
            let v6 = [0xfd00_u128 << 112, 0xfd00_0010_0244_0000_u128 << 64, 0x2001_0db8_u128 << 96];
            let v6 = v6.map(|base| IpAddr::from((base | u128::from(*bits)).to_be_bytes()));
            v4.map(|bits| IpAddr::from(bits.to_be_bytes())).into_iter().chain(v6)
        });
        let known = flows(&cluster, &[(6, 80)]).into_iter().map(|(_, _, flow)| flow.peer);
        for ip in near.chain(known) {
            let of = |state: &State| peer::lookup(&state.content().peer, Addr::from(ip));
            let (before, after) = (of(&plain), of(&with));
            // Addresses outside are known too that a pod was told by DNS: to those it goes as to any other.
            let known = plain.content().peer.peers.get(&Addr::from(ip));
            let of_cluster = known.is_some_and(|peer| peer.flags & (PeerFlags::POD | PeerFlags::NODE) != 0)
                || ranges.iter().any(|range| range.contains(ip));
            let wanted = !of_cluster && keeps(&masquerade, ip);
            prop_assert_eq!(after.flags & PeerFlags::KEEP_SOURCE != 0, wanted, "{}", ip);
            let rest = peer::Peer { flags: after.flags & !PeerFlags::KEEP_SOURCE, tag: before.tag, ..after };
            prop_assert_eq!(rest, before, "{}", ip);
        }
    }

    #[test]
    fn tables_say_what_the_model_says(cluster in any_cluster()) {
        let state = cluster.tables();
        for (local, direction, flow) in flows(&cluster, PORTS) {
            let (allow, set, bit) = ask(state.content(), local.slot, direction, flow);
            let (expected, rule) = model(&cluster, &local, direction, flow);
            prop_assert_eq!(allow, expected, "{} {} {:?}", local.key, direction, flow);
            prop_assert_eq!(state.rule(set, bit), rule.as_ref());
        }
    }
}
