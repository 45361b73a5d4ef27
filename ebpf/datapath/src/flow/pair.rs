//! The entries of a flow: putting in and taking out both, and what holds for both.

use super::account::stage::{put_in, take_out};
use super::account::{Change, Which, remove};
use super::change::{alter, claim, release};
use super::life::live;
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::packet::TCP;
use crate::scratch::{Draft, Walk};
use crate::tables::flow::{Entry, FlowFlags, InsertError, Owned, Table};

stages! {
    fn aim_far(host: bool) -> bool, as AimFar;
    fn stays() -> bool, as Stays;
    fn paired(table: Table) -> bool, as Paired;
    fn forget(table: Table) -> (), as Forget;
    fn note(table: Table, before: u32, state: u32) -> (), as Note;
}

#[inline(always)]
pub(super) const fn opener_flag(from_a: bool) -> u32 {
    if from_a { FlowFlags::OPENER_IS_A } else { 0 }
}

/// Makes the draft's flow the far entry for the target as it stands. False if the place is taken. `host`: the source is the
/// node's address, so a socket of the node may have the port.
#[inline(always)]
pub(super) fn aim_far<K: Kernel>(k: &K, w: &mut Walk, host: bool) -> bool {
    let (proto, draft) = (w.packet.proto, &mut w.draft);
    let from_a = draft.far.set(&draft.target, proto);
    let common = draft.flow.flags & !(FlowFlags::NEAR | FlowFlags::OPENER_IS_A);
    draft.flow.flags = common | FlowFlags::FAR | opener_flag(from_a);
    if host && k.host_socket(&draft.far, from_a) {
        return false;
    }
    // A connection may live under this tuple among the established ones.
    proto != TCP || !live(k, Table::Established, &draft.far, &mut w.there)
}

/// Inserts the far entry for the target as it stands.
#[inline(always)]
pub(super) fn insert_far<K: Kernel>(k: &K, w: &mut Walk, host: bool) -> Result<(), InsertError> {
    if !stage::aim_far(k, w, host) {
        return Err(InsertError::Exists);
    }
    put_in(k, w, Table::Any, Which::Other)?;
    if w.packet.proto == TCP && !stays(k, w) { Err(InsertError::Exists) } else { Ok(()) }
}

/// The same, of a flow that [`aim_far`] has made that, in a round of the search for a port: the rounds are many, and so the look is
/// a stage.
#[inline(always)]
pub(super) fn put_far<K: Kernel>(k: &K, w: &mut Walk) -> Result<(), InsertError> {
    put_in(k, w, Table::Any, Which::Other)?;
    if w.packet.proto == TCP && !stage::stays(k, w) { Err(InsertError::Exists) } else { Ok(()) }
}

/// Whether the far entry that is in may stay: another CPU may have moved a connection there between the two looks.
#[inline(always)]
fn stays<K: Kernel>(k: &K, w: &mut Walk) -> bool {
    let alone = !live(k, Table::Established, &w.draft.far, &mut w.there);
    if !alone {
        take_out(k, w, Table::Any, Which::Other);
    }
    alone
}

/// Flags of a far entry that its near one has not.
const FAR_ONLY: u32 =
    FlowFlags::FAR | FlowFlags::OPENER_IS_A | FlowFlags::OTHER_ALTERNATE | FlowFlags::PORT | FlowFlags::HELD;

/// Makes the draft's flow its near entry, after its far one is in.
#[inline(always)]
pub(super) fn turn_near(draft: &mut Draft, from_a: bool) {
    draft.flow.flags = (draft.flow.flags & !FAR_ONLY) | FlowFlags::NEAR | opener_flag(from_a);
    draft.flow.other = draft.target;
    draft.flow.seal(draft.key.tag());
}

/// Inserts the near entry. If another CPU was faster, what it decided holds.
#[inline(always)]
pub(super) fn insert_near<K: Kernel>(k: &K, w: &mut Walk, from_a: bool) -> Result<(), DropReason> {
    turn_near(&mut w.draft, from_a);
    match put_in(k, w, Table::Any, Which::Met) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => {
            take_out(k, w, Table::Any, Which::Other);
            Err(DropReason::FlowTableFull)
        }
        Err(InsertError::Exists) => {
            let Walk { draft, there, .. } = w;
            let free = |entry: &Entry| Owned::of(&entry.claim, draft.key.tag()).value == 0;
            if live(k, Table::Any, &draft.key, there)
                && there.is(FlowFlags::NEAR)
                && k.flow(Table::Any, &draft.key).is_some_and(free)
                && there.other == draft.target
            {
                return Ok(());
            }
            // Another backend or port: this one's place is given back, and its way with it.
            take_out(k, w, Table::Any, Which::Other);
            Err(DropReason::FlowRace)
        }
    }
}

/// Removes the flow of the entry in `w.met`, whose key is in `w.draft.key`, from a table: both its entries.
#[inline(always)]
fn forget<K: Kernel>(k: &K, w: &mut Walk, table: Table) {
    if stage::paired(k, w, table) {
        take_out(k, w, table, Which::Other);
    }
    take_out(k, w, table, Which::Met);
}

/// Whether the other entry of the flow in `w.met` is there: its key is in `w.draft.far` then, a copy in `w.pair`.
#[inline(always)]
fn paired<K: Kernel>(k: &K, w: &mut Walk, table: Table) -> bool {
    note_other(w) && pair(k, w, table).is_some()
}

/// Notes the key of the other entry of the flow in `w.met`. False if it has none.
#[inline(always)]
pub(super) fn note_other(w: &mut Walk) -> bool {
    let Walk { draft, met, .. } = w;
    let translated = met.is_translated();
    if translated {
        met.set_other_key(&mut draft.far, draft.key.proto);
    }
    translated
}

/// Writes a state to both entries of the flow in `w.met`.
#[inline(always)]
fn note<K: Kernel>(k: &K, w: &mut Walk, table: Table, before: u32, state: u32) {
    if let Some(entry) = k.flow(table, &w.draft.key) {
        alter(k, &entry.state, w.draft.key.tag(), state & !before, before & !state);
    }
    if let Some(entry) = pair(k, w, table) {
        alter(k, &entry.state, w.draft.far.tag(), state & !before, before & !state);
    }
}

/// The other entry of the flow in `w.met`, if it is translated: its key is in `w.draft.far`, a copy is in `w.pair`.
#[inline(always)]
pub(super) fn pair<'k, K: Kernel>(k: &'k K, w: &mut Walk, table: Table) -> Option<&'k Entry> {
    let Walk { draft, met, pair, .. } = w;
    if !met.is_translated() {
        return None;
    }
    let entry = k.flow(table, &draft.far)?;
    // Its place may be another's by now.
    let is_ours = k.copy(entry, draft.far.tag(), pair)
        && pair.is_translated()
        && draft.key.is(met.is(FlowFlags::OPENER_IS_A), &pair.other);
    is_ours.then_some(entry)
}

/// Moves the flow in `w.met` to the other table, with the bits of its state that a packet changed. Where that is full it stays
/// where it is: false.
#[inline(always)]
pub(super) fn relocate<K: Kernel>(k: &K, w: &mut Walk, from: Table, to: Table, state: u32) -> bool {
    let before = w.met.state.value;
    let Some(entry) = k.flow(from, &w.draft.key) else { return false };
    // Another CPU may be about to do the same.
    if !claim(k, &w.draft.key, entry) {
        return false;
    }
    let pair = pair(k, w, from).filter(|pair| claim(k, &w.draft.far, pair));
    let whole = pair.is_some() || !w.met.is_translated();
    let Walk { draft, own, pair: other, .. } = w;
    let moved = whole
        && k.copy(entry, draft.key.tag(), own)
        && pair.is_none_or(|pair| k.copy(pair, draft.far.tag(), other))
        && copy_both(k, w, to, (state & !before, before & !state), pair.is_some());
    if !moved {
        pair.inspect(|pair| release(k, &w.draft.far, pair));
        release(k, &w.draft.key, entry);
        return false;
    }
    // What the kernel does not remove, since it is busy with the bucket, expires there.
    if let Some(pair) = pair {
        k.note_counted(&mut w.draft.counted, &w.draft.far, &w.pair);
        if !remove(k, w, from, Which::Other, Change::HandedOn) {
            release(k, &w.draft.far, pair);
        }
    }
    k.note_counted(&mut w.draft.counted, &w.draft.key, &w.own);
    if !remove(k, w, from, Which::Met, Change::HandedOn) {
        release(k, &w.draft.key, entry);
    }
    true
}

/// Puts copies of a flow's entries into the other table.
#[inline(always)]
fn copy_both<K: Kernel>(k: &K, w: &mut Walk, to: Table, changed: (u32, u32), two: bool) -> bool {
    if two && !copy_over(k, w, to, Which::Other, changed) {
        return false;
    }
    let moved = copy_over(k, w, to, Which::Met, changed);
    if !moved && two {
        take_out(k, w, to, Which::Other);
    }
    moved
}

/// Puts a copy of an entry into the other table, with bits of its state set and cleared.
#[inline(always)]
fn copy_over<K: Kernel>(k: &K, w: &mut Walk, to: Table, which: Which, (set, clear): (u32, u32)) -> bool {
    let copy = &mut w.draft.flow;
    *copy = if which == Which::Met { w.own } else { w.pair };
    copy.state.value = (copy.state.value & !clear) | set;
    // What has ended does not count to anybody's share of the ports, until it turns out not to have.
    if to == Table::Any {
        copy.flags &= !FlowFlags::HELD;
    } else if copy.is(FlowFlags::PORT) {
        copy.flags |= FlowFlags::HELD;
    }
    put_in(k, w, to, which).is_ok()
}
