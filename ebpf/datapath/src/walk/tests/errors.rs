//! S46: ICMP errors find the sender of what they quote, and quote what it sent.

use super::*;
use crate::packet::csum::fold16;
use crate::packet::{ICMP, ICMPV6};

/// Bytes of a packet that a program finds in one piece at least.
const HEADERS: usize = 134;

/// "Port unreachable", and "too big" with an MTU.
fn kinds(v6: bool) -> [(u8, u8, u32); 2] {
    if v6 { [(1, 4, 0), (2, 0, 1280)] } else { [(3, 3, 0), (3, 4, 1280)] }
}

/// An error about a packet, as whoever is at `from` sends it.
fn error(from: IpAddr, about: &Frame, kind: (u8, u8, u32), quote: usize) -> Frame {
    let mut about = about.clone();
    about.complete();
    Message::error(from, &about, kind, quote).frame()
}

/// Lengths of quotes: with eight bytes of L4, and with all.
fn quotes(v6: bool) -> [usize; 2] {
    [if v6 { 48 } else { 28 }, 500]
}

#[test]
fn s46_an_error_of_a_backend_comes_from_the_service() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            for kind in kinds(v6) {
                for quote in quotes(v6) {
                    let mut node = Node::new();
                    node.service((Node::vip(v6), 80), proto, &[(Node::pod(1, v6), 8080)]);
                    let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
                    let sent = if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) };
                    let mut frame = send.frame(&sent);
                    assert_eq!(node.pod_sends(0, &mut frame), Landed::Pod(1));
                    let mut error = error(Node::pod(1, v6), &frame, kind, quote);
                    assert_eq!(node.pod_sends(1, &mut error), Landed::Pod(0));
                    let told = seen(&error);
                    assert_eq!((told.src, told.dst, told.icmp), (Node::vip(v6), Node::pod(0, v6), (kind.0, kind.1)));
                    assert_eq!(told.quoted().unwrap().ends(), (from, to));
                }
            }
        }
    });
}

#[test]
fn s46_an_error_about_an_answer_reaches_the_backend() {
    each(|v6, send| {
        for kind in kinds(v6) {
            let mut node = Node::new();
            node.service((Node::vip(v6), 80), UDP, &[(Node::pod(1, v6), 8080)]);
            let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            let (_, got) = send.pod(&mut node, 0, &sent);
            let mut back = send.frame(&answer(&got, 0));
            assert_eq!(node.pod_sends(1, &mut back), Landed::Pod(0));
            // The client does not take it.
            let mut error = error(Node::pod(0, v6), &back, kind, 500);
            assert_eq!(node.pod_sends(0, &mut error), Landed::Pod(1));
            let told = seen(&error);
            assert_eq!((told.src, told.dst), (Node::pod(0, v6), Node::pod(1, v6)));
            assert_eq!(told.quoted().unwrap().ends(), ((Node::pod(1, v6), 8080), (Node::pod(0, v6), CLIENT)));
        }
    });
}

#[test]
fn s46_an_error_of_a_router_on_the_way_keeps_its_source() {
    each(|v6, send| {
        for kind in kinds(v6) {
            let mut node = Node::new();
            node.service((Node::vip(v6), 80), TCP, &[(Node::far_pod(v6), 8080)]);
            let sent = tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), SYN);
            let mut frame = send.frame(&sent);
            assert_eq!(node.pod_sends(0, &mut frame), Landed::Node(0));
            let mut error = error(Node::other_node(v6), &frame, kind, 500);
            assert_eq!(node.arrives(&mut error), Landed::Pod(0));
            let told = seen(&error);
            assert_eq!(told.src, Node::other_node(v6));
            assert_eq!(told.quoted().unwrap().ends(), seen(&sent.frame()).ends());
        }
    });
}

#[test]
fn s46_an_error_about_what_left_finds_the_pod() {
    each(|v6, send| {
        for kind in kinds(v6) {
            for sent in [
                tcp((Node::pod(0, v6), CLIENT), (Node::world(v6), 443), SYN),
                udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 443)),
                Message::new(Node::pod(0, v6), Node::world(v6), L4::Ask(321)),
            ] {
                let mut node = Node::new();
                let mut frame = send.frame(&sent);
                assert_eq!(node.pod_sends(0, &mut frame), Landed::Outside);
                for from in [Node::other_node(v6), Node::world(v6)] {
                    let mut error = error(from, &frame, kind, 500);
                    assert_eq!(node.arrives(&mut error), Landed::Pod(0));
                    let told = seen(&error);
                    assert_eq!((told.src, told.dst), (from, Node::pod(0, v6)));
                    assert_eq!(told.quoted().unwrap().ends(), seen(&sent.frame()).ends());
                }
            }
        }
    });
}

#[test]
fn s46_an_error_of_a_pod_about_an_answer_from_the_world_leaves_as_the_nodes() {
    each(|v6, send| {
        for kind in kinds(v6) {
            let mut node = Node::new();
            let sent = udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53));
            let (_, out) = send.pod(&mut node, 0, &sent);
            let mut back = send.frame(&answer(&out, 0));
            assert_eq!(node.arrives(&mut back), Landed::Pod(0));
            let mut error = error(Node::pod(0, v6), &back, kind, 500);
            assert_eq!(node.pod_sends(0, &mut error), Landed::Outside);
            let quotes = |error: &Frame| {
                let told = seen(error);
                assert_eq!((told.src, told.dst), (Node::address(v6), Node::world(v6)));
                assert_eq!(told.quoted().unwrap().ends(), ((Node::world(v6), 53), (Node::address(v6), out.sport)));
            };
            quotes(&error);
            // The node's own, whose stack has the answer for the pod: it is too large for the pod's link.
            let mut error = self::error(Node::address(v6), &back, kind, 500);
            assert_eq!(node.sends(&mut error), Landed::Outside);
            quotes(&error);
        }
    });
}

#[test]
fn p37_an_error_about_an_allowed_flow_passes_policy_and_another_does_not() {
    each(|v6, send| {
        let mut node = Node::new();
        node.policy_set(40, Some((UDP, 53)));
        node.police(0, 40, 40);
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
        let mut frame = send.frame(&sent);
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Pod(1));
        let kind = kinds(v6)[0];
        assert_eq!(node.pod_sends(1, &mut error(Node::pod(1, v6), &frame, kind, 500)), Landed::Pod(0));
        let unknown = udp((Node::pod(0, v6), CLIENT + 1), (Node::pod(1, v6), 53)).frame();
        let landed = node.pod_sends(1, &mut error(Node::pod(1, v6), &unknown, kind, 500));
        assert_eq!(landed, dropped(DropReason::IngressPolicy));
    });
}

/// Has a pod, or somebody at an address outside, send an error about a packet.
fn tells(node: &mut Node, from: Result<u16, IpAddr>, about: &Frame, kind: (u8, u8, u32), quote: usize) -> Landed {
    let v6 = about.bytes[12] == 0x86;
    match from {
        Ok(slot) => node.pod_sends(slot, &mut error(Node::pod(slot, v6), about, kind, quote)),
        Err(ip) => node.arrives(&mut error(ip, about, kind, quote)),
    }
}

#[test]
fn a_pod_gets_errors_about_its_own_packets_from_where_those_went_alone() {
    each(|v6, send| {
        let mut node = Node::new();
        let victim = (Node::pod(0, v6), CLIENT);
        let (far, world, other) = (Err(Node::far_pod(v6)), Err(Node::world(v6)), Err(Node::other_node(v6)));
        let known = |node: &mut Node, to: IpAddr, landed: Landed| {
            let mut frame = send.frame(&udp(victim, (to, 53)));
            assert_eq!(node.pod_sends(0, &mut frame), landed);
            frame
        };
        let near_flow = known(&mut node, Node::pod(1, v6), Landed::Pod(1));
        let far_flow = known(&mut node, Node::far_pod(v6), Landed::Node(0));
        let node_flow = known(&mut node, Node::address(v6), Landed::Host);
        let unknown = |to: IpAddr| udp((victim.0, CLIENT + 1), (to, 53)).frame();
        let echo = Message::new(victim.0, Node::pod(1, v6), L4::Ask(7)).frame();
        let segment = tcp(victim, (Node::world(v6), 80), ACK).frame();
        // What the victim did not send.
        let answer = udp((Node::pod(1, v6), 53), victim).frame();
        let stray = dropped(DropReason::NotAsked);
        for kind in kinds(v6) {
            for (what, from, about, landed) in [
                ("the receiver", Ok(1), &near_flow, Landed::Pod(0)),
                ("a pod of the node", Ok(2), &near_flow, stray),
                ("a host outside", world, &near_flow, stray),
                ("a pod elsewhere", far, &near_flow, stray),
                ("the receiver elsewhere", far, &far_flow, Landed::Pod(0)),
                ("a router", other, &far_flow, Landed::Pod(0)),
                ("a router outside", world, &far_flow, Landed::Pod(0)),
                ("a pod that is no router", Ok(1), &far_flow, stray),
                ("a host outside, about the node", world, &node_flow, stray),
                ("a pod, about the node", Ok(1), &node_flow, stray),
                ("the receiver, about what is not known", Ok(1), &unknown(Node::pod(1, v6)), Landed::Pod(0)),
                ("a pod, about what is not known", Ok(1), &unknown(Node::world(v6)), stray),
                ("a router, about what is not known", other, &unknown(Node::far_pod(v6)), stray),
                ("who passes for the receiver", far, &unknown(Node::far_pod(v6)), stray),
                ("a pod, about an echo", Ok(2), &echo, stray),
                ("a host outside, about an echo", world, &echo, stray),
                ("a host outside, about a segment", world, &segment, Landed::Pod(0)),
                ("a pod, about a segment", Ok(1), &segment, stray),
            ] {
                assert_eq!(tells(&mut node, from, about, kind, 500), landed, "{what}: {kind:?}");
            }
            for (from, slot) in [(Node::pod(1, v6), Some(1)), (Node::pod(2, v6), Some(2)), (Node::world(v6), None)] {
                let to_victim = Message { dst: victim.0, ..Message::error(from, &answer, kind, 500) };
                let cut_off = Message::error(from, &far_flow, kind, 10);
                for message in [to_victim, cut_off] {
                    let mut frame = message.frame();
                    let landed = match slot {
                        Some(slot) => node.pod_sends(slot, &mut frame),
                        None => node.arrives(&mut frame),
                    };
                    assert_eq!(landed, stray, "{from}: {kind:?}");
                }
            }
        }
    });
}

#[test]
fn s46_an_error_about_a_fragment_finds_the_flow_by_the_first() {
    for (v6, kind) in [false, true].into_iter().flat_map(|v6| kinds(v6).map(|kind| (v6, kind))) {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), UDP, &[(Node::far_pod(v6), 8080)]);
        let mut frame = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80)).frame();
        let sent = seen(&frame).ends();
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Node(0));
        let fragment = |offset: u8| {
            let mut cut = frame.clone();
            if v6 {
                let length = u16::from_be_bytes([cut.bytes[18], cut.bytes[19]]) + 8;
                cut.bytes[18..20].copy_from_slice(&length.to_be_bytes());
                cut.bytes[20] = 44;
                cut.bytes.splice(54..54, [UDP, 0, 0, offset | 1, 0, 0, 0, 9]);
            } else {
                cut.bytes[20..22].copy_from_slice(&[0x20, offset / 8]);
                let sum = u16::from_be_bytes([cut.bytes[24], cut.bytes[25]]);
                let sum = !fold16(u64::from(!sum) + 0x2000 + u64::from(offset / 8));
                cut.bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            cut
        };
        let mut first = Message::error(Node::other_node(v6), &fragment(0), kind, 500).frame();
        assert_eq!(node.arrives(&mut first), Landed::Pod(0));
        let told = seen(&first).quoted().unwrap();
        assert_eq!(told.ends(), sent, "{kind:?}");
        // What begins like the ports of the flow is data.
        let mut later = Message::error(Node::other_node(v6), &fragment(8), kind, 500).frame();
        assert_eq!(node.arrives(&mut later), dropped(DropReason::NotAsked));
    }
}

#[test]
fn s78_an_error_with_a_long_quote_finds_its_flow_however_it_lies_in_memory() {
    // As many as are followed; and a way over several hops.
    let many = std::vec![(60, [1, 4, 1, 4, 0, 0].to_vec()); 6];
    let long = std::vec![(0, [5, 2, 0, 0, 1, 10, 0, 0, 0, 0, 0, 0, 0, 0].to_vec()), (43, std::vec![0; 38])];
    for (v6, linear) in [(false, HEADERS), (false, usize::MAX), (true, HEADERS), (true, usize::MAX)] {
        for (kind, extensions) in kinds(v6).into_iter().flat_map(|kind| [(kind, &many), (kind, &long)]) {
            let mut node = Node::new();
            node.host.linear = linear;
            node.service((Node::vip(v6), 80), UDP, &[(Node::far_pod(v6), 8080)]);
            let mut sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
            if v6 {
                sent.extensions.clone_from(extensions);
            } else {
                sent.options = std::vec![1; 40];
            }
            let mut frame = sent.frame();
            let ends = seen(&frame).ends();
            assert_eq!(node.pod_sends(0, &mut frame), Landed::Node(0), "{extensions:?}");
            let mut error = Message::error(Node::other_node(v6), &frame, kind, 1000);
            if !v6 {
                error.options = std::vec![1; 40];
            }
            let mut error = error.frame();
            assert_eq!(node.arrives(&mut error), Landed::Pod(0), "{linear} {extensions:?}");
            let told = seen(&error);
            assert_eq!((told.dst, told.quoted().unwrap().ends()), (Node::pod(0, v6), ends));
        }
    }
}

#[test]
fn s78_an_error_whose_quote_lacks_something_reaches_no_pod() {
    each(|v6, _| {
        let mut node = Node::new();
        let mut frame = udp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 53)).frame();
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Node(0));
        let header = if v6 { 40 } else { 20 };
        for kind in kinds(v6) {
            for quote in 0..header + 8 {
                let mut cut = error(Node::other_node(v6), &frame, kind, quote);
                assert_eq!(node.arrives(&mut cut), dropped(DropReason::NotAsked), "{quote}");
                // What follows the packet in its frame is none of it.
                cut.bytes.extend(&frame.bytes[14 + quote..]);
                assert_eq!(node.arrives(&mut cut), dropped(DropReason::NotAsked), "{quote} with a trailer");
            }
            assert_eq!(node.arrives(&mut error(Node::other_node(v6), &frame, kind, header + 8)), Landed::Pod(0));
        }
        // A header that is shorter than any.
        if !v6 {
            for words in 0..5 {
                let mut short = frame.clone();
                short.bytes[14] = 0x40 | words;
                let mut told = error(Node::other_node(v6), &short, kinds(v6)[0], 500);
                assert_eq!(node.arrives(&mut told), dropped(DropReason::NotAsked));
            }
        }
    });
}

#[test]
fn s46_an_error_about_a_packet_with_extension_headers_finds_its_flow() {
    const V6: bool = true;
    // Hop by hop, destination (the tunnel encapsulation limit of RFC 2473 is one), routing, authentication, fragment.
    let headers: [(u8, Vec<u8>); 5] = [
        (0, [5, 2, 0, 0, 1, 0].into()),
        (60, [4, 1, 4, 1, 0, 0].into()),
        (43, [0; 6].into()),
        (51, [0; 10].into()),
        (44, [0, 1, 0, 0, 0, 9].into()),
    ];
    let mut chains: Vec<Vec<(u8, Vec<u8>)>> = headers.iter().map(|one| std::vec![one.clone()]).collect();
    chains.push(headers[..2].into());
    chains.push([headers[1].clone(), headers[4].clone()].into());
    for (kind, extensions) in kinds(V6).into_iter().flat_map(|kind| chains.iter().map(move |chain| (kind, chain))) {
        let mut node = Node::new();
        node.service((Node::vip(V6), 80), UDP, &[(Node::far_pod(V6), 8080)]);
        let mut sent = udp((Node::pod(0, V6), CLIENT), (Node::vip(V6), 80));
        sent.extensions.clone_from(extensions);
        let mut frame = sent.frame();
        let as_sent = frame.bytes[14..].to_vec();
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Node(0), "{extensions:?}");
        let mut error = Message::error(Node::other_node(V6), &frame, kind, 500).frame();
        assert_eq!(node.arrives(&mut error), Landed::Pod(0), "{extensions:?}");
        assert_eq!(seen(&error).dst, Node::pod(0, V6));
        // The quote is what the pod sent, but for the hop limit and the checksum, which nobody can check in a quote.
        let told = &error.bytes[error.bytes.len() - as_sent.len()..];
        let l4 = as_sent.len() - 16;
        assert_eq!((&told[8..l4 + 6], &told[l4 + 8..]), (&as_sent[8..l4 + 6], &as_sent[l4 + 8..]), "{extensions:?}");
    }
    // A chain that is longer than any, and one that is cut off.
    let mut node = Node::new();
    let mut sent = udp((Node::pod(0, V6), CLIENT), (Node::far_pod(V6), 53));
    let plain = sent.frame();
    assert_eq!(node.pod_sends(0, &mut plain.clone()), Landed::Node(0));
    sent.extensions = std::vec![headers[1].clone(); 8];
    for (about, quote) in [(sent.frame(), 500), (plain, 43)] {
        let mut error = Message::error(Node::other_node(V6), &about, kinds(V6)[0], quote).frame();
        assert_eq!(node.arrives(&mut error), dropped(DropReason::NotAsked));
    }
}

#[test]
fn no_error_answers_an_error() {
    each(|v6, _| {
        let mut node = Node::new();
        let about = udp((Node::pod(1, v6), CLIENT), (Node::pod(0, v6), 53)).frame();
        let mut message = Message::error(Node::pod(0, v6), &about, kinds(v6)[0], 500);
        message.ttl = 1;
        let mut frame = message.frame();
        assert_eq!(seen(&frame).proto, if v6 { ICMPV6 } else { ICMP });
        assert_eq!(node.pod_sends(0, &mut frame), dropped(DropReason::TtlExceeded));
    });
}
