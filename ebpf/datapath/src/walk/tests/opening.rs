//! What may open a flow: no segment gets anywhere that policy does not let it, whatever entry it meets.

use proptest::prelude::*;

use super::*;
use crate::packet::{ICMP, ICMPV6};
use crate::policy::ALLOW_ALL;
use crate::service::FrontendFlags;
use crate::testing::{End, Event, Hook, Judged};

/// A policy set that allows nothing.
const NOTHING: u32 = 41;

/// A node whose pod 1 takes nothing from anybody, and may talk to everybody.
fn guarded() -> Node {
    let mut node = Node::new();
    node.policy_set(NOTHING, Some((TCP, 1)));
    node.police(1, NOTHING, ALLOW_ALL);
    node
}

fn segment(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, seq: u32) -> Message {
    Message::new(from.0, to.0, L4::TcpAt(from.1, to.1, flags, seq))
}

#[test]
fn no_segment_prepares_the_way_for_a_syn_that_policy_denies() {
    each(|v6, send| {
        let (attacker, victim) = ((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80));
        for pickup in [false, true] {
            for flags in 0..=0x3f {
                let mut node = guarded();
                node.host.config.pickup_until = if pickup { u32::MAX } else { 0 };
                send.pod(&mut node, 0, &segment(attacker, victim, flags, 5));
                for seq in [0, 5, 6] {
                    let (landed, _) = send.pod(&mut node, 0, &segment(attacker, victim, SYN, seq));
                    assert_eq!(landed, dropped(DropReason::IngressPolicy), "{flags:#x}, pick up {pickup}");
                }
                // From another node and from outside it is the same.
                for from in [Node::far_pod(v6), Node::world(v6)] {
                    send.arrives(&mut node, &segment((from, CLIENT), victim, flags, 5));
                    let (landed, _) = send.arrives(&mut node, &segment((from, CLIENT), victim, SYN, 9));
                    assert_eq!(landed, dropped(DropReason::IngressPolicy), "{flags:#x} from {from}");
                }
            }
        }
    });
}

#[test]
fn scans_of_a_denied_pod_reach_nobody() {
    each(|v6, send| {
        for flags in 0..=0x3f_u8 {
            let mut node = guarded();
            let probe = segment((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80), flags, 1);
            let (landed, _) = send.pod(&mut node, 0, &probe);
            // A reset is answered by nobody, and may be the end of what the pod opened.
            let expected =
                if flags & (SYN | ACK | RST) == 0 { DropReason::NoConnection } else { DropReason::IngressPolicy };
            if flags & RST == 0 || flags & SYN_ACK == SYN {
                assert_eq!(landed, dropped(expected), "{flags:#x}");
            }
            assert!(node.host.flows.is_empty(), "{flags:#x}");
        }
    });
}

#[test]
fn what_follows_a_first_fragment_in_its_frame_is_none_of_its_flags() {
    each(|v6, _| {
        let victim = (Node::pod(1, v6), 80);
        let l4 = 14 + if v6 { 40 } else { 20 };
        for from in [Node::pod(0, v6), Node::far_pod(v6), Node::world(v6)] {
            // The victim may talk to everybody's port 443, and its kernel puts both pieces together to a SYN.
            let pieces = segment((from, 443), victim, SYN, 5).fragments(8, 9);
            for flags in [ACK, SYN_ACK, RST, FIN] {
                let mut node = guarded();
                node.host.config.pickup_until = u32::MAX;
                let mut first = pieces[0].clone();
                first.bytes.extend(&segment((from, 443), victim, flags, 5).frame().bytes[l4 + 8..]);
                for (mut frame, reason) in [(first, DropReason::Malformed), (pieces[1].clone(), DropReason::Fragment)] {
                    let landed =
                        if from == Node::pod(0, v6) { node.pod_sends(0, &mut frame) } else { node.arrives(&mut frame) };
                    assert_eq!(landed, dropped(reason), "{flags:#x} from {from}");
                }
            }
        }
    });
}

#[test]
fn a_port_that_may_be_talked_to_is_no_source_port_to_come_from() {
    each(|v6, send| {
        let mut node = Node::new();
        node.policy_set(NOTHING, Some((TCP, 443)));
        node.police(0, ALLOW_ALL, NOTHING);
        let (from, to) = ((Node::pod(0, v6), 443), (Node::pod(1, v6), 22));
        for flags in [0, 8, ACK, SYN_ACK, FIN] {
            send.pod(&mut node, 0, &segment(from, to, flags, 1));
            let (landed, _) = send.pod(&mut node, 0, &segment(from, to, SYN, 1));
            assert_eq!(landed, dropped(DropReason::EgressPolicy), "{flags:#x}");
        }
    });
}

#[test]
fn a_syn_of_another_connection_meets_a_live_one_and_changes_nothing() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 80), (Node::pod(2, v6), 80)]);
        let sent = |flags, seq| segment((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), flags, seq);
        node.host.random = Some(0);
        let (landed, got) = send.pod(&mut node, 0, &sent(SYN, 1));
        let Landed::Pod(backend) = landed else { panic!("{landed:?}") };
        send.pod(&mut node, backend, &answer(&got, SYN_ACK));
        send.pod(&mut node, 0, &sent(ACK, 2));
        node.host.random = Some(u32::MAX);
        let before = node.host.flows.len();
        assert_eq!(send.pod(&mut node, 0, &sent(SYN, 700)).0, Landed::Pod(backend));
        assert_eq!((node.host.flows.len(), node.host.flows.established(0)), (before, 1));
        assert_eq!(send.pod(&mut node, 0, &sent(ACK, 2)).0, Landed::Pod(backend));
        // A backend that has left is not chosen again.
        let ids: Vec<u32> = (1..=2).collect();
        for id in ids {
            node.stop_serving(id);
        }
        node.serve(if backend == 1 { 2 } else { 1 });
        // The SYN that it began with comes late, once more.
        assert_eq!(send.pod(&mut node, 0, &sent(SYN, 1)).0, Landed::Pod(backend));
        assert_eq!(send.pod(&mut node, 0, &sent(ACK, 2)).0, Landed::Pod(backend));
        let (landed, _) = send.pod(&mut node, 0, &sent(SYN, 900));
        assert_ne!(landed, Landed::Pod(backend));
    });
}

#[test]
fn a_syn_that_nobody_answered_is_decided_anew_when_it_is_another() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 80), (Node::pod(2, v6), 80)]);
        let sent = |seq| segment((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), SYN, seq);
        node.host.random = Some(0);
        let first = send.pod(&mut node, 0, &sent(1)).0;
        node.host.random = Some(u32::MAX);
        assert_eq!(send.pod(&mut node, 0, &sent(1)).0, first, "sent again");
        assert_ne!(send.pod(&mut node, 0, &sent(2)).0, first, "another");
    });
}

#[test]
fn a_backend_that_opens_a_connection_from_its_services_port_is_no_answer() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        let client = (Node::pod(0, v6), CLIENT);
        let sent = |flags| tcp(client, (Node::vip(v6), 80), flags);
        let got = send.pod(&mut node, 0, &sent(SYN));
        answered(send, &mut node, 0, &sent(SYN), &got, SYN_ACK);
        send.pod(&mut node, 0, &sent(ACK));
        let (landed, seen) = send.pod(&mut node, 1, &tcp((Node::pod(1, v6), 8080), client, SYN));
        assert_eq!(landed, Landed::Pod(0));
        assert_eq!(seen.src, Node::pod(1, v6), "from itself, not from the service");
        assert_ne!(seen.sport, 8080, "from a port of its own");
    });
}

/// "Port unreachable".
fn unreachable(v6: bool) -> (u8, u8, u32) {
    if v6 { (1, 4, 0) } else { (3, 3, 0) }
}

#[test]
fn an_error_comes_from_where_its_quote_went() {
    each(|v6, send| {
        let mut node = guarded();
        node.police(2, NOTHING, NOTHING);
        // Pod 1 talks to pod 0; pod 2, which may talk to nobody, and a host outside tell of it.
        let mut frame = send.frame(&udp((Node::pod(1, v6), CLIENT), (Node::pod(0, v6), 53)));
        assert_eq!(node.pod_sends(1, &mut frame), Landed::Pod(0));
        frame.complete();
        let told = |node: &mut Node, from: IpAddr, slot: Option<u16>| {
            let mut error = Message::error(from, &frame, unreachable(v6), 500).frame();
            match slot {
                Some(slot) => node.pod_sends(slot, &mut error),
                None => node.arrives(&mut error),
            }
        };
        assert_eq!(told(&mut node, Node::pod(2, v6), Some(2)), dropped(DropReason::NotAsked));
        assert_eq!(told(&mut node, Node::world(v6), None), dropped(DropReason::NotAsked));
        assert_eq!(told(&mut node, Node::far_pod(v6), None), dropped(DropReason::NotAsked));
        assert_eq!(told(&mut node, Node::pod(0, v6), None), dropped(DropReason::NotAsked));
        assert_eq!(told(&mut node, Node::pod(0, v6), Some(0)), Landed::Pod(1));
        // To somebody else than the sender of what it quotes.
        let mut error = Message::error(Node::pod(0, v6), &frame, unreachable(v6), 500);
        error.dst = Node::pod(2, v6);
        assert_eq!(node.pod_sends(0, &mut error.frame()), dropped(DropReason::NotAsked));
    });
}

#[test]
fn the_node_tells_a_pod_of_its_own_packets_alone() {
    each(|v6, send| {
        let mut node = guarded();
        let mut frame = send.frame(&udp((Node::pod(1, v6), CLIENT), (Node::address(v6), 9)));
        frame.complete();
        let error = Message::error(Node::address(v6), &frame, unreachable(v6), 500);
        assert_eq!(send.node(&mut node, &error).0, dropped(DropReason::NotAsked), "a neighbour sent it as the pod");
        assert_eq!(node.pod_sends(1, &mut frame), Landed::Host);
        assert_eq!(send.node(&mut node, &error).0, Landed::Pod(1));
    });
}

#[test]
fn errors_about_one_flow_are_bounded() {
    each(|v6, send| {
        let mut node = Node::new();
        let mut frame = send.frame(&udp((Node::pod(0, v6), CLIENT), (Node::world(v6), 53)));
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Outside);
        frame.complete();
        let error = Message::error(Node::world(v6), &frame, unreachable(v6), 500);
        assert_eq!(seen(&error.frame()).proto, if v6 { ICMPV6 } else { ICMP });
        let count = (0..100).filter(|_| node.arrives(&mut error.frame()) == Landed::Pod(0)).count();
        assert_eq!(count, 64);
        node.host.now += 1;
        assert_eq!(node.arrives(&mut error.frame()), Landed::Pod(0));
    });
}

#[test]
fn a_neighbour_gets_nothing_into_a_flow_between_two_pods() {
    each(|v6, send| {
        for to in [UDP, TCP] {
            let mut node = Node::new();
            let (client, server) = ((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
            let sent = if to == UDP { udp(client, server) } else { tcp(client, server, SYN) };
            let got = send.pod(&mut node, 0, &sent);
            answered(send, &mut node, 0, &sent, &got, SYN_ACK);
            let (landed, _) = send.arrives(&mut node, &sent);
            assert_eq!(landed, dropped(DropReason::LocalAddress));
            let (landed, _) = send.arrives(&mut node, &answer(&got.1, ACK));
            assert_eq!(landed, dropped(DropReason::LocalAddress));
            // Nor by the host's stack, from another interface.
            let mut frame = send.frame(&sent);
            frame.ingress = Node::UPLINK;
            let fate = node.host.run(Hook::ToPod(1), &mut frame);
            assert_eq!(fate, crate::testing::Fate::Drop(DropReason::LocalAddress));
        }
    });
}

#[test]
fn a_neighbour_does_not_pass_for_a_pod_to_the_node() {
    each(|v6, send| {
        let mut node = Node::new();
        for sent in [
            udp((Node::pod(1, v6), 53), (Node::address(v6), CLIENT)),
            tcp((Node::pod(1, v6), 80), (Node::address(v6), CLIENT), SYN_ACK),
            Message::new(Node::pod(1, v6), Node::address(v6), L4::Ask(3)),
        ] {
            assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::LocalAddress));
        }
        let sent = udp((Node::world(v6), 53), (Node::address(v6), CLIENT));
        assert_eq!(send.arrives(&mut node, &sent).0, Landed::Host);
    });
}

#[test]
fn a_neighbour_does_not_pass_for_a_pod_or_the_node_to_anybody_else() {
    each(|v6, send| {
        let mut node = Node::new();
        for to in [Node::world(v6), Node::vip(v6), Node::other_node(v6), Node::far_pod(v6)] {
            for from in [Node::pod(1, v6), Node::address(v6)] {
                let sent = udp((from, CLIENT), (to, 53));
                assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::LocalAddress), "{from} to {to}");
                // Of a later fragment nothing is known but its addresses.
                let mut sent = sent.clone();
                sent.payload = std::vec![7; 2000];
                let mut later = sent.fragments(1400, 9).remove(1);
                assert_eq!(node.arrives(&mut later), dropped(DropReason::LocalAddress), "{from} to {to}");
            }
        }
        let sent = udp((Node::other_node(v6), CLIENT), (Node::world(v6), 53));
        assert_eq!(send.arrives(&mut node, &sent).0, Landed::Outside);
    });
}

#[test]
fn s85_a_neighbour_does_not_pass_for_a_service() {
    each(|v6, send| {
        for aside in [false, true] {
            let mut node = Node::new();
            node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 53)]);
            node.service((Node::other_vip(v6), 53), UDP, &[(Node::pod(1, v6), 53)]);
            // The other one is a load balancer's address, of which answers come to the node.
            node.flag((Node::vip(v6), 53), UDP, FrontendFlags::CLUSTER);
            if aside {
                node.host.uplinks.get_mut(&Node::UPLINK).unwrap().flags = 0;
            }
            for to in [Node::address(v6), Node::world(v6)] {
                let from = |ip, port| udp((ip, port), (to, 111));
                let mut large = from(Node::vip(v6), 53);
                large.payload = std::vec![7; 2000];
                let mut first = large.fragments(1400, 9).remove(0);
                for landed in [send.arrives(&mut node, &from(Node::vip(v6), 53)).0, node.arrives(&mut first)] {
                    assert_eq!(landed, dropped(DropReason::LocalAddress));
                }
                let passes = if to == Node::address(v6) { Landed::Host } else { Landed::Outside };
                for other in [from(Node::other_vip(v6), 53), from(Node::vip(v6), 54)] {
                    assert_eq!(send.arrives(&mut node, &other).0, passes);
                }
            }
        }
    });
}

#[test]
fn s85_a_header_in_pieces_does_not_pass_for_a_service_either() {
    for v6 in [false, true] {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 80)]);
        node.flag((Node::vip(v6), 80), TCP, FrontendFlags::CLUSTER);
        let sent = tcp((Node::vip(v6), 80), (Node::address(v6), 700), ACK);
        let mut pieces = sent.fragments(8, 9);
        assert_eq!(node.arrives(&mut pieces[0]), dropped(DropReason::Malformed));
        // From anywhere: a node that has the rest would have a segment whose ports nobody has seen.
        let sent = tcp((Node::world(v6), CLIENT), (Node::address(v6), 700), ACK);
        assert_eq!(node.arrives(&mut sent.fragments(8, 9)[0]), dropped(DropReason::Malformed));
    }
}

#[test]
fn s85_what_hides_its_ports_behind_many_headers_does_not_pass_for_a_service_either() {
    let mut node = Node::new();
    node.service((Node::vip(true), 53), UDP, &[(Node::pod(1, true), 53)]);
    node.flag((Node::vip(true), 53), UDP, FrontendFlags::CLUSTER);
    for to in [Node::address(true), Node::world(true), "ff02::1".parse().unwrap()] {
        let mut message = udp((Node::vip(true), 53), (to, 111));
        message.extensions = std::vec![(60, std::vec![1, 4, 0, 0, 0, 0]); 7];
        assert_eq!(node.arrives(&mut message.frame()), dropped(DropReason::ExtensionHeaders), "{to}");
        message.extensions.pop();
        assert_eq!(node.arrives(&mut message.frame()), dropped(DropReason::LocalAddress), "{to}");
    }
}

#[test]
fn a_neighbour_does_not_pass_for_the_node() {
    each(|v6, send| {
        let mut node = guarded();
        let sent = udp((Node::address(v6), CLIENT), (Node::pod(1, v6), 53));
        assert_eq!(send.node(&mut node, &sent).0, Landed::Pod(1));
        assert_eq!(send.arrives(&mut node, &sent).0, dropped(DropReason::LocalAddress));
    });
}

#[test]
fn a_pod_is_on_no_vlan() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
        for (vlan, landed) in [(5, dropped(DropReason::Vlan)), (0, Landed::Pod(1))] {
            let mut frame = send.frame(&sent);
            frame.vlan = Some(vlan);
            assert_eq!(node.pod_sends(0, &mut frame), landed);
            if landed == Landed::Pod(1) {
                assert_eq!(frame.vlan, None, "a priority tag is taken off");
            }
        }
        // What a neighbour tags is its VLAN's.
        let mut frame = send.frame(&udp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), 53)));
        frame.vlan = Some(5);
        assert_eq!(node.host.run(Hook::FromUplink(Node::UPLINK), &mut frame), crate::testing::Fate::Pass);
    });
}

/// Events, with those that say nothing about flows rare.
fn event() -> impl Strategy<Value = Event> {
    let wait = prop_oneof![1 => 1..70_u32, 1 => 100..90_000_u32];
    let end =
        || prop_oneof![3 => Just(End::Pod(0)), 3 => Just(End::Pod(1)), 1 => Just(End::Far), 1 => Just(End::World)];
    prop_oneof![
        12 => (end(), end(), 0..0x40_u8, 0..3_u32).prop_map(|(from, to, flags, seq)| Event::Segment(from, to, flags, seq)),
        4 => (end(), end()).prop_map(|(from, to)| Event::Datagram(from, to)),
        6 => (end(), end(), 0..3_usize, 0..3_u16)
            .prop_map(|(from, to, piece, id)| Event::Fragment(from, to, piece, id)),
        2 => (0..2_u16, any::<bool>(), any::<bool>()).prop_map(|(slot, takes, sends)| Event::Police(slot, takes, sends)),
        2 => wait.prop_map(Event::Wait),
    ]
}

/// How fast the model is: what a fuzzer does between two looks at what it covers.
#[test]
#[ignore = "measures: cargo test --release -p fairlead-datapath -- --ignored --nocapture steps_a_second"]
fn steps_a_second() {
    let (begin, mut steps, mut random) = (std::time::Instant::now(), 0_u64, 1_u64);
    while begin.elapsed().as_secs() < 5 {
        let bytes: Vec<u8> = (0..=3 * 500)
            .map(|_| {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (random >> 56) as u8
            })
            .collect();
        Judged::run(&bytes).unwrap();
        steps += 500;
    }
    std::println!("{} steps a second", steps as f64 / begin.elapsed().as_secs_f64());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    /// Whatever two pods, a pod elsewhere and a host outside send each other, in whatever order, while policies change.
    #[test]
    fn what_passes_was_judged_for(
        v6 in any::<bool>(),
        pickup in any::<bool>(),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut judged = Judged::new(v6, pickup);
        for event in events {
            judged.happens(event).map_err(|text| TestCaseError::fail(std::format!("{event:?}: {text}")))?;
        }
    }
}
