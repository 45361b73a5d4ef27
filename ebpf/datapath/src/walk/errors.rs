//! ICMP errors on their way: they belong to the flow that they quote, and are translated as it is, the other way round.

use super::Action;
use crate::drop::DropReason;
use crate::flow::{Flow, FlowFlags, Hit, Table, find_key};
use crate::kernel::{Kernel, stages};
use crate::packet::{Packet, TCP, quoted, translate_quote};
use crate::peer::{NO_SLOT, PodWord};
use crate::scratch::{Walk, Way};

stages! {
    fn relate(leaving: bool) -> Action, as Relate;
}

/// Finds the flow that an ICMP error is about, translates the error and notes its way. What is about no flow that is
/// known is a packet like any other, and the walk goes on. `leaving`: at the uplink, where the masquerade is made.
#[inline(always)]
fn relate<K: Kernel>(k: &K, w: &mut Walk, leaving: bool) -> Action {
    let Some((inner, proto)) = quoted(k, &w.packet) else { return Action::GO_ON };
    let from_a = w.draft.key.set(&inner, proto);
    let first = if proto == TCP { Table::Established } else { Table::Any };
    let Some(Hit { flow, forward, .. }) = find_key(k, &w.draft.key, from_a, first) else { return Action::GO_ON };
    // The quoted packet went one way, the error goes the other: back to whoever sent the quoted packet.
    let end = if forward { flow.opener } else { flow.responder };
    if end.slot != NO_SLOT && PodWord(k.pod_word(end.slot)).is_pending() {
        return Action::drop(DropReason::Pending);
    }
    w.way = Way::of(flow, end);
    if !translates(flow, forward, leaving) {
        return Action::DELIVER;
    }
    let new = if forward { flow.other } else { flow.other.reversed() };
    let p: &mut Packet = &mut w.packet;
    // Its own source is changed only where it is the end of the flow that has another name on the other side.
    let src = if leaving || p.tuple.src == inner.dst { new.dst } else { p.tuple.src };
    if translate_quote(k, p, &inner, &new, proto, (src, new.src)) {
        Action::DELIVER
    } else {
        Action::drop(DropReason::Rewrite)
    }
}

/// Whether the quote is as one side sees it and the error goes to the other.
#[inline(always)]
fn translates(flow: &Flow, forward: bool, leaving: bool) -> bool {
    if forward {
        flow.is(FlowFlags::FAR)
    } else {
        flow.is(FlowFlags::NEAR) && (leaving || !flow.is(FlowFlags::AT_UPLINK))
    }
}
