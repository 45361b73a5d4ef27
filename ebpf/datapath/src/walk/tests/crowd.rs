//! One who sends as much as he can, and others who keep what is theirs.

use std::net::IpAddr;
use std::vec::Vec;

use super::{CLIENT, dropped, udp};
use crate::drop::DropReason;
use crate::flow::{FragmentKey, MAX_FRAGMENTS};
use crate::testing::{Landed, Message, Node};

/// A datagram in three pieces.
fn large(from: IpAddr, to: IpAddr) -> Message {
    let mut message = udp((from, CLIENT), (to, 53));
    message.payload = std::vec![7; 100];
    message
}

#[test]
fn s47_first_fragments_of_a_flooder_overwrite_nobody_elses() {
    for v6 in [false, true] {
        let mut node = Node::new();
        let (flooder, quiet) = (Node::pod(0, v6), Node::pod(1, v6));
        let mut mine = large(quiet, flooder).fragments(48, 1);
        assert_eq!(node.pod_sends(1, &mut mine[0]), Landed::Pod(0));
        let own = large(flooder, quiet);
        let mut first = own.fragments(48, 1);
        assert_eq!(node.pod_sends(0, &mut first[0]), Landed::Pod(1));
        for id in 2..1000 {
            assert_eq!(node.pod_sends(0, &mut own.fragments(48, id)[0]), Landed::Pod(1));
        }
        assert_eq!(node.host.flows.fragments(), 1 + FragmentKey::PLACES as usize);
        assert_eq!(node.pod_sends(0, &mut first[1]), dropped(DropReason::Fragment), "the flooder loses his own");

        // Outside, with the addresses of everybody, and of the quiet pod.
        for n in 0..2500_u16 {
            let [high, low] = n.to_be_bytes();
            let source = if v6 { IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, 1]) } else { [198, high, low, 1].into() };
            let source = if n % 8 == 0 { quiet } else { source };
            node.arrives(&mut large(source, flooder).fragments(48, n)[0]);
        }
        // Some of it goes by way of the host's stack, which has places for each receiver.
        let most = 1 + FragmentKey::PLACES * (2 + FragmentKey::NETWORKS + FragmentKey::GROUPS);
        assert!(most < MAX_FRAGMENTS / 2);
        let count = node.host.flows.fragments();
        assert!(count <= most as usize, "{count} elements");
        for piece in &mut mine[1..] {
            assert_eq!(node.pod_sends(1, piece), Landed::Pod(0));
        }
    }
}

#[test]
fn s47_first_fragments_of_a_pod_elsewhere_overwrite_no_other_pods() {
    for v6 in [false, true] {
        let (mut node, own, flooder) = (Node::new(), Node::pod(1, v6), Node::far_pod(v6));
        // Neighbours of the flooder, on the same node: few of them share his places.
        let neighbour = |n: u8| match flooder {
            IpAddr::V4(_) => IpAddr::from([10, 244, 2, 100 + n]),
            IpAddr::V6(at) => IpAddr::from((u128::from(at) + 1 + u128::from(n)).to_be_bytes()),
        };
        let mut waiting: Vec<_> = (0..40).map(|n| large(neighbour(n), own).fragments(48, 1)).collect();
        for pieces in &mut waiting {
            assert_eq!(node.arrives(&mut pieces[0]), Landed::Pod(1));
        }
        for id in 2..1000 {
            assert_eq!(node.arrives(&mut large(flooder, own).fragments(48, id)[0]), Landed::Pod(1));
        }
        let lost =
            waiting.iter_mut().filter_map(|pieces| (node.arrives(&mut pieces[1]) != Landed::Pod(1)).then_some(()));
        assert!(lost.count() <= 3);
    }
}
