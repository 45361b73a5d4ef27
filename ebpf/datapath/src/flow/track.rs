//! How a flow lives: its state, its age, and the move to the table of established ones.

use super::create::Draft;
use super::find::{Hit, Place, forget, live};
use super::layout::{Flow, FlowFlags, FlowKey, FlowState};
use super::{InsertError, Table};
use crate::kernel::Kernel;
use crate::packet::{ICMP, ICMPV6, Packet, TCP, TcpFlags, UDP};
use crate::walk::Walk;

/// Seconds that a flow lives after its last packet, by protocol and state.
///
/// As the kernel's conntrack has them (net/netfilter/nf_conntrack_proto_*.c) where applications rely on it; established
/// TCP as kube-proxy sets it (24 hours).
#[inline(always)]
#[must_use]
pub const fn lifetime(proto: u8, state: u32) -> u32 {
    match proto {
        TCP if state & FlowState::RESET != 0 => 10,
        TCP if state & FlowState::FINS == FlowState::FINS => 30,
        TCP if state & FlowState::FINS != 0 => 120,
        TCP if state & FlowState::ESTABLISHED != 0 => 86_400,
        TCP => 60,
        UDP if state & FlowState::STREAM != 0 => 120,
        UDP | ICMP | ICMPV6 => 30,
        _ => 600,
    }
}

/// Seconds after which an answered UDP flow that is still in use is a stream, not a query (`nf_conntrack_proto_udp.c`).
const STREAM_AFTER: u32 = 2;

/// Whether an entry is one no more.
#[inline(always)]
#[must_use]
pub fn expired(flow: &Flow, proto: u8, now: u32) -> bool {
    let age = now.wrapping_sub(flow.seen.load());
    // Another CPU may have written a later second than this one has read.
    age > lifetime(proto, flow.state.load()) && age < u32::MAX / 2
}

/// What a packet did to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// It goes on.
    Live,
    /// The packet opens a new flow where this one has ended: the entries are gone.
    Reopened,
}

/// Notes a packet in its flow: nothing, if nothing changes.
#[inline(always)]
pub fn track<K: Kernel>(k: &K, w: &mut Walk, hit: &Hit<'_>) -> Tracked {
    let state = hit.flow.state.load();
    let settled = if w.packet.proto == TCP {
        state & (FlowState::ESTABLISHED | FlowState::FINS | FlowState::RESET) == FlowState::ESTABLISHED
            && w.packet.tcp & (TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) == 0
    } else {
        hit.forward || state & FlowState::REPLIED != 0
    };
    if settled && hit.flow.seen.load() == k.seconds() {
        return Tracked::Live;
    }
    k.track_change(w, Place { table: hit.table, forward: hit.forward })
}

/// Notes a packet that changes its flow: the first of a second, the first answer, the beginning and the end.
#[inline(always)]
pub fn track_change<K: Kernel>(k: &K, p: &Packet, draft: &mut Draft, place: Place) -> Tracked {
    let Some(flow) = k.flow(place.table, &draft.key) else { return Tracked::Live };
    let now = k.seconds();
    flow.seen.store(now);
    if flow.is_translated() {
        flow.set_other_key(&mut draft.far, draft.key.proto);
    }
    // Traffic in one direction keeps both entries.
    if let Some(pair) = pair(k, draft, flow, place.table) {
        pair.seen.store(now);
    } else if place.forward && flow.is(FlowFlags::NEAR) && (p.proto != TCP || p.tcp & TcpFlags::SYN != 0) {
        // The far entry was evicted, and answers would find no way back: the flow is made again.
        forget(k, draft, place.table);
        return Tracked::Reopened;
    }
    let hit = Hit { flow, table: place.table, forward: place.forward };
    if p.proto == TCP {
        return track_connection(k, p, draft, &hit);
    }
    let before = flow.state.load();
    let mut state = before;
    if !place.forward {
        state |= FlowState::REPLIED;
    }
    if before & FlowState::REPLIED != 0 && now.wrapping_sub(flow.opened) > STREAM_AFTER {
        state |= FlowState::STREAM;
    }
    if state != before {
        note(k, draft, &hit, before, state);
    }
    Tracked::Live
}

/// The packets of a connection that change its state: the first three, and those of its end.
#[inline(always)]
fn track_connection<K: Kernel>(k: &K, p: &Packet, draft: &mut Draft, hit: &Hit<'_>) -> Tracked {
    let before = hit.flow.state.load();
    let mut state = before;
    if p.tcp & TcpFlags::RST != 0 {
        state |= FlowState::RESET;
    } else if p.tcp & TcpFlags::SYN != 0 {
        if p.tcp & TcpFlags::ACK == 0 {
            if before & FlowState::RESET != 0 || before & FlowState::FINS == FlowState::FINS {
                forget(k, draft, hit.table);
                return Tracked::Reopened;
            }
            state |= FlowState::SYN;
        } else if !hit.forward {
            state |= FlowState::REPLIED;
        }
    } else {
        // An RST that was none of this connection's (out of its window) did not end it if data still comes.
        state &= !FlowState::RESET;
        if p.tcp & TcpFlags::FIN != 0 {
            state |= if hit.forward { FlowState::FIN_OPENER } else { FlowState::FIN_RESPONDER };
        }
        if hit.forward && before & FlowState::REPLIED != 0 {
            state |= FlowState::ESTABLISHED;
        }
    }
    let ending = state & FlowState::RESET != 0 || state & FlowState::FINS == FlowState::FINS;
    let moved = match hit.table {
        Table::Any if state & FlowState::ESTABLISHED != 0 && !ending => {
            relocate(k, draft, hit, Table::Established, state)
        }
        // What is still to come is little (a last acknowledgement, something sent again) and has to find its way; it
        // must not take the place of a connection that lives.
        Table::Established if ending => relocate(k, draft, hit, Table::Any, state),
        Table::Any | Table::Established => false,
    };
    if !moved && state != before {
        note(k, draft, hit, before, state);
    }
    Tracked::Live
}

/// Writes a state to both entries of a flow.
#[inline(always)]
fn note<K: Kernel>(k: &K, draft: &Draft, hit: &Hit<'_>, before: u32, state: u32) {
    hit.flow.state.store(state);
    if let Some(pair) = pair(k, draft, hit.flow, hit.table) {
        let theirs = pair.state.load();
        pair.state.store((theirs & !(before & !state)) | state);
    }
}

/// The other entry of a translated flow, whose key is in `draft.far`.
#[inline(always)]
fn pair<'k, K: Kernel>(k: &'k K, draft: &Draft, flow: &Flow, table: Table) -> Option<&'k Flow> {
    if !flow.is_translated() {
        return None;
    }
    k.flow(table, &draft.far).filter(|pair| pair.tag == draft.far.tag())
}

/// Moves a flow to the other table, with a new state. Where that is full it stays where it is: false.
#[inline(always)]
fn relocate<K: Kernel>(k: &K, draft: &mut Draft, hit: &Hit<'_>, to: Table, state: u32) -> bool {
    let flow = hit.flow;
    let state = if to == Table::Established { state | FlowState::COUNTED } else { state & !FlowState::COUNTED };
    let translated = flow.is_translated();
    if translated {
        let Some(pair) = k.flow(hit.table, &draft.far) else { return false };
        if pair.tag != draft.far.tag() {
            return false;
        }
        draft.spare.copy_from(pair);
        draft.spare.state.store(state);
        if insert_into(k, to, &draft.far, &draft.spare) == Err(InsertError::Full) {
            return false;
        }
    }
    draft.spare.copy_from(flow);
    draft.spare.state.store(state);
    match insert_into(k, to, &draft.key, &draft.spare) {
        Ok(()) => k.count_established(draft.spare.accountable(), if to == Table::Established { 1 } else { -1 }),
        // Another CPU has just done the same.
        Err(InsertError::Exists) => {}
        Err(InsertError::Full) => {
            if translated {
                k.remove_flow(to, &draft.far);
            }
            return false;
        }
    }
    if translated {
        k.remove_flow(hit.table, &draft.far);
    }
    k.remove_flow(hit.table, &draft.key);
    true
}

/// Takes an entry that goes from the established ones out of their count, in which a flow with two is once.
#[inline(always)]
pub(super) fn discount<K: Kernel>(k: &K, flow: &Flow) {
    if flow.state.load() & FlowState::COUNTED != 0 && !flow.is(FlowFlags::FAR) {
        k.count_established(flow.accountable(), -1);
    }
}

/// Inserts an entry where there is none, or one that has expired.
#[inline(always)]
pub(super) fn insert_into<K: Kernel>(k: &K, table: Table, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
    match k.insert_flow(table, key, flow, true) {
        Err(InsertError::Exists) if live(k, table, key).is_none() => {
            if let Some(ended) = k.flow(table, key).filter(|ended| ended.tag == key.tag()) {
                discount(k, ended);
            }
            k.insert_flow(table, key, flow, false)
        }
        other => other,
    }
}
