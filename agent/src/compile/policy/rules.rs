//! From the policies that select a pod to the rules of a policy set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fairlead_objects::{ContainerPort, NetworkPolicy, ObjectKey, Pod, PolicyPort, PortMatch, Protocol, Rule};
use serde::{Deserialize, Serialize};

use super::Atom;

/// The side of a pod that a policy judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
}

impl Direction {
    /// The rules of a policy in this direction, or `None` when it does not isolate its pods there.
    #[must_use]
    pub fn rules(self, policy: &NetworkPolicy) -> Option<&[Rule]> {
        match self {
            Self::Ingress => policy.ingress.as_deref(),
            Self::Egress => policy.egress.as_deref(),
        }
    }
}

impl Direction {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleRef {
    /// The policy.
    pub policy: ObjectKey,
    /// The rule's place in the policy's list for the set's direction, from 0.
    pub index: usize,
}

/// What a policy set stands for, in words that a person knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetInfo {
    /// The direction that it judges.
    pub direction: Direction,
    /// The policies that isolate its pods.
    pub policies: Vec<ObjectKey>,
    /// The rule that each bit stands for.
    pub rules: Vec<RuleRef>,
}

/// What a bit of a policy set asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Clause {
    /// The atoms of which a peer must meet one; `None` for every peer.
    pub(super) peers: Option<BTreeSet<Atom>>,
    /// An atom that it must meet besides.
    pub(super) and: Option<Atom>,
    /// The ports; `None` for every port of every protocol.
    pub(super) ports: Option<BTreeSet<Span>>,
}

/// Ports of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) protocol: Protocol,
    /// The first and the last, or `None` for all, 0 included.
    pub(super) ports: Option<(u16, u16)>,
}

/// The rules of a policy set, in order: what makes two sets the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Body {
    pub(super) info: SetInfo,
    /// One for each of `info.rules`.
    pub(super) clauses: Vec<Clause>,
}

/// The numbers that each port name stands for somewhere in the cluster.
pub(super) type PortNames<'a> = BTreeMap<(&'a str, Protocol), BTreeSet<u16>>;

/// The rules that judge a pod in a direction, or `None` when no policy isolates it there. Policies in the order of
/// their names, each of its own namespace.
pub(super) fn body(
    policies: &[&NetworkPolicy],
    pod: &Pod,
    direction: Direction,
    names: &PortNames<'_>,
) -> Option<Body> {
    let mut info = SetInfo { direction, policies: Vec::new(), rules: Vec::new() };
    let mut clauses = Vec::new();
    for policy in policies.iter().filter(|policy| policy.pod_selector.matches(&pod.labels)) {
        let Some(rules) = direction.rules(policy) else { continue };
        info.policies.push(policy.key.clone());
        for (index, rule) in rules.iter().enumerate() {
            for clause in clauses_of(rule, &policy.key.namespace, pod, direction, names) {
                info.rules.push(RuleRef { policy: policy.key.clone(), index });
                clauses.push(clause);
            }
        }
    }
    (!info.policies.is_empty()).then_some(Body { info, clauses })
}

fn clauses_of(rule: &Rule, namespace: &str, pod: &Pod, direction: Direction, names: &PortNames<'_>) -> Vec<Clause> {
    let peers = if rule.peers.is_empty() {
        None
    } else {
        let atoms: BTreeSet<_> = rule.peers.iter().filter_map(|peer| Atom::of(peer, namespace)).collect();
        if atoms.is_empty() {
            return Vec::new();
        }
        Some(atoms)
    };
    if rule.ports.is_empty() {
        return vec![Clause { peers, and: None, ports: None }];
    }
    let plain: BTreeSet<_> = rule.ports.iter().flat_map(|port| spans(port, direction, &pod.container_ports)).collect();
    let mut clauses = Vec::new();
    if !plain.is_empty() {
        clauses.push(Clause { peers: peers.clone(), and: None, ports: Some(plain) });
    }
    if direction == Direction::Egress {
        // What a name means depends on the destination: a clause for each number that it stands for anywhere.
        for port in &rule.ports {
            let (PortMatch::Named(name), protocol) = (&port.port, port.protocol) else { continue };
            for number in names.get(&(name.as_str(), protocol)).into_iter().flatten() {
                clauses.push(Clause {
                    peers: peers.clone(),
                    and: Some(Atom::Port { name: name.clone(), protocol, port: *number }),
                    ports: Some(BTreeSet::from([Span { protocol, ports: Some((*number, *number)) }])),
                });
            }
        }
    }
    clauses
}

/// The ports that a port of a rule means whoever the peer is.
fn spans(port: &PolicyPort, direction: Direction, declared: &[ContainerPort]) -> Vec<Span> {
    let protocol = port.protocol;
    match &port.port {
        PortMatch::Any => vec![Span { protocol, ports: None }],
        PortMatch::Range(first, last) => vec![Span { protocol, ports: Some((*first.max(&1), *last)) }],
        PortMatch::Named(name) if direction == Direction::Ingress => declared
            .iter()
            .filter(|p| p.name.as_ref() == Some(name) && p.protocol == protocol)
            .map(|p| Span { protocol, ports: Some((p.port, p.port)) })
            .collect(),
        PortMatch::Named(_) | PortMatch::Nothing => Vec::new(),
    }
}
