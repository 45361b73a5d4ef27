//! What is counted of rules: flows that are made, and packets that are dropped.

use super::*;
use crate::policy::{ALLOW_ALL, HitKey, Hits, NO_BIT};

/// What the first pod may send, and what the second may receive: TCP to port 80.
const OUT: u32 = 40;
const IN: u32 = 41;

fn node() -> Node {
    let mut node = Node::new();
    for set in [OUT, IN] {
        node.policy_set(set, Some((TCP, 80)));
        for bit in [0, NO_BIT.into()] {
            node.host.hits.borrow_mut().insert(HitKey { set, bit }, Hits::default());
        }
    }
    node.police(0, ALLOW_ALL, OUT);
    node.police(1, IN, ALLOW_ALL);
    node
}

/// Flows of the set's rule, packets that it denied, and the same of what no rule matched.
fn counted(node: &Node, set: u32) -> [(u64, u64); 2] {
    let hits = node.host.hits.borrow();
    [0, NO_BIT.into()].map(|bit| (hits[&HitKey { set, bit }].flows, hits[&HitKey { set, bit }].denied))
}

const NOTHING: [(u64, u64); 2] = [(0, 0), (0, 0)];

#[test]
fn p71_a_flow_is_counted_once_at_each_end_and_its_packets_are_not() {
    each(|v6, send| {
        for service in [false, true] {
            let mut node = node();
            node.service((Node::vip(v6), 443), TCP, &[(Node::pod(1, v6), 80)]);
            let to = if service { (Node::vip(v6), 443) } else { (Node::pod(1, v6), 80) };
            let sent = |flags| tcp((Node::pod(0, v6), CLIENT), to, flags);
            let got = send.pod(&mut node, 0, &sent(SYN));
            for _ in 0..3 {
                answered(send, &mut node, 0, &sent(SYN), &got, SYN_ACK);
                assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, Landed::Pod(1));
            }
            assert_eq!(counted(&node, OUT), [(1, 0), (0, 0)]);
            assert_eq!(counted(&node, IN), [(1, 0), (0, 0)]);
            // The same rules are asked again when policy moves: it is the same flow.
            node.police(0, ALLOW_ALL, OUT);
            node.police(1, IN, ALLOW_ALL);
            assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, Landed::Pod(1));
            assert_eq!(counted(&node, OUT), [(1, 0), (0, 0)]);
            assert_eq!(counted(&node, IN), [(1, 0), (0, 0)]);
            let last = node.host.hits.borrow()[&HitKey { set: IN, bit: 0 }].last;
            assert_eq!(last, u64::from(node.host.now));
        }
    });
}

#[test]
fn p71_a_flow_from_another_node_is_counted_where_it_is_judged() {
    each(|v6, send| {
        let mut node = node();
        let sent = tcp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), 80), SYN);
        assert_eq!(send.arrives(&mut node, &sent).0, Landed::Pod(1));
        assert_eq!(counted(&node, IN), [(1, 0), (0, 0)]);
        assert_eq!(counted(&node, OUT), NOTHING);
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::far_pod(v6), 80), SYN);
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Node(0));
        assert_eq!(counted(&node, OUT), [(1, 0), (0, 0)]);
        // What the node itself sends is not judged.
        let sent = tcp((Node::address(v6), CLIENT), (Node::pod(1, v6), 80), SYN);
        assert_eq!(send.node(&mut node, &sent).0, Landed::Pod(1));
        assert_eq!(counted(&node, IN), [(1, 0), (0, 0)]);
    });
}

#[test]
fn p71_each_packet_that_is_denied_is_counted_where_it_was_denied() {
    each(|v6, send| {
        let mut node = node();
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 81), SYN);
        for _ in 0..3 {
            assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::EgressPolicy));
        }
        assert_eq!(counted(&node, OUT), [(0, 0), (0, 3)]);
        assert_eq!(counted(&node, IN), NOTHING, "it was not asked");
        // Allowed to go, and denied at the other end: no flow was made.
        node.police(0, ALLOW_ALL, ALLOW_ALL);
        assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::IngressPolicy));
        assert_eq!(counted(&node, IN), [(0, 0), (0, 1)]);
        assert_eq!(counted(&node, OUT), [(0, 0), (0, 3)]);
        let far = tcp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), 81), SYN);
        assert_eq!(send.arrives(&mut node, &far).0, dropped(DropReason::IngressPolicy));
        assert_eq!(counted(&node, IN), [(0, 0), (0, 2)]);
    });
}

#[test]
fn p71_packets_of_a_flow_that_is_denied_since_are_counted() {
    each(|v6, send| {
        let mut node = node();
        node.police(0, ALLOW_ALL, ALLOW_ALL);
        node.police(1, ALLOW_ALL, ALLOW_ALL);
        let sent = |flags| tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 81), flags);
        let got = send.pod(&mut node, 0, &sent(SYN));
        answered(send, &mut node, 0, &sent(SYN), &got, SYN_ACK);
        node.police(1, IN, ALLOW_ALL);
        for _ in 0..2 {
            assert_eq!(send.pod(&mut node, 0, &sent(ACK)).0, dropped(DropReason::IngressPolicy));
        }
        assert_eq!(counted(&node, IN), [(0, 0), (0, 2)]);
    });
}

#[test]
fn p71_what_was_asked_in_vain_of_an_older_connection_is_not_counted() {
    each(|v6, send| {
        let back = tcp((Node::pod(1, v6), 80), (Node::pod(0, v6), CLIENT), ACK);
        let mut node = node();
        node.host.config.pickup_until = u32::MAX;
        // The answer comes first: what the server may open, and the client receive, says nothing of it.
        node.police(0, IN, OUT);
        node.police(1, IN, OUT);
        assert_eq!(send.pod(&mut node, 1, &back).0, Landed::Pod(0));
        assert_eq!(counted(&node, OUT), [(1, 0), (0, 0)]);
        assert_eq!(counted(&node, IN), [(1, 0), (0, 0)]);
        // From another node, and denied either way: once, by the pod's ingress policy.
        let far = tcp((Node::far_pod(v6), CLIENT), (Node::pod(1, v6), 81), ACK);
        assert_eq!(send.arrives(&mut node, &far).0, dropped(DropReason::IngressPolicy));
        assert_eq!(counted(&node, IN), [(1, 0), (0, 1)]);
        assert_eq!(counted(&node, OUT), [(1, 0), (0, 0)]);
        // An answer to another node.
        let far = tcp((Node::far_pod(v6), 80), (Node::pod(0, v6), CLIENT), ACK);
        assert_eq!(send.arrives(&mut node, &far).0, Landed::Pod(0));
        assert_eq!(counted(&node, OUT), [(2, 0), (0, 0)]);
        assert_eq!(counted(&node, IN), [(1, 0), (0, 1)]);
    });
}

#[test]
fn p71_a_segment_that_leaves_no_flow_is_not_counted() {
    each(|v6, send| {
        let mut node = node();
        for flags in [ACK, TcpFlags::RST] {
            let sent = tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), 80), flags);
            assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Pod(1));
        }
        assert_eq!((counted(&node, OUT), counted(&node, IN)), (NOTHING, NOTHING));
    });
}

#[test]
fn p72_a_set_that_has_no_counters_judges_as_any_other() {
    each(|v6, send| {
        let mut node = node();
        node.host.hits.borrow_mut().retain(|key, _| key.set == OUT);
        for (port, landed) in [(80, Landed::Pod(1)), (81, dropped(DropReason::EgressPolicy))] {
            let sent = tcp((Node::pod(0, v6), CLIENT), (Node::pod(1, v6), port), SYN);
            assert_eq!(send.pod(&mut node, 0, &sent).0, landed);
        }
        assert_eq!(counted(&node, OUT), [(1, 0), (0, 1)]);
        assert_eq!(node.host.hits.borrow().len(), 2, "the agent alone makes counters");
    });
}
