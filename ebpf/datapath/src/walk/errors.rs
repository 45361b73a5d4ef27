//! ICMP errors on their way: they belong to the flow that they quote, and are translated as it is, the other way round.
//!
//! A kernel believes an error by what it quotes, whoever sent it: it refuses the socket of a datagram, and lowers the MTU of
//! a path for a quoted echo that was never sent. So pods get errors about their own packets only, from where those went, and
//! send them about packets to themselves only, whether or not policy selects anybody:
//!
//! | what the error quotes | sent by a pod | to a pod, from outside or by the stack |
//! |---|---|---|
//! | a packet of a known flow | if it went to that pod | if it came from the receiving pod, and left by that way |
//! | a TCP segment of no known flow | judged, if it went to that pod | judged: the receiver checks ports and sequence |
//! | another packet of no known flow | judged, if it went to that pod | dropped |
//! | what can't be read, or what the error's receiver did not send | dropped | dropped |

use super::Action;
use super::address::Whose;
use super::address::stage::look_up;
use super::inbound::came_from;
use crate::drop::DropReason;
use crate::flow::stage::look;
use crate::flow::{self, Flow, FlowFlags, Owned, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::{Fragment, TCP, quoted, translate_quote};
use crate::peer::{NO_SLOT, PeerFlags, PodWord};
use crate::register::variants;
use crate::scratch::{Walk, Way};

stages! {
    fn relate(side: Side, slot: u16) -> Action, as Relate;
    fn read_quote() -> bool, as ReadQuote;
    fn translate(side: Side, forward: bool) -> Action, as TranslateError;
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

/// Finds the flow that an ICMP error is about, translates the error and notes its way. The walk goes on with what is to be
/// judged as a packet like any other. `slot`: the pod's whose hook this is.
#[inline(always)]
fn relate<K: Kernel>(k: &K, w: &mut Walk, side: Side, slot: u16) -> Action {
    if !stage::read_quote(k, w) {
        return stray(k, w, side);
    }
    // An error goes to whoever sent what it quotes (RFC 792, RFC 4443 section 2.4). A pod is no router: it tells what became
    // of packets to itself.
    if w.packet.tuple.dst != w.quoted.tuple.src || (side == Side::FromPod && !is_of_receiver(w)) {
        return stray(k, w, side);
    }
    let from_a = w.draft.key.set(&w.quoted.tuple, w.quoted.proto as u8);
    let Some(place) = look(k, w, from_a, false) else {
        return if side == Side::FromPod || w.quoted.proto == u32::from(TCP) {
            Action::GO_ON
        } else {
            stray(k, w, side)
        };
    };
    // The quoted packet went one way, the error goes the other: back to whoever sent the quoted packet.
    let (forward, (end, receiver)) = (place.forward, w.met.ends(place.forward));
    // No router outside is between two ends on this node.
    // But the node's own flow that was translated: its way is as long as any.
    let left = receiver.slot == NO_SLOT && (!w.met.is(FlowFlags::FROM_NODE) || w.met.is(FlowFlags::FAR));
    // What left has the tuple of the far side, what was answered to a client outside that of the near one.
    let as_sent = !w.met.is_translated() || w.met.is(FlowFlags::FAR) == forward;
    let plausible = match side {
        Side::FromPod => receiver.slot == slot,
        Side::FromUplink => left && as_sent,
        Side::ToPod => end.slot == slot && (left || is_near(k, w, receiver.slot)),
        Side::Leaving | Side::FromNode => true,
    };
    if !plausible {
        return stray(k, w, side);
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
        if w.found.flags & PeerFlags::EXISTS != 0 && !is_of_receiver(w) {
            return stray(k, w, side);
        }
        w.ends.responder = w.quoted.tuple.dst;
        look_up(k, w, Whose::Responder);
        if w.found.flags & (PeerFlags::RACED | PeerFlags::SELF) != 0 {
            return stray(k, w, side);
        }
    }
    if end.slot != NO_SLOT && PodWord(k.pod_word(end.slot)).is_pending() {
        return Action::drop(DropReason::Pending);
    }
    if !admit(k, w, place) {
        return Action::drop(DropReason::ErrorRate);
    }
    w.way = Way::of(&w.met, end);
    if translates(&w.met, forward, side) { stage::translate(k, w, side, forward) } else { Action::DELIVER }
}

/// Whether an error comes from where what it quotes was sent to. Asked where it matters: an answer that is kept is two cases to the
/// verifier.
#[inline(always)]
fn is_of_receiver(w: &Walk) -> bool {
    w.packet.tuple.src == w.quoted.tuple.dst
}

/// Reads the packet that an error quotes into `w.quoted`. False if it can't be read. Its branches are many, and what it leaves is in
/// memory: as a variable the verifier would follow each of its ranges through the rest of the walk.
#[inline(always)]
fn read_quote<K: Kernel>(k: &K, w: &mut Walk) -> bool {
    let Some(quoted) = quoted(k, w) else { return false };
    w.quoted = quoted;
    true
}

/// Gives an error the tuple that its receiver knows the flow by. `forward`: what it quotes went from opener to responder.
#[inline(always)]
fn translate<K: Kernel>(k: &K, w: &mut Walk, side: Side, forward: bool) -> Action {
    let new = if forward { w.met.other } else { w.met.other.reversed() };
    let p = &w.packet;
    // Its own source is changed only where it is the end of the flow that has another name on the other side.
    let src = if side == Side::Leaving || is_of_receiver(w) { new.dst } else { p.tuple.src };
    let to_node = forward || new.src == p.tuple.src;
    if !translate_quote(k, w, &new, (src, new.src)) {
        return Action::drop(DropReason::Rewrite);
    }
    // What is told the node comes from where the one is that it asked, which is no service's address; what the node itself tells of
    // an answer goes to who gave it, who may be the node.
    if src == new.dst && w.met.is_of_svc() && to_node {
        w.way.stack = Way::HOME;
    }
    Action::DELIVER
}

/// What is no error about a packet that its receiver sent, or not from where one can come from: no pod sends or gets it. What
/// it is to the node itself is the node's business.
#[inline(always)]
fn stray<K: Kernel>(k: &K, w: &mut Walk, side: Side) -> Action {
    let of_pod = match side {
        Side::FromPod | Side::ToPod => true,
        Side::FromUplink => {
            look_up(k, w, Whose::Destination);
            w.found.slot != NO_SLOT
        }
        Side::Leaving | Side::FromNode => false,
    };
    if of_pod { Action::drop(DropReason::NotAsked) } else { Action::GO_ON }
}

/// Whether an error that the host's stack brings to a pod is the node's own, or was sent by the pod in a slot.
#[inline(always)]
fn is_near<K: Kernel>(k: &K, w: &Walk, slot: u16) -> bool {
    let made_here = k.ingress_ifindex() == 0 && w.packet.fragment == Fragment::NONE;
    made_here || (slot != NO_SLOT && came_from(k, w, slot))
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
        flow.is(FlowFlags::NEAR) && (matches!(side, Side::Leaving | Side::FromNode) || !flow.is(FlowFlags::AT_UPLINK))
    }
}
