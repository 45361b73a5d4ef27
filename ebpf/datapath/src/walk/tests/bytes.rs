//! Whatever comes: no walk panics, and none lets a pod talk whose policy is not in force.

use proptest::prelude::*;

use super::*;
use crate::testing::{Fate, Hook};

/// Messages to begin with, that are then damaged.
fn messages(v6: bool) -> Vec<Frame> {
    let (pod, other) = (Node::pod(0, v6), Node::pod(1, v6));
    let mut long = udp((pod, CLIENT), (Node::vip(v6), 53));
    long.payload = std::vec![3; 100];
    let mut extended = long.clone();
    extended.options = std::vec![1; 8];
    extended.extensions = std::vec![(0, std::vec![0; 6]), (60, std::vec![0; 14]), (51, std::vec![0; 10])];
    let error = if v6 { (2, 0, 1280) } else { (3, 4, 1280) };
    let mut frames = std::vec![
        tcp((pod, CLIENT), (Node::vip(v6), 80), SYN).frame(),
        tcp((other, 8080), (pod, CLIENT), SYN_ACK).frame(),
        long.frame(),
        extended.frame(),
        Message::new(pod, other, L4::Sctp(1, 2)).frame(),
        Message::new(pod, other, L4::Ask(3)).frame(),
        Message::new(pod, other, L4::Other(47)).frame(),
        Message::new(pod, other, L4::Icmp(if v6 { 135 } else { 13 }, 0, 0)).frame(),
        Message::error(other, &long.frame(), error, 500).frame(),
        Message::error(Node::world(v6), &udp((Node::address(v6), 20_001), (Node::world(v6), 53)).frame(), error, 48)
            .frame(),
    ];
    frames.extend(extended.fragments(48, 1));
    frames
}

fn node(pending: bool, v6: bool) -> Node {
    let mut node = Node::new();
    node.service((Node::vip(v6), 80), TCP, &[(Node::pod(1, v6), 8080)]);
    node.service((Node::vip(v6), 53), UDP, &[(Node::pod(1, v6), 8080), (Node::world(v6), 53)]);
    for mut frame in messages(v6) {
        node.pod_sends(0, &mut frame);
    }
    if pending {
        node.host.peers.pods.values_mut().for_each(|pod| pod.word = 0);
    }
    node
}

fn bytes() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let any_bytes = proptest::collection::vec(any::<u8>(), 0..120);
    let any_ip = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..120)).prop_map(|(v6, mut rest)| {
        let mut bytes = std::vec![0; 12];
        bytes.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        if let Some(first) = rest.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        bytes.extend(rest);
        bytes
    });
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let damaged = (any::<bool>(), any::<prop::sample::Index>(), damage, any::<prop::sample::Index>()).prop_map(
        |(v6, which, damage, end)| {
            let frames = messages(v6);
            let mut bytes = which.get(&frames).bytes.clone();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if end.index(4) == 0 {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        },
    );
    (any::<bool>(), prop_oneof![1 => any_bytes, 1 => any_ip, 6 => damaged])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_a_walk_and_p40_none_get_past_a_pending_policy(
        (v6, bytes) in bytes(),
        pending: bool,
        linear in prop_oneof![Just(usize::MAX), 0..140_usize],
        ingress in prop_oneof![Just(0), Just(Node::UPLINK)],
        segment_size in prop_oneof![Just(0), any::<u32>()],
    ) {
        let mut node = node(pending, v6);
        node.host.linear = linear;
        let mark = node.host.config.mark;
        let frame = Frame { segment_size, ingress, mark, ..Frame::new(bytes) };
        for hook in [Hook::FromPod(0), Hook::ToPod(1), Hook::FromUplink(Node::UPLINK), Hook::ToUplink(Node::UPLINK)] {
            for frame in [frame.clone(), frame.clone().with_partial_checksum()] {
                let mut after = frame.clone();
                let fate = node.host.run(hook, &mut after);
                if matches!(hook, Hook::ToPod(_) | Hook::ToUplink(_)) {
                    prop_assert!(matches!(fate, Fate::Pass | Fate::Drop(_)), "{:?} {:?}", hook, fate);
                }
                if let Hook::FromPod(_) = hook {
                    prop_assert_ne!(fate, Fate::Pass);
                }
                // What is forwarded and had right checksums still has.
                if matches!(fate, Fate::ToPod(_) | Fate::ToNode(_) | Fate::Out | Fate::Stack) && Seen::of(&frame).is_ok() {
                    prop_assert_eq!(Seen::of(&after).err(), None, "{:?} {:02x?} {:02x?}", hook, &frame.bytes, &after.bytes);
                }
                if !pending {
                    continue;
                }
                match hook {
                    Hook::FromPod(_) | Hook::FromUplink(_) => {
                        // From outside to a service's backend outside: no pod has a say.
                        let passing = fate == Fate::Out && hook != Hook::FromPod(0);
                        let forwarded = matches!(fate, Fate::ToPod(_) | Fate::ToNode(_) | Fate::Out | Fate::Stack);
                        prop_assert!(passing || !forwarded, "{:?}", fate);
                    }
                    // What is no traffic of the pod's passes: ARP and neighbour discovery of the host.
                    Hook::ToPod(_) if fate == Fate::Pass => {
                        let ip = matches!(frame.bytes.get(12..14), Some([8, 0] | [0x86, 0xdd]));
                        let neighbour = Seen::of(&frame).is_ok_and(|seen| matches!(seen.icmp.0, 130..=137 | 143));
                        let unreadable = Seen::of(&frame).is_err();
                        prop_assert!(!ip || neighbour || unreadable, "{:02x?}", frame.bytes);
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_datapath_reads_a_packet_as_another_reader_does((_, bytes) in bytes()) {
        let frame = Frame::new(bytes);
        let Ok(seen) = Seen::of(&frame) else { return Ok(()) };
        let mut node = Node::new();
        node.host.run(Hook::FromUplink(Node::UPLINK), &mut frame.clone());
        let Some(tuple) = node.host.last_tuple() else { return Ok(()) };
        prop_assert_eq!((tuple.src, tuple.dst), (seen.src.into(), seen.dst.into()));
        prop_assert_eq!((tuple.sport.number(), tuple.dport.number()), (seen.sport, seen.dport));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whoever receives a frame that goes on behind its packet takes none of that for part of the packet.
    #[test]
    fn what_follows_a_packet_in_its_frame_decides_nothing(
        (_, bytes) in bytes(),
        kept: prop::sample::Index,
        trailers in [(); 2].map(|()| proptest::collection::vec(any::<u8>(), 60)),
    ) {
        // The packet is the first part of what it was, with its whole header.
        let v6 = bytes.get(12) == Some(&0x86);
        let header = if v6 { 40 } else { 20 };
        let Some(most) = bytes.len().checked_sub(14 + header) else { return Ok(()) };
        let kept = kept.index(most + 1);
        // Without a length it ends where its frame does.
        let (length, at) = if v6 { (kept.max(1), 18) } else { (header + kept, 16) };
        let mut packet = Frame::new(bytes);
        packet.bytes[at..at + 2].copy_from_slice(&(length as u16).to_be_bytes());
        packet.bytes.truncate(14 + header + kept);
        for hook in [Hook::FromPod(0), Hook::ToPod(1), Hook::FromUplink(Node::UPLINK), Hook::ToUplink(Node::UPLINK)] {
            let outcomes = trailers.each_ref().map(|trailer| {
                let mut node = node(false, v6);
                node.host.config.pickup_until = u32::MAX;
                let mut frame = packet.clone();
                frame.bytes.extend(trailer);
                let fate = match node.host.run(hook, &mut frame) {
                    Fate::Drop(_) => Fate::Ignore,
                    fate => fate,
                };
                (fate, node.host.flows.counts(), node.host.flows.fragments())
            });
            prop_assert_eq!(&outcomes[0], &outcomes[1], "{:?}", hook);
        }
    }
}
