//! What may open a flow, and what a packet is to a flow that has its tuple.
//!
//! A flow is trusted for what it was judged for: packets of the connection that its opener began. What begins another one
//! is judged as that, whatever entry it meets.
//!
//! | segment | no entry | entry, from the opener | entry, from the responder |
//! |---|---|---|---|
//! | SYN | judged, opens a flow | the opener's own again (same sequence number): part of it. Another: the flow is over, unanswered or its backend has left: forgotten, judged, opens; else passed on to the same backend, the entry stays as it is | judged, opens a flow of its own |
//! | SYN-ACK, ACK, data | judged in its direction, leaves no entry. While the tables are new: in either direction, and picked up | part of it | part of it |
//! | RST | judged in either direction, leaves no entry | part of it | part of it |
//! | FIN with ACK | as data, leaves no entry | part of it | part of it |
//! | none of SYN, ACK, RST | dropped | part of it | part of it |

use super::Action;
use crate::drop::DropReason;
use crate::flow::stage::forget;
use crate::flow::{FlowState, NO_BACKEND, Place, is_over, keep_port, opens, pass_aside};
use crate::kernel::{Kernel, stages};
use crate::packet::{Class, Packet, TCP, TcpFlags};
use crate::register::{Answer, variants};
use crate::scratch::Walk;
use crate::service;

stages! {
    fn part_of_syn(place: Place) -> Part, as PartOfSyn;
}

/// What a packet without an entry can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opening(u32);

impl Opening {
    /// The first of a flow.
    const FIRST: u32 = 0;
    /// One of a connection that is older than the tables: it is picked up if policy allows either direction.
    const OLDER: u32 = 1;
    /// The end of something: passed on if policy allows either direction, and leaves no entry.
    const LAST: u32 = 2;
    /// Of a connection that is not known: passed on if policy allows its own direction, and leaves no entry. The receiver
    /// knows whether it is one.
    const STRAY: u32 = 3;

    /// What a packet can be, or why it is dropped.
    #[inline(always)]
    pub(super) fn of<K: Kernel>(k: &K, w: &mut Walk) -> Result<Self, DropReason> {
        w.opening = number(k, &w.packet)?;
        Ok(Self(k.reread(&w.opening)))
    }

    /// Whether it begins a flow by itself.
    #[inline(always)]
    pub(super) fn begins(self) -> bool {
        self.0 == Self::FIRST
    }

    /// Whether it may be an answer in a connection that the other end opened.
    #[inline(always)]
    pub(super) fn may_answer(self) -> bool {
        matches!(self.0, Self::OLDER | Self::LAST)
    }

    /// Whether an entry is made for it.
    #[inline(always)]
    pub(super) fn is_kept(self) -> bool {
        matches!(self.0, Self::FIRST | Self::OLDER)
    }
}

#[inline(always)]
fn number<K: Kernel>(k: &K, p: &Packet) -> Result<u32, DropReason> {
    if p.proto != TCP || p.class != Class::PORTS || opens(p) {
        return Ok(Opening::FIRST);
    }
    if p.tcp & TcpFlags::RST != 0 {
        return Ok(Opening::LAST);
    }
    // Each segment but the first has ACK (RFC 9293 section 3.1): what has not is no part of any connection.
    if p.tcp & TcpFlags::ACK == 0 {
        return Err(DropReason::NoConnection);
    }
    Ok(match (tables_are_new(k), p.tcp & TcpFlags::FIN != 0) {
        (true, false) => Opening::OLDER,
        (true, true) => Opening::LAST,
        (false, _) => Opening::STRAY,
    })
}

/// Whether connections are older than the tables, so that they are picked up.
#[inline(always)]
pub(super) fn tables_are_new<K: Kernel>(k: &K) -> bool {
    k.config().is_some_and(|config| k.seconds() < config.pickup_until)
}

/// Whether a packet may begin a flow by itself.
#[inline(always)]
pub(super) fn begins(p: &Packet) -> bool {
    p.proto != TCP || p.class != Class::PORTS || opens(p)
}

/// What a packet is to a flow that has its tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A packet of it.
    Own,
    /// A SYN that its opener did not send before, while the connection lives: it goes where the connection goes and
    /// changes nothing. The receiver answers it with a challenge (RFC 9293 section 3.10.7.4, RFC 5961 section 4).
    Aside,
    /// None: it is judged as what opens a flow.
    Not,
}

variants!(Part: Own, Aside; else Not);

impl Answer for Part {
    const BROKEN: Self = Self::Not;
}

/// What a packet is to the flow that it met.
#[inline(always)]
pub(super) fn part_in<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Part {
    if opens(&w.packet) { stage::part_of_syn(k, w, place) } else { Part::Own }
}

/// What a SYN is to the flow that it met. One that is over, and whose place a new one may take, is forgotten.
#[inline(always)]
fn part_of_syn<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Part {
    let Place { table, forward } = place;
    let flow = &w.met;
    let state = flow.state.value;
    let over = is_over(state);
    let again = forward && flow.isn == w.packet.seq;
    let unanswered = state & FlowState::REPLIED == 0;
    let left = flow.backend != NO_BACKEND && service::flow_is_stale(k, flow.backend, flow.generation.value, true);
    // One that was answered and comes once more, late, ends nothing.
    if over || (forward && if again { left && unanswered } else { left || unanswered }) {
        if over && forward {
            keep_port(k, w, table);
        }
        forget(k, w, table);
        return Part::Not;
    }
    match (forward, again) {
        (true, true) => Part::Own,
        (true, false) => {
            pass_aside(k, w, place);
            Part::Aside
        }
        (false, _) => Part::Not,
    }
}

/// What a tag makes of a frame: one that only gives a priority is taken off, and the walk goes on.
#[inline(always)]
pub(super) fn untag<K: Kernel>(k: &K, of_a_vlan: Action) -> Action {
    match k.vlan() {
        None => Action::GO_ON,
        Some(0) if k.untag() => Action::GO_ON,
        Some(_) => of_a_vlan,
    }
}
