//! From the policies that select a pod to the rules of a policy set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fairlead_datapath::policy::{PAGE_BITS, RULE_BITS};
use fairlead_objects::{
    Action, ClusterNetworkPolicy, ClusterRule, ContainerPort, Labels, Mode, NetworkPolicy, ObjectKey, Peer, Pod,
    PolicyPort, PortMatch, Protocol, Rule, Tier,
};
use serde::{Deserialize, Serialize};

use super::Atom;
use super::coverage::has_names;
use super::port_names::Numbered;
use crate::model::Model;

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

    /// The rules of a policy of the cluster in this direction.
    #[must_use]
    pub fn cluster_rules(self, policy: &ClusterNetworkPolicy) -> &[ClusterRule] {
        match self {
            Self::Ingress => &policy.ingress,
            Self::Egress => &policy.egress,
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
    /// The tier, which says what kind of policy it is.
    pub tier: Tier,
    /// The policy.
    pub policy: ObjectKey,
    /// The rule's place in the policy's list for the set's direction, from 0.
    pub index: usize,
    /// The rule's name, or nothing.
    pub name: String,
}

impl RuleRef {
    /// A rule of a NetworkPolicy, which has no name.
    #[must_use]
    pub fn of(policy: &ObjectKey, index: usize) -> Self {
        Self { tier: Tier::NetworkPolicy, policy: policy.clone(), index, name: String::new() }
    }

    /// A rule of a ClusterNetworkPolicy.
    #[must_use]
    pub fn of_cluster(policy: &ClusterNetworkPolicy, index: usize, rule: &ClusterRule) -> Self {
        Self { tier: policy.tier, policy: policy.key.clone(), index, name: rule.name.clone() }
    }
}

/// What a policy set stands for, in words that a person knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SetInfo {
    /// The direction that it judges.
    pub direction: Direction,
    /// The policies that judge its pods, in the order in which they are asked; those of the cluster have no namespace.
    pub policies: Vec<ObjectKey>,
    /// The rule that each bit stands for.
    pub rules: Vec<RuleRef>,
    /// The bits that anything can meet, in order.
    pub bits: Vec<u32>,
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
    /// One for each of `info.rules`: a bit each.
    pub(super) clauses: Vec<Clause>,
    /// Pages that the Admin tier fills.
    pub(super) admin_pages: usize,
    /// No NetworkPolicy isolates the pods: what comes after the Admin tier is Baseline, and what no rule decides on may pass.
    pub(super) is_open: bool,
}

/// The policies that judge a pod in a direction, and all else that its rules depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selecting {
    direction: Direction,
    /// The namespace, where a policy of it is among them.
    pub(super) namespace: Option<String>,
    /// Of the cluster, in the order in which they are asked, by their place in a list.
    cluster: Vec<usize>,
    /// NetworkPolicies, by name, by their place in a list.
    network: Vec<usize>,
    /// What its named ports stand for, where it is asked for them.
    ports: Vec<(Option<String>, Protocol, u16)>,
    /// The pod, where it is asked what it was told by DNS.
    told: Option<ObjectKey>,
}

/// All policies, in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Policies<'a> {
    cluster: Vec<&'a ClusterNetworkPolicy>,
    network: BTreeMap<&'a str, Vec<&'a NetworkPolicy>>,
}

/// The order in which policies of the cluster are asked: by tier, by priority, then by name.
pub(super) fn rank(policy: &ClusterNetworkPolicy) -> (Tier, Option<u16>, &ObjectKey) {
    (policy.tier, policy.priority, &policy.key)
}

impl<'a> Policies<'a> {
    pub(super) fn new(cluster: &[&'a ClusterNetworkPolicy], network: &[&'a NetworkPolicy]) -> Self {
        let mut policies = Self { cluster: cluster.to_vec(), network: BTreeMap::new() };
        policies.cluster.sort_by_key(|policy| rank(policy));
        for policy in network {
            policies.network.entry(&policy.key.namespace).or_default().push(policy);
        }
        policies.network.values_mut().for_each(|list| list.sort_by_key(|policy| &policy.key));
        policies
    }

    /// Those of a namespace and of the cluster, as they are in force.
    pub(super) fn in_force(model: &'a Model, namespace: &str) -> Self {
        let cluster = model.cluster_policies().filter(|policy| policy.mode == Mode::Enforce);
        let network = model.policies_in(namespace).filter(|policy| policy.mode == Mode::Enforce);
        Self::new(&cluster.collect::<Vec<_>>(), &network.collect::<Vec<_>>())
    }

    /// Whether there are policies of the cluster.
    pub(super) fn are_of_cluster(&self) -> bool {
        !self.cluster.is_empty()
    }

    /// Whether one that selects a pod has rules with names.
    pub(super) fn have_names_for(&self, pod: &Pod, namespace: Option<&Labels>) -> bool {
        self.cluster.iter().any(|policy| policy.subject.selects(&pod.labels, namespace) && has_names(policy))
    }

    fn of_namespace(&self, namespace: &str) -> &[&'a NetworkPolicy] {
        self.network.get(namespace).map_or(&[][..], Vec::as_slice)
    }

    /// Those that judge a pod. If a NetworkPolicy isolates it, the Baseline tier is not asked.
    pub(super) fn selecting(&self, pod: &Pod, namespace: Option<&Labels>, direction: Direction) -> Selecting {
        let isolates =
            |policy: &NetworkPolicy| direction.rules(policy).is_some() && policy.pod_selector.matches(&pod.labels);
        let of_namespace = self.of_namespace(&pod.key.namespace).iter().enumerate();
        let network: Vec<_> = of_namespace.filter(|(_, policy)| isolates(policy)).map(|(i, _)| i).collect();
        let judges = |policy: &ClusterNetworkPolicy| {
            !direction.cluster_rules(policy).is_empty()
                && (policy.tier == Tier::Admin || network.is_empty())
                && policy.subject.selects(&pod.labels, namespace)
        };
        let cluster = self.cluster.iter().enumerate();
        let cluster: Vec<_> = cluster.filter(|(_, policy)| judges(policy)).map(|(i, _)| i).collect();
        let is_asked = direction == Direction::Ingress && !(network.is_empty() && cluster.is_empty());
        let ports = pod.container_ports.iter().filter(|_| is_asked);
        let ports = ports.map(|port| (port.name.clone(), port.protocol, port.port)).collect();
        let namespace = (!network.is_empty()).then(|| pod.key.namespace.clone());
        let is_told = |place: &usize| self.cluster.get(*place).is_some_and(|policy| has_names(policy));
        let told = (direction == Direction::Egress && cluster.iter().any(is_told)).then(|| pod.key.clone());
        Selecting { direction, namespace, cluster, network, ports, told }
    }

    /// The rules that judge a pod in a direction, or `None` when no policy does.
    pub(super) fn body(&self, selecting: &Selecting, pod: &Pod, names: &impl Numbered) -> Option<Body> {
        let direction = selecting.direction;
        let is_open = selecting.network.is_empty();
        if is_open && selecting.cluster.is_empty() {
            return None;
        }
        let info = SetInfo { direction, policies: Vec::new(), rules: Vec::new(), bits: Vec::new() };
        let mut body = Body { info, clauses: Vec::new(), admin_pages: 0, is_open };
        let cluster = || selecting.cluster.iter().filter_map(|place| self.cluster.get(*place).copied());
        for policy in cluster().filter(|policy| policy.tier == Tier::Admin) {
            body.take(policy, pod, names);
        }
        let is_last = is_open && cluster().all(|policy| policy.tier == Tier::Admin);
        body.end_of_admin(is_last);
        let of_namespace = self.of_namespace(&pod.key.namespace);
        for policy in selecting.network.iter().filter_map(|place| of_namespace.get(*place)) {
            body.info.policies.push(policy.key.clone());
            for (index, rule) in direction.rules(policy).unwrap_or_default().iter().enumerate() {
                for clause in clauses_of(rule, &policy.key.namespace, pod, direction, names) {
                    body.push(RuleRef::of(&policy.key, index), clause);
                }
            }
        }
        for policy in cluster().filter(|policy| policy.tier != Tier::Admin) {
            body.take(policy, pod, names);
        }
        Some(body)
    }
}

impl Clause {
    /// The clause of a bit that nothing meets.
    fn nothing() -> Self {
        Self { peers: Some(BTreeSet::new()), and: None, ports: None }
    }

    /// The clause, and pods that nobody knows yet with those that are: they may be among them.
    fn with_unknown_pods(mut self) -> Self {
        if let Some(peers) = &mut self.peers
            && peers.iter().any(|atom| matches!(atom, Atom::Pods { .. }))
        {
            peers.insert(Atom::UnknownPod);
        }
        self
    }

    /// What a rule may match of pods that nobody knows yet by the names of their ports: everything of the protocols.
    fn of_unknown_names(rule: &Rule, direction: Direction) -> Option<Self> {
        let names = rule.ports.iter().filter(|port| matches!(port.port, PortMatch::Named(_)));
        let ports: BTreeSet<_> = names.map(|port| Span { protocol: port.protocol, ports: None }).collect();
        let names_pods = rule.peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }));
        let asks = direction == Direction::Egress && names_pods && !ports.is_empty();
        asks.then(|| Self { peers: Some(BTreeSet::from([Atom::UnknownPod])), and: None, ports: Some(ports) })
    }
}

impl Body {
    fn push(&mut self, rule: RuleRef, clause: Clause) {
        if clause.peers.as_ref().is_none_or(|peers| !peers.is_empty()) {
            self.info.bits.push(self.clauses.len() as u32);
        }
        self.info.rules.push(rule);
        self.clauses.push(clause);
    }

    /// Adds the rules of a policy of the cluster, a pair of bits for each clause: see [`RULE_BITS`].
    fn take(&mut self, policy: &ClusterNetworkPolicy, pod: &Pod, names: &impl Numbered) {
        self.info.policies.push(policy.key.clone());
        let direction = self.info.direction;
        for (index, rule) in direction.cluster_rules(policy).iter().enumerate() {
            let Some(matches) = &rule.matches else { continue };
            let mut pairs: Vec<[Clause; RULE_BITS as usize]> = Vec::new();
            for clause in clauses_of(matches, "", pod, direction, names) {
                pairs.push(match rule.action {
                    Action::Accept => [clause, Clause::nothing()],
                    Action::Deny => [Clause::nothing(), clause.with_unknown_pods()],
                    // A pod that nobody knows yet has the second bit alone, which denies: whether it is to be passed on, and
                    // to what, is not known.
                    Action::Pass => [clause.clone(), clause.with_unknown_pods()],
                });
            }
            if rule.action != Action::Accept {
                let clause = Clause::of_unknown_names(matches, direction);
                pairs.extend(clause.map(|clause| [Clause::nothing(), clause]));
            }
            for clause in pairs.into_iter().flatten() {
                self.push(RuleRef::of_cluster(policy, index, rule), clause);
            }
        }
    }

    /// The tier that comes next has pages of its own. Without rules the Admin tier has none.
    fn end_of_admin(&mut self, is_last: bool) {
        let page = usize::from(PAGE_BITS);
        self.admin_pages = self.clauses.len().div_ceil(page);
        if let (false, Some(last)) = (is_last, self.info.rules.last().cloned()) {
            while self.clauses.len() < self.admin_pages * page {
                self.push(last.clone(), Clause::nothing());
            }
        }
    }
}

fn clauses_of(rule: &Rule, namespace: &str, pod: &Pod, direction: Direction, names: &impl Numbered) -> Vec<Clause> {
    let peers = if rule.peers.is_empty() {
        None
    } else {
        let atoms: BTreeSet<_> = rule.peers.iter().filter_map(|peer| Atom::of_pod(peer, namespace, pod)).collect();
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
        // What a name means depends on the destination: a clause for each number that it stands for among the peers.
        for port in &rule.ports {
            let (PortMatch::Named(name), protocol) = (&port.port, port.protocol) else { continue };
            for number in names.numbers(name, protocol, peers.as_ref()).iter().copied() {
                clauses.push(Clause {
                    peers: peers.clone(),
                    and: Some(Atom::Port { name: name.clone(), protocol, port: number }),
                    ports: Some(BTreeSet::from([Span { protocol, ports: Some((number, number)) }])),
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
