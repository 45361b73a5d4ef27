//! New flows.

use super::find::find_key;
use super::pair::{insert_into, insert_near, opener_flag};
use super::ports::reserve;
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::scratch::Walk;
use crate::tables::flow::{Flow, FlowFlags, InsertError, Table};
use crate::tables::peer::NO_SLOT;

stages! {
    fn create(new_source: bool) -> Result<(), DropReason>, as Create;
    fn translate_at_uplink() -> Result<(), DropReason>, as TranslateAtUplink;
}

/// Creates the flow of a packet that has none: `draft.key` as [`super::find()`] left it, `draft.target` what the
/// responder is to see, `draft.flow` with everything but tuples, tags and NEAR, FAR and OPENER flags.
///
/// `new_source`: the source address changes, so its port has to be a free one. The target's source port is filled in.
#[inline(always)]
fn create<K: Kernel>(k: &K, w: &mut Walk, new_source: bool) -> Result<(), DropReason> {
    let (tuple, draft) = (&w.packet.tuple, &mut w.draft);
    admit(k, &draft.flow)?;
    let now = k.seconds();
    draft.flow.seen.store(now);
    draft.flow.opened = now;
    let from_a = draft.key.is_from_a(tuple);
    let alternate = draft.key.alternate != 0;
    if draft.target == *tuple && !alternate {
        draft.flow.tag = draft.key.tag();
        draft.flow.flags |= opener_flag(from_a == (draft.turned == 0));
        return match insert_into(k, Table::Any, &draft.key, &draft.flow) {
            // Another CPU had the same packet's twin, and decided the same.
            Ok(()) | Err(InsertError::Exists) => Ok(()),
            Err(InsertError::Full) => Err(DropReason::FlowTableFull),
        };
    }
    reserve(k, w, new_source || alternate)?;
    insert_near(k, &mut w.draft, from_a)
}

/// Whether the accountable pod may open another flow.
#[inline(always)]
fn admit<K: Kernel>(k: &K, flow: &Flow) -> Result<(), DropReason> {
    let slot = flow.accountable();
    if slot == NO_SLOT || flow.is(FlowFlags::FROM_NODE) {
        return Ok(());
    }
    let (Some(flows), Some(config), Some(pod)) = (k.pod_flows(slot), k.config(), k.pod(slot)) else { return Ok(()) };
    let limit = |own: u32, default: u32| if own == 0 { default } else { own };
    if flows.established.get() >= u64::from(limit(pod.max_flows, config.max_flows)) {
        return Err(DropReason::FlowLimit);
    }
    let now = k.seconds();
    if flows.second.load() != now {
        flows.second.store(now);
        flows.opened.store(0);
    }
    let opened = flows.opened.load();
    if opened >= limit(pod.max_rate, config.max_rate) {
        return Err(DropReason::FlowRate);
    }
    flows.opened.store(opened + 1);
    Ok(())
}

/// Gives a flow that leaves the cluster its source at the uplink: `draft.target` is the tuple that the outside is to
/// see, but for the port. The flow's one entry becomes two.
#[inline(always)]
fn translate_at_uplink<K: Kernel>(k: &K, w: &mut Walk) -> Result<(), DropReason> {
    let draft = &mut w.draft;
    let source_is_a = draft.key.is_from_a(&w.packet.tuple);
    let Some(hit) = find_key(k, &draft.key, source_is_a, Table::Any) else { return Err(DropReason::Race) };
    draft.flow.copy_from(hit.flow);
    let from_a = hit.flow.is(FlowFlags::OPENER_IS_A);
    draft.flow.flags = (hit.flow.flags & !FlowFlags::MASQUERADE) | FlowFlags::AT_UPLINK;
    let table = hit.table;
    reserve(k, w, true)?;
    let draft = &mut w.draft;
    draft.flow.flags = (draft.flow.flags & !(FlowFlags::FAR | FlowFlags::OPENER_IS_A | FlowFlags::OTHER_ALTERNATE))
        | FlowFlags::NEAR
        | opener_flag(from_a);
    draft.flow.tag = draft.key.tag();
    draft.flow.other = draft.target;
    match k.insert_flow(table, &draft.key, &draft.flow, false) {
        Ok(()) => Ok(()),
        Err(_) => {
            k.remove_flow(Table::Any, &draft.far);
            Err(DropReason::FlowTableFull)
        }
    }
}
