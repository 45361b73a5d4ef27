//! The state of a flow, as its packets change it.

use super::change::{alter, put};
use super::find::Place;
use super::life::is_over;
use super::pair::stage::{forget, note};
use super::pair::{note_other, pair, relocate};
use super::window;
use crate::kernel::{Kernel, stages};
use crate::packet::stage::{payload_len, read_stamp};
use crate::packet::{Fragment, TCP, TcpFlags};
use crate::register::{Answer, variants};
use crate::scratch::Walk;
use crate::tables::flow::{Entry, FlowFlags, FlowState, Owned, Table};
use crate::tables::peer::NO_SLOT;

stages! {
    fn track_change(place: Place) -> Tracked, as TrackChange;
    fn note_last(place: Place) -> u32, as NoteLast;
    fn stands(place: Place) -> bool, as Stands;
    fn touch(place: Place) -> bool, as Touch;
}

/// Seconds after which an answered UDP flow that is still in use is a stream, not a query (`nf_conntrack_proto_udp.c`).
const STREAM_AFTER: u32 = 2;

/// How often the kernel gets to see a packet of a flow at the driver, in seconds: twice the time in which it gives up a neighbour that
/// does not answer is soon enough.
const PROBE: u32 = 8;

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

/// Notes a packet in the flow in `w.met`: nothing, if nothing changes.
#[inline(always)]
pub fn track<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Tracked {
    // Zero if nothing changes, in one word: the verifier follows both sides of each branch through the rest of the walk.
    let change = change(w, place);
    if u64::from(change) | (w.met.seen ^ u64::from(w.now)) == 0 {
        return Tracked::Live;
    }
    stage::track_change(k, w, place)
}

/// Zero while a packet changes nothing of the flow in `w.met` but the second.
#[inline(always)]
fn change(w: &Walk, place: Place) -> u32 {
    if w.packet.proto == TCP {
        unlike_segments(w) | window::moved(w.met.acked.value, w.packet.ack, place.forward)
    } else {
        unlike_datagrams(w, place)
    }
}

/// Zero while a packet changes no state of the flow in `w.met`, and may acknowledge more than was noted.
#[inline(always)]
fn unlike(w: &Walk, place: Place) -> u32 {
    if w.packet.proto == TCP { unlike_segments(w) } else { unlike_datagrams(w, place) }
}

/// Zero of a segment in the middle of a connection.
#[inline(always)]
const fn unlike_segments(w: &Walk) -> u32 {
    const STATE: u32 = FlowState::ESTABLISHED | FlowState::FINS | FlowState::RESET;
    const FLAGS: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;
    w.met.state.value & STATE ^ FlowState::ESTABLISHED | (w.packet.tcp & FLAGS ^ TcpFlags::ACK) as u32
}

/// Zero of what is not the first answer.
#[inline(always)]
const fn unlike_datagrams(w: &Walk, place: Place) -> u32 {
    !place.forward as u32 & !(w.met.state.value >> FlowState::REPLIED.trailing_zeros())
}

/// Notes a packet in the translated flow in `w.met` as [`track`] does, if it is one of many. False if more would come of it, and
/// then nothing has.
#[inline(always)]
pub fn keep<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> bool {
    if u64::from(change(w, place)) | (w.met.seen ^ u64::from(w.now)) == 0 {
        return true;
    }
    // The kernel asks for a neighbour again, who may have another Ethernet address by now, when it sends to him itself.
    if w.met.seen != u64::from(w.now) && is_turn(w.now, place.forward) {
        return false;
    }
    unlike(w, place) == 0 && stage::touch(k, w, place)
}

/// Notes one of many that is the first of a second, or acknowledges a good deal more than the one that was noted last.
#[inline(always)]
fn touch<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> bool {
    let Some(entry) = k.flow(place.table, &w.draft.key) else { return false };
    // It may have changed since it was met.
    w.met.state = Owned::of(&entry.state, w.draft.key.tag());
    let is_tcp = w.packet.proto == TCP;
    if unlike(w, place) != 0 || (!is_tcp && becomes_stream(w)) || !note_other(w) {
        return false;
    }
    let Some(pair) = pair(k, w, place.table) else { return false };
    if is_tcp && !stage::stands(k, w, place) {
        return true;
    }
    entry.seen.store(w.now.into());
    // The other direction has to see for itself that it is its turn.
    if !is_turn(w.now, !place.forward) {
        pair.seen.store(w.now.into());
    }
    true
}

/// Whether the first packet of this second in a direction is left to the kernel.
#[inline(always)]
const fn is_turn(now: u32, forward: bool) -> bool {
    now % PROBE == if forward { 0 } else { PROBE / 2 }
}

/// Whether the flow in `w.met`, which is not TCP's, is a stream with this packet and was none before.
#[inline(always)]
fn becomes_stream(w: &Walk) -> bool {
    let state = w.met.state.value;
    state & (FlowState::REPLIED | FlowState::STREAM) == FlowState::REPLIED && is_long(w)
}

/// Whether the flow in `w.met` has been in use for longer than a question and its answer are.
#[inline(always)]
fn is_long(w: &Walk) -> bool {
    w.now.wrapping_sub(w.met.opened) > STREAM_AFTER
}

/// Notes a packet that changes its flow: the first of a second, the first answer, the beginning and the end, and the first
/// that acknowledges a good deal more than the one that was noted last.
#[inline(always)]
fn track_change<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Tracked {
    // Whoever has to do with it judges it; here it proves nothing.
    if w.packet.proto == TCP && !stage::stands(k, w, place) {
        return Tracked::Live;
    }
    let Some(entry) = k.flow(place.table, &w.draft.key) else { return Tracked::Live };
    entry.seen.store(w.now.into());
    // It may have changed since it was met.
    let state = Owned::of(&entry.state, w.draft.key.tag());
    w.met.state = state;
    note_other(w);
    // Traffic in one direction keeps both entries.
    let p = &w.packet;
    let may_begin = place.forward && (p.proto != TCP || p.tcp & TcpFlags::SYN != 0);
    if let Some(pair) = pair(k, w, place.table) {
        pair.seen.store(w.now.into());
    } else if may_begin && w.met.is(FlowFlags::NEAR) {
        // The far entry was evicted, and answers would find no way back: the flow is made again.
        forget(k, w, place.table);
        return Tracked::Reopened;
    }
    if w.packet.proto == TCP {
        return track_connection(k, w, place);
    }
    let before = state.value;
    let mut state = before;
    if !place.forward {
        state |= FlowState::REPLIED;
    }
    if before & FlowState::REPLIED != 0 && is_long(w) {
        state |= FlowState::STREAM;
    }
    if state != before {
        note(k, w, place.table, before, state);
    }
    Tracked::Live
}

/// Whether a segment lies where its receiver is. Notes what it acknowledges if it does. One that does not and ends nothing keeps a
/// connection that is not over, as far as that may be its sender's; where nothing was on its way nothing is.
#[inline(always)]
fn stands<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> bool {
    let paired = note_other(w) && pair(k, w, place.table).is_some();
    // A later fragment has no header, and so no number.
    let lies = w.packet.fragment != Fragment::LATER && window::counts(w, place.forward, paired);
    let owner = w.draft.key.tag();
    let Some(entry) = k.flow(place.table, &w.draft.key) else { return false };
    let aside = Owned::of(&entry.aside, owner).value;
    if !place.forward && window::accepts(aside, &w.packet) {
        begin_again(k, w, place.table);
        window::note(k, entry, owner, &w.packet, place.forward);
        return true;
    }
    if lies {
        window::note(k, entry, owner, &w.packet, place.forward);
        return true;
    }
    if !place.forward && window::refuses(aside, &w.packet) {
        return true;
    }
    if w.packet.tcp & (TcpFlags::FIN | TcpFlags::RST) == 0 && !is_over(w.met.state.value) {
        let now = if window::is_silent(w) { w.now.wrapping_sub(window::SILENCE) } else { w.now };
        entry.seen.store(now.into());
        if let Some(pair) = pair(k, w, place.table) {
            pair.seen.store(now.into());
        }
    }
    false
}

/// The responder of the flow in `w.met` has taken a SYN that was passed on for another connection: what is known of the one before
/// is nothing any more.
#[inline(always)]
fn begin_again<K: Kernel>(k: &K, w: &mut Walk, table: Table) {
    const OF_BEFORE: u32 = FlowState::FINS | FlowState::RESET | FlowState::RESPONDER_FIRST | FlowState::LAST_ACK;
    let clear = |entry: &Entry, owner: u32| {
        alter(k, &entry.state, owner, 0, OF_BEFORE);
        for word in [&entry.acked, &entry.last_seq, &entry.last_stamp, &entry.aside] {
            put(k, word, owner, 0);
        }
    };
    if let Some(entry) = k.flow(table, &w.draft.key) {
        clear(entry, w.draft.key.tag());
    }
    if let Some(entry) = pair(k, w, table) {
        clear(entry, w.draft.far.tag());
    }
}

/// Notes a SYN on the live flow in `w.met` that changes nothing of it, where an end is on this node, a pod or a process: of others
/// somebody else could send both it and its refusal.
#[inline(always)]
pub fn pass_aside<K: Kernel>(k: &K, w: &mut Walk, place: Place) {
    let flow = &w.met;
    let of_node = flow.is(FlowFlags::FROM_NODE) || (flow.is(FlowFlags::OUTSIDE) && flow.is(FlowFlags::STACK));
    if flow.opener.slot == NO_SLOT && flow.responder.slot == NO_SLOT && !of_node {
        return;
    }
    let data = payload_len(k, w);
    let accepts = u32::from_be(w.packet.seq).wrapping_add(1 + data);
    if let Some(entry) = k.flow(place.table, &w.draft.key) {
        put(k, &entry.aside, w.draft.key.tag(), accepts);
    }
    if note_other(w)
        && let Some(entry) = pair(k, w, place.table)
    {
        put(k, &entry.aside, w.draft.far.tag(), accepts);
    }
}

/// The packets of a connection that change its state: the first three, and those of its end.
#[inline(always)]
fn track_connection<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> Tracked {
    let (tcp, is_later) = (w.packet.tcp, w.packet.fragment == Fragment::LATER);
    let before = w.met.state.value;
    let mut state = before;
    if tcp & TcpFlags::RST != 0 {
        state |= FlowState::RESET;
    } else if tcp & TcpFlags::SYN != 0 {
        if tcp & TcpFlags::ACK == 0 {
            if is_over(before) {
                forget(k, w, place.table);
                return Tracked::Reopened;
            }
            state |= FlowState::SYN;
        } else if !place.forward {
            state |= FlowState::REPLIED;
        }
    } else {
        // An RST that was none of this connection's (out of its window) did not end it if data still comes.
        state &= !FlowState::RESET;
        if tcp & TcpFlags::FIN != 0 {
            state |= match place.forward {
                true => FlowState::FIN_OPENER,
                false if before & FlowState::FIN_OPENER == 0 => FlowState::FIN_RESPONDER | FlowState::RESPONDER_FIRST,
                false => FlowState::FIN_RESPONDER,
            };
        }
        // A later fragment has no header.
        if place.forward && state & FlowState::FINS != 0 && tcp & TcpFlags::ACK != 0 && !is_later {
            let payload = stage::note_last(k, w, place);
            if before & FlowState::FINS == FlowState::FINS && payload == 0 && tcp & TcpFlags::FIN == 0 {
                state |= FlowState::LAST_ACK;
            }
        }
        if place.forward && before & FlowState::REPLIED != 0 {
            state |= FlowState::ESTABLISHED;
        }
    }
    let ending = is_over(state);
    let moved = match place.table {
        // One whose source is still to be translated gets its other entry in the table of the others; it waits for that there.
        // One that was answered from its beginning on left by no uplink, and will not be.
        Table::Any
            if state & FlowState::ESTABLISHED != 0
                && !ending
                && (!w.met.is(FlowFlags::MASQUERADE) || w.met.isn != 0) =>
        {
            relocate(k, w, Table::Any, Table::Established, state)
        }
        // What is still to come is little (a last acknowledgement, something sent again) and has to find its way; it
        // must not take the place of a connection that lives.
        Table::Established if ending => relocate(k, w, Table::Established, Table::Any, state),
        Table::Any | Table::Established => false,
    };
    if !moved && state != before {
        note(k, w, place.table, before, state);
    }
    Tracked::Live
}

/// Notes how far the opener of a connection that ends has come: by that the next one to have its port is told from it. Says
/// how long the segment's payload is.
#[inline(always)]
fn note_last<K: Kernel>(k: &K, w: &mut Walk, place: Place) -> u32 {
    let (stamp, payload) = (read_stamp(k, w), payload_len(k, w));
    let p = &w.packet;
    let fin = u32::from(p.tcp & TcpFlags::FIN != 0);
    let next = u32::from_be(p.seq).wrapping_add(payload).wrapping_add(fin);
    let write = |entry: &Entry, owner: u32| {
        let last = Owned::of(&entry.last_seq, owner).value;
        // What is sent again is older.
        if last == 0 || (next.wrapping_sub(last) as i32) > 0 {
            put(k, &entry.last_seq, owner, next);
        }
        if stamp != 0 {
            put(k, &entry.last_stamp, owner, stamp);
        }
    };
    if let Some(entry) = k.flow(place.table, &w.draft.key) {
        write(entry, w.draft.key.tag());
    }
    if let Some(entry) = pair(k, w, place.table) {
        write(entry, w.draft.far.tag());
    }
    payload
}
