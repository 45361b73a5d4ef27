//! Services, pod by pod.

use super::*;
use crate::WirePort;
use crate::packet::SCTP;
use crate::service::Scope;
use crate::testing::{Fate, Hook};

#[test]
fn s1_s37_a_service_is_one_of_its_backends_and_the_source_stays() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            let backends = [(Node::pod(1, v6), 8080), (Node::pod(2, v6), 8081), (Node::pod(3, v6), 8082)];
            node.service((Node::vip(v6), 80), proto, &backends);
            let mut hits = [0; 3];
            for n in 0..60 {
                let (from, to) = ((Node::pod(0, v6), CLIENT + n), (Node::vip(v6), 80));
                let sent = if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
                let (landed, got) = send.pod(&mut node, 0, &sent);
                assert_eq!(got.ends().0, from);
                let which = backends.iter().position(|backend| *backend == got.ends().1).unwrap();
                assert_eq!(landed, Landed::Pod(which as u16 + 1));
                hits[which] += 1;
                // The next packet goes where the first went.
                let again = send.pod(&mut node, 0, &sent);
                assert_eq!(again, (landed, got));
                answered(send, &mut node, 0, &sent, &again, SYN_ACK);
            }
            assert!(hits.iter().all(|hits| *hits > 5), "{hits:?}");
        }
    });
}

#[test]
fn s1_a_backend_on_another_node_is_reached_there_and_answers() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::far_pod(v6), 8080)]);
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), SYN);
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.ends()), (Landed::Node(0), ((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 8080))));
        let (landed, back) = send.arrives(&mut node, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ends()), (Landed::Pod(0), ((Node::vip(v6), 80), (Node::pod(0, v6), CLIENT))));
    });
}

#[test]
fn s2_sctp_reaches_a_backend_on_the_services_port() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), SCTP, &[(Node::pod(1, v6), 80)]);
        let sent = Message::new(Node::pod(0, v6), Node::vip(v6), L4::Sctp(CLIENT, 80));
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.ends()), (Landed::Pod(1), ((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80))));
        let back = Message::new(got.dst, got.src, L4::Sctp(80, CLIENT));
        let (landed, back) = send.pod(&mut node, 1, &back);
        assert_eq!((landed, back.ends()), (Landed::Pod(0), ((Node::vip(v6), 80), (Node::pod(0, v6), CLIENT))));
    });
}

#[test]
fn a_datagram_without_a_checksum_still_has_none() {
    let mut node = Node::new();
    node.service((Node::vip(false), 53), UDP, &[(Node::pod(1, false), 5353)]);
    let sent = Message::new(Node::pod(0, false), Node::vip(false), L4::UdpUnchecked(CLIENT, 53));
    let mut frame = sent.frame();
    assert_eq!(node.pod_sends(0, &mut frame), Landed::Pod(1));
    assert_eq!((seen(&frame).dport, &frame.bytes[40..42]), (5353, &[0, 0][..]));
}

#[test]
fn s33_no_endpoints_refuses() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            node.frontend((Node::vip(v6), 80), proto, 1, Scope::REJECT);
            let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            let mut frame = send.frame(&if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) });
            assert_eq!(node.pod_sends(0, &mut frame), Landed::Refused(DropReason::Rejected));
            // What the kernel had still to compute may be computed now, in the reset or inside of the quote, or never.
            let unfinished = frame.clone();
            frame.complete();
            let told = seen(&frame);
            if proto == TCP {
                for told in [&told, &seen(&unfinished)] {
                    assert_eq!((told.ends(), told.flags), ((to, from), TcpFlags::RST | TcpFlags::ACK));
                }
                let sent = send.frame(&tcp(from, to, SYN));
                let l4 = if v6 { 54 } else { 34 };
                let number = |frame: &Frame, at| u32::from_be_bytes(frame.bytes[l4 + at..][..4].try_into().unwrap());
                let carried = (sent.bytes.len() - l4 - 20) as u32;
                assert_eq!(number(&frame, 8), number(&sent, 4) + 1 + carried, "it acknowledges the SYN and its data");
                assert_eq!(frame.bytes.len(), l4 + 20);
            } else {
                assert_eq!((told.src, told.dst), (Node::address(v6), Node::pod(0, v6)));
                assert_eq!(told.icmp, if v6 { (1, 4) } else { (3, 3) });
                assert_eq!(told.quoted().unwrap().ends(), (from, to));
            }
            assert_eq!(frame.bytes[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], "MACs are turned round");
            assert!(node.host.flows.is_empty());
        }
    });
}

#[test]
fn s33_a_segment_without_a_connection_is_reset_where_it_stands() {
    each(|v6, send| {
        let mut node = Node::new();
        node.frontend((Node::vip(v6), 80), TCP, 1, Scope::REJECT);
        let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
        let sent = send.frame(&tcp(from, to, TcpFlags::ACK));
        let mut frame = sent.clone();
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Refused(DropReason::Rejected));
        frame.complete();
        assert_eq!((seen(&frame).ends(), seen(&frame).flags), ((to, from), TcpFlags::RST));
        let l4 = if v6 { 54 } else { 34 };
        assert_eq!(frame.bytes[l4 + 4..l4 + 8], sent.bytes[l4 + 8..l4 + 12], "its number is the one acknowledged");
        // A reset is not answered.
        let mut reset = send.frame(&tcp(from, to, TcpFlags::RST));
        assert_eq!(node.pod_sends(0, &mut reset), dropped(DropReason::Rejected));
    });
}

#[test]
fn s34_no_local_endpoints_drops() {
    each(|v6, send| {
        let mut node = Node::new();
        node.frontend((Node::vip(v6), 80), TCP, 1, Scope::DROP);
        let (landed, _) = send.pod(&mut node, 0, &tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), SYN));
        assert_eq!(landed, dropped(DropReason::NoEndpoint));
    });
}

#[test]
fn s36_a_pod_reaches_itself_through_its_service() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            node.service((Node::vip(v6), 80), proto, &[(Node::pod(0, v6), 8080)]);
            let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            let sent = if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
            let (landed, got) = send.pod(&mut node, 0, &sent);
            assert_eq!((landed, got.dst, got.dport), (Landed::Pod(0), Node::pod(0, v6), 8080));
            assert_eq!(got.src, Node::address(v6));
            assert!(node.host.config.is_snat_port(WirePort::new(got.sport)));
            answered(send, &mut node, 0, &sent, &(landed, got), SYN_ACK);
        }
    });
}

#[test]
fn s36_a_translated_source_avoids_the_sockets_of_the_node() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.config.snat_count = 2;
        let taken = Config::SNAT_FIRST;
        for port in [taken, CLIENT, CLIENT + 1] {
            node.host.sockets.insert((Node::address(v6).into(), WirePort::new(port), UDP));
        }
        node.service((Node::vip(v6), 80), UDP, &[(Node::pod(0, v6), 8080)]);
        let (landed, got) = send.pod(&mut node, 0, &udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80)));
        assert_eq!((landed, got.sport), (Landed::Pod(0), taken + 1));
        // That was the only one: whoever comes next gets none, and is told apart from a full table.
        let (landed, _) = send.pod(&mut node, 0, &udp((Node::pod(0, v6), CLIENT + 1), (Node::vip(v6), 80)));
        assert_eq!(landed, dropped(DropReason::NoSourcePort));
    });
}

#[test]
fn s40_a_udp_flow_leaves_a_backend_that_serves_no_more() {
    each(|v6, send| {
        let mut node = Node::new();
        let ids = node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 5353), (Node::pod(2, v6), 5353)]);
        node.host.random = Some(0);
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Pod(1));
        node.stop_serving(ids[0]);
        node.host.random = Some(u32::MAX);
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.dst), (Landed::Pod(2), Node::pod(2, v6)));
        answered(send, &mut node, 0, &sent, &(landed, got), 0);
        assert_eq!(node.host.flows.len(), 2, "what the old backend had is gone");
    });
}

#[test]
fn s40_an_association_that_is_opened_leaves_a_backend_that_serves_no_more_and_an_open_one_stays() {
    each(|v6, send| {
        for (kind, expected) in [(L4::SctpInit(CLIENT, 80), 2), (L4::Sctp(CLIENT, 80), 1)] {
            let mut node = Node::new();
            let ids = node.service((Node::vip(v6), 80), SCTP, &[(Node::pod(1, v6), 80), (Node::pod(2, v6), 80)]);
            node.host.random = Some(0);
            let chunk = |kind| Message::new(Node::pod(0, v6), Node::vip(v6), kind);
            assert_eq!(send.pod(&mut node, 0, &chunk(L4::SctpInit(CLIENT, 80))).0, Landed::Pod(1));
            node.stop_serving(ids[0]);
            node.host.random = Some(u32::MAX);
            assert_eq!(send.pod(&mut node, 0, &chunk(kind)).0, Landed::Pod(expected));
        }
    });
}

#[test]
fn s40_only_a_udp_flow_that_lasts_stays_with_a_backend_that_is_about_to_end() {
    each(|v6, send| {
        for lasts in [false, true] {
            let mut node = Node::new();
            let ids = node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 5353), (Node::pod(2, v6), 5353)]);
            node.host.random = Some(0);
            let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
            let got = send.pod(&mut node, 0, &sent);
            assert_eq!(got.0, Landed::Pod(1));
            answered(send, &mut node, 0, &sent, &got, 0);
            if lasts {
                node.host.now += 3;
                assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Pod(1));
            }
            node.end(ids[0]);
            node.host.random = Some(u32::MAX);
            let got = send.pod(&mut node, 0, &sent);
            assert_eq!(got.0, Landed::Pod(if lasts { 1 } else { 2 }));
            answered(send, &mut node, 0, &sent, &got, 0);
        }
    });
}

#[test]
fn s41_a_udp_flow_older_than_its_service_meets_it() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Outside);
        node.service((Node::other_vip(v6), 53), UDP, &[(Node::pod(2, v6), 5353)]);
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Outside, "another service changes nothing");
        node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 5353)]);
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.ends()), (Landed::Pod(1), ((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 5353))));
        answered(send, &mut node, 0, &sent, &(landed, got), 0);
    });
}

/// Opens a connection of pod 0 to a service whose backend is pod 1.
fn connected(send: Send, v6: bool) -> (Node, Vec<u32>) {
    let mut node = Node::new();
    let ids = node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
    let sent = |flags| tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), flags);
    let got = send.pod(&mut node, 0, &sent(SYN));
    answered(send, &mut node, 0, &sent(SYN), &got, SYN_ACK);
    assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, Landed::Pod(1));
    (node, ids)
}

#[test]
fn s42_s43_a_connection_stays_with_its_backend_to_the_end() {
    each(|v6, send| {
        let (mut node, ids) = connected(send, v6);
        node.stop_serving(ids[0]);
        node.host.services.frontends.clear();
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), ACK);
        let got = send.pod(&mut node, 0, &sent);
        assert_eq!(got.1.dst, Node::pod(1, v6));
        answered(send, &mut node, 0, &sent, &got, ACK);
    });
}

#[test]
fn s44_a_packet_of_no_connection_to_a_service_goes_nowhere() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        for flags in [ACK, FIN, RST, SYN_ACK] {
            let (landed, _) = send.pod(&mut node, 0, &tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), flags));
            assert_eq!(landed, dropped(DropReason::NoFlow));
        }
        assert!(node.host.flows.is_empty());
    });
}

#[test]
fn s45_a_backend_in_the_nodes_own_network_answers_as_the_service() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 443), TCP, &[(Node::address(v6), 6443)]);
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 443), SYN);
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.ends()), (Landed::Host, ((Node::pod(0, v6), CLIENT), (Node::address(v6), 6443))));
        let (landed, back) = send.node(&mut node, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ends()), (Landed::Pod(0), ((Node::vip(v6), 443), (Node::pod(0, v6), CLIENT))));
    });
}

#[test]
fn s47_fragments_of_a_datagram_go_where_the_first_goes() {
    for v6 in [false, true] {
        let mut node = Node::new();
        node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 5353)]);
        let mut message = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
        message.payload = (0..3000_u16).map(|n| n as u8).collect();
        let mut whole = Vec::new();
        for mut piece in message.fragments(1400, 77) {
            assert_eq!(node.pod_sends(0, &mut piece), Landed::Pod(1));
            let seen = seen(&piece);
            assert_eq!((seen.src, seen.dst), (Node::pod(0, v6), Node::pod(1, v6)));
            whole.extend_from_slice(&piece.bytes[if v6 { 62 } else { 34 }..]);
        }
        // Put together again it is what the message would have been to the backend, checksum and all.
        let mut expected = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 5353));
        expected.payload.clone_from(&message.payload);
        assert_eq!(whole, expected.frame().bytes[if v6 { 54 } else { 34 }..]);
    }
}

#[test]
fn s47_a_fragment_that_overtook_the_first_is_dropped() {
    for v6 in [false, true] {
        let mut node = Node::new();
        let mut message = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
        message.payload = std::vec![0; 3000];
        let mut pieces = message.fragments(1400, 78);
        assert_eq!(node.pod_sends(0, &mut pieces[1].clone()), dropped(DropReason::Fragment));
        assert_eq!(node.pod_sends(0, &mut pieces[0]), Landed::Pod(1));
        assert_eq!(node.pod_sends(0, &mut pieces[1].clone()), Landed::Pod(1));
        node.host.now += 31;
        assert_eq!(node.pod_sends(0, &mut pieces[1]), dropped(DropReason::Fragment));
    }
}

#[test]
fn s48_one_backend_through_two_services_with_one_client_port() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            let backend = (Node::pod(1, v6), 8080);
            node.service((Node::vip(v6), 80), proto, &[backend]);
            node.service((Node::other_vip(v6), 80), proto, &[backend]);
            let from = (Node::pod(0, v6), CLIENT);
            let open = |to| if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
            let (one, other) = (open((Node::vip(v6), 80)), open((Node::other_vip(v6), 80)));
            let first = send.pod(&mut node, 0, &one);
            assert_eq!(first.1.ends(), (from, backend));
            let second = send.pod(&mut node, 0, &other);
            assert_eq!(second.1.ends().1, backend);
            assert_eq!(second.1.src, from.0);
            assert!(node.host.config.is_snat_port(WirePort::new(second.1.sport)));
            // The third, straight to the backend.
            let straight = open(backend);
            let third = send.pod(&mut node, 0, &straight);
            assert_eq!(third.1.ends().1, backend);
            assert_ne!(third.1.sport, second.1.sport);
            assert_ne!(third.1.sport, CLIENT);
            answered(send, &mut node, 0, &one, &first, SYN_ACK);
            answered(send, &mut node, 0, &other, &second, SYN_ACK);
            answered(send, &mut node, 0, &straight, &third, SYN_ACK);
        }
    });
}

#[test]
fn s48_a_direct_flow_keeps_its_port_when_the_one_to_the_service_is_over() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            let backend = (Node::pod(1, v6), 8080);
            let vip = (Node::vip(v6), 80);
            node.service(vip, proto, &[backend]);
            let from = (Node::pod(0, v6), CLIENT);
            let send_to = |to, flags| if proto == TCP { tcp(from, to, flags) } else { udp(from, to) };
            let (service, straight) = (send_to(vip, SYN), send_to(backend, SYN));
            let first = send.pod(&mut node, 0, &service);
            answered(send, &mut node, 0, &service, &first, SYN_ACK);
            let second = send.pod(&mut node, 0, &straight);
            assert_ne!(second.1.sport, CLIENT);
            answered(send, &mut node, 0, &straight, &second, SYN_ACK);
            for _ in 0..2 {
                send.pod(&mut node, 0, &send_to(vip, ACK));
                send.pod(&mut node, 0, &send_to(backend, ACK));
            }
            if proto == TCP {
                assert_eq!(send.pod(&mut node, 0, &send_to(vip, FIN | ACK)).0, Landed::Pod(1));
                answered(send, &mut node, 0, &service, &first, FIN | ACK);
                send.pod(&mut node, 0, &send_to(vip, ACK));
            }
            // The one to the service is silent and goes, the other one is not.
            for _ in 0..8 {
                node.host.now += 20;
                let next = send.pod(&mut node, 0, &send_to(backend, ACK));
                assert_eq!(next.1.ends(), second.1.ends());
                answered(send, &mut node, 0, &straight, &second, ACK);
            }
            // And another to the service finds its way beside it.
            let again = send.pod(&mut node, 0, &service);
            assert_eq!((again.0, again.1.ends().1), (Landed::Pod(1), backend));
            answered(send, &mut node, 0, &service, &again, SYN_ACK);
            assert_eq!(send.pod(&mut node, 0, &send_to(backend, ACK)).1.ends(), second.1.ends());
        }
    });
}

#[test]
fn s48_a_direct_flow_goes_before_a_service_that_comes_later() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let mut node = Node::new();
            let backend = (Node::pod(1, v6), 8080);
            node.service((Node::vip(v6), 80), proto, &[backend]);
            let from = (Node::pod(0, v6), CLIENT);
            let open = |to| if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
            let (straight, service) = (open(backend), open((Node::vip(v6), 80)));
            let first = send.pod(&mut node, 0, &straight);
            assert_eq!(first.1.ends(), (from, backend));
            let second = send.pod(&mut node, 0, &service);
            assert_eq!((second.1.src, second.1.ends().1), (from.0, backend));
            assert_ne!(second.1.sport, CLIENT);
            answered(send, &mut node, 0, &straight, &first, SYN_ACK);
            answered(send, &mut node, 0, &service, &second, SYN_ACK);
        }
    });
}

#[test]
fn s49_a_source_port_is_taken_once_for_a_destination() {
    let mut node = Node::new();
    node.host.config.snat_count = 400;
    node.service((Node::vip(false), 80), UDP, &[(Node::pod(0, false), 8080)]);
    let mut taken = std::collections::HashSet::new();
    for n in 0..200 {
        let mut frame = udp((Node::pod(0, false), CLIENT + n), (Node::vip(false), 80)).frame();
        assert_eq!(node.host.run(Hook::FromPod(0), &mut frame), Fate::ToPod(0));
        assert!(taken.insert(seen(&frame).sport));
    }
}

#[test]
fn an_error_is_about_the_packet_as_the_client_sent_it() {
    each(|v6, send| {
        for (backend, size, ttl, reason) in [
            (Node::pod(1, v6), 8, 1, DropReason::TtlExceeded),
            (Node::far_pod(v6), 8, 1, DropReason::TtlExceeded),
            (Node::world(v6), 8, 1, DropReason::TtlExceeded),
            // To itself, and so with another source.
            (Node::pod(0, v6), 8, 1, DropReason::TtlExceeded),
            (Node::pod(1, v6), 3000, 64, DropReason::TooLarge),
            (Node::far_pod(v6), 3000, 64, DropReason::TooLarge),
            (Node::world(v6), 3000, 64, DropReason::TooLarge),
        ] {
            let mut node = Node::new();
            node.service((Node::vip(v6), 80), UDP, &[(backend, 8080)]);
            let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            let message = Message { ttl, no_fragment: true, payload: std::vec![0; size], ..udp(from, to) };
            let (landed, told) = send.pod(&mut node, 0, &message);
            assert_eq!(landed, Landed::Refused(reason), "{backend}");
            assert_eq!((told.src, told.dst), (Node::address(v6), from.0), "{backend}");
            assert_eq!(told.quoted().unwrap().ends(), (from, to), "{backend}");
        }
    });
}

#[test]
fn what_may_be_cut_is_no_martian() {
    for backend in [Node::pod(0, false), Node::world(false)] {
        let mut node = Node::new();
        node.service((Node::vip(false), 80), UDP, &[(backend, 8080)]);
        let (from, to) = ((Node::pod(0, false), CLIENT), (Node::vip(false), 80));
        let mut frame = Message { payload: std::vec![0; 3000], ..udp(from, to) }.frame();
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Refused(DropReason::TooLarge));
    }
}
