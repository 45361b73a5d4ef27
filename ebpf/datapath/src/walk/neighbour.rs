//! What a pod asks about its gateway.

use super::Action;
use crate::kernel::{Kernel, stages};
use crate::packet::{answer_arp, answer_solicitation};
use crate::scratch::Walk;

stages! {
    fn answer_neighbour(slot: u16, arp: bool) -> Action, as AnswerNeighbour;
}

/// A pod that asks for its gateway's MAC gets it (ARP or neighbour discovery); the rest of those protocols ends here.
#[inline(always)]
fn answer_neighbour<K: Kernel>(k: &K, w: &mut Walk, slot: u16, arp: bool) -> Action {
    let Some(pod) = k.pod(slot) else { return Action::IGNORE };
    let answered = if arp { answer_arp(k, pod) } else { answer_solicitation(k, &w.packet, pod) };
    if answered { Action::ANSWER } else { Action::IGNORE }
}
