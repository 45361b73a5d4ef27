//! What is counted of flows, from the flows themselves: for tables that did not take over all of them.

use std::collections::BTreeMap;

use fairlead_datapath::flow::{Counted, Destination, Flow, FlowFlags, FlowKey, PodFlows, Table, holder};
use fairlead_datapath::peer::NO_SLOT;

/// What `POD_FLOWS` and `SHARES` have to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By index in `POD_FLOWS`: established, accepted, outgoing, incoming.
    pub pods: BTreeMap<u16, [u64; 4]>,
    /// By index in `SHARES`.
    pub shares: BTreeMap<u32, u64>,
}

/// Counts one more entry, as `flow/account.rs` does. `seed`: [`fairlead_datapath::config::Config::seed`].
pub fn recount(counts: &mut Counts, seed: u32, table: Table, key: &FlowKey, flow: &Flow) {
    let mut counted = Counted::default();
    counted.set(key, flow);
    if !counted.is(FlowFlags::FAR) {
        let outgoing = counted.opener != NO_SLOT;
        let which = match table {
            Table::Established if outgoing => 0,
            Table::Established => 1,
            Table::Any if outgoing => 2,
            Table::Any => 3,
        };
        for index in [PodFlows::index(counted.opener, counted.responder), PodFlows::EVERYBODY] {
            counts.pods.entry(index).or_default()[which] += 1;
        }
    }
    if counted.is(FlowFlags::PORT) {
        let mut place = Destination::default();
        place.set(key, flow.is(FlowFlags::OPENER_IS_A));
        *counts.shares.entry(place.total(seed)).or_default() += 1;
        if counted.is(FlowFlags::HELD) {
            *counts.shares.entry(place.share(seed, holder(flow.opener.slot, flow.other.src))).or_default() += 1;
        }
    }
}
