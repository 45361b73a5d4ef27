//! The way of entries into the tables and out of them, and what is counted of each.
//!
//! An entry is counted when it is in and uncounted when it is out, exactly once each: it is taken out, or replaced, by the
//! CPU that has claimed it. So the counts have no drift, and limits can rely on them.

use super::change::{claim, release};
use super::reuse::gives_way;
use crate::kernel::{Kernel, stages};
use crate::register::{Answer, Register, variants};
use crate::scratch::{Counted, Draft, Walk};
use crate::tables::flow::{Entry, Flow, FlowFlags, InsertError, PodFlows, Table, TaggedKey};
use crate::tables::peer::NO_SLOT;
use crate::tables::port::crowded_from;

stages! {
    fn put_in(table: Table, which: Which) -> Result<(), InsertError>, as PutIn;
    fn replace(table: Table, which: Which) -> Result<(), InsertError>, as Replace;
    fn take_loser(table: Table, which: Which) -> bool, as TakeLoser;
    fn put_back(table: Table, which: Which) -> bool, as PutBack;
    fn take_out(table: Table, which: Which) -> bool, as TakeOut;
    fn count(table: Table, change: Change) -> (), as Count;
    fn count_in(table: Table, which: Which) -> (), as CountIn;
}

/// Which of the two keys of a [`crate::scratch::Draft`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// `draft.key`: the entry of the packet's own tuple.
    Met,
    /// `draft.far`: the other one.
    Other,
}

impl Which {
    #[inline(always)]
    const fn key(self, draft: &Draft) -> &TaggedKey {
        match self {
            Self::Met => &draft.key,
            Self::Other => &draft.far,
        }
    }

    /// The same, the draft's entry, and what it is counted by.
    #[inline(always)]
    pub(super) const fn parts(self, draft: &mut Draft) -> (&TaggedKey, &mut Flow, &mut Counted) {
        let Draft { key, far, flow, counted, .. } = draft;
        let key = match self {
            Self::Met => key,
            Self::Other => far,
        };
        (key, flow, counted)
    }
}

variants!(Which: Met; else Other);

impl Register for Result<(), InsertError> {
    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Ok(()) => 0,
            Err(InsertError::Exists) => 1,
            Err(InsertError::Full) => 2,
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word {
            0 => Ok(()),
            1 => Err(InsertError::Exists),
            _ => Err(InsertError::Full),
        }
    }
}

impl Answer for Result<(), InsertError> {
    const BROKEN: Self = Err(InsertError::Full);
}

/// Inserts `draft.flow` under one of the draft's keys, where there is nothing or what gives way to it.
#[inline(always)]
fn put_in<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) -> Result<(), InsertError> {
    let (key, flow, _) = which.parts(&mut w.draft);
    flow.seal(key.tag());
    match k.insert_flow(table, key, flow, true) {
        Err(InsertError::Exists) => stage::replace(k, w, table, which)?,
        put => put?,
    }
    stage::count_in(k, w, table, which);
    Ok(())
}

/// Counts `draft.flow`, which has come in: in one call, since every new flow goes through here.
#[inline(always)]
fn count_in<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) {
    let (key, flow, counted) = which.parts(&mut w.draft);
    counted.set(key, flow);
    count(k, w, table, Change::In);
}

/// Puts `draft.flow` in the place of what is there, if that gives way.
#[inline(always)]
fn replace<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) -> Result<(), InsertError> {
    if !make_way(k, w, table, which) {
        return Err(InsertError::Exists);
    }
    let key = which.key(&w.draft);
    let put = k.insert_flow(table, key, &w.draft.flow, false);
    if put.is_err() && !k.remove_flow(table, key) {
        // The kernel was busy with the bucket. What is there has been uncounted, and counts again.
        stage::put_back(k, w, table, which);
    }
    put
}

/// Claims what is in the place of `draft.flow`, if that gives way, and takes out the other entry of its flow: what still comes
/// for that must not be taken for the new one's. False if it stays.
#[inline(always)]
fn make_way<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) -> bool {
    let Walk { draft, there, .. } = w;
    let key = which.key(draft);
    let Some(entry) = k.flow(table, key) else { return false };
    // What lives is not claimed to find that out: others may have to.
    if !k.copy(entry, key.tag(), there) || !gives_way(k, there, key.proto, draft) {
        return false;
    }
    let Some(entry) = claim_copy(k, w, table, which) else { return false };
    let Walk { draft, there, .. } = w;
    let proto = which.key(draft).proto;
    // Another flow of this key may have come there before it was claimed.
    if !gives_way(k, there, proto, draft) {
        release(k, which.key(draft), entry);
        return false;
    }
    let translated = there.is_translated();
    if translated {
        there.set_other_key(&mut draft.loser, proto);
    }
    draft.loser_from_a = u32::from(there.is(FlowFlags::OPENER_IS_A));
    stage::count(k, w, table, Change::Out);
    if translated {
        stage::take_loser(k, w, table, which);
    }
    true
}

/// Takes out the other entry of a flow that gave way, whose key is in `draft.loser`.
#[inline(always)]
fn take_loser<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) -> bool {
    let Walk { draft, there, .. } = w;
    let Some(entry) = k.flow(table, &draft.loser) else { return false };
    if !claim(k, &draft.loser, entry) {
        return false;
    }
    let is_its = k.copy(entry, draft.loser.tag(), there)
        && there.is_translated()
        && which.key(draft).is(draft.loser_from_a != 0, &there.other);
    if !is_its || !k.remove_flow(table, &draft.loser) {
        release(k, &draft.loser, entry);
        return false;
    }
    k.note_counted(&mut draft.counted, &draft.loser, there);
    stage::count(k, w, table, Change::Out);
    true
}

/// Counts an entry again that was to be replaced and could not be, and gives the claim on it up.
#[inline(always)]
fn put_back<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) -> bool {
    let Walk { draft, there, .. } = w;
    let (key, _, counted) = which.parts(draft);
    let Some(entry) = k.flow(table, key) else { return false };
    if !k.copy(entry, key.tag(), there) {
        return false;
    }
    k.note_counted(counted, key, there);
    release(k, key, entry);
    stage::count(k, w, table, Change::In);
    true
}

/// Claims an entry: a copy of it is in `w.there`, and `draft.counted` has it. None if it is not there, or another CPU has it.
#[inline(always)]
pub(super) fn claim_copy<'k, K: Kernel>(k: &'k K, w: &mut Walk, table: Table, which: Which) -> Option<&'k Entry> {
    let Walk { draft, there, .. } = w;
    let (key, _, counted) = which.parts(draft);
    let entry = k.flow(table, key)?;
    // Nobody takes away what is claimed, so what is read then is what is there.
    if !claim(k, key, entry) {
        return None;
    }
    if !k.copy(entry, key.tag(), there) {
        release(k, key, entry);
        return None;
    }
    k.note_counted(counted, key, there);
    Some(entry)
}

/// Takes an entry out of a table. False if it is not there, or another CPU does it.
#[inline(always)]
fn take_out<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which) -> bool {
    let Some(entry) = claim_copy(k, w, table, which) else { return false };
    let removed = remove(k, w, table, which, Change::Out);
    if !removed {
        // The kernel was busy with the bucket: another time.
        release(k, which.key(&w.draft), entry);
    }
    removed
}

/// Takes out an entry that has been claimed, and that `draft.counted` has. False if the kernel does not.
#[inline(always)]
pub(super) fn remove<K: Kernel>(k: &K, w: &mut Walk, table: Table, which: Which, change: Change) -> bool {
    // First out, then uncounted: whoever tries its port meanwhile finds it taken, and notes it as that.
    if k.remove_flow(table, which.key(&w.draft)) {
        stage::count(k, w, table, change);
        return true;
    }
    false
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has come in.
    In,
    /// It goes out.
    Out,
    /// It goes out, and another has its source port.
    HandedOn,
}

variants!(Change: In, Out; else HandedOn);

/// Counts the entry that `draft.counted` has, which comes or goes. What goes has been claimed.
#[inline(always)]
fn count<K: Kernel>(k: &K, w: &mut Walk, table: Table, change: Change) {
    let counted = &w.draft.counted;
    let by = if change == Change::In { 1 } else { -1 };
    // A flow with two entries is counted by the one that is not its far one.
    if !counted.is(FlowFlags::FAR) {
        let outgoing = counted.opener != NO_SLOT;
        for index in [PodFlows::index(counted.opener, counted.responder), PodFlows::EVERYBODY] {
            count_flow(k, table, outgoing, index, by);
        }
    }
    if counted.is(FlowFlags::PORT) {
        count_port(k, counted, change, by);
    }
}

#[inline(always)]
fn count_flow<K: Kernel>(k: &K, table: Table, outgoing: bool, index: u16, by: i64) {
    let Some(flows) = k.pod_flows(index) else { return };
    let word = match table {
        Table::Established if outgoing => &flows.established,
        Table::Established => &flows.accepted,
        Table::Any if outgoing => &flows.outgoing,
        Table::Any => &flows.incoming,
    };
    k.add(word, by);
}

/// Counts the source port of a far entry to its destination, and to the pod that has it.
#[inline(always)]
fn count_port<K: Kernel>(k: &K, counted: &Counted, change: Change, by: i64) {
    let place = &counted.place;
    let Some(config) = k.config() else { return };
    if counted.is(FlowFlags::HELD)
        && let Some(share) = k.share(place.share(config.seed, counted.holder))
    {
        k.add(share, by);
    }
    let Some(total) = k.share(place.total(config.seed)) else { return };
    k.add(total, by);
    let (in_use, crowded) = (k.count(total), crowded_from(config.snat_count));
    if change == Change::HandedOn || (change == Change::In && in_use < crowded / 2) {
        return;
    }
    let mut set = k.ports(place);
    if change == Change::In && set.is_none() && in_use >= crowded && k.keep_ports(place) {
        set = k.ports(place);
    }
    let Some((word, bit)) = set.and_then(|set| set.place(counted.port.number())) else { return };
    if change == Change::In {
        k.set_bits(word, bit);
    } else if in_use < crowded / 2 {
        k.drop_ports(place);
    } else {
        k.clear_bits(word, bit);
    }
}
