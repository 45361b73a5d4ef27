//! Hygiene of the tables of flows: what is over is taken out, so that the tables do not fill with it. Programs pass over ended
//! entries by themselves; nothing but room depends on this.
//!
//! The tables are read here, and what is to go is taken out by a program, which counts it ([`Hooks::end_flows`]).

use std::collections::BTreeSet;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::config::Lifetimes;
use fairlead_datapath::flow::{Destination, Flow, FlowKey, FlowState, MAX_FLOW_ENTRIES, PodFlows, Table, crowded_from};
use fairlead_datapath::peer::NO_SLOT;
use fairlead_datapath::walk::Over;
use fairlead_datapath::{Addr, Tuple};
use nix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes, IntoBytes};

use super::names::Lingering;
use super::ports::Census;
use crate::audit::Collector;
use crate::bpf::{BpfError, Hooks, Tables};

/// Seconds without a packet after which flows that are not established go when room is short.
const IDLE: u16 = 3;

/// Flows that are many when the table is half full.
const MANY: u64 = 8192;

/// Connections of pods that are gone that stay to tell the other end, in entries: a sixteenth of the table.
const MOST_TOLD: usize = MAX_FLOW_ENTRIES as usize / 16;

/// What a sweep has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Swept {
    /// Flows that were taken out.
    pub(super) removed: usize,
    /// Entries of `CT_EST` that stay.
    pub(super) established: usize,
    /// Entries of `CT_ANY`.
    pub(super) others: usize,
    /// Whether room is short for somebody, so that the next sweep had better be soon.
    pub(super) short: bool,
    /// Whether flows of pods that are gone may have stayed.
    pub(super) left: bool,
}

/// Whose flows stay.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Slots and addresses of the pods that are there.
    pub(super) pods: BTreeSet<(u16, Addr)>,
    /// Addresses that no pod may have opened a flow to.
    pub(super) closed: BTreeSet<Addr>,
    /// For how long.
    pub(super) lifetimes: Lifetimes,
    /// Other flows than established connections that a pod may have.
    pub(super) max_open: u32,
}

/// Who looks at the flows while they are read.
pub(super) struct Lookers<'a, 'b> {
    /// Counts what stays.
    pub(super) census: Option<&'a mut Census>,
    /// Wants to know of all.
    pub(super) audit: Option<&'a mut Collector<'b>>,
    /// Wants to know of those that a name opened which has ended.
    pub(super) lingering: &'a mut Lingering,
}

/// Takes out what has expired, what is of pods that are gone, what they opened to where they may not any more, and, of whoever
/// has nearly all that he may have, what is not established and idle. `seed`: that of `CONFIG`; `ports`: how many a destination
/// has; `census`: counts what stays; `audit`: wants to know of all; `lingering`: of those that a
/// name opened.
pub(super) fn flows(
    tables: &Tables,
    hooks: &mut Hooks,
    kept: &Kept,
    seed: u32,
    ports: u16,
    lookers: Lookers<'_, '_>,
) -> Result<Swept, BpfError> {
    let Lookers { mut census, mut audit, lingering } = lookers;
    let Some(now) = seconds() else { return Ok(Swept::default()) };
    let short = short(tables, kept.max_open)?;
    let mut swept = Swept { short: !short.is_empty(), ..Swept::default() };
    for (table, id) in [(Table::Established, TableId::EstablishedFlows), (Table::Any, TableId::OtherFlows)] {
        let (mut entries, mut told) = (0, 0);
        let mut ended: Vec<(Over, FlowKey)> = Vec::new();
        tables.map(id)?.for_each(|key, value| {
            entries += 1;
            let (Ok(key), Ok(flow)) = (FlowKey::read_from_bytes(key), Flow::read_from_bytes(value)) else { return };
            if let Some(audit) = &mut audit {
                audit.note(&key, &flow);
            }
            lingering.note(&key, &flow);
            told += usize::from(flow.state.value & FlowState::GONE != 0);
            if let Some(over) = verdict(&key, &flow, table, now, kept, &short) {
                ended.push((over, key));
            } else if let Some(census) = &mut census {
                census.count(&key, &flow);
            }
        })?;
        keep_few(&mut ended, MOST_TOLD.saturating_sub(told));
        ended.sort_unstable_by_key(|(over, _)| *over);
        for group in ended.chunk_by(|(one, _), (other, _)| one == other) {
            let keys: Vec<_> = group.iter().map(|(_, key)| *key).collect();
            let left = hooks.end_flows(table, group[0].0, &keys)?;
            swept.removed += keys.len().saturating_sub(left);
            // The kernel may have been busy with a bucket, or a packet with the flow.
            swept.left |= left > 0 && matches!(group[0].0, Over::Of(_) | Over::Bury(_));
        }
        let left = entries - ended.len().min(entries);
        match table {
            Table::Established => swept.established = left,
            Table::Any => swept.others = left,
        }
    }
    drop_sets(tables, seed, ports)?;
    Ok(swept)
}

/// Of connections of pods that are gone only so many stay to tell the other end.
fn keep_few(ended: &mut [(Over, FlowKey)], most: usize) {
    let told = ended.iter_mut().filter(|(over, _)| matches!(over, Over::Bury(_)));
    for (over, _) in told.skip(most) {
        if let Over::Bury(slot) = *over {
            *over = Over::Of(slot);
        }
    }
}

/// Removes the sets of ports of destinations that are no longer crowded.
fn drop_sets(tables: &Tables, seed: u32, ports: u16) -> Result<(), BpfError> {
    let (sets, shares) = (tables.map(TableId::PortSets)?, tables.map(TableId::PortShares)?);
    let mut kept = Vec::new();
    sets.for_each(|key, _| kept.extend(Destination::read_from_bytes(key)))?;
    for place in kept {
        let total = shares.get(&place.total(seed).to_ne_bytes())?.and_then(|value| u64::read_from_bytes(&value).ok());
        if total.is_some_and(|total| total < crowded_from(ports) / 2) {
            sets.delete(place.as_bytes(), 1)?;
        }
    }
    Ok(())
}

/// Why an entry goes, if it does. `short`: indices of `POD_FLOWS` where room is.
fn verdict(key: &FlowKey, flow: &Flow, table: Table, now: u32, kept: &Kept, short: &BTreeSet<u16>) -> Option<Over> {
    let lifetimes = &kept.lifetimes;
    if Over::Expired.is(flow, key.proto, now, lifetimes) {
        return Some(Over::Expired);
    }
    // A pod's address is in its own entry's key, or in the other's tuple.
    let other = if flow.is_translated() { flow.other } else { Tuple::NONE };
    let ends = [key.a, key.b, other.src, other.dst];
    let is_gone = |slot: &u16| *slot != NO_SLOT && !ends.iter().any(|addr| kept.pods.contains(&(*slot, *addr)));
    if let Some(slot) = [flow.opener.slot, flow.responder.slot].into_iter().find(is_gone) {
        return Some(if table == Table::Established { Over::Bury(slot) } else { Over::Of(slot) });
    }
    // It would go on for as long as it is in use, although it could not be opened any more.
    if flow.opener.slot != NO_SLOT && ends.iter().any(|addr| kept.closed.contains(addr)) {
        return Some(Over::Of(flow.opener.slot));
    }
    let accounts = PodFlows::index(flow.opener.slot, flow.responder.slot);
    let idle = Over::Idle(IDLE);
    (table == Table::Any && short.contains(&accounts) && idle.is(flow, key.proto, now, lifetimes)).then_some(idle)
}

/// Who has more than half of the flows that he may have in `CT_ANY`, by index in `POD_FLOWS`; who has many, if that is half
/// full.
fn short(tables: &Tables, max_open: u32) -> Result<BTreeSet<u16>, BpfError> {
    let (mut short, mut many) = (BTreeSet::new(), BTreeSet::new());
    let mut all = false;
    tables.map(TableId::FlowCounts)?.for_each(|key, value| {
        let (Ok(index), Ok(flows)) = (u32::read_from_bytes(key), PodFlows::read_from_bytes(value)) else { return };
        let Ok(index) = u16::try_from(index) else { return };
        let (outgoing, incoming) = (flows.outgoing.count(), flows.incoming.count());
        match index {
            PodFlows::EVERYBODY => all = outgoing + incoming > u64::from(MAX_FLOW_ENTRIES) / 4,
            _ if outgoing.max(incoming) > half(index, max_open) => drop(short.insert(index)),
            _ if outgoing + incoming > MANY => drop(many.insert(index)),
            _ => {}
        }
    })?;
    if all {
        short.append(&mut many);
    }
    Ok(short)
}

/// Half of the flows that who is accounted for by this index may have in `CT_ANY`. Clients outside and what is no pod of this node share
/// what half of the table takes.
fn half(index: u16, max_open: u32) -> u64 {
    u64::from(if index == PodFlows::NOBODY { MAX_FLOW_ENTRIES / 2 } else { max_open }) / 2
}

/// Seconds since boot, as the programs count them (`bpf_ktime_get_ns` is CLOCK_MONOTONIC).
pub(super) fn seconds() -> Option<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    u32::try_from(now.tv_sec()).ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use fairlead_datapath::WirePort;
    use fairlead_datapath::flow::{End, Owned};
    use fairlead_datapath::peer::NO_NODE;

    use super::*;

    fn entry(slot: u16, from: &str, idle: u32, state: u32) -> (FlowKey, Flow) {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let tuple = Tuple {
            src: addr(from),
            dst: addr("192.0.2.1"),
            sport: WirePort::new(1),
            dport: WirePort::new(53),
            ..Tuple::NONE
        };
        let flow = Flow {
            opener: End { slot, node: NO_NODE },
            seen: u64::from(1000 - idle),
            state: Owned::new(state),
            ..Flow::new()
        };
        (FlowKey::of(&tuple, 17).0, flow)
    }

    #[test]
    fn room_is_short_from_half_of_what_the_settings_allow_on() {
        assert_eq!(half(3, 8192), 4096);
        assert_eq!(half(3, 200_000), 100_000);
        assert_eq!(half(PodFlows::NOBODY, 8192), u64::from(MAX_FLOW_ENTRIES) / 4);
    }

    #[test]
    fn what_goes_is_over_of_a_pod_that_is_gone_or_idle_where_room_is_short() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let pods = BTreeSet::from([(1, addr("10.0.0.1")), (4, addr("10.0.0.4")), (5, addr("10.0.0.5"))]);
        let kept = Kept { pods, ..Kept::default() };
        let short = BTreeSet::from([5]);
        let by = |kept: &Kept, slot, from: &str, idle, state| {
            let (key, flow) = entry(slot, from, idle, state);
            verdict(&key, &flow, Table::Any, 1000, kept, &short)
        };
        let decide = |slot, from: &str, idle, state| by(&kept, slot, from, idle, state);
        assert_eq!(decide(1, "10.0.0.1", 0, 0), None);
        assert_eq!(decide(1, "10.0.0.1", 31, 0), Some(Over::Expired));
        assert_eq!(decide(3, "10.0.0.3", 0, 0), Some(Over::Of(3)));
        assert_eq!(decide(4, "10.0.0.3", 0, 0), Some(Over::Of(4)), "another pod has the slot by now");
        assert_eq!(decide(4, "10.0.0.4", 0, 0), None);
        assert_eq!(decide(NO_SLOT, "10.0.0.9", 0, 0), None, "of no pod");
        let (key, flow) = entry(3, "10.0.0.3", 0, FlowState::ESTABLISHED);
        assert_eq!(verdict(&key, &flow, Table::Established, 1000, &kept, &short), Some(Over::Bury(3)));
        let mut ended = [(Over::Bury(3), key), (Over::Expired, key), (Over::Bury(4), key), (Over::Bury(5), key)];
        keep_few(&mut ended, 2);
        assert_eq!(ended.map(|(over, _)| over), [Over::Bury(3), Over::Expired, Over::Bury(4), Over::Of(5)]);
        assert_eq!(decide(5, "10.0.0.5", 2, 0), None);
        assert_eq!(decide(5, "10.0.0.5", 3, FlowState::REPLIED), Some(Over::Idle(IDLE)));
        assert_eq!(decide(5, "10.0.0.5", 3, FlowState::REPLIED | FlowState::STREAM), None);
        assert_eq!(decide(1, "10.0.0.1", 3, 0), None, "who has room keeps his");
        let closed = Kept { closed: BTreeSet::from([addr("192.0.2.1")]), ..kept };
        assert_eq!(
            by(&closed, 1, "10.0.0.1", 0, FlowState::ESTABLISHED),
            Some(Over::Of(1)),
            "it can't be opened any more"
        );
        assert_eq!(by(&closed, NO_SLOT, "10.0.0.9", 0, 0), None, "it is closed to pods");
    }
}
