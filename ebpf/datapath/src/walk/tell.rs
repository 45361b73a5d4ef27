//! Whether whoever sent a packet that is refused is told: by an ICMP error or a reset, which goes to the source that the packet
//! says it is from.
//!
//! | where it is refused | told |
//! |---|---|
//! | at a pod's interface | that pod, whose address has been checked |
//! | where it came in from outside, or by the tunnel | who says to be elsewhere, out of the same interface: not who says to be this node or a pod of it, nor a pod elsewhere where no other node is |
//! | on the node's own way to services | the node, if it has that address; a pod, or who is behind an interface that nobody serves, if the packet came in where the node's routes lead to its source |
//!
//! Nobody is told of a frame to a group of stations, or by an address that is not that of one host (RFC 1122 section 3.2.2, RFC 4443
//! section 2.4 (e)), and nobody too often: see [`crate::errors`].

use super::address::stage::look_up;
use super::address::{Whose, check_destination, is_broadcast};
use super::give_way::is_marked;
use super::outside::leads_to_nodes;
use crate::bandwidth::Limit;
use crate::errors::{self, Receiver};
use crate::kernel::{Kernel, Onward, stages};
use crate::packet::is_answerable;
use crate::peer::{NO_NODE, NO_SLOT, PeerFlags, slot_at};
use crate::register::variants;
use crate::scratch::Walk;
use crate::svc;

stages! {
    fn may_tell() -> bool, as MayTell;
    fn take_turn(to: Receiver, bucket: u32) -> bool, as TakeTurn;
}

variants!(Receiver: Pod, Own, Node; else Outside);

/// Whether the sender of a packet that is refused is told. The packet is as it came; the walk has no other use for what is noted.
#[inline(always)]
fn may_tell<K: Kernel>(k: &K, w: &mut Walk) -> bool {
    if !is_answerable(&w.packet) {
        return false;
    }
    let Some((to, bucket)) = receiver(k, w) else { return false };
    stage::take_turn(k, w, to, bucket)
}

/// Whether it is the turn of another error to a receiver, whose bucket this is. One that is not sent is counted.
#[inline(always)]
fn take_turn<K: Kernel>(k: &K, _: &mut Walk, to: Receiver, bucket: u32) -> bool {
    let is_turn = in_turn(k, bucket, &errors::TO_ONE)
        && (to != Receiver::Outside || in_turn(k, errors::OUTSIDE, &errors::TO_OUTSIDE));
    if !is_turn {
        k.count_unsent(to);
    }
    is_turn
}

/// Who is told, and the index of the bucket that this counts in. `None`: nobody may be.
#[inline(always)]
fn receiver<K: Kernel>(k: &K, w: &mut Walk) -> Option<(Receiver, u32)> {
    let at = k.ifindex();
    if let Some(slot) = slot_at(k, at) {
        return Some((Receiver::Pod, errors::of_pod(slot)));
    }
    if at == svc::IFINDEX {
        return on_way_to_services(k, w);
    }
    // To a group of stations, or from what is no host's address.
    let is_to_group = k.load::<[u8; 6]>(0).is_none_or(|[first, ..]| first & 1 != 0);
    let (src, v6) = (w.packet.tuple.src, w.packet.v6 == 1);
    if is_to_group || check_destination(src, v6).is_err() || is_broadcast(k, src, v6) {
        return None;
    }
    look_up(k, w, Whose::Source);
    if w.found.slot != NO_SLOT || w.found.flags & (PeerFlags::SELF | PeerFlags::RACED) != 0 {
        return None;
    }
    let by_nodes = leads_to_nodes(k, at);
    if w.found.node != NO_NODE {
        if by_nodes {
            return Some((Receiver::Node, errors::of_node(w.found.node)));
        }
        if w.found.flags & PeerFlags::POD != 0 {
            return None;
        }
    }
    let seed = k.config()?.seed;
    Some((Receiver::Outside, errors::of_network(seed, w.packet.tuple.src)))
}

/// The same of what the node's routes have brought to the device for services: who sent it, if they lead back from its source to
/// where it came in.
#[inline(always)]
fn on_way_to_services<K: Kernel>(k: &K, w: &mut Walk) -> Option<(Receiver, u32)> {
    let by = k.ingress_ifindex();
    if !leads_back(k, w, by) {
        return None;
    }
    if by == 0 {
        return Some((Receiver::Own, errors::OWN));
    }
    // Its source was looked at there.
    if let Some(slot) = slot_at(k, by) {
        return Some((Receiver::Pod, errors::of_pod(slot)));
    }
    let seed = k.config()?.seed;
    Some((Receiver::Outside, errors::of_network(seed, w.packet.tuple.src)))
}

/// Whether the node's routes lead from a packet's source to where it came in: nowhere, where the node itself sent it from an
/// address that it has.
#[inline(always)]
fn leads_back<K: Kernel>(k: &K, w: &mut Walk, by: u32) -> bool {
    // A fragment that the stack made of a pod's packet has come in nowhere.
    if by == 0 && is_marked(k) {
        return false;
    }
    w.draft.target = w.packet.tuple.reversed();
    w.way.translate = 1;
    let Onward { ifindex, mtu } = k.route(w, 0);
    if by == 0 { ifindex == 0 && mtu == 0 } else { ifindex == by }
}

/// Whether it is the turn of another error, of which a bucket takes so many.
#[inline(always)]
fn in_turn<K: Kernel>(k: &K, bucket: u32, limit: &Limit) -> bool {
    let Some(word) = k.error_turn(bucket) else { return false };
    let (next, takes) = (word.load(), limit.duration(1));
    let Some(turn) = limit.turn(next, k.nanoseconds()) else { return false };
    // Who comes second finds that the turn is not in the past: it has only to be moved on.
    if !k.swap_if(word, next, turn + takes) {
        k.add(word, takes as i64);
    }
    true
}
