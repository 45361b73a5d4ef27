//! ICMP errors on their way: they belong to the flow that they quote, and are translated as it is, the other way round.

use super::Action;
use super::address::Whose;
use super::address::stage::look_up;
use crate::drop::DropReason;
use crate::flow::stage::look;
use crate::flow::{self, Flow, FlowFlags, Owned, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::{Packet, quoted, translate_quote};
use crate::peer::{NO_SLOT, PeerFlags, PodWord};
use crate::register::variants;
use crate::scratch::{Walk, Way};

stages! {
    fn relate(side: Side, slot: u16) -> Action, as Relate;
}

/// Where an ICMP error is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// A pod sent it.
    FromPod,
    /// It came in from outside.
    FromUplink,
    /// The host's stack sends it to a pod.
    ToPod,
    /// It leaves the node, where the masquerade is made.
    Leaving,
    /// The node itself made it, and it leaves the node.
    FromNode,
}

variants!(Side: FromPod, FromUplink, ToPod, Leaving; else FromNode);

/// Errors about one flow that are let through in a second. A path gives rise to a few; a trace of it to one for each hop.
const ERRORS_A_SECOND: u32 = 64;

/// Finds the flow that an ICMP error is about, translates the error and notes its way. What is about no flow that is
/// known, or does not come from where an error about it can come from, is a packet like any other, and the walk goes on.
/// `slot`: the pod's whose hook this is.
#[inline(always)]
fn relate<K: Kernel>(k: &K, w: &mut Walk, side: Side, slot: u16) -> Action {
    let Some((inner, proto)) = quoted(k, &w.packet) else { return Action::GO_ON };
    // An error goes to whoever sent what it quotes (RFC 792, RFC 4443 section 2.4).
    if w.packet.tuple.dst != inner.src {
        return Action::GO_ON;
    }
    let from_a = w.draft.key.set(&inner, proto);
    let Some(place) = look(k, w, from_a, false) else { return Action::GO_ON };
    // The quoted packet went one way, the error goes the other: back to whoever sent the quoted packet.
    let (forward, (end, receiver)) = (place.forward, w.met.ends(place.forward));
    let plausible = match side {
        // A pod is no router: it tells what became of packets to itself.
        Side::FromPod => receiver.slot == slot && w.packet.tuple.src == inner.dst,
        // No router outside is between two ends on this node.
        // But the node's own flow that was translated: its way is as long as any.
        Side::FromUplink => receiver.slot == NO_SLOT && (!w.met.is(FlowFlags::FROM_NODE) || w.met.is(FlowFlags::FAR)),
        Side::ToPod => end.slot == slot,
        Side::Leaving | Side::FromNode => true,
    };
    if !plausible {
        return Action::GO_ON;
    }
    if side == Side::FromUplink {
        look_up(k, w, Whose::Source);
        if w.found.flags & PeerFlags::RACED != 0 {
            return Action::drop(DropReason::Race);
        }
        // Who is on this node does not come in from outside.
        if w.found.slot != NO_SLOT || w.found.flags & PeerFlags::SELF != 0 {
            return Action::drop(DropReason::LocalAddress);
        }
        if w.found.flags & PeerFlags::EXISTS != 0 && w.packet.tuple.src != inner.dst {
            return Action::GO_ON;
        }
    }
    if end.slot != NO_SLOT && PodWord(k.pod_word(end.slot)).is_pending() {
        return Action::drop(DropReason::Pending);
    }
    if !admit(k, w, place) {
        return Action::drop(DropReason::ErrorRate);
    }
    w.way = Way::of(&w.met, end);
    if !translates(&w.met, forward, side) {
        return Action::DELIVER;
    }
    let new = if forward { w.met.other } else { w.met.other.reversed() };
    let p: &mut Packet = &mut w.packet;
    // Its own source is changed only where it is the end of the flow that has another name on the other side.
    let src = if side == Side::Leaving || p.tuple.src == inner.dst { new.dst } else { p.tuple.src };
    if translate_quote(k, p, &inner, &new, proto, (src, new.src)) {
        Action::DELIVER
    } else {
        Action::drop(DropReason::Rewrite)
    }
}

/// Whether another error about a flow is let through in this second.
#[inline(always)]
fn admit<K: Kernel>(k: &K, w: &Walk, place: Place) -> bool {
    let (second, owner) = (k.seconds() << 8, w.draft.key.tag());
    let Some(entry) = k.flow(place.table, &w.draft.key) else { return false };
    let word = Owned::of(&entry.errors, owner).value;
    let count = if word & !0xff == second { word & 0xff } else { 0 };
    if count >= ERRORS_A_SECOND {
        return false;
    }
    flow::put(k, &entry.errors, owner, second | (count + 1));
    true
}

/// Whether the quote is as one side sees it and the error goes to the other.
#[inline(always)]
fn translates(flow: &Flow, forward: bool, side: Side) -> bool {
    if forward {
        flow.is(FlowFlags::FAR)
    } else {
        flow.is(FlowFlags::NEAR) && (side == Side::Leaving || !flow.is(FlowFlags::AT_UPLINK))
    }
}
