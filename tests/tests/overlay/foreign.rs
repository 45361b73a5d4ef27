//! What comes to the tunnel's port from elsewhere.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fairlead_tests::{Node, Probes, checksum};

use crate::world::{drops, ip, world};

/// An IPv4 packet with UDP and no UDP checksum.
fn udp(from: IpAddr, to: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4") };
    let length = |bytes: usize| u16::try_from(bytes + payload.len()).unwrap().to_be_bytes();
    let mut packet = [&[0x45, 0][..], &length(28), &[0; 4], &[64, 17, 0, 0], &from.octets(), &to.octets()].concat();
    let sum = checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes(), length(8), [0, 0]].concat());
    packet.extend(payload);
    packet
}

/// A frame with a packet in a packet of the tunnel.
fn frame(to: &Node, mac: &[u8], outer: IpAddr, vni: u32, inner: &[u8]) -> Vec<u8> {
    let header = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), b"\x02flvx\x01\x02flvx\x02\x08\x00", inner].concat();
    let packet = udp(outer, to.v4().into(), (50_000, 4789), &header);
    [mac, &[2, 0, 0, 0, 0, 9], &[8, 0], &packet].concat()
}

#[test]
fn only_nodes_send_through_the_tunnel_and_only_what_is_behind_them() {
    let world = world();
    let node = world.lab.node("node-1");
    let mac: Vec<u8> = node
        .must_run(&["cat", "/sys/class/net/eth0/address"])
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let (own, two, far): (IpAddr, IpAddr, IpAddr) =
        (world.one.v4().into(), world.two.v4().into(), world.far.v4().into());
    let third: IpAddr = world.lab.node("node-3").v4().into();
    let client: IpAddr = Ipv4Addr::new(172, 18, 0, 100).into();
    let vni = 0x666c;
    let mut wire = world.lab.client().packets("eth0");
    let mut seen = world.one.packets("eth0");
    let arrives = |seen: &mut fairlead_tests::Packets| {
        let marked = |frame: &fairlead_tests::Frame| frame.bytes().ends_with(b"foreign");
        seen.wait_for(Duration::from_millis(200), marked).is_some()
    };
    let inner = |from| udp(from, own, (4444, 54), b"foreign");
    let refused = [
        ("from a host that is no node", client, vni, far, "tunnel_source"),
        ("from the node itself", node.v4().into(), vni, far, "tunnel_source"),
        ("of a different network", third, vni + 1, far, "tunnel"),
        ("from the outside", third, vni, ip("203.0.113.9"), "tunnel_source"),
        ("from a pod that is elsewhere", third, vni, two, "tunnel_source"),
        ("from a pod of this node", third, vni, own, "tunnel_source"),
        ("from this node", third, vni, node.v4().into(), "tunnel_source"),
        ("from a different node", third, vni, world.lab.node("node-2").v4().into(), "tunnel_source"),
    ];
    for (what, outer, vni, source, reason) in refused {
        let before = drops(node, reason);
        wire.send(&frame(node, &mac, outer, vni, &inner(source)));
        assert!(!arrives(&mut seen), "{what}");
        // What claims to come from the node itself is dropped by its stack.
        if outer != IpAddr::from(node.v4()) {
            assert_eq!(drops(node, reason), before + 1, "{what}");
        }
    }
    // Nothing else is wrong with them.
    wire.send(&frame(node, &mac, third, vni, &inner(far)));
    assert!(arrives(&mut seen), "what a node sends arrives");
}
