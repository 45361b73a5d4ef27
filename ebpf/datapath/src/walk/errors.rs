//! ICMP errors on their way: they belong to the flow that they quote, and are translated as it is, the other way round.

use super::Walk;
use crate::flow::{End, Flow, FlowFlags, Hit, Table, find_key};
use crate::kernel::Kernel;
use crate::packet::{Packet, TCP, quoted, translate_quote};

/// Where an error that belongs to a flow goes: a word, as [`super::Action`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Related(u64);

impl Related {
    /// To none that is known.
    pub const NONE: Self = Self(0);
    const KNOWN: u64 = 1 << 32;
    const STACK: u64 = 1 << 33;
    const WHOLE: u64 = 1 << 34;

    #[inline(always)]
    const fn new(end: End, stack: bool, whole: bool) -> Self {
        let stack = if stack { Self::STACK } else { 0 };
        let whole = if whole { Self::WHOLE } else { 0 };
        Self(end.slot as u64 | (end.node as u64) << 16 | Self::KNOWN | stack | whole)
    }

    /// Whether it belongs to a flow.
    #[inline(always)]
    #[must_use]
    pub const fn known(self) -> bool {
        self.0 & Self::KNOWN != 0
    }

    /// The end that it goes to.
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> End {
        End { slot: self.0 as u16, node: (self.0 >> 16) as u16 }
    }

    /// Whether the flow goes through the host's stack.
    #[inline(always)]
    #[must_use]
    pub const fn stack(self) -> bool {
        self.0 & Self::STACK != 0
    }

    /// False if it could not be rewritten.
    #[inline(always)]
    #[must_use]
    pub const fn whole(self) -> bool {
        self.0 & Self::WHOLE != 0
    }

    /// The word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// From the word.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

/// Finds the flow that an ICMP error is about and translates the error. What is about no flow that is known is a packet
/// like any other. `leaving`: at the uplink, where the masquerade is made.
#[inline(always)]
pub fn relate<K: Kernel>(k: &K, w: &mut Walk, leaving: bool) -> Related {
    let Some((inner, proto)) = quoted(k, &w.packet) else { return Related::NONE };
    let from_a = w.draft.key.set(&inner, proto);
    let first = if proto == TCP { Table::Established } else { Table::Any };
    let Some(Hit { flow, forward, .. }) = find_key(k, &w.draft.key, from_a, first) else { return Related::NONE };
    // The quoted packet went one way, the error goes the other: back to whoever sent the quoted packet.
    let end = if forward { flow.opener } else { flow.responder };
    let stack = flow.is(FlowFlags::STACK);
    if !translates(flow, forward, leaving) {
        return Related::new(end, stack, true);
    }
    let new = if forward { flow.other } else { flow.other.reversed() };
    let p: &mut Packet = &mut w.packet;
    // Its own source is changed only where it is the end of the flow that has another name on the other side.
    let src = if leaving || p.tuple.src == inner.dst { new.dst } else { p.tuple.src };
    let whole = translate_quote(k, p, &inner, &new, proto, (src, new.src));
    Related::new(end, stack, whole)
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
