//! What a process of the node answers as a service's backend. It does not know that it is one, so its answers get the
//! service's address where they leave the node: by an uplink, or by the tunnel to a pod of a node in another subnet.

use super::Action;
use super::errors::Side;
use super::errors::stage::relate;
use crate::drop::DropReason;
use crate::flow::{self, At, FlowFlags, FragmentKey, Tracked};
use crate::kernel::Kernel;
use crate::packet::{Class, rewrite};
use crate::peer::NO_SLOT;
use crate::scratch::Walk;

/// Whether there are such connections at all.
#[inline(always)]
pub(super) fn may_be_one<K: Kernel>(k: &K) -> bool {
    k.host_flows().is_some_and(|flows| flows.load() != 0)
}

/// Gives what the node itself sends the service's address, if it is such an answer. Whatever else it is passes.
#[inline(always)]
pub(super) fn turn_back<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    let sender = FragmentKey::from_node(w.packet.tuple.src);
    if !flow::resolve_fragment(k, &mut w.packet, sender) {
        return Action::PASS;
    }
    if w.packet.class == Class::ERROR {
        let action = relate(k, w, Side::FromNode, NO_SLOT);
        return if action.goes_on() || action.delivers() { Action::PASS } else { action };
    }
    let Some(place) = flow::find(k, w, At::EgressUplink) else { return Action::PASS };
    let flow = &w.met;
    if place.forward
        || flow::opens(&w.packet)
        || !flow.is(FlowFlags::FAR)
        || !flow.is(FlowFlags::OUTSIDE)
        || !flow.is(FlowFlags::STACK)
    {
        return Action::PASS;
    }
    if flow::track(k, w, place) == Tracked::Reopened {
        return Action::PASS;
    }
    let target = w.met.other.reversed();
    if rewrite(k, &mut w.packet, &target) { Action::PASS } else { Action::drop(DropReason::Rewrite) }
}
