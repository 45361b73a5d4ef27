//! What counts and what does not, and that what is kept while objects come and go is what a look at all of them says.

mod services;

use std::net::IpAddr;

use fairlead_objects::{Labels, Node, ObjectKey, Phase, Pod};
use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn node(name: &str, ips: &[&str], ranges: &[&str]) -> Node {
    Node {
        name: name.into(),
        labels: Labels::new(),
        zone: None,
        internal_ips: ips.iter().map(|text| ip(text)).collect(),
        external_ips: vec![],
        pod_cidrs: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        annotated: None,
        leaving: false,
    }
}

pub(super) fn pod(name: &str, node: Option<&str>, ips: &[&str]) -> Pod {
    Pod {
        key: ObjectKey::new("shop", name),
        uid: String::new(),
        created: None,
        static_uid: None,
        bandwidth: fairlead_objects::Bandwidth::default(),
        labels: Labels::new(),
        node_name: node.map(str::to_owned),
        ips: ips.iter().map(|text| ip(text)).collect(),
        host_network: false,
        phase: Phase::Running,
        terminating: false,
        container_ports: vec![],
    }
}

#[test]
fn a_pods_address_counts_if_its_nodes_ranges_hold_it() {
    let nodes = [
        node("n1", &["172.18.0.1"], &["10.244.1.0/24", "fd00:10:244:1::/64"]),
        node("n2", &["172.18.0.2"], &["10.244.2.0/24"]),
        node("bare", &["172.18.0.3"], &[]),
    ];
    let ranges = PodRanges::new(&nodes, &[]);
    let counted = |pod: &Pod| ranges.owned(pod).map(|ip| ip.to_string()).collect::<Vec<_>>();
    let ips = ["10.244.1.7", "fd00:10:244:1::7", "10.244.2.7", "172.18.0.1", "10.96.0.10"];
    assert_eq!(counted(&pod("a", Some("n1"), &ips)), ["10.244.1.7", "fd00:10:244:1::7"]);
    assert_eq!(counted(&pod("b", Some("n2"), &ips)), ["10.244.2.7"]);
    assert_eq!(counted(&pod("c", Some("bare"), &ips)), [""; 0]);
    assert_eq!(counted(&pod("d", Some("unknown"), &ips)), [""; 0]);
    assert_eq!(counted(&pod("e", None, &ips)), [""; 0]);
    // One in the node's network has its identity, and claims nothing.
    let host = Pod { host_network: true, ..pod("f", Some("n1"), &ips) };
    assert_eq!(counted(&host), [""; 0]);
    let pool: Vec<IpNetwork> = vec!["10.96.0.0/16".parse().unwrap()];
    let ranges = PodRanges::new(&nodes, &pool);
    let beside: Vec<_> = ranges.owned(&pod("c", Some("bare"), &ips)).collect();
    assert_eq!(beside, [ip("10.96.0.10")], "a pool counts everywhere");
    assert_eq!(ranges.owned(&pod("d", Some("unknown"), &ips)).count(), 1);
}

#[test]
fn a_pod_waits_for_its_node_and_is_told_of_when_that_is_known() {
    let (thief, honest) = (pod("thief", Some("n2"), &["10.244.1.7"]), pod("honest", Some("n2"), &["10.244.2.7"]));
    let pods = [&thief, &honest];
    let n1 = node("n1", &[], &["10.244.1.0/24"]);
    let (disputes, waiting) = of_pods(pods, &PodRanges::new([&n1], &[]));
    assert_eq!((disputes, waiting["n2"]), (vec![], 2), "its node may be on its way");
    let n2 = node("n2", &[], &["10.244.2.0/24"]);
    let (disputes, waiting) = of_pods(pods, &PodRanges::new([&n1, &n2], &[]));
    let [told] = disputes.as_slice() else { panic!("{disputes:?}") };
    assert_eq!((&told.loser, waiting.len()), (&Party::pod(&thief.key), 0));
    assert!(told.text.contains("10.244.1.7") && told.text.contains("10.244.2.0/24"), "{}", told.text);
}

#[test]
fn a_node_has_no_address_of_anothers_pods() {
    let nodes = [
        node("n1", &["172.18.0.1", "10.244.1.1"], &["10.244.1.0/24"]),
        node("thief", &["172.18.0.2", "10.244.1.7"], &["10.244.0.0/16"]),
    ];
    let ranges = PodRanges::new(&nodes, &[]);
    let of = |node: &Node| ranges.addresses(node).collect::<Vec<_>>();
    assert_eq!(of(&nodes[0]), nodes[0].internal_ips);
    assert_eq!(of(&nodes[1]), [ip("172.18.0.2")], "the longest range says whose it is");
    let disputes = of_nodes(&nodes, &ranges);
    let [told] = disputes.as_slice() else { panic!("{disputes:?}") };
    assert_eq!((told.loser.to_string(), told.text.contains("10.244.1.7")), ("Node thief".to_owned(), true));
}

#[test]
fn c50_two_nodes_with_one_range_are_told() {
    let nodes = [
        node("old", &["172.18.0.2"], &["10.244.2.0/24", "fd00:10:244:2::/64"]),
        node("new", &["172.18.0.3"], &["10.244.2.0/24"]),
        node("other", &["172.18.0.4"], &["10.244.0.0/16"]),
    ];
    let disputes = of_nodes(&nodes, &PodRanges::new(&nodes, &[]));
    let [told] = disputes.as_slice() else { panic!("{disputes:?}") };
    assert_eq!((told.loser.to_string(), told.everywhere), ("Node old".to_owned(), true), "the first by name has it");
    assert_eq!(told.winner.as_ref().map(ToString::to_string).as_deref(), Some("Node new"));
    assert!(told.text.contains("10.244.2.0/24"), "{}", told.text);
}

fn any_range() -> impl Strategy<Value = IpNetwork> {
    let v4 = (0u8..4, 22u8..=32).prop_map(|(host, length)| (IpAddr::from([10, 0, host / 2, host % 2]), length));
    let v6 = (0u16..4, 125u8..=128).prop_map(|(host, length)| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host]), length));
    prop_oneof![3 => v4, 1 => v6].prop_map(|(ip, length)| {
        let network = IpNetwork::new(ip, length).unwrap();
        IpNetwork::new(network.network(), length).unwrap()
    })
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => (0u8..4).prop_map(|host| IpAddr::from([10, 0, host / 2, host % 2])),
        1 => (0u16..4).prop_map(|host| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, host])),
    ]
}

proptest! {
    #[test]
    fn ranges_are_as_the_nodes_objects_have_them(
        of_nodes in prop::collection::vec(prop::collection::vec(any_range(), 0..3), 0..4),
        beside in prop::collection::vec(any_range(), 0..2),
        bound in prop::option::of(0usize..5),
        ips in prop::collection::vec(any_ip(), 1..4),
        host_network: bool,
    ) {
        let nodes: Vec<Node> = of_nodes
            .iter()
            .enumerate()
            .map(|(n, ranges)| Node { pod_cidrs: ranges.clone(), internal_ips: ips.clone(), ..node(&format!("n{n}"), &[], &[]) })
            .collect();
        let name = bound.map(|n| format!("n{n}"));
        let pod = Pod { ips: ips.clone(), host_network, ..pod("p", name.as_deref(), &[]) };
        let ranges = PodRanges::new(&nodes, &beside);
        // In any order of nodes.
        let backwards = PodRanges::new(nodes.iter().rev(), &beside);
        let own: &[IpNetwork] = bound.and_then(|n| of_nodes.get(n)).map_or(&[], Vec::as_slice);
        let expected: Vec<IpAddr> = ips
            .iter()
            .copied()
            .filter(|ip| !host_network && own.iter().chain(&beside).any(|range| range.contains(*ip)))
            .collect();
        prop_assert_eq!(ranges.owned(&pod).collect::<Vec<_>>(), expected.clone());
        prop_assert_eq!(backwards.owned(&pod).collect::<Vec<_>>(), expected);
        for node in &nodes {
            let longest = |ip: IpAddr| {
                let all = nodes.iter().flat_map(|node| node.pod_cidrs.iter().map(move |range| (range, &node.name)));
                let holding = all.filter(|(range, _)| range.contains(ip));
                holding.min_by_key(|(range, name)| (std::cmp::Reverse(range.prefix()), (*name).clone())).map(|(_, name)| name)
            };
            let expected: Vec<IpAddr> =
                ips.iter().copied().filter(|ip| longest(*ip).is_none_or(|owner| *owner == node.name)).collect();
            prop_assert_eq!(ranges.addresses(node).collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(backwards.addresses(node).collect::<Vec<_>>(), expected);
        }
    }
}
