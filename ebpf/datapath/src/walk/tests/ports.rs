//! The source ports of what is translated: kept, shared, given up, and counted.

use std::collections::HashSet;

use super::*;
use crate::flow::{FlowKey, Table};
use crate::walk::Over;

const WORLD: u16 = 443;

/// Of the test's node.
const SEED: u32 = 0x5eed;

/// A SYN to the world, with a sequence number.
fn opens(slot: u16, v6: bool, port: u16, isn: u32) -> Message {
    Message::new(Node::pod(slot, v6), Node::world(v6), L4::TcpAt(port, WORLD, SYN, isn))
}

/// A later segment of the same.
fn goes_on(slot: u16, v6: bool, port: u16, flags: u8, seq: u32) -> Message {
    let message = Message::new(Node::pod(slot, v6), Node::world(v6), L4::TcpAt(port, WORLD, flags, seq));
    Message { payload: Vec::new(), ..message }
}

/// Has a pod send something to the world: the source port that the world sees.
fn leaves(send: Send, node: &mut Node, slot: u16, message: &Message) -> u16 {
    let (landed, out) = send.pod(node, slot, message);
    assert_eq!(landed, Landed::Outside);
    out.sport
}

/// Has the world send a segment to a port of the node, for a pod.
fn comes_back(send: Send, node: &mut Node, v6: bool, port: u16, flags: u8) -> Landed {
    send.arrives(node, &tcp((Node::world(v6), WORLD), (Node::address(v6), port), flags)).0
}

/// A pod's connection to the world, which is opened from its port `CLIENT` and then ended.
fn ended(send: Send, node: &mut Node, v6: bool, ends: &[(bool, u8)]) {
    assert_eq!(leaves(send, node, 0, &opens(0, v6, CLIENT, 1000)), CLIENT);
    assert_eq!(comes_back(send, node, v6, CLIENT, SYN_ACK), Landed::Pod(0));
    assert_eq!(leaves(send, node, 0, &goes_on(0, v6, CLIENT, ACK, 1001)), CLIENT);
    for (out, flags) in ends {
        if *out {
            assert_eq!(leaves(send, node, 0, &goes_on(0, v6, CLIENT, *flags, 1001)), CLIENT);
        } else {
            assert_eq!(comes_back(send, node, v6, CLIENT, *flags), Landed::Pod(0));
        }
    }
    assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
}

const OUT: bool = true;
const BACK: bool = false;

#[test]
fn a_port_is_free_once_the_receiver_has_forgotten_the_connection() {
    each(|v6, send| {
        for (ends, silence) in [
            // Anybody may have sent it.
            (&[(BACK, RST | ACK)][..], 11),
            (&[(OUT, RST | ACK)], 11),
            // The opener closes first: it waits, not the responder.
            (&[(OUT, FIN), (BACK, FIN), (OUT, ACK)], 0),
        ] {
            let mut node = Node::new();
            ended(send, &mut node, v6, ends);
            if silence > 0 {
                assert_ne!(leaves(send, &mut node, 2, &opens(2, v6, CLIENT, u32::MAX / 2)), CLIENT, "{ends:?}");
            }
            node.host.now += silence;
            assert_eq!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, 5)), CLIENT, "{ends:?}");
            assert_eq!(comes_back(send, &mut node, v6, CLIENT, SYN_ACK), Landed::Pod(1));
            assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
        }
    });
}

#[test]
fn a_port_that_the_receiver_waits_with_goes_to_a_syn_that_can_be_told_from_what_was() {
    each(|v6, send| {
        let closed_by_the_world = &[(BACK, FIN), (OUT, FIN), (BACK, ACK)][..];
        for (isn, expected) in [(1000, false), (1002, false), (1003, true), (500, false)] {
            let mut node = Node::new();
            ended(send, &mut node, v6, closed_by_the_world);
            let got = leaves(send, &mut node, 1, &opens(1, v6, CLIENT, isn));
            assert_eq!(got == CLIENT, expected, "{isn}");
        }
        // After a minute the receiver has forgotten it.
        let mut node = Node::new();
        ended(send, &mut node, v6, closed_by_the_world);
        node.host.now += 61;
        assert_eq!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, 500)), CLIENT);
        // Who closed without the last acknowledgement has not: it may send its FIN again.
        let mut node = Node::new();
        ended(send, &mut node, v6, &[(OUT, FIN), (BACK, FIN)]);
        assert_ne!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, 500)), CLIENT);
        assert_eq!(comes_back(send, &mut node, v6, CLIENT, FIN), Landed::Pod(0));
    });
}

#[test]
fn a_connection_that_follows_another_keeps_the_port_that_the_server_may_remember() {
    each(|v6, send| {
        for ends in [&[(BACK, FIN), (OUT, FIN), (BACK, ACK)][..], &[(OUT, RST)], &[(OUT, FIN), (BACK, FIN), (OUT, ACK)]]
        {
            let mut node = Node::new();
            assert_eq!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, 5)), CLIENT, "another pod has the port");
            let mut before = None;
            for isn in [1000, 200_000, 300_000] {
                let port = leaves(send, &mut node, 0, &opens(0, v6, CLIENT, isn));
                assert_ne!(port, CLIENT);
                assert!(before.is_none_or(|before| port == before), "{port} after {before:?}, {ends:?}");
                assert_eq!(comes_back(send, &mut node, v6, port, SYN_ACK), Landed::Pod(0));
                assert_eq!(leaves(send, &mut node, 0, &goes_on(0, v6, CLIENT, ACK, isn + 1)), port);
                for (out, flags) in ends {
                    if *out {
                        assert_eq!(leaves(send, &mut node, 0, &goes_on(0, v6, CLIENT, *flags | ACK, isn + 1)), port);
                    } else {
                        assert_eq!(comes_back(send, &mut node, v6, port, *flags | ACK), Landed::Pod(0));
                    }
                }
                assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
                before = Some(port);
            }
        }
    });
}

/// A connection of pod 0 whose port another pod has: opened, and ended by the server first. The port that the world sees.
fn follows(send: Send, node: &mut Node, v6: bool, isn: u32) -> u16 {
    let port = leaves(send, node, 0, &opens(0, v6, CLIENT, isn));
    assert_eq!(comes_back(send, node, v6, port, SYN_ACK), Landed::Pod(0));
    assert_eq!(leaves(send, node, 0, &goes_on(0, v6, CLIENT, ACK, isn + 1)), port);
    assert_eq!(comes_back(send, node, v6, port, FIN), Landed::Pod(0));
    assert_eq!(leaves(send, node, 0, &goes_on(0, v6, CLIENT, FIN, isn + 1)), port);
    assert_eq!(comes_back(send, node, v6, port, ACK), Landed::Pod(0));
    port
}

#[test]
fn a_connection_that_the_server_could_not_tell_from_the_one_before_gets_another_port() {
    each(|v6, send| {
        let mut node = Node::new();
        assert_eq!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, 5)), CLIENT, "another pod has the port");
        let first = follows(send, &mut node, v6, 500_000);
        let older = follows(send, &mut node, v6, 200_000);
        assert_ne!(older, first);
        assert_eq!(follows(send, &mut node, v6, 700_000), older, "newer again");
        assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
    });
}

#[test]
fn a_connection_that_can_not_keep_the_port_of_the_one_before_gets_its_own() {
    each(|v6, send| {
        let mut node = Node::new();
        assert_eq!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, 5)), CLIENT, "another pod has the port");
        let first = follows(send, &mut node, v6, 1000);
        // The other pod's is over, and its pod waits with it; the port before is one of the range no more.
        assert_eq!(comes_back(send, &mut node, v6, CLIENT, SYN_ACK), Landed::Pod(1));
        assert_eq!(leaves(send, &mut node, 1, &goes_on(1, v6, CLIENT, RST | ACK, 6)), CLIENT);
        node.host.now += 11;
        node.host.config.snat_first = CLIENT - 10;
        node.host.config.snat_count = 20;
        assert!(!(CLIENT - 10..CLIENT + 10).contains(&first));
        assert_eq!(leaves(send, &mut node, 0, &opens(0, v6, CLIENT, 200_000)), CLIENT);
    });
}

#[test]
fn a_port_that_lives_goes_to_nobody() {
    each(|v6, send| {
        let mut node = Node::new();
        ended(send, &mut node, v6, &[]);
        for isn in [0, 1001, u32::MAX] {
            assert_ne!(leaves(send, &mut node, 1, &opens(1, v6, CLIENT, isn)), CLIENT);
            node.host.flows = crate::testing::Flows::default();
            ended(send, &mut node, v6, &[(OUT, FIN)]);
        }
    });
}

/// Has pods open flows to one destination, each from its own ports, until `count` are open.
fn crowd(node: &mut Node, count: u16, pods: &[u16]) -> HashSet<u16> {
    let mut taken = HashSet::new();
    for n in 0..count {
        let slot = pods[usize::from(n) % pods.len()];
        // All from the same ports: none but the first can keep its own.
        let from = (Node::pod(slot, false), 1024 + n / pods.len() as u16);
        let mut frame = udp(from, (Node::world(false), 53)).frame();
        assert_eq!(node.pod_sends(slot, &mut frame), Landed::Outside, "{n}");
        assert!(taken.insert(seen(&frame).sport), "{n}");
    }
    taken
}

#[test]
fn of_a_crowded_destination_every_port_is_found() {
    let mut node = Node::new();
    node.host.config.snat_count = 4096;
    let taken = crowd(&mut node, 4096 / 100 * 89, &[0, 1, 2, 3]);
    assert!(taken.iter().all(|port| (1024..1024 + 4096).contains(port)));
    assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
}

#[test]
fn a_pod_has_its_share_of_a_crowded_destination_and_leaves_the_last_to_who_has_few() {
    let mut node = Node::new();
    node.host.config.snat_count = 1024;
    // While nobody else wants them, half of all.
    crowd(&mut node, 512, &[0]);
    let asks = |node: &mut Node, slot, port| {
        node.pod_sends(slot, &mut udp((Node::pod(slot, false), port), (Node::world(false), 53)).frame())
    };
    assert_eq!(asks(&mut node, 0, 60_000), dropped(DropReason::PortShare));
    // Another destination is another matter.
    let mut elsewhere = udp((Node::pod(0, false), 60_000), (Node::world(false), 54)).frame();
    assert_eq!(node.pod_sends(0, &mut elsewhere), Landed::Outside);
    // A quarter for the next.
    assert_eq!((0..300).filter(|n| asks(&mut node, 1, 50_000 + n) == Landed::Outside).count(), 256);
    // And what is left up to nine tenths; behind that some for each.
    assert_eq!((0..300).filter(|n| asks(&mut node, 2, 50_000 + n) == Landed::Outside).count(), 154);
    assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
}

#[test]
fn a_pod_above_its_share_finds_the_few_questions_of_its_own_that_were_answered() {
    let mut node = Node::new();
    node.host.config.snat_count = 4096;
    crowd(&mut node, 1100, &[0]);
    crowd(&mut node, 2500, &[1, 2, 3]);
    let ask = |port: u16| udp((Node::pod(0, false), port), (Node::world(false), 53)).frame();
    // A tenth of all ports in use.
    let mut answered = 0;
    for port in 1024..1024 + 4096 {
        let mut back = udp((Node::world(false), 53), (Node::address(false), port)).frame();
        if answered < 364 && node.arrives(&mut back) == Landed::Pod(0) {
            answered += 1;
        }
    }
    assert_eq!(answered, 364);
    node.host.now += 2;
    for port in 50_000..50_100 {
        assert_eq!(node.pod_sends(0, &mut ask(port)), Landed::Outside, "{port}");
    }
    assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
}

#[test]
fn when_ports_are_short_a_question_that_was_answered_gives_its_own_up_and_what_lives_does_not() {
    let mut node = Node::new();
    node.host.config.snat_count = 64;
    let ask = |node: &mut Node, slot, port: u16| {
        let mut frame = udp((Node::pod(slot, false), port), (Node::world(false), 53)).frame();
        (node.pod_sends(slot, &mut frame), seen(&frame).sport)
    };
    // The first 32 are answered, the rest is not.
    for n in 0..60 {
        let (landed, port) = ask(&mut node, n % 4, 1024 + n);
        assert_eq!(landed, Landed::Outside);
        if n < 32 {
            let back = udp((Node::world(false), 53), (Node::address(false), port));
            assert!(matches!(node.arrives(&mut back.frame()), Landed::Pod(_)));
        }
    }
    node.host.now += 2;
    let before = node.host.flows.keys(Table::Any).len();
    let mut got = 0;
    for n in 0..8 {
        // A pod that has few, so that the reserve is its too.
        if ask(&mut node, 3, 60_000 + n).0 == Landed::Outside {
            got += 1;
        }
    }
    assert!(got >= 1, "of 64 ports 32 could be had");
    for n in 32..60 {
        let mut back = udp((Node::world(false), 53), (Node::address(false), 1024 + n)).frame();
        assert_eq!(node.arrives(&mut back), Landed::Pod(n % 4), "{n} lives");
    }
    assert!(node.host.flows.keys(Table::Any).len() >= before);
    assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
}

#[test]
fn what_a_sweep_takes_out_is_counted_no_longer() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 80)]);
        ended(send, &mut node, v6, &[]);
        leaves(send, &mut node, 1, &udp((Node::pod(1, v6), CLIENT), (Node::world(v6), 53)));
        send.pod(&mut node, 0, &tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), SYN));
        send.arrives(&mut node, &udp((Node::world(v6), 5), (Node::pod(2, v6), 53)));
        assert_ne!(node.host.flows.counts(), []);
        let sweep = |node: &mut Node, over| {
            for table in [Table::Established, Table::Any] {
                let keys = node.host.flows.keys(table);
                let left = node.host.sweep(&crate::walk::SweepRequest::new(table, over).frame(&keys));
                assert_eq!(left, 0, "nobody is busy with them");
            }
        };
        let left =
            |node: &Node| node.host.flows.keys(Table::Any).len() + node.host.flows.keys(Table::Established).len();
        // Of a pod, in whichever end it is.
        let before = left(&node);
        sweep(&mut node, Over::Of(2));
        assert_eq!(left(&node), before - 1);
        sweep(&mut node, Over::Idle(5));
        assert_eq!(left(&node), before - 1, "nothing is idle yet");
        node.host.now += 6;
        sweep(&mut node, Over::Idle(5));
        assert_eq!(node.host.flows.keys(Table::Any), Vec::<FlowKey>::new());
        assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
        node.host.now += 86_401;
        sweep(&mut node, Over::Expired);
        assert_eq!(left(&node), 0);
        assert_eq!(node.host.flows.counts(), []);
    });
}

#[test]
fn the_node_and_a_pod_that_happen_upon_one_tuple_are_told_apart() {
    each(|v6, send| {
        for proto in [TCP, UDP] {
            let world = (Node::world(v6), WORLD);
            let segment =
                |from: (IpAddr, u16), flags| if proto == TCP { tcp(from, world, flags) } else { udp(from, world) };
            let mut node = Node::new();
            assert_eq!(leaves(send, &mut node, 0, &segment((Node::pod(0, v6), CLIENT), SYN)), CLIENT);
            let own = (Node::address(v6), CLIENT);
            let mut seen_of_node = Vec::new();
            for flags in [SYN, ACK] {
                let (landed, out) = send.node(&mut node, &segment(own, flags));
                assert_eq!((landed, out.src, out.ends().1), (Landed::Outside, own.0, world));
                seen_of_node.push(out.sport);
                let (landed, back) = send.arrives(&mut node, &answer(&out, if flags == SYN { SYN_ACK } else { ACK }));
                assert_eq!((landed, back.ends()), (Landed::Host, (world, own)));
            }
            assert_ne!(seen_of_node[0], CLIENT);
            assert_eq!(seen_of_node[0], seen_of_node[1]);
            // The pod's goes on as it was.
            let l4 = if proto == TCP { L4::Tcp(WORLD, CLIENT, SYN_ACK) } else { L4::Udp(WORLD, CLIENT) };
            let back = Message::new(world.0, own.0, l4);
            assert_eq!(send.arrives(&mut node, &back).0, Landed::Pod(0));
            assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
            // To another destination the node's port is its own.
            let elsewhere = tcp(own, (Node::world(v6), WORLD + 1), SYN);
            assert_eq!(send.node(&mut node, &elsewhere).1.sport, CLIENT);
        }
    });
}

#[test]
fn a_probe_of_the_node_and_a_client_outside_with_one_port_are_told_apart() {
    each(|v6, send| {
        let mut node = Node::new();
        node.node_ports();
        let pod = (Node::pod(1, v6), 8080);
        node.service((Node::address(v6), 30_080), TCP, &[pod]);
        let client = (Node::world(v6), CLIENT);
        let (landed, got) = send.arrives(&mut node, &tcp(client, (Node::address(v6), 30_080), SYN));
        assert_eq!((landed, got.ends()), (Landed::Pod(1), ((Node::address(v6), CLIENT), pod)));
        let probe = (Node::address(v6), CLIENT);
        let (landed, asked) = send.node(&mut node, &tcp(probe, pod, SYN));
        assert_eq!((landed, asked.src, asked.ends().1), (Landed::Pod(1), probe.0, pod));
        assert_ne!(asked.sport, CLIENT);
        let (landed, back) = send.pod(&mut node, 1, &answer(&asked, SYN_ACK));
        assert_eq!((landed, back.ends()), (Landed::Host, (pod, probe)));
        let (landed, again) = send.node(&mut node, &tcp(probe, pod, ACK));
        assert_eq!((landed, again.ends()), (Landed::Pod(1), asked.ends()));
        let (landed, back) = send.pod(&mut node, 1, &answer(&got, SYN_ACK));
        assert_eq!((landed, back.ends().1), (Landed::Out, client));
        assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
    });
}

#[test]
fn a_pod_with_its_share_asks_on_from_ports_whose_questions_were_answered() {
    let mut node = Node::new();
    node.host.config.snat_count = 4096;
    let ask = |node: &mut Node, port| {
        let mut frame = udp((Node::pod(0, false), port), (Node::world(false), 53)).frame();
        (node.pod_sends(0, &mut frame), seen(&frame).sport)
    };
    let mut answered = 0;
    for n in 0..4000 {
        if n % 100 == 0 {
            node.host.now += 1;
        }
        let (landed, port) = ask(&mut node, 1024 + n);
        if landed == Landed::Outside {
            let back = udp((Node::world(false), 53), (Node::address(false), port));
            assert_eq!(node.arrives(&mut back.frame()), Landed::Pod(0));
            answered += 1;
        }
    }
    assert!(answered > 3950, "{answered} of 4000");
    assert_eq!(node.host.flows.counts(), node.host.flows.recounted(SEED));
    let in_use = node.host.flows.keys(Table::Any).len() / 2;
    assert!((2000..=2100).contains(&in_use), "{in_use}");
}
