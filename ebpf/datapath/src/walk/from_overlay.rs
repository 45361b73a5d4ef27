//! What comes from other nodes through the tunnel: tcx ingress of the node's VXLAN device, its outer headers gone.

use super::address::Whose;
use super::address::stage::look_up;
use super::opening::untag;
use super::{Action, from_uplink};
use crate::drop::DropReason;
use crate::kernel::Kernel;
use crate::overlay::{Outer, VNI};
use crate::packet::Class;
use crate::packet::stage::parse;
use crate::peer::{Peer, PeerFlags};
use crate::scratch::Walk;

/// The walk of a packet that came through the tunnel. Anybody who reaches the node can send it such packets, so only what
/// is behind a node that is reached through the tunnel, or is that node, comes in from that node's address. Where no node is
/// reached so, nothing does. The agent says which nodes those are: also some that were until a short time ago, since nodes
/// change their ways one after the other. What comes in is as good as what comes by an uplink.
#[inline(always)]
pub fn from_overlay<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(outer) = k.outer() else { return Action::drop(DropReason::Tunnel) };
    let action = untag(k, Action::drop(DropReason::Tunnel));
    if !action.goes_on() {
        return action;
    }
    if let Err(reason) = parse(k, w, ether_type) {
        return Action::drop(reason);
    }
    look_up(k, w, Whose::Source);
    if w.found.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    // Nobody asks for MACs here.
    if w.packet.class == Class::NEIGHBOUR || outer.vni != VNI {
        return Action::drop(DropReason::Tunnel);
    }
    if let Err(reason) = check_sender(k, &w.found, &outer) {
        return Action::drop(reason);
    }
    let Some(config) = k.config() else { return Action::drop(DropReason::Tunnel) };
    from_uplink::arrived(k, w, config)
}

/// The node that an address is behind, or is, has to be the one that sent the packet, and one that sends this way.
#[inline(always)]
fn check_sender<K: Kernel>(k: &K, source: &Peer, outer: &Outer) -> Result<(), DropReason> {
    // What is unspecified in a record is no address that a packet comes from.
    let Some(hop) = k.node(source.node).filter(|hop| hop.v4 == outer.remote || hop.v6 == outer.remote) else {
        return Err(DropReason::TunnelSource);
    };
    // The agent takes away what has ended. Until it does, the end holds by itself.
    let lasts = hop.sends_until().is_none_or(|end| k.seconds() < end);
    if hop.sends() && lasts { Ok(()) } else { Err(DropReason::Tunnel) }
}
