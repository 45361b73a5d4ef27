//! Services: the backend of a new flow, and whether that of a known one still holds.

use super::Action;
use crate::drop::DropReason;
use crate::flow::{self, FlowState, NO_BACKEND, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::{Fragment, IcmpError, Packet, SCTP, UDP};
use crate::register::variants;
use crate::scratch::Walk;
use crate::service::{self, From, Selection};

stages! {
    fn choose_backend(begins: bool, from: From) -> Action, as ChooseBackend;
    fn still_no_service() -> bool, as StillNoService;
}

variants!(From: Inside; else Outside);

/// Aims the flow at a backend, if what it is aimed at is a service.
#[inline(always)]
fn choose_backend<K: Kernel>(k: &K, w: &mut Walk, begins: bool, from: From) -> Action {
    let t = &w.packet.tuple;
    match service::select(k, t.dst, t.dport, w.packet.proto, from, k.random()) {
        Selection::NotAService => Action::GO_ON,
        Selection::Forward(chosen) if !service::admits(k, &chosen, t.src) => Action::drop(DropReason::SourceRange),
        Selection::Forward(_) if !begins => Action::drop(DropReason::NoFlow),
        Selection::Forward(chosen) => {
            let chosen = service::stick(k, chosen, t.src, from, k.seconds());
            w.draft.target.dst = chosen.addr;
            w.draft.target.dport = chosen.port;
            w.draft.flow.backend = chosen.id;
            w.draft.flow.service = chosen.service;
            w.frontend = chosen.flags;
            w.draft.flow.generation.value = chosen.generation;
            Action::GO_ON
        }
        Selection::Reject => Action::refuse(IcmpError::PortUnreachable, DropReason::Rejected),
        Selection::Drop => Action::drop(DropReason::NoEndpoint),
        Selection::Raced => Action::drop(DropReason::Race),
    }
}

/// Whether the flow in `w.met` was decided by what no longer holds (S40, S41): of UDP each datagram asks, of SCTP what opens an
/// association. Connections stay with their backend to the end.
#[inline(always)]
pub(super) fn is_stale<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> bool {
    let (backend, generation) = (w.met.backend, w.met.generation.value);
    if w.packet.proto == SCTP {
        return backend != NO_BACKEND
            && opens_association(k, &w.packet)
            && service::flow_is_stale(k, backend, generation, true);
    }
    if w.packet.proto != UDP {
        return false;
    }
    if backend != NO_BACKEND {
        let lasts = w.met.state.value & FlowState::STREAM != 0;
        return service::flow_is_stale(k, backend, generation, lasts);
    }
    let current = k.udp_generation();
    if generation == current {
        return false;
    }
    if stage::still_no_service(k, w) {
        if let Some(entry) = k.flow(place.table, &w.draft.key) {
            flow::put(k, &entry.generation, w.draft.key.tag(), current);
        }
        return false;
    }
    true
}

/// Whether a packet of SCTP opens an association: its verification tag is none (RFC 9260 section 8.5.1).
#[inline(always)]
fn opens_association<K: Kernel>(k: &K, p: &Packet) -> bool {
    const TAG: u32 = 4;
    p.fragment != Fragment::LATER && k.load::<u32>(p.l4 + TAG) == Some(0)
}

/// Whether what a UDP packet is aimed at is no service's address.
#[inline(always)]
fn still_no_service<K: Kernel>(k: &K, w: &mut Walk) -> bool {
    let t = &w.packet.tuple;
    matches!(service::select(k, t.dst, t.dport, UDP, From::Inside, 0), Selection::NotAService)
}
