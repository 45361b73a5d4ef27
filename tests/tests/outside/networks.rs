//! Nodes with more than one network, and what they forward for others.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Lab, Node, Ping, Pod, Probe, ProbeError, Probes, ServiceManifest, Vantage, Via};

use crate::world::{balancer, cluster, probes, service};

/// A guest's network: the node's addresses in it, and the guest's.
struct Network {
    node: [IpAddr; 2],
    guest: [IpAddr; 2],
}

impl Network {
    fn new(number: u8) -> Self {
        let at = |host: u8| {
            let [v4, v6] = [format!("198.18.{number}.{host}"), format!("fd00:198:18:{number}::{host}")];
            [v4, v6].map(|ip| ip.parse().unwrap())
        };
        Self { node: at(1), guest: at(2) }
    }

    /// Has the node reach it by a device, and the guest all else by the node.
    fn join(&self, node: &Node, device: &str, guest: &Vantage) {
        be_at(node, device, self.node);
        be_at(guest, "eth0", self.guest);
        for gateway in self.node {
            ip(guest, &format!("route add default via {gateway}"));
        }
    }
}

/// Runs `ip`, with words between spaces.
fn ip(place: &impl Probes, line: &str) {
    place.must_run(&["ip"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
}

/// Gives a device addresses and sets it up.
fn be_at(place: &impl Probes, device: &str, [v4, v6]: [IpAddr; 2]) {
    ip(place, &format!("addr add {v4}/24 dev {device}"));
    ip(place, &format!("addr add {v6}/64 dev {device} nodad"));
    ip(place, &format!("link set {device} up"));
}

/// Sets a device up that was down for a moment: IPv6 addresses have gone with it.
fn be_at_again(place: &impl Probes, device: &str, [_, v6]: [IpAddr; 2]) {
    ip(place, &format!("link set {device} up"));
    ip(place, &format!("addr replace {v6}/64 dev {device} nodad"));
}

/// A guest with a pair of devices of its own, of which the node has one.
fn guest(node: &Node, name: &str) -> Vantage {
    let guest = node.guest(name);
    ip(node, &format!("link add {name} type veth peer name eth0 netns {name}"));
    guest
}

/// Waits until a service at these probes is answered by these pods.
fn reaches(lab: &Lab, from: &impl Probes, to: &[Probe], servers: &[&Pod]) {
    for probe in to {
        for server in servers {
            lab.wait_until(&format!("{probe:?} is answered by {}", server.key()), || {
                let reply =
                    from.probe(&probe.clone().timeout(Duration::from_secs(1))).map_err(|error| format!("{error:?}"))?;
                if reply.server.pod == server.key() { Ok(()) } else { Err(reply.server.pod) }
            });
        }
    }
}

#[test]
fn s73_s74_networks_that_nobody_named_are_served_and_what_goes_there_has_the_nodes_address() {
    const PORTS: [u16; 2] = [30_071, 30_072];
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1").as_ref();
    let server = |node: &str| lab.node(node).pod(&format!("shop/{node}")).tcp(8080).udp(5300).start();
    let (near, far) = (server("node-1"), server("node-2"));
    let everywhere: ServiceManifest = service("s73", 71).balanced(&balancer(71)).node_ports(&PORTS);
    lab.apply(&everywhere.endpoints(&[&near, &far]).yaml());

    // A second network, and one behind a bridge, both after the agent has begun.
    let [second, bridged] = ["second", "bridged"].map(|name| guest(node, name));
    for line in ["link add br-guests type bridge", "link set bridged master br-guests", "link set bridged up"] {
        ip(node, line);
    }
    for (guest, device, number) in [(&second, "second", 71), (&bridged, "br-guests", 72)] {
        let network = Network::new(number);
        network.join(node, device, guest);
        let to = [probes(cluster(71), 80, 53), probes(balancer(71), 80, 53), probes(node.ips(), PORTS[0], PORTS[1])]
            .concat();
        // What the socket hooks see goes straight to the backend, which answers what it sees: that is up to the guest's network.
        reaches(&lab, &guest.via(Via::Packet), &to, &[&near, &far]);
        // The node's address in that network is one of its own, without NodePorts; pods are reached as before.
        reaches(&lab, guest, &near.ips().map(|ip| Probe::tcp(ip, 8080)), &[&near]);
        // What pods send there has the address that the node has there, also if a virtual one is newer.
        ip(node, &format!("addr add 198.18.{number}.99/32 dev {device}"));
        ip(node, &format!("addr add fd00:198:18:{number}::99/128 dev {device} nodad"));
        guest.serve(device, &[9000], &[9000]);
        for (probe, own) in probes(network.guest, 9000, 9000).iter().zip(network.node.iter().flat_map(|ip| [ip, ip])) {
            lab.wait_until(&format!("{probe:?} comes from {own}"), || match near.probe(probe) {
                Ok(reply) if reply.server.peer.ip() == *own => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
    // A device that becomes a bridge's port is left alone, and what it led to goes by the bridge.
    ip(node, "addr flush dev second");
    ip(node, "link set second master br-guests");
    be_at(node, "br-guests", Network::new(71).node);
    reaches(&lab, &second.via(Via::Packet), &probes(cluster(71), 80, 53), &[&near, &far]);
}

/// Two tun devices, one here and one in the network namespace that is named, and whatever goes into one comes out of the other:
/// a VPN without the cipher. What is named besides is the kind of the device here (`TUNSETLINK`).
const PUMP: &str = r#"
import ctypes, fcntl, os, select, struct, sys
def tun(name, kind=0):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name, 0x1001))
    if kind:
        fcntl.ioctl(fd, 0x400454CD, kind)
    return fd
kind = sys.argv[2] if len(sys.argv) > 2 else ""
here = tun(b"bare" + kind.encode(), int(kind or 0))
assert ctypes.CDLL(None).setns(os.open("/run/netns/" + sys.argv[1], os.O_RDONLY), 0x40000000) == 0
there = tun(b"bare")
while True:
    for fd in select.select([here, there], [], [])[0]:
        try:
            os.write(there if fd == here else here, os.read(fd, 65536))
        except OSError:
            pass
"#;

#[test]
fn s76_devices_without_an_ethernet_header_are_uplinks_and_what_they_take_is_told() {
    const PORTS: [u16; 2] = [30_076, 30_077];
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1").as_ref();
    let server = |node: &str| lab.node(node).pod(&format!("shop/{node}")).tcp(8080).udp(5300).start();
    let (near, far) = (server("node-1"), server("node-2"));
    lab.apply(&service("s76", 76).node_ports(&PORTS).endpoints(&[&near, &far]).yaml());
    let one = ServiceManifest::new("shop/near").ips(&cluster(77)).tcp("http", 80, 8080).udp("ask", 53, 5300);
    lab.apply(&one.endpoint(&near).yaml());

    let (guest, network) = (node.guest("vpn"), Network::new(76));
    let pump = node.spawn("pump", &["python3", "-c", PUMP, "vpn"], &[]);
    for (place, own) in [(node.vantage(), network.node), (&guest, network.guest)] {
        lab.wait_until("the device is there", || match place.run(&["ip", "link", "set", "bare", "mtu", "1400"]) {
            ended if ended.ok() => Ok(()),
            ended => Err(format!("{ended:?} {}", pump.log())),
        });
        be_at(place, "bare", own);
    }
    for default in ["route add default dev bare", "-6 route add default dev bare"] {
        ip(&guest, default);
    }

    let (packets, to) = (guest.via(Via::Packet), [probes(cluster(76), 80, 53), probes(node.ips(), PORTS[0], PORTS[1])]);
    reaches(&lab, &packets, &to.concat(), &[&near, &far]);
    reaches(&lab, &guest, &near.ips().map(|ip| Probe::tcp(ip, 8080)), &[&near]);
    for probe in to.concat().iter().chain(&probes(cluster(77), 80, 53)) {
        // The pod hears that its answer is too large, and sends the next in fragments.
        let large = probe.clone().payload(20_000).answer_payload(20_000);
        lab.wait_until("large answers come back", || {
            packets.probe(&large).map(|reply| assert_eq!(reply.server.got, 20_000))
        });
        let full = probe.clone().answer_payload(1440);
        lab.wait_until("full answers come back", || packets.probe(&full));
    }
    // What pods send there has the address that the node has there.
    guest.serve("bare", &[9000], &[9000]);
    for (probe, own) in probes(network.guest, 9000, 9000).iter().zip(network.node.iter().flat_map(|ip| [ip, ip])) {
        lab.wait_until(&format!("{probe:?} comes from {own}"), || match near.probe(probe) {
            Ok(reply) if reply.server.peer.ip() == *own => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // It is cut by the stack, each fragment gets the address that the first one got.
        if own.is_ipv4() {
            let large = probe.clone().payload(20_000).answer_payload(20_000);
            lab.wait_until(&format!("{large:?} is answered"), || near.probe(&large));
        }
    }
    // A hop tells of itself there too, and what nobody serves is refused.
    for to in near.ips() {
        assert!(matches!(guest.ping(&Ping::new(to).ttl(1)), Err(ProbeError::Expired(_))), "{to}");
    }
    let nobody = ServiceManifest::new("shop/nobody").ips(&cluster(78)).tcp("http", 80, 8080).udp("ask", 53, 5300);
    lab.apply(&nobody.yaml());
    for probe in probes(cluster(78), 80, 53) {
        lab.wait_until("nobody is there", || match packets.probe(&probe) {
            Err(ProbeError::Refused) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Not every kernel has the modules of IP tunnels. What the programs see of a device that says that it is one is the same: the
/// packet inside.
#[test]
fn s81_tunnels_of_ip_in_ip_are_uplinks_too_and_what_is_not_read_is_told() {
    /// `ARPHRD_TUNNEL`, `ARPHRD_TUNNEL6`, `ARPHRD_SIT`, `ARPHRD_IPGRE`, `ARPHRD_IP6GRE` (include/uapi/linux/if_arp.h), and the
    /// other end where one is needed.
    const KINDS: [(u16, Option<&str>); 5] = [
        (768, None),
        (769, None),
        (776, None),
        (778, Some("192.0.2.7")),
        (823, Some("20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:07")),
    ];
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1").as_ref();
    let server = lab.node("node-1").pod("shop/server").tcp(8080).udp(5300).start();
    lab.apply(&service("s81", 81).node_ports(&[30_081, 30_082]).endpoint(&server).yaml());
    let status = || node.fairlead(&["status"]).stdout;
    for (number, (kind, other_end)) in (81..).zip(KINDS) {
        let (name, device) = (format!("vpn{kind}"), format!("bare{kind}"));
        let (guest, network) = (node.guest(&name), Network::new(number));
        let pump = node.spawn(&format!("pump{kind}"), &["python3", "-c", PUMP, &name, &kind.to_string()], &[]);
        for (place, device, own) in [(node.vantage(), &*device, network.node), (&guest, "bare", network.guest)] {
            lab.wait_until("the device is there", || match place.run(&["ip", "link", "set", device, "mtu", "1400"]) {
                ended if ended.ok() => Ok(()),
                ended => Err(format!("{ended:?} {}", pump.log())),
            });
            be_at(place, device, own);
        }
        for default in ["route add default dev bare", "-6 route add default dev bare"] {
            ip(&guest, default);
        }
        if let Some(other_end) = other_end {
            lab.wait_until("the device is told of", || match status() {
                status if status.contains(&format!("packets of {device} have headers")) => Ok(()),
                status => Err(status),
            });
            ip(node, &format!("link set {device} down"));
            ip(node, &format!("link set {device} broadcast {other_end}"));
            be_at_again(node, &device, network.node);
        }
        let to = [probes(cluster(81), 80, 53), probes(node.ips(), 30_081, 30_082)].concat();
        reaches(&lab, &guest.via(Via::Packet), &to, &[&server]);
        reaches(&lab, &guest, &server.ips().map(|ip| Probe::tcp(ip, 8080)), &[&server]);
        guest.serve(&name, &[9000], &[9000]);
        for (probe, own) in probes(network.guest, 9000, 9000).iter().zip(network.node.iter().flat_map(|ip| [ip, ip])) {
            lab.wait_until(&format!("{probe:?} comes from {own}"), || match server.probe(probe) {
                Ok(reply) if reply.server.peer.ip() == *own => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
        assert!(!status().contains("have headers"), "{}", status());
    }
}

#[test]
fn s73_hundreds_of_containers_of_somebody_elses_come_and_go() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1").as_ref();
    let server = lab.node("node-1").pod("shop/server").tcp(8080).udp(5300).start();
    lab.apply(&service("s73", 71).node_ports(&[30_071, 30_072]).endpoint(&server).yaml());
    let last = guest(node, "last");
    let batch = |line: &dyn Fn(u32) -> String| {
        let lines: String = (0..300).map(line).collect();
        let ended = node.run_with(&["ip", "-batch", "-"], &[], &lines);
        assert!(ended.ok(), "{}", ended.stderr);
    };
    batch(&|n| {
        let (a, b) = (n / 250, n % 250);
        format!(
            "link add other{n} type veth peer name peer{n}\nlink set other{n} up\nroute add 198.19.{a}.{b}/32 dev other{n}\n"
        )
    });
    Network::new(73).join(node, "last", &last);
    let to = [probes(cluster(71), 80, 53), probes(node.ips(), 30_071, 30_072)].concat();
    reaches(&lab, &last.via(Via::Packet), &to, &[&server]);
    reaches(&lab, lab.client(), &to[4..], &[&server]);
    // One of them that gets another name goes on as it was.
    ip(node, "link set last down");
    ip(node, "link set last name renamed");
    ip(node, "link set renamed up");
    be_at(node, "renamed", [IpAddr::from([198, 18, 74, 1]), "fd00:198:18:74::1".parse().unwrap()]);
    reaches(&lab, &last.via(Via::Packet), &to[..2], &[&server]);
    batch(&|n| format!("link del other{n}\n"));
    reaches(&lab, &last.via(Via::Packet), &to[..2], &[&server]);
    lab.wait_until("nothing of them is left", || {
        let links = node.must_run(&["ls", "/sys/fs/bpf/fairlead/links"]);
        let left: Vec<_> =
            links.lines().filter(|name| ["_other", "_last"].iter().any(|of| name.contains(of))).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let log = node.agent().log();
    for trouble in ["table UPLINKS is full", "can't attach"] {
        assert!(!log.contains(trouble), "{log}");
    }
}

/// A router further on takes less than the interface that leads there, and tells nobody: a route says so.
#[test]
fn s77_segments_fit_in_what_a_route_says_and_nobody_has_to_be_told() {
    const PORTS: [u16; 2] = [30_177, 30_178];
    const MTU: usize = 1300;
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1").as_ref();
    let (behind, network) = (guest(node, "behind"), Network::new(77));
    network.join(node, "behind", &behind);
    behind.serve("behind", &[8080], &[5300]);
    let service = service("s77", 77).node_ports(&PORTS).endpoint_outside(network.guest);
    lab.apply(&service.yaml());
    for (to, length) in network.guest.iter().zip([32, 128]) {
        ip(node, &format!("route add {to}/{length} dev behind mtu lock {MTU}"));
    }
    let client = lab.client();
    for to in node.ips() {
        lab.wait_until("the service answers", || client.tcp(to, PORTS[0]));
        let mut seen = [client.packets("eth0"), behind.packets("eth0")];
        for (sent, answered) in [(300_000, 100), (100, 300_000)] {
            let probe = Probe::tcp(to, PORTS[0]).payload(sent).answer_payload(answered);
            let reply = client.probe(&probe.timeout(Duration::from_secs(5))).unwrap();
            assert_eq!((reply.server.got, reply.server.pad.len()), (sent, answered), "{to}");
        }
        let [at_client, at_server] = &mut seen;
        let (place, kind) = if to.is_ipv4() { (34, [3, 4]) } else { (54, [2, 0]) };
        let told = at_client.collect(Duration::from_millis(100), |frame| {
            let bytes = frame.bytes();
            let is_icmp = if to.is_ipv4() { bytes.get(23) == Some(&1) } else { bytes.get(20) == Some(&58) };
            !frame.outgoing && is_icmp && bytes.get(place..place + 2) == Some(&kind)
        });
        assert!(told.is_empty(), "{to}: {} segments were too large", told.len());
        // What either end sends there fits, once the kernel has made segments of it: it says in its SYN what it takes.
        let syns = at_server.collect(Duration::from_millis(100), |frame| {
            let bytes = frame.bytes();
            let header = 14 + if to.is_ipv4() { 20 } else { 40 };
            bytes.get(header + 13).is_some_and(|flags| flags & 0x12 == 2)
                && bytes.get(header + 2..header + 4) == Some(&[0x1f, 0x90])
        });
        assert!(!syns.is_empty(), "{to}: the client's SYN comes by");
        for syn in syns {
            let bytes = syn.bytes();
            let options = &bytes[14 + if to.is_ipv4() { 20 } else { 40 } + 20..];
            let most = u16::try_from(MTU - if to.is_ipv4() { 40 } else { 60 }).unwrap();
            assert_eq!(options[..4], [&[2, 4][..], &most.to_be_bytes()].concat(), "{to}");
        }
    }
}
