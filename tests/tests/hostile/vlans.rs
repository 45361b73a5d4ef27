//! Frames with 802.1Q tags.

use std::time::Duration;

use fairlead_tests::frames::{Wire, datagram, ends};
use fairlead_tests::{Drops, Probe, Probes, Vantage};

use crate::world::{MARK, assert_nothing_smuggled, carries, outside, smuggled, world};

/// What tagged frames of a pod carry, and nothing that other tests send at the same time to the same places.
const TAGGED: &[u8] = b"tagged by a hostile pod";

/// Priorities, which change nothing.
const PRIORITIES: [u16; 2] = [0, 5];

#[test]
fn frames_that_a_pod_tagged_go_nowhere_and_are_counted() {
    let lab = world();
    let node = lab.node("node-1");
    let pod = node.pod("tags/sender").start();
    let near = node.pod("tags/near").udp(53).start();
    let far = lab.node("node-2").pod("tags/far").udp(53).start();
    let mut wire = Wire::of(&pod);
    // At the other end of the uplink is what left by it.
    let mut seen = [
        lab.fabric().packets("node-1"),
        near.packets("eth0"),
        far.packets("eth0"),
        lab.client().packets("eth0"),
        node.packets("eth0"),
    ];
    let before = Drops::of(node).count("vlan");
    let mut sent = 0;
    for targets in [near.ips(), far.ips(), outside(), node.ips()] {
        for (own, to) in pod.ips().into_iter().zip(targets) {
            for vlan in [5, 1, 4094] {
                for priority in PRIORITIES {
                    let (kind, packet) = datagram(own, to, (44_001, 53), TAGGED);
                    wire.send_tagged((priority, vlan), kind, &packet);
                    sent += 1;
                }
            }
        }
    }
    for place in &mut seen {
        let arrived = place.collect(Duration::from_millis(60), |frame| carries(frame, TAGGED));
        assert_eq!(arrived, [], "tagged frames of a pod");
    }
    assert_eq!(Drops::of(node).count("vlan") - before, sent, "{:?}", Drops::of(node).counts());
}

#[test]
fn s79_a_tag_that_only_gives_a_priority_is_no_tag() {
    let lab = world();
    let node = lab.node("node-1");
    let pod = node.pod("tags/urgent").udp(53).start();
    let near = node.pod("tags/urgent-near").udp(53).start();
    let far = lab.node("node-2").pod("tags/urgent-far").udp(53).start();
    let mut wire = Wire::of(&pod);
    let mut neighbour = Wire::to_uplink(lab.client(), node);
    for priority in PRIORITIES {
        for targets in [near.ips(), far.ips(), outside()] {
            for (own, to) in pod.ips().into_iter().zip(targets) {
                let (kind, packet) = datagram(own, to, (44_002, 53), b"{}");
                wire.send_tagged((priority, 0), kind, &packet);
                assert!(wire.comes(|frame| ends(frame) == Some((to, own))).is_some(), "{to} answers {own}");
            }
        }
        for (own, to) in outside().into_iter().zip(pod.ips()) {
            let (kind, packet) = datagram(own, to, (44_003, 53), b"{}");
            neighbour.send_tagged((priority, 0), kind, &packet);
            assert!(neighbour.comes(|frame| ends(frame) == Some((to, own))).is_some(), "{to} answers {own}");
        }
    }
}

#[test]
fn frames_that_a_neighbour_tagged_reach_no_pod() {
    let lab = world();
    let node = lab.node("node-1");
    let pod = node.pod("tags/receiver").udp(53).start();
    let far = lab.node("node-2").pod("tags/receives-from").start();
    let mut wire = Wire::to_uplink(lab.client(), node);
    // From an address outside, which the host's stack forwards, and from that of a pod elsewhere, which is handed over past it.
    let senders: [(&Vantage, _); 2] = [(lab.client(), outside()), (far.vantage(), far.ips())];
    for (sender, ips) in senders {
        for (own, to) in ips.into_iter().zip(pod.ips()) {
            // There is a flow that they could pass for a part of.
            sender.probe(&Probe::udp(to, 53).source_port(44_004)).unwrap();
            let mut seen = pod.packets("eth0");
            let mut uplink = node.packets("eth0");
            let (kind, packet) = datagram(own, to, (44_004, 53), MARK);
            for vlan in [5, 1, 4094] {
                for priority in PRIORITIES {
                    wire.send_tagged((priority, vlan), kind, &packet);
                }
            }
            assert_nothing_smuggled(&mut seen, &format!("tagged frames of a neighbour from {own}"));
            let came = uplink.collect(Duration::from_millis(60), smuggled).len();
            assert_eq!(came, 3 * PRIORITIES.len(), "all of them reach the node");
            // Without a tag the same arrives: nothing else is wrong with it.
            wire.send(kind, &packet);
            assert!(seen.wait_for(Duration::from_secs(10), smuggled).is_some(), "{own} reaches {to}");
        }
    }
}
