//! From a packet to the flow that it is part of.

use super::Table;
use super::create::Draft;
use super::layout::{Flow, FlowFlags, FlowKey};
use super::track::{discount, expired};
use crate::kernel::Kernel;
use crate::packet::{Packet, TCP, TcpFlags};

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

/// Finds the flow of a packet and leaves its key in `key` (with `alternate` set if the plain key is somebody else's).
///
/// One tuple can be the far one of a translated flow and at the same time be used by a pod itself (the same client port
/// to a service and, directly, to its backend). The far entry has the key; the direct flow has the key with `alternate`
/// and got another source port.
#[inline(always)]
pub fn find<'k, K: Kernel>(k: &'k K, p: &Packet, key: &mut FlowKey, at: At) -> Option<Hit<'k>> {
    let from_a = key.set(&p.tuple, p.proto);
    let opens = p.proto == TCP && p.tcp & (TcpFlags::SYN | TcpFlags::ACK) == TcpFlags::SYN;
    let first = if p.proto == TCP && !opens { Table::Established } else { Table::Any };
    let hit = find_key(k, key, from_a, first);
    match hit {
        Some(found) if !usable(found.flow, found.forward, at) => {
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

/// The entry of a key in a table, if it is one.
#[inline(always)]
pub(super) fn live<'k, K: Kernel>(k: &'k K, table: Table, key: &FlowKey) -> Option<&'k Flow> {
    let flow = k.flow(table, key)?;
    if flow.tag != key.tag() || expired(flow, key.proto, k.seconds()) { None } else { Some(flow) }
}

/// Whether a packet that meets an entry can be part of its flow.
#[inline(always)]
fn usable(flow: &Flow, forward: bool, at: At) -> bool {
    if !flow.is_translated() {
        return true;
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

/// Removes the flow that [`find`] found in a table: both its entries.
#[inline(always)]
pub fn forget<K: Kernel>(k: &K, draft: &mut Draft, table: Table) {
    let Some(flow) = k.flow(table, &draft.key) else { return };
    if table == Table::Established {
        discount(k, flow);
    }
    if flow.is_translated() {
        flow.set_other_key(&mut draft.far, draft.key.proto);
        // Only if it is this flow's: its place may have been taken since.
        if let Some(pair) = k.flow(table, &draft.far)
            && pair.tag == draft.far.tag()
            && pair.is_translated()
            && pair.other == draft.key.tuple(flow.is(FlowFlags::OPENER_IS_A))
        {
            if table == Table::Established {
                discount(k, pair);
            }
            k.remove_flow(table, &draft.far);
        }
    }
    k.remove_flow(table, &draft.key);
}
