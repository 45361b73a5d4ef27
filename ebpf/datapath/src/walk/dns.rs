//! DNS queries that are answered on their way to the node's DNS server.
//!
//! A query is answered once it has been judged, and only if it would be handed to the server's own pod, whatever address it was
//! sent to: so nothing is answered that policy would have dropped, at either end, and nobody is answered in another server's name.

use super::Action;
use super::judge;
use crate::WirePort;
use crate::dns::{LONGEST_ZONE, PORT, ZoneFlags, find, respond};
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::packet::{Class, ETH_LEN, Fragment, UDP};
use crate::peer::is_foreign;
use crate::scratch::Walk;

stages! {
    fn find_answer(port: u32) -> bool, as FindAnswer;
    fn give_answer() -> Action, as GiveAnswer;
}

/// Whether a packet looks like a query. All others pay for this and no more.
#[inline(always)]
pub(super) fn is_asked(w: &Walk) -> bool {
    w.packet.tuple.dport == WirePort::new(PORT) && w.packet.proto == UDP
}

/// Whether a query that is answered leaves no entry of a flow. Where somebody looks at flows to learn what policies in audit mode
/// would deny, it does.
#[inline(always)]
pub(super) fn leaves_no_flow<K: Kernel>(k: &K) -> bool {
    k.dns_zone().is_some_and(|zone| zone.flags & ZoneFlags::FLOWS == 0)
}

/// Answers a query that is to be delivered to a port, if it is one that can be answered here. Else it still is to be delivered.
#[inline(always)]
pub(super) fn answer<K: Kernel>(k: &K, w: &mut Walk, port: WirePort) -> Action {
    if is_foreign(k.ifindex()) || !stage::find_answer(k, w, u32::from(port.bits())) {
        return Action::DELIVER;
    }
    judge::count_made(k, w);
    stage::give_answer(k, w)
}

/// The same of a packet that is part of a flow: what has made one has been asked about before, unless it was to make one.
#[inline(always)]
pub(super) fn answer_in_flow<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    if w.makes != 0 && leaves_no_flow(k) {
        return Action::DELIVER;
    }
    let port = if w.way.translate != 0 { w.draft.target.dport } else { w.packet.tuple.dport };
    answer(k, w, port)
}

/// Reads a query that goes to a port, and finds what is to be said.
#[inline(always)]
fn find_answer<K: Kernel>(k: &K, w: &mut Walk, port: u32) -> bool {
    const V4_L4: u32 = ETH_LEN + 20;
    const V6_L4: u32 = ETH_LEN + 40;
    let Some(zone) = k.dns_zone() else { return false };
    let (p, way) = (&w.packet, &w.way);
    let to_server = u32::from(way.end.slot) == zone.server && port == u32::from(zone.port.bits()) && way.stack == 0;
    if k.seconds() >= zone.until || !to_server || zone.length > LONGEST_ZONE {
        return false;
    }
    let l4 = if p.v6 == 1 { V6_L4 } else { V4_L4 };
    // Without options, whole, the last thing in its frame, and with a hop left for the way to the server.
    let whole = p.fragment == Fragment::NONE && p.class == Class::PORTS && p.l4 == l4;
    if !whole || p.end != k.packet_len() || k.segment_size() != 0 || p.ttl <= 1 {
        return false;
    }
    let Some(length) = k.load::<u16>(l4 + 4) else { return false };
    let length = u32::from(u16::from_be(length));
    length > 8 && l4 + length == p.end && find(k, w, l4 + 8, length - 8, zone)
}

/// Turns the packet into the response.
#[inline(always)]
fn give_answer<K: Kernel>(k: &K, w: &mut Walk) -> Action {
    let Some(zone) = k.dns_zone() else { return Action::DELIVER };
    match respond(k, w, zone) {
        None => Action::DELIVER,
        Some(false) => Action::drop(DropReason::Rewrite),
        Some(true) => {
            k.count_dns(w.question.answer);
            Action::ANSWER
        }
    }
}
