//! What the node itself sends with a tuple that a translated flow has: the node is translated itself.
//!
//! Flows get source ports that are free at that moment. The kernel knows nothing of them, and may give one of them to a
//! connection of the node to the same receiver. To reserve a range for flows would take it from the node, or from them.

use super::Action;
use super::opening::{Part, begins, part_in};
use crate::Long;
use crate::drop::DropReason;
use crate::flow::stage::{create, look};
use crate::flow::{self, End, Flow, FlowFlags};
use crate::kernel::{Kernel, stages};
use crate::packet::{Class, rewrite};
use crate::peer::{NO_NODE, NO_SLOT, PodWord};
use crate::scratch::Walk;

stages! {
    fn give_way(slot: u16) -> Action, as GiveWay;
}

/// Sees to a packet of the node itself on its way out of the node, or to the pod in a slot: it passes, or has got another source
/// port and is to be delivered.
#[inline(always)]
pub(super) fn leave<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    let Some(config) = k.config() else { return Action::PASS };
    // Part of such a flow itself.
    if is_marked(k) {
        return Action::PASS;
    }
    let draft = &mut w.draft;
    draft.place.set_of(&w.packet.tuple, w.packet.proto);
    if k.share(draft.place.total(config.seed)).map_or(0, Long::load) == 0 {
        return Action::PASS;
    }
    let action = stage::give_way(k, w, slot);
    if !action.delivers() {
        return action;
    }
    let target = w.draft.target;
    if rewrite(k, &mut w.packet, &target) { Action::DELIVER } else { Action::drop(DropReason::Rewrite) }
}

/// Notes another source port for a packet of the node, if a flow has its tuple, or had when the packet's connection began.
#[inline(always)]
fn give_way<K: Kernel>(k: &K, w: &mut Walk, slot: u16) -> Action {
    if w.packet.class != Class::PORTS {
        return Action::PASS;
    }
    let proto = w.packet.proto;
    let from_a = w.draft.key.set(&w.packet.tuple, proto);
    w.draft.key.set_alternate(true);
    if let Some(place) = look(k, w, from_a, false)
        && place.forward
        && w.met.is(FlowFlags::FROM_NODE)
    {
        let part = part_in(k, w, place);
        if part != Part::Not {
            w.draft.target = w.met.other;
            if part == Part::Own {
                // What has ended meanwhile goes out as it would have, and is answered by who gets it.
                flow::track(k, w, place);
            }
            return Action::DELIVER;
        }
    }
    w.draft.key.set_alternate(false);
    // Of the node's own flows it gives way to those to services. What was translated here has the tuple of its own.
    let of_others = |flow: &Flow| !flow.is(FlowFlags::FROM_NODE) || flow.is_of_svc();
    let taken =
        look(k, w, from_a, false).is_some_and(|place| place.forward && w.met.is(FlowFlags::PORT) && of_others(&w.met));
    if !taken || !begins(&w.packet) {
        return Action::PASS;
    }
    w.draft.key.set_alternate(true);
    w.draft.open(&w.packet, k.udp_generation());
    let flow = &mut w.draft.flow;
    flow.flags = FlowFlags::FROM_NODE | FlowFlags::AT_UPLINK | FlowFlags::STACK;
    if slot != NO_SLOT {
        flow.responder = End { slot, node: NO_NODE };
        flow.responder_epoch.value = PodWord(k.pod_word(slot)).epoch();
    }
    if let Err(reason) = create(k, w, true) {
        return Action::drop(reason);
    }
    Action::DELIVER
}

/// Whether a packet was judged on its way to the stack, or is part of a flow of the node to a service.
#[inline(always)]
pub(super) fn is_marked<K: Kernel>(k: &K) -> bool {
    k.config().is_some_and(|config| k.mark() & config.mark != 0)
}
