//! Bandwidth: what pods with a limit may send and receive in a second.
//!
//! Each pod has one word for each direction, the time at which the next packet's turn is (the generic cell rate algorithm,
//! I.371). A packet that comes later than that begins anew; one that comes earlier is let through as long as it is not too
//! far ahead, and dropped beyond. So one word is both: the bucket of a policer, and the departure time of packets that wait
//! for their turn. The latter is for what leaves the node, where a queue at the uplink keeps such times (fq); who hands a
//! packet to a pod passes by all queues.
//!
//! What the programs at a pod's interface let out counts for the sender, by whoever receives it. What is handed to a pod
//! counts for the receiver, and by the program that does it.

use super::Action;
use super::action::Step;
use crate::bandwidth::{Bandwidth, Limit, Pace};
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::packet::headers_len;
use crate::register::variants;
use crate::scratch::Walk;
use crate::slot_of;

stages! {
    fn pass(slot: u16, how: Passage) -> bool, as Pass;
}

/// How a packet passes a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Passage {
    /// The pod receives it.
    Received = 0,
    /// The pod sent it, to a pod of this node.
    SentHere = 1,
    /// The pod sent it, to elsewhere.
    SentAway = 2,
}

variants!(Passage: Received, SentHere; else SentAway);

/// Holds a packet that is on its way to the limits of its ends: of the pod whose interface it came in by, and of the pod that
/// it is handed to. What is refused or dropped anyway does not count.
#[inline(always)]
pub(super) fn hold<K: Kernel>(k: &K, w: &mut Walk, action: Action) -> Action {
    let how = match action.step() {
        Step::ToPod(_) => Passage::SentHere,
        Step::Stack | Step::Home | Step::ToNode(..) | Step::Out(..) => Passage::SentAway,
        _ => return action,
    };
    if let Some(slot) = slot_of(k.ifindex())
        && !may_pass(k, w, slot, how)
    {
        return Action::drop(DropReason::Bandwidth);
    }
    if let Step::ToPod(slot) = action.step()
        && !may_pass(k, w, slot, Passage::Received)
    {
        return Action::drop(DropReason::Bandwidth);
    }
    action
}

/// Whether a packet is within a pod's limit, which most have none of.
#[inline(always)]
pub(super) fn may_pass<K: Kernel>(k: &K, w: &mut Walk, slot: u16, how: Passage) -> bool {
    let limited = k.bandwidth(slot).is_some_and(|bandwidth| how.limit(bandwidth).rate != 0);
    !limited || stage::pass(k, w, slot, how)
}

impl Passage {
    #[inline(always)]
    const fn limit(self, bandwidth: &Bandwidth) -> &Limit {
        match self {
            Self::Received => &bandwidth.ingress,
            Self::SentHere | Self::SentAway => &bandwidth.egress,
        }
    }
}

/// The same, of a pod that may have a limit.
#[inline(always)]
fn pass<K: Kernel>(k: &K, w: &mut Walk, slot: u16, how: Passage) -> bool {
    let (Some(bandwidth), Some(Pace { egress, ingress })) = (k.bandwidth(slot), k.pace(slot)) else { return true };
    let limit = how.limit(bandwidth);
    if limit.rate == 0 {
        return true;
    }
    let word = if how == Passage::Received { ingress } else { egress };
    let (next, now) = (word.load(), k.nanoseconds());
    let Some(turn) = limit.turn(next, now) else { return false };
    let takes = limit.duration(bytes(k, w));
    // Who comes second finds that the turn is not in the past: it has only to be moved on.
    if !k.swap_if(word, next, turn + takes) {
        k.add(word, takes as i64);
    }
    if how == Passage::SentAway && limit.paced != 0 && turn > now {
        k.depart_at(turn);
    }
    true
}

/// The bytes of a packet on a wire, where each segment of an aggregate has headers of its own.
#[inline(always)]
fn bytes<K: Kernel>(k: &K, w: &Walk) -> u32 {
    let (len, payload) = (k.packet_len(), k.segment_size());
    if payload == 0 {
        return len;
    }
    let headers = headers_len(k, &w.packet).unwrap_or(w.packet.l4);
    len + len.saturating_sub(headers + 1) / payload * headers
}
