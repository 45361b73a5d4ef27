//! Handing a packet on: what a router does to it, and where it goes.

use super::opening::{Part, part_in};
use super::{Action, judge, limit};
use crate::config::Config;
use crate::drop::DropReason;
use crate::flow::stage::forget;
use crate::flow::{self, FlowFlags, FlowState, Place, Tracked};
use crate::kernel::{Kernel, Onward, stages};
use crate::overlay;
use crate::packet::stage::clamp_mss;
use crate::packet::{ETH_LEN, IcmpError, Packet, decrement_ttl, headers_len, rewrite, says_mss};
use crate::peer::{NO_NODE, NO_SLOT, NodeHop, slot_at};
use crate::register::Register;
use crate::scratch::{Walk, Way};
use crate::svc;

/// A length that no way takes: the kernel says what it does take.
const LARGEST: u32 = u32::MAX;

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

/// A packet that meets the connection of a pod that is gone: its sender is told, unless it opens another.
#[inline(always)]
pub(super) fn to_nobody<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Action {
    if flow::opens(&w.packet) {
        forget(k, w, place.table);
        return Action::GO_ON;
    }
    Action::refuse(IcmpError::PortUnreachable, DropReason::Gone)
}

/// Whether the flow in `w.met` was a pod's that is gone.
#[inline(always)]
pub(super) fn is_gone(w: &Walk) -> bool {
    w.met.state.value & FlowState::GONE != 0
}

/// Notes where a packet of a known flow goes, and as what.
#[inline(always)]
fn note(w: &mut Walk, forward: bool) -> Action {
    let (sender, receiver) = w.met.ends(forward);
    w.way = Way::of(&w.met, receiver);
    w.way.from = u32::from(sender.node);
    if w.met.is_of_svc() {
        w.way.stack = Way::HOME;
    }
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
    judge::count_made(k, w);
    match send_on(k, w) {
        Ok(action) => w.action = action.pack(),
        Err(refusal) => return refusal,
    }
    if !translate(k, w) {
        return Action::drop(DropReason::Rewrite);
    }
    let action = Action::unpack(k.reread(&w.action));
    limit::hold(k, w, action)
}

/// Makes a packet what a router would, and says where it goes once it is translated.
///
/// # Errors
///
/// What becomes of it instead.
#[inline(always)]
fn send_on<K: Kernel>(k: &K, w: &mut Walk) -> Result<Action, Action> {
    let Way { end, stack, out, from, .. } = w.way;
    if stack != 0 || (out == 0 && end.slot == NO_SLOT && end.node == NO_NODE) {
        return Ok(if stack == Way::HOME && k.store(0, &[svc::MAC; 2]) { Action::HOME } else { Action::STACK });
    }
    let Some(config) = k.config() else { return Ok(Action::STACK) };
    let (v6, length) = (w.packet.v6 == 1, length(k, &w.packet));
    let (mut mtu, mut by, mut cut_outside) = (config.mtu, 0, false);
    if out != 0 {
        let onward = k.route(w, length);
        by = onward.ifindex;
        // Where the routes have a way, its size holds, and not that between nodes.
        mtu = onward.mtu_or(mtu);
    } else if end.slot == NO_SLOT
        && let Some(hop) = k.node(end.node)
    {
        mtu = overlay::largest(config, &hop, v6);
        cut_outside = may_cut_outside(w, config, &hop, length);
    }
    if length > mtu && !cut_outside {
        // The stack cuts what may be cut; the flow's entry lets the pieces pass. It takes nothing that has an address of its
        // own as source, though: a sender that is told cuts by itself, whether or not it forbade others to.
        // What it has sent itself does not come back to it.
        if w.packet.no_fragment != 0 || has_new_source(w) || out == Way::UNCUT {
            return Err(Action::refuse(IcmpError::TooBig(mtu), DropReason::TooLarge));
        }
        return Ok(Action::STACK);
    }
    if out == Way::UNCUT && by == 0 {
        return Err(Action::refuse(IcmpError::HostUnreachable, DropReason::NoSuchPod));
    }
    if !decrement_ttl(k, &mut w.packet) {
        return Err(Action::refuse(IcmpError::TimeExceeded, DropReason::TtlExceeded));
    }
    // A pod's own interface says what it takes.
    let from_node = from != u32::from(NO_NODE);
    if (end.slot == NO_SLOT || from_node) && says_mss(&w.packet) {
        // What the receiver sends comes by the way that this packet goes, and leaves by the one that this packet came.
        // Either way may take less than its interface: routes say so.
        if from_node && let Some(hop) = k.node(from as u16) {
            mtu = mtu.min(overlay::largest(config, &hop, v6));
        } else if slot_at(k, k.ifindex()).is_none() {
            mtu = mtu.min(way_back(k, w).mtu_or(mtu));
        }
        if end.slot == NO_SLOT {
            mtu = mtu.min(k.route(w, LARGEST).mtu_or(mtu));
        }
        if !clamp_mss(k, w, mtu) {
            return Err(Action::drop(DropReason::Rewrite));
        }
    }
    Ok(if out != 0 {
        Action::out(v6, by)
    } else if end.slot == NO_SLOT {
        Action::to_node(end.node, v6)
    } else {
        Action::to_pod(end.slot)
    })
}

/// The MTU that every link of IPv6 has (RFC 8200 section 5).
const LEAST_V6: u32 = 1280;

/// The way on which a packet came, as the node's routes have it.
#[inline(always)]
fn way_back<K: Kernel>(k: &K, w: &mut Walk) -> Onward {
    let translate = w.way.translate;
    w.way.translate = 0;
    w.packet.tuple = w.packet.tuple.reversed();
    let onward = k.route(w, LARGEST);
    w.packet.tuple = w.packet.tuple.reversed();
    w.way.translate = translate;
    onward
}

/// Whether a packet gets another source here.
#[inline(always)]
fn has_new_source(w: &Walk) -> bool {
    w.way.translate != 0 && w.draft.target.src != w.packet.tuple.src
}

/// Whether a packet that is too large for the tunnel may go there as it is, so that the kernel cuts what is around it: it may
/// be cut, and the stack would not take it to be cut, or would send it past the tunnel, as what goes to the node itself. So may a
/// packet of IPv6 that every link has to take, of which its sender would not believe that it is too large (RFC 8200 section 5). The
/// kernel cuts no outer packets of IPv6.
#[inline(always)]
fn may_cut_outside(w: &Walk, config: &Config, hop: &NodeHop, length: u32) -> bool {
    let (outer, _) = overlay::ends(config, hop);
    if !outer.is_v4() {
        return false;
    }
    if w.packet.v6 == 1 {
        return length <= LEAST_V6 && hop.is_tunnelled(true);
    }
    let dst = if w.way.translate != 0 { w.draft.target.dst } else { w.packet.tuple.dst };
    w.packet.no_fragment == 0 && hop.is_tunnelled(false) && (has_new_source(w) || dst == hop.v4)
}

/// The length of a packet, or of the segments of an aggregate, without the Ethernet header.
#[inline(always)]
fn length<K: Kernel>(k: &K, p: &Packet) -> u32 {
    let (whole, payload) = (k.packet_len().saturating_sub(ETH_LEN), k.segment_size());
    if payload == 0 {
        return whole;
    }
    // `GSO_BY_FRAGS`: packets of SCTP that were one each, as large as their sender's interface takes.
    if payload == 0xffff {
        return 0;
    }
    match headers_len(k, p) {
        Some(headers) if headers - ETH_LEN + payload < whole => headers - ETH_LEN + payload,
        _ => whole,
    }
}
