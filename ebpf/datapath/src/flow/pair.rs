//! The entries of a flow: putting in and taking out both, and what holds for both.

use super::find::Hit;
use super::life::{expired, live};
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::packet::TCP;
use crate::register::{Answer, Register};
use crate::scratch::{Draft, Walk};
use crate::tables::flow::{Flow, FlowFlags, FlowKey, FlowState, InsertError, Table};

stages! {
    fn insert_far(host: bool) -> Result<(), InsertError>, as InsertFar;
    fn forget(table: Table) -> (), as Forget;
}

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

#[inline(always)]
pub(super) const fn opener_flag(from_a: bool) -> u32 {
    if from_a { FlowFlags::OPENER_IS_A } else { 0 }
}

/// Inserts the far entry for the target as it stands. `host`: the source is the node's address, so a socket of the node
/// may have the port.
#[inline(always)]
fn insert_far<K: Kernel>(k: &K, w: &mut Walk, host: bool) -> Result<(), InsertError> {
    let (proto, draft) = (w.packet.proto, &mut w.draft);
    let from_a = draft.far.set(&draft.target, proto);
    if host && k.host_socket(&draft.far, from_a) {
        return Err(InsertError::Exists);
    }
    let common = draft.flow.flags & !(FlowFlags::NEAR | FlowFlags::OPENER_IS_A);
    draft.flow.flags = common | FlowFlags::FAR | opener_flag(from_a);
    draft.flow.tag = draft.far.tag();
    // A connection may live under this tuple among the established ones.
    if proto == TCP && live(k, Table::Established, &draft.far).is_some() {
        return Err(InsertError::Exists);
    }
    match k.insert_flow(Table::Any, &draft.far, &draft.flow, true) {
        Err(InsertError::Exists) if is_free(k, proto, draft) => {
            k.insert_flow(Table::Any, &draft.far, &draft.flow, false)
        }
        other => other,
    }
}

/// Whether the entry in the far entry's place may be replaced: it has expired, or is this flow's own, whose near entry
/// was evicted.
#[inline(always)]
fn is_free<K: Kernel>(k: &K, proto: u8, draft: &Draft) -> bool {
    let Some(there) = k.flow(Table::Any, &draft.far) else { return true };
    expired(there, proto, k.seconds()) || (there.is(FlowFlags::FAR) && there.other == draft.flow.other)
}

/// Inserts the near entry. If another CPU was faster, what it decided holds.
#[inline(always)]
pub(super) fn insert_near<K: Kernel>(k: &K, draft: &mut Draft, from_a: bool) -> Result<(), DropReason> {
    let common = draft.flow.flags & !(FlowFlags::FAR | FlowFlags::OPENER_IS_A | FlowFlags::OTHER_ALTERNATE);
    draft.flow.flags = common | FlowFlags::NEAR | opener_flag(from_a);
    draft.flow.tag = draft.key.tag();
    draft.flow.other = draft.target;
    match insert_into(k, Table::Any, &draft.key, &draft.flow) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => {
            k.remove_flow(Table::Any, &draft.far);
            Err(DropReason::FlowTableFull)
        }
        Err(InsertError::Exists) => {
            let Some(theirs) = k.flow(Table::Any, &draft.key) else { return Err(DropReason::Race) };
            if theirs.tag != draft.key.tag() || !theirs.is(FlowFlags::NEAR) {
                k.remove_flow(Table::Any, &draft.far);
                return Err(DropReason::Race);
            }
            // Another backend or port: then this one's place is given back.
            if theirs.other != draft.target {
                k.remove_flow(Table::Any, &draft.far);
            }
            draft.target = theirs.other;
            Ok(())
        }
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

/// Removes the flow that [`super::find()`] found in a table: both its entries.
#[inline(always)]
pub(super) fn forget<K: Kernel>(k: &K, w: &mut Walk, table: Table) {
    let draft = &mut w.draft;
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

/// Writes a state to both entries of a flow.
#[inline(always)]
pub(super) fn note<K: Kernel>(k: &K, draft: &Draft, hit: &Hit<'_>, before: u32, state: u32) {
    hit.flow.state.store(state);
    if let Some(pair) = pair(k, draft, hit.flow, hit.table) {
        let theirs = pair.state.load();
        pair.state.store((theirs & !(before & !state)) | state);
    }
}

/// The other entry of a translated flow, whose key is in `draft.far`.
#[inline(always)]
pub(super) fn pair<'k, K: Kernel>(k: &'k K, draft: &Draft, flow: &Flow, table: Table) -> Option<&'k Flow> {
    if !flow.is_translated() {
        return None;
    }
    k.flow(table, &draft.far).filter(|pair| pair.tag == draft.far.tag())
}

/// Moves a flow to the other table, with a new state. Where that is full it stays where it is: false.
#[inline(always)]
pub(super) fn relocate<K: Kernel>(k: &K, draft: &mut Draft, hit: &Hit<'_>, to: Table, state: u32) -> bool {
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
fn discount<K: Kernel>(k: &K, flow: &Flow) {
    if flow.state.load() & FlowState::COUNTED != 0 && !flow.is(FlowFlags::FAR) {
        k.count_established(flow.accountable(), -1);
    }
}
