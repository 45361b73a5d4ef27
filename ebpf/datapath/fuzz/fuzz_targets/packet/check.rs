//! What must hold for any packets, one after the other.
//!
//! An input is a row of packets: a byte of [`Manner`], a byte with the length of the IP packet, and the packet itself.

use fairlead_datapath::overlay::{Outer, VNI};
use fairlead_datapath::policy::ALLOW_ALL;
use fairlead_datapath::testing::{Fate, Frame, Hook, Node, Seen};

/// The pod that has no policy in force.
const PENDING: u16 = 2;

/// Bits of the byte before a packet. The lowest two are the hook.
struct Manner;

impl Manner {
    const V6: u8 = 4;
    /// The checksum is still to be completed, if it is one that can be.
    const PARTIAL: u8 = 8;
    /// The node made the packet. What comes in comes through the tunnel.
    const MADE_HERE: u8 = 16;
    /// It is of, or for, the pod without a policy in force. What leaves the node is for a service.
    const PENDING: u8 = 32;
    /// Forty seconds pass before.
    const LATER: u8 = 64;
    /// Policy moves before.
    const POLICED: u8 = 128;
}

/// Nothing panics, no pod without a policy in force gets or sends anything, what a pod sends is judged, and what had
/// right checksums still has.
///
/// # Panics
/// When one of these doesn't hold.
pub(crate) fn check(mut packets: &[u8]) {
    let mut node = node();
    while let [manner, length, rest @ ..] = packets {
        let (packet, after) = rest.split_at(rest.len().min(usize::from(*length)));
        run(&mut node, *manner, packet);
        packets = after;
    }
}

fn node() -> Node {
    let mut node = Node::new();
    for v6 in [false, true] {
        for proto in [6, 17] {
            node.service((Node::vip(v6), 80), proto, &[(Node::pod(1, v6), 8080), (Node::world(v6), 80)]);
            node.service((Node::other_vip(v6), 80), proto, &[(Node::pod(0, v6), 8080)]);
        }
    }
    node.host.peers.pods.get_mut(&PENDING).expect("a pod").word = 0;
    node
}

fn run(node: &mut Node, manner: u8, packet: &[u8]) {
    let is = |bit| manner & bit != 0;
    if is(Manner::LATER) {
        node.host.now += 40;
    }
    if is(Manner::POLICED) {
        node.police(0, ALLOW_ALL, ALLOW_ALL);
    }
    let (from, to) = if is(Manner::PENDING) { (PENDING, PENDING) } else { (0, 1) };
    let hook = match manner & 3 {
        0 => Hook::FromPod(from),
        1 => Hook::ToPod(to),
        2 if is(Manner::MADE_HERE) => Hook::FromOverlay,
        2 => Hook::FromUplink(Node::UPLINK),
        _ if is(Manner::PENDING) => Hook::ToServices,
        _ => Hook::ToUplink(Node::UPLINK),
    };
    let ether_type: [u8; 2] = if is(Manner::V6) { [0x86, 0xdd] } else { [8, 0] };
    let mut frame = Frame::new([&[2; 12], &ether_type[..], packet].concat());
    frame.mark = if hook == Hook::ToServices { 0 } else { node.host.config.mark };
    frame.ingress = if is(Manner::MADE_HERE) { 0 } else { Node::UPLINK };
    frame.outer = Some(Outer { remote: Node::other_node(false).into(), vni: VNI });
    if is(Manner::PARTIAL) {
        frame = frame.with_partial_checksum();
    }
    let before = frame.clone();
    let fate = node.host.run(hook, &mut frame);
    let forwarded = matches!(fate, Fate::ToPod(_) | Fate::ToNode(_) | Fate::Out | Fate::Stack | Fate::Home);
    match hook {
        Hook::FromPod(slot) => {
            assert_ne!(fate, Fate::Pass, "what a pod sends is judged");
            assert!(slot != PENDING || !forwarded, "{fate:?} without a policy in force");
        }
        Hook::ToPod(_) | Hook::ToUplink(_) => {
            assert!(matches!(fate, Fate::Pass | Fate::Drop(_)), "{fate:?} on its way out");
        }
        Hook::ToServices => assert!(!matches!(fate, Fate::Pass | Fate::Stack), "{fate:?} of what goes to a service"),
        Hook::FromUplink(_) | Hook::FromOverlay | Hook::ToOverlay => {}
    }
    assert_ne!(fate, Fate::ToPod(PENDING), "a pod without a policy in force got a packet");
    if (forwarded || fate == Fate::Pass) && Seen::of(&before).is_ok() {
        assert_eq!(Seen::of(&frame).err(), None, "{hook:?} {:02x?} {:02x?}", before.bytes, frame.bytes);
    }
}
