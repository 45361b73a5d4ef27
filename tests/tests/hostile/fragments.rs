//! Fragments behind packets of other flows: what a program saw before on its CPU says nothing of the next packet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use fairlead_tests::frames::flags::{ACK, PSH, RST, SYN};
use fairlead_tests::frames::{IPV6, Segment, TCP, UDP, Wire, datagram, ends, fragment, ipv6, segment};
use fairlead_tests::{Drops, Lab, Probe, ProbeError, Probes, ServiceManifest, Via};
use serde_json::json;

use crate::world::{MARK, SILENCE, assert_nothing_smuggled, policy, smuggled, wait_until_silent, world};

/// How often each is tried: the packets have to meet on a CPU.
const TRIES: u16 = 20;

/// Pods that send one datagram in fragments, beside one that sends so many first ones.
const QUIET: usize = 8;
const FLOOD: u16 = 40_000;

#[test]
fn a_later_fragment_is_not_taken_for_what_came_before_it() {
    let lab = world();
    policy(
        lab,
        "pieces",
        "victim",
        &json!({"policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "TCP", "port": 81}]}]}),
    );
    for node in ["node-1", "node-2"] {
        let attacker = lab.node("node-1").pod(&format!("pieces/attacker-of-{node}")).start();
        let victim =
            lab.node(node).pod(&format!("pieces/victim-{node}")).label("role", "victim").tcp(80).tcp(81).start();
        wait_until_silent(lab, &attacker, &victim, 80);
        let mut wire = Wire::of(&attacker);
        for (own, to) in attacker.ips().into_iter().zip(victim.ips()) {
            lab.wait_until("the open port answers", || attacker.tcp(to, 81));
            let mut seen = victim.packets("eth0");
            for number in 0..TRIES {
                let allowed =
                    |flags| segment(own, to, (45_000 + number, 81), &Segment { ack: 1, ..Segment::new(flags) });
                let (kind, denied) = segment(own, to, (46_000, 80), &Segment { payload: MARK, ..Segment::new(SYN) });
                let header = if own.is_ipv4() { 20 } else { 40 };
                let first = fragment((own, to), TCP, number, (0, true), &denied[header..header + 40]).1;
                for flags in [SYN, ACK, RST] {
                    // One of a datagram that was denied, one of none that is known.
                    for (id, protocol) in [(number, TCP), (1000 + number, TCP), (2000 + number, UDP)] {
                        let later = fragment((own, to), protocol, id, (40, false), MARK).1;
                        for packet in [&first, &allowed(flags).1, &later] {
                            wire.send(kind, packet);
                        }
                    }
                }
            }
            assert_nothing_smuggled(&mut seen, &format!("fragments of {own} to {to}"));
        }
    }
}

#[test]
fn fragments_arrive_with_packets_of_others_between_them() {
    let lab = world();
    for node in ["node-1", "node-2"] {
        let sender = lab.node("node-1").pod(&format!("whole/sender-to-{node}")).start();
        let server = lab.node(node).pod(&format!("whole/server-{node}")).tcp(80).udp(53).start();
        let mut wire = Wire::of(&sender);
        for (own, to) in sender.ips().into_iter().zip(server.ips()) {
            let mut open = sender.connect(&Probe::tcp(to, 80)).unwrap();
            let local = open.greeting().local.port();
            for number in 0..TRIES {
                let between =
                    |flags| segment(own, to, (47_000 + number, 80), &Segment { ack: 1, ..Segment::new(flags) }).1;
                let header = if own.is_ipv4() { 20 } else { 40 };
                let (kind, whole) = datagram(own, to, (48_000 + number, 53), &[b'x'; 64]);
                // Of the connection too, outside of its window.
                let (_, old) = segment(own, to, (local, 80), &Segment { payload: &[0; 64], ..Segment::new(ACK | PSH) });
                for flags in [SYN, ACK, RST] {
                    wire.send(kind, &fragment((own, to), TCP, 4000 + number, (0, true), &old[header..header + 40]).1);
                    wire.send(kind, &between(flags));
                    wire.send(kind, &fragment((own, to), TCP, 4000 + number, (40, false), &old[header + 40..]).1);
                }
                wire.send(kind, &fragment((own, to), UDP, 3000 + number, (0, true), &whole[header..header + 40]).1);
                wire.send(kind, &between(SYN));
                wire.send(kind, &fragment((own, to), UDP, 3000 + number, (40, false), &whole[header + 40..]).1);
                let answered = |frame: &fairlead_tests::Frame| {
                    let bytes = frame.bytes();
                    let at = 14 + header;
                    !frame.outgoing
                        && ends(&bytes) == Some((to, own))
                        && bytes.get(at..at + 4) == Some(&[53, 48_000 + number].map(u16::to_be_bytes).concat()[..])
                };
                let answer = wire.packets.wait_for(Duration::from_secs(10), answered);
                assert!(answer.is_some(), "datagram {number} of {own} is answered by {to}");
            }
            assert_eq!(open.exchange(20_000, 20_000).unwrap().server.pod, server.key(), "the connection goes on");
        }
    }
}

#[test]
fn s47_who_sends_first_fragments_all_the_time_takes_no_datagram_of_others() {
    // Of its own: what nodes drop is counted, and others send fragments of which no first one is known.
    let lab = Lab::builder().start();
    let [here, there] = ["node-1", "node-2"].map(|name| lab.node(name));
    let (flooder, sink) = (here.pod("crumbs/flooder").start(), there.pod("crumbs/sink").start());
    let server = there.pod("crumbs/server").udp(53).start();
    let pods: Vec<_> = (0..QUIET).map(|n| here.pod(&format!("crumbs/quiet-{n}")).start()).collect();
    let mut wires: Vec<_> = pods.iter().map(Wire::of).collect();
    let pieces = |own: IpAddr, to: IpAddr, id: u16| {
        let header = if own.is_ipv4() { 20 } else { 40 };
        let (kind, whole) = datagram(own, to, (48_000, 53), &[b'x'; 64]);
        let piece = |offset: u16, more, bytes: &[u8]| (kind, fragment((own, to), UDP, id, (offset, more), bytes).1);
        [piece(0, true, &whole[header..header + 40]), piece(40, false, &whole[header + 40..])]
    };
    for ip in server.ips() {
        lab.wait_until("the server answers", || flooder.udp(ip, 53));
    }
    let dropped = Drops::of(here).count("fragment");
    let mut rest = Vec::new();
    let begin = Instant::now();
    for (wire, pod) in wires.iter_mut().zip(&pods) {
        for (own, to) in pod.ips().into_iter().zip(server.ips()) {
            let [(kind, first), later] = pieces(own, to, 1);
            wire.send(kind, &first);
            rest.push((own, to, later));
        }
    }
    // More than there are places, by both families.
    let mut wire = Wire::of(&flooder);
    for number in 0..FLOOD {
        for (own, to) in flooder.ips().into_iter().zip(sink.ips()) {
            let [(kind, first), _] = pieces(own, to, number);
            wire.send(kind, &first);
        }
    }
    let mut lost = 0;
    for (number, (own, to, (kind, later))) in rest.iter().enumerate() {
        let wire = &mut wires[number / 2];
        wire.send(*kind, later);
        let answered = |frame: &fairlead_tests::Frame| !frame.outgoing && ends(&frame.bytes()) == Some((*to, *own));
        lost += usize::from(wire.packets.wait_for(Duration::from_secs(2), answered).is_none());
    }
    // A first fragment is remembered for 30 s. On a machine that needs that long the test says nothing.
    if begin.elapsed() > Duration::from_secs(20) {
        return;
    }
    assert_eq!(Drops::of(here).count("fragment"), dropped, "a pod has places of its own on its node");
    // Elsewhere, one pod of 128 shares the flooder's.
    assert!(lost <= 2, "{lost} of {} were lost", rest.len());
}

/// An IPv6 datagram in two fragments, of which the first has so many options that the stack copies what it cuts again.
fn with_options(own: IpAddr, to: IpAddr, id: u16, mark: &[u8]) -> Option<[Vec<u8>; 2]> {
    const HOP_BY_HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (own, to) else { return None };
    let payload = [mark, &[0; 2200]].concat();
    let (_, whole) = datagram(own, to, (44_000 + id, 53), &payload);
    let (first, later) = whole[40..].split_at(1000);
    // One that whoever does not know it skips (RFC 8200 section 4.2, RFC 4727), and padding.
    let options = [&[FRAGMENT, 32, 0x1e, 255][..], &[0; 255], &[1, 3, 0, 0, 0]].concat();
    let (_, first) = fragment((own, to), UDP, id, (0, true), first);
    let (_, later) = fragment((own, to), UDP, id, (1000, false), later);
    Some([ipv6(src, dst, HOP_BY_HOP, 64, &[&options, &first[40..]].concat()), later])
}

/// Where conntrack puts IPv6 fragments together, the stack makes new packets of what it forwards, which have come in nowhere: so does
/// what the node itself sends, which policy lets in.
#[test]
fn s85_fragments_that_the_stack_makes_anew_of_what_others_sent_are_not_the_nodes() {
    const ADDRESSES: [&str; 2] = ["fd00:198:18:85::1", "fd00:198:18:85::2"];
    let lab = Lab::builder().nodes(1).agent(&["--exclude-uplinks=aside*"]).start();
    let node = lab.node("node-1");
    let victim = node.pod("anew/victim").label("role", "victim").udp(53).start();
    let open = node.pod("anew/open").udp(53).start();
    let sender = node.pod("anew/sender").start();
    policy(&lab, "anew", "victim", &json!({"policyTypes": ["Ingress"]}));
    let [v4, closed, served]: [IpAddr; 3] =
        ["10.96.85.1", "fd00:10:96::85:1", "fd00:10:96::85:2"].map(|ip| ip.parse().unwrap());
    for (name, ips, pod) in [("closed", vec![v4, closed], &victim), ("served", vec![served], &open)] {
        let service = ServiceManifest::new(&format!("anew/{name}")).ips(&ips).udp("ask", 53, 53);
        lab.apply(&service.endpoint(pod).yaml());
    }
    // A machine behind the node, at an interface that Fairlead leaves alone.
    let guest = node.guest("aside");
    let (here, there) = ([2, 0, 0, 0, 0x85, 1], [2, 0, 0, 0, 0x85, 2]);
    node.must_run(&[
        "ip",
        "link",
        "add",
        "aside",
        "address",
        "02:00:00:00:85:01",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "address",
        "02:00:00:00:85:02",
        "netns",
        "aside",
    ]);
    for (place, ip, device) in [(node.vantage(), ADDRESSES[0], "aside"), (&guest, ADDRESSES[1], "eth0")] {
        place.must_run(&["ip", "addr", "add", &format!("{ip}/64"), "dev", device, "nodad"]);
        place.must_run(&["ip", "link", "set", device, "up"]);
    }
    guest.must_run(&["ip", "route", "add", "default", "via", ADDRESSES[0]]);
    let nft = "table ip6 t { chain c { type filter hook prerouting priority 0; ct state new accept; }; }";
    node.must_run(&["nft", nft]);
    wait_until_silent_by_udp(&lab, &sender, victim.ips()[1]);
    lab.wait_until("the guest reaches a pod", || guest.udp(open.ips()[1], 53));
    for ip in [closed, served] {
        lab.wait_in_force(node, [(ip, 53).into()]);
    }
    let [own, of_node]: [IpAddr; 2] = [ADDRESSES[1].parse().unwrap(), node.v6().into()];
    let mut at_guest = Wire { packets: guest.packets("eth0"), own: there, gateway: here };
    let mut at_pod = Wire::of(&sender);
    let mut seen = [victim.packets("eth0"), open.packets("eth0")];
    let mut id = 0;
    let mut send = |wire: &mut Wire, from: IpAddr, to: IpAddr| {
        id += 1;
        for packet in with_options(from, to, id, MARK).expect("both are of IPv6") {
            wire.send(IPV6, &packet);
        }
    };
    // The stack makes them anew indeed: those for an open pod arrive with another identification.
    send(&mut at_guest, own, open.ips()[1]);
    let first = seen[1].wait_for(Duration::from_secs(10), smuggled).expect("what policy allows arrives");
    assert_ne!(first.bytes()[14 + 40 + 264 + 4..][..4], [0, 0, 0, 1], "conntrack puts them together");
    seen[1].collect(Duration::from_millis(60), smuggled);
    let before = Drops::of(node).counts();
    for _ in 0..TRIES {
        for to in [victim.ips()[1], closed, served] {
            send(&mut at_guest, own, to);
            // As the node itself, at an interface where nobody asks.
            send(&mut at_guest, of_node, to);
        }
        send(&mut at_pod, sender.ips()[1], victim.ips()[1]);
        send(&mut at_pod, sender.ips()[1], closed);
    }
    for packets in &mut seen {
        assert_nothing_smuggled(packets, "fragments that the stack made anew");
    }
    let dropped = |reason: &str| {
        Drops::of(node).count(reason) - before.get(reason).copied().unwrap_or_default() >= u64::from(TRIES)
    };
    lab.wait_until("they are counted", || {
        if dropped("rejected") && dropped("ingress_policy") { Ok(()) } else { Err(Drops::of(node).counts()) }
    });
    // The node's own reach the Service, fragments too.
    let large = Probe::udp(closed, 53).payload(4000).answer_payload(4000);
    lab.wait_until("the node reaches its pod", || node.via(Via::Packet).probe(&large));
}

/// Waits until a pod's UDP port gives no answer.
#[track_caller]
fn wait_until_silent_by_udp(lab: &Lab, from: &impl Probes, to: IpAddr) {
    let probe = Probe::udp(to, 53).timeout(SILENCE);
    lab.wait_until("policy is in force", || match from.probe(&probe) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
