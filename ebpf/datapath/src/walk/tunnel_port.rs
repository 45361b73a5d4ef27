//! The UDP port of the tunnel, which nodes alone send to.
//!
//! A node takes what comes there from another node's address for what that one sends. A pod's packet that leaves the cluster
//! has its node's address, and so has what a node passes on to a service's backend elsewhere. So neither goes to that port but
//! at a pod. It makes no difference whether the destination is known to be a node: nodes have addresses that their objects do
//! not name, and behind a network's own translation others lead to them.

use crate::WirePort;
use crate::kernel::Kernel;
use crate::packet::{Class, UDP};
use crate::peer::PeerFlags;
use crate::scratch::Walk;

/// Whether the flow that a packet would open ends at the tunnel's port, of what may be a node.
#[inline(always)]
pub(super) fn is_aimed_at<K: Kernel>(k: &K, w: &Walk) -> bool {
    let at_pod = w.to.flags & PeerFlags::POD != 0 && w.to.flags & PeerFlags::NODE == 0;
    !at_pod && is_of_tunnel(k, w, w.draft.target.dport)
}

/// Whether the answers of a flow that a packet would open would end there.
#[inline(always)]
pub(super) fn is_source<K: Kernel>(k: &K, w: &Walk) -> bool {
    is_of_tunnel(k, w, w.packet.tuple.sport)
}

/// Whether a port of a packet is the tunnel's.
#[inline(always)]
pub(super) fn is_of_tunnel<K: Kernel>(k: &K, w: &Walk, port: WirePort) -> bool {
    let is_udp = w.packet.proto == UDP && w.packet.class == Class::PORTS && port != WirePort::NONE;
    is_udp && k.config().is_some_and(|config| config.tunnel_port == port)
}
