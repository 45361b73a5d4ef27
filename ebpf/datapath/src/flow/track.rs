//! The state of a flow, as its packets change it.

use super::find::{Hit, Place};
use super::pair::stage::forget;
use super::pair::{note, pair, relocate};
use crate::kernel::{Kernel, stages};
use crate::packet::stage::read_stamp;
use crate::packet::{Fragment, TCP, TcpFlags};
use crate::register::{Answer, variants};
use crate::scratch::Walk;
use crate::tables::flow::{Flow, FlowFlags, FlowState, Table};

stages! {
    fn track_change(place: Place) -> Tracked, as TrackChange;
    fn note_last(place: Place) -> u32, as NoteLast;
}

/// Seconds after which an answered UDP flow that is still in use is a stream, not a query (`nf_conntrack_proto_udp.c`).
const STREAM_AFTER: u32 = 2;

/// What a packet did to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// It goes on.
    Live,
    /// The packet opens a new flow where this one has ended: the entries are gone.
    Reopened,
}

variants!(Tracked: Live; else Reopened);

impl Answer for Tracked {
    const BROKEN: Self = Self::Live;
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
    stage::track_change(k, w, Place { table: hit.table, forward: hit.forward })
}

/// Notes a packet that changes its flow: the first of a second, the first answer, the beginning and the end.
#[inline(always)]
fn track_change<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Tracked {
    let (p, draft) = (&w.packet, &mut w.draft);
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
        forget(k, w, place.table);
        return Tracked::Reopened;
    }
    let hit = Hit { flow, table: place.table, forward: place.forward };
    if p.proto == TCP {
        return track_connection(k, w, &hit);
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
fn track_connection<K: Kernel>(k: &K, w: &mut Walk, hit: &Hit<'_>) -> Tracked {
    let p = w.packet;
    let before = hit.flow.state.load();
    let mut state = before;
    if p.tcp & TcpFlags::RST != 0 {
        state |= FlowState::RESET;
    } else if p.tcp & TcpFlags::SYN != 0 {
        if p.tcp & TcpFlags::ACK == 0 {
            if before & FlowState::RESET != 0 || before & FlowState::FINS == FlowState::FINS {
                forget(k, w, hit.table);
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
            state |= match hit.forward {
                true => FlowState::FIN_OPENER,
                false if before & FlowState::FIN_OPENER == 0 => FlowState::FIN_RESPONDER | FlowState::RESPONDER_FIRST,
                false => FlowState::FIN_RESPONDER,
            };
        }
        // A later fragment has no header.
        if hit.forward && state & FlowState::FINS != 0 && p.tcp & TcpFlags::ACK != 0 && p.fragment != Fragment::LATER {
            let payload = stage::note_last(k, w, Place { table: hit.table, forward: hit.forward });
            if before & FlowState::FINS == FlowState::FINS && payload == 0 && p.tcp & TcpFlags::FIN == 0 {
                state |= FlowState::LAST_ACK;
            }
        }
        if hit.forward && before & FlowState::REPLIED != 0 {
            state |= FlowState::ESTABLISHED;
        }
    }
    let ending = state & FlowState::RESET != 0 || state & FlowState::FINS == FlowState::FINS;
    let moved = match hit.table {
        Table::Any if state & FlowState::ESTABLISHED != 0 && !ending => relocate(k, w, hit, Table::Established, state),
        // What is still to come is little (a last acknowledgement, something sent again) and has to find its way; it
        // must not take the place of a connection that lives.
        Table::Established if ending => relocate(k, w, hit, Table::Any, state),
        Table::Any | Table::Established => false,
    };
    if !moved && state != before {
        note(k, &w.draft, hit, before, state);
    }
    Tracked::Live
}

/// Notes how far the opener of a connection that ends has come: by that the next one to have its port is told from it. Says
/// how long the segment's payload is.
#[inline(always)]
fn note_last<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> u32 {
    let stamp = read_stamp(k, w);
    let p = &w.packet;
    let Some([seq, _, rest]) = k.load::<[u32; 3]>(p.l4 + 4) else { return 0 };
    let header = (u32::from_be(rest) >> 28) * 4;
    let end = p.l4 + header;
    let payload = if k.packet_len() > end { k.packet_len() - end } else { 0 };
    let fin = u32::from(p.tcp & TcpFlags::FIN != 0);
    let next = u32::from_be(seq).wrapping_add(payload).wrapping_add(fin);
    let write = |flow: &Flow| {
        let last = flow.last_seq.load();
        // What is sent again is older.
        if last == 0 || (next.wrapping_sub(last) as i32) > 0 {
            flow.last_seq.store(next);
        }
        if stamp != 0 {
            flow.last_stamp.store(stamp);
        }
    };
    if let Some(flow) = k.flow(place.table, &w.draft.key) {
        write(flow);
        if let Some(pair) = pair(k, &w.draft, flow, place.table) {
            write(pair);
        }
    }
    payload
}
