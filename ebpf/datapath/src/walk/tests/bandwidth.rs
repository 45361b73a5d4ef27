//! Limits of bandwidth: what counts for whom, and when it is too much.

use proptest::prelude::*;

use super::*;
use crate::bandwidth::{Bandwidth, Limit, Pace};

/// A nanosecond for each byte, and no packet ahead of that by more than a microsecond.
const LIMIT: Limit = Limit { rate: 1_000_000_000, ahead: 1, paced: 0 };
const PACED: Limit = Limit { paced: 1, ..LIMIT };

/// A node whose pod 0 has a limit for what it sends, and whose pod 1 for what it receives. A kernel has another clock, so none
/// runs this again.
fn limited(egress: Limit, ingress: Limit) -> Node {
    let mut node = Node::new();
    node.host.record_nothing("nanoseconds of the clock decide");
    node.host.bandwidth.insert(0, Bandwidth { egress, ingress: Limit::NONE });
    node.host.bandwidth.insert(1, Bandwidth { egress: Limit::NONE, ingress });
    for slot in 0..Node::PODS {
        node.host.paces.insert(slot, Pace::default());
    }
    node
}

/// How far a pod's packets are ahead, in nanoseconds: those that it sent, and those that it received.
fn ahead(node: &Node, slot: u16) -> [u64; 2] {
    let Pace { egress, ingress } = &node.host.paces[&slot];
    let now = u64::from(node.host.now) * 1_000_000_000 + node.host.nanos;
    [egress, ingress].map(|word| word.load().saturating_sub(now))
}

#[test]
fn what_a_pod_sends_counts_for_it_wherever_it_goes() {
    each(|v6, send| {
        let here = [Node::pod(1, v6), Node::pod(2, v6)];
        let away = [Node::far_pod(v6), Node::world(v6), Node::address(v6), Node::other_node(v6)];
        for to in here.into_iter().chain(away) {
            let mut node = limited(LIMIT, LIMIT);
            let message = udp((Node::pod(0, v6), CLIENT), (to, 53));
            let bytes = message.frame().bytes.len() as u64;
            let (landed, _) = send.pod(&mut node, 0, &message);
            assert!(!matches!(landed, Landed::Dropped(_) | Landed::Refused(_)), "{landed:?} {to}");
            let received = if to == Node::pod(1, v6) { bytes } else { 0 };
            assert_eq!((ahead(&node, 0), ahead(&node, 1)), ([bytes, 0], [0, received]), "{to}");
            // What comes back is no business of a limit for the other direction.
            send.arrives(&mut node, &udp((to, 53), (Node::pod(0, v6), CLIENT)));
            assert_eq!(ahead(&node, 0), [bytes, 0], "{to}");
        }
    });
}

#[test]
fn what_a_pod_receives_counts_for_it_wherever_it_comes_from() {
    each(|v6, send| {
        let to = (Node::pod(1, v6), 53);
        let one = |message: Message, how: fn(Send, &mut Node, &Message) -> (Landed, Seen)| {
            let mut node = limited(LIMIT, LIMIT);
            let bytes = message.frame().bytes.len() as u64;
            for times in 1..=2 {
                assert_eq!(how(send, &mut node, &message).0, Landed::Pod(1), "{message:?}");
                assert_eq!(ahead(&node, 1), [0, times * bytes], "{message:?}");
            }
        };
        one(udp((Node::pod(2, v6), CLIENT), to), |send, node, message| send.pod(node, 2, message));
        one(udp((Node::address(v6), CLIENT), to), Send::node);
        for from in [Node::far_pod(v6), Node::world(v6), Node::other_node(v6)] {
            one(udp((from, CLIENT), to), Send::arrives);
        }
    });
}

#[test]
fn what_is_too_far_ahead_is_dropped_until_its_turn_comes() {
    each(|v6, send| {
        let mut node = limited(LIMIT, Limit::NONE);
        let large = |to| Message { payload: std::vec![0; 1200], ..udp((Node::pod(0, v6), CLIENT), (to, 53)) };
        for to in [Node::pod(1, v6), Node::far_pod(v6), Node::world(v6)] {
            node.host.now += 1;
            node.host.nanos = 0;
            let message = large(to);
            assert!(!matches!(send.pod(&mut node, 0, &message).0, Landed::Dropped(_)), "{to}");
            let used = ahead(&node, 0);
            assert_eq!(send.pod(&mut node, 0, &message).0, dropped(DropReason::Bandwidth), "{to}");
            assert_eq!(ahead(&node, 0), used, "what is dropped does not count");
            // Others go on as they were.
            let other = udp((Node::pod(2, v6), CLIENT), (to, 53));
            assert!(!matches!(send.pod(&mut node, 2, &other).0, Landed::Dropped(_)), "{to}");
            node.host.nanos = used[0] - 1000;
            assert!(!matches!(send.pod(&mut node, 0, &message).0, Landed::Dropped(_)), "{to}");
        }
    });
}

#[test]
fn what_leaves_the_node_waits_for_its_turn_where_a_queue_keeps_it() {
    each(|v6, send| {
        for (to, waits) in [(Node::far_pod(v6), true), (Node::world(v6), true), (Node::pod(1, v6), false)] {
            let mut node = limited(PACED, LIMIT);
            let message = udp((Node::pod(0, v6), CLIENT), (to, 53));
            let mut frame = send.frame(&message);
            node.pod_sends(0, &mut frame);
            assert_eq!(frame.departs, None, "the first has its turn at once");
            let turn = node.host.paces[&0].egress.load();
            let mut frame = send.frame(&message);
            node.pod_sends(0, &mut frame);
            assert_eq!(frame.departs, waits.then_some(turn), "{to}");
        }
    });
}

#[test]
fn each_segment_of_an_aggregate_has_headers() {
    for (l4, headers) in [(L4::Tcp(CLIENT, 80, SYN), 54), (L4::Udp(CLIENT, 53), 42)] {
        for (payload, segments) in [(1000, 1), (1001, 2), (10_000, 10)] {
            let mut node = limited(LIMIT, Limit::NONE);
            let message = Message {
                payload: std::vec![0; payload],
                ..Message::new(Node::pod(0, false), Node::pod(1, false), l4)
            };
            let mut frame = Frame { segment_size: 1000, ..message.frame() };
            assert_eq!(node.pod_sends(0, &mut frame), Landed::Pod(1));
            assert_eq!(ahead(&node, 0), [payload as u64 + segments * headers, 0], "{l4:?} {payload}");
        }
    }
}

/// Whether a packet may pass, after those that did: in no time before it has more passed than the rate allows and what may be
/// ahead of it.
fn may_pass(passed: &[(u64, u64)], now: u64) -> bool {
    let least = |from: usize| passed[from..].iter().map(|(_, bytes)| bytes).sum::<u64>();
    (0..passed.len()).all(|from| least(from) <= now - passed[from].0 + u64::from(LIMIT.ahead) * 1000)
}

proptest! {
    #[test]
    fn as_much_passes_as_in_a_model_that_forgets_nothing(steps in prop::collection::vec((0..3000_u64, 0..1400_usize), 1..60)) {
        let mut node = limited(LIMIT, Limit::NONE);
        let mut passed = Vec::new();
        for (pause, size) in steps {
            node.host.nanos += pause;
            let to = (Node::pod(1, false), 53);
            let message = Message { payload: std::vec![0; size], ..udp((Node::pod(0, false), CLIENT), to) };
            let mut frame = message.frame();
            let bytes = frame.bytes.len() as u64;
            let expected = may_pass(&passed, node.host.nanos);
            let landed = node.pod_sends(0, &mut frame);
            prop_assert_eq!(landed, if expected { Landed::Pod(1) } else { dropped(DropReason::Bandwidth) });
            if expected {
                passed.push((node.host.nanos, bytes));
            }
        }
    }
}
