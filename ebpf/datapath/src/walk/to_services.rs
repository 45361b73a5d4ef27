//! What the node itself sends to addresses of services where no socket hook has seen the socket: tc egress of the device that
//! the node's routes to these addresses lead to ([`crate::svc`]).
//!
//! Each packet gets its backend's address here, and goes where the node's routes lead to that. The flow has the node's address,
//! so that answers come to the node; they get the service's address where they come in, and go on to the socket by the same
//! device. A process of this node as backend sees the service as its client: what it answers comes here again.

use super::Action;
use super::address::stage::look_up;
use super::address::{Whose, check_destination};
use super::backend::is_stale;
use super::backend::stage::choose_backend;
use super::deliver::{self, deliver};
use super::errors::Side;
use super::errors::stage::relate;
use super::give_way::is_marked;
use super::opening::begins;
use super::route::{is_of_node, route_to};
use crate::Addr;
use crate::drop::DropReason;
use crate::flow::stage::{create, forget};
use crate::flow::{self, At, End, FlowFlags, FragmentKey, NO_BACKEND, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::stage::parse;
use crate::packet::{Class, Fragment, IcmpError};
use crate::peer::{NO_SLOT, PeerFlags, PodWord};
use crate::scratch::{Ends, RouteFlags, Walk, Way};
use crate::service::From;

stages! {
    fn open_from_node() -> Action, as OpenFromNode;
}

/// The walk of a packet that the node's routes lead to a service. None passes: what is for no service is refused.
#[inline(always)]
pub fn to_services<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    // The kernel talks about groups and neighbours on any device.
    if parse(k, w, ether_type).is_err() || w.packet.class == Class::NEIGHBOUR {
        return Action::IGNORE;
    }
    if check_destination(w.packet.tuple.dst, w.packet.v6 == 1).is_err() {
        return Action::IGNORE;
    }
    // What others send is served where it comes in. The rest of that is for no service, or came in where nobody looks. What came
    // in nowhere may be a fragment that the stack made of a pod's packet, which has the mark.
    if k.ingress_ifindex() != 0 || is_marked(k) {
        return nobody();
    }
    // The same of other IPv6 fragments, which the stack makes anew of what it forwards: the node's own are from a socket, and from an
    // address of its own, which anybody can name.
    if w.packet.v6 == 1 && w.packet.fragment != Fragment::NONE && !(k.has_socket() && is_of_node(k, w.packet.tuple.src))
    {
        return Action::drop(DropReason::Rejected);
    }
    let sender = FragmentKey::from_node(w.packet.tuple.src);
    if !flow::resolve_fragment(k, &mut w.packet, sender) {
        return Action::drop(DropReason::Fragment);
    }
    if w.packet.class == Class::ERROR {
        let action = relate(k, w, Side::FromNode, NO_SLOT);
        if action.goes_on() {
            return Action::drop(DropReason::NotAsked);
        }
        if action.delivers() && w.way.stack != Way::HOME {
            w.way = out(w.way);
        }
        return deliver(k, w, action);
    }
    let mut action = Action::GO_ON;
    if let Some(place) = flow::find(k, w, At::Ingress) {
        action = known(k, w, place);
    }
    if action.goes_on() {
        action = stage::open_from_node(k, w);
    }
    if action.delivers() && !is_to_node(w) {
        w.way = out(w.way);
    }
    deliver(k, w, action)
}

/// The way to whoever serves, of what the stack has sent already: by the node's routes, whole.
#[inline(always)]
const fn out(way: Way) -> Way {
    Way { stack: 0, out: Way::UNCUT, end: End::ELSEWHERE, ..way }
}

/// Whether a packet that is to be translated goes back to the node: to its process as the backend, or with the answer of that.
/// Either is from the service that it was sent to.
#[inline(always)]
fn is_to_node(w: &Walk) -> bool {
    w.draft.target.src == w.packet.tuple.dst
}

/// Nobody serves this.
#[inline(always)]
const fn nobody() -> Action {
    Action::refuse(IcmpError::PortUnreachable, DropReason::Rejected)
}

/// A packet of a flow that is known. The walk goes on if it is to open a new one.
#[inline(always)]
fn known<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Action {
    if !w.met.is_of_svc() {
        return Action::GO_ON;
    }
    if place.forward && is_stale(k, w, place) {
        forget(k, w, place.table);
        return Action::GO_ON;
    }
    if deliver::is_gone(w) { deliver::to_nobody(k, w, place) } else { deliver::follow(k, w, place) }
}

/// A packet that opens a flow to a service: backend, entries, and its way. Policy is not asked: the node reaches its pods (P33),
/// and others judge what comes from it.
#[inline(always)]
fn open_from_node<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    if w.packet.class != Class::PORTS {
        return nobody();
    }
    let begins = begins(&w.packet);
    w.draft.open(&w.packet, k.udp_generation());
    let action = choose_backend(k, w, begins, From::Inside);
    if !action.goes_on() {
        return action;
    }
    if w.draft.flow.backend == NO_BACKEND {
        return nobody();
    }
    let t = &w.packet.tuple;
    w.ends = Ends { opener: t.src, responder: w.draft.target.dst, port: w.draft.target.dport, pad: [0; 3] };
    look_up(k, w, Whose::Responder);
    w.to = w.found;
    if w.to.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    let Ok(route) = route_to(k, w) else {
        return Action::refuse(IcmpError::HostUnreachable, DropReason::NoSuchPod);
    };
    let end = route.end;
    let mut epoch = 0;
    let mut to = End::ELSEWHERE;
    if end.slot != NO_SLOT {
        let word = PodWord(k.pod_word(end.slot));
        if word.is_pending() {
            return Action::drop(DropReason::Pending);
        }
        (to, epoch) = (end, word.epoch());
    }
    let flow = &mut w.draft.flow;
    flow.flags = FlowFlags::FROM_NODE | FlowFlags::STACK;
    (flow.opener, flow.responder) = (End::ELSEWHERE, to);
    flow.opener_epoch.value = 0;
    flow.responder_epoch.value = epoch;
    flow.state.value = 0;
    w.way = Way { stack: Way::HOME, ..Way::of(flow, to) };
    let Some(config) = k.config() else { return Action::drop(DropReason::Internal) };
    let service = w.packet.tuple.dst;
    w.draft.target.src = if route.is(RouteFlags::OWN) { service } else { config.address_like(service) };
    if w.draft.target.src == Addr::UNSPECIFIED {
        return Action::drop(DropReason::NoAddress);
    }
    if let Err(reason) = create(k, w, true) {
        return Action::drop(reason);
    }
    w.way.translate = 1;
    Action::DELIVER
}
