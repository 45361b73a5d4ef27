//! Policy: both ends of a flow, when it is new and when the policy of an end has changed.

use super::address::Whose;
use super::address::stage::look_up;
use super::opening::begins;
use crate::Addr;
use crate::drop::DropReason;
use crate::flow::stage::forget;
use crate::flow::{self, FlowFlags, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::Class;
use crate::peer::{NO_SLOT, PeerFlags, PodWord};
use crate::policy;
use crate::scratch::Walk;

stages! {
    fn decide(set: u32, class: u32) -> bool, as Decide;
    fn judge_again(place: Place) -> Result<(), DropReason>, as JudgeAgain;
}

/// Asks the egress policy of a pod about `w.ends`; `class` is the responder's.
#[inline(always)]
pub(super) fn egress<K: Kernel>(k: &K, w: &mut Walk, word: PodWord, class: u32) -> Result<(), DropReason> {
    // A pod is never kept from itself (P31).
    if w.ends.opener == w.ends.responder && word.egress() != policy::DENY_ALL {
        return Ok(());
    }
    if word.egress() == policy::ALLOW_ALL || stage::decide(k, w, word.egress(), class) {
        return Ok(());
    }
    Err(if word.is_pending() { DropReason::Pending } else { DropReason::EgressPolicy })
}

/// Asks the ingress policy of a pod about `w.ends`. The opener is looked up only if a policy wants to know it.
#[inline(always)]
pub(super) fn ingress<K: Kernel>(k: &K, w: &mut Walk, word: PodWord) -> Result<(), DropReason> {
    if w.ends.opener == w.ends.responder && word.ingress() != policy::DENY_ALL {
        return Ok(());
    }
    if word.ingress() == policy::ALLOW_ALL {
        return Ok(());
    }
    if word.ingress() != policy::DENY_ALL {
        look_up(k, w, Whose::Opener);
        if w.found.flags & PeerFlags::RACED != 0 {
            return Err(DropReason::Race);
        }
        if stage::decide(k, w, word.ingress(), w.found.class) {
            return Ok(());
        }
    }
    Err(if word.is_pending() { DropReason::Pending } else { DropReason::IngressPolicy })
}

/// Asks a policy set about `w.ends`, and notes which rule decided.
#[inline(always)]
fn decide<K: Kernel>(k: &K, w: &mut Walk, set: u32, class: u32) -> bool {
    // A later fragment has its ports by now, an echo has an identifier, which no rule means (P37).
    let port = if w.packet.class == Class::PORTS { w.ends.port } else { policy::ANY_PORT };
    let decision = policy::decide(k, set, class, w.packet.proto, port);
    w.set = set;
    w.bit = u32::from(decision.bit);
    decision.allow()
}

/// Turns `w.ends` round: for the question whether the packet may be an answer.
#[inline(always)]
pub(super) fn turn(w: &mut Walk) {
    (w.ends.opener, w.ends.responder) = (w.ends.responder, w.ends.opener);
    w.ends.port = w.packet.tuple.sport;
}

/// Sees to it that a known flow is still allowed: asks again for each end that is a pod of this node and whose policy
/// has changed since it was asked (P39).
///
/// A connection that is denied stays known, and is asked about again with each of its packets: forgotten, the next one
/// could be taken for an answer to what the other end may well open, and bring the connection back. What begins a flow
/// is never taken so.
#[inline(always)]
pub(super) fn recheck<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Result<(), DropReason> {
    let flow = &w.met;
    let (_, out) = moved(k, flow.opener.slot, flow.opener_epoch.value);
    let (_, into) = moved(k, flow.responder.slot, flow.responder_epoch.value);
    if !out && !into {
        return Ok(());
    }
    let judged = stage::judge_again(k, w, place);
    if let Err(reason) = judged
        && (matches!(reason, DropReason::Pending | DropReason::OtherPod) || begins(&w.packet))
    {
        forget(k, w, place.table);
    }
    judged
}

/// Judges a known flow again.
#[inline(always)]
fn judge_again<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Result<(), DropReason> {
    let Some(entry) = k.flow(place.table, &w.draft.key) else { return Err(DropReason::FlowRace) };
    let (opener, responder) = w.met.ends(true);
    let (out_word, out) = moved(k, opener.slot, w.met.opener_epoch.value);
    let (into_word, into) = moved(k, responder.slot, w.met.responder_epoch.value);
    note_ends(w, place.forward);
    if out {
        if !owns(k, opener.slot, w.ends.opener) {
            return Err(DropReason::OtherPod);
        }
        look_up(k, w, Whose::Responder);
        if w.found.flags & PeerFlags::RACED != 0 {
            return Err(DropReason::Race);
        }
        egress(k, w, out_word, w.found.class)?;
        flow::put(k, &entry.opener_epoch, w.draft.key.tag(), out_word.epoch());
    }
    if into {
        if !owns(k, responder.slot, w.ends.responder) {
            return Err(DropReason::OtherPod);
        }
        if !w.met.is(FlowFlags::FROM_NODE) {
            ingress(k, w, into_word)?;
        }
        flow::put(k, &entry.responder_epoch, w.draft.key.tag(), into_word.epoch());
    }
    Ok(())
}

/// The word of a pod, and whether its epoch is no longer the one given.
#[inline(always)]
fn moved<K: Kernel>(k: &K, slot: u16, epoch: u32) -> (PodWord, bool) {
    if slot == NO_SLOT {
        return (PodWord(0), false);
    }
    let word = PodWord(k.pod_word(slot));
    (word, word.epoch() != epoch || word.is_pending())
}

/// Whether a slot's pod still is the one with this address.
#[inline(always)]
fn owns<K: Kernel>(k: &K, slot: u16, addr: Addr) -> bool {
    k.pod(slot).is_some_and(|pod| pod.v4 == addr || pod.v6 == addr)
}

/// Notes the real ends of the flow in `w.met`, from a packet of it and the side of the entry that it met.
#[inline(always)]
fn note_ends(w: &mut Walk, forward: bool) {
    let (flow, t) = (&w.met, &w.packet.tuple);
    w.ends.opener = if flow.is(FlowFlags::FAR) {
        flow.other.src
    } else if forward {
        t.src
    } else {
        t.dst
    };
    (w.ends.responder, w.ends.port) = if flow.is(FlowFlags::NEAR) {
        (flow.other.dst, flow.other.dport)
    } else if forward {
        (t.dst, t.dport)
    } else {
        (t.src, t.sport)
    };
}
