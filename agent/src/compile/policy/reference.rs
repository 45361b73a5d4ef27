//! NetworkPolicy v1 as its documentation words it: the model that the tables are tested against.
//!
//! Nothing here is clever or fast, and nothing is shared with the compiler but the objects and who owns an address.
//! The rules are those of k8s.io/api/networking/v1/types.go and of the documentation page on network policies.

use std::net::IpAddr;

use fairlead_objects::{NetworkPolicy, Peer, Pod, PolicyPort, PortMatch, Protocol, Rule};

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
    /// Whether a policy selects the pod in this direction.
    pub isolated: bool,
    /// Every rule of the policies that do, in order.
    pub trail: Vec<Step>,
}

/// A rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The rule.
    pub rule: RuleRef,
    /// Whether the other end is one of its peers.
    pub peer: bool,
    /// Whether the protocol and port are among its ports.
    pub port: bool,
}

impl Judgement {
    /// Whether the flow may pass: P1, P2.
    #[must_use]
    pub fn allow(&self) -> bool {
        !self.isolated || self.allowed_by().is_some()
    }

    /// The first rule that allows it.
    #[must_use]
    pub fn allowed_by(&self) -> Option<&RuleRef> {
        self.trail.iter().find(|step| step.peer && step.port).map(|step| &step.rule)
    }
}

/// Judges a flow of a pod in one direction.
#[must_use]
pub fn judge(world: &World<'_>, pod: &Pod, direction: Direction, flow: Flow) -> Judgement {
    let mut policies = world.policies.clone();
    policies.sort_by_key(|policy| &policy.key);
    let mut judgement = Judgement::default();
    for policy in policies {
        if policy.key.namespace != pod.key.namespace || !policy.pod_selector.matches(&pod.labels) {
            continue;
        }
        let Some(rules) = direction.rules(policy) else { continue };
        judgement.isolated = true;
        for (index, rule) in rules.iter().enumerate() {
            judgement.trail.push(Step {
                rule: RuleRef { policy: policy.key.clone(), index },
                peer: peer_matches(world, policy, rule, flow.peer),
                port: port_matches(world, pod, direction, rule, flow),
            });
        }
    }
    judgement
}

/// P9, P12 to P19.
fn peer_matches(world: &World<'_>, policy: &NetworkPolicy, rule: &Rule, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    rule.peers.is_empty()
        || rule.peers.iter().any(|peer| match peer {
            Peer::Nothing => false,
            Peer::IpBlock { cidr, except } => cidr.contains(ip) && !except.iter().any(|e| e.contains(ip)),
            Peer::Pods { namespaces, pods } => world.owner(ip).is_some_and(|owner| {
                let namespace = match namespaces {
                    None => owner.key.namespace == policy.key.namespace,
                    Some(selector) => {
                        world.namespace_labels(&owner.key.namespace).is_some_and(|labels| selector.matches(labels))
                    }
                };
                namespace && pods.matches(&owner.labels)
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
