//! From a packet to the flow that it is part of.

use super::life::{has_expired, idle_for};
use super::window;
use crate::kernel::{Kernel, stages};
use crate::packet::{Packet, TCP, TcpFlags};
use crate::register::{Answer, Register, variants};
use crate::scratch::Walk;
use crate::tables::flow::{Flow, FlowFlags, Table};

stages! {
    fn look(from_a: bool, opens: bool) -> Option<Place>, as Look;
}

/// Where a packet is looked at, which says what it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// As it comes in: nobody here has rewritten it.
    Ingress,
    /// As it goes out to a pod: it may have been.
    EgressPod,
    /// As it leaves the node: it may have been, or may have to be now.
    EgressUplink,
}

/// Where a packet's entry is, and which direction the packet has. A copy of the entry is in `Walk::met`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which table.
    pub table: Table,
    /// Whether the packet goes from opener to responder.
    pub forward: bool,
}

variants!(Table: Established; else Any);

impl Register for Place {
    #[inline(always)]
    fn pack(self) -> u64 {
        self.table.pack() << 1 | u64::from(self.forward)
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        Self { table: Table::unpack(word >> 1 & 1), forward: word & 1 != 0 }
    }
}

impl Register for Option<Place> {
    #[inline(always)]
    fn pack(self) -> u64 {
        self.map_or(0, |place| place.pack() | 4)
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        (word != 0).then(|| Place::unpack(word))
    }
}

impl Answer for Option<Place> {
    const BROKEN: Self = None;
}

/// Whether a packet opens a TCP connection: SYN without ACK.
#[inline(always)]
#[must_use]
pub fn opens(p: &Packet) -> bool {
    p.proto == TCP && p.tcp & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
}

/// Finds the flow of a packet: a copy of its entry is in `w.met`, its key in `w.draft.key` (with `alternate` set if the plain
/// key is somebody else's).
///
/// One tuple can be the far one of a translated flow and at the same time be used by a pod itself (the same client port
/// to a service and, directly, to its backend). The far entry has the key; the direct flow has the key with `alternate`
/// and got another source port, also when the other one has ended.
#[inline(always)]
pub fn find<K: Kernel>(k: &K, w: &mut Walk, at: At) -> Option<Place> {
    let from_a = w.draft.key.set(&w.packet.tuple, w.packet.proto);
    let opens = opens(&w.packet);
    let plain = stage::look(k, w, from_a, opens);
    if let Some(found) = plain
        && usable(&w.met, found.forward, at, opens)
    {
        return Some(found);
    }
    w.draft.key.set_alternate(true);
    let beside = stage::look(k, w, from_a, opens);
    if plain.is_some() {
        return beside;
    }
    // The flow that had the tuple first is over. The one beside it has not moved.
    if let Some(found) = beside
        && usable(&w.met, found.forward, at, opens)
    {
        return beside;
    }
    w.draft.key.set_alternate(false);
    None
}

/// Finds the entry of the key in `w.draft.key`, as [`find`] does. `from_a`: the packet comes from end `a`; `opens`: it opens a
/// TCP connection.
#[inline(always)]
fn look<K: Kernel>(k: &K, w: &mut Walk, from_a: bool, opens: bool) -> Option<Place> {
    let Walk { draft, met, now, .. } = w;
    let key = &draft.key;
    let tcp = key.proto == TCP;
    let tag = key.tag();
    *now = k.seconds();
    let mut table = if tcp && !opens { Table::Established } else { Table::Any };
    // The likelier table first. If another CPU moves an entry from the second to the first between the two looks, it is in
    // the first.
    for turn in 0..3 {
        if let Some(entry) = k.flow(table, key)
            && entry.read(tag, met)
            && !has_expired(k, met, key.proto, *now)
        {
            return Some(Place { table, forward: from_a == met.is(FlowFlags::OPENER_IS_A) });
        }
        if !tcp || (turn == 1 && opens) {
            return None;
        }
        table = if table == Table::Any { Table::Established } else { Table::Any };
    }
    None
}

/// Finds the flow of a packet at the driver, if it has a live entry in the table that it belongs in: TCP after its handshake in that
/// of the established. Nothing of one that has been idle for a moment, whose next hop has to be asked for again, maybe.
#[inline(always)]
pub fn meet<K: Kernel>(k: &K, w: &mut Walk) -> Option<Place> {
    let Walk { draft, met, now, packet, .. } = w;
    let from_a = draft.key.set(&packet.tuple, packet.proto);
    let table = if packet.proto == TCP { Table::Established } else { Table::Any };
    *now = k.seconds();
    let entry = k.flow(table, &draft.key)?;
    if !entry.read(draft.key.tag(), met) || idle_for(met, *now) >= window::SILENCE {
        return None;
    }
    Some(Place { table, forward: from_a == met.is(FlowFlags::OPENER_IS_A) })
}

/// Whether a packet that meets an entry can be part of its flow.
#[inline(always)]
fn usable(flow: &Flow, forward: bool, at: At, opens: bool) -> bool {
    if !flow.is_translated() {
        return true;
    }
    // What a responder opens is none of the connections that it answers.
    if opens && !forward && at != At::EgressUplink {
        return false;
    }
    let near = flow.is(FlowFlags::NEAR);
    match at {
        // The opener sends the near tuple, the responder answers the far one; the other two are somebody else's.
        At::Ingress => near == forward,
        // The host's stack brings what was rewritten on its way in, and what the node itself answers.
        At::EgressPod => !(near && forward),
        At::EgressUplink => true,
    }
}
