//! Who is told of what is refused, and how often: errors and resets that Fairlead makes, and those that it passes on.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use fairlead_tests::frames::{Complaint, Wire, datagram, ends, icmp_error};
use fairlead_tests::{Drops, Lab, Node, Ping, Probe, ProbeError, Probes, ServiceManifest, Via, binary};

use crate::world::{MARK, between, cluster, outside, smuggled, world};

/// What one receiver is told at once, and in each second.
const AT_ONCE: u64 = 1001;
const A_SECOND: f64 = 1000.0;

/// A NodePort, and a port of a cluster address, that have no endpoints.
const NODE_PORT: u16 = 30_083;
const NOBODY: u16 = 53;

/// The cluster addresses of the service that has none.
fn nobody() -> [IpAddr; 2] {
    ["10.96.83.1", "fd00:10:96::83:1"].map(|ip| ip.parse().expect("it is an address"))
}

/// Applies it.
fn serve_nobody(lab: &Lab) {
    let service = ServiceManifest::new("told/nobody").ips(&nobody()).udp("ask", NOBODY, 53).node_ports(&[NODE_PORT]);
    lab.apply(&service.yaml());
    for (node, ip) in lab.nodes().iter().flat_map(|node| nobody().map(|ip| (node, ip))) {
        lab.wait_until("nobody serves it", || match node.via(Via::Packet).probe(&Probe::udp(ip, NOBODY)) {
            Err(ProbeError::Refused) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// ICMP errors of any type that the kernel of a place has received.
fn heard(place: &impl Probes, v6: bool) -> u64 {
    let words = |text: &str, head: &str| {
        let lines: Vec<Vec<String>> = text
            .lines()
            .filter(|line| line.starts_with(head))
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        lines
    };
    if v6 {
        let text = place.must_run(&["cat", "/proc/net/snmp6"]);
        let of = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            found.unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        return of("Icmp6InDestUnreachs") + of("Icmp6InPktTooBigs");
    }
    let lines = words(&place.must_run(&["cat", "/proc/net/snmp"]), "Icmp:");
    let [names, values] = &lines[..] else { panic!("{lines:?}") };
    let place = names.iter().position(|name| name == "InDestUnreachs").expect("it is counted");
    values[place].parse().expect("it is a number")
}

/// Sends packets until they are twice as many as may be answered: how many the receiver of the errors has heard of, and how many
/// it may have.
#[track_caller]
fn flood(wire: &mut Wire, to: &impl Probes, from: IpAddr, at: (IpAddr, u16)) -> (u64, u64) {
    let v6 = from.is_ipv6();
    let (before, began, mut sent) = (heard(to, v6), Instant::now(), 0);
    let allowed = || AT_ONCE + (began.elapsed().as_secs_f64() * A_SECOND) as u64;
    while sent < 2 * allowed() {
        assert!(began.elapsed() < Duration::from_secs(60), "{sent} packets are too few for this time");
        for port in 0..500 {
            let (kind, packet) = datagram(from, at.0, (20_000 + port, at.1), MARK);
            wire.send(kind, &packet);
        }
        sent += 500;
    }
    // What is under way arrives.
    wire.packets.collect(Duration::from_millis(100), |_| false);
    (heard(to, v6) - before, allowed())
}

/// What the node says of errors that it did not send.
fn unsent(node: &Node, to: &str) -> f64 {
    let name = format!("fairlead_errors_unsent_total{{to=\"{to}\"}}");
    let request = "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let lab = binary("fairlead-lab").expect("it is built");
    let text = node.run(&[lab.to_str().expect("a path"), "say", "127.0.0.1:10249", request]).stdout;
    let value = text.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn s83_a_flood_from_outside_is_answered_so_often_and_silences_nobody_else() {
    let lab = cluster();
    serve_nobody(&lab);
    let node = lab.node("node-1");
    let near = node.pod("told/near").udp(53).start();
    let far = lab.node("node-2").pod("told/far").start();
    // A client of another network.
    let other = ["203.0.113.7", "2001:db8:113::7"].map(|ip| ip.parse::<IpAddr>().expect("it is an address"));
    for (ip, length) in other.iter().zip([24, 64]) {
        lab.client().must_run(&["ip", "addr", "add", &format!("{ip}/{length}"), "dev", "eth0"]);
    }
    let mut wire = Wire::to_uplink(lab.client(), node);
    for (family, from) in outside().into_iter().enumerate() {
        let before = unsent(node, "outside");
        let (heard, allowed) = flood(&mut wire, lab.client(), from, (node.ips()[family], NODE_PORT));
        assert!((AT_ONCE / 2..=allowed).contains(&heard), "{from} is told {heard} times, and may be {allowed} times");
        assert!(unsent(node, "outside") > before);
        let probe = Probe::udp(node.ips()[family], NODE_PORT).source_ip(other[family]);
        assert_eq!(lab.client().probe(&probe).unwrap_err(), ProbeError::Refused, "another network is told");
        // The far node's programs take one hop, this one's would take the last.
        let ping = Ping::new(near.ips()[family]).ttl(2);
        assert!(
            matches!(far.ping(&ping), Err(ProbeError::Expired(by)) if by == node.ips()[family]),
            "a far pod is told"
        );
        let refused = near.via(Via::Packet).probe(&Probe::udp(nobody()[family], NOBODY));
        assert_eq!(refused.unwrap_err(), ProbeError::Refused, "a pod is told");
        let refused = node.via(Via::Packet).probe(&Probe::udp(nobody()[family], NOBODY));
        assert_eq!(refused.unwrap_err(), ProbeError::Refused, "the node is told");
    }
    for to in ["pod", "own", "node"] {
        assert_eq!(unsent(node, to), 0.0, "{to}");
    }
}

#[test]
fn s83_a_pod_that_floods_is_told_so_often_and_its_neighbour_goes_on_hearing() {
    let lab = world();
    serve_nobody(lab);
    let node = lab.node("node-1");
    let neighbour = node.pod("told/neighbour").start();
    for (family, at) in nobody().into_iter().enumerate() {
        let pod = node.pod(&format!("told/pod-{family}")).start();
        let (own, mut wire) = (pod.ips()[family], Wire::of(&pod));
        let (heard, allowed) = flood(&mut wire, &pod, own, (at, NOBODY));
        assert!((AT_ONCE / 2..=allowed).contains(&heard), "{own} is told {heard} times, and may be {allowed} times");
        let refused = neighbour.via(Via::Packet).probe(&Probe::udp(at, NOBODY));
        assert_eq!(refused.unwrap_err(), ProbeError::Refused);
    }
    assert!(unsent(node, "pod") > 0.0);
}

/// Errors that are passed on have a rate for each flow.
#[test]
fn p83_errors_about_one_flow_reach_a_pod_so_often_and_those_about_its_others_too() {
    /// As `walk/errors.rs` has it.
    const A_SECOND: u64 = 64;
    const SENT: u64 = 2000;
    let lab = world();
    let node = lab.node("node-1");
    let pod = node.pod("told/errors").start();
    let far = lab.node("node-2").pod("told/errors-far").udp(53).start();
    let mut wire = Wire::to_uplink(lab.client(), node);
    for ((own, to), router) in pod.ips().into_iter().zip(far.ips()).zip(outside()) {
        let (flow, other) = (41_083, 41_084);
        for port in [flow, other] {
            pod.probe(&Probe::udp(to, 53).source_port(port)).unwrap();
        }
        let counted = Drops::of(node).count("error_rate");
        let (before, began) = (heard(&pod, own.is_ipv6()), Instant::now());
        let quote = datagram(own, to, (flow, 53), b"what it sent").1;
        let (kind, error) = icmp_error(router, own, Complaint::TooBig(1400), &quote);
        for _ in 0..SENT {
            wire.send(kind, &error);
        }
        wire.packets.collect(Duration::from_millis(100), |_| false);
        let (came, seconds) = (heard(&pod, own.is_ipv6()) - before, began.elapsed().as_secs());
        let most = A_SECOND * (seconds + 2);
        assert!((A_SECOND..=most).contains(&came), "{own} gets {came} errors, at most {most} in {seconds} s");
        assert!(Drops::of(node).count("error_rate") >= counted + SENT - most, "the others are counted");
        let mut seen = pod.packets("eth0");
        let quote = datagram(own, to, (other, 53), MARK).1;
        let (kind, error) = icmp_error(router, own, Complaint::TooBig(1400), &quote);
        wire.send(kind, &error);
        let told = seen.wait_for(Duration::from_secs(10), |frame| between(frame, router, own) && smuggled(frame));
        assert!(told.is_some(), "{own} is told of its other flow");
    }
}

/// Sends a datagram from any address, as a process of the host may that is root: source, destination, port.
const POSE: &str = r#"
import socket, struct, sys
def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
src, dst, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
v6 = ":" in src
family = socket.AF_INET6 if v6 else socket.AF_INET
s, d = socket.inet_pton(family, src), socket.inet_pton(family, dst)
payload = b"smuggled by a hostile test"
udp = struct.pack("!HHHH", 45084, port, 8 + len(payload), 0)
pseudo = s + d + struct.pack("!BBH", 0, 17, len(udp + payload))
udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + payload) or 0xffff)
tcp = struct.pack("!HHIIBBHHH", 45084, port, 1, 0, 0x50, 2, 65535, 0, 0)
pseudo = s + d + struct.pack("!BBH", 0, 6, len(tcp))
tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
for proto, l4 in ((17, udp + payload), (6, tcp)):
    if v6:
        head = struct.pack("!IHBB", 0x60000000, len(l4), proto, 64) + s + d
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 7, 0, 64, proto, 0) + s + d
    raw.sendto(head + l4, (dst, 0))
"#;

/// Has a place send packets to the service that nobody serves from an address, over UDP and TCP.
fn pose(place: &impl Probes, from: IpAddr, to: IpAddr, port: u16) {
    place.must_run(&["python3", "-c", POSE, &from.to_string(), &to.to_string(), &port.to_string()]);
}

/// Who refuses on the node's way to services believes no source address.
#[test]
fn s84_nobody_is_told_who_did_not_send_it() {
    const ASIDE: [&str; 4] = ["198.18.84.1", "fd00:198:18:84::1", "198.18.84.2", "fd00:198:18:84::2"];
    let lab = Lab::builder().nodes(2).agent(&["--exclude-uplinks=aside*"]).start();
    serve_nobody(&lab);
    let node = lab.node("node-1");
    let victim = node.pod("told/victim").start();
    // A machine behind the node, at an interface that Fairlead leaves alone.
    let guest = node.guest("aside");
    node.must_run(&["ip", "link", "add", "aside", "type", "veth", "peer", "name", "eth0", "netns", "aside"]);
    let addresses = ASIDE.map(|ip| ip.parse::<IpAddr>().expect("it is an address"));
    for (ip, of_node) in addresses.into_iter().zip([true, true, false, false]) {
        let length = if ip.is_ipv4() { 24 } else { 64 };
        let device = if of_node { "aside" } else { "eth0" };
        let nodad: &[&str] = if ip.is_ipv4() { &[] } else { &["nodad"] };
        for line in [format!("addr add {ip}/{length} dev {device}"), format!("link set {device} up")] {
            let words = ["ip"].into_iter().chain(line.split(' '));
            let argv: Vec<&str> =
                if line.starts_with("addr") { words.chain(nodad.iter().copied()).collect() } else { words.collect() };
            if of_node {
                node.must_run(&argv)
            } else {
                guest.must_run(&argv)
            };
        }
    }
    for gateway in &addresses[..2] {
        guest.must_run(&["ip", "route", "add", "default", "via", &gateway.to_string()]);
    }
    for ip in &addresses[2..] {
        lab.wait_until("the guest is reached", || node.ping(&Ping::new(*ip)));
    }
    node.must_run(&["sysctl", "-w", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.aside.rp_filter=0"]);
    for family in [0, 1] {
        let (service, stranger) = (nobody()[family], outside()[family]);
        let [own, machine] = [addresses[family], addresses[2 + family]];
        // Who sends is told.
        for probe in [Probe::udp(service, NOBODY), Probe::udp(service, 54), Probe::tcp(service, 54)] {
            for from in [node.via(Via::Packet), guest.via(Via::Packet)] {
                lab.wait_until(&format!("{probe:?} is refused"), || match from.probe(&probe) {
                    Err(ProbeError::Refused) => Ok(()),
                    other => Err(format!("{other:?}")),
                });
            }
            // Also by an address of the node that no object names.
            let from = node.via(Via::Packet).probe(&probe.clone().source_ip(own));
            assert_eq!(from.unwrap_err(), ProbeError::Refused, "{probe:?} from {own}");
        }
        let mut seen = [victim.packets("eth0"), lab.client().packets("eth0"), guest.packets("eth0")];
        let before = Drops::of(node).count("rejected");
        let is_told = |frame: &fairlead_tests::Frame, to: IpAddr| between(frame, service, to);
        let mut posed = 0;
        for port in [NOBODY, 54] {
            for from in [victim.ips()[family], stranger, machine] {
                pose(node.vantage(), from, service, port);
                posed += 2;
            }
            for from in [victim.ips()[family], stranger] {
                pose(&guest, from, service, port);
                posed += 2;
            }
        }
        lab.wait_until("all were refused", || match Drops::of(node).count("rejected") - before {
            count if count >= posed => Ok(()),
            other => Err(other),
        });
        for (packets, to) in seen.iter_mut().zip([victim.ips()[family], stranger, machine]) {
            let told = packets.collect(Duration::from_millis(60), |frame| is_told(frame, to));
            let ends: Vec<_> = told.iter().map(|frame| ends(&frame.bytes())).collect();
            assert_eq!(ends, [], "{to} hears of what others sent");
        }
        // The same as itself, and it hears.
        let mut packets = guest.packets("eth0");
        pose(&guest, machine, service, 54);
        let told = packets.wait_for(Duration::from_secs(10), |frame| is_told(frame, machine));
        assert!(told.is_some(), "{machine} is told");
    }
}
