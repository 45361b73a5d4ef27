//! S80: what the node itself sends to services where no socket hook has seen the socket.

use super::*;
use crate::flow::{MAX_FLOW_ENTRIES, PodFlows, Table, Tables as _};
use crate::service::{FrontendFlags, Scope};
use crate::testing::{Fate, Hook};

/// A node that has a route to everywhere.
fn node() -> Node {
    let mut node = Node::new();
    node.host.onward = Some((Node::UPLINK, Node::MTU));
    node
}

/// The first packet of a process of the node, and a later one.
fn sent(proto: u8, v6: bool, flags: u8) -> Message {
    let (from, to) = ((Node::address(v6), CLIENT), (Node::vip(v6), 80));
    if proto == TCP { tcp(from, to, flags) } else { udp(from, to) }
}

/// Has the node ask a service with one backend, twice, and the answers come back; returns as whom the backend got it.
#[track_caller]
fn asked(send: Send, node: &mut Node, proto: u8, v6: bool) -> (Landed, Seen) {
    let (from, to) = seen(&sent(proto, v6, SYN).frame()).ends();
    let mut first = None;
    for (flags, reply) in [(SYN, SYN_ACK), (ACK, ACK)] {
        let (landed, got) = send.asks(node, &sent(proto, v6, flags));
        let reply = answer(&got, reply);
        let (home, back) = match landed {
            Landed::Pod(slot) => send.pod(node, slot, &reply),
            Landed::Outside => send.arrives(node, &reply),
            Landed::Node(_) => {
                let mut frame = send.frame(&reply);
                (node.tunnelled(Node::other_node(v6), &mut frame), seen(&frame))
            }
            Landed::Host => send.asks(node, &reply),
            other => panic!("{other:?}"),
        };
        assert_eq!((home, back.ends()), (Landed::Host, (to, from)));
        let ends = (landed, got.ends());
        assert_eq!(*first.get_or_insert(ends), ends, "it goes on as it began");
        if flags == ACK {
            return (landed, got);
        }
    }
    unreachable!("the second is returned");
}

#[test]
fn s80_backends_here_elsewhere_behind_the_tunnel_and_outside_see_the_node_and_answer_it_as_the_service() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            for (backend, tunnel, expected) in [
                (Node::pod(1, v6), false, Landed::Pod(1)),
                (Node::far_pod(v6), false, Landed::Outside),
                (Node::far_pod(v6), true, Landed::Node(0)),
                (Node::other_node(v6), false, Landed::Outside),
                (Node::world(v6), false, Landed::Outside),
            ] {
                let mut node = node();
                if tunnel {
                    node.tunnel();
                }
                node.service((Node::vip(v6), 80), proto, &[(backend, 8080)]);
                let (landed, got) = asked(send, &mut node, proto, v6);
                assert_eq!((landed, got.ends()), (expected, ((Node::address(v6), CLIENT), (backend, 8080))));
                assert_eq!(got.ttl, 63);
                assert_eq!(node.host.flows.counts(), node.host.flows.recounted(node.host.config.seed));
            }
        }
    });
}

#[test]
fn s80_whatever_address_of_the_node_it_is_sent_from_the_backend_answers_the_nodes_own() {
    each(|v6, send| {
        let mut node = node();
        node.service((Node::vip(v6), 80), TCP, &[(Node::far_pod(v6), 8080)]);
        // Of a device that other nodes know nothing of.
        let own = if v6 { "fd00::1" } else { "172.17.0.1" }.parse().unwrap();
        let from = (own, CLIENT);
        let (landed, got) = send.asks(&mut node, &tcp(from, (Node::vip(v6), 80), SYN));
        assert_eq!((landed, got.src), (Landed::Outside, Node::address(v6)));
        let (landed, back) = send.arrives(&mut node, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ends()), (Landed::Host, ((Node::vip(v6), 80), from)));
    });
}

#[test]
fn s80_a_process_of_this_node_sees_the_service_as_its_client() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            // By the address that the Node object names, and by another.
            let other = if v6 { "fd00::1" } else { "172.17.0.1" }.parse().unwrap();
            for own in [Node::address(v6), other] {
                let mut node = node();
                node.host.services.node_addresses.insert(other.into(), FrontendFlags::HOST_PORT);
                node.service((Node::vip(v6), 80), proto, &[(own, 8080)]);
                let (landed, got) = asked(send, &mut node, proto, v6);
                assert_eq!((landed, got.ends()), (Landed::Host, ((Node::vip(v6), CLIENT), (own, 8080))));
            }
        }
    });
}

#[test]
fn s80_policy_lets_the_node_reach_its_pods_and_a_pod_that_is_being_added_gets_nothing() {
    each(|v6, send| {
        let mut node = node();
        node.policy_set(40, Some((TCP, 1)));
        node.police(1, 40, 40);
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        assert_eq!(asked(send, &mut node, TCP, v6).0, Landed::Pod(1));
        node.host.peers.pods.get_mut(&1).unwrap().word = 0;
        let again = tcp((Node::address(v6), CLIENT + 1), (Node::vip(v6), 80), SYN);
        assert_eq!(send.asks(&mut node, &again).0, dropped(DropReason::Pending));
    });
}

#[test]
fn s80_what_nobody_serves_is_refused_by_the_service_and_not_by_the_nodes_own_address() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let (mut without, mut other, mut local) = (node(), node(), node());
            without.frontend((Node::vip(v6), 80), proto, 1, Scope::REJECT);
            other.service((Node::vip(v6), 81), proto, &[(Node::pod(1, v6), 8080)]);
            local.frontend((Node::vip(v6), 80), proto, 1, Scope::DROP);
            for node in [&mut without, &mut other] {
                let (landed, told) = send.asks(node, &sent(proto, v6, SYN));
                assert_eq!(landed, Landed::Refused(DropReason::Rejected));
                assert_eq!((told.src, told.dst), (Node::vip(v6), Node::address(v6)));
            }
            assert_eq!(send.asks(&mut local, &sent(proto, v6, SYN)).0, dropped(DropReason::NoEndpoint));
        }
        // Nobody answers an echo, and what the middle of a connection was is not known.
        let mut node = node();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        let echo = Message::new(Node::address(v6), Node::vip(v6), L4::Ask(5));
        assert_eq!(send.asks(&mut node, &echo).0, Landed::Refused(DropReason::Rejected));
        assert_eq!(send.asks(&mut node, &sent(TCP, v6, ACK)).0, dropped(DropReason::NoFlow));
    });
}

#[test]
fn s80_what_others_send_there_was_for_no_service_where_it_came_in() {
    each(|v6, send| {
        let mut node = node();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        let mut frame = send.frame(&tcp((Node::world(v6), CLIENT), (Node::vip(v6), 80), SYN));
        frame.ingress = 7;
        node.host.onward = Some((7, 1500));
        node.host.record_nothing("the kernel's routes lead nowhere else");
        assert_eq!(node.host.run(Hook::ToServices, &mut frame), Fate::Refused(DropReason::Rejected));
        assert_eq!(node.host.flows.keys(Table::Any).len(), 0);
    });
}

#[test]
fn s80_datagrams_leave_a_backend_that_no_longer_serves_and_connections_stay() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = node();
            let ids = node.service((Node::vip(v6), 80), proto, &[(Node::pod(1, v6), 8080)]);
            asked(send, &mut node, proto, v6);
            node.service((Node::vip(v6), 80), proto, &[(Node::pod(2, v6), 8080)]);
            node.stop_serving(ids[0]);
            let expected = if proto == UDP { Landed::Pod(2) } else { Landed::Pod(1) };
            assert_eq!(send.asks(&mut node, &sent(proto, v6, ACK)).0, expected);
        }
    });
}

#[test]
fn s80_errors_find_the_socket() {
    each(|v6, send| {
        let unreachable = if v6 { (1, 4, 0) } else { (3, 3, 0) };
        let router = Node::world(v6);
        for (backend, from, as_seen) in [
            (Node::pod(1, v6), Node::pod(1, v6), Node::vip(v6)),
            (Node::far_pod(v6), Node::far_pod(v6), Node::vip(v6)),
            (Node::far_pod(v6), router, router),
            (Node::address(v6), Node::address(v6), Node::vip(v6)),
        ] {
            let mut node = node();
            node.service((Node::vip(v6), 80), UDP, &[(backend, 8080)]);
            let mut frame = send.frame(&sent(UDP, v6, 0));
            let landed = node.asks(&mut frame);
            frame.complete();
            let mut error = Message::error(from, &frame, unreachable, 500).frame();
            let told = match landed {
                Landed::Pod(slot) => node.pod_sends(slot, &mut error),
                Landed::Outside => node.arrives(&mut error),
                Landed::Host => node.asks(&mut error),
                other => panic!("{other:?}"),
            };
            let error = seen(&error);
            assert_eq!((told, error.src, error.dst), (Landed::Host, as_seen, Node::address(v6)), "from {from}");
            assert_eq!(error.quoted().unwrap().ends(), seen(&sent(UDP, v6, 0).frame()).ends());
        }
    });
}

#[test]
fn s80_an_error_about_an_answer_goes_to_who_gave_it() {
    each(|v6, send| {
        let unreachable = if v6 { (1, 4, 0) } else { (3, 3, 0) };
        for (backend, lands) in [
            (Node::pod(1, v6), Landed::Pod(1)),
            (Node::far_pod(v6), Landed::Outside),
            (Node::address(v6), Landed::Host),
        ] {
            let mut node = node();
            node.service((Node::vip(v6), 80), UDP, &[(backend, 8080)]);
            let (landed, got) = asked(send, &mut node, UDP, v6);
            let reply = answer(&got, 0);
            let home = match landed {
                Landed::Pod(slot) => send.pod(&mut node, slot, &reply),
                Landed::Outside => send.arrives(&mut node, &reply),
                Landed::Host => {
                    let mut frame = send.frame(&reply);
                    (node.asks(&mut frame), seen(&frame))
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(home.0, Landed::Host);
            // The socket is gone by then.
            let mut frame = udp(home.1.ends().0, home.1.ends().1).frame();
            frame.complete();
            let mut error = Message::error(Node::address(v6), &frame, unreachable, 500).frame();
            assert_eq!(node.asks(&mut error), lands, "{backend}");
            let error = seen(&error);
            assert_eq!((error.dst, error.quoted().unwrap().ends().0), (backend, (backend, 8080)));
        }
    });
}

#[test]
fn s80_a_connection_of_the_node_that_meets_such_a_flow_is_translated_itself() {
    each(|v6, send| {
        for (backend, tunnel, expected) in [
            (Node::far_pod(v6), false, Landed::Outside),
            (Node::far_pod(v6), true, Landed::Node(0)),
            (Node::pod(1, v6), false, Landed::Pod(1)),
        ] {
            let mut node = node();
            if tunnel {
                node.tunnel();
            }
            node.service((Node::vip(v6), 80), TCP, &[(backend, 8080)]);
            let (_, got) = asked(send, &mut node, TCP, v6);
            let direct = |flags| tcp((Node::address(v6), CLIENT), (backend, 8080), flags);
            let (landed, other) = send.node(&mut node, &direct(SYN));
            assert_eq!(landed, expected);
            assert_ne!(other.sport, got.sport);
            let reply = answer(&other, SYN_ACK);
            let (home, back) = match landed {
                Landed::Pod(slot) => send.pod(&mut node, slot, &reply),
                Landed::Outside => send.arrives(&mut node, &reply),
                _ => {
                    let mut frame = send.frame(&reply);
                    (node.tunnelled(Node::other_node(v6), &mut frame), seen(&frame))
                }
            };
            assert_eq!((home, back.ends()), (Landed::Host, ((backend, 8080), (Node::address(v6), CLIENT))));
            // Both go on.
            assert_eq!(send.node(&mut node, &direct(ACK)).1.sport, other.sport);
            assert_eq!(asked(send, &mut node, TCP, v6).1.sport, got.sport);
        }
    });
}

#[test]
fn s80_what_is_larger_than_the_way_takes_is_told_by_the_service() {
    for v6 in [false, true] {
        let mut node = node();
        node.service((Node::vip(v6), 80), UDP, &[(Node::far_pod(v6), 8080)]);
        node.host.record_nothing("a kernel has no such route");
        node.host.onward = Some((Node::UPLINK, 1300));
        // Nobody would cut it behind that device, so its sender has to, whether or not it forbids others to.
        for no_fragment in [true, false] {
            let mut message = sent(UDP, v6, 0);
            (message.no_fragment, message.payload) = (no_fragment, std::vec![7; 1350]);
            let mut frame = message.frame();
            assert_eq!(node.asks(&mut frame), Landed::Refused(DropReason::TooLarge));
            let told = seen(&frame);
            assert_eq!((told.src, told.dst), (Node::vip(v6), Node::address(v6)));
            assert_eq!(told.quoted().unwrap().ends(), seen(&sent(UDP, v6, 0).frame()).ends());
        }
    }
}

#[test]
fn s80_a_backend_that_the_node_has_no_route_to_is_refused_by_the_service() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = node();
            node.host.onward = None;
            node.service((Node::vip(v6), 80), proto, &[(Node::world(v6), 8080)]);
            let (landed, told) = send.asks(&mut node, &sent(proto, v6, SYN));
            assert_eq!(landed, Landed::Refused(DropReason::NoSuchPod));
            assert_eq!((told.src, told.dst), (Node::vip(v6), Node::address(v6)));
        }
    });
}

/// The stack makes new packets of IPv6 fragments, which say no more where they came in.
#[test]
fn s85_fragments_that_the_stack_made_of_what_others_sent_are_not_the_nodes() {
    let mut node = node();
    node.service((Node::vip(true), 80), UDP, &[(Node::far_pod(true), 8080)]);
    let pieces = |from| {
        let mut message = udp((from, CLIENT), (Node::vip(true), 80));
        message.payload = std::vec![7; 3000];
        message.fragments(1400, 9)
    };
    for from in [Node::world(true), Node::other_node(true), Node::pod(1, true)] {
        for mut piece in pieces(from) {
            assert_eq!(node.asks(&mut piece), dropped(DropReason::Rejected), "{from}");
        }
    }
    assert_eq!(node.host.flows.keys(Table::Any).len(), 0);
    // The node has more addresses than the one that others know.
    let other: IpAddr = "fd00::1".parse().unwrap();
    node.host.services.node_addresses.insert(other.into(), FrontendFlags::HOST_PORT);
    for mut piece in pieces(other) {
        assert_eq!(node.asks(&mut piece), Landed::Outside);
    }
    // Who names one of these where nobody looks has no socket here.
    for from in [other, Node::address(true)] {
        for mut piece in pieces(from) {
            piece.is_remade = true;
            assert_eq!(node.asks(&mut piece), dropped(DropReason::Rejected), "{from}");
        }
    }
}

#[test]
fn s85_flows_of_the_device_leave_others_their_share() {
    let mut node = node();
    node.host.record_nothing("it fills a table");
    node.service((Node::vip(false), 80), UDP, &[(Node::far_pod(false), 8080)]);
    for who in [PodFlows::NOBODY, PodFlows::EVERYBODY] {
        node.host.flows.pod_flows(who).unwrap().incoming.store(u64::from(MAX_FLOW_ENTRIES) / 4);
    }
    assert_eq!(node.asks(&mut sent(UDP, false, 0).frame()), dropped(DropReason::FlowShare));
    // What the node itself asks a pod for is as free as ever.
    assert_eq!(node.sends(&mut udp((Node::address(false), CLIENT), (Node::pod(1, false), 53)).frame()), Landed::Pod(1));
}

#[test]
fn s80_fragments_reach_a_pod_that_policy_closes_as_whole_packets_do() {
    for v6 in [false, true] {
        let mut node = node();
        node.policy_set(40, Some((TCP, 1)));
        node.police(1, 40, 40);
        node.service((Node::vip(v6), 80), UDP, &[(Node::pod(1, v6), 8080)]);
        let pieces = |from, to| {
            let mut message = udp(from, to);
            message.payload = std::vec![7; 3000];
            message.fragments(1400, 9)
        };
        for mut piece in pieces((Node::address(v6), CLIENT), (Node::vip(v6), 80)) {
            assert_eq!(node.asks(&mut piece), Landed::Pod(1));
        }
        // Others stay out, whatever they know of it: by the uplink, and as what the stack has made of what it forwards.
        for from in [Node::address(v6), Node::world(v6), Node::pod(0, v6)] {
            for mut piece in pieces((from, CLIENT), (Node::pod(1, v6), 8080)) {
                let landed = node.arrives(&mut piece);
                assert!(matches!(landed, Landed::Dropped(_) | Landed::Martian), "{from}: {landed:?}");
            }
        }
        if v6 {
            for mut piece in pieces((Node::address(v6), CLIENT), (Node::pod(1, v6), 8080)) {
                assert_eq!(node.sends(&mut piece), dropped(DropReason::IngressPolicy));
            }
        }
    }
}

#[test]
fn s80_fragments_follow_their_first() {
    for v6 in [false, true] {
        let mut node = node();
        node.service((Node::vip(v6), 80), UDP, &[(Node::far_pod(v6), 8080)]);
        let mut message = sent(UDP, v6, 0);
        message.payload = std::vec![7; 3000];
        for mut piece in message.fragments(1400, 9) {
            assert_eq!(node.asks(&mut piece), Landed::Outside);
            let seen = seen(&piece);
            assert_eq!((seen.src, seen.dst), (Node::address(v6), Node::far_pod(v6)));
        }
        let mut back = udp((Node::far_pod(v6), 8080), (Node::address(v6), CLIENT));
        back.payload = std::vec![8; 3000];
        for mut piece in back.fragments(1400, 10) {
            assert_eq!(node.arrives(&mut piece), Landed::Host);
            assert_eq!(seen(&piece).src, Node::vip(v6));
        }
    }
}
