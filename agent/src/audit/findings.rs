//! What was found, for who asks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fairlead_objects::ObjectKey;

use super::Denied;
use crate::compile::policy::{Direction, RuleRef};

/// Findings that are kept. Of more, one goes of the pod that has most, and there of the peer that has most: the one that was not
/// seen for the longest time. So nobody makes what was found of others go.
const KEPT: usize = 2048;

/// Flows that would be dropped, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The pod that is judged.
    pub pod: ObjectKey,
    /// In which direction.
    pub direction: Direction,
    /// The other end: `namespace/pod`, `node/name` or an address.
    pub peer: String,
    /// The IP protocol number.
    pub proto: u8,
    /// The responder's port, 0 where there is none.
    pub port: u16,
    /// The rule that denies them, or nothing.
    pub by: Option<RuleRef>,
    /// The policies in audit mode that deny them.
    pub policies: Vec<ObjectKey>,
    /// What of these policies says so ([`super::Texts::text`]).
    pub text: u64,
}

/// How often and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// New flows.
    pub flows: u64,
    /// When they were seen first and last, in seconds since 1970.
    pub first: u64,
    /// The last time.
    pub last: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    found: BTreeMap<ObjectKey, OfPod>,
    /// How many that are.
    count: usize,
    /// Flows by policy and direction, for as long as the agent runs.
    flows: BTreeMap<(ObjectKey, Direction), u64>,
    /// Findings that had to go, and those that were too many at once.
    left_out: u64,
    /// Since when policies are audited, in seconds since 1970, while some are.
    since: Option<u64>,
}

/// What was found of one pod, by its peers.
#[derive(Debug, Clone, Default)]
struct OfPod {
    peers: BTreeMap<String, BTreeMap<Finding, Found>>,
    count: usize,
}

impl Findings {
    /// Policies are audited, or none is any more: what was found is forgotten then.
    pub fn set_auditing(&mut self, auditing: bool, now: u64) {
        if auditing {
            self.since.get_or_insert(now);
        } else {
            *self = Self::default();
        }
    }

    /// Policies have changed: what was found of those that are not audited any more, and of those that say something else, is
    /// forgotten. What was counted of a policy stays as long as it is audited.
    pub fn keep(&mut self, is_audited: impl Fn(&ObjectKey) -> bool, says: impl Fn(&Finding) -> bool) {
        let stays = |finding: &Finding| {
            says(finding)
                && match &finding.by {
                    Some(rule) => is_audited(&rule.policy),
                    None => finding.policies.iter().any(&is_audited),
                }
        };
        for of_pod in self.found.values_mut() {
            of_pod.peers.retain(|_, found| {
                found.retain(|finding, _| stays(finding));
                !found.is_empty()
            });
            of_pod.count = of_pod.peers.values().map(BTreeMap::len).sum();
        }
        self.found.retain(|_, of_pod| of_pod.count > 0);
        self.count = self.found.values().map(|of_pod| of_pod.count).sum();
        self.flows.retain(|(policy, _), _| is_audited(policy));
    }

    /// So many findings of one sweep were too many to be told of.
    pub fn leave_out(&mut self, findings: usize) {
        self.left_out += findings as u64;
    }

    /// Takes note of flows.
    pub fn note(&mut self, finding: Finding, flows: u64, now: u64) {
        let concerned = match &finding.by {
            Some(rule) => std::slice::from_ref(&rule.policy),
            // What no rule allows is denied by all of them together.
            None => &finding.policies,
        };
        for policy in concerned {
            *self.flows.entry((policy.clone(), finding.direction)).or_default() += flows;
        }
        let of_pod = self.found.entry(finding.pod.clone()).or_default();
        match of_pod.peers.entry(finding.peer.clone()).or_default().entry(finding) {
            Entry::Occupied(mut found) => {
                let found = found.get_mut();
                (found.flows, found.last) = (found.flows + flows, now);
            }
            Entry::Vacant(place) => {
                place.insert(Found { flows, first: now, last: now });
                of_pod.count += 1;
                self.count += 1;
            }
        }
        if self.count > KEPT && self.remove_one().is_some() {
            self.left_out += 1;
        }
    }

    /// Removes the finding that goes when there are too many.
    fn remove_one(&mut self) -> Option<()> {
        let of_pod = self.found.values_mut().max_by_key(|of_pod| of_pod.count)?;
        let (peer, found) = of_pod.peers.iter_mut().max_by_key(|(_, found)| found.len())?;
        let oldest = found.iter().min_by_key(|(_, found)| found.last).map(|(finding, _)| finding.clone())?;
        found.remove(&oldest)?;
        if found.is_empty() {
            let peer = peer.clone();
            of_pod.peers.remove(&peer);
        }
        of_pod.count -= 1;
        self.count -= 1;
        Some(())
    }

    /// What was found, and of each how often.
    pub fn iter(&self) -> impl Iterator<Item = (&Finding, &Found)> {
        self.found.values().flat_map(|of_pod| of_pod.peers.values().flatten())
    }

    /// New flows that would be dropped, by policy and direction.
    #[must_use]
    pub fn flows(&self) -> &BTreeMap<(ObjectKey, Direction), u64> {
        &self.flows
    }

    /// Findings that had to go, and those that were too many at once.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Since when policies are audited.
    #[must_use]
    pub fn since(&self) -> Option<u64> {
        self.since
    }
}

impl Finding {
    /// What would be dropped, of a pod and its peer by their names.
    #[must_use]
    pub fn new(pod: ObjectKey, peer: String, seen: &super::Seen, denied: Denied) -> Self {
        let Denied { by, policies, text } = denied;
        Self { pod, direction: seen.direction, peer, proto: seen.proto, port: seen.port.number(), by, policies, text }
    }
}
