//! What the node itself sends with a tuple that a translated flow has: the node is translated itself.
//!
//! Flows get source ports that are free at that moment. The kernel knows nothing of them, and may give one of them to a
//! connection of the node to the same receiver. To reserve a range for flows would take it from the node, or from them.

use super::Action;
use super::opening::{Part, begins, part_in};
use crate::Long;
use crate::drop::DropReason;
use crate::flow::stage::create;
use crate::flow::{self, End, FlowFlags, Table, find_key};
use crate::kernel::{Kernel, stages};
use crate::packet::{Class, Fragment, TCP, rewrite};
use crate::peer::{NO_NODE, NO_SLOT, PodWord};
use crate::scratch::Walk;

stages! {
    fn give_way(slot: u16) -> Action, as GiveWay;
}

/// Sees to a packet of the node itself on its way out of the node: it passes, with another source port if its own is taken.
#[inline(always)]
pub(super) fn leave<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    let draft = &mut w.draft;
    let from_a = draft.far.set(&w.packet.tuple, w.packet.proto);
    draft.place.set(&draft.far, from_a);
    if k.share(draft.place.total()).map_or(0, Long::load) == 0 {
        return Action::PASS;
    }
    stage::give_way(k, w, NO_SLOT)
}

/// Gives a packet of the node another source port, if a flow has its tuple. `slot`: the pod that it goes to, if it is one
/// of this node.
#[inline(always)]
fn give_way<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    if w.packet.class != Class::PORTS || w.packet.fragment == Fragment::LATER {
        return Action::PASS;
    }
    let proto = w.packet.proto;
    let from_a = w.draft.key.set(&w.packet.tuple, proto);
    let first = if proto == TCP { Table::Established } else { Table::Any };
    match find_key(k, &w.draft.key, from_a, first) {
        Some(hit) if hit.forward && hit.flow.is(FlowFlags::PORT) => {}
        _ => return Action::PASS,
    }
    w.draft.key.alternate = 1;
    if let Some(hit) = find_key(k, &w.draft.key, from_a, first)
        && part_in(k, w, &hit) != Part::Not
    {
        w.draft.target = hit.flow.other;
        // What has ended meanwhile goes out as it would have, and is answered by who gets it.
        flow::track(k, w, &hit);
    } else if begins(&w.packet) {
        w.draft.open(&w.packet, k.udp_generation());
        let flow = &mut w.draft.flow;
        flow.flags = FlowFlags::FROM_NODE | FlowFlags::AT_UPLINK | FlowFlags::STACK;
        if slot != NO_SLOT {
            flow.responder = End { slot, node: NO_NODE };
            flow.responder_epoch.store(PodWord(k.pod_word(slot)).epoch());
        }
        if let Err(reason) = create(k, w, true) {
            return Action::drop(reason);
        }
    } else {
        return Action::PASS;
    }
    let target = w.draft.target;
    if rewrite(k, &mut w.packet, &target) { Action::PASS } else { Action::drop(DropReason::Rewrite) }
}
