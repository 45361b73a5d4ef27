//! Flows that a sweep of the tables sees for the first time, and those that policies deny now which did not before.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use fairlead_datapath::flow::{Flow, FlowFlags, FlowKey, FlowState};
use fairlead_datapath::packet::{SCTP, TCP, UDP};
use fairlead_datapath::peer::NO_SLOT;
use fairlead_datapath::{Addr, WirePort};
use zerocopy::IntoBytes;

use super::{Auditor, Denied};
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

/// Kinds of flows of one pod that are judged in one sweep. What is left is judged in the next: a pod that opens flows to ever new ends takes
/// neither the agent's time nor its memory.
const AT_A_TIME: u32 = 4096;

/// The flows that the sweep before has seen: of each end that is audited, what denied it, or 0.
#[derive(Debug, Default)]
pub struct Known {
    ends: HashMap<u64, u64>,
    hasher: RandomState,
}

/// Collects flows that policies in audit mode deny.
#[derive(Debug)]
pub struct Collector<'a> {
    auditor: &'a Auditor,
    before: &'a Known,
    /// Policies are others than those that judged the flows that are known.
    again: bool,
    now: HashMap<u64, u64>,
    judged: HashMap<Seen, u64>,
    denied: BTreeMap<Seen, (u64, Denied)>,
    /// How many kinds of flows have been judged, by slot.
    spent: HashMap<u16, u32>,
}

impl<'a> Collector<'a> {
    /// Of those that are not known, or of all if policies have changed: then those count that were not denied by the same words.
    #[must_use]
    pub fn new(auditor: &'a Auditor, before: &'a Known, again: bool) -> Self {
        let (now, judged, denied, spent) = (HashMap::new(), HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { auditor, before, again, now, judged, denied, spent }
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
        for seen in ends.into_iter().flatten() {
            let end = self.before.hasher.hash_one((key.as_bytes(), seen.direction));
            let before = self.before.ends.get(&end).copied();
            let text = match before {
                _ if self.now.contains_key(&end) => continue,
                Some(text) if !self.again => Some(text),
                _ => self.judge(seen),
            };
            let Some(text) = text else { continue };
            self.now.insert(end, text);
            if text != 0
                && Some(text) != before
                && let Some((flows, _)) = self.denied.get_mut(&seen)
            {
                *flows += 1;
            }
        }
    }

    /// What denies flows of this kind, or 0. Nothing if the pod's turn is over.
    fn judge(&mut self, seen: Seen) -> Option<u64> {
        let Self { auditor, judged, denied, spent, .. } = self;
        if let Some(text) = judged.get(&seen) {
            return Some(*text);
        }
        let spent = spent.entry(seen.slot).or_default();
        if *spent >= AT_A_TIME {
            return None;
        }
        *spent += 1;
        let text = auditor.judge(&seen).map_or(0, |found| {
            let text = found.text;
            denied.insert(seen, (0, found));
            text
        });
        judged.insert(seen, text);
        Some(text)
    }

    /// What is denied, how often that is new, and what is known from now on.
    #[must_use]
    pub fn end(self) -> (Vec<(Seen, u64, Denied)>, Known) {
        let found = self.denied.into_iter().filter(|(_, (flows, _))| *flows > 0);
        let found = found.map(|(seen, (flows, denied))| (seen, flows, denied)).collect();
        (found, Known { ends: self.now, hasher: self.before.hasher.clone() })
    }
}
