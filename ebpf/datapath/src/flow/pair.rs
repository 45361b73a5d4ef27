//! The entries of a flow: putting in and taking out both, and what holds for both.

use super::account::stage::{put_in, take_out};
use super::account::{Change, Entry, claim, remove};
use super::find::Hit;
use super::life::{expired, live};
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::packet::TCP;
use crate::register::Register;
use crate::scratch::{Draft, Walk};
use crate::tables::flow::{Flow, FlowFlags, FlowState, InsertError, Table};

stages! {
    fn aim_far(host: bool) -> bool, as AimFar;
    fn forget(table: Table) -> (), as Forget;
    fn end(table: Table, over: Over) -> bool, as End;
}

#[inline(always)]
pub(super) const fn opener_flag(from_a: bool) -> u32 {
    if from_a { FlowFlags::OPENER_IS_A } else { 0 }
}

/// Makes the draft's flow the far entry for the target as it stands. False if the place is taken. `host`: the source is the
/// node's address, so a socket of the node may have the port.
#[inline(always)]
fn aim_far<K: Kernel>(k: &K, w: &mut Walk, host: bool) -> bool {
    let (proto, draft) = (w.packet.proto, &mut w.draft);
    let from_a = draft.far.set(&draft.target, proto);
    let common = draft.flow.flags & !(FlowFlags::NEAR | FlowFlags::OPENER_IS_A);
    draft.flow.flags = common | FlowFlags::FAR | opener_flag(from_a);
    if host && k.host_socket(&draft.far, from_a) {
        return false;
    }
    // A connection may live under this tuple among the established ones.
    proto != TCP || live(k, Table::Established, &draft.far).is_none()
}

/// Inserts the far entry for the target as it stands.
#[inline(always)]
pub(super) fn insert_far<K: Kernel>(k: &K, w: &mut Walk, host: bool) -> Result<(), InsertError> {
    if !stage::aim_far(k, w, host) {
        return Err(InsertError::Exists);
    }
    let put = put_in(k, w, Table::Any, Entry::Other);
    // Another CPU may have moved one there between the two looks.
    if put.is_ok() && w.packet.proto == TCP && live(k, Table::Established, &w.draft.far).is_some() {
        take_out(k, w, Table::Any, Entry::Other);
        return Err(InsertError::Exists);
    }
    put
}

/// Flags of a far entry that its near one has not.
const FAR_ONLY: u32 =
    FlowFlags::FAR | FlowFlags::OPENER_IS_A | FlowFlags::OTHER_ALTERNATE | FlowFlags::PORT | FlowFlags::HELD;

/// Makes the draft's flow its near entry, after its far one is in.
#[inline(always)]
pub(super) fn turn_near(draft: &mut Draft, from_a: bool) {
    draft.flow.flags = (draft.flow.flags & !FAR_ONLY) | FlowFlags::NEAR | opener_flag(from_a);
    draft.flow.tag = draft.key.tag();
    draft.flow.other = draft.target;
}

/// Inserts the near entry. If another CPU was faster, what it decided holds.
#[inline(always)]
pub(super) fn insert_near<K: Kernel>(k: &K, w: &mut Walk, from_a: bool) -> Result<(), DropReason> {
    turn_near(&mut w.draft, from_a);
    match put_in(k, w, Table::Any, Entry::Met) {
        Ok(()) => Ok(()),
        Err(InsertError::Full) => {
            take_out(k, w, Table::Any, Entry::Other);
            Err(DropReason::FlowTableFull)
        }
        Err(InsertError::Exists) => {
            let draft = &mut w.draft;
            if let Some(theirs) = live(k, Table::Any, &draft.key)
                && theirs.is(FlowFlags::NEAR)
                && theirs.claim.load() == 0
            {
                // Another backend or port: then this one's place is given back.
                let same = theirs.other == draft.target;
                draft.target = theirs.other;
                if !same {
                    take_out(k, w, Table::Any, Entry::Other);
                }
                return Ok(());
            }
            take_out(k, w, Table::Any, Entry::Other);
            Err(DropReason::FlowRace)
        }
    }
}

/// Removes the flow that [`super::find()`] found in a table: both its entries.
#[inline(always)]
fn forget<K: Kernel>(k: &K, w: &mut Walk, table: Table) {
    let draft = &mut w.draft;
    let Some(flow) = k.flow(table, &draft.key) else { return };
    if flow.is_translated() {
        flow.set_other_key(&mut draft.far, draft.key.proto);
        if pair(k, draft, flow, table).is_some() {
            take_out(k, w, table, Entry::Other);
        }
    }
    take_out(k, w, table, Entry::Met);
}

/// Which flows a sweep takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Over {
    /// Those that have expired.
    Expired,
    /// Those of the pod in a slot.
    Of(u16),
    /// Those that are not established, and that nothing was seen of for so many seconds.
    Idle(u16),
}

impl Register for Over {
    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Self::Expired => 0,
            Self::Of(slot) => 1 << 16 | u64::from(slot),
            Self::Idle(seconds) => 2 << 16 | u64::from(seconds),
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word >> 16 {
            1 => Self::Of(word as u16),
            2 => Self::Idle(word as u16),
            _ => Self::Expired,
        }
    }
}

impl Over {
    /// Whether it is one of them.
    #[inline(always)]
    #[must_use]
    pub fn is(self, flow: &Flow, proto: u8, now: u32) -> bool {
        match self {
            Self::Expired => expired(flow, proto, now),
            Self::Of(slot) => flow.opener.slot == slot || flow.responder.slot == slot,
            Self::Idle(seconds) => {
                let state = flow.state.load();
                // What has both FINs says how long its port is to rest.
                let lasts = state & (FlowState::ESTABLISHED | FlowState::STREAM | FlowState::FINS) != 0;
                (!lasts || state & FlowState::RESET != 0) && super::life::idle_for(flow, now) >= u32::from(seconds)
            }
        }
    }
}

/// Takes out the flow whose key is in `draft.key`, if it still is one of those. True if it was.
#[inline(always)]
fn end<K: Kernel>(k: &K, w: &mut Walk, table: Table, over: Over) -> bool {
    let key = &w.draft.key;
    let Some(flow) = k.flow(table, key) else { return false };
    if flow.tag != key.tag() || !over.is(flow, key.proto, k.seconds()) {
        return false;
    }
    forget(k, w, table);
    true
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
    // Its place may be another's by now.
    let is_ours = |pair: &&Flow| {
        pair.tag == draft.far.tag()
            && pair.is_translated()
            && draft.key.is(flow.is(FlowFlags::OPENER_IS_A), &pair.other)
    };
    k.flow(table, &draft.far).filter(is_ours)
}

/// Moves a flow to the other table, with a new state. Where that is full it stays where it is: false.
#[inline(always)]
pub(super) fn relocate<K: Kernel>(k: &K, w: &mut Walk, hit: &Hit<'_>, to: Table, state: u32) -> bool {
    let flow = hit.flow;
    // Another CPU may be about to do the same.
    if !claim(k, &w.draft.key, flow) {
        return false;
    }
    let pair = pair(k, &w.draft, flow, hit.table).filter(|pair| claim(k, &w.draft.far, pair));
    let moved = match pair {
        Some(pair) => {
            copy_over(k, w, pair, to, Entry::Other, state) && {
                let near = copy_over(k, w, flow, to, Entry::Met, state);
                if !near {
                    take_out(k, w, to, Entry::Other);
                }
                near
            }
        }
        None => !flow.is_translated() && copy_over(k, w, flow, to, Entry::Met, state),
    };
    if !moved {
        pair.inspect(|pair| pair.claim.store(0));
        flow.claim.store(0);
        return false;
    }
    if let Some(pair) = pair {
        w.draft.counted.set(&w.draft.far, pair);
        remove(k, w, hit.table, Entry::Other, Change::HandedOn);
    }
    w.draft.counted.set(&w.draft.key, flow);
    remove(k, w, hit.table, Entry::Met, Change::HandedOn);
    true
}

/// Puts a copy of an entry into the other table.
#[inline(always)]
fn copy_over<K: Kernel>(k: &K, w: &mut Walk, flow: &Flow, to: Table, entry: Entry, state: u32) -> bool {
    let copy = &mut w.draft.flow;
    copy.copy_from(flow);
    copy.state.store(state);
    // What has ended does not count to anybody's share of the ports, until it turns out not to have.
    if to == Table::Any {
        copy.flags &= !FlowFlags::HELD;
    } else if copy.is(FlowFlags::PORT) {
        copy.flags |= FlowFlags::HELD;
    }
    put_in(k, w, to, entry).is_ok()
}
