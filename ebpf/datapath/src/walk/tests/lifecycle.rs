//! How flows begin, live and end.

use super::*;
use crate::flow::{End, Flow, FlowFlags, FlowKey, FlowState, MAX_FLOW_ENTRIES, PodFlows, Table, Tables as _};
use crate::peer::{NO_NODE, PodWord};
use crate::policy::{ALLOW_ALL, DENY_ALL};
use crate::testing::{Counted, Flows, What};
use crate::walk::Over;
use crate::{Tuple, WirePort};

/// A connection, packet by packet, from pod 0 to a service or straight to its backend, pod 1.
struct Connection {
    node: Node,
    send: Send,
    v6: bool,
    to: (IpAddr, u16),
}

impl Connection {
    fn new(v6: bool, send: Send, service: bool) -> Self {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        let to = if service { (Node::vip(v6), 80) } else { (Node::pod(1, v6), 8080) };
        Self { node, send, v6, to }
    }

    fn client(&self) -> (IpAddr, u16) {
        (Node::pod(0, self.v6), CLIENT)
    }

    #[track_caller]
    fn forth(&mut self, flags: u8) {
        let sent = tcp(self.client(), self.to, flags);
        let (landed, got) = self.send.pod(&mut self.node, 0, &sent);
        assert_eq!((landed, got.ends()), (Landed::Pod(1), (self.client(), (Node::pod(1, self.v6), 8080))));
    }

    #[track_caller]
    fn back(&mut self, flags: u8) {
        let sent = tcp((Node::pod(1, self.v6), 8080), self.client(), flags);
        let (landed, got) = self.send.pod(&mut self.node, 1, &sent);
        assert_eq!((landed, got.ends()), (Landed::Pod(0), (self.to, self.client())));
    }

    #[track_caller]
    fn shake_hands(&mut self) {
        self.forth(SYN);
        self.back(SYN_ACK);
        self.forth(ACK);
    }

    /// Entries in the table of established connections and in the other.
    fn entries(&self) -> (usize, usize) {
        let flows = &self.node.host.flows;
        (flows.keys(Table::Established).len(), flows.keys(Table::Any).len())
    }
}

/// Runs a test for connections to a service (two entries) and straight to a pod (one).
fn each_way(test: impl Fn(Connection, usize)) {
    each(|v6, send| {
        test(Connection::new(v6, send, true), 2);
        test(Connection::new(v6, send, false), 1);
    });
}

#[test]
fn a_connection_moves_when_it_is_established_and_counts() {
    each_way(|mut c, entries| {
        c.forth(SYN);
        c.back(SYN_ACK);
        assert_eq!(c.entries(), (0, entries));
        assert_eq!(c.node.host.flows.established(0), 0);
        c.forth(ACK);
        assert_eq!(c.entries(), (entries, 0));
        assert_eq!(c.node.host.flows.established(0), 1);
        assert_eq!(c.node.host.flows.established(1), 0);
        for _ in 0..3 {
            c.node.host.now += 86_000;
            c.forth(ACK);
            c.node.host.now += 86_000;
            c.back(ACK);
        }
        assert_eq!(c.entries(), (entries, 0));
    });
}

#[test]
fn a_connection_that_ends_leaves_the_established_ones() {
    each_way(|mut c, entries| {
        c.shake_hands();
        c.back(ACK);
        c.forth(FIN);
        c.back(ACK);
        c.back(FIN);
        assert_eq!(c.entries(), (0, entries));
        assert_eq!(c.node.host.flows.established(0), 0);
        // What is acknowledged late or sent again still finds its way, in both directions.
        c.forth(ACK);
        c.back(ACK);
        c.back(FIN);
        c.forth(ACK);
        assert_eq!(c.entries(), (0, entries));
        assert_eq!(c.node.host.flows.established(0), 0);
    });
}

#[test]
fn a_connection_that_the_responder_closes_first_leaves_them_too() {
    each_way(|mut c, entries| {
        c.shake_hands();
        c.back(FIN);
        c.forth(FIN);
        c.back(ACK);
        assert_eq!(c.entries(), (0, entries));
        assert_eq!(c.node.host.flows.established(0), 0);
    });
}

#[test]
fn s44_a_reset_that_is_none_of_the_connections_does_not_end_it() {
    each_way(|mut c, entries| {
        c.shake_hands();
        c.back(RST);
        c.node.host.now += 9;
        c.forth(ACK);
        c.node.host.now += 80_000;
        c.back(ACK);
        assert_eq!(c.entries(), (entries, 0));
    });
}

#[test]
fn a_connection_that_was_reset_is_soon_forgotten() {
    each_way(|mut c, entries| {
        c.shake_hands();
        c.forth(RST);
        assert_eq!(c.entries(), (0, entries));
        assert_eq!(c.node.host.flows.established(0), 0);
        c.node.host.now += 11;
        // Expired, it is met as one that is not there.
        c.forth(SYN);
        c.back(SYN_ACK);
        c.forth(ACK);
        assert_eq!(c.entries(), (entries, 0));
        assert_eq!(c.node.host.flows.established(0), 1);
    });
}

#[test]
fn a_syn_that_meets_a_closing_connection_begins_another() {
    for end in [&[RST][..], &[FIN]] {
        each_way(|mut c, entries| {
            c.shake_hands();
            for flags in end {
                c.forth(*flags);
            }
            if end == [FIN] {
                c.back(FIN);
            }
            c.forth(SYN);
            assert_eq!(c.entries(), (0, entries));
            assert_eq!(c.node.host.flows.established(0), 0);
            c.back(SYN_ACK);
            c.forth(ACK);
            assert_eq!(c.entries(), (entries, 0));
            assert_eq!(c.node.host.flows.established(0), 1);
        });
    }
}

#[test]
fn a_syn_sent_again_goes_to_the_same_backend() {
    each(|v6, send| {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 80), (Node::pod(2, v6), 80)]);
        let sent = tcp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 80), SYN);
        node.host.random = Some(0);
        let first = send.pod(&mut node, 0, &sent);
        node.host.random = Some(u32::MAX);
        node.host.now += 3;
        assert_eq!(send.pod(&mut node, 0, &sent), first);
    });
}

#[test]
fn a_pod_has_so_many_established_flows_and_no_more() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.peers.pods.get_mut(&0).unwrap().max_flows = 3;
        let open = |node: &mut Node, slot, port| {
            let sent = |flags| tcp((Node::pod(slot, v6), port), (Node::pod(2, v6), 80), flags);
            let (landed, got) = send.pod(node, slot, &sent(SYN));
            if landed == Landed::Pod(2) {
                send.pod(node, 2, &answer(&got, SYN_ACK));
                send.pod(node, slot, &sent(ACK));
            }
            landed
        };
        for port in 1..=3 {
            assert_eq!(open(&mut node, 0, port), Landed::Pod(2));
        }
        assert_eq!(open(&mut node, 0, 4), dropped(DropReason::FlowLimit));
        assert_eq!(open(&mut node, 1, 4), Landed::Pod(2), "another pod is none of its business");
        // One that ends makes room.
        let sent = |flags| tcp((Node::pod(0, v6), 1), (Node::pod(2, v6), 80), flags);
        send.pod(&mut node, 0, &sent(FIN));
        send.pod(&mut node, 2, &tcp((Node::pod(2, v6), 80), (Node::pod(0, v6), 1), FIN));
        send.pod(&mut node, 0, &sent(ACK));
        assert_eq!(open(&mut node, 0, 4), Landed::Pod(2));
    });
}

#[test]
fn a_pod_opens_so_many_flows_a_second_and_no_more() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.config.max_rate = 5;
        let open = |node: &mut Node, slot, port| {
            send.pod(node, slot, &udp((Node::pod(slot, v6), port), (Node::pod(2, v6), 53))).0
        };
        for port in 1..=5 {
            assert_eq!(open(&mut node, 0, port), Landed::Pod(2));
        }
        assert_eq!(open(&mut node, 0, 6), dropped(DropReason::FlowRate));
        assert_eq!(open(&mut node, 0, 5), Landed::Pod(2), "a flow that is open is not opened");
        assert_eq!(open(&mut node, 1, 6), Landed::Pod(2));
        node.host.now += 1;
        assert_eq!(open(&mut node, 0, 6), Landed::Pod(2));
    });
}

#[test]
fn a_full_table_refuses_and_leaves_nothing_half_done() {
    each(|v6, send| {
        for (service, room) in [(false, 0), (true, 0), (true, 1)] {
            let mut node = Node::new();
            node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 80)]);
            node.host.flows.any_capacity.set(room);
            let to = if service { Node::vip(v6) } else { Node::pod(1, v6) };
            let sent = tcp((Node::pod(0, v6), CLIENT), (to, 80), SYN);
            assert_eq!(send.pod(&mut node, 0, &sent).0, dropped(DropReason::FlowTableFull));
            assert!(node.host.flows.is_empty());
            assert_eq!(node.host.flows.counts(), []);
            node.host.flows.any_capacity.set(usize::MAX);
            assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Pod(1));
        }
    });
}

#[test]
fn a_connection_for_which_the_established_have_no_room_goes_on() {
    each_way(|mut c, entries| {
        // Room for one entry is room for half a connection to a service.
        c.node.host.flows.established_capacity.set(entries - 1);
        c.shake_hands();
        assert_eq!(c.entries(), (0, entries));
        assert_eq!(c.node.host.flows.established(0), 0);
        c.back(ACK);
        c.node.host.flows.established_capacity.set(entries);
        c.node.host.now += 1;
        c.forth(ACK);
        assert_eq!(c.entries(), (entries, 0));
        assert_eq!(c.node.host.flows.established(0), 1);
    });
}

#[test]
fn a_flow_whose_one_entry_was_evicted_is_made_whole() {
    each(|v6, send| {
        for evict_far in [false, true] {
            let mut node = Node::new();
            node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 5353)]);
            let sent = udp((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53));
            send.pod(&mut node, 0, &sent);
            let is_far = |key: &FlowKey| {
                let vip = Node::vip(v6).into();
                key.a != vip && key.b != vip
            };
            let flows = &node.host.flows;
            let gone = flows.keys(Table::Any).into_iter().find(|key| is_far(key) == evict_far).unwrap();
            crate::flow::Tables::remove_flow(flows, Table::Any, &gone);
            // The opener's next packet, at the latest after a second, brings it back.
            node.host.now += 1;
            let got = send.pod(&mut node, 0, &sent);
            assert_eq!(got.1.ends().1, (Node::pod(1, v6), 5353), "far {evict_far}");
            answered(send, &mut node, 0, &sent, &got, 0);
        }
    });
}

#[test]
fn a_udp_flow_that_goes_on_is_remembered_for_longer_than_a_query() {
    each(|v6, send| {
        let (client, vip, backend) = ((Node::pod(0, v6), CLIENT), (Node::vip(v6), 53), (Node::pod(1, v6), 5353));
        for (uses, remembered) in [(&[0][..], 30), (&[0, 0], 30), (&[0, 2], 30), (&[0, 3], 120), (&[0, 1, 1, 1], 120)] {
            for (idle, back) in [(remembered, vip), (remembered + 1, backend)] {
                let mut node = Node::new();
                node.service(vip, UDP, &[backend]);
                let sent = udp(client, vip);
                for &later in uses {
                    node.host.now += later;
                    let got = send.pod(&mut node, 0, &sent);
                    answered(send, &mut node, 0, &sent, &got, 0);
                }
                node.host.now += idle;
                // To the client it comes from the service for as long as the flow is known.
                let (_, late) = send.pod(&mut node, 1, &udp(backend, client));
                assert_eq!(late.ends(), (back, client), "used after {uses:?}, then not for {idle} s");
            }
        }
    });
}

#[test]
fn a_ping_is_a_flow() {
    each(|v6, send| {
        let mut node = Node::new();
        let sent = Message::new(Node::pod(0, v6), Node::pod(1, v6), L4::Ask(99));
        let got = send.pod(&mut node, 0, &sent);
        answered(send, &mut node, 0, &sent, &got, 0);
        assert_eq!(node.host.flows.len(), 1);
        node.host.now += 31;
        assert_eq!(send.pod(&mut node, 0, &sent).0, Landed::Pod(1));
        assert_eq!(node.host.flows.len(), 1);
    });
}

#[test]
fn a_pod_has_no_more_flows_than_are_left_for_others() {
    each(|v6, send| {
        let mut node = Node::new();
        let asks =
            |node: &mut Node, slot| send.pod(node, slot, &udp((Node::pod(slot, v6), 1), (Node::pod(3, v6), 53))).0;
        // All that the table takes, if they are translated: then nobody has more than a few.
        for (index, count) in [(PodFlows::EVERYBODY, u64::from(MAX_FLOW_ENTRIES) / 2), (0, 1024), (1, 1023)] {
            node.host.flows.pod_flows(index).unwrap().outgoing.store(count);
        }
        assert_eq!(asks(&mut node, 0), dropped(DropReason::FlowShare));
        assert_eq!(asks(&mut node, 1), Landed::Pod(3));
    });
}

#[test]
fn a_pod_opens_no_more_at_a_time_than_it_may() {
    each(|v6, send| {
        let mut node = Node::new();
        node.host.config.max_open = 3;
        let asks = |node: &mut Node, slot, port: u16| {
            send.pod(node, slot, &udp((Node::pod(slot, v6), port), (Node::pod(3, v6), 53))).0
        };
        for port in 1..=3 {
            assert_eq!(asks(&mut node, 0, port), Landed::Pod(3));
        }
        assert_eq!(asks(&mut node, 0, 4), dropped(DropReason::FlowLimit));
        assert_eq!(asks(&mut node, 0, 1), Landed::Pod(3), "what is open goes on");
        assert_eq!(asks(&mut node, 1, 4), Landed::Pod(3), "others open theirs");
        // As many may be opened to it from outside, and they take nothing from what it opens.
        let comes =
            |node: &mut Node, port: u16| send.arrives(node, &udp((Node::world(v6), port), (Node::pod(2, v6), 53))).0;
        for port in 1..=3 {
            assert_eq!(comes(&mut node, port), Landed::Pod(2));
        }
        assert_eq!(comes(&mut node, 4), dropped(DropReason::FlowLimit));
        assert_eq!(asks(&mut node, 2, 1), Landed::Pod(3));
    });
}

/// Runs a sweep over every entry of both tables.
fn sweep(node: &mut Node, over: Over) {
    for table in [Table::Established, Table::Any] {
        let keys = node.host.flows.keys(table);
        node.host.sweep(&crate::walk::SweepRequest::new(table, over).frame(&keys));
    }
}

#[test]
fn s60_what_is_sent_to_a_pod_that_is_gone_is_answered_with_a_reset() {
    each_way(|mut connection, entries| {
        connection.shake_hands();
        assert_eq!(connection.entries(), (entries, 0));
        sweep(&mut connection.node, Over::Bury(1));
        assert_eq!(connection.entries(), (entries, 0), "it is known for a while");
        let counts = |connection: &Connection| {
            let flows = &connection.node.host.flows;
            assert_eq!(flows.counts(), flows.recounted(connection.node.host.config.seed));
            flows.counts()
        };
        let nobodys = Counted::Flows(Flows::NOBODY, What::Accepted);
        assert!(
            counts(&connection).iter().any(|(what, count)| *what == nobodys && *count == 1),
            "it counts for nobody"
        );
        let data = tcp(connection.client(), connection.to, ACK);
        for _ in 0..2 {
            let (landed, _) = connection.send.pod(&mut connection.node, 0, &data);
            assert_eq!(landed, Landed::Refused(DropReason::Gone));
        }
        // Whoever has the slot by now has nothing to do with it.
        let theirs = tcp((Node::pod(1, connection.v6), 8080), connection.client(), ACK);
        connection.send.pod(&mut connection.node, 1, &theirs);
        connection.node.host.now += 121;
        sweep(&mut connection.node, Over::Expired);
        assert_eq!((connection.entries(), counts(&connection)), ((0, 0), Vec::new()));
    });
}

#[test]
fn s60_what_is_sent_while_a_pod_is_removed_does_not_forget_its_connections() {
    each_way(|mut connection, entries| {
        connection.shake_hands();
        // First it has no policy in force any more, then no address.
        connection.node.host.peers.pods.get_mut(&1).unwrap().word = 0;
        let data = tcp(connection.client(), connection.to, ACK);
        for _ in 0..2 {
            let (landed, _) = connection.send.pod(&mut connection.node, 0, &data);
            assert_eq!(landed, Landed::Dropped(DropReason::Pending));
            assert_eq!(connection.entries(), (entries, 0));
        }
        connection.node.host.peers.pods.remove(&1);
        connection.send.pod(&mut connection.node, 0, &data);
        let (landed, _) = connection.send.pod(&mut connection.node, 0, &data);
        assert_eq!(landed, Landed::Refused(DropReason::Gone));
    });
}

#[test]
fn s60_whoever_opens_a_connection_anew_meets_no_pod_that_is_gone() {
    each_way(|mut connection, entries| {
        connection.shake_hands();
        sweep(&mut connection.node, Over::Bury(1));
        connection.forth(SYN);
        assert_eq!(connection.entries(), (0, entries));
        connection.back(SYN_ACK);
        connection.forth(ACK);
        assert_eq!(connection.entries(), (entries, 0));
        let flows = &connection.node.host.flows;
        assert_eq!(flows.counts(), flows.recounted(connection.node.host.config.seed));
    });
}

#[test]
fn s60_a_pod_that_is_gone_is_told_of_to_who_comes_from_outside() {
    each(|v6, send| {
        let (mut node, _) = outside::node_port(v6, TCP, &[(Node::pod(1, v6), 8080)], 0);
        let (client, to) = ((Node::world(v6), CLIENT), (Node::address(v6), outside::NODE_PORT));
        let forth = |node: &mut Node, flags| send.arrives(node, &tcp(client, to, flags));
        let (landed, got) = forth(&mut node, SYN);
        assert_eq!(landed, Landed::Pod(1));
        let (seen, server) = got.ends();
        send.pod(&mut node, 1, &tcp(server, seen, SYN_ACK));
        forth(&mut node, ACK);
        sweep(&mut node, Over::Bury(1));
        assert_eq!(forth(&mut node, ACK).0, Landed::Refused(DropReason::Gone));
        assert_eq!(node.host.flows.counts(), node.host.flows.recounted(node.host.config.seed));
    });
}

/// An element of a table is another key's as soon as it is deleted, and whoever found it by the old key may still be reading
/// it. A key's tag is no secret, so a pod can have a flow whose tag is that of another's: then the copy passes for its own.
#[test]
fn what_is_read_of_another_pods_flow_under_the_same_tag_lets_nothing_pass() {
    each(|v6, send| {
        let mut node = Node::new();
        node.police(1, DENY_ALL, ALLOW_ALL);
        let tuple = |slot, sport, dport| Tuple {
            src: Node::pod(slot, v6).into(),
            dst: Node::pod(1, v6).into(),
            sport: WirePort::new(sport),
            dport: WirePort::new(dport),
            pad: 0,
        };
        let (victim, _) = FlowKey::of(&tuple(2, CLIENT, 80), TCP);
        // The same tag between pods 0 and 1: any two ports make any tag.
        let (mut own, from_a) = FlowKey::of(&tuple(0, 0, 0), TCP);
        // The inverse of the factor in the tag.
        let ports = (own.tag() ^ victim.tag()).wrapping_mul(0x0e8b_2f51);
        (own.a_port, own.b_port) = (WirePort::from_bits((ports >> 16) as u16), WirePort::from_bits(ports as u16));
        assert_eq!(own.tag(), victim.tag());
        let t = own.tuple(from_a);
        for (opener, responder) in [(2, 1), (1, 2)] {
            let end = |slot| End { slot, node: NO_NODE };
            let mut flow = Flow { opener: end(opener), responder: end(responder), ..Flow::new() };
            flow.flags = if from_a == (opener == 2) { FlowFlags::OPENER_IS_A } else { 0 };
            flow.state.value = FlowState::SYN | FlowState::REPLIED | FlowState::ESTABLISHED;
            // As if both had just been asked.
            let epoch = |slot| PodWord(node.host.peers.pods[&slot].word).epoch();
            (flow.opener_epoch.value, flow.responder_epoch.value) = (epoch(opener), epoch(responder));
            flow.seen = u64::from(node.host.now);
            flow.seal(victim.tag());
            node.host.flows.insert_flow(Table::Established, &own, &flow, false).unwrap();
            let sent = tcp((t.src.into(), t.sport.number()), (t.dst.into(), t.dport.number()), ACK);
            let landed = send.pod(&mut node, 0, &sent).0;
            assert!(matches!(landed, Landed::Dropped(DropReason::NoFlow | DropReason::IngressPolicy)), "{landed:?}");
            assert_eq!(node.host.flows.len(), 0, "it is not its flow");
        }
    });
}
