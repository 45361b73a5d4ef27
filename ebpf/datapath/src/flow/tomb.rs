//! Connections of a pod that is gone. Its address answers nobody, and the other end would send until it gives up; so what is
//! known of the connection stays for a while, counts for nobody, and answers the next packet with a reset.

use super::account::stage::count;
use super::account::{Change, Which, claim_copy};
use super::change::release;
use super::find::opens;
use super::pair::{note_other, pair};
use crate::kernel::{Kernel, stages};
use crate::packet::TCP;
use crate::scratch::{Packet, Walk};
use crate::tables::flow::{End, Flow, FlowFlags, FlowState, Table};

stages! {
    fn bury(table: Table, slot: u16) -> bool, as Bury;
    fn bury_one(table: Table, slot: u16, which: Which) -> bool, as BuryOne;
}

/// Whether a flow is a connection whose other end is to be told.
#[inline(always)]
#[must_use]
pub fn is_worth_a_reset(flow: &Flow, proto: u8, table: Table) -> bool {
    let ended = FlowState::RESET | FlowState::GONE;
    proto == TCP && table == Table::Established && flow.state.value & ended == 0
}

/// Whether the flow that a packet met is one whose other end is to be told, and the packet one that can be answered so.
#[inline(always)]
pub fn outlives_its_pod(flow: &Flow, packet: &Packet, table: Table) -> bool {
    is_worth_a_reset(flow, packet.proto, table) && !opens(packet)
}

/// Makes tombstones of the entries of the flow in `w.met`, one of whose ends was the pod in a slot. False if it is not there
/// any more, or another CPU is about to change it.
#[inline(always)]
fn bury<K: Kernel>(k: &K, w: &mut Walk, table: Table, slot: u16) -> bool {
    if note_other(w) && pair(k, w, table).is_some() {
        stage::bury_one(k, w, table, slot, Which::Other);
    }
    stage::bury_one(k, w, table, slot, Which::Met)
}

#[inline(always)]
fn bury_one<K: Kernel>(k: &K, w: &mut Walk, table: Table, slot: u16, which: Which) -> bool {
    let Some(entry) = claim_copy(k, w, table, which) else { return false };
    let Walk { draft, there, .. } = w;
    let (key, flow, _) = which.parts(draft);
    *flow = *there;
    if flow.opener.slot == slot {
        flow.opener = End::ELSEWHERE;
    }
    if flow.responder.slot == slot {
        flow.responder = End::ELSEWHERE;
    }
    flow.flags &= !FlowFlags::HELD;
    flow.state.value |= FlowState::GONE;
    flow.seen = k.seconds().into();
    flow.seal(key.tag());
    if k.insert_flow(table, key, flow, false).is_err() {
        release(k, key, entry);
        return false;
    }
    count(k, w, table, Change::HandedOn);
    let (key, flow, counted) = which.parts(&mut w.draft);
    k.note_counted(counted, key, flow);
    count(k, w, table, Change::In);
    true
}
