//! Ways that packets take: what a router does, and who may send what.

use super::*;
use crate::packet::ICMPV6;
use crate::testing::{Fate, Hook, ip};

#[test]
fn a_packet_to_a_pod_of_the_node_is_handed_over_with_a_lower_ttl() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.ttl, got.ends()), (Landed::Pod(1), 63, seen(&sent.frame()).ends()));
        answered(send, &mut node, 0, &sent, &(landed, got), 0);
    });
}

#[test]
fn a_packet_to_a_pod_elsewhere_goes_to_its_node_and_the_answer_comes_back() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 80), SYN);
        let (landed, got) = send.pod(&mut node, 0, &sent);
        assert_eq!((landed, got.ttl), (Landed::Node(0), 63));
        let (landed, back) = send.arrives(&mut node, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ttl), (Landed::Pod(0), 63));
    });
}

#[test]
fn a_pod_sends_from_its_own_addresses_alone() {
    each(|v6, send| {
        let mut node = Node::new();
        for source in [Node::pod(1, v6), Node::address(v6), Node::world(v6)] {
            for to in [Node::pod(2, v6), Node::world(v6), Node::address(v6)] {
                let (landed, _) = send.pod(&mut node, 0, &udp((source, CLIENT), (to, 53)));
                assert_eq!(landed, dropped(DropReason::SourceAddress), "{source} {to}");
            }
        }
        assert!(node.host.flows.is_empty());
    });
}

#[test]
fn what_no_router_forwards_is_dropped() {
    let destinations = [
        ("224.0.0.251", DropReason::Multicast),
        ("255.255.255.255", DropReason::Multicast),
        ("127.0.0.1", DropReason::BadAddress),
        ("169.254.1.1", DropReason::BadAddress),
        ("0.0.0.0", DropReason::BadAddress),
        ("ff02::fb", DropReason::Multicast),
        ("::1", DropReason::BadAddress),
        ("::", DropReason::BadAddress),
        ("fe80::1", DropReason::BadAddress),
    ];
    for (to, reason) in destinations {
        let mut node = Node::new();
        let to = ip(to);
        let message = udp((Node::pod(0, to.is_ipv6()), CLIENT), (to, 53));
        assert_eq!(node.pod_sends(0, &mut message.frame()), dropped(reason), "{to}");
        let message = udp((ip(if to.is_ipv6() { "fe80::9" } else { "0.0.0.0" }), 68), (to, 67));
        assert_eq!(node.pod_sends(0, &mut message.frame()), Landed::Ignored, "{to}");
    }
}

#[test]
fn a_packet_that_has_gone_too_far_is_refused() {
    each(|v6, send| {
        let mut node = Node::new();
        let mut message = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
        message.ttl = 1;
        let mut frame = send.frame(&message);
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Refused(DropReason::TtlExceeded));
        frame.complete();
        let error = seen(&frame);
        assert_eq!((error.src, error.dst), (Node::address(v6), Node::pod(0, v6)));
        assert_eq!(error.icmp, if v6 { (3, 0) } else { (11, 0) });
        assert_eq!(error.quoted().unwrap().ends(), seen(&message.frame()).ends());
    });
}

#[test]
fn a_packet_larger_than_the_mtu_is_refused_if_it_must_not_be_cut() {
    each(|v6, send| {
        for (proto, headers) in [(UDP, 8), (TCP, 20)] {
            for (extra, fits) in [(0, true), (1, false)] {
                let mut node = Node::new();
                let (from, to) = ((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
                let mut message = if proto == UDP { udp(from, to) } else { tcp(from, to, SYN) };
                let header = if v6 { 40 } else { 20 } + headers;
                message.payload = std::vec![0x5a; Node::MTU as usize - header + extra];
                message.no_fragment = true;
                let mut frame = send.frame(&message);
                let landed = node.pod_sends(0, &mut frame);
                if fits {
                    assert_eq!(landed, Landed::Pod(1));
                    continue;
                }
                assert_eq!(landed, Landed::Refused(DropReason::TooLarge));
                frame.complete();
                let error = seen(&frame);
                assert_eq!(error.icmp, if v6 { (2, 0) } else { (3, 4) });
                assert_eq!(error.quoted().unwrap().ends(), (from, to));
                let mtu = if v6 { frame.bytes[60..62].to_vec() } else { frame.bytes[40..42].to_vec() };
                assert_eq!(mtu, (Node::MTU as u16).to_be_bytes());
            }
        }
    });
}

#[test]
fn a_packet_larger_than_the_mtu_that_may_be_cut_goes_to_the_stack() {
    let mut node = Node::new();
    let mut message = udp((Node::pod(0, false), CLIENT), (Node::pod(1, false), 53));
    message.payload = std::vec![0; 3000];
    assert_eq!(node.host.run(Hook::FromPod(0), &mut message.frame()), Fate::Stack);
    // What the stack then makes of it passes.
    for mut piece in message.fragments(1480, 5) {
        piece.ingress = crate::ifindex_of(0);
        assert_eq!(node.host.run(Hook::ToPod(1), &mut piece), Fate::Pass);
    }
}

#[test]
fn segments_of_an_aggregate_count_not_the_aggregate() {
    each(|v6, send| {
        let header = if v6 { 60 } else { 40 };
        for (segment, landed) in
            [(Node::MTU - header, Landed::Pod(1)), (Node::MTU - header + 1, Landed::Refused(DropReason::TooLarge))]
        {
            let mut node = Node::new();
            let mut message = tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80), SYN);
            message.payload = std::vec![1; 9000];
            message.no_fragment = true;
            let mut frame = send.frame(&message);
            frame.segment_size = segment;
            assert_eq!(node.pod_sends(0, &mut frame), landed);
        }
    });
}

#[test]
fn no_such_pod_is_an_unreachable_host() {
    each(|v6, send| {
        let mut node = Node::new();
        let nobody = ip(if v6 { "fd00:10:244:1::99" } else { "10.244.1.99" });
        let mut frame = send.frame(&tcp((Node::pod(0, v6), CLIENT), (nobody, 80), SYN));
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Refused(DropReason::NoSuchPod));
        frame.complete();
        assert_eq!(seen(&frame).icmp, if v6 { (1, 3) } else { (3, 1) });
    });
}

#[test]
fn who_is_on_this_node_does_not_come_in_from_outside() {
    each(|v6, send| {
        let mut node = Node::new();
        for source in [Node::pod(1, v6), Node::address(v6)] {
            let (landed, _) = send.arrives(&mut node, &udp((source, CLIENT), (Node::pod(0, v6), 53)));
            assert_eq!(landed, dropped(DropReason::LocalAddress));
        }
    });
}

#[test]
fn what_comes_in_for_the_node_itself_is_left_alone() {
    each(|v6, send| {
        let mut node = Node::new();
        for port in [22, 6443, 30_080, Config::SNAT_FIRST] {
            let message = tcp((Node::world(v6), CLIENT), (Node::address(v6), port), SYN);
            let (landed, got) = send.arrives(&mut node, &message);
            assert_eq!((landed, got), (Landed::Host, seen(&message.frame())));
        }
        assert!(node.host.flows.is_empty());
    });
}

#[test]
fn headers_are_found_behind_options_and_extensions() {
    let mut node = Node::new();
    let mut message = udp((Node::pod(0, false), CLIENT), (Node::vip(false), 53));
    node.service((Node::vip(false), 53), UDP, &[(Node::pod(1, false), 5353)]);
    message.options = std::vec![1; 40];
    let mut frame = message.frame();
    assert_eq!(node.pod_sends(0, &mut frame), Landed::Pod(1));
    assert_eq!(seen(&frame).ends().1, (Node::pod(1, false), 5353));

    let mut node = Node::new();
    node.service((Node::vip(true), 53), UDP, &[(Node::pod(1, true), 5353)]);
    let mut message = udp((Node::pod(0, true), CLIENT), (Node::vip(true), 53));
    // Hop-by-hop with padding, destination options, an authentication header.
    message.extensions = std::vec![(0, std::vec![1, 4, 0, 0, 0, 0]), (60, std::vec![0; 14]), (51, std::vec![0; 10])];
    let mut frame = message.frame();
    assert_eq!(node.pod_sends(0, &mut frame), Landed::Pod(1));
    assert_eq!(seen(&frame).ends().1, (Node::pod(1, true), 5353));

    message.extensions = std::vec![(60, std::vec![0; 6]); 7];
    assert_eq!(node.pod_sends(0, &mut message.frame()), dropped(DropReason::ExtensionHeaders));
}

#[test]
fn p37_neighbour_and_listener_discovery_is_never_forwarded() {
    for kind in [130, 131, 132, 133, 134, 136, 137, 143] {
        let mut node = Node::new();
        let message = Message::new(Node::pod(0, true), Node::pod(1, true), L4::Icmp(kind, 0, 0));
        assert_eq!(node.pod_sends(0, &mut message.frame()), Landed::Ignored, "{kind}");
        let mut frame = Message::new(Node::far_pod(true), Node::pod(1, true), L4::Icmp(kind, 0, 0)).frame();
        assert_eq!(node.host.run(Hook::FromUplink(Node::UPLINK), &mut frame), Fate::Pass, "{kind}");
    }
}

#[test]
fn p37_discovery_reaches_a_pod_from_its_link_alone() {
    let mut node = Node::new();
    node.police(1, crate::policy::DENY_ALL, crate::policy::DENY_ALL);
    let (link, group, pod, far) = (ip("fe80::9"), ip("ff02::1"), Node::pod(1, true), Node::far_pod(true));
    let no = Fate::Drop(DropReason::Malformed);
    for (kind, ttl, src, dst, fate) in [
        (135, 255, far, pod, Fate::Pass),
        (136, 255, link, group, Fate::Pass),
        (135, 254, far, pod, no),
        (134, 64, link, group, no),
        (137, 1, link, pod, no),
        (130, 1, link, group, Fate::Pass),
        (130, 1, link, pod, Fate::Pass),
        (130, 1, far, pod, no),
        (130, 64, link, pod, no),
        (131, 1, link, group, Fate::Pass),
        (132, 1, far, pod, no),
        (143, 1, far, group, Fate::Pass),
        (143, 255, far, group, no),
        (143, 1, far, pod, no),
    ] {
        let mut message = Message::new(src, dst, L4::Icmp(kind, 0, 0));
        message.ttl = ttl;
        let mut frame = message.frame();
        frame.ingress = Node::UPLINK;
        assert_eq!(node.host.run(Hook::ToPod(1), &mut frame), fate, "{kind} {ttl} {src} {dst}");
        // The first of a packet in fragments.
        message.extensions = std::vec![(44, std::vec![0, 1, 0, 0, 0, 7])];
        let mut frame = message.frame();
        frame.ingress = Node::UPLINK;
        assert_eq!(node.host.run(Hook::ToPod(1), &mut frame), no, "{kind} in fragments");
    }
}

/// A neighbour solicitation for an address, with the sender's MAC.
fn solicitation(target: IpAddr, ttl: u8) -> Message {
    let mut message = Message::new(Node::pod(0, true), ip("ff02::1:ff00:1"), L4::Icmp(135, 0, 0));
    message.ttl = ttl;
    message.payload = [&crate::Addr::from(target).bytes()[..], &[1, 1, 2, 0, 0, 0, 0, 2]].concat();
    message
}

#[test]
fn p37_a_pod_that_asks_for_its_gateway_is_answered() {
    let mut node = Node::new();
    // Policy of a pod that may not talk is not asked.
    node.police(0, crate::policy::DENY_ALL, crate::policy::DENY_ALL);
    let mut frame = solicitation(ip("fe80::1"), 255).frame();
    assert_eq!(node.pod_sends(0, &mut frame), Landed::Answered);
    let told = seen(&frame);
    assert_eq!((told.src, told.dst, told.ttl), (ip("fe80::1"), Node::pod(0, true), 255));
    assert_eq!((told.proto, told.icmp), (ICMPV6, (136, 0)));
    assert_eq!(told.payload[16..], [2, 1, 2, 0, 0, 0, 2, 0]);
    assert_eq!(frame.bytes[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 2, 0]);
    for silent in [solicitation(Node::pod(0, true), 255), solicitation(ip("fe80::1"), 64)] {
        assert_eq!(node.pod_sends(0, &mut silent.frame()), Landed::Ignored);
    }
}

#[test]
fn p37_a_pod_that_arps_is_answered() {
    let arp = |operation: u8, target: [u8; 4]| {
        let mut bytes = std::vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 2, 10, 244, 1, 16]);
        bytes.extend([0; 6]);
        bytes.extend(target);
        Frame::new(bytes)
    };
    let mut node = Node::new();
    let mut frame = arp(1, [169, 254, 1, 1]);
    assert_eq!(node.pod_sends(0, &mut frame), Landed::Answered);
    assert_eq!(frame.bytes[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 2, 0]);
    let expected = [0, 2, 2, 0, 0, 0, 2, 0, 169, 254, 1, 1, 2, 0, 0, 0, 0, 2, 10, 244, 1, 16];
    assert_eq!(frame.bytes[20..42], expected);
    for mut silent in [arp(2, [169, 254, 1, 1]), arp(1, [10, 244, 1, 16])] {
        assert_eq!(node.pod_sends(0, &mut silent), Landed::Ignored);
    }
}
