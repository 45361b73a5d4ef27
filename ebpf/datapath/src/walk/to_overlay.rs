//! What the host's stack sends to other nodes through the tunnel: tcx egress of the node's VXLAN device. What a process of
//! the node answers as a service's backend gets the service's address back. Packets that a program sends there pass as they
//! are.

use super::address::stage::look_up;
use super::address::{Whose, check_destination};
use super::{Action, answer, give_way};
use crate::drop::DropReason;
use crate::kernel::Kernel;
use crate::overlay::SENDER;
use crate::packet::Macs;
use crate::packet::stage::parse;
use crate::peer::{NO_NODE, NO_SLOT, PeerFlags};
use crate::scratch::Walk;

/// The walk of a packet that leaves by the tunnel. It ends in the node that it goes to, which the stack does not know: its
/// routes say only that it is this way.
#[inline(always)]
pub fn to_overlay<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    if k.load::<Macs>(0).is_some_and(|macs| macs.src == SENDER) {
        return Action::PASS;
    }
    // The kernel talks about groups and neighbours on any device.
    if parse(k, w, ether_type).is_err() {
        return Action::IGNORE;
    }
    let (dst, v6) = (w.packet.tuple.dst, w.packet.v6 == 1);
    if check_destination(dst, v6).is_err() {
        return Action::IGNORE;
    }
    if answer::may_be_one(k) {
        let action = answer::turn_back(k, w);
        if action != Action::PASS {
            return action;
        }
    }
    if k.ingress_ifindex() == 0 {
        let action = give_way::leave(k, w, NO_SLOT);
        if action != Action::PASS && !action.delivers() {
            return action;
        }
    }
    look_up(k, w, Whose::Destination);
    if w.found.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    // Also if the programs take another way to it: routes and tables do not change at once.
    if w.found.node == NO_NODE { Action::drop(DropReason::NoSuchNode) } else { Action::to_node(w.found.node, v6) }
}
