//! The UDP port of the tunnel, which nodes alone send to.
//!
//! A node takes what comes there from another node's address for what that one sends. A pod's packet that leaves the cluster
//! has its node's address, and so has what a node passes on to a service's backend elsewhere. So neither goes to that port but
//! at a pod. It makes no difference whether the destination is known to be a node: nodes have addresses that their objects do
//! not name, and behind a network's own translation others lead to them.

use super::address::Whose;
use super::address::stage::look_up;
use crate::WirePort;
use crate::flow::{FlowFlags, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::{Class, UDP};
use crate::peer::{Peer, PeerFlags};
use crate::scratch::Walk;

stages! {
    fn met_tunnel(place: Place) -> bool, as MetTunnel;
}

/// Whether the flow that a packet would open ends at the tunnel's port, of what may be a node.
#[inline(always)]
pub(super) fn is_aimed_at<K: Kernel>(k: &K, w: &Walk) -> bool {
    !is_pods(&w.to) && is_of_tunnel(k, w, w.draft.target.dport)
}

/// Whether the answers of a flow that a packet would open would end there.
#[inline(always)]
pub(super) fn is_source<K: Kernel>(k: &K, w: &Walk) -> bool {
    is_of_tunnel(k, w, w.packet.tuple.sport)
}

/// Whether a packet of the flow in `w.met` ends at the tunnel's port of what may be a node, or leads its answers there with a
/// node's address: the flow began when the port was none of the tunnel's.
#[inline(always)]
pub(super) fn is_met<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> bool {
    if w.packet.proto != UDP {
        return false;
    }
    let port = k.config().map_or(WirePort::NONE, |config| config.tunnel_port);
    let (t, other) = (&w.packet.tuple, &w.met.other);
    port != WirePort::NONE
        && (t.sport == port || t.dport == port || other.sport == port || other.dport == port)
        && stage::met_tunnel(k, w, place)
}

/// The same, of a datagram that has to do with the port.
#[inline(always)]
fn met_tunnel<K: Kernel>(k: &K, w: &mut Walk, Place { forward, .. }: Place) -> bool {
    let (flow, t) = (&w.met, if forward { w.packet.tuple } else { w.packet.tuple.reversed() });
    // The opener's port is another's where the source is translated.
    let client = if flow.is(FlowFlags::FAR) { flow.other.sport } else { t.sport };
    if flow.is(FlowFlags::OUTSIDE) && is_of_tunnel(k, w, client) {
        return true;
    }
    let (dst, port) = if flow.is(FlowFlags::NEAR) { (flow.other.dst, flow.other.dport) } else { (t.dst, t.dport) };
    if !forward || !is_of_tunnel(k, w, port) {
        return false;
    }
    w.ends.responder = dst;
    look_up(k, w, Whose::Responder);
    w.found.flags & PeerFlags::RACED == 0 && !is_pods(&w.found)
}

/// Whether an address is a pod's and no node's.
#[inline(always)]
const fn is_pods(peer: &Peer) -> bool {
    peer.flags & PeerFlags::POD != 0 && peer.flags & PeerFlags::NODE == 0
}

/// Whether a port of a packet is the tunnel's.
#[inline(always)]
fn is_of_tunnel<K: Kernel>(k: &K, w: &Walk, port: WirePort) -> bool {
    let is_udp = w.packet.proto == UDP && w.packet.class == Class::PORTS && port != WirePort::NONE;
    is_udp && k.config().is_some_and(|config| config.tunnel_port == port)
}
