//! From a packet to the flow that it is part of.

use super::life::live;
use crate::kernel::Kernel;
use crate::packet::{Packet, TCP, TcpFlags};
use crate::register::{Register, variants};
use crate::tables::flow::{Flow, FlowFlags, FlowKey, Table};

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

/// A packet's flow.
#[derive(Clone, Copy)]
pub struct Hit<'k> {
    /// The entry, in its table.
    pub flow: &'k Flow,
    /// Which table.
    pub table: Table,
    /// Whether the packet goes from opener to responder.
    pub forward: bool,
}

/// Where a packet's entry is and which direction the packet has: what a [`Hit`] says without a reference.
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
        Self { table: Table::unpack(word >> 1), forward: word & 1 != 0 }
    }
}

/// Whether a packet opens a TCP connection: SYN without ACK.
#[inline(always)]
#[must_use]
pub fn opens(p: &Packet) -> bool {
    p.proto == TCP && p.tcp & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN
}

/// Finds the flow of a packet and leaves its key in `key` (with `alternate` set if the plain key is somebody else's).
///
/// One tuple can be the far one of a translated flow and at the same time be used by a pod itself (the same client port
/// to a service and, directly, to its backend). The far entry has the key; the direct flow has the key with `alternate`
/// and got another source port.
#[inline(always)]
pub fn find<'k, K: Kernel>(k: &'k K, p: &Packet, key: &mut FlowKey, at: At) -> Option<Hit<'k>> {
    let from_a = key.set(&p.tuple, p.proto);
    let opens = opens(p);
    let first = if p.proto == TCP && !opens { Table::Established } else { Table::Any };
    let hit = find_key(k, key, from_a, first);
    match hit {
        Some(found) if !usable(found.flow, found.forward, at, opens) => {
            key.alternate = 1;
            find_key(k, key, from_a, first)
        }
        other => other,
    }
}

/// Finds the entry of a key, in the table that is likelier first. An expired entry is none.
#[inline(always)]
pub fn find_key<'k, K: Kernel>(k: &'k K, key: &FlowKey, from_a: bool, first: Table) -> Option<Hit<'k>> {
    let second = if first == Table::Any { Table::Established } else { Table::Any };
    let hit = |flow: &'k Flow, table| Hit { flow, table, forward: from_a == flow.is(FlowFlags::OPENER_IS_A) };
    if let Some(flow) = live(k, first, key) {
        return Some(hit(flow, first));
    }
    if key.proto != TCP {
        return None;
    }
    live(k, second, key).map(|flow| hit(flow, second))
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
