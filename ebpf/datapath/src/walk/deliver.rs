//! Handing a packet on: what a router does to it, and where it goes.

use super::opening::{Part, part_in};
use super::{Action, judge};
use crate::drop::DropReason;
use crate::flow::{self, FlowFlags, Place, Tracked};
use crate::kernel::{Kernel, stages};
use crate::overlay;
use crate::packet::{ETH_LEN, IcmpError, Packet, TCP, decrement_ttl, rewrite};
use crate::peer::{NO_NODE, NO_SLOT};
use crate::scratch::{Walk, Way};

stages! {
    fn hand_over() -> Action, as HandOver;
}

/// A packet that has the tuple of the flow in `w.met`: part of it, still allowed, noted in the flow, and on its way. The walk goes on if the
/// packet opens the flow anew.
#[inline(always)]
pub(super) fn follow<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Action {
    let part = part_in(k, w, place);
    if part == Part::Not {
        return Action::GO_ON;
    }
    if let Err(reason) = judge::recheck(k, w, place) {
        return Action::drop(reason);
    }
    if part == Part::Aside {
        return note(w, place.forward);
    }
    match flow::track(k, w, place) {
        Tracked::Live => note(w, place.forward),
        Tracked::Reopened => Action::GO_ON,
    }
}

/// Notes where a packet of a known flow goes, and as what.
#[inline(always)]
fn note(w: &mut Walk, forward: bool) -> Action {
    let (_, receiver) = w.met.ends(forward);
    w.way = Way::of(&w.met, receiver);
    note_translation(w, forward);
    Action::DELIVER
}

/// Notes the tuple of the other side, if the packet gets it here.
#[inline(always)]
fn note_translation(w: &mut Walk, forward: bool) {
    let flow = &w.met;
    let out = forward && flow.is(FlowFlags::NEAR) && !flow.is(FlowFlags::AT_UPLINK);
    let back = !forward && flow.is(FlowFlags::FAR);
    if out {
        w.draft.target = flow.other;
    } else if back {
        w.draft.target = flow.other.reversed();
    }
    w.way.translate = u32::from(out || back);
}

/// Gives a packet the tuple that was noted for it, if one was. False if it can't be.
#[inline(always)]
pub(super) fn translate<K: Kernel>(k: &K, w: &mut Walk) -> bool {
    w.way.translate == 0 || rewrite(k, &mut w.packet, &w.draft.target)
}

/// Sends a packet the way that was noted for it, as a router would: into the pod, to the node, out, or to the host's stack.
/// Any other action stays what it is. An error is about the packet as it came, and so goes to whoever sent that: size and TTL
/// are looked at before it is translated.
#[inline(always)]
pub(super) fn deliver<K: Kernel>(k: &K, w: &mut Walk, action: Action) -> Action {
    if action.delivers() { stage::hand_over(k, w) } else { action }
}

/// The same, of a packet that is to be delivered.
#[inline(always)]
fn hand_over<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    let Way { end, stack, out, .. } = w.way;
    if stack != 0 || (out == 0 && end.slot == NO_SLOT && end.node == NO_NODE) {
        return if translate(k, w) { Action::STACK } else { Action::drop(DropReason::Rewrite) };
    }
    let Some(config) = k.config() else { return Action::STACK };
    let mtu = if end.slot != NO_SLOT {
        config.mtu
    } else {
        k.node(end.node).map_or(config.mtu, |hop| overlay::largest(config, &hop, w.packet.v6 == 1))
    };
    if !fits(k, &w.packet, mtu) {
        // The stack cuts what may be cut; the flow's entry lets the pieces pass. It takes nothing that has an address of its
        // own as source, though: a sender that is told cuts by itself, whether or not it forbade others to.
        let new_source = w.way.translate != 0 && w.draft.target.src != w.packet.tuple.src;
        if w.packet.no_fragment != 0 || new_source {
            return Action::refuse(IcmpError::TooBig(mtu), DropReason::TooLarge);
        }
        return if translate(k, w) { Action::STACK } else { Action::drop(DropReason::Rewrite) };
    }
    if !decrement_ttl(k, &mut w.packet) {
        return Action::refuse(IcmpError::TimeExceeded, DropReason::TtlExceeded);
    }
    if !translate(k, w) {
        return Action::drop(DropReason::Rewrite);
    }
    let v6 = w.packet.v6 == 1;
    if out != 0 {
        Action::out(v6)
    } else if end.slot == NO_SLOT {
        Action::to_node(end.node, v6)
    } else {
        Action::to_pod(end.slot)
    }
}

/// Whether a packet, or each segment of an aggregate, is within the MTU.
#[inline(always)]
fn fits<K: Kernel>(k: &K, p: &Packet, mtu: u32) -> bool {
    if k.packet_len() <= mtu + ETH_LEN {
        return true;
    }
    let payload = k.segment_size();
    if payload == 0 {
        return false;
    }
    let l4 = if p.proto == TCP {
        let Some([offset, _]) = k.load::<[u8; 2]>(p.l4 + 12) else { return false };
        u32::from(offset >> 4) * 4
    } else {
        8
    };
    p.l4 - ETH_LEN + l4 + payload <= mtu
}
