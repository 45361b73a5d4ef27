//! Who sends from addresses of others: a host on the nodes' network, and a pod that says to have them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fairlead_tests::frames::flags::{ACK, PSH, RST, SYN};
use fairlead_tests::frames::{ARP, IPV6, Segment, Wire, datagram, ethernet, icmpv6, segment};
use fairlead_tests::{Node, Pod, Probe, Probes, ServiceManifest, Transport, Vantage};
use serde_json::{Value, json};

use crate::unhook::host_side;
use crate::world::{MARK, assert_nothing_smuggled, carries, policy, smuggled, world};

/// Packets of a datagram flow and of a connection, from a neighbour that sends from one of their ends.
fn inject(wire: &mut Wire, from: (IpAddr, IpAddr), udp: (u16, u16), tcp: (u16, u16)) {
    let (kind, packet) = datagram(from.0, from.1, udp, MARK);
    wire.send(kind, &packet);
    for flags in [ACK | PSH, SYN, SYN | ACK, RST, RST | ACK] {
        let (kind, packet) = segment(from.0, from.1, tcp, &Segment { ack: 1, payload: MARK, ..Segment::new(flags) });
        wire.send(kind, &packet);
    }
}

#[test]
fn a_neighbour_sends_nothing_into_flows_of_one_node() {
    const PORT: u16 = 43_001;
    let lab = world();
    let node = lab.node("node-1");
    let one = node.pod("next/one").start();
    let two = node.pod("next/two").tcp(80).udp(53).start();
    let mut wire = Wire::to_uplink(lab.client(), node);
    // A pod's flow to another, and that of a process of the node.
    let openers: [(&Vantage, [IpAddr; 2]); 2] = [(one.vantage(), one.ips()), (node.vantage(), node.ips())];
    for (opener, ips) in openers {
        for (own, to) in ips.into_iter().zip(two.ips()) {
            let asks = Probe::udp(to, 53).source_port(PORT);
            opener.probe(&asks).unwrap();
            let mut open = opener.connect(&Probe::tcp(to, 80)).unwrap();
            let local = open.greeting().local.port();
            let mut seen = [one.packets("eth0"), two.packets("eth0")];
            inject(&mut wire, (own, to), (PORT, 53), (local, 80));
            inject(&mut wire, (to, own), (53, PORT), (80, local));
            for seen in &mut seen {
                assert_nothing_smuggled(seen, &format!("a neighbour that sends as {own} or {to}"));
            }
            opener.probe(&asks).unwrap();
            assert_eq!(open.exchange(20_000, 20_000).unwrap().server.pod, two.key());
        }
    }
}

/// The answer of a server of the node would be a question of the node's to the Service, and the node may ask every pod of its own.
#[test]
fn a_neighbour_that_sends_as_a_service_makes_the_node_say_nothing_to_closed_pods() {
    const PORT: u16 = 43_011;
    const SERVER: &str = "host/answers-whatever-comes";
    let lab = world();
    let node = lab.node("node-1");
    policy(lab, "lured", "closed", &json!({"policyTypes": ["Ingress"]}));
    let closed = node.pod("lured/closed").label("role", "closed").udp(53).start();
    let vips: [IpAddr; 2] = ["10.96.77.1", "fd00:10:96::77:1"].map(|ip| ip.parse().unwrap());
    lab.apply(&ServiceManifest::new("lured/closed").ips(&vips).udp("ask", 53, 53).endpoint(&closed).yaml());
    lab.wait_in_force(node, vips.map(|ip| (ip, 53).into()));
    node.serve(SERVER, &[], &[PORT]);
    let mut wire = Wire::to_uplink(lab.client(), node);
    for (vip, own) in vips.into_iter().zip(node.ips()) {
        lab.wait_until("the server answers", || lab.client().probe(&Probe::udp(own, PORT)));
        let mut seen = closed.packets("eth0");
        for _ in 0..3 {
            let (kind, packet) = datagram(vip, own, (53, PORT), MARK);
            wire.send(kind, &packet);
        }
        let answers = seen.collect(Duration::from_millis(200), |frame| carries(frame, SERVER.as_bytes()));
        assert!(answers.is_empty(), "{} answers for {vip} reached a closed pod", answers.len());
    }
}

/// A container or a machine on a network of one node alone sends from the address of a pod of another node, which policy lets in.
#[test]
fn who_is_behind_one_node_passes_for_no_pod_of_another() {
    const PORT: u16 = 43_002;
    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0x90, 1], [2, 0, 0, 0, 0x90, 2]];
    let lab = world();
    let node = lab.node("node-1");
    let friends = json!({"podSelector": {"matchLabels": {"role": "friend"}}});
    policy(lab, "poses", "victim", &json!({"policyTypes": ["Ingress"], "ingress": [{"from": [friends]}]}));
    let victim = node.pod("poses/victim").label("role", "victim").udp(53).start();
    let open = node.pod("poses/open").udp(53).start();
    let beyond = lab.node("node-2").pod("poses/beyond").udp(53).start();
    let friend = lab.node("node-2").pod("poses/friend").label("role", "friend").start();
    let guest = node.guest("poser");
    let run = |line: &str| drop(node.must_run(&line.split(' ').collect::<Vec<_>>()));
    run("ip link add poser address 02:00:00:00:90:01 type veth peer name eth0 address 02:00:00:00:90:02 netns poser");
    run("ip addr add 198.18.90.1/24 dev poser");
    run("ip addr add fd00:198:18:90::1/64 dev poser nodad");
    run("ip link set poser up");
    guest.must_run(&["ip", "link", "set", "eth0", "up"]);
    let mut wire = Wire { packets: guest.packets("eth0"), own: MACS[1], gateway: MACS[0] };
    let own: [IpAddr; 2] = ["198.18.90.2", "fd00:198:18:90::2"].map(|ip| ip.parse().unwrap());
    for family in 0..2 {
        let [own, victim_ip, open_ip, friend_ip] =
            [own[family], victim.ips()[family], open.ips()[family], friend.ips()[family]];
        let asks = Probe::udp(victim_ip, 53).source_port(PORT);
        lab.wait_until("policy lets the friend in", || friend.probe(&asks));
        // What it says as itself arrives, where it may.
        let mut seen = open.packets("eth0");
        lab.wait_until("the guest's packets arrive", || {
            let (kind, packet) = datagram(own, open_ip, (PORT, 53), MARK);
            wire.send(kind, &packet);
            seen.wait_for(Duration::from_millis(100), smuggled).map(drop).ok_or("nothing comes")
        });
        // Into the flow of the friend, as one of its own, and to other nodes.
        let mut seen = [&victim, &open, &beyond].map(|pod| pod.packets("eth0"));
        for (to, port) in [(victim_ip, PORT), (victim_ip, PORT + 1), (open_ip, PORT), (beyond.ips()[family], PORT)] {
            inject(&mut wire, (friend_ip, to), (port, 53), (port, 80));
        }
        for seen in &mut seen {
            assert_nothing_smuggled(seen, &format!("a guest of the node that sends as {friend_ip}"));
        }
        friend.probe(&asks).unwrap();
    }
    run("ip link del poser");
}

/// Addresses that a pod asks and answers for.
const CLAIMS: u16 = 10_000;

/// A pod asks for, and says that it has, ten thousand addresses: of pods, of its gateway, of nodes, of nobody. Nobody learns anything
/// of it, and the node gets no more neighbours.
#[test]
fn a_pod_that_floods_arp_and_neighbour_discovery_changes_nobodys_neighbours() {
    let lab = world();
    let node = lab.node("node-1");
    let pods = ["flooder", "near"].map(|name| node.pod(&format!("claims/{name}")).tcp(80).start());
    let [flooder, near] = &pods;
    let far = lab.node("node-2").pod("claims/far").tcp(80).start();
    let neighbours = || {
        let of_node = pods.each_ref().map(|pod| entries(node.as_ref(), &host_side(pod)));
        (of_node, entries(near, "eth0"), known(node, &lab.node("node-2").ips()))
    };
    let before = neighbours();
    let mut wire = Wire::of(flooder);
    let host = |n: u16| n.to_be_bytes();
    for n in 0..CLAIMS {
        // In the networks of pods here and elsewhere, of nodes, and of nobody; and those that matter most.
        let v4: [Ipv4Addr; 6] = {
            let [high, low] = host(n);
            [
                Ipv4Addr::new(10, 244, 1, low),
                Ipv4Addr::new(10, 244, 2 + high, low),
                Ipv4Addr::new(172, 18, high, low),
                Ipv4Addr::new(198, 51, high, low),
                near.v4(),
                Ipv4Addr::new(169, 254, 1, 1),
            ]
        };
        let v6: [Ipv6Addr; 6] = [
            Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, n),
            Ipv6Addr::new(0xfd00, 0x10, 0x244, 2, 0, 0, 0, n),
            Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, n),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n),
            near.v6(),
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        ];
        let which = usize::from(n % 6);
        let (arp, discovery) = (claim_v4(flooder, &wire, v4[which], n), claim_v6(flooder, &wire, v6[which], n));
        for (kind, packet) in [(ARP, arp), (IPV6, discovery)] {
            let everybody = if n % 2 == 0 { [0xff; 6] } else { wire.gateway };
            let frame = ethernet(everybody, wire.own, kind, &packet);
            wire.packets.send(&frame);
        }
    }
    assert_eq!(neighbours(), before);
    for (from, to) in [(near, &far), (near, flooder), (flooder, &far)] {
        for ip in to.ips() {
            assert_eq!(from.tcp(ip, 80).unwrap().server.pod, to.key());
        }
    }
    for ip in near.ips() {
        assert_eq!(node.tcp(ip, 80).unwrap().server.pod, near.key());
    }
}

/// The kernel has one number of neighbours for all network namespaces of a node: a pod that sends to ever more addresses of its
/// link makes none of them, by its routes, and those of other nodes would stay if one did.
#[test]
fn a_pod_that_sends_to_many_addresses_of_its_link_makes_no_neighbours() {
    let lab = world();
    let node = lab.node("node-1");
    let pod = node.pod("claims/sender").start();
    let link = pod.must_run(&["cat", "/sys/class/net/eth0/ifindex"]);
    let link: u32 = link.trim().parse().unwrap();
    for n in 0..200 {
        let to = [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n).into(), IpAddr::from(Ipv4Addr::new(169, 254, 7, n as u8))];
        for ip in to {
            let mut to = std::net::SocketAddr::new(ip, 9);
            if let std::net::SocketAddr::V6(to) = &mut to {
                to.set_scope_id(link);
            }
            // Nobody answers.
            let _ = pod.probe(&Probe::new(Transport::Udp, to).unconnected().timeout(Duration::from_millis(1)));
        }
    }
    let known = entries(&pod, "eth0");
    assert!(known.len() <= 2, "more than its gateways: {known:?}");
    let listed = node.must_run(&["ip", "neigh", "show", "proto", "242"]);
    assert!(listed.contains(&lab.node("node-2").v4().to_string()), "another node's is kept: {listed}");
}

/// A request for an address, an answer that it is here, or one nobody asked for.
fn claim_v4(pod: &Pod, wire: &Wire, ip: Ipv4Addr, n: u16) -> Vec<u8> {
    let (own, theirs) = (pod.v4().octets(), ip.octets());
    let (operation, sender, target) = match n % 4 {
        0 => (1, own, theirs),
        1 => (1, theirs, theirs),
        2 => (2, theirs, own),
        _ => (2, theirs, theirs),
    };
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &wire.own, &sender, &[0; 6], &target].concat()
}

/// A solicitation, an advertisement, a router's, and a redirect.
fn claim_v6(pod: &Pod, wire: &Wire, ip: Ipv6Addr, n: u16) -> Vec<u8> {
    let all: Ipv6Addr = "ff02::1".parse().expect("it is an address");
    let option = |kind: u8| [&[kind, 1][..], &wire.own].concat();
    let target = ip.octets();
    match n % 4 {
        0 => icmpv6(pod.v6(), all, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, &option(1)].concat()),
        // Override, and as a router.
        1 => icmpv6(ip, all, &[&[136, 0, 0, 0, 0xa0, 0, 0, 0][..], &target, &option(2)].concat()),
        2 => icmpv6(ip, all, &[&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &option(1)].concat()),
        _ => icmpv6(ip, pod.v6(), &[&[137, 0, 0, 0, 0, 0, 0, 0][..], &target, &target, &option(2)].concat()),
    }
}

/// The neighbours that a place has at an interface: addresses, and where they are.
fn entries(place: &impl Probes, link: &str) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    for family in ["-4", "-6"] {
        let said = place.must_run(&["ip", family, "-j", "neigh", "show", "nud", "all", "dev", link]);
        let said: Vec<Value> = serde_json::from_str(&said).unwrap_or_default();
        // Of groups the kernel keeps some by itself.
        let real = said.iter().filter(|each| !each["state"].to_string().contains("NOARP"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        entries.extend(real.map(|each| (text(&each["dst"]), text(&each["lladdr"]))));
    }
    entries
}

/// Where a node has some neighbours at its uplink.
fn known(node: &Node, ips: &[IpAddr; 2]) -> Vec<Option<String>> {
    let all = entries(node, "eth0");
    ips.iter().map(|ip| all.get(&ip.to_string()).cloned()).collect()
}
