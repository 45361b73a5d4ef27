//! What a pod asks about its gateway, and what is between neighbours alone.

use super::Action;
use crate::Addr;
use crate::kernel::{Kernel, stages};
use crate::packet::{answer_arp, answer_solicitation};
use crate::scratch::{Fragment, Packet, Walk};

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

/// Whether a message of neighbour or listener discovery is one that no router has passed on, or would: its type alone makes nothing
/// traffic between neighbours. Receivers discard others (RFC 4861 sections 6.1 and 7.1, RFC 2710 section 3, RFC 3810 section 5), and
/// none is in fragments (RFC 6980).
#[inline(always)]
pub(super) fn is_between_neighbours(p: &Packet) -> bool {
    let (src, [dst, ..]) = (p.tuple.src, p.tuple.dst.hi.to_ne_bytes());
    let of_listeners = match p.icmp_type {
        133..=137 => return p.fragment == Fragment::NONE && p.ttl == 255,
        // A query may be for one listener.
        130 => dst == 0xff || is_link_local(src),
        _ => dst == 0xff,
    };
    p.fragment == Fragment::NONE && p.ttl == 1 && of_listeners
}

/// Whether it may be a pod's, which has this address: from that, from one of its link, or from none.
#[inline(always)]
pub(super) fn may_be_from(p: &Packet, own: Addr) -> bool {
    let src = p.tuple.src;
    src == Addr::UNSPECIFIED || is_link_local(src) || src == own
}

#[inline(always)]
fn is_link_local(addr: Addr) -> bool {
    let [first, second, ..] = addr.hi.to_ne_bytes();
    first == 0xfe && second & 0xc0 == 0x80
}
