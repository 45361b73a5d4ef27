//! Policy: both ends of a flow, when it is new and when the policy of an end has changed.

use super::address::Whose;
use super::address::stage::look_up;
use super::opening::begins;
use crate::Addr;
use crate::drop::DropReason;
use crate::flow::stage::{bury, forget};
use crate::flow::{self, FlowFlags, Place};
use crate::kernel::{Kernel, stages};
use crate::packet::Class;
use crate::peer::{NO_SLOT, PeerFlags, PodWord};
use crate::policy::{self, HitKey, NO_BIT, Question};
use crate::scratch::{Asked, Walk};

stages! {
    fn decide(set: u32, class: u32, out: bool) -> bool, as Decide;
    fn count_opened() -> (), as CountOpened;
    fn judge_again(place: Place) -> Result<(), DropReason>, as JudgeAgain;
    fn leave(place: Place) -> (), as Leave;
}

/// Asks the egress policy of a pod about `w.ends`; `class` is the responder's.
#[inline(always)]
pub(super) fn egress<K: Kernel>(k: &K, w: &mut Walk, word: PodWord, class: u32) -> Result<(), DropReason> {
    let set = word.egress();
    if set == policy::ALLOW_ALL || (!policy::is_closed(set) && stage::decide(k, w, set, class, true)) {
        return Ok(());
    }
    Err(refusal(word, set, DropReason::EgressPolicy))
}

/// Asks the ingress policy of a pod about `w.ends`. The opener is looked up only if a policy wants to know it.
#[inline(always)]
pub(super) fn ingress<K: Kernel>(k: &K, w: &mut Walk, word: PodWord) -> Result<(), DropReason> {
    if word.ingress() == policy::ALLOW_ALL {
        return Ok(());
    }
    if !policy::is_closed(word.ingress()) {
        look_up(k, w, Whose::Opener);
        if w.found.flags & PeerFlags::RACED != 0 {
            return Err(DropReason::Race);
        }
        if stage::decide(k, w, word.ingress(), w.found.class, false) {
            return Ok(());
        }
    }
    Err(refusal(word, word.ingress(), DropReason::IngressPolicy))
}

/// Why a pod's policy set lets something not pass.
#[inline(always)]
fn refusal(word: PodWord, set: u32, by_policy: DropReason) -> DropReason {
    if word.is_pending() {
        DropReason::Pending
    } else if set == policy::CUT_OFF {
        DropReason::CutOff
    } else {
        by_policy
    }
}

/// Asks a policy set about `w.ends`, and notes which rule decided. `out`: it judges what the opener sends.
#[inline(always)]
fn decide<K: Kernel>(k: &K, w: &mut Walk, set: u32, class: u32, out: bool) -> bool {
    // A later fragment has its ports by now, an echo has an identifier, which no rule means (P37).
    let port = if w.packet.class == Class::PORTS { w.ends.port } else { policy::ANY_PORT };
    // What a pod sends to its own address stays in it (P31): this has come by way of a Service (P32).
    let own = w.ends.opener == w.ends.responder;
    let proto = w.packet.proto;
    w.passed = u32::from(NO_BIT);
    let asked = Question { set, class, proto, port, own };
    let page = |key, class, ranges| k.policy_page(key, class, ranges);
    let decision = policy::decide_by(k, &asked, &mut w.passed, page);
    let asked = Asked { set, bit: u32::from(decision.bit), passed: w.passed };
    // Told apart here and not before: the verifier would walk every page twice.
    *(if out { &mut w.egress } else { &mut w.ingress }) = asked;
    decision.allow()
}

/// Counts a flow to the rules that allowed it, at both ends, if the packet has made one. Those that make one leave no room on
/// their stacks to do it.
#[inline(always)]
pub(super) fn count_made<K: Kernel>(k: &K, w: &mut Walk) {
    if w.makes != 0 {
        stage::count_opened(k, w);
    }
}

/// Counts a flow that was made.
#[inline(always)]
fn count_opened<K: Kernel>(k: &K, w: &mut Walk) {
    count(k, &w.egress, false);
    count(k, &w.ingress, false);
}

/// Counts a packet that is dropped to the rule that denied it, if one did.
#[inline(always)]
pub fn count_denied<K: Kernel>(k: &K, w: &Walk, reason: DropReason) {
    count(k, decided(w, reason), true);
}

/// The policy set by which a packet is dropped, and the rule.
#[inline(always)]
pub fn decided(w: &Walk, reason: DropReason) -> &Asked {
    match reason {
        DropReason::EgressPolicy if w.egress.set != 0 => &w.egress,
        DropReason::IngressPolicy if w.ingress.set != 0 => &w.ingress,
        _ => &Asked::NOBODY,
    }
}

/// A rule of the Admin tier that passed something on has been met as well as the one that decided in the end.
#[inline(always)]
fn count<K: Kernel>(k: &K, asked: &Asked, denied: bool) {
    if asked.set == 0 {
        return;
    }
    if asked.passed != u32::from(NO_BIT) {
        k.count_hit(&HitKey { set: asked.set, bit: asked.passed }, denied);
    }
    k.count_hit(&HitKey { set: asked.set, bit: asked.bit }, denied);
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
/// is never taken so. A pod that is being removed has no policy in force before its address is gone: its connections
/// stay known meanwhile, since who is at their other end is told once it is.
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
        && (reason == DropReason::OtherPod || begins(&w.packet))
    {
        stage::leave(k, w, place);
    }
    judged
}

/// Takes out a flow that may not go on. If its other end's pod is gone, the sender is told with its next packet.
#[inline(always)]
fn leave<K: Kernel>(k: &K, w: &mut Walk, place: Place) {
    let (_, receiver) = w.met.ends(place.forward);
    let addr = if place.forward { w.ends.responder } else { w.ends.opener };
    if receiver.slot != NO_SLOT
        && !owns(k, receiver.slot, addr)
        && flow::outlives_its_pod(&w.met, &w.packet, place.table)
    {
        bury(k, w, place.table, receiver.slot);
    } else {
        forget(k, w, place.table);
    }
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
        // It may have been opened by a name that no longer opens any.
        egress(k, w, out_word, w.found.known_class())?;
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
    // It goes on. If the packet makes another flow after all, this was not asked for that.
    (w.egress.set, w.ingress.set) = (0, 0);
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
