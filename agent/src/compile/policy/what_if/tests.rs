use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_objects::Action::{Accept, Deny};
use proptest::prelude::*;

use super::*;
use crate::compile::policy::Direction;
use crate::compile::policy::reference::{Flow, judge};
use crate::compile::policy::testing::*;

/// One end of a pair, by its name and one of its addresses.
type Named = (String, IpAddr);

/// Pods and nodes by their addresses, and some addresses outside, each as the summary calls it.
fn named(before: &World<'_>, after: &World<'_>) -> Vec<Named> {
    let pods = before.pods.iter().flat_map(|pod| pod.ips.iter().map(|ip| (pod.key.to_string(), *ip)));
    let pods = pods.filter(|(name, ip)| before.owner(*ip).is_some_and(|owner| owner.key.to_string() == *name));
    let mut of_nodes: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for ip in before.nodes.iter().flat_map(|node| node.internal_ips.iter().chain(&node.external_ips)) {
        let names: Vec<_> = before.nodes_with(*ip).map(|node| format!("node/{}", node.name)).collect();
        if !names.is_empty() {
            of_nodes.entry(names.join(", ")).or_default().insert(*ip);
        }
    }
    let nodes = of_nodes.iter().flat_map(|(name, ips)| {
        let first = |ip: &IpAddr| ips.iter().find(|other| other.is_ipv4() == ip.is_ipv4()) == Some(ip);
        ips.iter().map(move |ip| (if first(ip) { name.clone() } else { format!("{name} ({ip})") }, *ip))
    });
    let outside = ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "fd01::1", "11.0.0.1"];
    let outside = outside.into_iter().map(ip).filter(|ip| {
        before.owner(*ip).is_none() && before.nodes_with(*ip).next().is_none() && !before.is_unknown_pod(*ip)
    });
    let mut all: BTreeSet<Named> = pods.chain(nodes).collect();
    all.extend(outside.map(|ip| (region(before, after, ip), ip)));
    all.into_iter().collect()
}

/// The longest prefix that a policy names around an address.
fn region(before: &World<'_>, after: &World<'_>, ip: IpAddr) -> String {
    let mut best: ipnetwork::IpNetwork = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.parse().unwrap();
    for world in [before, after] {
        let rules = world.policies.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
        let of_cluster = world.cluster_policies.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
        for rule in rules.chain(of_cluster.filter_map(|rule| rule.matches.as_ref())) {
            for peer in &rule.peers {
                let fairlead_objects::Peer::IpBlock { cidr, except } = peer else { continue };
                for prefix in std::iter::once(cidr).chain(except) {
                    if prefix.contains(ip) && prefix.prefix() > best.prefix() {
                        best = *prefix;
                    }
                }
            }
        }
    }
    best.to_string()
}

/// Whether a flow may pass in a state, by the model: at both ends.
fn passes(world: &World<'_>, from: &Named, to: &Named, (proto, port): (u8, u16)) -> bool {
    let asks = |own: &Named, peer: &Named, direction| {
        world.owner(own.1).is_none_or(|pod| {
            !world.is_in_unknown_namespace(pod)
                && judge(world, pod, direction, Flow { peer: peer.1, proto, port }).allow()
        })
    };
    asks(from, to, Direction::Egress) && asks(to, from, Direction::Ingress)
}

/// Whether a flow is among the differences, and whether they open it.
fn said(differences: &[Difference], from: &Named, to: &Named, (proto, port): (u8, u16)) -> Option<bool> {
    let family = if from.1.is_ipv4() { Family::V4 } else { Family::V6 };
    let holds = |(of, traffic): &(Option<Family>, Traffic)| {
        of.is_none_or(|of| of == family)
            && match traffic.protocol {
                Some(protocol) => protocol.number() == proto && (traffic.first..=traffic.last).contains(&port),
                None => ![6, 17, 132].contains(&proto),
            }
    };
    let met: Vec<bool> = differences
        .iter()
        .filter(|d| d.from.contains(&from.0) && d.to.contains(&to.0) && d.traffic.iter().any(holds))
        .map(|d| d.opens)
        .collect();
    assert!(met.len() <= 1, "said twice: {from:?} {to:?}");
    met.first().copied()
}

fn all_of(before: &World<'_>, after: &World<'_>) -> Vec<Difference> {
    compare(before, after, usize::MAX).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn p70_what_would_change_is_what_the_model_says_of_both_states(history in any_history(1)) {
        // The objects of the first, and the policies of both.
        let (first, second) = (&history[0], &history[1]);
        let after = Cluster {
            policies: second.policies.clone(),
            cluster_policies: second.cluster_policies.clone(),
            ..first.clone()
        };
        for (before, after) in [(first, &after), (&after, first)] {
            let (before, after) = (before.world(), after.world());
            let differences = all_of(&before, &after);
            let all = named(&before, &after);
            for from in &all {
                for to in all.iter().filter(|to| to.0 != from.0 && to.1.is_ipv4() == from.1.is_ipv4()) {
                    let runs_on = before.owner(to.1).and_then(|pod| pod.node_name.as_deref());
                    if before.nodes_with(from.1).any(|node| runs_on == Some(&node.name)) {
                        // A node always reaches its own pods, and is meant where others are named with it.
                        continue;
                    }
                    for service in PORTS.iter().filter(|(proto, port)| *port != 0 || ![6, 17, 132].contains(proto)) {
                        let (was, is) = (passes(&before, from, to, *service), passes(&after, from, to, *service));
                        let expected = (was != is).then_some(is);
                        prop_assert_eq!(
                            said(&differences, from, to, *service), expected, "{:?} {:?} {:?}: {:?}", from, to, service, differences
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn p70_pods_to_which_the_same_happens_are_named_together() {
    let before = Cluster::grid();
    let rules = [does(Accept, &[pods_of("ns=y", "pod=a")], &[tcp(80)]), does(Deny, &[pods_of("ns=y", "")], &[])];
    let after = before.clone().cluster_policy(cnp("Admin/1/c", "ns=x", &rules, &[]));
    let differences = all_of(&before.world(), &after.world());
    let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let found: Vec<_> =
        differences.iter().map(|d| (d.opens, d.from.clone(), d.to.clone(), d.words().join(", "))).collect();
    assert_eq!(
        found,
        [
            (
                false,
                names(&["y/a"]),
                names(&["x/a", "x/b", "x/c"]),
                "TCP 1-79, TCP 81-65535, UDP, SCTP, protocols without ports".to_owned()
            ),
            (false, names(&["y/b", "y/c"]), names(&["x/a", "x/b", "x/c"]), "everything".to_owned()),
        ]
    );
    assert_eq!(all_of(&after.world(), &after.world()), vec![]);
    // Four kinds of pods, the nodes, and the world of each family: what x receives is compared with all of it.
    let text = compare(&before.world(), &after.world(), 6).unwrap_err().to_string();
    assert!(text.contains("concerns 7 pairs") && text.contains("and 6 can be compared"), "{text}");
    assert!(compare(&before.world(), &after.world(), 7).is_ok());
}

#[test]
fn p70_a_node_is_not_said_to_lose_its_own_pods() {
    let from = |pods: &[(&str, u8)]| {
        let add = |cluster: Cluster, (number, (name, node)): (u16, &(&str, u8))| cluster.pod(name, *node, number, "");
        let mut before = (10..).zip(pods).fold(Cluster::new(), add);
        before.nodes[0].labels = labels("role=first");
        let nodes = does(Accept, &[nodes("role=first")], &[]);
        before = before.cluster_policy(cnp("Admin/9/tells-nodes-apart", "ns=z", &[], &[nodes]));
        let after = before.clone().policy("x/closed", "", Some(&[]), None);
        let found = all_of(&before.world(), &after.world());
        found.iter().flat_map(|d| d.from.clone()).filter(|name| name.starts_with("node/")).collect::<Vec<_>>()
    };
    let teller = ("z/a", 2);
    assert_eq!(from(&[("x/a", 1), teller]), ["node/n2"]);
    assert_eq!(from(&[("x/a", 1), ("x/b", 2), teller]), ["node/n1", "node/n2"], "of others they are meant");
}

#[test]
fn p70_a_family_is_named_where_it_is_of_one_alone() {
    let before = Cluster::grid();
    let deny = [does(Deny, &[block("0.0.0.0/0", &["10.0.0.0/8"])], &[])];
    let after = before.clone().cluster_policy(cnp("Admin/1/c", "ns=x", &[], &deny));
    let differences = all_of(&before.world(), &after.world());
    let to: BTreeSet<_> = differences.iter().flat_map(|d| d.to.clone()).collect();
    assert_eq!(to.into_iter().collect::<Vec<_>>(), ["0.0.0.0/0", "node/n1", "node/n2"]);
    let only = before.cluster_policy(cnp(
        "Admin/1/c",
        "ns=x",
        &[],
        &[does(Deny, &[block("10.244.1.13/32", &[])], &[tcp(80)])],
    ));
    let differences = all_of(&Cluster::grid().world(), &only.world());
    assert_eq!((differences.len(), differences[0].words()), (1, vec!["IPv4 TCP 80".to_owned()]));
    assert_eq!(differences[0].to.iter().collect::<Vec<_>>(), ["y/a"]);
}

#[test]
fn p88_names_that_rules_have_are_opened_and_closed() {
    let accepts = |names: &[&str]| {
        let world = does(Deny, &[block("0.0.0.0/0", &[]), block("::/0", &[])], &[]);
        let rules = [does(Accept, &[named_by(names)], &[tcp(443)]), world];
        Cluster::grid().cluster_policy(cnp("Admin/1/names", "ns=x", &[], &rules))
    };
    let of = |before: &Cluster, after: &Cluster| -> Vec<(bool, Vec<String>, String)> {
        let all = all_of(&before.world(), &after.world());
        let named = all.iter().filter(|d| d.to.iter().any(|to| to.starts_with("name/")));
        named.map(|d| (d.opens, d.to.iter().cloned().collect(), d.words().join(", "))).collect()
    };
    let (before, after) = (accepts(&["a.example", "*.b.example"]), accepts(&["*.b.example", "c.example", "d.example"]));
    assert_eq!(
        of(&before, &after),
        [
            (false, vec!["name/a.example".to_owned()], "TCP 443".to_owned()),
            (true, vec!["name/c.example".to_owned(), "name/d.example".to_owned()], "TCP 443".to_owned()),
        ]
    );
    // What is below a name is opened by what is below a name around it, and by no single one of them.
    assert_eq!(of(&accepts(&["*.b.example"]), &accepts(&["*.x.b.example", "b.example", "*.b.example"])).len(), 1);
    assert_eq!(of(&accepts(&["*.x.b.example"]), &accepts(&["*.b.example"])).len(), 1);
    assert_eq!(
        of(&accepts(&["*.b.example"]), &accepts(&["y.b.example"])),
        [(false, vec!["name/*.b.example".to_owned()], "TCP 443".to_owned())]
    );
    // Without the policy the world is open, names with it; with it, its names are.
    let none = Cluster::grid();
    let closed = of(&none, &before);
    assert!(closed.iter().all(|(opens, _, words)| !opens && !words.contains("TCP 443")), "{closed:?}");
    // Where it is known what a pod was told, that is named, and judged as what it is.
    let mut known = before.clone();
    let (changed, _) = tell(&mut known, &Told::Learn(0, 0, ip("192.0.2.1")));
    assert!(!changed.is_empty());
    let with = |cluster: &Cluster| Cluster { names: known.names.clone(), ..cluster.clone() };
    let told = [accepts(&[TOLD[0]]), accepts(&["other.example"])];
    let found = of(&with(&told[0]), &with(&told[1]));
    assert!(
        found.iter().any(|(opens, to, _)| !opens && *to == [format!("name/{} (now 192.0.2.1)", TOLD[0])]),
        "{found:?}"
    );
}
