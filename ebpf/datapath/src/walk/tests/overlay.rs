//! The tunnel between nodes.

use super::outside::{NODE_PORT, first, node_port};
use super::*;
use crate::WirePort;
use crate::config::Config;
use crate::overlay::{OVERHEAD_V4, OVERHEAD_V6, Outer, SENDER, VNI};
use crate::peer::{HopFlags, NodeHop};
use crate::policy::ALLOW_ALL;
use crate::testing::{Fate, Hook};

/// Runs a test on a node whose other node is reached through the tunnel.
fn tunnelled(test: impl Fn(&mut Node, bool, Send)) {
    each(|v6, send| {
        let mut node = Node::new();
        node.tunnel();
        test(&mut node, v6, send);
    });
}

/// Has a message come through the tunnel from the other node.
fn comes(send: Send, node: &mut Node, message: &Message) -> (Landed, Seen) {
    let mut frame = send.frame(message);
    let landed = node.tunnelled(Node::other_node(false), &mut frame);
    (landed, seen(&frame))
}

#[test]
fn pods_reach_pods_through_the_tunnel_and_the_answers_come_back() {
    tunnelled(|node, v6, send| {
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 80), SYN);
        let (landed, got) = send.pod(node, 0, &sent);
        assert_eq!((landed, got.ttl), (Landed::Node(0), 63));
        let (landed, back) = comes(send, node, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ttl), (Landed::Pod(0), 63));
        // The other node may not agree on the way.
        assert_eq!(send.arrives(node, &answer(&got, ACK)).0, Landed::Pod(0));

        let sent = tcp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), 80), SYN);
        let (landed, got) = comes(send, node, &sent);
        assert_eq!(landed, Landed::Pod(1));
        assert_eq!(send.pod(node, 1, &answer(&got, SYN_ACK)).0, Landed::Node(0));
    });
}

/// For a while after a change.
#[test]
fn what_comes_through_the_tunnel_is_accepted_where_this_node_takes_another_way() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.peers.nodes.get_mut(&0).unwrap().flags = HopFlags::SENDS;
        let sent = udp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), 53));
        let (landed, got) = comes(send, &mut node, &sent);
        assert_eq!(landed, Landed::Pod(1));
        assert_eq!(send.pod(&mut node, 1, &answer(&got, 0)).0, Landed::Node(0));
        let sent = udp((Node::other_node(v6), CLIENT), (Node::pod(1, v6), 53));
        let (landed, got) = comes(send, &mut node, &sent);
        assert_eq!(landed, Landed::Pod(1));
        assert_eq!(send.pod(&mut node, 1, &answer(&got, 0)).0, Landed::Outside);
        // It ends by itself: no agent may be there to end it.
        let end = node.host.now + NodeHop::STEP;
        node.host.peers.nodes.get_mut(&0).unwrap().flags = HopFlags::SENDS | NodeHop::end(end);
        let sent = udp((Node::far_pod(v6), CLIENT + 1), (Node::pod(1, v6), 53));
        assert_eq!(comes(send, &mut node, &sent).0, Landed::Pod(1));
        node.host.now = end + NodeHop::STEP;
        assert_eq!(comes(send, &mut node, &sent).0, dropped(DropReason::Tunnel));
    });
}

#[test]
fn a_node_is_reached_through_its_tunnel_with_the_pods_address_and_answers() {
    tunnelled(|node, v6, send| {
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::other_node(v6), 10_250), SYN);
        let (landed, got) = send.pod(node, 0, &sent);
        assert_eq!((landed, got.ends()), (Landed::Node(0), seen(&sent.frame()).ends()));
        assert_eq!(comes(send, node, &answer(&got, SYN_ACK)).0, Landed::Pod(0));
        // And the other way round: the answer of a pod to a node.
        let sent = tcp((Node::other_node(v6), CLIENT), (Node::pod(1, v6), 80), SYN);
        let (landed, got) = comes(send, node, &sent);
        assert_eq!(landed, Landed::Pod(1));
        assert_eq!(send.pod(node, 1, &answer(&got, SYN_ACK)).0, Landed::Node(0));
        // What a pod there sends to this node.
        let sent = tcp((Node::far_pod(v6), CLIENT), (Node::address(v6), 10_250), SYN);
        assert_eq!(comes(send, node, &sent).0, Landed::Host);
    });
}

/// A pod elsewhere asks a NodePort of this node, and the backend is a process of the node.
#[test]
fn s45_a_process_of_the_node_answers_as_the_service_through_the_tunnel() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let (mut node, _) = node_port(v6, proto, &[(Node::address(v6), 8080)], 0);
            node.tunnel();
            let (client, to) = ((Node::far_pod(v6), CLIENT), (Node::address(v6), NODE_PORT));
            let (landed, got) = comes(send, &mut node, &first(proto, client, to));
            assert_eq!((landed, got.ends()), (Landed::Host, (client, (Node::address(v6), 8080))));
            let (landed, back) = send.node(&mut node, &answer(&got, SYN_ACK));
            assert_eq!((landed, back.ends()), (Landed::Node(0), (to, client)));
            // What the process sends on its own account keeps its address.
            let other = first(proto, (Node::address(v6), 8080), (Node::far_pod(v6), CLIENT + 1));
            assert_eq!(send.node(&mut node, &other).1.ends(), seen(&other.frame()).ends());
        }
    });
}

#[test]
fn the_stack_sends_through_the_tunnel() {
    tunnelled(|node, v6, send| {
        let sent = udp((Node::address(v6), CLIENT), (Node::far_pod(v6), 53));
        let (landed, got) = send.node(node, &sent);
        assert_eq!((landed, got.ends()), (Landed::Node(0), seen(&sent.frame()).ends()));
        assert_eq!(comes(send, node, &answer(&got, 0)).0, Landed::Host);

        let mut frame = send.frame(&sent);
        frame.bytes[6..12].copy_from_slice(&SENDER);
        assert_eq!(node.host.run(Hook::ToOverlay, &mut frame), Fate::Pass, "what a program sends");
        let mut frame = send.frame(&udp((Node::address(v6), CLIENT), (Node::world(v6), 53)));
        assert_eq!(node.host.run(Hook::ToOverlay, &mut frame), Fate::Drop(DropReason::NoSuchNode));
        let group = crate::testing::ip(if v6 { "ff02::16" } else { "224.0.0.22" });
        let mut frame = send.frame(&udp((Node::address(v6), CLIENT), (group, 53)));
        assert_eq!(node.host.run(Hook::ToOverlay, &mut frame), Fate::Ignore);
    });
}

#[test]
fn the_tunnel_takes_from_nodes_what_is_behind_them() {
    tunnelled(|node, v6, send| {
        let from = |source| udp((source, CLIENT), (Node::pod(1, v6), 53));
        for source in [Node::world(v6), Node::pod(0, v6), Node::address(v6), Node::vip(v6)] {
            assert_eq!(comes(send, node, &from(source)).0, dropped(DropReason::TunnelSource), "{source}");
        }
        let mut frame = send.frame(&from(Node::far_pod(v6)));
        for remote in [Node::world(false), Node::address(false), Node::far_pod(false), Node::world(true)] {
            assert_eq!(node.tunnelled(remote, &mut frame), dropped(DropReason::TunnelSource), "{remote}");
        }
        for outer in [None, Some(Outer { remote: Node::other_node(false).into(), vni: VNI + 1 })] {
            frame.outer = outer;
            assert_eq!(node.host.run(Hook::FromOverlay, &mut frame), Fate::Drop(DropReason::Tunnel));
        }
        assert_eq!(node.tunnelled(Node::other_node(true), &mut frame), Landed::Pod(1), "either family may be outside");
        assert!(node.host.flows.len() == 1);
    });
}

#[test]
fn the_tunnel_takes_nothing_from_nodes_that_are_not_reached_through_it() {
    each(|v6, send| {
        let mut node = Node::new();
        for to in [Node::pod(1, v6), Node::address(v6)] {
            for from in [Node::far_pod(v6), Node::other_node(v6)] {
                let sent = udp((from, CLIENT), (to, 53));
                assert_eq!(comes(send, &mut node, &sent).0, dropped(DropReason::Tunnel), "{from} to {to}");
            }
        }
        assert_eq!(node.host.flows.len(), 0);
    });
}

const PORT: u16 = Node::TUNNEL_PORT.number();

#[test]
fn pods_send_to_the_port_of_the_tunnel_at_pods_alone() {
    each(|v6, send| {
        let mut node = Node::new();
        let nodes = [Node::other_node(v6), Node::address(v6), Node::world(v6)];
        for to in nodes {
            let port = |number, proto| first(proto, (Node::pod(0, v6), CLIENT), (to, number));
            assert_eq!(send.pod(&mut node, 0, &port(PORT, UDP)).0, dropped(DropReason::TunnelPort), "{to}");
            let landed = if to == Node::address(v6) { Landed::Host } else { Landed::Outside };
            assert_eq!(send.pod(&mut node, 0, &port(PORT + 1, UDP)).0, landed, "{to}");
            assert_eq!(send.pod(&mut node, 0, &port(PORT, TCP)).0, landed, "{to}");
        }
        for (to, landed) in [(Node::pod(1, v6), Landed::Pod(1)), (Node::far_pod(v6), Landed::Node(0))] {
            let sent = udp((Node::pod(0, v6), CLIENT), (to, PORT));
            assert_eq!(send.pod(&mut node, 0, &sent).0, landed);
        }
        // A service that leads there.
        for to in nodes {
            let mut node = Node::new();
            node.service((Node::vip(v6), 53), UDP, &[(to, PORT)]);
            let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
            assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::TunnelPort), "{to}");
            assert_eq!(node.host.flows.len(), 0);
        }
    });
}

#[test]
fn flows_to_the_port_end_when_it_becomes_the_tunnels() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.config.tunnel_port = WirePort::NONE;
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::world(v6), PORT));
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Outside);
        let answer = udp((Node::pod(0, v6), PORT), (Node::far_pod(v6), PORT));
        assert_eq!(send.pod(&mut node, 0, &answer).0, Landed::Node(0));
        node.host.config.tunnel_port = Node::TUNNEL_PORT;
        assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::TunnelPort));
        assert_eq!(send.pod(&mut node, 0, &answer).0, Landed::Node(0));
    });
}

/// Those of services, too, in both directions.
#[test]
fn flows_of_services_to_the_port_end_when_it_becomes_the_tunnels() {
    each(|v6, send| {
        let closed = dropped(DropReason::TunnelPort);
        let client = (Node::world(v6), CLIENT);
        let first_to = |node: &mut Node, from| send.arrives(node, &first(UDP, from, (Node::address(v6), NODE_PORT)));
        for (to, landed) in [(Node::other_node(v6), Landed::Out), (Node::world(v6), Landed::Out)] {
            let (mut node, _) = node_port(v6, UDP, &[(to, PORT)], 0);
            node.service((Node::vip(v6), 53), UDP, &[(to, PORT)]);
            node.host.config.tunnel_port = WirePort::NONE;
            let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
            assert_eq!(first_to(&mut node, client).0, landed, "{to}");
            let pods = send.pod(&mut node, 0, &sent).0;
            assert!(matches!(pods, Landed::Out | Landed::Outside), "{pods:?} {to}");
            node.host.config.tunnel_port = Node::TUNNEL_PORT;
            assert_eq!(first_to(&mut node, client).0, closed, "{to}");
            assert_eq!(send.pod(&mut node, 0, &sent).0, closed, "{to}");
        }
        // At a pod it is a port like any.
        let (mut node, _) = node_port(v6, UDP, &[(Node::pod(1, v6), PORT)], 0);
        node.host.config.tunnel_port = WirePort::NONE;
        let (landed, got) = first_to(&mut node, client);
        assert_eq!(landed, Landed::Pod(1));
        node.host.config.tunnel_port = Node::TUNNEL_PORT;
        assert_eq!(first_to(&mut node, client), (landed, got), "the same flow");
        // What comes from the port would have its answers go there, and they go on without it.
        for backend in [Node::pod(1, v6), Node::far_pod(v6)] {
            let (mut node, _) = node_port(v6, UDP, &[(backend, 53)], 0);
            node.host.config.tunnel_port = WirePort::NONE;
            let from = (Node::world(v6), PORT);
            let (landed, got) = first_to(&mut node, from);
            let back = |node: &mut Node| match landed {
                Landed::Pod(slot) => send.pod(node, slot, &answer(&got, 0)).0,
                _ => send.arrives(node, &answer(&got, 0)).0,
            };
            assert_eq!(back(&mut node), Landed::Out, "{backend}");
            node.host.config.tunnel_port = Node::TUNNEL_PORT;
            assert_ne!(back(&mut node), Landed::Out, "{backend}");
            assert_eq!(first_to(&mut node, from).0, closed, "{backend}");
        }
    });
}

#[test]
fn clients_outside_get_to_the_port_of_the_tunnel_by_no_service() {
    each(|v6, send| {
        let client = (Node::world(v6), CLIENT);
        let unknown = crate::testing::ip(if v6 { "fd00:172:18::77" } else { "172.18.0.77" });
        for to in [Node::other_node(v6), Node::address(v6), unknown] {
            let (mut node, _) = node_port(v6, UDP, &[(to, PORT)], 0);
            let sent = first(UDP, client, (Node::address(v6), NODE_PORT));
            assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::TunnelPort), "{to}");
            assert_eq!(node.host.flows.len(), 0);
        }
        // Nor does an answer, to who claims to be a node.
        let (mut node, _) = node_port(v6, UDP, &[(Node::pod(1, v6), 53)], 0);
        let from = |source, port| first(UDP, (source, port), (Node::address(v6), NODE_PORT));
        for source in [Node::other_node(v6), Node::world(v6)] {
            assert_eq!(send.arrives(&mut node, &from(source, PORT)).0, dropped(DropReason::TunnelPort), "{source}");
            assert_eq!(send.arrives(&mut node, &from(source, PORT + 1)).0, Landed::Pod(1), "{source}");
        }
    });
}

#[test]
fn policy_holds_for_what_comes_through_the_tunnel() {
    tunnelled(|node, v6, send| {
        node.policy_set(40, Some((UDP, 53)));
        node.police(1, 40, ALLOW_ALL);
        let to = |port| udp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), port));
        assert_eq!(comes(send, node, &to(53)).0, Landed::Pod(1));
        assert_eq!(comes(send, node, &to(54)).0, dropped(DropReason::IngressPolicy));
    });
}

#[test]
fn what_every_link_of_ipv6_takes_is_cut_outside_where_the_uplink_is_no_larger() {
    tunnelled(|node, v6, send| {
        node.host.config.mtu = 1280;
        let (takes, headers) = if v6 { (1280, 48) } else { (1230, 28) };
        for (size, expected) in [(takes, Landed::Node(0)), (takes + 1, Landed::Refused(DropReason::TooLarge))] {
            let mut message = udp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 53));
            message.payload = std::vec![7; size - headers];
            message.no_fragment = true;
            assert_eq!(node.pod_sends(0, &mut send.frame(&message)), expected, "{size}");
        }
        // What is around it of IPv6 is not cut.
        node.host.config = Config { v4: crate::Addr::UNSPECIFIED, ..node.host.config };
        if v6 {
            let mut message = udp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 53));
            message.payload = std::vec![7; 1280 - headers];
            assert_eq!(node.pod_sends(0, &mut send.frame(&message)), Landed::Refused(DropReason::TooLarge));
        }
    });
}

#[test]
fn the_tunnel_takes_less_than_the_uplink() {
    tunnelled(|node, v6, send| {
        for underlay in [false, true] {
            let overhead = if underlay { OVERHEAD_V6 } else { OVERHEAD_V4 };
            if underlay {
                node.host.config = Config { v4: crate::Addr::UNSPECIFIED, ..node.host.config };
                if !v6 {
                    // Without an address of its own the node sends no error of that family.
                    return;
                }
            }
            let headers = if v6 { 48 } else { 28 };
            let largest = Node::MTU - overhead;
            for (size, expected) in [(largest, Landed::Node(0)), (largest + 1, Landed::Refused(DropReason::TooLarge))] {
                let mut message = udp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 53));
                message.payload = std::vec![7; (size - headers) as usize];
                message.no_fragment = true;
                let mut frame = send.frame(&message);
                assert_eq!(node.pod_sends(0, &mut frame), expected, "{size}");
                if let Landed::Refused(_) = expected {
                    frame.complete();
                    let mtu = if v6 { frame.bytes[60..62].to_vec() } else { frame.bytes[40..42].to_vec() };
                    assert_eq!(mtu, (largest as u16).to_be_bytes());
                }
            }
            let mut local = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
            local.payload = std::vec![7; (Node::MTU - headers) as usize];
            local.no_fragment = true;
            assert_eq!(send.pod(node, 0, &local).0, Landed::Pod(1), "pods of the node are as they were");
        }
    });
}

#[test]
fn s75_what_clients_let_others_cut_goes_through_the_tunnel_whole() {
    let (mut node, _) = node_port(false, UDP, &[(Node::far_pod(false), 8080)], 0);
    node.tunnel();
    let mut message = udp((Node::world(false), CLIENT), (Node::address(false), NODE_PORT));
    message.payload = std::vec![1; (Node::MTU - OVERHEAD_V4 - 28 + 1) as usize];
    let mut frame = message.frame();
    assert_eq!(node.arrives(&mut frame), Landed::Node(0));
    let got = seen(&frame);
    assert_eq!((got.src, got.ends().1), (Node::address(false), (Node::far_pod(false), 8080)));
    message.payload = std::vec![1; 4000];
    for mut piece in message.fragments(1480, 7) {
        assert_eq!(node.arrives(&mut piece), Landed::Node(0));
    }
    // The answer of a pod to a node elsewhere would go past the tunnel, were the stack to cut it.
    let mut back = udp((Node::pod(1, false), 53), (Node::other_node(false), CLIENT));
    back.payload = std::vec![1; 1472];
    assert_eq!(node.pod_sends(1, &mut back.frame()), Landed::Node(0));
    // The kernel does not cut an outer packet of IPv6.
    node.host.peers.nodes.get_mut(&0).unwrap().v4 = crate::Addr::UNSPECIFIED;
    assert_eq!(node.arrives(&mut message.fragments(1480, 8)[0]), Landed::Refused(DropReason::TooLarge));
}

#[test]
fn s75_of_a_datagram_in_fragments_the_first_is_told_of() {
    let (mut node, _) = node_port(true, UDP, &[(Node::far_pod(true), 8080)], 0);
    node.tunnel();
    let mut message = udp((Node::world(true), CLIENT), (Node::address(true), NODE_PORT));
    message.payload = std::vec![1; 3000];
    let mut pieces = message.fragments(1448, 9).into_iter();
    let mut first = pieces.next().unwrap();
    let headers = first.bytes[14..62].to_vec();
    assert_eq!(node.arrives(&mut first), Landed::Refused(DropReason::TooLarge));
    let error = seen(&first);
    assert_eq!((error.icmp, error.src, error.dst), ((2, 0), Node::address(true), Node::world(true)));
    assert_eq!(first.bytes[58..62], (Node::MTU - OVERHEAD_V4).to_be_bytes());
    assert_eq!(first.bytes[62..110], headers, "as it came, with the header of fragments");
    assert_eq!(node.arrives(&mut pieces.next().unwrap()), dropped(DropReason::TooLarge));
}
