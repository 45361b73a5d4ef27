//! What leaves the cluster, and what comes back.

use super::*;
use crate::Addr;
use crate::config::Uplink;
use crate::flow::Table;
use crate::testing::{Fate, Hook, ip};

/// What a pod sends to the world, as the world gets it, and its answer, as the pod gets it.
fn there_and_back(send: Send, node: &mut Node, slot: u16, sent: &Message, flags: u8) -> Seen {
    let v6 = sent.src.is_ipv6();
    let (landed, out) = send.pod(node, slot, sent);
    assert_eq!((landed, out.src, out.dst), (Landed::Outside, Node::address(v6), sent.dst));
    let (landed, back) = send.arrives(node, &answer(&out, flags));
    assert_eq!(landed, Landed::Pod(slot));
    let (from, to) = seen(&sent.frame()).ends();
    assert_eq!(back.ends(), (to, from));
    out
}

#[test]
fn what_leaves_has_the_nodes_address_and_the_answer_finds_the_pod() {
    each(|v6, send| {
        let mut node = Node::new();
        let world = (Node::world(v6), 443);
        for sent in [
            tcp((Node::pod(0, v6), CLIENT), world, SYN),
            udp((Node::pod(0, v6), CLIENT), world),
            Message::new(Node::pod(0, v6), world.0, L4::Ask(5)),
        ] {
            let out = there_and_back(send, &mut node, 0, &sent, SYN_ACK);
            assert_eq!(out.sport, seen(&sent.frame()).sport, "the client's port is kept where nobody has it");
            assert_eq!(out.ttl, 63);
        }
    });
}

#[test]
fn s2_sctp_and_what_has_no_ports_leave_with_those_that_they_have() {
    each(|v6, send| {
        for l4 in [L4::Sctp(CLIENT, 443), L4::Other(47)] {
            let mut node = Node::new();
            let sent = Message::new(Node::pod(0, v6), Node::world(v6), l4);
            let (landed, out) = send.pod(&mut node, 0, &sent);
            assert_eq!((landed, out.src, out.sport), (Landed::Outside, Node::address(v6), seen(&sent.frame()).sport));
            let l4 = if let L4::Sctp(a, b) = l4 { L4::Sctp(b, a) } else { l4 };
            let back = Message::new(Node::world(v6), Node::address(v6), l4);
            let (landed, got) = send.arrives(&mut node, &back);
            assert_eq!((landed, got.dst), (Landed::Pod(0), Node::pod(0, v6)));
            // Another pod that looks the same from outside goes nowhere, and what no pod asked for is the host's.
            let other = Message { src: Node::pod(1, v6), ..sent };
            assert_eq!(send.pod(&mut node, 1, &other).0, dropped(DropReason::NoSourcePort));
            let unasked = Message { src: Node::other_node(v6), ..back };
            assert_eq!(send.arrives(&mut node, &unasked).0, Landed::Host);
        }
    });
}

#[test]
fn two_pods_with_one_port_are_told_apart() {
    each(|v6, send| {
        let mut node = Node::new();
        let world = (Node::world(v6), 443);
        let one = tcp((Node::pod(0, v6), CLIENT), world, SYN);
        let other = tcp((Node::pod(1, v6), CLIENT), world, SYN);
        let first = there_and_back(send, &mut node, 0, &one, SYN_ACK);
        let second = there_and_back(send, &mut node, 1, &other, SYN_ACK);
        assert_ne!(first.sport, second.sport);
        // And both go on as they began.
        assert_eq!(
            there_and_back(send, &mut node, 0, &tcp((Node::pod(0, v6), CLIENT), world, ACK), ACK),
            Seen { flags: ACK, ..first }
        );
    });
}

#[test]
fn a_connection_to_the_world_that_ends_leaves_the_established_ones() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = |flags| tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 443), flags);
        there_and_back(send, &mut node, 0, &sent(SYN), SYN_ACK);
        let out = there_and_back(send, &mut node, 0, &sent(ACK), ACK);
        assert_eq!(node.host.flows.established(0), 1);
        there_and_back(send, &mut node, 0, &sent(FIN), FIN);
        let (landed, last) = send.pod(&mut node, 0, &sent(ACK));
        assert_eq!((landed, last.ends()), (Landed::Outside, out.ends()));
        assert!(node.host.flows.keys(Table::Established).is_empty());
        // What is sent again goes the same way.
        let (landed, again) = send.pod(&mut node, 0, &sent(FIN));
        assert_eq!((landed, again.ends()), (Landed::Outside, out.ends()));
        assert_eq!(node.host.flows.established(0), 0);
    });
}

#[test]
fn a_connection_that_the_world_ends_leaves_them_too() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = |flags| tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 443), flags);
        there_and_back(send, &mut node, 0, &sent(SYN), SYN_ACK);
        there_and_back(send, &mut node, 0, &sent(ACK), FIN);
        there_and_back(send, &mut node, 0, &sent(FIN), ACK);
        assert!(node.host.flows.keys(Table::Established).is_empty());
        assert_eq!(node.host.flows.established(0), 0);
    });
}

#[test]
fn p30_the_world_reaches_a_pod_by_an_answer_only_where_policy_says_so() {
    each(|v6, send| {
        let mut node = Node::new();
        node.policy_set(40, Some((TCP, 80)));
        node.police(0, 40, crate::policy::ALLOW_ALL);
        let world = (Node::world(v6), 443);
        there_and_back(send, &mut node, 0, &udp((Node::pod(0, v6), CLIENT), world), 0);
        let (landed, _) = send.arrives(&mut node, &udp(world, (Node::pod(0, v6), CLIENT)));
        assert_eq!(landed, dropped(DropReason::IngressPolicy));
    });
}

#[test]
fn a_client_outside_of_a_pod_is_answered_with_the_pods_address() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = tcp((Node::world(v6), CLIENT), (Node::pod(0, v6), 80), SYN);
        let (landed, got) = send.arrives(&mut node, &sent);
        assert_eq!((landed, got.ends()), (Landed::Pod(0), seen(&sent.frame()).ends()));
        let (landed, back) = send.pod(&mut node, 0, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.src, back.sport), (Landed::Outside, Node::pod(0, v6), 80));
    });
}

#[test]
fn the_hosts_own_packets_leave_as_they_are() {
    each(|v6, send| {
        let mut node = Node::new();
        for source in [Node::address(v6), Node::pod(0, v6)] {
            let message = udp((source, CLIENT), (Node::world(v6), 53));
            let mut frame = send.frame(&message);
            let before = frame.clone();
            assert_eq!(node.host.run(Hook::ToUplink(Node::UPLINK), &mut frame), Fate::Pass);
            assert_eq!(frame, before);
        }
    });
}

#[test]
fn a_packet_of_a_pod_never_leaves_with_its_address_because_its_flow_is_gone() {
    each(|v6, send| {
        let mut node = Node::new();
        let mut frame = send.frame(&udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53)));
        frame.ingress = crate::ifindex_of(0);
        assert_eq!(node.host.run(Hook::FromPod(0), &mut frame), Fate::Stack);
        node.host.flows = crate::testing::Flows::default();
        let landed = node.host.run(Hook::ToUplink(Node::UPLINK), &mut frame);
        assert_eq!(landed, Fate::Drop(DropReason::Untranslated));
    });
}

#[test]
fn s73_what_leaves_by_an_uplink_on_top_of_another_is_translated_once() {
    const VLAN: u32 = 88;
    each(|v6, send| {
        let mut node = Node::new();
        let [v4, own] = ["198.51.100.7", "2001:db8:88::7"].map(|text| ip(text).into());
        node.host.uplinks.insert(VLAN, Uplink { v4, v6: own, ..Uplink::default() });
        let mut frame = send.frame(&udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53)));
        frame.ingress = crate::ifindex_of(0);
        assert_eq!(node.host.run(Hook::FromPod(0), &mut frame), Fate::Stack);
        assert_eq!(node.host.run(Hook::ToUplink(VLAN), &mut frame), Fate::Pass);
        let out = frame.clone();
        assert_eq!(Addr::from(seen(&out).src), if v6 { own } else { v4 });
        // The device below gets the same packet, with its mark.
        assert_eq!(node.host.run(Hook::ToUplink(Node::UPLINK), &mut frame), Fate::Pass);
        assert_eq!(frame, out);
    });
}

#[test]
fn an_uplink_without_an_address_of_the_family_lets_nothing_out() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.uplinks.clear();
        let (landed, _) = send.pod(&mut node, 0, &udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53)));
        assert_eq!(landed, dropped(DropReason::NoAddress));
    });
}

#[test]
fn a_service_outside_of_the_cluster_sees_the_node() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            node.service((Node::vip(v6), 80), proto, &[(Node::world(v6), 8080)]);
            let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            let sent = if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
            let (landed, out) = send.pod(&mut node, 0, &sent);
            // Past the stack, which takes no packet of its own address from a pod.
            assert_eq!(landed, Landed::Out);
            assert_eq!((out.src, out.ends().1), (Node::address(v6), (Node::world(v6), 8080)));
            let (landed, back) = send.arrives(&mut node, &answer(&out, SYN_ACK));
            assert_eq!((landed, back.ends()), (Landed::Pod(0), (to, from)));
        }
    });
}

#[test]
fn s62_where_pods_keep_their_addresses_what_leaves_has_the_pods_and_the_answer_alone_is_let_in() {
    each(|v6, send| {
        let mut node = Node::new();
        node.policy_set(40, Some((TCP, 80)));
        node.police(0, 40, crate::policy::ALLOW_ALL);
        node.keep_source(Node::world(v6));
        let world = (Node::world(v6), 443);
        for sent in [
            tcp((Node::pod(0, v6), CLIENT), world, SYN),
            udp((Node::pod(0, v6), CLIENT), world),
            Message::new(Node::pod(0, v6), world.0, L4::Ask(5)),
        ] {
            let (landed, out) = send.pod(&mut node, 0, &sent);
            assert_eq!((landed, out.ends(), out.ttl), (Landed::Outside, seen(&sent.frame()).ends(), 63));
            let (landed, back) = send.arrives(&mut node, &answer(&out, SYN_ACK));
            assert_eq!((landed, back.dst), (Landed::Pod(0), Node::pod(0, v6)));
        }
        // Nobody asked for this.
        let (landed, _) = send.arrives(&mut node, &udp((world.0, 444), (Node::pod(0, v6), CLIENT)));
        assert_eq!(landed, dropped(DropReason::IngressPolicy));
    });
}

#[test]
fn s62_a_service_outside_sees_the_pod_where_pods_keep_their_addresses_and_the_node_elsewhere() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            node.keep_source(Node::world(v6));
            node.service((Node::vip(v6), 80), proto, &[(Node::world(v6), 8080)]);
            let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            let sent = if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
            let (landed, out) = send.pod(&mut node, 0, &sent);
            assert_eq!((landed, out.ends()), (Landed::Out, (from, (Node::world(v6), 8080))));
            let (landed, back) = send.arrives(&mut node, &answer(&out, SYN_ACK));
            assert_eq!((landed, back.ends()), (Landed::Pod(0), (to, from)));
            // A client outside is translated all the same: its answers have to come back here.
            node.service((Node::other_vip(v6), 80), proto, &[(Node::far_pod(v6), 8080)]);
            let (from, to) = ((Node::world(v6), CLIENT), (Node::other_vip(v6), 80));
            let sent = if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
            let (landed, out) = send.arrives(&mut node, &sent);
            assert_eq!((landed, out.src), (Landed::Node(0), Node::address(v6)));
        }
    });
}

#[test]
fn s63_sources_are_of_the_range_and_a_clients_own_port_is_kept_inside_it() {
    each(|v6, send| {
        let mut node = Node::new();
        (node.host.config.snat_first, node.host.config.snat_count) = (30_000, 1024);
        let range = 30_000..31_024;
        for (port, kept) in [(29_999, false), (30_000, true), (31_023, true), (31_024, false), (700, true)] {
            for (n, proto) in [TCP, UDP].into_iter().enumerate() {
                let (from, world) = ((Node::pod(0, v6), port), (Node::world(v6), 443 + n as u16));
                let sent = if proto == TCP { tcp(from, world, SYN) } else { udp(from, world) };
                let out = there_and_back(send, &mut node, 0, &sent, SYN_ACK);
                assert_eq!(out.sport == port, kept, "{port} {out:?}");
                assert!(kept || range.contains(&out.sport), "{port} {out:?}");
                // A flow keeps its port when the range becomes another.
                let config = node.host.config;
                node.host.config.snat_first = 50_000;
                let again = if proto == TCP { tcp(from, world, ACK) } else { udp(from, world) };
                assert_eq!(there_and_back(send, &mut node, 0, &again, ACK).sport, out.sport);
                node.host.config = config;
            }
        }
    });
}

#[test]
fn s47_fragments_that_leave_are_masqueraded_too() {
    for v6 in [false, true] {
        let mut node = Node::new();
        let mut message = udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53));
        message.payload = std::vec![7; 3000];
        let mut ports = Vec::new();
        let mut whole = Vec::new();
        for mut piece in message.fragments(1400, 9) {
            assert_eq!(node.pod_sends(0, &mut piece), Landed::Outside);
            let seen = seen(&piece);
            assert_eq!(seen.src, Node::address(v6));
            ports.push(seen.sport);
            whole.extend_from_slice(&piece.bytes[if v6 { 62 } else { 34 }..]);
        }
        let mut expected = udp((Node::address(v6), ports[0]), (Node::world(v6), 53));
        expected.payload.clone_from(&message.payload);
        assert_eq!(whole, expected.frame().bytes[if v6 { 54 } else { 34 }..]);
        // The answer in fragments.
        let mut back = udp((Node::world(v6), 53), (Node::address(v6), ports[0]));
        back.payload = std::vec![8; 3000];
        for mut piece in back.fragments(1400, 10) {
            assert_eq!(node.arrives(&mut piece), Landed::Pod(0));
            assert_eq!(seen(&piece).dst, Node::pod(0, v6));
        }
    }
}

/// A connection that is older than the tables is as good as established before it has an address of the node.
#[test]
fn both_entries_of_a_connection_that_is_picked_up_are_in_one_table() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.config.pickup_until = u32::MAX;
        let uplinks = core::mem::take(&mut node.host.uplinks);
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 80), ACK);
        for _ in 0..2 {
            assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::NoAddress));
        }
        node.host.uplinks = uplinks;
        let keys = |node: &Node| [Table::Established, Table::Any].map(|table| node.host.flows.keys(table).len());
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, keys(&node)), (Landed::Outside, [0, 2]));
        node.host.now += 1;
        assert_eq!(send.pod(&mut node, 0, &sent), (landed, got.clone()));
        assert_eq!(keys(&node), [2, 0]);
        assert_eq!(send.arrives(&mut node, &answer(&got, ACK)).0, Landed::Pod(0));
        assert_eq!(node.host.flows.counts(), node.host.flows.recounted(node.host.config.seed));
    });
}

#[test]
fn s73_datagrams_of_a_flow_leave_with_the_address_that_the_uplink_has_now() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53));
        let open = tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 80), SYN);
        let goes_on = tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 80), ACK);
        for first in [&sent, &open] {
            let (landed, out) = send.pod(&mut node, 0, first);
            assert_eq!((landed, out.src), (Landed::Outside, Node::address(v6)));
        }
        let other = ip(if v6 { "2001:db8:99::1" } else { "198.18.0.1" });
        let uplink = node.host.uplinks.get_mut(&Node::UPLINK).unwrap();
        *(if v6 { &mut uplink.v6 } else { &mut uplink.v4 }) = other.into();
        // One is lost, and the next has it. A connection is its server's by the address that it had.
        assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::FlowRace));
        for _ in 0..2 {
            let (landed, out) = send.pod(&mut node, 0, &sent);
            assert_eq!((landed, out.src), (Landed::Outside, other));
        }
        let (landed, out) = send.pod(&mut node, 0, &goes_on);
        assert_eq!((landed, out.src), (Landed::Outside, Node::address(v6)));
    });
}
