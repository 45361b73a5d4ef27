//! What is dropped at the first hook that it meets, and how that is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use fairlead_tests::{Drops, Probes};

use crate::world::{ip, world};
use fairlead_tests::frames::{IPV4, IPV6, Wire, datagram, ends, icmpv6, ipv4, ipv6};

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let world = world();
    let node = world.lab.node("node-1");
    let pod = node.pod("net/spoofer").start();
    let mut wire = Wire::of(&pod);
    for (own, targets) in pod
        .ips()
        .into_iter()
        .zip([[world.two.v4().into(), world.far.v4().into()], [IpAddr::from(world.two.v6()), world.far.v6().into()]])
    {
        let v4 = usize::from(own.is_ipv6());
        let foreign = [world.one.ips()[v4], node.ips()[v4], [ip("203.0.113.9"), ip("2001:db8::9")][v4]];
        for to in targets {
            let server = if world.two.ips().contains(&to) { &world.two } else { &world.far };
            let mut seen = server.packets("eth0");
            let before = Drops::of(node).count("source_address");
            for source in foreign {
                let (kind, packet) = datagram(source, to, (4444, 53), b"{}");
                wire.send(kind, &packet);
            }
            // The same from its own address is answered: nothing else is wrong with these packets.
            let (kind, packet) = datagram(own, to, (4444, 53), b"{}");
            wire.send(kind, &packet);
            assert!(wire.comes(|frame| ends(frame) == Some((to, own))).is_some(), "{own} is answered by {to}");
            let arrived = seen.collect(Duration::from_millis(50), |frame| {
                !frame.outgoing && ends(&frame.bytes()).is_some_and(|(source, _)| foreign.contains(&source))
            });
            assert_eq!(arrived, [], "nothing came from a foreign address");
            let drops = Drops::of(node);
            assert_eq!(drops.count("source_address") - before, 3, "{:?}", drops.counts());
            for source in foreign {
                let told = world.lab.wait_until("the drop is told", || {
                    let drops = Drops::of(node);
                    let told = drops.recent().iter().find(|drop| {
                        drop["source"] == std::net::SocketAddr::new(source, 4444).to_string()
                            && drop["destination"] == std::net::SocketAddr::new(to, 53).to_string()
                    });
                    told.cloned().ok_or_else(|| format!("{:?}", drops.recent()))
                });
                assert_eq!((&told["reason"], &told["pod"]), (&"source_address".into(), &"net/spoofer".into()));
                assert_eq!(told["protocol"], 17);
            }
        }
    }
}

#[test]
fn malformed_packets_are_dropped_and_counted() {
    let world = world();
    let node = world.lab.node("node-1");
    let pod = node.pod("net/malformed").start();
    let mut wire = Wire::of(&pod);
    let (to4, to6) = (world.two.v4(), world.two.v6());
    let good4 = datagram(pod.v4().into(), to4.into(), (1, 53), b"{}").1;
    let good6 = datagram(pod.v6().into(), to6.into(), (1, 53), b"{}").1;
    let changed = |packet: &[u8], at: usize, byte: u8| {
        let mut packet = packet.to_vec();
        packet[at] = byte;
        packet
    };
    let malformed = [
        (IPV4, good4[..10].to_vec()),
        (IPV4, changed(&good4, 0, 0x44)),
        (IPV4, changed(&good4, 0, 0x55)),
        (IPV4, changed(&good4, 0, 0x4f)),
        (IPV4, changed(&good4, 2, 0x10)),
        (IPV4, changed(&good4, 3, 10)),
        (IPV4, ipv4(pod.v4(), to4, 6, &[0; 4])),
        (IPV4, ipv4(pod.v4(), to4, 1, &[8])),
        (IPV6, good6[..30].to_vec()),
        (IPV6, changed(&good6, 0, 0x40)),
        (IPV6, changed(&good6, 4, 0x10)),
        (IPV6, ipv6(pod.v6(), to6, 6, 64, &[0; 4])),
        (IPV6, ipv6(pod.v6(), to6, 0, 64, &[17])),
    ];
    let others = [
        ("not_ip", 0x88cc, vec![0; 40]),
        ("bad_address", IPV6, ipv6("::ffff:10.0.0.1".parse().unwrap(), to6, 17, 64, &[0; 8])),
        ("bad_address", IPV4, datagram(pod.v4().into(), ip("127.0.0.1"), (1, 53), b"{}").1),
        ("bad_address", IPV4, datagram(pod.v4().into(), ip("169.254.1.1"), (1, 53), b"{}").1),
        ("bad_address", IPV6, datagram(pod.v6().into(), ip("fe80::1"), (1, 53), b"{}").1),
        ("source_address", IPV4, datagram(ip("169.254.9.9"), to4.into(), (1, 53), b"{}").1),
        ("multicast", IPV4, datagram(pod.v4().into(), ip("224.0.0.251"), (1, 5353), b"{}").1),
        ("multicast", IPV6, datagram(pod.v6().into(), ip("ff02::fb"), (1, 5353), b"{}").1),
        ("extension_headers", IPV6, ipv6(pod.v6(), to6, 60, 64, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(8))),
        ("fragment", IPV4, changed(&good4, 7, 7)),
    ];
    let before = Drops::of(node);
    for (kind, packet) in &malformed {
        let count = Drops::of(node).count("malformed");
        wire.send(*kind, packet);
        let counted = Drops::of(node).count("malformed") - count;
        assert_eq!(counted, 1, "{kind:x} {packet:x?}: {:?} and then {:?}", before.counts(), Drops::of(node).counts());
    }
    for (reason, kind, packet) in &others {
        let count = Drops::of(node).count(reason);
        wire.send(*kind, packet);
        let counted = Drops::of(node).count(reason) - count;
        assert_eq!(counted, 1, "{reason} {packet:x?}: {:?} and then {:?}", before.counts(), Drops::of(node).counts());
    }
    // Nothing else is disturbed.
    wire.send(IPV4, &good4);
    assert!(wire.comes(|frame| ends(frame) == Some((to4.into(), pod.v4().into()))).is_some());
    wire.send(IPV6, &good6);
    assert!(wire.comes(|frame| ends(frame) == Some((to6.into(), pod.v6().into()))).is_some());
    let text = node.fairlead(&["drops"]).stdout;
    assert!(text.contains("malformed") && text.contains("not_ip"), "{text}");
}

#[test]
fn what_hosts_say_to_their_link_ends_there_in_silence() {
    let world = world();
    let node = world.lab.node("node-1");
    let pod = node.pod("net/silent").start();
    let mut wire = Wire::of(&pod);
    let mut seen = [world.two.packets("eth0"), node.packets("eth0")];
    let link_local: Ipv6Addr = "fe80::1234".parse().unwrap();
    let routers = "ff02::2".parse().unwrap();
    let listeners = "ff02::16".parse().unwrap();
    for source in [link_local, Ipv6Addr::UNSPECIFIED] {
        wire.send(IPV6, &icmpv6(source, routers, &[133, 0, 0, 0, 0, 0, 0, 0]));
        wire.send(IPV6, &icmpv6(source, listeners, &[143, 0, 0, 0, 0, 0, 0, 0]));
    }
    wire.send(IPV6, &icmpv6(pod.v6(), listeners, &[143, 0, 0, 0, 0, 0, 0, 0]));
    wire.send(IPV4, &datagram(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into(), (68, 67), &[1; 240]).1);
    for place in &mut seen {
        let out = place.collect(Duration::from_millis(50), |frame| {
            ends(&frame.bytes()).is_some_and(|(from, _)| from == IpAddr::from(link_local) || from == pod.v6())
        });
        assert_eq!(out, []);
    }
    let drops = Drops::of(node);
    let told: Vec<_> = drops.recent().iter().filter(|drop| drop["pod"] == "net/silent").collect();
    assert!(told.is_empty(), "nobody is told of what every host sends: {told:?}");
}
