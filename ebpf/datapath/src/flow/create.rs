//! New flows.

use super::account::stage::{put_in, take_out};
use super::account::{Which, claim_copy};
use super::change::release;
use super::find::stage::look;
use super::find::{Place, opens};
use super::pair::{insert_near, opener_flag, turn_near};
use super::ports::stage::reserve;
use crate::Long;
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::scratch::Walk;
use crate::tables::flow::{FlowFlags, InsertError, MAX_FLOW_ENTRIES, PodFlows, Table};

stages! {
    fn admit() -> Result<(), DropReason>, as Admit;
    fn create(new_source: bool) -> Result<(), DropReason>, as Create;
    fn translate_at_uplink() -> Result<(), DropReason>, as TranslateAtUplink;
}

/// Creates the flow of a packet that has none: `draft.key` as [`super::find()`] left it, `draft.target` what the
/// responder is to see, `draft.flow` with everything but tuples, tags and NEAR, FAR and OPENER flags.
///
/// `new_source`: the source address changes, so its port has to be a free one. The target's source port is filled in.
#[inline(always)]
fn create<K: Kernel>(k: &K, w: &mut Walk, new_source: bool) -> Result<(), DropReason> {
    stage::admit(k, w)?;
    let (tuple, draft) = (&w.packet.tuple, &mut w.draft);
    let now = k.seconds();
    draft.flow.seen = u64::from(now);
    draft.flow.opened = now;
    let from_a = draft.key.is_from_a(tuple);
    let alternate = draft.key.alternate != 0;
    if draft.target == *tuple && !alternate {
        // The uplink makes the other entry, and writes another tuple there.
        draft.flow.other.sport = draft.again;
        draft.flow.flags |= opener_flag(from_a == (draft.turned == 0));
        return match put_in(k, w, Table::Any, Which::Met) {
            // Another CPU had the same packet's twin, and decided the same.
            Ok(()) | Err(InsertError::Exists) => Ok(()),
            Err(InsertError::Full) => Err(DropReason::FlowTableFull),
        };
    }
    reserve(k, w, new_source || alternate)?;
    insert_near(k, w, from_a)
}

/// Flows that are never refused while a table takes any: of who has fewer.
const FEW: u64 = 1024;

/// Flows that each table takes, if all are translated.
const ROOM: u64 = MAX_FLOW_ENTRIES as u64 / 2;

/// Whether who accounts for the draft's flow may have another.
#[inline(always)]
fn admit<K: Kernel>(k: &K, w: &mut Walk) -> Result<(), DropReason> {
    let flow = &w.draft.flow;
    // What the node asks pods for directly is always allowed. To services it has ways that need no flow, and others may pass for
    // it there.
    if flow.is(FlowFlags::FROM_NODE) && !flow.is_of_svc() {
        return Ok(());
    }
    let index = PodFlows::index(flow.opener.slot, flow.responder.slot);
    let (Some(config), Some(own), Some(all)) = (k.config(), k.pod_flows(index), k.pod_flows(PodFlows::EVERYBODY))
    else {
        return Ok(());
    };
    let pod = if index == PodFlows::NOBODY { None } else { k.pod(index) };
    let limit = |own: Option<u32>, default: u32| u64::from(own.filter(|own| *own != 0).unwrap_or(default));
    let (max_established, max_open) = match pod {
        Some(pod) => (limit(Some(pod.max_flows), config.max_flows), u64::from(config.max_open)),
        None => (ROOM, ROOM),
    };
    let outgoing = flow.is_outgoing();
    let (established, open) = match outgoing {
        true => (k.count(&own.established), k.count(&own.outgoing)),
        false => (k.count(&own.accepted), k.count(&own.incoming)),
    };
    if established >= max_established || open >= max_open {
        return Err(DropReason::FlowLimit);
    }
    // Nobody has more than is left for others: one gets half of a table, each of two a third, and so on.
    let is_too_much = |own: u64, a: &Long, b: &Long| own >= FEW && own + k.count(a) + k.count(b) >= ROOM;
    if is_too_much(established, &all.established, &all.accepted) || is_too_much(open, &all.outgoing, &all.incoming) {
        return Err(DropReason::FlowShare);
    }
    if !outgoing {
        return Ok(());
    }
    let now = k.seconds();
    if own.second.load() != now {
        own.second.store(now);
        own.opened.store(0);
    }
    let opened = own.opened.load();
    if u64::from(opened) >= limit(pod.map(|pod| pod.max_rate), config.max_rate) {
        return Err(DropReason::FlowRate);
    }
    own.opened.store(opened + 1);
    Ok(())
}

/// Gives a flow that leaves the cluster its source at the uplink: `draft.target` is the tuple that the outside is to
/// see, but for the port. The flow's one entry becomes two.
#[inline(always)]
fn translate_at_uplink<K: Kernel>(k: &K, w: &mut Walk) -> Result<(), DropReason> {
    let source_is_a = w.draft.key.is_from_a(&w.packet.tuple);
    let opens = opens(&w.packet);
    let Some(Place { table, .. }) = look(k, w, source_is_a, opens) else { return Err(DropReason::FlowRace) };
    // Its other end knows it by the pod's address: it began where nothing is translated, and the route has changed.
    if table == Table::Established && w.met.is(FlowFlags::MASQUERADE) {
        return Err(DropReason::Untranslated);
    }
    let Some(entry) = claim_copy(k, w, table, Which::Met) else {
        // Another CPU may have been about to do the same, and be done by now.
        if look(k, w, source_is_a, opens).is_none() || !w.met.is(FlowFlags::AT_UPLINK) {
            return Err(DropReason::FlowRace);
        }
        w.draft.target = w.met.other;
        return Ok(());
    };
    let draft = &mut w.draft;
    draft.flow = w.there;
    draft.again = draft.flow.other.sport;
    let from_a = draft.flow.is(FlowFlags::OPENER_IS_A);
    draft.flow.flags = (draft.flow.flags & !FlowFlags::MASQUERADE) | FlowFlags::AT_UPLINK;
    if let Err(reason) = reserve(k, w, true) {
        release(k, &w.draft.key, entry);
        return Err(reason);
    }
    turn_near(&mut w.draft, from_a);
    // The same flow in the same table: it stays counted.
    match k.insert_flow(table, &w.draft.key, &w.draft.flow, false) {
        Ok(()) => Ok(()),
        Err(_) => {
            release(k, &w.draft.key, entry);
            take_out(k, w, Table::Any, Which::Other);
            Err(DropReason::FlowTableFull)
        }
    }
}
