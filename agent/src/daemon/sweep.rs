//! Slow hygiene of the table of established flows: what has ended is removed, so that the table does not fill with it.
//! Programs pass over ended entries by themselves; nothing depends on this.

use std::collections::BTreeMap;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::flow::{Flow, FlowFlags, FlowKey, FlowState, PodFlows, expired};
use nix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes, IntoBytes};

use crate::bpf::{BpfError, Tables};

/// What a sweep has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Swept {
    /// Entries of flows that had ended and were removed.
    pub(super) removed: usize,
    /// Entries of `CT_EST` that stay.
    pub(super) established: usize,
    /// Entries of `CT_ANY`.
    pub(super) others: usize,
}

/// Removes ended flows, and counts the others.
pub(super) fn flows(tables: &Tables) -> Result<Swept, BpfError> {
    let Some(now) = seconds() else { return Ok(Swept::default()) };
    let mut seen = 0;
    let mut ended = Vec::new();
    let mut counted: BTreeMap<u16, u64> = BTreeMap::new();
    // Of the other table the least recently used go by themselves.
    let map = tables.map(TableId::EstablishedFlows)?;
    map.for_each(|key, value| {
        seen += 1;
        let (Ok(parsed), Ok(flow)) = (FlowKey::read_from_bytes(key), Flow::read_from_bytes(value)) else { return };
        if expired(&flow, parsed.proto, now) {
            ended.extend_from_slice(key);
            // A flow with two entries is counted by the one that is not its far one.
            if flow.state.load() & FlowState::COUNTED != 0 && !flow.is(FlowFlags::FAR) {
                *counted.entry(flow.accountable()).or_default() += 1;
            }
        }
    })?;
    let removed = ended.len() / size_of::<FlowKey>();
    map.delete(&ended, removed)?;
    let counts = tables.map(TableId::FlowCounts)?;
    for (slot, count) in counted {
        let key = u32::from(slot).to_ne_bytes();
        let Some(value) = counts.get(&key)? else { continue };
        if let Ok(mut flows) = PodFlows::read_from_bytes(&value) {
            flows.established.set(flows.established.get().saturating_sub(count));
            counts.update(&key, flows.as_mut_bytes(), 1)?;
        }
    }
    let mut others = 0;
    tables.map(TableId::OtherFlows)?.for_each(|_, _| others += 1)?;
    Ok(Swept { removed, established: seen - removed, others })
}

/// Seconds since boot, as the programs count them (`bpf_ktime_get_ns` is CLOCK_MONOTONIC).
pub(super) fn seconds() -> Option<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    u32::try_from(now.tv_sec()).ok()
}
