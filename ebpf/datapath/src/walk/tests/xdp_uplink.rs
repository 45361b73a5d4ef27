//! What XDP does at an uplink, against what the walk at tcx would have done with the same packets.

use core::mem::offset_of;

use proptest::prelude::*;

use super::outside::{NODE_PORT, first, node_port};
use super::*;
use crate::flow::Flow;
use crate::testing::{Entry, Fate, Host};

/// A way out of the uplink for clients, by which they are reached from the driver as well.
const WAY: Option<(u32, u32)> = Some((Node::UPLINK, Node::MTU));

/// A node with a NodePort whose backend is on the other node or a process of it.
fn node(v6: bool, proto: u8, backend: IpAddr) -> Node {
    let (mut node, _) = node_port(v6, proto, &[(backend, 8080)], 0);
    node.host.onward = WAY;
    node.host.record_nothing("XDP has no recording");
    node
}

/// What becomes of a message at the driver, and as what it leaves.
fn at_driver(node: &mut Node, message: &Message) -> Option<(Fate, Seen)> {
    let mut frame = message.frame();
    let fate = node.host.at_driver(Node::UPLINK, &mut frame)?;
    let macs: Vec<u8> = Host::MACS.concat();
    assert_eq!(frame.bytes[..12], macs[..]);
    Some((fate, seen(&frame)))
}

/// Opens a flow by the other walk: what the client sends from now on, and what the backend answers.
fn opened(node: &mut Node, v6: bool, proto: u8) -> (Message, Message) {
    let send = Send { partial: false };
    let (client, to) = ((Node::world(v6), CLIENT), (Node::address(v6), NODE_PORT));
    let sent = first(proto, client, to);
    assert_eq!(at_driver(node, &sent), None, "what opens a flow");
    let (_, got) = send.arrives(node, &sent);
    let reply = answer(&got, SYN_ACK);
    assert_eq!(at_driver(node, &reply), None, "the first answer");
    send.arrives(node, &reply);
    if proto == UDP {
        return (sent, reply);
    }
    let next = tcp(client, to, ACK);
    assert_eq!(at_driver(node, &next), None, "what ends the handshake");
    send.arrives(node, &next);
    (next, answer(&got, ACK))
}

#[test]
fn s82_both_directions_of_a_known_flow_are_served_at_the_driver() {
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            for (backend, there) in [(Node::far_pod(v6), Fate::ToNode(0)), (Node::other_node(v6), Fate::Out)] {
                let mut node = node(v6, proto, backend);
                let (next, back) = opened(&mut node, v6, proto);
                let (fate, got) = at_driver(&mut node, &next).expect("it is served");
                assert_eq!((fate, got.dst, got.dport, got.src, got.ttl), (there, backend, 8080, Node::address(v6), 63));
                let (fate, got) = at_driver(&mut node, &back).expect("the answer is served");
                let ends = ((Node::address(v6), NODE_PORT), (Node::world(v6), CLIENT));
                assert_eq!((fate, got.ends(), got.ttl), (Fate::Out, ends, 63));
            }
        }
    }
}

#[test]
fn s82_what_ends_a_connection_or_has_rested_is_left_to_the_other_walk() {
    for v6 in [false, true] {
        let mut node = node(v6, TCP, Node::far_pod(v6));
        let (next, back) = opened(&mut node, v6, TCP);
        for (message, flags) in [(&next, FIN), (&next, RST), (&next, SYN), (&back, FIN), (&back, RST), (&back, SYN_ACK)]
        {
            let L4::Tcp(from, to, _) = message.l4 else { panic!("{message:?}") };
            let message = Message { l4: L4::Tcp(from, to, flags), ..message.clone() };
            assert_eq!(at_driver(&mut node, &message), None, "{message:?}");
        }
        assert!(at_driver(&mut node, &next).is_some());
        node.host.now += 10;
        assert_eq!(at_driver(&mut node, &next), None, "its next hop may have to be asked for again");
    }
}

#[test]
fn s82_the_kernel_gets_to_see_both_directions_of_a_busy_flow() {
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            let mut node = node(v6, proto, Node::far_pod(v6));
            let (next, back) = opened(&mut node, v6, proto);
            let mut left = [0, 0];
            for _ in 0..32 {
                node.host.now += 1;
                // The client is the first in each second.
                for (message, of) in [(&next, 0), (&next, 0), (&back, 1), (&back, 1)] {
                    if at_driver(&mut node, message).is_none() {
                        Send { partial: false }.arrives(&mut node, message);
                        left[of] += 1;
                    }
                }
            }
            // One in eight seconds, and what makes a stream of datagrams.
            assert!(left.iter().all(|left| (4..=5).contains(left)), "{left:?} of {proto}");
        }
    }
}

#[test]
fn s82_what_a_router_would_answer_or_cut_is_left_to_the_other_walk() {
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            let mut node = node(v6, proto, Node::far_pod(v6));
            let (next, back) = opened(&mut node, v6, proto);
            for message in [&next, &back] {
                assert_eq!(at_driver(&mut node, &Message { ttl: 1, ..message.clone() }), None);
                let large = Message { payload: std::vec![0; 1500], ..message.clone() };
                assert_eq!(at_driver(&mut node, &large), None);
                let extended = if v6 {
                    Message { extensions: std::vec![(60, std::vec![0; 6])], ..message.clone() }
                } else {
                    Message { options: std::vec![1; 4], ..message.clone() }
                };
                assert_eq!(at_driver(&mut node, &extended), None);
            }
            node.host.knows_neighbours = false;
            assert_eq!((at_driver(&mut node, &next), at_driver(&mut node, &back)), (None, None));
            node.host.knows_neighbours = true;
            node.host.onward = Some((Node::UPLINK + 1, Node::MTU));
            assert_eq!(at_driver(&mut node, &back), None, "by another interface");
            node.tunnel();
            assert_eq!(at_driver(&mut node, &next), None, "through the tunnel");
        }
    }
}

#[test]
fn s82_pods_of_this_node_and_its_processes_are_not_served_at_the_driver() {
    for v6 in [false, true] {
        for proto in [TCP, UDP] {
            for backend in [Node::pod(1, v6), Node::address(v6)] {
                let mut node = node(v6, proto, backend);
                let client = (Node::world(v6), CLIENT);
                let sent = first(proto, client, (Node::address(v6), NODE_PORT));
                Send { partial: false }.arrives(&mut node, &sent);
                assert_eq!(at_driver(&mut node, &sent), None);
            }
        }
    }
}

#[test]
fn s82_udp_moves_to_another_backend_as_without_xdp() {
    for v6 in [false, true] {
        let (mut node, ids) = node_port(v6, UDP, &[(Node::far_pod(v6), 8080)], 0);
        node.host.onward = WAY;
        node.host.record_nothing("XDP has no recording");
        let (next, _) = opened(&mut node, v6, UDP);
        assert!(at_driver(&mut node, &next).is_some());
        node.stop_serving(ids[0]);
        assert_eq!(at_driver(&mut node, &next), None);
    }
}

/// What happens at both nodes.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A client sends: which client, service, protocol, flags, number and what it acknowledges, and what the packet is like.
    Ask(usize, usize, bool, u8, u32, u32, Shape),
    /// Whoever got one of the packets answers.
    Answer(prop::sample::Index, u8, u32, u32, Shape),
    /// A backend serves no more, serves again, or is about to end.
    Serve(prop::sample::Index, u8),
    /// What pods elsewhere are reached by: directly, through the tunnel, by the routes.
    Way(u8),
    /// Where the routes to clients lead.
    Onward(Option<(u32, u32)>),
    /// The neighbours are known, or not.
    Neighbours(bool),
    /// Time passes.
    Wait(u32),
}

/// What a packet is like besides.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Plain,
    Extended,
    Short(u8),
    Large,
    First,
    Later,
    NoChecksum,
    Cut(usize),
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        20 => Just(Shape::Plain),
        1 => Just(Shape::Extended),
        1 => (0..3_u8).prop_map(Shape::Short),
        1 => Just(Shape::Large),
        1 => Just(Shape::First),
        1 => Just(Shape::Later),
        1 => Just(Shape::NoChecksum),
        1 => (0..80_usize).prop_map(Shape::Cut),
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(SYN), 3 => Just(SYN_ACK), 12 => Just(ACK), 1 => Just(FIN), 1 => Just(RST), 1 => any::<u8>()]
}

/// Numbers of segments: most lie where a connection stands.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..4_000_000_u32, 1 => any::<u32>()]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let ask = (
        prop_oneof![6 => Just(0), 1 => Just(1), 6 => Just(2)],
        0..5_usize,
        any::<bool>(),
        flags(),
        number(),
        number(),
        shape(),
    );
    let answer = (any::<prop::sample::Index>(), flags(), number(), number(), shape());
    let event = prop_oneof![
        20 => ask.prop_map(|(a, b, c, d, e, f, g)| Event::Ask(a, b, c, d, e, f, g)),
        20 => answer.prop_map(|(a, b, c, d, e)| Event::Answer(a, b, c, d, e)),
        1 => (any::<prop::sample::Index>(), 0..3_u8).prop_map(|(a, b)| Event::Serve(a, b)),
        1 => (0..3_u8).prop_map(Event::Way),
        1 => proptest::option::weighted(0.8, (Node::UPLINK..Node::UPLINK + 2, 1000..1600_u32)).prop_map(Event::Onward),
        1 => any::<bool>().prop_map(Event::Neighbours),
        // Not the lifetime of a flow to the second.
        4 => prop_oneof![Just(1), Just(2), Just(4), Just(43), Just(400)].prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 0..80)
}

/// The same node twice, one with XDP at its uplink and one without.
struct Pair {
    v6: bool,
    with: Node,
    without: Node,
    ids: Vec<u32>,
    /// What came out of the node last, to be answered.
    out: Vec<Seen>,
    /// Packets that XDP has served.
    served: usize,
}

/// What a node's tables hold, and apart from that when each flow was last seen.
fn left(node: &Node) -> (Vec<Entry>, Vec<u64>) {
    let mut entries = node.host.flows.left();
    let flows = entries.iter_mut().filter(|entry| entry.value.len() == size_of::<Flow>());
    let at = offset_of!(Flow, seen);
    let seen = flows.map(|entry| {
        let seen: &mut [u8; 8] = (&mut entry.value[at..at + 8]).try_into().expect("eight bytes");
        u64::from_ne_bytes(core::mem::take(seen))
    });
    let seen = seen.collect();
    (entries, seen)
}

impl Pair {
    fn new(v6: bool) -> Self {
        let make = || {
            let far = (Node::far_pod(v6), 8080);
            let (mut node, mut ids) = node_port(v6, TCP, &[far], 0);
            let mut add = |ip, backends: &[(IpAddr, u16)]| {
                for proto in [TCP, UDP] {
                    ids.extend(node.service((ip, 80), proto, backends));
                }
            };
            add(Node::vip(v6), &[far, (Node::pod(1, v6), 8080)]);
            add(Node::other_vip(v6), &[(Node::other_node(v6), 8080), (Node::address(v6), 8080), far]);
            add(Node::far_pod(v6), &[far]);
            node.host.onward = WAY;
            node.host.record_nothing("XDP has no recording");
            (node, ids)
        };
        let ((with, ids), (without, _)) = (make(), make());
        Self { v6, with, without, ids, out: Vec::new(), served: 0 }
    }

    /// Opens flows of a client by each service, as far as they are answered.
    fn open(&mut self, client: usize) -> Result<(), TestCaseError> {
        for (service, is_tcp) in (0..3).flat_map(|service| [(service, true), (service, false)]) {
            let begun = self.out.len();
            self.step(Event::Ask(client, service, is_tcp, SYN, 1, 1, Shape::Plain))?;
            if self.out.len() > begun {
                let got = self.out[begun].clone();
                self.arrives(&answer(&got, SYN_ACK), Shape::Plain)?;
                self.step(Event::Ask(client, service, is_tcp, ACK, 1, 1, Shape::Plain))?;
            }
        }
        Ok(())
    }

    fn both(&mut self, act: impl Fn(&mut Node)) {
        act(&mut self.with);
        act(&mut self.without);
    }

    fn arrives(&mut self, message: &Message, shape: Shape) -> Result<(), TestCaseError> {
        let frame = shaped(message, shape);
        let (mut with, mut without) = (frame.clone(), frame.clone());
        let served = self.with.host.at_driver(Node::UPLINK, &mut with);
        if served.is_none() {
            prop_assert_eq!(&with, &frame, "what is left to the other walk is as it was");
        }
        let landed = (self.without.arrives(&mut without), without.mark);
        match served {
            None => prop_assert_eq!((self.with.arrives(&mut with), with.mark), landed),
            Some(fate) => {
                let as_landed = match fate {
                    Fate::ToNode(node) => Landed::Node(node),
                    Fate::Out => Landed::Out,
                    other => return Err(TestCaseError::fail(std::format!("{other:?} by XDP"))),
                };
                prop_assert_eq!(as_landed, landed.0, "{:?}", message);
                self.served += 1;
            }
        }
        prop_assert_eq!(with.bytes.get(12..), without.bytes.get(12..), "the same bytes come of {:?}", message);
        let [(tables, last), (tables_without, last_without)] = [&self.with, &self.without].map(left);
        prop_assert_eq!(tables, tables_without, "the same tables");
        // A direction is told of the other's packets with a delay, for the kernel to see its own.
        let is_soon = last.iter().zip(&last_without).all(|(with, without)| (without - 3..=*without).contains(with));
        prop_assert!(is_soon, "{:?} and {:?}", last, last_without);
        // What is noted once a second would come of other packets from now on.
        self.without.host.flows.see_as(&self.with.host.flows);
        if matches!(landed.0, Landed::Node(_) | Landed::Out | Landed::Pod(_))
            && let Ok(seen) = Seen::of(&without)
        {
            self.out.push(seen);
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        let v6 = self.v6;
        match event {
            Event::Ask(client, service, is_tcp, flags, seq, ack, shape) => {
                let from = if client == 2 { Node::far_pod(v6) } else { Node::world(v6) };
                let to = [
                    (Node::address(v6), NODE_PORT),
                    (Node::vip(v6), 80),
                    (Node::other_vip(v6), 80),
                    (Node::far_pod(v6), 80),
                    (Node::pod(1, v6), 8080),
                ][service];
                let port = CLIENT + client as u16;
                let l4 = if is_tcp { L4::Segment(port, to.1, flags, seq, ack) } else { L4::Udp(port, to.1) };
                self.arrives(&Message::new(from, to.0, l4), shape)
            }
            Event::Answer(which, flags, seq, ack, shape) => {
                if self.out.is_empty() {
                    return Ok(());
                }
                let to = which.get(&self.out);
                let l4 = match to.proto {
                    TCP => L4::Segment(to.dport, to.sport, flags, seq, ack),
                    _ => L4::Udp(to.dport, to.sport),
                };
                let message = Message::new(to.dst, to.src, l4);
                self.arrives(&message, shape)
            }
            Event::Serve(which, how) => {
                let id = *which.get(&self.ids);
                self.both(|node| match how {
                    0 => node.stop_serving(id),
                    1 => node.serve(id),
                    _ => node.end(id),
                });
                Ok(())
            }
            Event::Way(way) => {
                use crate::peer::HopFlags;
                self.both(|node| {
                    let hop = node.host.peers.nodes.get_mut(&0).expect("the other node");
                    hop.flags = match way {
                        0 => 0,
                        1 => HopFlags::TUNNEL_V4 | HopFlags::TUNNEL_V6 | HopFlags::SENDS,
                        _ => HopFlags::ROUTED_V4 | HopFlags::ROUTED_V6,
                    };
                });
                Ok(())
            }
            Event::Onward(onward) => {
                self.both(|node| node.host.onward = onward);
                Ok(())
            }
            Event::Neighbours(known) => {
                self.both(|node| node.host.knows_neighbours = known);
                Ok(())
            }
            Event::Wait(seconds) => {
                self.both(|node| node.host.now += seconds);
                Ok(())
            }
        }
    }
}

/// A message as one frame that is like that.
fn shaped(message: &Message, shape: Shape) -> Frame {
    let v6 = message.src.is_ipv6();
    let mut message = message.clone();
    match shape {
        Shape::Extended if v6 => message.extensions = std::vec![(60, std::vec![0; 6])],
        Shape::Extended => message.options = std::vec![1; 4],
        Shape::Short(ttl) => message.ttl = ttl,
        Shape::Large => message.payload = std::vec![7; 1450],
        Shape::NoChecksum if !v6 => {
            if let L4::Udp(from, to) = message.l4 {
                message.l4 = L4::UdpUnchecked(from, to);
            }
        }
        _ => {}
    }
    match shape {
        Shape::First => message.fragments(24, 7).swap_remove(0),
        Shape::Later => message.fragments(8, 7).pop().expect("a fragment"),
        Shape::Cut(len) => {
            let mut frame = message.frame();
            frame.bytes.truncate(len);
            frame
        }
        _ => message.frame(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn s82_xdp_does_what_the_other_walk_does_or_nothing(v6: bool, events in events()) {
        let mut pair = Pair::new(v6);
        pair.open(0)?;
        pair.open(2)?;
        // The property says nothing if nothing is served.
        prop_assert!(pair.served > 0);
        for event in events {
            pair.step(event)?;
        }
    }
}
