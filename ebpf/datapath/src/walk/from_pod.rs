//! What a pod sends: tcx ingress of the host side of its veth.

use super::deliver::{self, deliver};
use super::judge::{self, Ends};
use super::{Action, Walk, Way, end_of};
use crate::Addr;
use crate::drop::DropReason;
use crate::flow::{self, At, End, FlowFlags, FlowState, Hit, NO_BACKEND};
use crate::kernel::Kernel;
use crate::packet::{Class, ETH_P_ARP, IcmpError, Packet, TCP, TcpFlags, UDP, answer_arp, answer_solicitation};
use crate::peer::{NO_NODE, NO_SLOT, PeerFlags, Pod, PodWord};
use crate::service::{self, From, Selection};
use crate::slot_of;

/// The walk of a packet that a pod sent. `ether_type` as on the wire.
#[inline(always)]
pub fn from_pod<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(slot) = slot_of(k.ifindex()) else { return Action::PASS };
    let Some(pod) = k.pod(slot) else { return Action::drop(DropReason::Pending) };
    if ether_type == ETH_P_ARP {
        return k.answer_neighbour(w, slot, true);
    }
    if let Err(reason) = k.parse(w, ether_type) {
        return Action::drop(reason);
    }
    if w.packet.class == Class::NEIGHBOUR {
        return k.answer_neighbour(w, slot, false);
    }
    let action = check_addresses(&w.packet, pod);
    if !action.goes_on() {
        return action;
    }
    if !flow::resolve_fragment(k, &mut w.packet) {
        return Action::drop(DropReason::Fragment);
    }
    let word = PodWord(k.pod_word(slot));
    if word.is_pending() {
        return Action::drop(DropReason::Pending);
    }
    if w.packet.class == Class::ERROR {
        let action = k.relate_error(w, false);
        if !action.goes_on() {
            return deliver(k, w, action);
        }
    }
    let mut action = Action::GO_ON;
    if let Some(hit) = flow::find(k, &w.packet, &mut w.draft.key, At::Ingress) {
        action = known(k, w, slot, &hit);
    }
    if action.goes_on() {
        action = k.open_from_pod(w, slot);
    }
    deliver(k, w, action)
}

/// A pod that asks for its gateway's MAC gets it (ARP or neighbour discovery); the rest of those protocols ends here.
#[inline(always)]
pub fn answer_neighbour<K: Kernel>(k: &K, w: &Walk, slot: u16, arp: bool) -> Action {
    let Some(pod) = k.pod(slot) else { return Action::IGNORE };
    let answered = if arp { answer_arp(k, pod) } else { answer_solicitation(k, &w.packet, pod) };
    if answered { Action::ANSWER } else { Action::IGNORE }
}

/// A pod sends from its own addresses, to where a router would forward.
#[inline(always)]
fn check_addresses(p: &Packet, pod: &Pod) -> Action {
    let (src, dst) = (p.tuple.src, p.tuple.dst);
    let own = if p.v6 == 1 { pod.v6 } else { pod.v4 };
    let foreign = src != own || own == Addr::UNSPECIFIED;
    match check_destination(dst, p.v6 == 1) {
        // Discovery of routers, groups and leases goes to multicast from an address that is none: nobody's business.
        Err(_) if foreign => Action::IGNORE,
        Err(reason) => Action::drop(reason),
        Ok(()) if foreign => Action::drop(DropReason::SourceAddress),
        Ok(()) => Action::GO_ON,
    }
}

/// Multicast, broadcast, loopback, link-local and unspecified addresses end at the first router (RFC 1812 section 5.3,
/// RFC 4291 section 2.5).
#[inline(always)]
pub(super) fn check_destination(dst: Addr, v6: bool) -> Result<(), DropReason> {
    let (first, second) = if v6 {
        let [first, second, ..] = dst.hi.to_ne_bytes();
        (first, second)
    } else {
        let [first, second, ..] = dst.v4_wire().to_ne_bytes();
        (first, second)
    };
    if v6 {
        match (first, second & 0xc0) {
            (0xff, _) => Err(DropReason::Multicast),
            (0xfe, 0x80) => Err(DropReason::BadAddress),
            _ if dst.hi == 0 && dst.lo.swap_bytes() <= 1 => Err(DropReason::BadAddress),
            _ => Ok(()),
        }
    } else {
        match (first, second) {
            (224..=239, _) | (255, _) => Err(DropReason::Multicast),
            (0 | 127, _) | (169, 254) => Err(DropReason::BadAddress),
            _ => Ok(()),
        }
    }
}

/// A packet of a flow that is known. The walk goes on if it turns out not to be one, and the packet is to open it.
#[inline(always)]
fn known<K: Kernel>(k: &K, w: &mut Walk, slot: u16, hit: &Hit<'_>) -> Action {
    let flow = hit.flow;
    let sender = if hit.forward { flow.opener } else { flow.responder };
    // Somebody else had this address when the flow began, or its backend no longer serves.
    if sender.slot != slot || (hit.forward && is_stale(k, w, hit)) {
        k.forget_flow(w, hit.table);
        return Action::GO_ON;
    }
    deliver::follow(k, w, hit)
}

/// Whether a UDP flow was decided by what no longer holds (S40, S41). TCP flows stay with their backend to the end.
#[inline(always)]
pub(super) fn is_stale<K: Kernel>(k: &K, w: &Walk, hit: &Hit<'_>) -> bool {
    let flow = hit.flow;
    if w.packet.proto != UDP {
        return false;
    }
    let generation = flow.generation.load();
    if flow.backend != NO_BACKEND {
        return service::flow_is_stale(k, flow.backend, generation);
    }
    let current = k.udp_generation();
    if generation == current {
        return false;
    }
    if k.still_no_service(w) {
        flow.generation.store(current);
        return false;
    }
    true
}

/// Whether what a UDP packet is aimed at is no service's address.
#[inline(always)]
pub fn still_no_service<K: Kernel>(k: &K, w: &Walk) -> bool {
    let t = &w.packet.tuple;
    matches!(service::select(k, t.dst, t.dport, UDP, From::Inside, 0), Selection::NotAService)
}

/// A packet that opens a flow: service, policy of both ends, entries, and its way.
#[inline(always)]
pub fn open<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    let word = PodWord(k.pod_word(slot));
    let begins = begins(&w.packet);
    let flow = &mut w.draft.flow;
    flow.flags = 0;
    flow.backend = NO_BACKEND;
    flow.service = 0;
    flow.generation.store(k.udp_generation());
    w.draft.target = w.packet.tuple;
    if w.packet.class == Class::PORTS {
        let action = k.choose_backend(w, begins, From::Inside);
        if !action.goes_on() {
            return action;
        }
    }
    w.ends =
        Ends { opener: w.packet.tuple.src, responder: w.draft.target.dst, port: w.draft.target.dport, pad: [0; 3] };
    k.look_up(w, w.ends.responder);
    w.to = w.found;
    if w.to.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    let turned = match judge_new(k, w, word, begins) {
        Ok(turned) => turned,
        Err(reason) => return Action::drop(reason),
    };
    let Ok(route) = route_to(k, w) else {
        return Action::refuse(IcmpError::HostUnreachable, DropReason::NoSuchPod);
    };
    set_ends(k, w, slot, word.epoch(), route.end, turned);
    let is_service = w.draft.flow.backend != NO_BACKEND;
    if route.leaves && !is_service && !turned {
        w.draft.flow.flags |= FlowFlags::STACK | FlowFlags::MASQUERADE;
    } else if route.own || (route.leaves && turned) {
        w.draft.flow.flags |= FlowFlags::STACK;
    }
    w.way = Way::to(route.end, w.draft.flow.is(FlowFlags::STACK));
    // What only ends something needs no entry.
    if w.packet.class == Class::ERROR || (!begins && w.packet.tcp & (TcpFlags::RST | TcpFlags::FIN) != 0) {
        return Action::DELIVER;
    }
    // The answer has to come back through here: from a pod to itself (S36), and from outside the cluster.
    let new_source = is_service && (w.draft.target.dst == w.packet.tuple.src || route.leaves);
    if new_source {
        let Some(config) = k.config() else { return Action::drop(DropReason::NoSourcePort) };
        w.draft.target.src = config.address_like(w.packet.tuple.src);
    }
    if let Err(reason) = k.create_flow(w, new_source) {
        return Action::drop(reason);
    }
    w.way.translate = u32::from(w.draft.target != w.packet.tuple);
    Action::DELIVER
}

/// Aims the flow at a backend, if what it is aimed at is a service.
#[inline(always)]
pub fn choose_backend<K: Kernel>(k: &K, w: &mut Walk, begins: bool, from: From) -> Action {
    let t = &w.packet.tuple;
    match service::select(k, t.dst, t.dport, w.packet.proto, from, k.random()) {
        Selection::NotAService => Action::GO_ON,
        Selection::Forward(chosen) if !service::admits(k, &chosen, t.src) => Action::drop(DropReason::SourceRange),
        Selection::Forward(_) if !begins => Action::drop(DropReason::NoFlow),
        Selection::Forward(chosen) => {
            let chosen = service::stick(k, chosen, t.src, k.seconds());
            w.draft.target.dst = chosen.addr;
            w.draft.target.dport = chosen.port;
            w.draft.flow.backend = chosen.id;
            w.draft.flow.service = chosen.service;
            w.frontend = chosen.flags;
            w.draft.flow.generation.store(chosen.generation);
            Action::GO_ON
        }
        Selection::Reject => Action::refuse(IcmpError::PortUnreachable, DropReason::Rejected),
        Selection::Drop => Action::drop(DropReason::NoEndpoint),
        Selection::Raced => Action::drop(DropReason::Race),
    }
}

/// Whether a packet may begin a flow by itself. A TCP packet that is not the first of its connection is let in only
/// where nothing has to be translated and policy allows either direction: the connection is older than this table.
#[inline(always)]
pub(super) fn begins(p: &Packet) -> bool {
    p.proto != TCP || p.class != Class::PORTS || p.tcp & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
}

/// Judges a flow that a pod's packet would open. `Ok(true)`: the packet is an answer in a connection that the other end
/// opened before it was known here.
#[inline(always)]
fn judge_new<K: Kernel>(k: &K, w: &mut Walk, word: PodWord, begins: bool) -> Result<bool, DropReason> {
    let forward = judge_both(k, w, word);
    if forward.is_ok() || begins {
        return forward.map(|()| false);
    }
    judge::turn(w);
    judge::ingress(k, w, word)?;
    if w.to.slot != NO_SLOT {
        k.look_up(w, w.packet.tuple.src);
        judge::egress(k, w, PodWord(k.pod_word(w.to.slot)), w.found.class)?;
    }
    Ok(true)
}

#[inline(always)]
fn judge_both<K: Kernel>(k: &K, w: &mut Walk, word: PodWord) -> Result<(), DropReason> {
    judge::egress(k, w, word, w.to.class)?;
    if w.to.slot != NO_SLOT {
        judge::ingress(k, w, PodWord(k.pod_word(w.to.slot)))?;
    }
    Ok(())
}

/// The route to an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) end: End,
    /// The node itself is the destination.
    pub(super) own: bool,
    /// Out of the cluster.
    leaves: bool,
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
    Ok(Route { end, own, leaves: nowhere && !own && to.flags & PeerFlags::NODE == 0 })
}

/// Notes the ends of the flow, with the epochs at which their pods agreed. `turned`: the pod is its responder.
#[inline(always)]
fn set_ends<K: Kernel>(k: &K, w: &mut Walk, slot: u16, epoch: u32, other: End, turned: bool) {
    let own = End { slot, node: NO_NODE };
    let theirs = if other.slot == NO_SLOT { 0 } else { PodWord(k.pod_word(other.slot)).epoch() };
    let state = if begins(&w.packet) { 0 } else { FlowState::SYN | FlowState::REPLIED };
    w.draft.turned = u32::from(turned);
    let flow = &mut w.draft.flow;
    flow.state.store(state);
    if turned {
        (flow.opener, flow.responder) = (other, own);
        flow.opener_epoch.store(theirs);
        flow.responder_epoch.store(epoch);
    } else {
        (flow.opener, flow.responder) = (own, other);
        flow.opener_epoch.store(epoch);
        flow.responder_epoch.store(theirs);
    }
}
