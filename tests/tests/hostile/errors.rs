//! ICMP errors about flows of others.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use fairlead_tests::frames::{Complaint, Segment, UDP, Wire, datagram, flags, fragment, icmp_error, packet, segment};
use fairlead_tests::{Frame, Pod, Probe, ProbeError, Probes, ServiceManifest};
use serde_json::{Value, json};

use crate::world::{MARK, assert_nothing_smuggled, between, outside, policy, smuggled, wait_until_silent, world};

const COMPLAINTS: [Complaint; 2] = [Complaint::PortUnreachable, Complaint::TooBig(552)];

/// A TCP segment that carries the mark, in its packet.
fn marked_segment(src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> Vec<u8> {
    segment(src, dst, ports, &Segment { ack: 1, payload: MARK, ..Segment::new(flags::ACK | flags::PSH) }).1
}

/// An ICMP echo request that carries the mark, in its packet. A kernel that believes an error about one has a smaller MTU
/// for its destination, whether or not it sent any.
fn marked_echo(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let (protocol, kind) = if src.is_ipv4() { (1, 8) } else { (58, 128) };
    packet(src, dst, protocol, &[&[kind, 0, 0, 0, 0, 7, 0, 1], MARK].concat()).1
}

/// Who sends errors, and from where.
struct Attacker {
    wire: Wire,
    ips: [IpAddr; 2],
    /// A pod is no router. A host outside may be one between nodes, but not between two pods of one node.
    is_router: bool,
}

/// A pod with a connection and a datagram under way, which others know the ports of.
struct Victim<'a> {
    pod: &'a Pod,
    /// Answers no datagram of the victim.
    mute: &'a Pod,
    server: &'a Pod,
}

impl Victim<'_> {
    /// Sends errors about the victim's flows to it. None may arrive, and nothing may come of them.
    #[track_caller]
    fn hears_nothing_of(&self, attacker: &mut Attacker, port: u16) {
        for (family, own) in self.pod.ips().into_iter().enumerate() {
            let from = attacker.ips[family];
            let [mute, server] = [self.mute, self.server].map(|pod| pod.ips()[family]);
            let mut open = self.pod.connect(&Probe::tcp(server, 80)).unwrap();
            let local = open.greeting().local.port();
            let mut asked = self.mute.packets("eth0");
            let mut seen = self.pod.packets("eth0");
            let outcome = thread::scope(|scope| {
                let probe = Probe::udp(mute, 53).source_port(port).timeout(Duration::from_millis(400));
                let asks = scope.spawn(move || self.pod.probe(&probe));
                let asks_now = |frame: &Frame| between(frame, own, mute);
                assert!(asked.wait_for(Duration::from_secs(10), asks_now).is_some(), "{own} asks {mute}");
                let mut quotes = vec![
                    datagram(own, server, (port, 53), MARK).1,
                    datagram(mute, own, (53, port), MARK).1,
                    marked_segment(own, server, (local, 80)),
                    marked_segment(server, own, (80, local)),
                    marked_echo(own, server),
                    marked_echo(own, mute),
                ];
                if !attacker.is_router {
                    quotes.push(datagram(own, mute, (port, 53), MARK).1);
                }
                for (about, quote) in
                    COMPLAINTS.into_iter().flat_map(|about| quotes.iter().map(move |quote| (about, quote)))
                {
                    let (kind, packet) = icmp_error(from, own, about, quote);
                    attacker.wire.send(kind, &packet);
                }
                asks.join().expect("it asks")
            });
            assert_nothing_smuggled(&mut seen, &format!("errors from {from} about flows of {own}"));
            assert_eq!(outcome.unwrap_err(), ProbeError::TimedOut, "no error reaches the socket of {own}");
            for to in [mute, server] {
                let route = self.pod.must_run(&["ip", "route", "get", &to.to_string()]);
                assert!(!route.contains("mtu 552"), "{own} believes a stranger: {route}");
            }
            assert_eq!(open.exchange(20_000, 20_000).unwrap().server.pod, self.server.key());
        }
    }
}

/// Errors of pods on both nodes, and of a host outside if there are no policies, about flows of a victim. The policies say
/// who may talk to whom.
#[track_caller]
fn attack_within(namespace: &str, closed: Option<(&str, &Value)>) {
    let lab = world();
    if let Some((role, spec)) = closed {
        policy(lab, namespace, role, spec);
    }
    let pod = |node: &str, name: &str, role: &str| {
        lab.node(node).pod(&format!("{namespace}/{name}")).label("role", role).tcp(80).udp(53).start()
    };
    let victim = pod("node-1", "victim", "victim");
    let mute = pod("node-2", "mute", "server");
    let server = pod("node-1", "server", "server");
    let attackers = [pod("node-1", "near", "attacker"), pod("node-2", "far", "attacker")];
    for own in victim.ips() {
        mute.must_run(&["ip", "route", "add", "blackhole", &own.to_string()]);
    }
    let setup = Victim { pod: &victim, mute: &mute, server: &server };
    let of_pod = |pod: &Pod| Attacker { wire: Wire::of(pod), ips: pod.ips(), is_router: false };
    for (attacker, port) in attackers.iter().zip(41_001..) {
        if closed.is_some() {
            wait_until_silent(lab, attacker, &victim, 80);
        }
        setup.hears_nothing_of(&mut of_pod(attacker), port);
    }
    if closed.is_none() {
        let wire = Wire::to_uplink(lab.client(), lab.node("node-1"));
        setup.hears_nothing_of(&mut Attacker { wire, ips: outside(), is_router: true }, 41_003);
    }
}

#[test]
fn a_pod_that_may_send_nothing_sends_no_errors_about_flows_of_others() {
    attack_within("mute", Some(("attacker", &json!({"policyTypes": ["Ingress", "Egress"]}))));
}

#[test]
fn a_closed_pod_gets_no_errors_of_strangers() {
    attack_within("closed", Some(("victim", &json!({"policyTypes": ["Ingress"]}))));
}

#[test]
fn a_pod_without_policies_gets_no_errors_of_strangers() {
    attack_within("open", None);
}

/// A service with a NodePort, its backend and another pod, which nobody may reach and that may reach nobody if it is closed.
fn node_port(namespace: &str, number: u8, is_closed: bool) -> (Pod, Pod, u16) {
    let lab = world();
    if is_closed {
        policy(lab, namespace, "closed", &json!({"policyTypes": ["Ingress", "Egress"]}));
    }
    let node = lab.node("node-1");
    let backend = node.pod(&format!("{namespace}/backend")).udp(53).tcp(80).start();
    let closed = node.pod(&format!("{namespace}/closed")).label("role", "closed").tcp(80).start();
    let port = 30_700 + u16::from(number);
    let service = ServiceManifest::new(&format!("{namespace}/service"))
        .ips(&[format!("10.96.70.{number}"), format!("fd00:10:96::70:{number}")])
        .udp("ask", 53, 53)
        .node_ports(&[port]);
    lab.apply(&service.endpoint(&backend).yaml());
    if is_closed {
        wait_until_silent(lab, lab.client(), &closed, 80);
        wait_until_silent(lab, &closed, &backend, 80);
    }
    (backend, closed, port)
}

#[test]
fn a_pod_that_may_send_nothing_sends_no_errors_to_the_outside() {
    leak(node_port("leak", 10, true), 42_001);
}

#[test]
fn a_pod_without_policies_sends_no_errors_about_flows_of_others_to_the_outside() {
    leak(node_port("leak-open", 12, false), 42_003);
}

/// A pod sends errors to a client outside about its flow to the NodePort of another pod.
#[track_caller]
fn leak((backend, closed, node_port): (Pod, Pod, u16), client_port: u16) {
    let lab = world();
    let mut wire = Wire::of(&closed);
    let node = lab.node("node-1").ips();
    for (family, client) in outside().into_iter().enumerate() {
        let [backend, from] = [&backend, &closed].map(|pod| pod.ips()[family]);
        let probe = Probe::udp(node[family], node_port).source_port(client_port);
        let quick = probe.clone().timeout(Duration::from_millis(300));
        lab.wait_until("the NodePort answers", || lab.client().probe(&quick));
        let mut seen = lab.client().packets("eth0");
        for (server, port) in [(node[family], node_port), (backend, 53)] {
            for quote in [
                datagram(client, server, (client_port, port), MARK).1,
                datagram(server, client, (port, client_port), MARK).1,
            ] {
                for to in [client, server] {
                    for about in COMPLAINTS {
                        let (kind, packet) = icmp_error(from, to, about, &quote);
                        wire.send(kind, &packet);
                    }
                }
            }
        }
        assert_nothing_smuggled(&mut seen, &format!("errors of {from} to {client}"));
        lab.client().probe(&probe).unwrap();
    }
}

#[test]
fn a_client_of_a_node_port_reaches_no_closed_pod_by_errors() {
    enter(node_port("enter", 11, true), 42_002);
}

#[test]
fn a_client_of_a_node_port_reaches_no_other_pod_by_errors() {
    enter(node_port("enter-open", 13, false), 42_004);
}

/// A client outside sends errors about its flow to the NodePort of a pod to another one.
#[track_caller]
fn enter((backend, closed, node_port): (Pod, Pod, u16), client_port: u16) {
    let lab = world();
    let node = lab.node("node-1");
    let mut wire = Wire::to_uplink(lab.client(), node);
    for (family, client) in outside().into_iter().enumerate() {
        let [backend_ip, to] = [&backend, &closed].map(|pod| pod.ips()[family]);
        let probe = Probe::udp(node.ips()[family], node_port).source_port(client_port);
        let quick = probe.clone().timeout(Duration::from_millis(300));
        lab.wait_until("the NodePort answers", || lab.client().probe(&quick));
        let mut seen = [&closed, &backend].map(|pod| pod.packets("eth0"));
        for (server, port) in [(node.ips()[family], node_port), (backend_ip, 53)] {
            for quote in [
                datagram(client, server, (client_port, port), MARK).1,
                datagram(server, client, (port, client_port), MARK).1,
            ] {
                for about in COMPLAINTS {
                    let (kind, packet) = icmp_error(client, to, about, &quote);
                    wire.send(kind, &packet);
                }
            }
        }
        for seen in &mut seen {
            assert_nothing_smuggled(seen, &format!("errors of {client} to {to}"));
        }
        lab.client().probe(&probe).unwrap();
    }
}

/// A router outside tells a pod of a packet of its own, by quotes that say whose it was and by some that do not.
#[test]
fn s78_a_quote_is_read_as_far_as_it_goes_and_what_it_does_not_say_is_not_guessed() {
    let lab = world();
    let pod = lab.node("node-1").pod("quote/pod").start();
    let far = lab.node("node-2").pod("quote/far").udp(53).start();
    let mut wire = Wire::to_uplink(lab.client(), lab.node("node-1"));
    for ((own, to), router) in pod.ips().into_iter().zip(far.ips()).zip(outside()) {
        const PORTS: (u16, u16) = (41_010, 53);
        pod.probe(&Probe::udp(to, PORTS.1).source_port(PORTS.0)).unwrap();
        let mut seen = pod.packets("eth0");
        let whole = datagram(own, to, PORTS, MARK).1;
        let header = if own.is_ipv4() { 20 } else { 40 };
        let (ip, udp) = whole.split_at(header);
        let error = |quote: &[u8]| icmp_error(router, own, Complaint::TooBig(1400), quote);
        // A later fragment has no ports, whatever its data looks like. A short quote has none either, and what follows the packet
        // in its frame is no part of it.
        let later = fragment((own, to), UDP, 7, (64, true), udp).1;
        let mut wrong = vec![error(&later)];
        for cut in [header - 1, header, header + 4, header + 7] {
            let (kind, packet) = error(&whole[..cut]);
            wrong.push((kind, [&packet[..], &whole[cut..]].concat()));
        }
        if own.is_ipv4() {
            wrong.push(error(&[&[0x44], &whole[1..]].concat()));
        }
        for (kind, packet) in &wrong {
            wire.send(*kind, packet);
        }
        assert_nothing_smuggled(&mut seen, &format!("errors of {router} to {own}"));
        // All that a router may quote is read, however much it is.
        let extended = if own.is_ipv4() {
            let mut ip = ip.to_vec();
            ip[0] = 0x4f;
            [&ip, &[1; 40][..], udp].concat()
        } else {
            // Six headers of options, padded.
            let headers: Vec<u8> = (0..6).flat_map(|n| [if n < 5 { 60 } else { UDP }, 0, 1, 4, 0, 0, 0, 0]).collect();
            let mut ip = ip.to_vec();
            ip[6] = 60;
            [&ip, &headers[..], udp].concat()
        };
        for quote in [whole.clone(), extended, fragment((own, to), UDP, 7, (0, true), udp).1] {
            let (kind, packet) = error(&quote);
            wire.send(kind, &packet);
            let told = seen.wait_for(Duration::from_secs(10), |frame| between(frame, router, own) && smuggled(frame));
            assert!(told.is_some(), "{own} is told of {quote:02x?}");
        }
    }
}
