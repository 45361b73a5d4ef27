//! What a pod sends: tcx ingress of the host side of its veth.
//!
//! A pod that another plugin has wired is judged and led to Services like any other. But its packets go their own way, whatever it
//! is (a bridge, routes): only what is translated for a pod of this node is handed over here, since the answers come back here.

use super::Action;
use super::address::stage::look_up;
use super::address::{Whose, check_destination, is_broadcast, is_gateway};
use super::backend::is_stale;
use super::backend::stage::choose_backend;
use super::deliver::{self, deliver};
use super::dns;
use super::errors::Side;
use super::errors::stage::relate;
use super::judge;
use super::neighbour::stage::answer_neighbour;
use super::neighbour::{is_between_neighbours, may_be_from};
use super::opening::{Opening, begins, tables_are_new, untag};
use super::route::route_to;
use super::tunnel_port;
use crate::Addr;
use crate::drop::DropReason;
use crate::flow::stage::{create, forget};
use crate::flow::{self, At, End, FlowFlags, FlowState, FragmentKey, NO_BACKEND, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::stage::parse;
use crate::packet::{Class, ETH_P_ARP, IcmpError, Packet};
use crate::peer::{NO_NODE, NO_SLOT, PeerFlags, Pod, PodWord, is_foreign, slot_at};
use crate::scratch::{Ends, RouteFlags, Walk, Way};
use crate::service::From;

stages! {
    fn open_from_pod(slot: u16) -> Action, as OpenFromPod;
}

/// The walk of a packet that a pod sent. `ether_type` as on the wire.
#[inline(always)]
pub fn from_pod<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(slot) = slot_at(k, k.ifindex()) else { return Action::PASS };
    let Some(pod) = k.pod(slot) else { return Action::drop(DropReason::Pending) };
    let action = untag(k, Action::drop(DropReason::Vlan));
    if !action.goes_on() {
        return action;
    }
    if ether_type == ETH_P_ARP {
        return if is_foreign(k.ifindex()) { Action::PASS } else { answer_neighbour(k, w, slot, true) };
    }
    if let Err(reason) = parse(k, w, ether_type) {
        return Action::drop(reason);
    }
    if w.packet.class == Class::NEIGHBOUR {
        return if is_foreign(k.ifindex()) { discovery(&w.packet, pod) } else { answer_neighbour(k, w, slot, false) };
    }
    let action = check_addresses(&w.packet, pod, is_foreign(k.ifindex()));
    if !action.goes_on() {
        return action;
    }
    if !flow::resolve_fragment(k, &mut w.packet, FragmentKey::of_pod(slot)) {
        return Action::drop(DropReason::Fragment);
    }
    let word = PodWord(k.pod_word(slot));
    if word.is_pending() {
        return Action::drop(DropReason::Pending);
    }
    if w.packet.class == Class::ERROR {
        let action = relate(k, w, Side::FromPod, slot);
        if !action.goes_on() {
            return deliver(k, w, action);
        }
    }
    let mut action = Action::GO_ON;
    if let Some(place) = flow::find(k, w, At::Ingress) {
        action = known(k, w, slot, place);
    }
    if action.goes_on() {
        action = stage::open_from_pod(k, w, slot);
    }
    if action.delivers() && dns::is_asked(w) {
        action = dns::answer_in_flow(k, w);
    }
    if action.delivers() && is_foreign(k.ifindex()) && k.reread(&w.way.translate) == 0 {
        judge::count_made(k, w);
        return Action::PASS;
    }
    deliver(k, w, action)
}

/// Neighbour and listener discovery of another plugin's pod stays on the network of that.
#[inline(always)]
fn discovery(p: &Packet, pod: &Pod) -> Action {
    if !is_between_neighbours(p) {
        return Action::drop(DropReason::Malformed);
    }
    if may_be_from(p, pod.v6) { Action::PASS } else { Action::drop(DropReason::SourceAddress) }
}

/// A pod sends from its own addresses, to where a router would forward. What goes to a group stays on the network of another
/// plugin, where it is judged like anything else (`at_foreign`).
#[inline(always)]
fn check_addresses(p: &Packet, pod: &Pod, at_foreign: bool) -> Action {
    let (src, dst) = (p.tuple.src, p.tuple.dst);
    let own = if p.v6 == 1 { pod.v6 } else { pod.v4 };
    let foreign = src != own || own == Addr::UNSPECIFIED;
    match check_destination(dst, p.v6 == 1) {
        // Discovery of routers, groups and leases goes to multicast from an address that is none: nobody's business.
        Err(_) if foreign => Action::IGNORE,
        Err(DropReason::Multicast) if at_foreign => Action::GO_ON,
        Err(_) if at_foreign && is_gateway(dst, p.v6 == 1) => Action::GO_ON,
        Err(reason) => Action::drop(reason),
        Ok(()) if foreign => Action::drop(DropReason::SourceAddress),
        Ok(()) => Action::GO_ON,
    }
}

/// A packet of a flow that is known. The walk goes on if it turns out not to be one, and the packet is to open it.
#[inline(always)]
fn known<K: Kernel>(k: &K, w: &mut Walk, slot: u16, place: Place) -> Action {
    let (sender, _) = w.met.ends(place.forward);
    // Somebody else had this address when the flow began, its backend no longer serves, or it goes where none may go since the
    // settings were changed.
    if sender.slot != slot || (place.forward && is_stale(k, w, place)) || tunnel_port::is_met(k, w, place) {
        forget(k, w, place.table);
        return Action::GO_ON;
    }
    if deliver::is_gone(w) { deliver::to_nobody(k, w, place) } else { deliver::follow(k, w, place) }
}

/// A packet that opens a flow: service, policy of both ends, entries, and its way.
#[inline(always)]
fn open_from_pod<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    // On another plugin's network it is for a group of pods, and judged at each.
    if !is_foreign(k.ifindex()) && is_broadcast(k, w.packet.tuple.dst, w.packet.v6 == 1) {
        return Action::drop(DropReason::Multicast);
    }
    let word = PodWord(k.pod_word(slot));
    let opening = match Opening::of(k, w) {
        Ok(opening) => opening,
        Err(reason) => return Action::drop(reason),
    };
    w.draft.open(&w.packet, k.udp_generation());
    // A connection that another proxy has led to a backend stays with that: it is picked up as it is. Later it would
    // be judged by an address that is its backend's by then.
    let of_other_proxy = !opening.begins() && is_foreign(k.ifindex()) && tables_are_new(k);
    if w.packet.class == Class::PORTS && !of_other_proxy {
        let action = choose_backend(k, w, opening.begins(), From::Inside);
        if !action.goes_on() {
            return action;
        }
    }
    // What is closed is closed by whichever name it is called: a frontend's address is its backend's by now.
    if k.config().is_some_and(|config| config.closes(w.draft.target.dst)) {
        return Action::refuse(IcmpError::PortUnreachable, DropReason::Metadata);
    }
    w.ends =
        Ends { opener: w.packet.tuple.src, responder: w.draft.target.dst, port: w.draft.target.dport, pad: [0; 3] };
    look_up(k, w, Whose::Responder);
    w.to = w.found;
    if w.to.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    if tunnel_port::is_aimed_at(k, w) {
        return Action::drop(DropReason::TunnelPort);
    }
    if let Err(reason) = judge_new(k, w, word, opening) {
        return Action::drop(reason);
    }
    let turned = k.reread(&w.draft.turned) != 0;
    let Ok(route) = route_to(k, w) else {
        return Action::refuse(IcmpError::HostUnreachable, DropReason::NoSuchPod);
    };
    set_ends(k, w, slot, word.epoch(), route.end, turned);
    let is_service = w.draft.flow.backend != NO_BACKEND;
    if is_foreign(k.ifindex()) {
        // Out of the node by the stack, which has the way of the other plugin.
        if route.end.slot == NO_SLOT {
            w.draft.flow.flags |= FlowFlags::STACK;
        }
    } else if route.is(RouteFlags::MASQUERADE) && !is_service && !turned {
        w.draft.flow.flags |= FlowFlags::STACK | FlowFlags::MASQUERADE;
    } else if route.is(RouteFlags::OWN) || (route.is(RouteFlags::LEAVES) && (turned || !is_service)) {
        w.draft.flow.flags |= FlowFlags::STACK;
    } else if route.is(RouteFlags::LEAVES) {
        w.draft.flow.flags |= FlowFlags::BY_ROUTE;
    }
    w.way = Way::of(&w.draft.flow, route.end);
    if w.packet.class == Class::ERROR || !opening.is_kept() {
        return Action::DELIVER;
    }
    // The answer has to come back through here: from a pod to itself (S36), and from outside the cluster, unless the network
    // there brings it to pods' addresses.
    let new_source = is_service && (w.draft.target.dst == w.packet.tuple.src || route.is(RouteFlags::MASQUERADE));
    if new_source {
        let Some(config) = k.config() else { return Action::drop(DropReason::Internal) };
        w.draft.target.src = config.address_like(w.packet.tuple.src);
    }
    w.makes = 1;
    if dns::is_asked(w) && dns::leaves_no_flow(k) {
        let port = w.draft.target.dport;
        let action = dns::answer(k, w, port);
        if !action.delivers() {
            return action;
        }
    }
    if let Err(reason) = create(k, w, new_source) {
        return Action::drop(reason);
    }
    w.way.translate = u32::from(w.draft.target != w.packet.tuple);
    Action::DELIVER
}

/// Judges a flow that a pod's packet would open. Notes in `w.draft` if it is turned: the packet is an answer in a connection that
/// the other end opened before it was known here.
#[inline(always)]
fn judge_new<K: Kernel>(k: &K, w: &mut Walk, word: PodWord, opening: Opening) -> Result<(), DropReason> {
    let forward = judge_both(k, w, word);
    if forward.is_ok() || !opening.may_answer() {
        return forward;
    }
    judge::turn(w);
    (w.egress.set, w.ingress.set) = (0, 0);
    judge::ingress(k, w, word)?;
    if w.to.slot != NO_SLOT {
        look_up(k, w, Whose::Source);
        judge::egress(k, w, PodWord(k.pod_word(w.to.slot)), w.found.class)?;
    }
    w.draft.turned = 1;
    Ok(())
}

#[inline(always)]
fn judge_both<K: Kernel>(k: &K, w: &mut Walk, word: PodWord) -> Result<(), DropReason> {
    judge::egress(k, w, word, w.to.class)?;
    if w.to.slot != NO_SLOT {
        judge::ingress(k, w, PodWord(k.pod_word(w.to.slot)))?;
    }
    Ok(())
}

/// Notes the ends of the flow, with the epochs at which their pods agreed. `turned`: the pod is its responder.
#[inline(always)]
fn set_ends<K: Kernel>(k: &K, w: &mut Walk, slot: u16, epoch: u32, other: End, turned: bool) {
    let own = End { slot, node: NO_NODE };
    let theirs = if other.slot == NO_SLOT { 0 } else { PodWord(k.pod_word(other.slot)).epoch() };
    let state = if begins(&w.packet) { 0 } else { FlowState::SYN | FlowState::REPLIED };
    let flow = &mut w.draft.flow;
    flow.state.value = state;
    if turned {
        (flow.opener, flow.responder) = (other, own);
        flow.opener_epoch.value = theirs;
        flow.responder_epoch.value = epoch;
    } else {
        (flow.opener, flow.responder) = (own, other);
        flow.opener_epoch.value = epoch;
        flow.responder_epoch.value = theirs;
    }
}
