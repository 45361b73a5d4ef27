//! Where an address is.

use crate::Addr;
use crate::flow::End;
use crate::kernel::Kernel;
use crate::peer::{NO_NODE, NO_SLOT, Peer, PeerFlags};
use crate::scratch::{Route, RouteFlags, Walk};

impl Route {
    /// Whether any of these [`RouteFlags`] is set.
    #[inline(always)]
    pub(super) const fn is(self, flags: u32) -> bool {
        self.flags & flags != 0
    }
}

/// The route to the responder (in `w.ends`, and what is known of it in `w.to`), or an error if it would be a pod and there is none.
#[inline(always)]
pub(super) fn route_to<K: Kernel>(k: &K, w: &mut Walk) -> Result<Route, ()> {
    let to = &w.to;
    let end = end_of(k, to, w.packet.v6 == 1);
    let mut flags = 0;
    let elsewhere = end.slot == NO_SLOT && end.node == NO_NODE;
    // The Node object does not name every address of the node.
    if to.flags & PeerFlags::SELF != 0 || (elsewhere && is_of_node(k, w.ends.responder)) {
        flags = RouteFlags::OWN;
    } else if elsewhere {
        if to.flags & PeerFlags::POD != 0 {
            return Err(());
        }
        if to.flags & PeerFlags::NODE == 0 {
            flags = RouteFlags::LEAVES;
            if to.flags & PeerFlags::KEEP_SOURCE == 0 {
                flags |= RouteFlags::MASQUERADE;
            }
        }
    }
    w.route = Route { end, flags };
    Ok(k.reread(&w.route))
}

/// Whether an address is one that the node has, whether or not others know of it.
#[inline(always)]
pub(super) fn is_of_node<K: Kernel>(k: &K, addr: Addr) -> bool {
    k.node_address(&addr) != 0 || k.config().is_some_and(|config| config.address_like(addr) == addr)
}

/// The end of a flow that an address is. A node itself is reached by the host's stack, unless what goes to that node goes
/// through the tunnel: then its network need not know of pods' addresses.
#[inline(always)]
pub(super) fn end_of<K: Kernel>(k: &K, peer: &Peer, v6: bool) -> End {
    let by_stack = peer.flags & PeerFlags::NODE != 0 && !k.node(peer.node).is_some_and(|hop| hop.is_tunnelled(v6));
    End { slot: peer.slot, node: if by_stack { NO_NODE } else { peer.node } }
}
