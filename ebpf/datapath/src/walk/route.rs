//! Where an address is.

use crate::flow::End;
use crate::kernel::Kernel;
use crate::peer::{NO_NODE, NO_SLOT, Peer, PeerFlags};
use crate::scratch::Walk;

/// The route to an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) end: End,
    /// The node itself is the destination.
    pub(super) own: bool,
    /// Out of the cluster.
    pub(super) leaves: bool,
    /// Out of the cluster, and with an address of the node.
    pub(super) masquerade: bool,
}

/// The route to the responder, or an error if it would be a pod and there is none.
#[inline(always)]
pub(super) fn route_to<K: Kernel>(k: &K, w: &Walk) -> Result<Route, ()> {
    let to = &w.to;
    let end = end_of(k, to, w.packet.v6 == 1);
    let own = to.flags & PeerFlags::SELF != 0;
    let nowhere = end.slot == NO_SLOT && end.node == NO_NODE;
    if nowhere && !own && to.flags & PeerFlags::POD != 0 {
        return Err(());
    }
    let leaves = nowhere && !own && to.flags & PeerFlags::NODE == 0;
    Ok(Route { end, own, leaves, masquerade: leaves && to.flags & PeerFlags::KEEP_SOURCE == 0 })
}

/// The end of a flow that an address is. A node itself is reached by the host's stack, unless what goes to that node goes
/// through the tunnel: then its network need not know of pods' addresses.
#[inline(always)]
pub(super) fn end_of<K: Kernel>(k: &K, peer: &Peer, v6: bool) -> End {
    let by_stack = peer.flags & PeerFlags::NODE != 0 && !k.node(peer.node).is_some_and(|hop| hop.is_tunnelled(v6));
    End { slot: peer.slot, node: if by_stack { NO_NODE } else { peer.node } }
}
