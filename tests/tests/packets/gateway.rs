//! The gateway of a pod, which is the datapath.

use std::net::Ipv6Addr;

use fairlead_tests::{Probes, checksum};

use crate::world::world;
use fairlead_tests::frames::{ARP, ICMPV6, IPV6, Wire, icmpv6, with_pseudo};

#[test]
fn arp_is_answered_with_the_gateways_address() {
    let world = world();
    let pod = world.lab.node("node-1").pod("net/asks4").start();
    let mut wire = Wire::of(&pod);
    let (own, gateway) = (wire.own, wire.gateway);
    let request =
        |target: [u8; 4]| [&[0, 1, 8, 0, 6, 4, 0, 1][..], &own, &pod.v4().octets(), &[0; 6], &target].concat();
    for target in [[169, 254, 1, 1], world.two.v4().octets(), [192, 0, 2, 7]] {
        wire.send(ARP, &request(target));
        let answer = wire.comes(|frame| frame[12..14] == [8, 6]).unwrap_or_else(|| panic!("{target:?}: no answer"));
        assert_eq!(answer[..12], [own, gateway].concat());
        let wanted = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &gateway, &target, &own, &pod.v4().octets()].concat();
        assert_eq!(answer[14..42], wanted);
    }
    // Whether somebody else has its address is no question to answer.
    wire.send(ARP, &request(pod.v4().octets()));
    assert_eq!(wire.comes(|frame| frame[12..14] == [8, 6]), None);
    // A pod that has forgotten its gateway finds it again.
    pod.must_run(&["ip", "neigh", "del", "169.254.1.1", "dev", "eth0"]);
    pod.tcp(world.far.v4(), 80).unwrap();
}

#[test]
fn neighbour_solicitations_are_answered_with_the_gateways_address() {
    let world = world();
    let pod = world.lab.node("node-1").pod("net/asks6").start();
    let mut wire = Wire::of(&pod);
    let (own, gateway) = (wire.own, wire.gateway);
    let solicitation = |target: Ipv6Addr| {
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
        icmpv6(pod.v6(), group, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &own].concat())
    };
    let advertisement = |frame: &[u8]| frame[12..14] == [0x86, 0xdd] && frame[20] == ICMPV6 && frame[54] == 136;
    for target in ["fe80::1".parse().unwrap(), world.far.v6()] {
        wire.send(IPV6, &solicitation(target));
        let answer = wire.comes(advertisement).unwrap_or_else(|| panic!("{target}: no answer"));
        assert_eq!(answer[..12], [own, gateway].concat());
        assert_eq!((answer[21], &answer[22..38]), (255, &target.octets()[..]), "hop limit and source");
        assert_eq!(answer[38..54], pod.v6().octets());
        assert_eq!(answer[62..78], target.octets());
        assert_eq!(answer[78..86], [&[2, 1][..], &gateway].concat());
        assert_eq!(with_pseudo(target.into(), pod.v6().into(), ICMPV6, &answer[54..86]), 0, "its checksum is right");
        assert_ne!(checksum(&answer[54..86]), 0);
    }
    wire.send(IPV6, &solicitation(pod.v6()));
    assert_eq!(wire.comes(advertisement), None);
    pod.must_run(&["ip", "neigh", "del", "fe80::1", "dev", "eth0"]);
    pod.tcp(world.far.v6(), 80).unwrap();
}
