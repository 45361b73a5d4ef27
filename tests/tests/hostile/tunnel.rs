//! Packets of the tunnel that no node sent: whoever gets one to a node from another node's address passes for any pod there.

use std::net::IpAddr;

use fairlead_tests::frames::{IPV4, IPV6, UDP, Wire, datagram, fragment, with_pseudo};
use fairlead_tests::{Drops, Lab, Node, Packets, Pod, Probe, Probes, ServiceManifest};
use serde_json::{Value, json};

use crate::world::{MARK, assert_nothing_smuggled, policy, smuggled};

/// The tunnel's port.
const PORT: u16 = 4789;

/// A NodePort that leads to it at a node's own address, and one that does at an address that no object names.
const NODE_PORTS: [u16; 2] = [30_789, 30_790];

/// Addresses of the first node that no object names.
const UNNAMED: [&str; 2] = ["172.18.1.211", "fd00:172:18:1::211"];

/// Two nodes on one network, and a third on another, beside the client: the first reaches it through the tunnel. The pod on
/// the first lets in only who is called a friend, on the others.
struct Stage {
    lab: Lab,
    victim: Pod,
    /// On the second node, which is reached directly.
    near: Pod,
    /// On the third.
    far: Pod,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::builder().nodes(3).subnets(&[1, 1, 0]).start();
        for ip in UNNAMED {
            let bits = if ip.contains(':') { "128" } else { "32" };
            lab.node("node-1").must_run(&["ip", "addr", "add", &format!("{ip}/{bits}"), "dev", "eth0"]);
        }
        let victim = lab.node("node-1").pod("tunnel/victim").label("role", "victim").tcp(80).udp(53).start();
        let friend = |node: &str, name: &str| lab.node(node).pod(name).label("role", "friend").tcp(80).start();
        let (near, far) = (friend("node-2", "tunnel/near"), friend("node-3", "tunnel/far"));
        let from = json!([{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]);
        policy(&lab, "tunnel", "victim", &json!({"policyTypes": ["Ingress"], "ingress": from}));
        for friend in [&near, &far] {
            for ip in victim.ips() {
                lab.wait_until("friends are let in", || friend.tcp(ip, 80));
            }
        }
        Self { lab, victim, near, far }
    }

    /// What a node would send through the tunnel of a packet of a friend to the victim.
    fn forged(&self, friend: &Pod, v6: bool) -> Vec<u8> {
        const VNI: u32 = 0x666c;
        let family = usize::from(v6);
        let (_, inner) = datagram(friend.ips()[family], self.victim.ips()[family], (45_002, 53), MARK);
        let kind = if v6 { IPV6 } else { IPV4 };
        let header = [&[8, 0, 0, 0][..], &(VNI << 8).to_be_bytes(), b"\x02flvx\x01\x02flvx\x02"].concat();
        [&header[..], &kind.to_be_bytes(), &inner].concat()
    }

    /// A wire from the client to the router, which leads to the first node.
    fn to_router(&self) -> Wire {
        let mut wire = Wire::to_uplink(self.lab.client(), self.lab.node("node-3"));
        let link = self.lab.fabric().must_run(&["ip", "-j", "link", "show", "dev", "br0"]);
        let link: Value = serde_json::from_str(&link).unwrap();
        let router = link[0]["address"].as_str().unwrap();
        let bytes: Vec<u8> = router.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        wire.gateway = bytes.try_into().unwrap();
        wire
    }
}

/// Nothing of an attack arrives, and a node has counted each of its packets.
#[track_caller]
fn refused(seen: &mut Packets, node: &Node, reason: &str, what: &str, attack: impl FnOnce() -> u64) {
    let before = Drops::of(node).count(reason);
    let sent = attack();
    assert_nothing_smuggled(seen, what);
    assert_eq!(Drops::of(node).count(reason) - before, sent, "{what}: {reason} on {}", node.name());
}

#[test]
fn who_is_no_node_passes_for_no_pod_through_the_tunnel() {
    let stage = Stage::new();
    let Stage { lab, victim, near, far } = &stage;
    let [first, third] = ["node-1", "node-3"].map(|name| lab.node(name));
    let mut seen = victim.packets("eth0");
    let mut wire = Wire::of(far);
    let mut router = stage.to_router();

    // A pod of the node that is taken for the sender: its packets get that node's address as they leave.
    let named = first.ips();
    let unnamed = UNNAMED.map(|ip| ip.parse::<IpAddr>().unwrap());
    for to in named.into_iter().chain(unnamed) {
        let own = far.ips()[usize::from(to.is_ipv6())];
        for inner in [false, true] {
            let forged = stage.forged(far, inner);
            refused(&mut seen, third, "tunnel_port", &format!("a pod's packet to {to}"), || {
                let (kind, packet) = datagram(own, to, (40_001, PORT), &forged);
                wire.send(kind, &packet);
                1
            });
            refused(&mut seen, third, "tunnel_port", &format!("a pod's fragments to {to}"), || {
                send_in_pieces(&mut wire, (own, to), &forged, 7 + u16::from(inner))
            });
        }
    }

    // A service that leads there. An endpoint at an address that a Node names is refused by name.
    let cluster = ["10.96.78.1", "fd00:10:96::78:1"];
    let game = ServiceManifest::new("tunnel/game").ips(&cluster).udp("play", 53, PORT).node_ports(&NODE_PORTS[..1]);
    lab.apply(&game.host_endpoint(first).yaml());
    let blind = ServiceManifest::new("tunnel/blind").ips(&["10.96.78.2", "fd00:10:96::78:2"]).udp("play", 53, PORT);
    let blind = blind.node_ports(&NODE_PORTS[1..]).host_endpoint(first).yaml();
    let blind = named
        .iter()
        .zip(unnamed)
        .fold(blind, |yaml, (ip, other)| yaml.replace(&format!("\"{ip}\""), &format!("\"{other}\"")));
    lab.apply(&blind);
    lab.wait_until("the endpoint is refused by name", || {
        let status = third.fairlead(&["status"]).stdout;
        let told = format!("the endpoint {}:{PORT}/UDP gets no traffic", first.v4());
        if status.contains(&told) { Ok(()) } else { Err(status) }
    });
    for ip in cluster {
        let refused = far.probe(&Probe::udp(ip.parse::<IpAddr>().unwrap(), 53)).unwrap_err();
        assert!(format!("{refused:?}").contains("Refused"), "the service has no endpoint: {refused:?}");
    }
    let mut outside = Wire::to_uplink(lab.client(), third);
    for (v6, own) in [(false, "172.18.0.100"), (true, "fd00:172:18::100")] {
        let (own, at): (IpAddr, _) = (own.parse().unwrap(), third.ips()[usize::from(v6)]);
        for inner in [false, true] {
            let forged = stage.forged(far, inner);
            let (kind, packet) = datagram(own, at, (40_002, NODE_PORTS[0]), &forged);
            refused(&mut seen, third, "rejected", "a client's packet to a NodePort", || {
                outside.send(kind, &packet);
                1
            });
            let (kind, packet) = datagram(own, at, (40_002, NODE_PORTS[1]), &forged);
            refused(
                &mut seen,
                third,
                "tunnel_port",
                "a client's packet to a NodePort with an unnamed endpoint",
                || {
                    outside.send(kind, &packet);
                    1
                },
            );
        }
        let to: IpAddr = ["10.96.78.2", "fd00:10:96::78:2"][usize::from(v6)].parse().unwrap();
        let (kind, packet) = datagram(far.ips()[usize::from(v6)], to, (40_003, 53), &stage.forged(far, v6));
        refused(&mut seen, third, "tunnel_port", "a pod's packet to a service with an unnamed endpoint", || {
            wire.send(kind, &packet);
            1
        });
    }

    // From a node's address, by somebody else: of a node that is reached directly nothing comes through the tunnel.
    let second = lab.node("node-2");
    for (from, to) in second.ips().into_iter().zip(named) {
        for inner in [false, true] {
            refused(&mut seen, first, "tunnel", &format!("a packet from {from}"), || {
                let (kind, packet) = datagram(from, to, (40_004, PORT), &stage.forged(near, inner));
                router.send(kind, &packet);
                1
            });
        }
    }
    // Nothing else is wrong with them: where the tunnel is in use it does not prove who sends.
    for (from, to) in third.ips().into_iter().zip(named) {
        for inner in [false, true] {
            let (kind, packet) = datagram(from, to, (40_005, PORT), &stage.forged(far, inner));
            router.send(kind, &packet);
            assert!(seen.wait_for(std::time::Duration::from_secs(10), smuggled).is_some(), "from {from}");
        }
    }
    // A pod may have that port: its own.
    let peer = lab.node("node-1").pod("tunnel/peer").udp(PORT).start();
    for ip in peer.ips() {
        lab.wait_until("a pod's own port is reached", || far.udp(ip, PORT));
    }
}

/// Sends a datagram for the tunnel's port in two fragments. How many are dropped.
fn send_in_pieces(wire: &mut Wire, (from, to): (IpAddr, IpAddr), payload: &[u8], id: u16) -> u64 {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [40_006, PORT, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let sum = with_pseudo(from, to, UDP, &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let (head, tail) = udp.split_at(32);
    for (part, at) in [(head, (0, true)), (tail, (32, false))] {
        let (kind, packet) = fragment((from, to), UDP, id, at, part);
        wire.send(kind, &packet);
    }
    2
}
