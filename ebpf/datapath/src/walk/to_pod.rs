//! What the host's stack sends to a pod: tcx egress of the host side of its veth.

use super::address::{check_destination, is_broadcast};
use super::errors::Side;
use super::errors::stage::relate;
use super::give_way::is_marked;
use super::inbound::stage::{came_by_nodes, open_inbound};
use super::inbound::{Inbound, came_from};
use super::limit::{Passage, may_pass};
use super::neighbour::is_between_neighbours;
use super::{Action, deliver, give_way, judge};
use crate::drop::DropReason;
use crate::flow::stage::forget;
use crate::flow::{self, At, FlowFlags, FragmentKey, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::stage::parse;
use crate::packet::{Class, ETH_P_ARP, Fragment};
use crate::peer::{NO_NODE, NO_SLOT, PodWord, is_foreign, slot_at};
use crate::scratch::Walk;

stages! {
    fn let_in(slot: u16) -> Action, as LetIn;
}

/// The walk of a packet that the stack sends to a pod. `ether_type` as on the wire.
#[inline(always)]
pub fn to_pod<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(slot) = slot_at(k, k.ifindex()) else { return Action::PASS };
    match parse(k, w, ether_type) {
        Ok(()) => {}
        // ARP of the host for the pod. A bridge has more to pass on.
        Err(DropReason::NotIp) if ether_type == ETH_P_ARP || !is_foreign(k.ifindex()) => return Action::PASS,
        Err(reason) => return Action::drop(reason),
    }
    // Of the host, or of a neighbour on a bridge: what came from further away only looks like it.
    if w.packet.class == Class::NEIGHBOUR {
        return if is_between_neighbours(&w.packet) { Action::PASS } else { Action::drop(DropReason::Malformed) };
    }
    if is_foreign(k.ifindex()) && !is_for(k, w, slot) {
        return Action::IGNORE;
    }
    if !flow::resolve_fragment(k, &mut w.packet, FragmentKey::to_pod(slot)) {
        return Action::drop(DropReason::Fragment);
    }
    let action = enter(k, w, slot);
    if action.delivers() { stage::let_in(k, w, slot) } else { action }
}

/// Whether a packet at the interface of another plugin's pod is for that pod, or for a group. A bridge shows its ports also what
/// is for others, when it does not know where those are.
#[inline(always)]
fn is_for<K: Kernel>(k: &K, w: &Walk, slot: u16) -> bool {
    let dst = w.packet.tuple.dst;
    let Some(pod) = k.pod(slot) else { return false };
    let v6 = w.packet.v6 == 1;
    let is_group = matches!(check_destination(dst, v6), Err(DropReason::Multicast)) || is_broadcast(k, dst, v6);
    dst == pod.v4 || dst == pod.v6 || is_group
}

/// Gives a packet the tuple that was noted for it, if one was, and lets it into the pod if that is within its limit.
#[inline(always)]
fn let_in<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    judge::count_made(k, w);
    if !deliver::translate(k, w) {
        return Action::drop(DropReason::Rewrite);
    }
    if may_pass(k, w, slot, Passage::Received) { Action::PASS } else { Action::drop(DropReason::Bandwidth) }
}

/// The rest of the walk, of a packet whose headers are read.
#[inline(always)]
fn enter<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    if PodWord(k.pod_word(slot)).is_pending() {
        return Action::drop(DropReason::Pending);
    }
    if w.packet.class == Class::ERROR {
        let action = relate(k, w, Side::ToPod, slot);
        if !action.goes_on() {
            return action;
        }
    }
    let how = origin(k, w);
    if how == Inbound::Node {
        let action = give_way::leave(k, w, slot);
        if action != Action::PASS {
            return action;
        }
    }
    if let Some(place) = flow::find(k, w, At::EgressPod) {
        let action = known(k, w, slot, place);
        if !action.goes_on() {
            return action;
        }
    }
    open_inbound(k, w, slot, how)
}

/// A packet of a flow that is known. The walk goes on if it is to open a new one.
#[inline(always)]
fn known<K: Kernel>(k: &K, w: &mut Walk, slot: u16, place: Place) -> Action {
    let (sender, receiver) = w.met.ends(place.forward);
    if receiver.slot != slot {
        forget(k, w, place.table);
        return Action::GO_ON;
    }
    // An end that is on this node comes from where it is: a pod by its interface, the node itself from nowhere. One that is on another
    // comes in where nodes are.
    // But IPv6 fragments of what it asks of a service, which have been found to be its own where they were translated.
    let is_of_service = w.met.is_of_svc() && is_marked(k) && k.ingress_ifindex() == 0;
    let of_node = place.forward && w.met.is(FlowFlags::FROM_NODE) && !is_of_service;
    if (sender.slot != NO_SLOT && !came_from(k, w, sender.slot))
        || (sender.node != NO_NODE && !came_by_nodes(k, w))
        || (of_node && origin(k, w) != Inbound::Node)
    {
        return Action::GO_ON;
    }
    if deliver::is_gone(w) {
        // Who sends now in the name of a pod that is gone is somebody else.
        let action = deliver::to_nobody(k, w, place);
        return if action.goes_on() { action } else { Action::drop(DropReason::Gone) };
    }
    deliver::follow(k, w, place)
}

/// How a packet got here. The node's own is known by having come in nowhere: a source address proves nothing. IPv6
/// fragments that the stack makes of a packet it forwards look the same, so they are judged.
#[inline(always)]
fn origin<K: Kernel>(k: &K, w: &Walk) -> Inbound {
    let made_here = k.ingress_ifindex() == 0 && !(w.packet.v6 == 1 && w.packet.fragment != Fragment::NONE);
    if made_here { Inbound::Node } else { Inbound::Forwarded }
}
