//! A verdict in words: what `fairlead policy explain` prints.

use std::fmt;
use std::net::IpAddr;

use fairlead_objects::{NetworkPolicy, ObjectKey, Peer, Pod, PolicyPort, PortMatch, Rule, Selector};
use serde::Serialize;

use super::reference::{Flow, Judgement, judge};
use super::{Direction, RuleRef, World};

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A pod by name: its first address of the family of the other end, or its first.
    Pod(ObjectKey),
    /// An address.
    Ip(IpAddr),
}

/// Why a flow may pass, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether it may pass.
    pub allow: bool,
    /// What was asked, in order: the sender's egress, then the receiver's ingress.
    pub lines: Vec<String>,
    /// Rules that would have allowed it but for their peers or but for their ports.
    pub near_misses: Vec<String>,
}

/// What can't be explained.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExplainError {
    /// No such pod.
    #[error(
        "no pod {0} is known: give it as NAMESPACE/NAME, or give an address (those of other nodes are known once there is a \
         NetworkPolicy)"
    )]
    NoPod(ObjectKey),
    /// No address.
    #[error(
        "pod {0} has no address yet, or shares its node's, or has one that its node may not give (see `fairlead status`): \
         give an address"
    )]
    NoAddress(ObjectKey),
}

/// Explains a flow by the reference model. `port`: the destination's own, after any service; 0 for a protocol without.
///
/// # Errors
/// An end names a pod that is not known or has no address of its own.
pub fn explain(world: &World<'_>, from: &End, to: &End, proto: u8, port: u16) -> Result<Explanation, ExplainError> {
    let (from_pod, to_pod) = (find(world, from)?, find(world, to)?);
    let to_ips = addresses(world, to, to_pod)?;
    let from_ips = addresses(world, from, from_pod)?;
    let (from_ip, to_ip) = from_ips
        .iter()
        .find_map(|a| to_ips.iter().find(|b| a.is_ipv4() == b.is_ipv4()).map(|b| (*a, *b)))
        .or_else(|| Some((*from_ips.first()?, *to_ips.first()?)))
        .ok_or_else(|| ExplainError::NoAddress(ObjectKey::cluster("")))?;
    let mut out = Explanation { allow: true, lines: Vec::new(), near_misses: Vec::new() };
    if from_ip == to_ip {
        out.lines.push("a pod always reaches itself: the packet never leaves it".to_owned());
        return Ok(out);
    }
    if let Some(pod) = from_pod {
        let flow = Flow { peer: to_ip, proto, port };
        out.add(world, pod, Direction::Egress, &judge(world, pod, Direction::Egress, flow));
    }
    if let Some(pod) = to_pod {
        let host = pod.node_name.as_deref().and_then(|name| world.nodes.iter().find(|node| node.name == name));
        if host.is_some_and(|node| node.internal_ips.contains(&from_ip)) {
            out.lines.push(format!("a node always reaches its own pods: ingress of {} is not asked", pod.key));
        } else {
            let flow = Flow { peer: from_ip, proto, port };
            out.add(world, pod, Direction::Ingress, &judge(world, pod, Direction::Ingress, flow));
        }
    }
    if out.lines.is_empty() {
        out.lines.push("neither end is a pod: policies say nothing".to_owned());
    }
    Ok(out)
}

impl Explanation {
    fn add(&mut self, world: &World<'_>, pod: &Pod, direction: Direction, judgement: &Judgement) {
        self.allow &= judgement.allow();
        let key = &pod.key;
        self.lines.push(match judgement.allowed_by() {
            _ if !judgement.isolated => format!("{direction} of {key}: allowed, no policy selects it"),
            Some(rule) => format!("{direction} of {key}: allowed by {}", Named(rule, direction)),
            None => {
                let mut policies: Vec<_> = isolating(world, pod, direction).map(|p| p.key.to_string()).collect();
                policies.sort();
                format!("{direction} of {key}: dropped without an answer, no rule of {} allows it", policies.join(", "))
            }
        });
        if judgement.allow() {
            return;
        }
        for step in &judgement.trail {
            let Some(rule) = rule_of(world, &step.rule, direction) else { continue };
            let name = Named(&step.rule, direction);
            if step.peer {
                self.near_misses.push(format!("{name} allows this peer, but only {}", ports(rule)));
            } else if step.port {
                self.near_misses.push(format!("{name} allows this port, but only {}", peers(rule, direction)));
            }
        }
    }
}

struct Named<'a>(&'a RuleRef, Direction);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.0.policy, self.1, self.0.index)
    }
}

fn find<'a>(world: &World<'a>, end: &End) -> Result<Option<&'a Pod>, ExplainError> {
    match end {
        End::Ip(ip) => Ok(world.owner(*ip)),
        End::Pod(key) => world
            .pods
            .iter()
            .copied()
            .find(|pod| pod.key == *key)
            .map(Some)
            .ok_or_else(|| ExplainError::NoPod(key.clone())),
    }
}

fn addresses(world: &World<'_>, end: &End, pod: Option<&Pod>) -> Result<Vec<IpAddr>, ExplainError> {
    let ips = match (end, pod) {
        (End::Ip(ip), _) => vec![ip.to_canonical()],
        (End::Pod(_), Some(pod)) => world
            .local
            .iter()
            .find(|local| world.object_of(local).is_some_and(|object| object.key == pod.key))
            .map_or_else(|| world.ranges().owned(pod).collect(), |local| local.ips.clone()),
        (End::Pod(_), None) => Vec::new(),
    };
    match end {
        End::Pod(key) if ips.is_empty() => Err(ExplainError::NoAddress(key.clone())),
        _ => Ok(ips),
    }
}

fn isolating<'a>(
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

fn rule_of<'a>(world: &World<'a>, rule: &RuleRef, direction: Direction) -> Option<&'a Rule> {
    let policy = world.policies.iter().find(|policy| policy.key == rule.policy)?;
    direction.rules(policy)?.get(rule.index)
}

fn ports(rule: &Rule) -> String {
    let words: Vec<_> = rule.ports.iter().map(port).collect();
    words.join(", ")
}

fn port(PolicyPort { protocol, port }: &PolicyPort) -> String {
    match port {
        PortMatch::Any => format!("{protocol}"),
        PortMatch::Range(first, last) if first == last => format!("{protocol} {first}"),
        PortMatch::Range(first, last) => format!("{protocol} {first}-{last}"),
        PortMatch::Named(name) => format!("{protocol} \"{name}\""),
        PortMatch::Nothing => "a port that can't be read".to_owned(),
    }
}

fn peers(rule: &Rule, direction: Direction) -> String {
    let words: Vec<_> = rule.peers.iter().map(peer).collect();
    format!("{} {}", if direction == Direction::Ingress { "from" } else { "to" }, words.join(" or "))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Nothing => "a peer that can't be read".to_owned(),
        Peer::IpBlock { cidr, except } if except.is_empty() => cidr.to_string(),
        Peer::IpBlock { cidr, except } => {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            format!("{cidr} without {}", except.join(" and "))
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
