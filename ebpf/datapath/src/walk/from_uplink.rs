//! What comes to the node from outside: tcx ingress of an uplink.

use super::Action;
use super::address::Whose;
use super::address::stage::look_up;
use super::backend::is_stale;
use super::deliver::{self, deliver};
use super::errors::Side;
use super::errors::stage::relate;
use super::inbound::Inbound;
use super::inbound::stage::open_inbound;
use super::opening::untag;
use super::outside::is_aside;
use super::outside::stage::open_from_outside;
use super::tunnel_port;
use crate::WirePort;
use crate::config::Config;
use crate::drop::DropReason;
use crate::flow::stage::forget;
use crate::flow::{self, At, FlowFlags, FragmentKey, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::stage::parse;
use crate::packet::{Class, Fragment};
use crate::peer::{NO_NODE, NO_SLOT, Peer, PeerFlags};
use crate::scratch::Walk;
use crate::service::{FrontendFlags, FrontendKey, service_port};

stages! {
    fn let_past(never: u32) -> Action, as LetPast;
}

/// The walk of a packet from outside. What is not for a pod is the host's, whatever it looks like.
#[inline(always)]
pub fn from_uplink<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(config) = k.config() else { return Action::PASS };
    let action = untag(k, Action::PASS);
    if !action.goes_on() {
        return action;
    }
    match parse(k, w, ether_type) {
        Ok(()) if w.packet.class != Class::NEIGHBOUR => arrived(k, w, config),
        // The node itself might read on: as whom it comes, nobody would have looked at.
        Err(DropReason::ExtensionHeaders) => Action::drop(DropReason::ExtensionHeaders),
        // So would it, once it has the rest: nobody sends so little of a header (RFC 1858 section 3).
        Err(DropReason::Malformed) if w.packet.fragment == Fragment::FIRST => Action::drop(DropReason::Malformed),
        Ok(()) | Err(_) => Action::PASS,
    }
}

/// The rest of the walk, of a packet whose headers are read.
#[inline(always)]
pub(super) fn arrived<K: Kernel>(k: &K, w: &mut Walk, config: &Config) -> Action {
    let sender = sender(k, w, config.seed);
    let fragment_known = flow::resolve_fragment(k, &mut w.packet, sender);
    let dst = w.packet.tuple.dst;
    let to_node = dst == config.address_like(dst);
    if to_node && !fragment_known {
        return stage::let_past(k, w, 0);
    }
    if !fragment_known {
        look_up(k, w, Whose::Destination);
        return if w.found.slot != NO_SLOT {
            Action::drop(DropReason::Fragment)
        } else {
            stage::let_past(k, w, PeerFlags::SELF)
        };
    }
    if w.packet.class == Class::ERROR {
        let action = relate(k, w, Side::FromUplink, NO_SLOT);
        if !action.goes_on() {
            return deliver(k, w, action);
        }
    }
    let mut action = Action::GO_ON;
    if let Some(place) = flow::find(k, w, At::Ingress) {
        action = known(k, w, place);
    }
    if action.goes_on() && (!to_node || may_be_for_a_service(k, w)) {
        action = open_from_outside(k, w);
    }
    if action.goes_on() {
        if to_node {
            return stage::let_past(k, w, 0);
        }
        if is_aside(k) {
            // Pods elsewhere come in where other nodes are. The stack, which has the packet next, does not ask.
            return stage::let_past(k, w, PeerFlags::POD);
        }
        look_up(k, w, Whose::Destination);
        let slot = w.found.slot;
        if slot == NO_SLOT {
            return stage::let_past(k, w, PeerFlags::SELF);
        }
        action = open_inbound(k, w, slot, Inbound::Uplink);
    }
    deliver(k, w, action)
}

/// Whose places a packet's datagram has, of one in fragments.
#[inline(always)]
fn sender<K: Kernel>(k: &K, w: &mut Walk, seed: u32) -> u32 {
    if w.packet.fragment == Fragment::NONE {
        return 0;
    }
    look_up(k, w, Whose::Source);
    let source = w.packet.tuple.src;
    let is_pod = w.found.flags & PeerFlags::POD != 0;
    if is_pod { FragmentKey::from_elsewhere(seed, source) } else { FragmentKey::from_outside(seed, source) }
}

/// What is the stack's business, unless it says that it comes from a pod of this node: to the node that would be in the middle of
/// what the two say to each other. Or from a service: what the node answered would be taken for what it asks that service
/// ([`super::to_services()`]). `never`: [`PeerFlags`] of sources that do not come in either; `POD` is about pods elsewhere.
#[inline(always)]
fn let_past<K: Kernel>(k: &K, w: &mut Walk, never: u32) -> Action {
    look_up(k, w, Whose::Source);
    let Peer { slot, node, flags, .. } = w.found;
    // Those of another network that this node has as well may come in here.
    let is_elsewhere = flags & PeerFlags::POD == 0 || node != NO_NODE;
    let comes_in = slot == NO_SLOT && flags & PeerFlags::RACED == 0 && !(flags & never != 0 && is_elsewhere);
    if comes_in && !is_of_service(k, w) { Action::PASS } else { Action::drop(DropReason::LocalAddress) }
}

/// Whether the source of a packet is an address and port of a service that the cluster gives out itself.
#[inline(always)]
fn is_of_service<K: Kernel>(k: &K, w: &Walk) -> bool {
    let (t, proto) = (&w.packet.tuple, w.packet.proto);
    if !is_port_of_services(k, t.sport, proto) {
        return false;
    }
    let key = FrontendKey::new(t.src, t.sport, proto);
    k.frontend(&key).is_some_and(|frontend| !frontend.is_of(key.tag()) || frontend.flags & FrontendFlags::CLUSTER != 0)
}

/// Whether a packet to the node itself may be for a service.
#[inline(always)]
fn may_be_for_a_service<K: Kernel>(k: &K, w: &Walk) -> bool {
    is_port_of_services(k, w.packet.tuple.dport, w.packet.proto)
}

/// Whether a port is one of any service.
#[inline(always)]
fn is_port_of_services<K: Kernel>(k: &K, port: WirePort, proto: u8) -> bool {
    service_port(port, proto).is_some_and(|(index, bit)| k.service_ports(index) & bit != 0)
}

/// A packet of a flow that is known. The walk goes on if it is to open a new one, or is neither for a pod nor of a service.
#[inline(always)]
fn known<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Action {
    let (flow, forward) = (&w.met, place.forward);
    let (sender, receiver) = flow.ends(forward);
    let service = flow.is(FlowFlags::OUTSIDE);
    // What was translated for the node itself goes back to it.
    let to_node = !forward && flow.is(FlowFlags::FROM_NODE) && flow.is(FlowFlags::FAR);
    let gone = deliver::is_gone(w);
    if receiver.slot == NO_SLOT && !service && !to_node && !gone {
        return Action::GO_ON;
    }
    // An end that is on this node does not come in from outside: a pod, the node that opened the flow, or its process that
    // answers as a service.
    let of_node = if forward { flow.is(FlowFlags::FROM_NODE) } else { service && flow.is(FlowFlags::STACK) };
    if sender.slot != NO_SLOT || of_node {
        return Action::GO_ON;
    }
    if gone {
        return deliver::to_nobody(k, w, place);
    }
    if service && ((forward && is_stale(k, w, place)) || tunnel_port::is_met(k, w, place)) {
        forget(k, w, place.table);
        return Action::GO_ON;
    }
    // What goes straight to a pod by an interface that nodes are not reached by is the stack's business, and judged at the pod.
    if !w.met.is(FlowFlags::NEAR | FlowFlags::FAR | FlowFlags::OUTSIDE | FlowFlags::STACK) && is_aside(k) {
        return Action::GO_ON;
    }
    // What is for another plugin's pod goes the way that the stack has for it, and is translated at the pod.
    if !w.met.is(FlowFlags::OUTSIDE) && receiver.slot != NO_SLOT && k.host_side(receiver.slot) != 0 {
        return Action::GO_ON;
    }
    deliver::follow(k, w, place)
}
