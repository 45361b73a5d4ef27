//! S83, S84: who is told of what is refused, and how often.

use super::*;
use crate::errors::{Receiver, TO_ONE, TO_OUTSIDE};
use crate::ifindex_of;
use crate::service::Scope;
use crate::testing::{Fate, Hook};

/// A node with a service that nobody serves.
fn refusing(v6: bool) -> Node {
    let mut node = Node::new();
    for proto in [TCP, UDP] {
        node.frontend((Node::vip(v6), 80), proto, 1, Scope::REJECT);
    }
    // A kernel's clock goes on meanwhile.
    node.host.record_nothing("it is about how many packets there are in a second");
    node
}

/// A message to that service.
fn to_nobody(from: IpAddr, proto: u8, v6: bool) -> Message {
    let (from, to) = ((from, CLIENT), (Node::vip(v6), 80));
    if proto == TCP { tcp(from, to, SYN) } else { udp(from, to) }
}

/// An address of a network outside.
fn network(number: u16, host: u8, v6: bool) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if v6 {
        let group = u16::from(host);
        IpAddr::from([0x2001, 0xdb8, 0xff, number, 0, 0, 0, group])
    } else {
        IpAddr::from([198, 18 + high, low, host])
    }
}

/// Has messages come in by the uplink that are refused: how many of the senders are told.
#[track_caller]
fn told(node: &mut Node, froms: impl Iterator<Item = IpAddr>, proto: u8, v6: bool) -> u64 {
    let landed = froms.map(|from| node.arrives(&mut to_nobody(from, proto, v6).frame()));
    let mut told = 0;
    landed.for_each(|landed| match landed {
        Landed::Refused(DropReason::Rejected) => told += 1,
        Landed::Dropped(DropReason::Rejected) => {}
        other => panic!("{other:?}"),
    });
    told
}

/// What one is told at once.
const AT_ONCE: u64 = TO_ONE.rate * TO_ONE.ahead as u64 / 1_000_000 + 1;

#[test]
fn s83_a_network_is_told_so_often_and_takes_nothing_from_others() {
    for (v6, proto) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let mut node = refusing(v6);
        let flood = |node: &mut Node, count| told(node, (0..count).map(|n| network(1, n as u8, v6)), proto, v6);
        assert_eq!(flood(&mut node, 3000), AT_ONCE);
        assert_eq!(node.host.unsent(Receiver::Outside), 3000 - AT_ONCE);
        // Each of these has what it had.
        let others = (2..40).map(|number| network(number, 1, v6));
        let others: Vec<_> = others.filter(|ip| told(&mut node, core::iter::once(*ip), proto, v6) == 1).collect();
        assert!(others.len() >= 37, "only one that shares a place is not told: {}", others.len());
        assert_eq!(told(&mut node, core::iter::repeat_n(Node::far_pod(v6), 10), proto, v6), 10);
        assert_eq!(told(&mut node, core::iter::repeat_n(Node::other_node(v6), 10), proto, v6), 10);
        let asks = |node: &mut Node| node.pod_sends(0, &mut to_nobody(Node::pod(0, v6), proto, v6).frame());
        assert_eq!(asks(&mut node), Landed::Refused(DropReason::Rejected));
        let own = to_nobody(Node::address(v6), proto, v6);
        assert_eq!(node.asks(&mut own.frame()), Landed::Refused(DropReason::Rejected));
        // With time comes more.
        node.host.nanos = 10 * TO_ONE.duration(1);
        assert_eq!(flood(&mut node, 100), 10);
        node.host.now += 60;
        assert_eq!(flood(&mut node, 3000), AT_ONCE);
    }
}

#[test]
fn s83_what_nobody_is_told_of_takes_nobodys_turn() {
    for v6 in [false, true] {
        let mut node = refusing(v6);
        let from = network(1, 1, v6);
        let reset = tcp((from, CLIENT), (Node::vip(v6), 80), RST);
        let mut large = udp((from, CLIENT), (Node::vip(v6), 80));
        large.payload = std::vec![7; 2000];
        for _ in 0..AT_ONCE + 100 {
            assert!(!matches!(node.arrives(&mut reset.frame()), Landed::Refused(_)));
            for piece in &mut large.fragments(1400, 9)[1..] {
                assert!(!matches!(node.arrives(piece), Landed::Refused(_)));
            }
        }
        assert_eq!(node.host.unsent(Receiver::Outside), 0);
        assert_eq!(told(&mut node, core::iter::once(from), TCP, v6), 1);
    }
}

#[test]
fn s83_all_networks_together_are_told_so_often_and_take_nothing_from_pods_and_nodes() {
    const OUTSIDE: u64 = TO_OUTSIDE.rate * TO_OUTSIDE.ahead as u64 / 1_000_000 + 1;
    for v6 in [false, true] {
        let mut node = refusing(v6);
        let everybody = (0..20_000).map(|n| network(n % 500, (n / 500) as u8, v6));
        assert_eq!(told(&mut node, everybody, UDP, v6), OUTSIDE);
        assert_eq!(node.host.unsent(Receiver::Outside), 20_000 - OUTSIDE);
        // A node that floods takes nothing from anybody either.
        assert_eq!(told(&mut node, core::iter::repeat_n(Node::far_pod(v6), 2000), UDP, v6), AT_ONCE);
        assert_eq!(node.host.unsent(Receiver::Node), 2000 - AT_ONCE);
        // Nor does a pod.
        let refused = |node: &mut Node, slot| {
            let landed = node.pod_sends(slot, &mut to_nobody(Node::pod(slot, v6), UDP, v6).frame());
            u64::from(landed == Landed::Refused(DropReason::Rejected))
        };
        assert_eq!((0..2000).map(|_| refused(&mut node, 1)).sum::<u64>(), AT_ONCE);
        assert_eq!(node.host.unsent(Receiver::Pod), 2000 - AT_ONCE);
        assert_eq!(refused(&mut node, 2), 1);
        let own = to_nobody(Node::address(v6), UDP, v6);
        assert_eq!(node.asks(&mut own.frame()), Landed::Refused(DropReason::Rejected));
        assert_eq!(node.host.unsent(Receiver::Own), 0);
    }
}

#[test]
fn s83_who_poses_as_a_pod_or_as_the_node_at_an_uplink_and_who_speaks_to_all_is_not_told() {
    each(|v6, send| {
        let mut node = refusing(v6);
        for from in [Node::pod(1, v6), Node::address(v6)] {
            assert_eq!(told(&mut node, core::iter::once(from), UDP, v6), 0, "{from}");
        }
        let mut to_all = send.frame(&to_nobody(Node::world(v6), UDP, v6));
        to_all.bytes[..6].fill(0xff);
        assert_eq!(node.arrives(&mut to_all), dropped(DropReason::Rejected));
        let nobodys: &[&str] =
            if v6 { &["::", "::1", "ff02::1"] } else { &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] };
        for from in nobodys.iter().map(|from| from.parse().unwrap()) {
            let fate = node.host.run(Hook::FromUplink(Node::UPLINK), &mut send.frame(&to_nobody(from, UDP, v6)));
            assert!(!matches!(fate, Fate::Refused(_)), "{from}: {fate:?}");
        }
        // A pod elsewhere is told where other nodes are, and there alone.
        let far = send.frame(&to_nobody(Node::far_pod(v6), UDP, v6));
        let aside = node.host.uplinks[&Node::UPLINK];
        node.host.uplinks.insert(9, crate::config::Uplink { flags: 0, ..aside });
        for (ifindex, fate) in
            [(Node::UPLINK, Fate::Refused(DropReason::Rejected)), (9, Fate::Drop(DropReason::Rejected))]
        {
            assert_eq!(node.host.run(Hook::FromUplink(ifindex), &mut far.clone()), fate);
        }
    });
}

#[test]
fn s84_on_its_way_to_services_nobody_is_told_but_who_is_where_it_came_from() {
    each(|v6, send| {
        let mut node = refusing(v6);
        // An address of the node that no object names: its routes lead nowhere from there.
        let secondary = network(7, 1, v6);
        let container = network(8, 1, v6);
        let mut run = |from: IpAddr, ingress: u32, onward: Option<u32>, marked: bool| {
            node.host.onward = onward.map(|ifindex| (ifindex, 1500));
            let mut frame = send.frame(&to_nobody(from, UDP, v6));
            frame.ingress = ingress;
            frame.mark = if marked { node.host.config.mark } else { 0 };
            node.host.run(Hook::ToServices, &mut frame)
        };
        let (refused, silent) = (Fate::Refused(DropReason::Rejected), Fate::Drop(DropReason::Rejected));
        for (from, ingress, onward, marked, fate) in [
            (Node::address(v6), 0, None, false, refused),
            (secondary, 0, None, false, refused),
            (Node::pod(1, v6), 0, None, false, silent),
            (Node::far_pod(v6), 0, Some(Node::UPLINK), false, silent),
            (Node::world(v6), 0, Some(Node::UPLINK), false, silent),
            (Node::pod(1, v6), 0, None, true, silent),
            // A device behind the node that nobody serves.
            (container, 7, Some(7), false, refused),
            (container, 7, Some(Node::UPLINK), false, silent),
            (Node::pod(1, v6), 7, None, false, silent),
            (Node::address(v6), 7, None, false, silent),
            // What a pod sent, and the stack has brought there.
            (Node::pod(1, v6), ifindex_of(1), None, true, refused),
            (Node::pod(1, v6), ifindex_of(1), None, false, refused),
            (Node::pod(2, v6), ifindex_of(1), None, true, silent),
        ] {
            assert_eq!(run(from, ingress, onward, marked), fate, "{from} by {ingress}, marked: {marked}");
        }
    });
}
