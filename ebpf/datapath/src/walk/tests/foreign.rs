//! Pods that another plugin has wired: judged and led to Services as others, on ways that are not ours.

use super::*;
use crate::peer::{CidrKey, NO_SLOT, Peer, PeerFlags};
use crate::policy::ALLOW_ALL;
use crate::testing::{Fate, Hook, ip};

/// The interface of the pod in a slot.
const SIDE: u32 = 700;

/// A node on which all pods are another plugin's, and so are the ways to others.
fn foreign() -> Node {
    let mut node = Node::new();
    node.host.record_nothing("interfaces of the numbers that other plugins' have are in no kernel of the matrix");
    for slot in 0..Node::PODS {
        node.host.peers.host_sides.insert(slot, SIDE + u32::from(slot));
    }
    node.host.uplinks.values_mut().for_each(|uplink| uplink.flags = 0);
    for v6 in [false, true] {
        let far = crate::Addr::from(Node::far_pod(v6));
        let flags = PeerFlags::EXISTS | PeerFlags::KEEP_SOURCE;
        node.host.peers.peers.insert(far, Peer { flags, slot: NO_SLOT, ..Peer::WORLD }.sealed(far.tag()));
        let all = if v6 { "::" } else { "0.0.0.0" };
        let everything = Peer { flags: PeerFlags::KEEP_SOURCE, ..Peer::WORLD };
        node.host.peers.cidrs.insert(CidrKey::prefix(ip(all).into(), 0), everything);
    }
    node
}

fn run(node: &mut Node, send: Send, hook: Hook, message: &Message) -> (Fate, Seen) {
    let mut frame = send.frame(message);
    frame.ingress = match hook {
        Hook::FromPod(slot) => SIDE + u32::from(slot),
        // By the bridge that the other plugin has.
        _ => 99,
    };
    let fate = node.host.run(hook, &mut frame);
    assert_eq!(frame.mark, 0, "nothing is marked");
    (fate, seen(&frame))
}

#[test]
fn c55_packets_go_the_way_of_the_other_network_and_are_judged_on_it() {
    each(|v6, send| {
        let mut node = foreign();
        for (to, slot) in [(Node::pod(1, v6), Some(1)), (Node::far_pod(v6), None), (Node::world(v6), None)] {
            let sent = tcp((Node::pod(0, v6), CLIENT), (to, 80), SYN);
            let (fate, got) = run(&mut node, send, Hook::FromPod(0), &sent);
            assert_eq!((fate, got.ends()), (Fate::Pass, seen(&sent.frame()).ends()), "{to}");
            if let Some(slot) = slot {
                assert_eq!(run(&mut node, send, Hook::ToPod(slot), &sent).0, Fate::Pass);
            }
            let back = answer(&got, SYN_ACK);
            if let Some(slot) = slot {
                assert_eq!(run(&mut node, send, Hook::FromPod(slot), &back).0, Fate::Pass);
            } else {
                assert_eq!(run(&mut node, send, Hook::FromUplink(Node::UPLINK), &back).0, Fate::Pass);
            }
            assert_eq!(run(&mut node, send, Hook::ToPod(0), &back).0, Fate::Pass);
        }
        node.policy_set(5, Some((TCP, 443)));
        node.police(1, 5, ALLOW_ALL);
        for from in [Node::pod(0, v6), Node::far_pod(v6), Node::world(v6)] {
            for (port, open) in [(443, true), (80, false)] {
                let sent = tcp((from, CLIENT + 1), (Node::pod(1, v6), port), SYN);
                let hook = if from == Node::pod(0, v6) { Hook::FromPod(0) } else { Hook::ToPod(1) };
                let expected = if open { Fate::Pass } else { Fate::Drop(DropReason::IngressPolicy) };
                assert_eq!(run(&mut node, send, hook, &sent).0, expected, "{from} to {port}");
            }
        }
        // Not its own address; and what a bridge floods is nobody's else.
        let posing = tcp((Node::pod(2, v6), CLIENT), (Node::pod(1, v6), 443), SYN);
        assert_eq!(run(&mut node, send, Hook::FromPod(0), &posing).0, Fate::Drop(DropReason::SourceAddress));
        let flooded = tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 443), SYN);
        assert_eq!(run(&mut node, send, Hook::ToPod(3), &flooded).0, Fate::Ignore);
    });
}

#[test]
fn c54_services_are_translated_where_the_client_is_and_come_back_there() {
    each(|v6, send| {
        let mut node = foreign();
        let (client, vip) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80));
        // To a pod of this node: handed over, both ways, whatever the bridge is.
        node.service(vip, TCP, &[(Node::pod(1, v6), 8080)]);
        let sent = tcp(client, vip, SYN);
        let (fate, got) = run(&mut node, send, Hook::FromPod(0), &sent);
        assert_eq!((fate, got.ends()), (Fate::ToPod(1), (client, (Node::pod(1, v6), 8080))));
        let (fate, back) = run(&mut node, send, Hook::FromPod(1), &answer(&got, SYN_ACK));
        assert_eq!((fate, back.ends()), (Fate::ToPod(0), (vip, client)));
        // To one elsewhere: by the stack, and translated back at the client alone.
        let far = (Node::other_vip(v6), 80);
        node.service(far, TCP, &[(Node::far_pod(v6), 8080)]);
        let (fate, got) = run(&mut node, send, Hook::FromPod(0), &tcp(client, far, SYN));
        assert_eq!((fate, got.ends()), (Fate::Stack, (client, (Node::far_pod(v6), 8080))));
        let back = answer(&got, SYN_ACK);
        let (fate, at_uplink) = run(&mut node, send, Hook::FromUplink(Node::UPLINK), &back);
        assert_eq!((fate, at_uplink.ends()), (Fate::Pass, ((Node::far_pod(v6), 8080), client)));
        let (fate, back) = run(&mut node, send, Hook::ToPod(0), &back);
        assert_eq!((fate, back.ends()), (Fate::Pass, (far, client)));
        // One that nobody knows is none of it; one that was there before is left to the proxy that made it.
        for flags in [ACK, TcpFlags::RST] {
            let stray = tcp((Node::pod(0, v6), CLIENT + 6), vip, flags);
            let (fate, _) = run(&mut node, send, Hook::FromPod(0), &stray);
            assert_eq!(fate, Fate::Drop(DropReason::NoFlow));
        }
        node.host.config.pickup_until = node.host.now + 60;
        let older = tcp((Node::pod(0, v6), CLIENT + 5), vip, ACK);
        let (fate, got) = run(&mut node, send, Hook::FromPod(0), &older);
        assert_eq!((fate, got.ends()), (Fate::Pass, seen(&older.frame()).ends()));
        assert_eq!(run(&mut node, send, Hook::ToPod(0), &answer(&got, ACK)).0, Fate::Pass);
    });
}

#[test]
fn c55_who_comes_in_by_an_uplink_is_no_pod_of_the_node() {
    each(|v6, send| {
        let mut node = foreign();
        let mut arrives = |by, port, flags| {
            let mut frame = send.frame(&tcp((Node::pod(0, v6), port), (Node::pod(1, v6), 80), flags));
            frame.ingress = by;
            node.host.run(Hook::ToPod(1), &mut frame)
        };
        assert_eq!(arrives(Node::UPLINK, CLIENT, SYN), Fate::Drop(DropReason::LocalAddress));
        assert_eq!(arrives(99, CLIENT, SYN), Fate::Pass);
        // Nor does it take part in a connection of that pod's.
        let sent = tcp((Node::pod(0, v6), CLIENT + 1), (Node::pod(1, v6), 80), SYN);
        assert_eq!(run(&mut node, send, Hook::FromPod(0), &sent).0, Fate::Pass);
        let mut arrives = |by, flags| {
            let mut frame = send.frame(&tcp((Node::pod(0, v6), CLIENT + 1), (Node::pod(1, v6), 80), flags));
            frame.ingress = by;
            node.host.run(Hook::ToPod(1), &mut frame)
        };
        assert_eq!(arrives(Node::UPLINK, ACK), Fate::Drop(DropReason::LocalAddress));
        assert_eq!(arrives(99, ACK), Fate::Pass);
    });
}

#[test]
fn p37_discovery_and_arp_are_all_that_passes_without_policy() {
    let mut node = foreign();
    let (own, other, group) = (Node::pod(0, true), Node::pod(1, true), ip("ff02::1"));
    let mut sends = |src, dst, kind, ttl| {
        let mut message = Message::new(src, dst, L4::Icmp(kind, 0, 0));
        message.ttl = ttl;
        node.host.run(Hook::FromPod(0), &mut message.frame())
    };
    for src in [own, ip("fe80::9"), ip("::")] {
        assert_eq!(sends(src, group, 135, 255), Fate::Pass, "{src}");
        assert_eq!(sends(src, group, 143, 1), Fate::Pass, "{src}");
        assert_eq!(sends(src, other, 135, 64), Fate::Drop(DropReason::Malformed), "{src}");
        assert_eq!(sends(src, other, 143, 64), Fate::Drop(DropReason::Malformed), "{src}");
    }
    assert_eq!(sends(other, group, 136, 255), Fate::Drop(DropReason::SourceAddress));
    for (kind, fate) in [([8, 6], Fate::Pass), ([0x88, 0xb5], Fate::Drop(DropReason::NotIp))] {
        let mut bytes = std::vec![2; 60];
        bytes[12..14].copy_from_slice(&kind);
        assert_eq!(node.host.run(Hook::ToPod(1), &mut Frame::new(bytes)), fate, "{kind:x?}");
    }
}

#[test]
fn p82_what_is_for_all_hosts_of_another_plugins_network_is_judged_at_each_pod() {
    let mut node = foreign();
    let all = ip("192.0.2.255");
    node.host.services.node_addresses.insert(all.into(), crate::service::NodeAddress::BROADCAST);
    node.policy_set(5, Some((UDP, 1)));
    node.police(2, 5, ALLOW_ALL);
    let sent = udp((Node::pod(0, false), CLIENT), (all, 53));
    let send = Send { partial: false };
    assert_eq!(run(&mut node, send, Hook::FromPod(0), &sent).0, Fate::Pass);
    assert_eq!(run(&mut node, send, Hook::ToPod(1), &sent).0, Fate::Pass);
    assert_eq!(run(&mut node, send, Hook::ToPod(2), &sent).0, Fate::Drop(DropReason::IngressPolicy));
    node.police(0, ALLOW_ALL, 5);
    let again = udp((Node::pod(0, false), CLIENT + 1), (all, 53));
    assert_eq!(run(&mut node, send, Hook::FromPod(0), &again).0, Fate::Drop(DropReason::EgressPolicy));
}
