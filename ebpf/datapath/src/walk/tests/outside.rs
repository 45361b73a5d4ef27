//! Services, for clients outside.

use super::*;
use crate::WirePort;
use crate::config::Uplink;
use crate::overlay;
use crate::service::{FrontendFlags, Scope, SourceRangeKey};
use crate::testing::{Fate, Hook, ip};

pub(super) const NODE_PORT: u16 = 30_080;

/// Every address of the node, as a frontend has it.
fn anywhere(v6: bool) -> (IpAddr, u16) {
    (ip(if v6 { "::" } else { "0.0.0.0" }), NODE_PORT)
}

/// A node with a NodePort for these backends.
pub(super) fn node_port(v6: bool, proto: u8, backends: &[(IpAddr, u16)], flags: u32) -> (Node, Vec<u32>) {
    let mut node = Node::new();
    node.node_ports();
    let ids = node.service(anywhere(v6), proto, backends);
    node.flag(anywhere(v6), proto, FrontendFlags::NODE_PORT | flags);
    (node, ids)
}

/// The first packet of a client.
pub(super) fn first(proto: u8, from: (IpAddr, u16), to: (IpAddr, u16)) -> Message {
    if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) }
}

/// Has the world's client ask, and the answer come back; returns as whom the backend got it.
#[track_caller]
fn asked(send: Send, node: &mut Node, proto: u8, to: (IpAddr, u16)) -> (Landed, Seen) {
    let client = (Node::world(to.0.is_ipv6()), CLIENT);
    let (landed, got) = send.arrives(node, &first(proto, client, to));
    let reply = answer(&got, SYN_ACK);
    let (out, back) = match landed {
        Landed::Pod(slot) => send.pod(node, slot, &reply),
        Landed::Node(_) => send.arrives(node, &reply),
        Landed::Host => send.node(node, &reply),
        other => panic!("{other:?}"),
    };
    let expected = if landed == Landed::Host { Landed::Outside } else { Landed::Out };
    assert_eq!((out, back.ends()), (expected, (to, client)));
    // And it goes on as it began.
    let next = if proto == TCP { tcp(client, to, ACK) } else { udp(client, to) };
    let (again, same) = send.arrives(node, &next);
    assert_eq!((again, same.ends()), (landed, got.ends()));
    (landed, got)
}

#[test]
fn s4_s35_a_node_port_reaches_pods_here_and_elsewhere_from_the_nodes_address() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            for (backend, expected) in [(Node::pod(1, v6), Landed::Pod(1)), (Node::far_pod(v6), Landed::Node(0))] {
                let (mut node, _) = node_port(v6, proto, &[(backend, 8080)], 0);
                let (landed, got) = asked(send, &mut node, proto, (Node::address(v6), NODE_PORT));
                assert_eq!((landed, got.src, got.ends().1), (expected, Node::address(v6), (backend, 8080)));
                assert!(node.host.config.is_snat_port(WirePort::new(got.sport)), "{got:?}");
                assert_eq!(got.ttl, 63);
            }
        }
    });
}

#[test]
fn s27_s35_policy_local_keeps_the_clients_address() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let (mut node, _) = node_port(v6, proto, &[(Node::pod(1, v6), 8080)], FrontendFlags::KEEP_SOURCE);
            let (landed, got) = asked(send, &mut node, proto, (Node::address(v6), NODE_PORT));
            let client = (Node::world(v6), CLIENT);
            assert_eq!((landed, got.ends()), (Landed::Pod(1), (client, (Node::pod(1, v6), 8080))));
        }
    });
}

#[test]
fn s17_a_cluster_address_is_open_to_the_outside_and_a_far_pod_of_its_own_too() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        node.service((Node::other_vip(v6), 80), TCP, &[(Node::far_pod(v6), 8080)]);
        assert_eq!(asked(send, &mut node, TCP, (Node::vip(v6), 80)).0, Landed::Pod(1));
        assert_eq!(asked(send, &mut node, TCP, (Node::other_vip(v6), 80)).0, Landed::Node(0));
        // A pod of another node that comes to a port of this one is answered by way of its node.
        let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], FrontendFlags::KEEP_SOURCE);
        let (client, to) = ((Node::far_pod(v6), CLIENT), (Node::address(v6), NODE_PORT));
        let (landed, got) = send.arrives(&mut node, &tcp(client, to, SYN));
        assert_eq!((landed, got.ends().0), (Landed::Pod(1), client));
        let (landed, back) = send.pod(&mut node, 1, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ends()), (Landed::Node(0), (to, client)));
    });
}

#[test]
fn s45_a_process_of_the_node_keeps_the_client_and_answers_as_the_service() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let (mut node, _) = node_port(v6, proto, &[(Node::address(v6), 8080)], 0);
            // Nobody has come yet: what the node sends is looked at by nobody.
            let own = first(proto, (Node::address(v6), 8080), (Node::world(v6), CLIENT));
            assert_eq!(send.node(&mut node, &own).1.ends(), seen(&own.frame()).ends());
            let (landed, got) = asked(send, &mut node, proto, (Node::address(v6), NODE_PORT));
            let client = (Node::world(v6), CLIENT);
            assert_eq!((landed, got.ends()), (Landed::Host, (client, (Node::address(v6), 8080))));
            // Another client's is not.
            let other = first(proto, (Node::address(v6), 8080), (Node::world(v6), CLIENT + 1));
            assert_eq!(send.node(&mut node, &other).1.ends(), seen(&other.frame()).ends());
        }
        // On another node: by the routes, from this node's address.
        let (mut node, _) = node_port(v6, TCP, &[(Node::other_node(v6), 8080)], 0);
        let client = (Node::world(v6), CLIENT);
        let (landed, got) = send.arrives(&mut node, &tcp(client, (Node::address(v6), NODE_PORT), SYN));
        assert_eq!((landed, got.src, got.dst), (Landed::Out, Node::address(v6), Node::other_node(v6)));
        let (landed, back) = send.arrives(&mut node, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ends()), (Landed::Out, ((Node::address(v6), NODE_PORT), client)));
    });
}

#[test]
fn s33_s34_refused_or_dropped_as_the_scope_says() {
    each(|v6, send| {
        let to = (Node::address(v6), NODE_PORT);
        let sent = tcp((Node::world(v6), CLIENT), to, SYN);
        for (scope, expected) in
            [(Scope::REJECT, Landed::Refused(DropReason::Rejected)), (Scope::DROP, dropped(DropReason::NoEndpoint))]
        {
            let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
            node.frontend(anywhere(v6), TCP, 1, scope);
            node.flag(anywhere(v6), TCP, FrontendFlags::NODE_PORT);
            let mut frame = send.frame(&sent);
            assert_eq!(node.arrives(&mut frame), expected);
        }
        // Another port of the node is the host's.
        let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
        let other = tcp((Node::world(v6), CLIENT), (Node::address(v6), 22), SYN);
        assert_eq!(send.arrives(&mut node, &other).0, Landed::Host);
    });
}

#[test]
fn s12_only_clients_in_the_source_ranges_are_let_in() {
    each(|v6, send| {
        let mut node = Node::new();
        let to = (Node::vip(v6), 80);
        node.service(to, TCP, &[(Node::pod(1, v6), 8080)]);
        node.flag(to, TCP, FrontendFlags::source_set(5));
        let sent = tcp((Node::world(v6), CLIENT), to, SYN);
        assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::SourceRange));
        assert_eq!(
            send.pod(&mut node, 2, &tcp((Node::pod(2, v6), CLIENT), to, SYN)).0,
            dropped(DropReason::SourceRange)
        );
        let range = SourceRangeKey::prefix(5, Node::world(v6).into(), if v6 { 128 } else { 32 });
        node.host.services.source_ranges.insert(range);
        assert_eq!(asked(send, &mut node, TCP, to).0, Landed::Pod(1));
        assert_eq!(
            send.pod(&mut node, 2, &tcp((Node::pod(2, v6), CLIENT), to, SYN)).0,
            dropped(DropReason::SourceRange)
        );
    });
}

#[test]
fn policy_judges_the_client_and_not_the_node() {
    each(|v6, send| {
        let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
        node.policy_set(20, Some((6, 9999)));
        node.police(1, 20, crate::policy::ALLOW_ALL);
        let sent = tcp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT), SYN);
        assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::IngressPolicy));
        node.policy_set(21, Some((6, 8080)));
        node.police(1, 21, crate::policy::ALLOW_ALL);
        asked(send, &mut node, TCP, (Node::address(v6), NODE_PORT));
        // And again, when it changes.
        node.police(1, 20, crate::policy::ALLOW_ALL);
        let next = tcp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT), ACK);
        assert_eq!(send.arrives(&mut node, &next).0, dropped(DropReason::IngressPolicy));
    });
}

#[test]
fn s40_datagrams_leave_a_backend_that_is_gone_and_connections_stay() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let backends = [(Node::pod(1, v6), 8080), (Node::pod(2, v6), 8080)];
            let (mut node, ids) = node_port(v6, proto, &backends, 0);
            let to = (Node::address(v6), NODE_PORT);
            let (landed, _) = asked(send, &mut node, proto, to);
            let Landed::Pod(slot) = landed else { panic!("{landed:?}") };
            node.stop_serving(ids[usize::from(slot) - 1]);
            node.host.random = Some(if slot == 1 { u32::MAX } else { 0 });
            let client = (Node::world(v6), CLIENT);
            let next = if proto == TCP { tcp(client, to, ACK) } else { udp(client, to) };
            let expected = if proto == TCP { slot } else { 3 - slot };
            assert_eq!(send.arrives(&mut node, &next).0, Landed::Pod(expected));
        }
    });
}

#[test]
fn s44_the_middle_of_a_connection_is_nobodys_but_the_hosts() {
    each(|v6, send| {
        let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
        let to = (Node::address(v6), NODE_PORT);
        let sent = tcp((Node::world(v6), CLIENT), to, ACK);
        assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::NoFlow));
        // A process of the node has it: it was there before the port was a service's.
        node.host.sockets.insert((Node::address(v6).into(), WirePort::new(NODE_PORT), TCP));
        assert_eq!(send.arrives(&mut node, &sent).0, Landed::Host);
    });
}

#[test]
fn s46_errors_are_about_what_the_other_side_knows() {
    each(|v6, send| {
        let (mut node, _) = node_port(v6, UDP, &[(Node::pod(1, v6), 8080)], 0);
        let (client, to) = ((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT));
        let mut frame = send.frame(&udp(client, to));
        assert_eq!(node.arrives(&mut frame), Landed::Pod(1));
        frame.complete();
        // The pod's port is closed.
        let closed = if v6 { (1, 4, 0) } else { (3, 3, 0) };
        let (landed, told) = send.pod(&mut node, 1, &Message::error(Node::pod(1, v6), &frame, closed, 500));
        assert_eq!((landed, told.src, told.dst), (Landed::Out, to.0, client.0));
        assert_eq!(told.quoted().unwrap().ends(), (client, to));
    });
}

#[test]
fn who_is_on_this_node_does_not_come_in_from_outside() {
    each(|v6, send| {
        let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
        for source in [Node::pod(2, v6), Node::address(v6)] {
            let sent = tcp((source, CLIENT), (Node::address(v6), NODE_PORT), SYN);
            assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::LocalAddress));
        }
    });
}

#[test]
fn s28_pods_reach_a_node_port_of_their_own_node_and_themselves() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let (mut node, _) = node_port(v6, proto, &[(Node::pod(1, v6), 8080)], 0);
            let to = (Node::address(v6), NODE_PORT);
            let sent = first(proto, (Node::pod(0, v6), CLIENT), to);
            let got = send.pod(&mut node, 0, &sent);
            assert_eq!(got.1.ends().0, (Node::pod(0, v6), CLIENT));
            answered(send, &mut node, 0, &sent, &got, SYN_ACK);
            let own = first(proto, (Node::pod(1, v6), CLIENT), to);
            let got = send.pod(&mut node, 1, &own);
            assert_eq!((got.0, got.1.src), (Landed::Pod(1), Node::address(v6)));
            answered(send, &mut node, 1, &own, &got, SYN_ACK);
        }
    });
}

#[test]
fn s74_what_comes_in_where_no_node_is_meets_services_and_gets_to_pods_by_the_stack() {
    const ASIDE: u32 = 77;
    each(|v6, send| {
        let mut node = Node::new();
        node.host.uplinks.insert(ASIDE, Uplink::default());
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        let guest = (Node::world(v6), CLIENT);
        let comes = |node: &mut Node, to| {
            let mut frame = send.frame(&tcp(guest, to, SYN));
            frame.ingress = ASIDE;
            (node.host.run(Hook::FromUplink(ASIDE), &mut frame), frame)
        };
        assert_eq!(comes(&mut node, (Node::vip(v6), 80)).0, Fate::ToPod(1));
        // Straight to a pod it is judged at the pod, and so it goes on.
        let to = (Node::pod(2, v6), 80);
        let (fate, mut frame) = comes(&mut node, to);
        assert_eq!(fate, Fate::Pass);
        assert_eq!(node.host.run(Hook::ToPod(2), &mut frame), Fate::Pass);
        let mut frame = send.frame(&tcp(to, guest, SYN_ACK));
        frame.ingress = crate::ifindex_of(2);
        assert_eq!(node.host.run(Hook::FromPod(2), &mut frame), Fate::Stack);
        assert_eq!(comes(&mut node, to).0, Fate::Stack);
        // Who is a pod does not come in there: of this node by its own interface, of others by the uplink. Neither to a pod, be it
        // into a flow that is known, nor to a service.
        let known = udp((Node::far_pod(v6), 53), to);
        assert_eq!(send.arrives(&mut node, &known).0, Landed::Pod(2));
        let sent = tcp((Node::far_pod(v6), CLIENT), (Node::vip(v6), 80), SYN);
        let to_another = udp((Node::far_pod(v6), CLIENT), (Node::world(v6), 53));
        let own = tcp((Node::pod(1, v6), CLIENT), to, SYN);
        for message in [&own, &tcp((Node::far_pod(v6), CLIENT), to, SYN), &known, &sent, &to_another] {
            let mut frame = send.frame(message);
            frame.ingress = ASIDE;
            assert_eq!(node.host.run(Hook::FromUplink(ASIDE), &mut frame), Fate::Drop(DropReason::LocalAddress));
            // Nor by one that has the program, and of which the table does not tell yet.
            let mut frame = send.frame(message);
            frame.ingress = 79;
            assert_eq!(node.host.run(Hook::FromUplink(79), &mut frame), Fate::Drop(DropReason::LocalAddress));
        }
        // Nor by an interface that has no program, from which the stack brings it to the pod.
        for message in [&own, &tcp((Node::far_pod(v6), CLIENT), to, SYN), &known] {
            let by = |node: &mut Node, ingress| {
                let mut frame = send.frame(message);
                frame.ingress = ingress;
                node.host.run(Hook::ToPod(2), &mut frame)
            };
            assert_eq!(by(&mut node, 78), Fate::Drop(DropReason::LocalAddress));
            if message != &own {
                assert_eq!(by(&mut node, Node::UPLINK), Fate::Pass);
                assert_eq!(by(&mut node, overlay::IFINDEX), Fate::Pass);
            }
        }
        assert_eq!(send.arrives(&mut node, &sent).0, Landed::Pod(1));
    });
}

#[test]
fn s76_what_the_way_back_does_not_take_is_told() {
    each(|v6, send| {
        let (mut node, _) = node_port(v6, UDP, &[(Node::pod(1, v6), 8080)], 0);
        node.host.record_nothing("a kernel has no such route");
        let (_, got) = send.arrives(&mut node, &udp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT)));
        let headers = if v6 { 48 } else { 28 };
        for (takes, size, expected) in
            [(1400, 1401, Landed::Refused(DropReason::TooLarge)), (1400, 1400, Landed::Out), (9000, 3000, Landed::Out)]
        {
            node.host.onward = Some((7, takes));
            let mut back = answer(&got, 0);
            (back.payload, back.no_fragment) = (std::vec![0; size - headers], true);
            let mut frame = send.frame(&back);
            assert_eq!(node.pod_sends(1, &mut frame), expected, "{size} of {takes}");
            if expected != Landed::Out {
                frame.complete();
                let error = seen(&frame);
                assert_eq!(error.icmp, if v6 { (2, 0) } else { (3, 4) });
                assert_eq!(error.quoted().unwrap().ends(), seen(&back.frame()).ends(), "as the pod sent it");
                let mtu = if v6 { &frame.bytes[60..62] } else { &frame.bytes[40..42] };
                assert_eq!(mtu, 1400_u16.to_be_bytes());
            }
        }
    });
}

/// A SYN's segment size and what stands around it, as the far side gets it. Everything else has to be as it was.
#[track_caller]
fn clamped(frame: &Frame, v6: bool, sent: &[u8]) -> Vec<u8> {
    let at = 14 + if v6 { 40 } else { 20 } + 20;
    assert_eq!(frame.bytes.len(), at + sent.len() + b"fairlead".len());
    frame.bytes[at..at + sent.len()].to_vec()
}

#[test]
fn s77_the_segment_size_of_a_connection_fits_in_the_way_back() {
    each(|v6, send| {
        let most = |mtu: u32| ((mtu - if v6 { 60 } else { 40 }) as u16).to_be_bytes();
        let mss = |[a, b]: [u8; 2]| std::vec![2, 4, a, b];
        let (large, padded) = (mss([0x23, 0x8c]), |options: &[&[u8]]| options.concat());
        // Before the size, in an odd place too, and behind it.
        let around: [(&[u8], &[u8]); 4] = [
            (&[], &[]),
            (&[1, 4, 2], &[1]),
            (&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1], &[1, 3, 3, 7]),
            (&[1, 1], &[0, 0]),
        ];
        for (before, behind) in around {
            let options = padded(&[before, &large, behind]);
            // Through the tunnel to a node, where packets are smaller than on this client's link.
            let (mut node, _) = node_port(v6, TCP, &[(Node::far_pod(v6), 8080)], 0);
            node.tunnel();
            let takes = overlay::largest(&node.host.config, &node.host.peers.nodes[&0], v6);
            let asks = tcp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT), SYN);
            let asks = Message { tcp_options: options.clone(), ..asks };
            let mut frame = send.frame(&asks);
            assert_eq!(node.arrives(&mut frame), Landed::Node(0));
            let got = seen(&frame);
            assert_eq!(clamped(&frame, v6, &options), padded(&[before, &mss(most(takes)), behind]));
            // What the client sends goes through it too.
            let mut frame = send.frame(&Message { tcp_options: options.clone(), ..answer(&got, SYN_ACK) });
            assert_eq!(node.tunnelled(Node::other_node(false), &mut frame), Landed::Out);
            assert_eq!(clamped(&frame, v6, &options), padded(&[before, &mss(most(takes)), behind]));
            // What is said later is data.
            let next = Message { tcp_options: options.clone(), ..tcp((asks.src, CLIENT), (asks.dst, NODE_PORT), ACK) };
            let mut frame = send.frame(&next);
            assert_eq!(node.arrives(&mut frame), Landed::Node(0));
            assert_eq!(clamped(&frame, v6, &options), options);
        }
    });
}

#[test]
fn s77_a_segment_size_that_fits_or_is_not_said_stays() {
    each(|v6, send| {
        let small = [2, 4, 0, 100];
        let broken: [&[u8]; 6] =
            [&[], &small, &[2, 3, 0xff, 0xff], &[3, 0, 2, 4, 0xff, 0xff, 0, 0], &[0, 2, 4, 0xff], &[8, 200, 2, 4]];
        for options in broken {
            let (mut node, _) = node_port(v6, TCP, &[(Node::far_pod(v6), 8080)], 0);
            node.tunnel();
            let asks = tcp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT), SYN);
            let mut frame = send.frame(&Message { tcp_options: options.to_vec(), ..asks });
            assert_eq!(node.arrives(&mut frame), Landed::Node(0));
            seen(&frame);
            assert_eq!(clamped(&frame, v6, options), options);
        }
    });
}

#[test]
fn s77_the_segment_size_of_a_client_fits_in_the_interface_that_it_is_behind() {
    each(|v6, send| {
        let (mut node, _) = node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
        node.host.record_nothing("a kernel has no such route");
        let (_, got) = send.arrives(&mut node, &tcp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT), SYN));
        for (takes, mss) in [(1300, 1300 - if v6 { 60 } else { 40 }), (9000, 0x2200)] {
            node.host.onward = Some((7, takes));
            let options = std::vec![2, 4, 0x22, 0];
            let back = Message { tcp_options: options.clone(), ..answer(&got, SYN_ACK) };
            let mut frame = send.frame(&back);
            assert_eq!(node.pod_sends(1, &mut frame), Landed::Out);
            let [high, low] = u16::try_from(mss).unwrap().to_be_bytes();
            assert_eq!(clamped(&frame, v6, &options), [2, 4, high, low], "{takes}");
        }
    });
}

/// Routes may know of a smaller size on the way than the interface has.
#[test]
fn s77_the_segment_size_of_a_connection_fits_in_the_routes_to_both_ends() {
    each(|v6, send| {
        for backend in [ip(if v6 { "2001:db8:113::9" } else { "203.0.113.9" }), Node::far_pod(v6)] {
            let (mut node, _) = node_port(v6, TCP, &[(backend, 8080)], 0);
            node.host.record_nothing("a kernel has no such route");
            node.host.onward = Some((Node::UPLINK, 1300));
            let options = std::vec![2, 4, 0x22, 0];
            let [high, low] = (1300 - if v6 { 60_u16 } else { 40 }).to_be_bytes();
            let asks = tcp((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT), SYN);
            let mut frame = send.frame(&Message { tcp_options: options.clone(), ..asks });
            node.arrives(&mut frame);
            let got = seen(&frame);
            assert_eq!((got.dst, clamped(&frame, v6, &options)), (backend, std::vec![2, 4, high, low]));
            let mut frame = send.frame(&Message { tcp_options: options.clone(), ..answer(&got, SYN_ACK) });
            node.arrives(&mut frame);
            assert_eq!(
                (seen(&frame).dst, clamped(&frame, v6, &options)),
                (Node::world(v6), std::vec![2, 4, high, low])
            );
        }
    });
}
