//! Flows that a sweep of the tables sees for the first time.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use fairlead_datapath::flow::{Flow, FlowFlags, FlowKey, FlowState};
use fairlead_datapath::packet::{SCTP, TCP, UDP};
use fairlead_datapath::peer::NO_SLOT;
use fairlead_datapath::{Addr, WirePort};
use zerocopy::IntoBytes;

use super::Auditor;
use crate::compile::policy::Direction;

/// Flows of a pod in a direction that policy can't tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seen {
    /// The pod's slot.
    pub slot: u16,
    /// Whether it opened them or somebody opened them to it.
    pub direction: Direction,
    /// The other end, as it really is.
    pub peer: Addr,
    /// The IP protocol number.
    pub proto: u8,
    /// The responder's port, after translation.
    pub port: WirePort,
    /// The other end is the pod itself.
    pub own: bool,
}

/// The flows that the sweep before has seen.
#[derive(Debug, Default)]
pub struct Known {
    flows: HashSet<u64>,
    hasher: RandomState,
}

/// Collects flows that policies in audit mode have a say in.
#[derive(Debug)]
pub struct Collector<'a> {
    auditor: &'a Auditor,
    before: &'a Known,
    now: HashSet<u64>,
    seen: BTreeMap<Seen, u64>,
}

impl<'a> Collector<'a> {
    /// Those that are not known.
    #[must_use]
    pub fn new(auditor: &'a Auditor, before: &'a Known) -> Self {
        Self { auditor, before, now: HashSet::new(), seen: BTreeMap::new() }
    }

    /// Takes note of an entry of the tables of flows.
    pub fn note(&mut self, key: &FlowKey, flow: &Flow) {
        // Of a translated flow the far entry alone knows both ends as they are. No policy keeps a node from its pods.
        if flow.is(FlowFlags::NEAR) || flow.is(FlowFlags::FROM_NODE) || flow.state.value & FlowState::GONE != 0 {
            return;
        }
        let has_ports = [TCP, UDP, SCTP].contains(&key.proto);
        let (opener, responder, port) =
            if flow.is(FlowFlags::OPENER_IS_A) { (key.a, key.b, key.b_port) } else { (key.b, key.a, key.a_port) };
        let port = if has_ports { port } else { WirePort::NONE };
        let opener = if flow.is(FlowFlags::FAR) { flow.other.src } else { opener };
        let ends =
            [(flow.opener.slot, Direction::Egress, responder), (flow.responder.slot, Direction::Ingress, opener)];
        let ends = ends.map(|(slot, direction, peer)| {
            let concerned = slot != NO_SLOT && self.auditor.selects(slot, direction);
            concerned.then_some(Seen { slot, direction, peer, proto: key.proto, port, own: opener == responder })
        });
        if ends.iter().all(Option::is_none) {
            return;
        }
        let flow = self.before.hasher.hash_one(key.as_bytes());
        if self.now.insert(flow) && !self.before.flows.contains(&flow) {
            for seen in ends.into_iter().flatten() {
                *self.seen.entry(seen).or_default() += 1;
            }
        }
    }

    /// What was seen, how often, and what is known from now on.
    #[must_use]
    pub fn end(self) -> (BTreeMap<Seen, u64>, Known) {
        (self.seen, Known { flows: self.now, hasher: self.before.hasher.clone() })
    }
}
