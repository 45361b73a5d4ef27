//! What flows to other nodes find when Nodes change: they keep the index of the node that they began with.

use std::collections::BTreeMap;

use super::*;

/// Nodes n2 and n3 with these addresses, as they stand in this order.
fn with(nodes: &[(&str, &[&str])]) -> Cluster {
    let mut cluster = Cluster::new();
    let template = cluster.nodes.pop().unwrap();
    for (name, ips) in nodes {
        let n = name.trim_start_matches('n');
        cluster.nodes.push(fairlead_objects::Node {
            name: (*name).to_owned(),
            internal_ips: ips.iter().map(|text| ip(text)).collect(),
            pod_cidrs: vec![
                format!("10.244.{n}.0/24").parse().unwrap(),
                format!("fd00:10:244:{n}::/64").parse().unwrap(),
            ],
            ..template.clone()
        });
    }
    cluster
}

/// The indexes by IPv4 address.
fn indexes(state: &State) -> BTreeMap<Addr, u16> {
    state.content().peer.nodes.iter().map(|(index, hop)| (hop.v4, *index)).collect()
}

#[test]
fn a_node_that_gets_an_address_of_the_other_family_or_loses_one_stays_in_place() {
    let (single, dual) = (with(&[("n2", &["172.18.0.2"])]), with(&[("n2", &["172.18.0.2", "fd00:172:18::2"])]));
    let mut state = single.tables();
    let before = indexes(&state);
    for cluster in [&dual, &single] {
        let ops = plan(&mut state, cluster);
        let nodes: Vec<_> = ops.iter().filter(|op| matches!(op, Op::Node { .. })).collect();
        assert!(
            matches!(nodes[..], [Op::Node { index, value }] if *index == before[&value.v4]),
            "one write, and nothing is taken away: {nodes:?}"
        );
        ops.iter().for_each(|op| state.applied(op));
        assert_eq!(indexes(&state), before);
    }
    let other = with(&[("n2", &["172.18.0.9", "fd00:172:18::2"])]);
    advance(&mut state, &dual);
    advance(&mut state, &other);
    assert_ne!(
        indexes(&state).into_values().next(),
        before.into_values().next(),
        "another IPv4 address is another node"
    );
}

#[test]
fn nodes_that_come_back_in_another_order_do_not_get_each_others_place() {
    let (a, b) = (("n2", &["172.18.0.2", "fd00:172:18::2"][..]), ("n3", &["172.18.0.3", "fd00:172:18::3"][..]));
    let mut state = with(&[a, b]).tables();
    let before = indexes(&state);
    for step in [&[a][..], &[], &[b], &[a, b]] {
        advance(&mut state, &with(step));
    }
    assert_eq!(indexes(&state), before);
    // Whoever is new gets what nobody has had.
    advance(&mut state, &with(&[]));
    advance(&mut state, &with(&[("n4", &["172.18.0.4"]), ("n5", &["172.18.0.5"])]));
    let used: Vec<u16> = before.into_values().collect();
    assert!(indexes(&state).values().all(|index| !used.contains(index)));
}
