//! Rules and peers in words.

use std::fmt;

use fairlead_objects::{NetworkPolicy, Peer, Pod, PolicyPort, PortMatch, Rule, Selector, Tier};

use super::super::{Direction, RuleRef, World};

/// A rule by its policy, direction and place.
pub(super) struct Named<'a>(pub(super) &'a RuleRef, pub(super) Direction);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(RuleRef { tier, policy, index, name }, direction) = self;
        if *tier == Tier::NetworkPolicy {
            return write!(f, "{policy} {direction}[{index}]");
        }
        write!(f, "ClusterNetworkPolicy {policy} of the {tier} tier, {direction}[{index}]")?;
        if name.is_empty() { Ok(()) } else { write!(f, " {name:?}") }
    }
}

/// The policies that select a pod in a direction.
pub(super) fn isolating<'a>(
    world: &World<'a>,
    pod: &'a Pod,
    direction: Direction,
) -> impl Iterator<Item = &'a NetworkPolicy> + use<'a> {
    world.policies.clone().into_iter().filter(move |policy| {
        policy.key.namespace == pod.key.namespace
            && policy.pod_selector.matches(&pod.labels)
            && direction.rules(policy).is_some()
    })
}

/// The rule that a reference is to.
pub(super) fn rule_of<'a>(world: &World<'a>, rule: &RuleRef, direction: Direction) -> Option<&'a Rule> {
    if rule.tier == Tier::NetworkPolicy {
        let policy = world.policies.iter().find(|policy| policy.key == rule.policy)?;
        return direction.rules(policy)?.get(rule.index);
    }
    let policy = world.cluster_policies.iter().find(|policy| policy.key == rule.policy)?;
    direction.cluster_rules(policy).get(rule.index)?.matches.as_ref()
}

/// What a rule is for.
#[must_use]
pub fn describe(rule: &Rule, direction: Direction) -> String {
    let whom = if rule.peers.is_empty() { String::new() } else { peers(rule, direction) };
    let what = if rule.ports.is_empty() { String::new() } else { ports(rule) };
    match (whom.is_empty(), what.is_empty()) {
        (true, true) => "everything".to_owned(),
        (false, false) => format!("{whom}: {what}"),
        _ => whom + &what,
    }
}

/// The ports that a rule is for.
pub(super) fn ports(rule: &Rule) -> String {
    let words: Vec<_> = rule.ports.iter().map(port).collect();
    words.join(", ")
}

fn port(PolicyPort { protocol, port }: &PolicyPort) -> String {
    match port {
        PortMatch::Any => format!("{protocol}"),
        PortMatch::Range(first, last) if first == last => format!("{protocol} {first}"),
        PortMatch::Range(first, last) => format!("{protocol} {first}-{last}"),
        PortMatch::Named(name) => format!("{protocol} \"{name}\""),
        PortMatch::Nothing => "an invalid port".to_owned(),
    }
}

/// The peers that a rule is for.
pub(super) fn peers(rule: &Rule, direction: Direction) -> String {
    let words: Vec<_> = rule.peers.iter().map(peer).collect();
    format!("{} {}", if direction == Direction::Ingress { "from" } else { "to" }, words.join(" or "))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Nothing => "an invalid peer".to_owned(),
        Peer::Nodes(nodes) => format!("nodes ({})", selector(nodes)),
        Peer::DomainNames(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            format!("what DNS told the pod of {}", names.join(" or "))
        }
        Peer::IpBlock { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::IpBlock { cidr, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} except {}", except.join(" and "))
        }
        Peer::Pods { namespaces: None, pods } => format!("pods of its namespace ({})", selector(pods)),
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            format!("pods ({}) of namespaces ({})", selector(pods), selector(namespaces))
        }
    }
}

fn selector(selector: &Selector) -> String {
    use fairlead_objects::Operator::{DoesNotExist, Exists, In, NotIn};
    let Selector::All(requirements) = selector else { return "an invalid selector".to_owned() };
    if requirements.is_empty() {
        return "all".to_owned();
    }
    let words: Vec<_> = requirements
        .iter()
        .map(|r| {
            let values: Vec<_> = r.values.iter().map(String::as_str).collect();
            match r.operator {
                In if values.len() == 1 => format!("{}={}", r.key, values.concat()),
                In => format!("{} in ({})", r.key, values.join(", ")),
                NotIn => format!("{} not in ({})", r.key, values.join(", ")),
                Exists => r.key.clone(),
                DoesNotExist => format!("!{}", r.key),
            }
        })
        .collect();
    words.join(", ")
}
