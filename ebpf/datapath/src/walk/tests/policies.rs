//! Policy, at both ends and over time. What a set decides is tested with it; here it is who is asked, and when.

use super::*;
use crate::Addr;
use crate::peer::{Peer, PeerFlags, PodWord};
use crate::policy::{ALLOW_ALL, DENY_ALL, PeerKey, Row};
use crate::testing::{Fate, Hook};

/// A policy set that allows TCP and port 80.
const WEB: u32 = 40;
/// One that allows nothing.
const NOTHING: u32 = 41;

fn node() -> Node {
    let mut node = Node::new();
    node.policy_set(WEB, Some((TCP, 80)));
    node.policy_set(NOTHING, Some((TCP, 1)));
    node
}

#[test]
fn p27_p28_policy_is_asked_about_the_backend() {
    each(|v6, send| {
        for egress in [false, true] {
            let mut node = node();
            node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
            node.service((Node::other_vip(v6), 8080), TCP, &[(Node::pod(1, v6), 80)]);
            let reason = if egress {
                node.police(0, ALLOW_ALL, WEB);
                DropReason::EgressPolicy
            } else {
                node.police(1, WEB, ALLOW_ALL);
                DropReason::IngressPolicy
            };
            let from = (Node::pod(0, v6), CLIENT);
            let (landed, _) = send.pod(&mut node, 0, &tcp(from, (Node::vip(v6), 80), SYN));
            assert_eq!(landed, dropped(reason));
            assert_eq!(node.host.explanation(reason), (WEB, u16::MAX));
            assert!(node.host.flows.is_empty());
            let (landed, _) = send.pod(&mut node, 0, &tcp(from, (Node::other_vip(v6), 8080), SYN));
            assert_eq!(landed, Landed::Pod(1));
        }
    });
}

#[test]
fn the_report_of_a_drop_names_no_policy_that_was_not_asked() {
    let mut node = node();
    node.police(0, ALLOW_ALL, WEB);
    let mut frame = tcp((Node::pod(0, false), CLIENT), (Node::pod(1, false), 81), SYN).frame();
    assert_eq!(node.pod_sends(0, &mut frame), dropped(DropReason::EgressPolicy));
    assert_eq!(node.host.explanation(DropReason::EgressPolicy), (WEB, u16::MAX));
    let mut frame = tcp((Node::pod(3, false), CLIENT), (Node::pod(1, false), 81), SYN).frame();
    assert_eq!(node.pod_sends(0, &mut frame), dropped(DropReason::SourceAddress));
    assert_eq!(node.host.explanation(DropReason::SourceAddress), (0, u16::MAX));
}

#[test]
fn a_refusal_by_ingress_policy_is_counted_to_whose_policy_it_is() {
    each(|v6, send| {
        for service in [false, true] {
            let mut node = node();
            node.service((Node::vip(v6), 443), TCP, &[(Node::pod(1, v6), 80)]);
            let to = if service { (Node::vip(v6), 443) } else { (Node::pod(1, v6), 80) };
            let sent = |flags| tcp((Node::pod(0, v6), CLIENT), to, flags);
            let got = send.pod(&mut node, 0, &sent(SYN));
            answered(send, &mut node, 0, &sent(SYN), &got, SYN_ACK);
            send.pod(&mut node, 0, &sent(ACK));
            node.police(1, NOTHING, ALLOW_ALL);
            // Of a connection from before, in both directions, and of one that begins.
            for (slot, message) in [(0, sent(ACK)), (1, answer(&got.1, ACK)), (0, sent(SYN))] {
                let (landed, _) = send.pod(&mut node, slot, &message);
                assert_eq!(landed, dropped(DropReason::IngressPolicy));
                assert_eq!(
                    node.host.counted_to(DropReason::IngressPolicy),
                    Some(1),
                    "of pod {slot}, service {service}"
                );
            }
        }
        // What might have been the end of what the pod opened itself.
        let mut node = node();
        node.police(0, NOTHING, NOTHING);
        let (landed, _) = send.arrives(&mut node, &tcp((Node::far_pod(v6), 80), (Node::pod(0, v6), CLIENT), RST));
        assert_eq!(landed, dropped(DropReason::IngressPolicy));
        assert_eq!(node.host.counted_to(DropReason::IngressPolicy), Some(0));
    });
}

#[test]
fn p30_answers_pass_whatever_policy_says_of_their_direction() {
    each(|v6, send| {
        let mut node = node();
        node.police(0, NOTHING, ALLOW_ALL);
        node.police(1, ALLOW_ALL, NOTHING);
        for sent in [
            udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53)),
            tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80), SYN),
            Message::new(Node::pod(0, v6), Node::pod(1, v6), L4::Ask(77)),
        ] {
            let got = send.pod(&mut node, 0, &sent);
            answered(send, &mut node, 0, &sent, &got, SYN_ACK);
        }
        let (landed, _) = send.pod(&mut node, 1, &udp((Node::pod(1, v6), CLIENT), (Node::pod(0, v6), 53)));
        assert_eq!(landed, dropped(DropReason::EgressPolicy));
    });
}

#[test]
fn p30_an_answer_from_another_node_passes() {
    each(|v6, send| {
        let mut node = node();
        node.police(0, NOTHING, ALLOW_ALL);
        let (_, got) = send.pod(&mut node, 0, &udp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 53)));
        assert_eq!(send.arrives(&mut node, &answer(&got, 0)).0, Landed::Pod(0));
        let (landed, _) = send.arrives(&mut node, &udp((Node::far_pod(v6), 54), (Node::pod(0, v6), CLIENT)));
        assert_eq!(landed, dropped(DropReason::IngressPolicy));
    });
}

#[test]
fn p31_a_pod_is_never_kept_from_itself() {
    each(|v6, send| {
        let mut node = node();
        node.police(0, NOTHING, NOTHING);
        node.service((Node::vip(v6), 443), TCP, &[(Node::pod(0, v6), 8443)]);
        for to in [(Node::vip(v6), 443), (Node::pod(0, v6), 8443)] {
            let sent = tcp((Node::pod(0, v6), CLIENT), to, SYN);
            let got = send.pod(&mut node, 0, &sent);
            answered(send, &mut node, 0, &sent, &got, SYN_ACK);
        }
    });
}

#[test]
fn p33_the_node_reaches_its_pods_and_nobody_passes_for_it() {
    each(|v6, send| {
        let mut node = node();
        node.police(0, NOTHING, NOTHING);
        let sent = tcp((Node::address(v6), CLIENT), (Node::pod(0, v6), 8080), SYN);
        let (landed, got) = send.node(&mut node, &sent);
        assert_eq!(landed, Landed::Pod(0));
        assert_eq!(send.pod(&mut node, 0, &answer(&got, SYN_ACK)).0, Landed::Host);
        // Policy that moves does not end it either.
        node.police(0, NOTHING, NOTHING);
        assert_eq!(send.node(&mut node, &tcp(sent_from(v6), (Node::pod(0, v6), 8080), ACK)).0, Landed::Pod(0));
        assert_eq!(send.pod(&mut node, 0, &answer(&got, ACK)).0, Landed::Host);
        // From outside with the node's address, or brought by the stack: not from the node.
        let mut frame = send.frame(&udp(sent_from(v6), (Node::pod(0, v6), 53)));
        assert_eq!(node.arrives(&mut frame), dropped(DropReason::LocalAddress));
        let mut frame = send.frame(&udp(sent_from(v6), (Node::pod(0, v6), 53)));
        frame.ingress = Node::UPLINK;
        assert_eq!(node.host.run(Hook::ToPod(0), &mut frame), Fate::Drop(DropReason::IngressPolicy));
    });
}

fn sent_from(v6: bool) -> (IpAddr, u16) {
    (Node::address(v6), CLIENT)
}

#[test]
fn p39_a_flow_is_judged_again_when_policy_moves_and_stays_denied() {
    each(|v6, send| {
        for (service, changes, reason) in [
            (false, 0, DropReason::EgressPolicy),
            (false, 1, DropReason::IngressPolicy),
            (true, 0, DropReason::EgressPolicy),
            (true, 1, DropReason::IngressPolicy),
        ] {
            let mut node = node();
            node.service((Node::vip(v6), 443), TCP, &[(Node::pod(1, v6), 80)]);
            let to = if service { (Node::vip(v6), 443) } else { (Node::pod(1, v6), 80) };
            let sent = |flags| tcp((Node::pod(0, v6), CLIENT), to, flags);
            let got = send.pod(&mut node, 0, &sent(SYN));
            answered(send, &mut node, 0, &sent(SYN), &got, SYN_ACK);
            let got = send.pod(&mut node, 0, &sent(ACK));
            // A policy that still allows it, then one that doesn't.
            let police = |node: &mut Node, set| {
                let (ingress, egress) = if changes == 0 { (ALLOW_ALL, set) } else { (set, ALLOW_ALL) };
                node.police(changes, ingress, egress);
            };
            police(&mut node, WEB);
            answered(send, &mut node, 0, &sent(ACK), &got, ACK);
            assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, Landed::Pod(1));
            police(&mut node, NOTHING);
            // The answer is what comes next: it is judged as what it answers. Neither end brings the connection back by
            // trying again, though the other one may open connections.
            for _ in 0..3 {
                let (landed, _) = send.pod(&mut node, 1, &answer(&got.1, ACK));
                assert_eq!(landed, dropped(reason), "service {service}");
                assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, dropped(reason), "service {service}");
            }
            // When a policy allows it again in time it goes on, with its translation.
            police(&mut node, WEB);
            assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, Landed::Pod(1));
            answered(send, &mut node, 0, &sent(ACK), &got, ACK);
            // What begins anew and is denied leaves nothing behind.
            police(&mut node, NOTHING);
            assert_eq!(send.pod(&mut node, 0, &sent(SYN)).0, dropped(reason));
            assert!(node.host.flows.is_empty(), "service {service}");
            assert_eq!(node.host.flows.established(0), 0);
        }
    });
}

#[test]
fn p39_a_flow_of_another_node_is_judged_again() {
    each(|v6, send| {
        let mut node = node();
        let sent = |flags| tcp((Node::far_pod(v6), CLIENT), (Node::pod(0, v6), 80), flags);
        assert_eq!(send.arrives(&mut node, &sent(SYN)).0, Landed::Pod(0));
        node.police(0, WEB, NOTHING);
        let (landed, _) = send.pod(&mut node, 0, &answer(&seen(&sent(SYN).frame()), SYN_ACK));
        assert_eq!(landed, Landed::Node(0));
        node.police(0, NOTHING, NOTHING);
        for _ in 0..3 {
            assert_eq!(send.arrives(&mut node, &sent(ACK)).0, dropped(DropReason::IngressPolicy));
        }
    });
}

#[test]
fn p39_a_connection_older_than_the_tables_goes_on_if_either_direction_is_allowed() {
    each(|v6, send| {
        let data = tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80), ACK);
        let back = tcp((Node::pod(1, v6), 80), (Node::pod(0, v6), CLIENT), ACK);
        for first_is_answer in [false, true] {
            let mut node = node();
            node.host.config.pickup_until = u32::MAX;
            node.police(0, NOTHING, WEB);
            node.police(1, WEB, NOTHING);
            let both = [(0, &data, Landed::Pod(1)), (1, &back, Landed::Pod(0))];
            let order = if first_is_answer { [1, 0, 1, 0] } else { [0, 1, 0, 1] };
            for n in order {
                let (slot, message, expected) = both[n];
                assert_eq!(send.pod(&mut node, slot, message).0, expected, "{first_is_answer}");
            }
            // Judged again, it is still the one that opened who is asked.
            node.police(0, NOTHING, WEB);
            node.police(1, WEB, NOTHING);
            for n in order {
                let (slot, message, expected) = both[n];
                assert_eq!(send.pod(&mut node, slot, message).0, expected, "{first_is_answer}");
            }
        }
        let mut node = node();
        node.police(0, NOTHING, NOTHING);
        assert!(matches!(send.pod(&mut node, 0, &data).0, Landed::Dropped(_)));
    });
}

#[test]
fn p40_a_pod_without_a_policy_in_force_neither_sends_nor_receives() {
    each(|v6, send| {
        let mut node = node();
        node.host.peers.pods.get_mut(&0).unwrap().word = 0;
        node.service((Node::vip(v6), 80), UDP, &[(Node::pod(1, v6), 53)]);
        for to in [Node::pod(0, v6), Node::pod(1, v6), Node::far_pod(v6), Node::world(v6), Node::vip(v6)] {
            let (landed, _) = send.pod(&mut node, 0, &udp((Node::pod(0, v6), CLIENT), (to, 80)));
            assert_eq!(landed, dropped(DropReason::Pending), "{to}");
        }
        let to = (Node::pod(0, v6), 80);
        let (landed, _) = send.pod(&mut node, 1, &udp((Node::pod(1, v6), CLIENT), to));
        assert_eq!(landed, dropped(DropReason::Pending));
        let (landed, _) = send.arrives(&mut node, &udp((Node::far_pod(v6), CLIENT), to));
        assert_eq!(landed, dropped(DropReason::Pending));
        let (landed, _) = send.node(&mut node, &udp((Node::address(v6), CLIENT), to));
        assert_eq!(landed, dropped(DropReason::Pending));
        assert!(node.host.flows.is_empty());
    });
}

#[test]
fn p40_not_even_an_error_about_an_old_flow_reaches_a_pod_without_a_policy_in_force() {
    each(|v6, send| {
        let mut node = node();
        let mut frame = send.frame(&udp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 53)));
        assert_eq!(node.pod_sends(0, &mut frame), Landed::Node(0));
        frame.complete();
        let kind = if v6 { (1, 4, 0) } else { (3, 3, 0) };
        let error = Message::error(Node::far_pod(v6), &frame, kind, 500);
        assert_eq!(node.arrives(&mut error.frame()), Landed::Pod(0));
        node.host.peers.pods.get_mut(&0).unwrap().word = 0;
        assert_eq!(node.arrives(&mut error.frame()), dropped(DropReason::Pending));
    });
}

#[test]
fn p40_a_pod_that_goes_takes_its_flows_along() {
    each(|v6, send| {
        let mut node = node();
        let sent = udp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 53));
        let got = send.pod(&mut node, 0, &sent);
        answered(send, &mut node, 0, &sent, &got, 0);
        node.host.peers.pods.get_mut(&1).unwrap().word = 0;
        let (landed, _) = send.pod(&mut node, 0, &sent);
        assert_eq!(landed, dropped(DropReason::Pending));
        // Another pod in the same slot, with another address, does not get what is left.
        let far = Node::far_pod(v6);
        let pod = node.host.peers.pods.get_mut(&1).unwrap();
        pod.word = PodWord::new(ALLOW_ALL, ALLOW_ALL, 9).0;
        if v6 {
            pod.v6 = far.into();
        } else {
            pod.v4 = far.into();
        }
        node.host.peers.peers.remove(&Node::pod(1, v6).into());
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Refused(DropReason::NoSuchPod));
    });
}

#[test]
fn p40_deny_all_keeps_even_a_pod_from_itself() {
    each(|v6, send| {
        let mut node = node();
        node.police(0, DENY_ALL, DENY_ALL);
        let (landed, _) = send.pod(&mut node, 0, &udp((Node::pod(0, v6), CLIENT), (Node::pod(0, v6), 53)));
        assert!(matches!(landed, Landed::Dropped(DropReason::EgressPolicy | DropReason::Pending)), "{landed:?}");
    });
}

#[test]
fn p78_a_flow_goes_on_where_its_address_lingers_and_no_other_begins() {
    const ASKS: u32 = 42;
    const CLASS: u32 = 7;
    each(|v6, send| {
        let mut node = node();
        node.policy_set(ASKS, Some((UDP, 53)));
        node.police(0, ALLOW_ALL, ASKS);
        let sent = |port| udp((Node::pod(0, v6), port), (Node::world(v6), 53));
        let goes = |node: &mut Node, port| !matches!(send.pod(node, 0, &sent(port)).0, Landed::Dropped(_));
        assert!(goes(&mut node, CLIENT));
        // To new flows the address meets nothing any more. To those that are known it meets what everybody does.
        let key = PeerKey { set: ASKS, class: CLASS, page: 0 };
        node.host.policies.peers.insert(key, Row::new([0; 4]).sealed(key.tag()));
        let addr = Addr::from(Node::world(v6));
        let lingers = Peer { class: CLASS, flags: PeerFlags::LINGERS, ..Peer::WORLD };
        node.host.peers.peers.insert(addr, lingers.sealed(addr.tag()));
        for _ in 0..2 {
            assert!(goes(&mut node, CLIENT), "it is not asked about, and when it is, it goes on");
            assert_eq!(send.pod(&mut node, 0, &sent(CLIENT + 1)).0, dropped(DropReason::EgressPolicy));
            node.police(0, ALLOW_ALL, ASKS);
        }
        // Once nobody lingers there, a change of policy ends it.
        let gone = Peer { class: CLASS, ..Peer::WORLD };
        node.host.peers.peers.insert(addr, gone.sealed(addr.tag()));
        assert!(!goes(&mut node, CLIENT));
    });
}
