use fairlead_datapath::peer::PodWord;
use fairlead_datapath::policy::DENY_ALL;
use fairlead_datapath::testing::{L4, Landed, Message, Node as Datapath};
use proptest::prelude::*;

use super::super::testing::*;
use super::*;

fn path(from: IpAddr, to: IpAddr, (proto, port): (u8, u16)) -> Path {
    Path { from, to, proto, port, service: false }
}

#[test]
fn p47_a_denial_is_explained_with_its_near_misses() {
    let cluster = Cluster::grid().policy(
        "x/api",
        "pod=a",
        Some(&[rule(&[pods("pod=b")], &[tcp(8080), tcp(8443)]), rule(&[pods("app=web")], &[tcp(80)])]),
        None,
    );
    let (from, to) = (cluster.ip_of("x/b", 0), cluster.ip_of("x/a", 0));
    let explanation = explain(&cluster.world(), path(from, to, (6, 80)));
    assert_eq!(explanation.dropped, Some(DropReason::IngressPolicy));
    assert_eq!(
        explanation.lines,
        [
            "egress of x/b: allowed, no policy selects it",
            "ingress of x/a: silently dropped, no rule of x/api allows it",
        ]
    );
    assert_eq!(
        explanation.near_misses,
        [
            "x/api ingress[0] allows this peer, but only TCP 8080, TCP 8443",
            "x/api ingress[1] allows this port, but only from pods of its namespace (app=web)",
        ]
    );
}

#[test]
fn p49_what_has_no_traffic_whatever_policies_say_is_dropped_with_the_reason() {
    let mut cluster = Cluster::grid().pod("x/new", 1, 77, "pod=new");
    let of = |cluster: &Cluster, from: IpAddr, to: &str| explain(&cluster.world(), path(from, ip(to), (6, 80)));
    let from = cluster.ip_of("x/a", 0);
    for (to, reason) in [
        ("224.0.0.1", Some(DropReason::Multicast)),
        ("127.0.0.1", Some(DropReason::BadAddress)),
        ("169.254.1.1", Some(DropReason::BadAddress)),
        ("169.254.169.254", None),
        ("169.254.7.127", None),
        ("10.244.1.200", Some(DropReason::NoSuchPod)),
        ("172.18.0.1", None),
        ("192.0.2.1", None),
    ] {
        let explanation = of(&cluster, from, to);
        assert_eq!(explanation.dropped, reason, "{to}");
        let said = explanation.lines.concat();
        assert!(reason.is_none_or(|reason| said.contains(reason.as_str())), "{said}");
    }
    // Attached, and the object has not come; then the object, and the plugin has not.
    let new = cluster.ip_of("x/new", 0);
    let object = cluster.pods.iter().position(|pod| pod.key == key("x/new")).unwrap();
    let object = cluster.pods.remove(object);
    assert_eq!(of(&cluster, new, "192.0.2.1").dropped, Some(DropReason::Pending));
    assert_eq!(of(&cluster, from, &new.to_string()).dropped, Some(DropReason::Pending));
    cluster.pods.push(object);
    cluster.local.retain(|local| local.key != key("x/new"));
    assert_eq!(of(&cluster, new, "192.0.2.1").dropped, Some(DropReason::Pending));
    assert_eq!(of(&cluster, from, &new.to_string()).dropped, Some(DropReason::NoSuchPod));
}

#[test]
fn p32_p61_p68_a_pod_and_itself_is_explained_with_and_without_a_service() {
    use fairlead_objects::Action::{Deny, Pass};
    let closed = Cluster::grid().policy("x/deny", "", Some(&[]), Some(&[]));
    let of = |cluster: &Cluster, service| {
        let own = cluster.ip_of("x/a", 0);
        explain(&cluster.world(), Path { service, ..path(own, own, (6, 80)) })
    };
    let rule = |action| [does(action, &[pods_of("ns=x", "")], &[])];
    let denied = closed.clone().cluster_policy(cnp("Admin/1/c", "ns=x", &rule(Deny), &[]));
    for cluster in [&closed, &denied] {
        let direct = of(cluster, false);
        assert_eq!((direct.dropped, direct.judged.len()), (None, 0));
        assert_eq!(direct.lines, ["a pod always reaches its own address: policy does not apply"]);
    }
    let by_service = of(&closed, true);
    assert_eq!((by_service.dropped, by_service.judged.len()), (None, 2));
    assert_eq!(
        by_service.lines,
        ["egress", "ingress"].map(|direction| format!(
            "{direction} of x/a: allowed, NetworkPolicies keep no pod from itself through a Service"
        ))
    );
    let by_service = of(&denied, true);
    assert_eq!(by_service.dropped, Some(DropReason::IngressPolicy));
    assert_eq!(
        by_service.lines[1..],
        [
            "ingress of x/a: silently dropped, denied by ClusterNetworkPolicy c of the Admin tier, ingress[0]",
            "a client whose socket is translated when it connects stays in its pod, and is not asked about",
        ]
    );
    let passed = of(&closed.cluster_policy(cnp("Admin/1/c", "ns=x", &[], &rule(Pass))), true);
    assert_eq!(passed.dropped, None);
    assert_eq!(
        passed.lines[0],
        "egress of x/a: passed by ClusterNetworkPolicy c of the Admin tier, egress[0], then allowed, NetworkPolicies keep no \
         pod from itself through a Service"
    );
}

#[test]
fn p53_what_is_closed_to_pods_is_refused_to_them_alone() {
    let cluster = Cluster::grid();
    let closed = ["169.254.169.254", "fd00:ec2::254"].map(ip);
    let world = World { closed: &closed, ..cluster.world() };
    let node = cluster.nodes[0].internal_ips[0];
    for (from, to, dropped) in [
        (cluster.ip_of("x/a", 0), closed[0], Some(DropReason::Metadata)),
        (cluster.ip_of("x/a", 0), ip("169.254.20.10"), None),
        (node, closed[0], None),
    ] {
        let explanation = explain(&world, path(from, to, (6, 80)));
        assert_eq!(explanation.dropped, dropped, "{from} {to}");
        assert!(dropped.is_none() || explanation.lines.concat().contains("metadata.access"), "{explanation:?}");
    }
}

#[test]
fn p49_the_tunnels_port_is_closed_to_pods_but_at_other_pods() {
    let cluster = Cluster::grid();
    let world = World { tunnel_port: Some(4789), ..cluster.world() };
    let node = cluster.nodes[1].internal_ips[0];
    let (pod, other) = (cluster.ip_of("x/a", 0), cluster.ip_of("x/b", 0));
    for (from, to, service, dropped) in [
        (pod, node, (17, 4789), Some(DropReason::TunnelPort)),
        (pod, ip("192.0.2.1"), (17, 4789), Some(DropReason::TunnelPort)),
        (pod, node, (6, 4789), None),
        (pod, node, (17, 4790), None),
        (pod, other, (17, 4789), None),
        (node, ip("192.0.2.1"), (17, 4789), None),
    ] {
        let world = &world;
        assert_eq!(explain(world, path(from, to, service)).dropped, dropped, "{from} {to} {service:?}");
    }
    assert_eq!(explain(&cluster.world(), path(pod, node, (17, 4789))).dropped, None, "no tunnel, no port of it");
}

/// Addresses at the edges of what is special, and any.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let edges = [
        "0.0.0.0",
        "0.255.255.255",
        "1.0.0.0",
        "126.255.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.254.0.0",
        "169.254.1.1",
        "169.254.7.127",
        "169.254.169.254",
        "169.254.255.255",
        "169.255.0.0",
        "223.255.255.255",
        "224.0.0.0",
        "239.255.255.255",
        "240.0.0.0",
        "254.255.255.255",
        "255.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "fe7f:ffff::",
        "fe80::",
        "fe80::1",
        "febf:ffff::",
        "fec0::",
        "fd00:ec2::254",
        "fd16:9254:7127:1337:ffff:ffff:ffff:ffff",
        "feff:ffff::",
        "ff00::",
        "ff02::1",
        "2001:db8::1",
    ];
    prop_oneof![
        3 => prop::sample::select(edges.map(ip).to_vec()),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        1 => any::<[u8; 16]>().prop_map(IpAddr::from).prop_filter("v4-mapped is IPv4", |ip| ip.to_canonical() == *ip),
    ]
}

proptest! {
    #[test]
    fn p49_addresses_that_the_datapath_does_not_forward_are_refused(to in any_address()) {
        let mut node = Datapath::new();
        let message = Message::new(Datapath::pod(0, to.is_ipv6()), to, L4::Udp(40000, 53));
        let dropped = match node.pod_sends(0, &mut message.frame()) {
            Landed::Dropped(reason @ (DropReason::BadAddress | DropReason::Multicast)) => Some(reason),
            _ => None,
        };
        prop_assert_eq!(refused(to), dropped, "{}", to);
    }
}

/// What the tables make of a path, put together as the datapath does: `ask` is one question of it.
fn by_tables(cluster: &Cluster, content: &crate::plan::policy::Content, path: Path) -> bool {
    let slot = |ip: IpAddr| cluster.local.iter().find(|local| local.ips.contains(&ip)).map(|local| local.slot);
    let word = |slot: u16| PodWord(content.peer.pods.get(&slot).map_or(0, |pod| pod.word));
    let own_node = cluster.nodes[0].internal_ips.contains(&path.from);
    let flow = |peer| Flow { peer, proto: path.proto, port: path.port };
    if slot(path.from).is_some() && refused(path.to).is_some() {
        return false;
    }
    if path.from == path.to && !path.service {
        // Itself, and nobody asks its policies, unless it has none yet.
        return slot(path.from).is_some_and(|slot| word(slot).egress() != DENY_ALL);
    }
    let egress = slot(path.from).is_none_or(|slot| ask(content, slot, Direction::Egress, flow(path.to)).0);
    let ingress = match slot(path.to) {
        Some(slot) if own_node => !word(slot).is_pending(),
        Some(slot) => ask(content, slot, Direction::Ingress, flow(path.from)).0,
        // The route: a pod's address that no pod has.
        None => slot(path.from).is_none() || !cluster.nodes[0].pod_cidrs.iter().any(|range| range.contains(path.to)),
    };
    egress && ingress
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn p49_the_verdict_is_that_of_the_tables(cluster in any_cluster()) {
        let state = cluster.tables();
        let world = cluster.world();
        for (local, direction, flow) in flows(&cluster, PORTS) {
            let Some(own) = local.ips.iter().copied().find(|ip| ip.is_ipv4() == flow.peer.is_ipv4()) else { continue };
            let (from, to) = if direction == Direction::Egress { (own, flow.peer) } else { (flow.peer, own) };
            // What a pod of another node may send is judged there: its packets are here, or they are not.
            let elsewhere = cluster.local.iter().all(|local| !local.ips.contains(&from)) && world.owner(from).is_some();
            let elsewhere = elsewhere || (world.owner(to).is_some() && cluster.local.iter().all(|l| !l.ips.contains(&to)));
            if elsewhere {
                continue;
            }
            // A Service that leads there makes a difference to a pod and itself alone.
            for service in [false, true] {
                let path = Path { service, ..path(from, to, (flow.proto, flow.port)) };
                let explained = explain(&world, path);
                prop_assert_eq!(
                    explained.dropped.is_none(), by_tables(&cluster, state.content(), path), "{:?}: {:?}", path, explained
                );
                for Judged { slot, direction, flow, own, allow } in explained.judged {
                    prop_assert_eq!(own, from == to);
                    prop_assert_eq!(ask(state.content(), slot, direction, flow).0, allow);
                }
            }
        }
    }
}
