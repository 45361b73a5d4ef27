//! Segments that make a flow where policy does not allow one.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use fairlead_tests::frames::flags::{ACK, FIN, PSH, RST, SYN, URG};
use fairlead_tests::frames::{Segment, TCP, Wire, fragment, segment, tcp_flags};
use fairlead_tests::{Frame, Lab, Pod, Probe, ProbeError, Probes, Vantage};
use serde_json::json;

use crate::world::{SILENCE, between, cluster, outside, policy, wait_until_silent, world};

/// What is sent in front of a SYN: flags, and whether the checksum is right.
const OPENERS: [(u8, bool); 12] = [
    (0, true),
    (0, false),
    (PSH, true),
    (URG, true),
    (ACK, true),
    (ACK, false),
    (PSH | ACK, true),
    (FIN, true),
    (FIN | ACK, false),
    (SYN | ACK, true),
    (RST, true),
    (RST | ACK, false),
];

/// The port that a victim connects from.
const CLIENT: u16 = 7001;

/// The first port that victims serve: each opener has one of its own.
const FIRST: u16 = 8000;

/// A pod that listens on a port for each opener.
fn victim(lab: &Lab, node: &str, key: &str) -> Pod {
    let pod = lab.node(node).pod(key).label("role", "victim");
    (FIRST..).take(OPENERS.len()).fold(pod, fairlead_tests::PodBuilder::tcp).start()
}

/// Somebody who sends segments by hand and by `connect(2)`.
struct Attacker {
    place: Vantage,
    wire: Wire,
    ips: [IpAddr; 2],
}

impl Attacker {
    fn pod(lab: &Lab, node: &str, key: &str) -> Self {
        let pod = lab.node(node).pod(key).label("role", "attacker").start();
        Self { place: pod.vantage().clone(), wire: Wire::of(&pod), ips: pod.ips() }
    }

    fn outside(lab: &Lab) -> Self {
        Self { place: lab.client().clone(), wire: Wire::to_uplink(lab.client(), lab.node("node-1")), ips: outside() }
    }

    /// A SYN made by hand is answered where policy has nothing against it: what is sent is right.
    #[track_caller]
    fn reaches(&mut self, open: &Pod) {
        for (own, to) in self.ips.into_iter().zip(open.ips()) {
            let (kind, packet) = segment(own, to, (39_999, FIRST), &Segment::new(SYN));
            self.wire.send(kind, &packet);
            let answers = |frame: &Frame| between(frame, to, own) && tcp_flags(&frame.bytes()) == Some(SYN | ACK);
            assert!(self.wire.packets.wait_for(Duration::from_secs(10), answers).is_some(), "{to} answers {own}");
        }
    }

    /// Sends each opener, a SYN on the same ports, and connects from there. Nothing may arrive but resets, which end what is
    /// not there; nothing may be answered.
    #[track_caller]
    fn fails_at(&mut self, victim: &Pod, source: impl Fn(u16) -> u16 + Copy) {
        let place = &self.place;
        for (own, to) in self.ips.into_iter().zip(victim.ips()) {
            let ports = |number: usize| {
                let number = u16::try_from(number).expect("there are few");
                (source(number), FIRST + number)
            };
            let mut seen = victim.packets("eth0");
            // What was answered before is over.
            self.wire.packets.collect(Duration::from_millis(60), |_| true);
            for (number, (flags, intact)) in OPENERS.into_iter().enumerate() {
                let opener = Segment { flags, intact, ack: 1, ..Segment::new(flags) };
                for tcp in [opener, Segment { seq: 77, ..Segment::new(SYN) }] {
                    let (kind, packet) = segment(own, to, ports(number), &tcp);
                    self.wire.send(kind, &packet);
                }
            }
            let connected: Vec<_> = thread::scope(|scope| {
                let connect = |number| {
                    let (source, port) = ports(number);
                    let probe = Probe::tcp(to, port).source_port(source).timeout(SILENCE);
                    scope.spawn(move || place.probe(&probe))
                };
                let all: Vec<_> = (0..OPENERS.len()).map(connect).collect();
                all.into_iter().map(|each| each.join().expect("it is probed")).collect()
            });
            let told = seen.collect(Duration::from_millis(60), |frame| {
                between(frame, own, to) && tcp_flags(&frame.bytes()).is_some_and(|flags| flags & RST == 0)
            });
            let arrived: Vec<_> = told.iter().filter_map(|frame| tcp_flags(&frame.bytes())).collect();
            let answers = self.wire.packets.collect(Duration::ZERO, |frame| between(frame, to, own));
            let answers: Vec<_> = answers.iter().filter_map(|frame| tcp_flags(&frame.bytes())).collect();
            assert!(arrived.is_empty(), "from {own}, {to} got segments with flags {arrived:x?}");
            assert!(answers.is_empty(), "{own} got answers from {to} with flags {answers:x?}");
            for (outcome, opener) in connected.into_iter().zip(OPENERS) {
                assert_eq!(outcome.unwrap_err(), ProbeError::TimedOut, "{own} to {to} after {opener:x?}");
            }
        }
    }
}

/// A SYN in two fragments. The frame of the first goes on behind its packet, as if that were a whole segment with these flags.
fn disguised(own: IpAddr, to: IpAddr, ports: (u16, u16), id: u16, flags: u8) -> (u16, [Vec<u8>; 2]) {
    let header = if own.is_ipv4() { 20 } else { 40 };
    let (kind, syn) = segment(own, to, ports, &Segment::new(SYN));
    let (_, shown) = segment(own, to, ports, &Segment { ack: 1, ..Segment::new(flags) });
    let piece = |offset: u16, more, bytes: &[u8]| fragment((own, to), TCP, id, (offset, more), bytes).1;
    let first = [&piece(0, true, &syn[header..header + 8])[..], &shown[header + 8..]].concat();
    (kind, [first, piece(8, false, &syn[header + 8..])])
}

/// Whether a frame carries a segment that opens a connection.
fn opens(frame: &Frame) -> bool {
    tcp_flags(&frame.bytes()).is_some_and(|flags| flags & (SYN | ACK) == SYN)
}

/// Whether a frame carries a fragment.
fn is_fragment(frame: &Frame) -> bool {
    let bytes = frame.bytes();
    match bytes.get(12..14) {
        Some([8, 0]) => bytes.get(20..22).is_some_and(|place| place[0] & 0x3f != 0 || place[1] != 0),
        _ => bytes.get(20) == Some(&44),
    }
}

/// From ports that nobody else uses.
fn own_ports(number: u16) -> u16 {
    40_000 + number
}

#[test]
fn stray_segments_and_scans_get_nobody_into_a_closed_pod() {
    let lab = world();
    let open = victim(lab, "node-1", "into/open");
    policy(lab, "into", "closed", &json!({"policyTypes": ["Ingress"]}));
    let closed =
        OPENERS.iter().zip(FIRST..).fold(lab.node("node-1").pod("into/closed"), |pod, (_, port)| pod.tcp(port));
    let closed = closed.label("role", "closed").start();
    let attackers =
        [Attacker::pod(lab, "node-1", "into/near"), Attacker::pod(lab, "node-2", "into/far"), Attacker::outside(lab)];
    for mut attacker in attackers {
        attacker.reaches(&open);
        wait_until_silent(lab, &attacker.place, &closed, FIRST);
        attacker.fails_at(&closed, own_ports);
    }
}

#[test]
fn stray_segments_get_nobody_out_of_a_pod_that_may_open_nothing() {
    let lab = world();
    let open = victim(lab, "node-1", "out/open");
    let attackers = [Attacker::pod(lab, "node-1", "out/near"), Attacker::pod(lab, "node-2", "out/far")];
    for mut attacker in attackers {
        attacker.reaches(&open);
        policy(lab, "out", "attacker", &json!({"policyTypes": ["Egress"]}));
        wait_until_silent(lab, &attacker.place, &open, FIRST);
        attacker.fails_at(&open, own_ports);
        lab.delete("NetworkPolicy", "out/attacker");
        lab.wait_until("the policy is gone", || attacker.place.tcp(open.v4(), FIRST));
        lab.wait_until("the policy is gone", || attacker.place.tcp(open.v6(), FIRST));
    }
}

#[test]
fn source_port_443_opens_no_port_of_a_pod_that_connects_to_443() {
    let lab = world();
    policy(
        lab,
        "https",
        "victim",
        &json!({"policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"protocol": "TCP", "port": 443}]}]}),
    );
    let victim = victim(lab, "node-1", "https/victim");
    let attackers =
        [Attacker::pod(lab, "node-1", "https/near"), Attacker::pod(lab, "node-2", "https/far"), Attacker::outside(lab)];
    for mut attacker in attackers {
        wait_until_silent(lab, &attacker.place, &victim, FIRST);
        attacker.fails_at(&victim, |_| 443);
    }
}

#[test]
fn the_other_end_of_a_connection_opens_none_on_its_ports() {
    let lab = world();
    policy(lab, "back", "victim", &json!({"policyTypes": ["Ingress"]}));
    let victim = victim(lab, "node-1", "back/victim");
    for node in ["node-1", "node-2"] {
        let server = lab.node(node).pod(&format!("back/server-{node}")).tcp(80).start();
        wait_until_silent(lab, &server, &victim, FIRST);
        let mut wire = Wire::of(&server);
        for (own, to) in server.ips().into_iter().zip(victim.ips()) {
            // A SYN back has the ports of the connection.
            let mut open = victim.connect(&Probe::tcp(own, 80).source_port(CLIENT)).unwrap();
            let mut seen = victim.packets("eth0");
            for seq in [7, 0x0102_0304, 0xffff_0000] {
                let (kind, packet) = segment(own, to, (80, CLIENT), &Segment { seq, ..Segment::new(SYN) });
                wire.send(kind, &packet);
            }
            for (id, flags) in (5000..).zip([ACK, PSH | ACK, RST, FIN | ACK]) {
                let (kind, pieces) = disguised(own, to, (80, CLIENT), id, flags);
                pieces.iter().for_each(|piece| wire.send(kind, piece));
            }
            let opening = |frame: &Frame| between(frame, own, to) && (opens(frame) || is_fragment(frame));
            assert_eq!(seen.collect(Duration::from_millis(60), opening), [], "no SYN of {own} reaches {to}");
            for size in [10, 20_000] {
                assert_eq!(open.exchange(size, size).unwrap().server.pod, server.key(), "the connection goes on");
            }
        }
    }
}

#[test]
fn connections_that_are_picked_up_carry_no_syn_of_the_other_side() {
    // A lab of its own, whose tables are new.
    let lab = cluster();
    policy(&lab, "new", "victim", &json!({"policyTypes": ["Ingress"]}));
    let victim = victim(&lab, "node-1", "new/victim");
    let attackers =
        [Attacker::pod(&lab, "node-1", "new/near"), Attacker::pod(&lab, "node-2", "new/far"), Attacker::outside(&lab)];
    for mut attacker in attackers {
        wait_until_silent(&lab, &attacker.place, &victim, FIRST);
        for (own, to) in attacker.ips.into_iter().zip(victim.ips()) {
            let mut seen = victim.packets("eth0");
            for (number, (flags, intact)) in (0..).zip(OPENERS) {
                let ports = (own_ports(number), FIRST + number);
                for tcp in [Segment { ack: 1, intact, ..Segment::new(flags) }, Segment::new(SYN)] {
                    let (kind, packet) = segment(own, to, ports, &tcp);
                    attacker.wire.send(kind, &packet);
                }
            }
            for (number, flags) in (0..).zip([ACK, PSH | ACK, SYN | ACK, RST, FIN | ACK]) {
                let ports = (own_ports(100 + number), FIRST + number);
                let (kind, pieces) = disguised(own, to, ports, 6000 + number, flags);
                pieces.iter().for_each(|piece| attacker.wire.send(kind, piece));
            }
            let opening = |frame: &Frame| between(frame, own, to) && (opens(frame) || is_fragment(frame));
            assert_eq!(seen.collect(Duration::from_millis(60), opening), [], "no SYN of {own} reaches {to}");
        }
    }
}
