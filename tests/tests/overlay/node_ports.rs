//! What clients outside send to NodePorts of backends behind the tunnel.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::frames::ends;
use fairlead_tests::{Lab, Node, Probe, ProbeError, Probes, ServiceManifest, Vantage};

use crate::world::server;

/// Forgets what a client was told of sizes.
fn forget(client: &Vantage) {
    client.must_run(&["ip", "route", "flush", "cache"]);
    client.must_run(&["ip", "-6", "route", "flush", "cache"]);
}

/// A sender that moves to another CPU between two fragments may have them overtake each other, and what comes before its first
/// fragment is dropped: so three times.
#[track_caller]
fn exchanges(client: &Vantage, to: IpAddr, port: u16, (sent, answered): (usize, usize), what: &str) {
    let probe = Probe::udp(to, port).payload(sent).answer_payload(answered);
    let mut replies = (0..3).map(|_| client.probe(&probe));
    let reply = replies.find(|reply| reply != &Err(ProbeError::TimedOut)).unwrap_or(Err(ProbeError::TimedOut));
    let reply = reply.unwrap_or_else(|error| panic!("{what} {to} {sent} {answered}: {error}"));
    assert_eq!((reply.server.got, reply.server.pad.len()), (sent, answered), "{what} {to}");
}

/// Whether a hop tells a client that a datagram's hop limit has run out, quoting what the client sent.
fn is_told(client: &Vantage, to: IpAddr, port: u16, ttl: u32) -> bool {
    let mut frames = client.packets("eth0");
    let probe = Probe::udp(to, port).ttl(ttl).timeout(Duration::from_millis(200));
    assert_eq!(client.probe(&probe).err(), Some(ProbeError::TimedOut), "{to} after {ttl}");
    let (kind, quote) = if to.is_ipv4() { (34, 42) } else { (54, 62) };
    let expired = if to.is_ipv4() { 11 } else { 3 };
    frames
        .wait_for(Duration::from_secs(5), |frame| {
            let bytes = frame.bytes();
            let quoted = bytes.get(quote..).map(|inner| [&[0; 14], inner].concat());
            !frame.outgoing
                && bytes.get(kind) == Some(&expired)
                && bytes[12..14] == if to.is_ipv4() { [8, 0] } else { [0x86, 0xdd] }
                && quoted.and_then(|quoted| ends_like(&bytes, &quoted)).is_some_and(|(_, dst)| dst == to)
        })
        .is_some()
}

/// The ends of a quoted packet: as of a frame with the EtherType of another.
fn ends_like(frame: &[u8], quoted: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let mut quoted = quoted.to_vec();
    quoted[12..14].copy_from_slice(&frame[12..14]);
    ends(&quoted)
}

/// Two nodes with the tunnel between them, and NodePorts of the first for a pod and a process of the second.
fn behind_the_tunnel() -> Lab {
    let lab = Lab::builder().nodes(2).subnets(&[0, 1]).checks_sources().start();
    let far: &Node = lab.node("node-2");
    far.serve("host/node-2", &[80], &[53]);
    let pod = server(&lab, "node-2", "net/far");
    let service = |name: &str, n: u16, first: u16| {
        let ips = [format!("10.96.75.{n}"), format!("fd00:10:96::75:{n}")];
        let service = ServiceManifest::new(&format!("net/{name}")).ips(&ips.each_ref().map(String::as_str));
        service.tcp("http", 80, 80).udp("ask", 53, 53).node_ports(&[first, first + 1])
    };
    lab.apply(&service("of-pods", 1, 30_075).endpoint(&pod).yaml());
    lab.apply(&service("of-hosts", 2, 30_077).host_endpoint(far).yaml());
    lab
}

/// Has a client send and get so much over one connection.
#[track_caller]
fn carries(client: &Vantage, to: IpAddr, port: u16, (sent, answered): (usize, usize), what: &str) {
    let probe = Probe::tcp(to, port).payload(sent).answer_payload(answered);
    let reply = client.probe(&probe.timeout(Duration::from_secs(3)));
    let reply = reply.unwrap_or_else(|error| panic!("{what} {to} {sent} {answered}: {error}"));
    assert_eq!((reply.server.got, reply.server.pad.len()), (sent, answered), "{what} {to}");
}

#[test]
fn s77_segments_fit_in_the_tunnel_and_nobody_has_to_be_told() {
    let lab = behind_the_tunnel();
    let client = lab.client();
    for (what, port) in [("pod", 30_075), ("host", 30_077)] {
        for to in lab.node("node-1").ips() {
            lab.wait_until("the service answers", || client.tcp(to, port));
            forget(client);
            let mut frames = client.packets("eth0");
            carries(client, to, port, (60_000, 100), what);
            carries(client, to, port, (100, 60_000), what);
            let (at, kind) = if to.is_ipv4() { (34, [3, 4]) } else { (54, [2, 0]) };
            let told = frames.collect(Duration::from_millis(100), |frame| {
                let bytes = frame.bytes();
                let is_icmp = if to.is_ipv4() { bytes.get(23) == Some(&1) } else { bytes.get(20) == Some(&58) };
                !frame.outgoing && is_icmp && bytes.get(at..at + 2) == Some(&kind)
            });
            assert!(told.is_empty(), "{what} {to}: {} segments were too large", told.len());
        }
    }
}

#[test]
fn s75_what_the_tunnel_does_not_take_is_told_or_cut() {
    let lab = behind_the_tunnel();
    let near: &Node = lab.node("node-1");
    let client = lab.client();
    for (what, tcp) in [("pod", 30_075), ("host", 30_077)] {
        let udp = tcp + 1;
        for to in near.ips() {
            lab.wait_until("the service answers", || client.tcp(to, tcp));
            forget(client);
            // Told of it, a sender cuts.
            let full = Probe::udp(to, udp).payload(1472 - if to.is_ipv4() { 0 } else { 20 });
            assert_eq!(client.probe(&full), Err(ProbeError::TooBig), "{what} {to}");
            for sizes in [(1452, 1452), (4000, 4000), (20_000, 20_000)] {
                exchanges(client, to, udp, sizes, what);
            }
            // So does one whose first datagram comes in fragments.
            forget(client);
            lab.wait_until("large datagrams arrive", || {
                client.probe(&Probe::udp(to, udp).payload(4000).timeout(Duration::from_millis(300)))
            });
            forget(client);
            for (sent, answered) in [(300_000, 100), (100, 300_000)] {
                carries(client, to, tcp, (sent, answered), what);
            }
            // Each hop tells of itself: this node, and where there is another hop behind it, the other one.
            assert!(is_told(client, to, udp, 1), "{what} {to}: this node");
            assert!(what == "host" || is_told(client, to, udp, 2), "{what} {to}: the other node");
            assert!(client.probe(&Probe::udp(to, udp).ttl(3)).is_ok(), "{what} {to}");
        }
    }
    // What does not hear of it, and lets others cut.
    let to = near.v4().into();
    client.must_run(&["ip", "route", "replace", "172.18.0.0/24", "dev", "eth0", "mtu", "lock", "1500"]);
    for (what, udp) in [("pod", 30_076), ("host", 30_078)] {
        for sizes in [(1472, 1472), (4000, 4000)] {
            exchanges(client, to, udp, sizes, what);
        }
    }
}
