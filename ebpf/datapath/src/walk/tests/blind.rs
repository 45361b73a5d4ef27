//! FIN and RST in the name of an end, from somebody who knows the ports of a connection and not where it stands.

use super::*;
use crate::flow::{FlowFlags, FlowState, Table, Tables as _};
use crate::testing::{Fate, Hook};

/// Where each side's numbers begin.
const FORTH: u32 = 0xffff_f000;
const BACK: u32 = 0x7fff_fff0;

/// A connection whose ends have sent so many bytes each, all of them acknowledged.
struct Connection {
    node: Node,
    send: Send,
    v6: bool,
    to: (IpAddr, u16),
    sent: u32,
    got: u32,
}

impl Connection {
    /// One from pod 0 to pod 1, by a service or straight.
    fn new(v6: bool, send: Send, service: bool) -> Self {
        let mut node = Node::new();
        node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
        let to = if service { (Node::vip(v6), 80) } else { (Node::pod(1, v6), 8080) };
        let mut c = Self { node, send, v6, to, sent: 0, got: 0 };
        c.forth(SYN, FORTH.wrapping_sub(1), 0);
        c.back(SYN_ACK, BACK.wrapping_sub(1), FORTH);
        c.forth(ACK, FORTH, BACK);
        c.node.host.now += 1000;
        c
    }

    /// The client sends a segment; one that opens a connection carries nothing.
    #[track_caller]
    fn forth(&mut self, flags: u8, seq: u32, ack: u32) {
        self.forth_with(flags, seq, ack, if flags == SYN { &[] } else { b"fairlead" });
    }

    #[track_caller]
    fn forth_with(&mut self, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let l4 = L4::Segment(CLIENT, self.to.1, flags, seq, ack);
        let mut sent = Message::new(Node::pod(0, self.v6), self.to.0, l4);
        sent.payload = data.to_vec();
        let (landed, got) = self.send.pod(&mut self.node, 0, &sent);
        assert_eq!((landed, got.ends().1), (Landed::Pod(1), (Node::pod(1, self.v6), 8080)));
    }

    /// The server does.
    #[track_caller]
    fn back(&mut self, flags: u8, seq: u32, ack: u32) {
        let l4 = L4::Segment(8080, CLIENT, flags, seq, ack);
        let sent = Message::new(Node::pod(1, self.v6), Node::pod(0, self.v6), l4);
        let (landed, got) = self.send.pod(&mut self.node, 1, &sent);
        assert_eq!((landed, got.ends().0), (Landed::Pod(0), self.to));
    }

    fn now(&self) -> (u32, u32) {
        (FORTH.wrapping_add(self.sent), BACK.wrapping_add(self.got))
    }

    /// The server sends so much, which the client acknowledges, in one second.
    fn download(&mut self, bytes: u32) {
        for _ in 0..bytes >> 16 {
            let (forth, back) = self.now();
            self.back(ACK, back, forth);
            self.got = self.got.wrapping_add(1 << 16);
            self.forth(ACK, forth, self.now().1);
        }
    }

    /// The client sends one where its end stands, but for a distance.
    #[track_caller]
    fn off(&mut self, flags: u8, from_client: bool, by: u32) {
        let (forth, back) = self.now();
        match from_client {
            true => self.forth(flags, forth.wrapping_add(by), back),
            false => self.back(flags, back.wrapping_add(by), forth),
        }
    }

    /// The states of its entries, each with whether it is among the established.
    fn states(&self) -> Vec<(bool, u32)> {
        let flows = &self.node.host.flows;
        let of = |table| {
            let state = move |key| {
                flows.flow(table, &key).map(|entry| (table == Table::Established, entry.plain().state.value))
            };
            flows.keys(table).into_iter().filter_map(state)
        };
        of(Table::Established).chain(of(Table::Any)).collect()
    }
}

fn each_way(test: impl Fn(Connection, usize)) {
    each(|v6, send| {
        test(Connection::new(v6, send, true), 2);
        test(Connection::new(v6, send, false), 1);
    });
}

#[test]
fn s70_an_rst_or_fin_that_is_not_where_its_receiver_is_changes_nothing() {
    each_way(|mut c, entries| {
        for flags in [RST, TcpFlags::RST | ACK, FIN] {
            for from_client in [false, true] {
                for by in [4 << 20, 1 << 28, 1 << 31, 0_u32.wrapping_sub(4 << 20)] {
                    c.off(flags, from_client, by);
                    c.node.host.now += 3600;
                    let whole = FlowState::REPLIED | FlowState::ESTABLISHED;
                    assert_eq!(c.states(), std::vec![(true, whole); entries], "{flags:#x} {from_client} {by:#x}");
                    c.off(ACK, from_client, 0);
                    c.node.host.now += 3600;
                }
            }
        }
    });
}

#[test]
fn s70_who_does_not_know_where_an_end_is_does_not_move_what_is_noted_of_it() {
    each_way(|mut c, entries| {
        for by in [1 << 26, 1 << 30, 1 << 31] {
            let ((forth, back), whole) = (c.now(), FlowState::REPLIED | FlowState::ESTABLISHED);
            // What the client would have acknowledged, with a number of its own that is none, and an RST that fits that.
            c.forth(ACK, forth.wrapping_add(by), back.wrapping_add(by));
            c.back(RST, back.wrapping_add(by), forth);
            assert_eq!(c.states(), std::vec![(true, whole); entries], "{by:#x}");
            c.back(ACK, back.wrapping_add(by), forth.wrapping_add(by));
            c.forth(RST, forth.wrapping_add(by), back);
            assert_eq!(c.states(), std::vec![(true, whole); entries], "{by:#x}");
            c.node.host.now += 60;
        }
        c.off(RST, true, 0);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::RESET != 0), "{:?}", c.states());
    });
}

#[test]
fn s70_an_end_that_has_forgotten_the_connection_ends_it_by_refusing_a_new_one() {
    each_way(|mut c, entries| {
        let (isn, whole) = (0xfeed, FlowState::REPLIED | FlowState::ESTABLISHED);
        // Nobody has asked for this.
        c.back(RST | ACK, 0, isn + 1);
        c.node.host.now += 3600;
        c.forth(SYN, isn, 0);
        c.back(RST | ACK, 0, isn + 2);
        assert_eq!(c.states(), std::vec![(true, whole); entries]);
        c.back(RST | ACK, 0, isn + 1);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::RESET != 0), "{:?}", c.states());
        c.forth(SYN, isn + 7, 0);
        c.back(SYN_ACK, 1, isn + 8);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::RESET == 0), "{:?}", c.states());
    });
}

#[test]
fn s70_an_end_that_has_forgotten_the_connection_and_takes_a_new_one_begins_it_anew() {
    each_way(|mut c, entries| {
        let whole = FlowState::REPLIED | FlowState::ESTABLISHED;
        for (isn, theirs, closed) in [(0x4000_0000, 0x1234, false), (0xc000_0000, 0xdead_0000, true)] {
            if closed {
                c.off(FIN | ACK, true, 0);
            }
            c.node.host.now += 1000;
            c.forth(SYN, isn, 0);
            c.back(SYN_ACK, theirs, isn + 1);
            c.forth(ACK, isn + 1, theirs + 1);
            assert_eq!(c.states(), std::vec![(true, whole); entries]);
            (c.sent, c.got) = ((isn + 1).wrapping_sub(FORTH), (theirs + 1).wrapping_sub(BACK));
            c.download(1 << 20);
        }
        c.off(FIN | ACK, false, 0);
        c.off(FIN | ACK, true, 0);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::FINS == FlowState::FINS), "{:?}", c.states());
    });
}

#[test]
fn s70_a_syn_with_data_is_refused_and_accepted_with_it() {
    const DATA: [u8; 1000] = [7; 1000];
    let (isn, whole) = (0xffff_fff0_u32, FlowState::REPLIED | FlowState::ESTABLISHED);
    let is_reset = |c: &Connection| c.states().iter().all(|(_, state)| state & FlowState::RESET != 0);
    let answer = isn.wrapping_add(1001);
    each_way(|mut c, _| {
        c.forth_with(SYN, isn, 0, &DATA);
        for wrong in [0, 1, 1000, 1002] {
            c.back(RST | ACK, 0, isn.wrapping_add(wrong));
            assert!(!is_reset(&c), "{wrong}: {:?}", c.states());
        }
        c.back(RST | ACK, 0, answer);
        assert!(is_reset(&c), "{:?}", c.states());
    });
    // A server without Fast Open takes the SYN and leaves the data.
    for answer in [answer, isn.wrapping_add(1)] {
        each_way(|mut c, entries| {
            c.forth_with(SYN, isn, 0, &DATA);
            c.back(SYN_ACK, 0x1234, answer);
            c.forth(ACK, answer, 0x1235);
            assert_eq!(c.states(), std::vec![(true, whole); entries]);
            c.forth(RST, answer, 0x1235);
            assert!(is_reset(&c), "{:?}", c.states());
        });
    }
}

#[test]
fn what_fills_a_short_frame_is_no_payload() {
    for service in [false, true] {
        let mut c = Connection::new(false, Send { partial: false }, service);
        let (isn, sends) = (0x5000_0000, |c: &mut Connection, flags, seq, ack| {
            let l4 = L4::Segment(CLIENT, c.to.1, flags, seq, ack);
            let mut sent = Message::new(Node::pod(0, false), c.to.0, l4);
            sent.payload.clear();
            let mut frame = sent.frame();
            // Frames have at least 60 bytes (IEEE 802.3).
            frame.bytes.resize(60, 0);
            assert_eq!(c.node.pod_sends(0, &mut frame), Landed::Pod(1));
        });
        let (forth, back) = c.now();
        sends(&mut c, FIN, forth, back);
        c.back(FIN, back, forth.wrapping_add(1));
        sends(&mut c, ACK, forth.wrapping_add(1), back.wrapping_add(9));
        assert!(c.states().iter().all(|(_, state)| state & FlowState::LAST_ACK != 0), "{:?}", c.states());
        let mut c = Connection::new(false, Send { partial: false }, service);
        sends(&mut c, SYN, isn, 0);
        c.back(RST | ACK, 0, isn + 1);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::RESET != 0), "{:?}", c.states());
    }
}

#[test]
fn s70_a_refusal_counts_after_its_opener_has_closed() {
    each_way(|mut c, _| {
        c.off(FIN | ACK, true, 0);
        c.forth(SYN, 0xfeed, 0);
        c.back(RST | ACK, 0, 0xfeee);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::RESET != 0), "{:?}", c.states());
    });
}

#[test]
fn s70_what_lies_elsewhere_revives_nothing() {
    each_way(|mut c, entries| {
        let (forth, back) = c.now();
        c.off(RST | ACK, true, 0);
        c.back(ACK, back.wrapping_add(1 << 30), forth.wrapping_add(1 << 29));
        let reset = |c: &Connection| {
            c.states().iter().filter(|(established, state)| !established && state & FlowState::RESET != 0).count()
        };
        assert_eq!(reset(&c), entries, "{:?}", c.states());
        c.back(ACK, back, forth);
        assert_eq!(reset(&c), 0, "what comes after an RST shows that it was none");
    });
}

#[test]
fn s70_what_lies_elsewhere_does_not_end_a_silence() {
    each_way(|mut c, entries| {
        let (forth, back) = c.now();
        c.back(ACK, back.wrapping_add(1 << 30), forth);
        // It would be on its way, if anything were.
        c.off(RST, false, 16 << 20);
        let whole = FlowState::REPLIED | FlowState::ESTABLISHED;
        assert_eq!(c.states(), std::vec![(true, whole); entries]);
        c.off(ACK, false, 0);
        c.off(RST, false, 16 << 20);
        assert!(c.states().iter().all(|(_, state)| state & FlowState::RESET != 0), "{:?}", c.states());
    });
}

#[test]
fn s70_one_that_is_ends_the_connection_also_after_hours_of_silence() {
    each(|v6, send| {
        for (service, from_client) in [(false, false), (false, true), (true, false), (true, true)] {
            for silence in [0, 1, 7200] {
                let mut c = Connection::new(v6, send, service);
                // All of it in one second, the end too, or when that has long passed.
                c.download(40 << 20);
                c.node.host.now += silence;
                c.off(RST, from_client, 0);
                let states = c.states();
                assert!(states.iter().all(|(established, state)| !established && state & FlowState::RESET != 0));
                assert_eq!(states.len(), 1 + usize::from(service));
            }
            let mut c = Connection::new(v6, send, service);
            c.download(40 << 20);
            c.off(FIN, false, 6 << 20);
            let half = |c: &Connection| c.states().iter().all(|(_, state)| state & FlowState::FIN_RESPONDER != 0);
            assert!(half(&c), "what closes may have much on its way");
            c.node.host.now += 3599;
            c.forth(ACK, c.now().0, c.now().1.wrapping_add((6 << 20) + 1));
            assert!(half(&c), "and has time");
        }
    });
}

#[test]
fn s70_the_numbers_are_noted_seldom() {
    let mut c = Connection::new(false, Send { partial: false }, false);
    c.download(1 << 20);
    let of = |c: &Connection| {
        let flows = &c.node.host.flows;
        let key = flows.keys(Table::Established)[0];
        flows.flow(Table::Established, &key).unwrap().plain().acked.value
    };
    let mut seen = std::collections::BTreeSet::from([of(&c)]);
    for _ in 0..16 {
        c.download(1 << 20);
        seen.insert(of(&c));
    }
    assert!((14..=18).contains(&seen.len()), "{} writes for 16 MiB", seen.len());
}

#[test]
fn s71_lifetimes_are_what_is_set() {
    each_way(|mut c, entries| {
        c.off(ACK, true, 0);
        c.node.host.config.lifetimes.established = 100;
        c.node.host.config.lifetimes.half_closed = 20;
        c.node.host.now += 100;
        c.off(ACK, true, 0);
        assert_eq!(c.states().len(), entries);
        c.off(FIN, false, 0);
        c.node.host.now += 20;
        c.off(ACK, true, 0);
        assert!(c.states().iter().all(|(established, state)| *established && state & FlowState::FINS != 0));
        c.node.host.now += 21;
        // What is over is not known: another begins there.
        c.forth(SYN, 77, 0);
        assert_eq!(c.states().iter().filter(|state| **state == (false, 0)).count(), entries);
    });
}

#[test]
fn s72_a_connection_that_leaves_by_what_is_no_uplink_is_established() {
    each(|v6, send| {
        let mut node = Node::new();
        let (pod, world) = ((Node::pod(0, v6), CLIENT), (Node::world(v6), 443));
        let forth = |node: &mut Node, flags| {
            let mut frame = send.frame(&tcp(pod, world, flags));
            assert_eq!(node.host.run(Hook::FromPod(0), &mut frame), Fate::Stack);
            frame
        };
        let back = |node: &mut Node, flags| {
            let mut frame = send.frame(&tcp(world, pod, flags));
            frame.ingress = 77;
            assert_eq!(node.host.run(Hook::ToPod(0), &mut frame), Fate::Pass);
        };
        forth(&mut node, SYN);
        back(&mut node, SYN_ACK);
        forth(&mut node, ACK);
        back(&mut node, ACK);
        let established = node.host.flows.keys(Table::Established);
        assert_eq!((established.len(), node.host.flows.keys(Table::Any).len()), (1, 0));
        let flow = node.host.flows.flow(Table::Established, &established[0]).unwrap().plain();
        assert!(flow.is(FlowFlags::MASQUERADE) && !flow.is_translated());
        // Where the route leads out of an uplink meanwhile, its other end would not know it.
        let mut frame = forth(&mut node, ACK);
        let fate = node.host.run(Hook::ToUplink(Node::UPLINK), &mut frame);
        assert_eq!(fate, Fate::Drop(DropReason::Untranslated));
        // And when it does not any more, it goes on.
        forth(&mut node, ACK);
        back(&mut node, ACK);
    });
}
