//! The rules of both states, each once, and what judges a pod.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use fairlead_objects::{Action, ClusterNetworkPolicy, Labels, NetworkPolicy, Node, Peer, Pod, Rule, Tier};

use super::super::rules::rank;
use super::super::{Direction, World};

/// The directions, in the order in which they are counted here.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// A rule with the namespace of its policy: the same text in both states is one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct OfPolicy<'a> {
    namespace: &'a str,
    pub(super) rule: &'a Rule,
}

/// What judges a pod in a direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Set {
    /// Nothing may pass: its Namespace is not known, which policies of the cluster ask for.
    pub(super) is_closed: bool,
    /// A NetworkPolicy selects it.
    pub(super) isolated: bool,
    /// The rules in the order in which they are asked: tier, what they do, and their place among the rules.
    pub(super) rules: Vec<(Tier, Action, usize)>,
}

/// The policies of a state, in the order in which they are asked.
#[derive(Debug)]
struct State<'a> {
    cluster: Vec<&'a ClusterNetworkPolicy>,
    network: BTreeMap<&'a str, Vec<&'a NetworkPolicy>>,
}

impl<'a> State<'a> {
    fn of(world: &World<'a>) -> Self {
        let mut state = Self { cluster: world.cluster_policies.clone(), network: BTreeMap::new() };
        state.cluster.sort_by_key(|policy| rank(policy));
        for policy in &world.policies {
            state.network.entry(&policy.key.namespace).or_default().push(policy);
        }
        state.network.values_mut().for_each(|list| list.sort_by_key(|policy| &policy.key));
        state
    }
}

/// All rules and sets of two states, numbered.
#[derive(Debug)]
pub(super) struct Sets<'a> {
    states: [State<'a>; 2],
    pub(super) rules: Vec<OfPolicy<'a>>,
    numbers: HashMap<OfPolicy<'a>, usize>,
    pub(super) sets: Vec<Set>,
    known: HashMap<Set, usize>,
}

impl<'a> Sets<'a> {
    pub(super) fn new(worlds: [&World<'a>; 2]) -> Self {
        let states = worlds.map(State::of);
        Self { states, rules: Vec::new(), numbers: HashMap::new(), sets: vec![Set::default()], known: HashMap::new() }
    }

    /// The numbers of what judges a pod: by state, then by direction. `namespace`: the labels of its own.
    pub(super) fn of(&mut self, pod: &Pod, namespace: Option<&Labels>) -> [[usize; 2]; 2] {
        [0, 1].map(|state| {
            DIRECTIONS.map(|direction| {
                let (set, rules) = self.states[state].judging(pod, namespace, direction);
                let mut numbered = |(tier, action, rule)| (tier, action, self.rule(rule));
                let set = Set { rules: rules.into_iter().map(&mut numbered).collect(), ..set };
                let next = self.sets.len();
                let number = *self.known.entry(set.clone()).or_insert(next);
                if number == next {
                    self.sets.push(set);
                }
                number
            })
        })
    }

    fn rule(&mut self, rule: OfPolicy<'a>) -> usize {
        let next = self.rules.len();
        let number = *self.numbers.entry(rule).or_insert(next);
        if number == next {
            self.rules.push(rule);
        }
        number
    }
}

/// A rule with its tier and what it does.
type Ranked<'a> = (Tier, Action, OfPolicy<'a>);

impl<'a> State<'a> {
    /// What judges a pod, without its rules, and these.
    fn judging(&self, pod: &Pod, namespace: Option<&Labels>, direction: Direction) -> (Set, Vec<Ranked<'a>>) {
        let mut set = Set { is_closed: !self.cluster.is_empty() && namespace.is_none(), ..Set::default() };
        let subject = |policy: &&&'a ClusterNetworkPolicy| policy.subject.selects(&pod.labels, namespace);
        let of_tier = |tier: Tier| {
            let policies = self.cluster.iter().filter(move |policy| policy.tier == tier).filter(subject);
            policies.flat_map(move |policy| direction.cluster_rules(policy)).filter_map(move |rule| {
                Some((tier, rule.action, OfPolicy { namespace: "", rule: rule.matches.as_ref()? }))
            })
        };
        let mut rules: Vec<Ranked<'a>> = of_tier(Tier::Admin).collect();
        for policy in self.network.get(pod.key.namespace.as_str()).into_iter().flatten() {
            let Some(of_policy) = direction.rules(policy).filter(|_| policy.pod_selector.matches(&pod.labels)) else {
                continue;
            };
            set.isolated = true;
            let namespace = policy.key.namespace.as_str();
            let ranked = |rule| (Tier::NetworkPolicy, Action::Accept, OfPolicy { namespace, rule });
            rules.extend(of_policy.iter().map(ranked));
        }
        if !set.isolated {
            rules.extend(of_tier(Tier::Baseline));
        }
        (set, rules)
    }
}

impl OfPolicy<'_> {
    /// Whether an address is one of the rule's peers, as what it is known to be: a pod with the labels of its namespace, nodes,
    /// or what DNS tells for a name.
    pub(super) fn has_peer(
        &self,
        pod: Option<(&Pod, Option<&Labels>)>,
        nodes: &[&Node],
        asked: Option<&str>,
        ip: IpAddr,
    ) -> bool {
        self.rule.peers.is_empty()
            || self.rule.peers.iter().any(|peer| match peer {
                Peer::Nothing => false,
                Peer::DomainNames(names) => asked.is_some_and(|asked| names.iter().any(|name| name.matches(asked))),
                Peer::Nodes(selector) => nodes.iter().any(|node| selector.matches(&node.labels)),
                Peer::IpBlock { cidr, except } => cidr.contains(ip) && !except.iter().any(|each| each.contains(ip)),
                Peer::Pods { namespaces, pods } => pod.is_some_and(|(pod, labels)| {
                    let in_namespace = match namespaces {
                        None => pod.key.namespace == self.namespace,
                        Some(selector) => labels.is_some_and(|labels| selector.matches(labels)),
                    };
                    in_namespace && pods.matches(&pod.labels)
                }),
            })
    }

    /// Whether it has peers by the labels of pods.
    pub(super) fn names_pods(&self) -> bool {
        self.rule.peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }))
    }
}
