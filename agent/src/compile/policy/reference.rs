//! Policies as their documentation words them: the model that the tables are tested against.
//!
//! Nothing here is clever or fast, and nothing is shared with the compiler but the objects and who owns an address.
//! The rules are those of k8s.io/api/networking/v1/types.go and of the documentation page on network policies, and those of
//! sigs.k8s.io/network-policy-api v0.3.0, apis/v1beta1, for the tiers around NetworkPolicies.

use std::net::IpAddr;

use fairlead_objects::{
    Action, ClusterNetworkPolicy, NetworkPolicy, Peer, Pod, PolicyPort, PortMatch, Protocol, Rule, Tier,
};

use super::{Direction, RuleRef, World};

/// What is judged, besides the pod that it is judged for and the direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The other end.
    pub peer: IpAddr,
    /// The IP protocol number.
    pub proto: u8,
    /// The destination's port, after translation; 0 where the protocol has none or it is not known.
    pub port: u16,
}

/// A verdict and how it came about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// Whether a NetworkPolicy selects the pod in this direction.
    pub isolated: bool,
    /// The other end is the pod itself, by way of a Service.
    pub own: bool,
    /// Every rule of the policies that judge it, in the order of the tiers.
    pub trail: Vec<Step>,
}

/// A rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: RuleRef,
    /// What it does with what it matches.
    pub action: Action,
    /// Whether the other end is one of its peers.
    pub peer: bool,
    /// Whether the protocol and port are among its ports.
    pub port: bool,
}

/// What came of a tier.
enum Came<'a> {
    /// A rule decided, and how.
    Decided(bool, &'a RuleRef),
    /// The next tier is asked.
    Nothing,
}

impl Judgement {
    /// Whether the flow may pass.
    #[must_use]
    pub fn allow(&self) -> bool {
        self.verdict().0
    }

    /// The rule that decides, if one does: it allows the flow or denies it.
    #[must_use]
    pub fn decided_by(&self) -> Option<&RuleRef> {
        self.verdict().1
    }

    /// The rule by which the Admin tier passed it on.
    #[must_use]
    pub fn passed_by(&self) -> Option<&RuleRef> {
        let mut rules = self.trail.iter().filter(|step| step.rule.tier == Tier::Admin);
        let first = rules.find(|step| step.peer && step.port)?;
        (first.action == Action::Pass).then_some(&first.rule)
    }

    fn verdict(&self) -> (bool, Option<&RuleRef>) {
        if let Came::Decided(allow, rule) = self.tier(Tier::Admin) {
            return (allow, Some(rule));
        }
        // P32: NetworkPolicies keep no pod from itself.
        if self.isolated && self.own {
            return (true, None);
        }
        // P1, P2: they have the last word on whom they select.
        if self.isolated {
            return match self.tier(Tier::NetworkPolicy) {
                Came::Decided(allow, rule) => (allow, Some(rule)),
                Came::Nothing => (false, None),
            };
        }
        match self.tier(Tier::Baseline) {
            Came::Decided(allow, rule) => (allow, Some(rule)),
            Came::Nothing => (true, None),
        }
    }

    /// The first rule of a tier that matches decides. If it passes, a later tier has to, but after the last one there is none.
    fn tier(&self, tier: Tier) -> Came<'_> {
        let mut rules = self.trail.iter().filter(|step| step.rule.tier == tier);
        match rules.find(|step| step.peer && step.port) {
            Some(Step { action: Action::Deny, rule, .. }) => Came::Decided(false, rule),
            Some(Step { action: Action::Pass, .. }) if tier == Tier::Admin => Came::Nothing,
            Some(Step { action: Action::Pass | Action::Accept, rule, .. }) => Came::Decided(true, rule),
            None => Came::Nothing,
        }
    }
}

/// Judges a flow of a pod in one direction.
#[must_use]
pub fn judge(world: &World<'_>, pod: &Pod, direction: Direction, flow: Flow) -> Judgement {
    let own = world.owner(flow.peer).is_some_and(|owner| owner.key == pod.key);
    let mut judgement = Judgement { own, ..Judgement::default() };
    cluster_tier(world, pod, direction, flow, Tier::Admin, &mut judgement);
    network_policies(world, pod, direction, flow, &mut judgement);
    if !judgement.isolated {
        cluster_tier(world, pod, direction, flow, Tier::Baseline, &mut judgement);
    }
    judgement
}

/// P54 to P57: the rules of a tier, lowest priority first, then by name, then in their order.
fn cluster_tier(world: &World<'_>, pod: &Pod, direction: Direction, flow: Flow, tier: Tier, judgement: &mut Judgement) {
    let mut policies: Vec<&ClusterNetworkPolicy> =
        world.cluster_policies.iter().copied().filter(|policy| policy.tier == tier).collect();
    policies.sort_by(|a, b| (a.priority, &a.key.name).cmp(&(b.priority, &b.key.name)));
    for policy in policies {
        let labels = world.namespace_labels(&pod.key.namespace);
        if !labels.is_some_and(|labels| policy.subject.namespaces.matches(labels))
            || !policy.subject.pods.matches(&pod.labels)
        {
            continue;
        }
        for (index, rule) in direction.cluster_rules(policy).iter().enumerate() {
            let matches = rule.matches.as_ref();
            let peer = matches.is_some_and(|rule| peer_matches(world, pod, "", rule, flow.peer));
            let port = matches.is_some_and(|rule| port_matches(world, pod, direction, rule, flow));
            let mut step = Step { rule: RuleRef::of_cluster(policy, index, rule), action: rule.action, peer, port };
            let may_match = matches.is_some_and(|rule| may_match_unknown(rule, port, direction, flow.proto));
            if may_match && rule.action != Action::Accept && !(peer && port) && world.is_unknown_pod(flow.peer) {
                step = Step { action: Action::Deny, peer: true, port: true, ..step };
            }
            judgement.trail.push(step);
        }
    }
}

/// P58: whether a rule may match an address of a pod that is not known. `port`: it matches the port whatever the pod.
fn may_match_unknown(rule: &Rule, port: bool, direction: Direction, proto: u8) -> bool {
    let is_named = |port: &PolicyPort| matches!(port.port, PortMatch::Named(_)) && port.protocol.number() == proto;
    rule.peers.iter().any(|peer| matches!(peer, Peer::Pods { .. }))
        && (port || (direction == Direction::Egress && rule.ports.iter().any(is_named)))
}

fn network_policies(world: &World<'_>, pod: &Pod, direction: Direction, flow: Flow, judgement: &mut Judgement) {
    let mut policies: Vec<&NetworkPolicy> = world.policies.clone();
    policies.sort_by_key(|policy| &policy.key);
    for policy in policies {
        if policy.key.namespace != pod.key.namespace || !policy.pod_selector.matches(&pod.labels) {
            continue;
        }
        let Some(rules) = direction.rules(policy) else { continue };
        judgement.isolated = true;
        for (index, rule) in rules.iter().enumerate() {
            judgement.trail.push(Step {
                rule: RuleRef::of(&policy.key, index),
                action: Action::Accept,
                peer: peer_matches(world, pod, &policy.key.namespace, rule, flow.peer),
                port: port_matches(world, pod, direction, rule, flow),
            });
        }
    }
}

/// P9, P12 to P19, P58, P65. `namespace`: the policy's.
fn peer_matches(world: &World<'_>, pod: &Pod, namespace: &str, rule: &Rule, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    rule.peers.is_empty()
        || rule.peers.iter().any(|peer| match peer {
            Peer::Nothing => false,
            Peer::DomainNames(names) => world.is_told(&pod.key, ip, names),
            Peer::Nodes(selector) => world.nodes_with(ip).any(|node| selector.matches(&node.labels)),
            Peer::IpBlock { cidr, except } => cidr.contains(ip) && !except.iter().any(|e| e.contains(ip)),
            Peer::Pods { namespaces, pods } => world.owner(ip).is_some_and(|owner| {
                let in_namespace = match namespaces {
                    None => owner.key.namespace == namespace,
                    Some(selector) => {
                        world.namespace_labels(&owner.key.namespace).is_some_and(|labels| selector.matches(labels))
                    }
                };
                in_namespace && pods.matches(&owner.labels)
            }),
        })
}

/// P10, P20 to P25, P37.
fn port_matches(world: &World<'_>, pod: &Pod, direction: Direction, rule: &Rule, flow: Flow) -> bool {
    rule.ports.is_empty() || rule.ports.iter().any(|port| one_port_matches(world, pod, direction, port, flow))
}

fn one_port_matches(world: &World<'_>, pod: &Pod, direction: Direction, port: &PolicyPort, flow: Flow) -> bool {
    if port.protocol.number() != flow.proto {
        return false;
    }
    match &port.port {
        PortMatch::Any => true,
        PortMatch::Nothing => false,
        PortMatch::Range(first, last) => flow.port != 0 && *first <= flow.port && flow.port <= *last,
        PortMatch::Named(name) => match direction {
            Direction::Ingress => declares(pod, name, port.protocol, flow.port),
            Direction::Egress => {
                world.owner(flow.peer).is_some_and(|owner| declares(owner, name, port.protocol, flow.port))
            }
        },
    }
}

fn declares(pod: &Pod, name: &str, protocol: Protocol, number: u16) -> bool {
    number != 0
        && pod
            .container_ports
            .iter()
            .any(|port| port.name.as_deref() == Some(name) && port.protocol == protocol && port.port == number)
}
