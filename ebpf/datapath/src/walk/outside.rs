//! Flows that clients outside open to services, by an uplink: to an address of a service or to a port of the node.

use super::Action;
use super::address::Whose;
use super::address::stage::look_up;
use super::backend::stage::choose_backend;
use super::judge;
use super::opening::begins;
use super::route::{end_of, route_to};
use super::tunnel_port;
use crate::config::{Uplink, UplinkFlags};
use crate::drop::DropReason;
use crate::flow::stage::create;
use crate::flow::{FlowFlags, NO_BACKEND};
use crate::kernel::{Kernel, stages};
use crate::overlay;
use crate::packet::{Class, IcmpError};
use crate::peer::{NO_SLOT, PeerFlags, PodWord};
use crate::scratch::{Ends, RouteFlags, Walk, Way};
use crate::service::{From, FrontendFlags};

stages! {
    fn open_from_outside() -> Action, as OpenFromOutside;
}

/// Whether a packet came in where no other node is.
#[inline(always)]
pub(super) fn is_aside<K: Kernel>(k: &K) -> bool {
    !leads_to_nodes(k, k.ifindex())
}

/// Whether other nodes are where an interface leads: it is the tunnel's, or a primary uplink. One that is not in the table, or not yet,
/// is neither.
#[inline(always)]
pub(super) fn leads_to_nodes<K: Kernel>(k: &K, ifindex: u32) -> bool {
    let is_primary = |uplink: Uplink| uplink.is_of(ifindex) && uplink.flags & UplinkFlags::PRIMARY != 0;
    ifindex == overlay::IFINDEX || k.uplink(ifindex).is_some_and(is_primary)
}

/// Whether an interface is one by which packets come in from other machines. Beside another plugin these are the primary ones.
#[inline(always)]
pub(super) fn leads_out<K: Kernel>(k: &K, ifindex: u32) -> bool {
    k.uplink(ifindex).is_some_and(|uplink| uplink.is_of(ifindex))
}

/// A packet that opens a flow to a service: backend, ingress policy if that is a pod of this node, entries, and its way.
/// The walk goes on if it is for no service.
///
/// To another node the flow gets this node's address, so that the answers come back here; to a pod of this node unless
/// the frontend keeps the client's; to the node itself never, or it would talk to itself (S35, S45).
#[inline(always)]
fn open_from_outside<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    if w.packet.class != Class::PORTS {
        return Action::GO_ON;
    }
    let begins = begins(&w.packet);
    w.draft.open(&w.packet, k.udp_generation());
    let action = choose_backend(k, w, begins, From::Outside);
    if !begins && action == Action::drop(DropReason::NoFlow) && is_of_host(k, w) {
        return Action::PASS;
    }
    if !action.goes_on() || w.draft.flow.backend == NO_BACKEND {
        return action;
    }
    let t = &w.packet.tuple;
    w.ends = Ends { opener: t.src, responder: w.draft.target.dst, port: w.draft.target.dport, pad: [0; 3] };
    look_up(k, w, Whose::Opener);
    if w.found.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    // Who is on this node does not come in from outside.
    if w.found.slot != NO_SLOT || w.found.flags & PeerFlags::SELF != 0 {
        return Action::drop(DropReason::LocalAddress);
    }
    // Nor do pods elsewhere come in where no other node is: a container of this one says so.
    if w.found.flags & PeerFlags::POD != 0 && is_aside(k) {
        return Action::drop(DropReason::LocalAddress);
    }
    let opener = end_of(k, &w.found, w.packet.v6 == 1);
    look_up(k, w, Whose::Responder);
    w.to = w.found;
    if w.to.flags & PeerFlags::RACED != 0 {
        return Action::drop(DropReason::Race);
    }
    if tunnel_port::is_aimed_at(k, w) || tunnel_port::is_source(k, w) {
        return Action::drop(DropReason::TunnelPort);
    }
    let Ok(route) = route_to(k, w) else {
        return Action::refuse(IcmpError::HostUnreachable, DropReason::NoSuchPod);
    };
    let (end, own) = (route.end, route.is(RouteFlags::OWN));
    let mut epoch = 0;
    if end.slot != NO_SLOT {
        let word = PodWord(k.pod_word(end.slot));
        if let Err(reason) = judge::ingress(k, w, word) {
            return Action::drop(reason);
        }
        epoch = word.epoch();
    }
    let flow = &mut w.draft.flow;
    flow.flags = FlowFlags::OUTSIDE | if own { FlowFlags::STACK } else { 0 };
    (flow.opener, flow.responder) = (opener, end);
    flow.opener_epoch.value = 0;
    flow.responder_epoch.value = epoch;
    flow.state.value = 0;
    w.way = Way::of(flow, end);
    let masquerade = !own && (end.slot == NO_SLOT || w.frontend & FrontendFlags::KEEP_SOURCE == 0);
    if masquerade {
        let Some(config) = k.config() else { return Action::drop(DropReason::Internal) };
        w.draft.target.src = config.address_like(w.packet.tuple.src);
    }
    if own && let Some(flows) = k.host_flows() {
        flows.store(1);
    }
    w.makes = 1;
    if let Err(reason) = create(k, w, masquerade) {
        return Action::drop(reason);
    }
    w.way.translate = u32::from(w.draft.target != w.packet.tuple);
    Action::DELIVER
}

/// Whether a packet in the middle of a connection is the host's own business: its process had the connection before the
/// port was a service's, or used the port as a client.
#[inline(always)]
fn is_of_host<K: Kernel>(k: &K, w: &Walk) -> bool {
    let to_a = !w.draft.key.is_from_a(&w.packet.tuple);
    k.host_socket(&w.draft.key, to_a)
}
