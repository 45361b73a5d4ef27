//! IPv4 link-local addresses, and what is closed to pods.

use super::*;
use crate::config::MAX_CLOSED;
use crate::testing::ip;

/// Where nodes and their networks serve, and from where meshes probe, in both families.
const SERVERS: [&str; 5] =
    ["169.254.169.254", "169.254.20.10", "169.254.255.255", "fd00:ec2::254", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"];

fn node(closed: &[&str]) -> Node {
    let mut node = Node::new();
    node.host.config.closed =
        std::array::from_fn(|place| closed.get(place).map_or(crate::Addr::UNSPECIFIED, |text| ip(text).into()));
    node
}

#[test]
fn p51_link_local_servers_are_reached_like_any_outside_and_answer() {
    for partial in [false, true] {
        let send = Send { partial };
        for server in SERVERS.map(ip) {
            let v6 = server.is_ipv6();
            let mut node = node(&[]);
            for sent in [
                tcp((Node::pod(0, v6), CLIENT), (server, 80), SYN),
                udp((Node::pod(0, v6), CLIENT), (server, 53)),
                Message::new(Node::pod(0, v6), server, L4::Ask(5)),
            ] {
                let (landed, out) = send.pod(&mut node, 0, &sent);
                assert_eq!((landed, out.src, out.dst), (Landed::Outside, Node::address(v6), server));
                let (landed, back) = send.arrives(&mut node, &answer(&out, SYN_ACK));
                assert_eq!((landed, back.src, back.dst), (Landed::Pod(0), server, Node::pod(0, v6)));
            }
        }
    }
}

#[test]
fn p51_policy_judges_link_local_destinations() {
    let mut node = node(&[]);
    node.policy_set(3, Some((UDP, 53)));
    node.police(0, crate::policy::ALLOW_ALL, 3);
    for (port, landed) in [(53, Landed::Outside), (54, dropped(DropReason::EgressPolicy))] {
        let message = udp((Node::pod(0, false), CLIENT), (ip("169.254.20.10"), port));
        assert_eq!(node.pod_sends(0, &mut message.frame()), landed);
    }
}

#[test]
fn p52_what_the_node_sends_from_a_link_local_address_is_answered_past_policy() {
    for partial in [false, true] {
        let send = Send { partial };
        for from in ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"].map(ip) {
            let v6 = from.is_ipv6();
            let mut node = node(&["169.254.7.127"]);
            node.policy_set(3, Some((UDP, 1)));
            node.police(1, 3, 3);
            let probe = tcp((from, CLIENT), (Node::pod(1, v6), 8080), SYN);
            let (landed, got) = send.node(&mut node, &probe);
            assert_eq!(landed, Landed::Pod(1));
            let (landed, back) = send.pod(&mut node, 1, &answer(&got, SYN_ACK));
            assert_eq!((landed, back.dst), (Landed::Outside, from), "to the node's stack");
        }
    }
}

#[test]
fn p53_what_is_closed_is_refused_by_its_own_address_and_through_a_service() {
    each(|v6, send| {
        let metadata = ip(if v6 { "fd00:ec2::254" } else { "169.254.169.254" });
        let mut node = node(&["192.0.2.77", "169.254.169.254", "fd00:ec2::254"]);
        for proto in [TCP, UDP] {
            node.service((Node::vip(v6), 80), proto, &[(metadata, 80)]);
            for to in [(metadata, 80), (Node::vip(v6), 80)] {
                let (from, flags) = ((Node::pod(0, v6), CLIENT), SYN);
                let sent = if proto == TCP { tcp(from, to, flags) } else { udp(from, to) };
                let (landed, told) = send.pod(&mut node, 0, &sent);
                assert_eq!(landed, Landed::Refused(DropReason::Metadata), "{to:?}");
                assert_eq!(told.dst, Node::pod(0, v6));
            }
        }
        let middle = tcp((Node::pod(0, v6), CLIENT), (metadata, 80), ACK);
        assert_eq!(send.pod(&mut node, 0, &middle).0, Landed::Refused(DropReason::Metadata));
        let other = tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 80), SYN);
        assert_eq!(send.pod(&mut node, 0, &other).0, Landed::Outside);
        let of_node = tcp((Node::address(v6), CLIENT), (metadata, 80), SYN);
        assert_eq!(send.node(&mut node, &of_node).0, Landed::Outside, "the node's own");
    });
}

#[test]
fn p53_every_place_in_the_list_counts_and_an_empty_one_closes_nothing() {
    let texts: [std::string::String; MAX_CLOSED] = std::array::from_fn(|n| std::format!("192.0.2.{}", n + 1));
    let closed = node(&texts.each_ref().map(std::string::String::as_str)).host.config;
    assert!(texts.iter().all(|text| closed.closes(ip(text).into())));
    assert!(!closed.closes(ip("192.0.2.99").into()) && !closed.closes(crate::Addr::UNSPECIFIED));
    assert!(!node(&[]).host.config.closes(crate::Addr::UNSPECIFIED));
}
