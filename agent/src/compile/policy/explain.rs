//! A verdict in words, for two addresses: what `fairlead policy explain` prints of each.

mod words;

use std::net::IpAddr;

use fairlead_cni::protocol::GATEWAY_V4;
use fairlead_datapath::drop::DropReason;
use fairlead_datapath::packet::UDP;
use fairlead_objects::{Action, Node, ObjectKey, Pod};

use super::reference::{Flow, Judgement, judge};
use super::{Direction, World};
use crate::model::LocalPod;
pub use words::describe;
use words::{Named, isolating, peers, ports, rule_of};

/// A flow between two addresses, after any service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Who opens it.
    pub from: IpAddr,
    /// Whom it is opened to.
    pub to: IpAddr,
    /// The IP protocol number.
    pub proto: u8,
    /// The destination's port; 0 for a protocol without.
    pub port: u16,
    /// It was opened to a Service, which leads there.
    pub service: bool,
}

/// A question to the tables of this node that was part of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The pod that it is about.
    pub slot: u16,
    /// Which of its policies.
    pub direction: Direction,
    /// What they were asked.
    pub flow: Flow,
    /// The other end is the pod itself.
    pub own: bool,
    /// What they answer by the objects.
    pub allow: bool,
}

/// Why a flow may pass, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// Why it is dropped, if it is.
    pub dropped: Option<DropReason>,
    /// What was asked, in order: the sender's egress, then the receiver's ingress.
    pub lines: Vec<String>,
    /// Rules that would have allowed it but for their peers or but for their ports.
    pub near_misses: Vec<String>,
    /// What this node's tables were asked.
    pub judged: Vec<Judged>,
}

/// An end of a path: what is known of its address.
struct End<'a> {
    ip: IpAddr,
    /// Attached to this node.
    local: Option<&'a LocalPod>,
    /// The pod that the address belongs to.
    pod: Option<&'a Pod>,
}

impl End<'_> {
    fn is_pod(&self) -> bool {
        self.local.is_some() || self.pod.is_some()
    }

    fn key(&self) -> Option<&ObjectKey> {
        self.local.map(|local| &local.key).or(self.pod.map(|pod| &pod.key))
    }
}

/// Explains a flow by the objects, with the verdict that the datapath comes to: its checks of addresses, then egress of
/// the sender, then ingress of the receiver, then the route.
#[must_use]
pub fn explain(world: &World<'_>, path: Path) -> Explanation {
    let (from, to) = (end(world, path.from), end(world, path.to));
    let mut out = Explanation::default();
    if from.is_pod()
        && let Some(reason) = refused(to.ip)
    {
        out.drop(reason, format!("{} is not forwarded ({}): {}", to.ip, reason.as_str(), reason.meaning().trim()));
        return out;
    }
    // A pod without its object has no policy yet, and no traffic until it has (P40).
    for (end, role) in [(&from, "sender"), (&to, "receiver")] {
        let in_unknown = end.local.is_some() && end.pod.is_some_and(|pod| world.is_in_unknown_namespace(pod));
        let has_none = end.pod.is_none() || in_unknown || is_unattached(world, end);
        let Some(key) = end.key().filter(|_| has_none) else { continue };
        let why = match end.local {
            Some(_) if in_unknown => "its Namespace is not known, which ClusterNetworkPolicies ask for",
            Some(_) => "its Pod object is not known",
            None => "it is not attached to its node yet",
        };
        let reason =
            if end.local.is_none() && role == "receiver" { DropReason::NoSuchPod } else { DropReason::Pending };
        out.drop(reason, format!("{key}: {why}, so it has no traffic ({})", reason.as_str()));
    }
    if out.dropped.is_some() {
        return out;
    }
    if from.is_pod() && world.closed.iter().any(|closed| closed.to_canonical() == to.ip) {
        let reason = DropReason::Metadata;
        out.drop(reason, format!("{} is refused ({}): {}", to.ip, reason.as_str(), reason.meaning().trim()));
        return out;
    }
    if from.is_pod() && !to.is_pod() && path.proto == UDP && world.tunnel_port == Some(path.port) {
        let reason = DropReason::TunnelPort;
        let port = path.port;
        out.drop(reason, format!("{port}/UDP is the tunnel's ({}): {}", reason.as_str(), reason.meaning().trim()));
        return out;
    }
    if from.ip == to.ip && from.is_pod() && !path.service {
        out.lines.push("a pod always reaches its own address: policy does not apply".to_owned());
        return out;
    }
    if let Some(pod) = from.pod {
        let flow = Flow { peer: to.ip, proto: path.proto, port: path.port };
        out.add(world, pod, from.local, Direction::Egress, flow);
    }
    if let Some(pod) = to.pod {
        if node_of(world, pod).is_some_and(|node| has(world, node, from.ip)) {
            out.lines.push(format!("a node always reaches its own pods: ingress policy of {} does not apply", pod.key));
        } else {
            let flow = Flow { peer: from.ip, proto: path.proto, port: path.port };
            out.add(world, pod, to.local, Direction::Ingress, flow);
        }
    } else if from.is_pod() && out.dropped.is_none() && own_range(world, to.ip) {
        let reason = DropReason::NoSuchPod;
        out.drop(reason, format!("{} is in this node's pod range, but no pod has it ({})", to.ip, reason.as_str()));
    }
    if out.lines.is_empty() {
        out.lines.push("neither end is a pod: policy does not apply".to_owned());
    }
    out
}

/// Why a pod's packet to an address goes nowhere, whatever its policies say: as `check_destination` of the datapath.
#[must_use]
pub fn refused(to: IpAddr) -> Option<DropReason> {
    match to.to_canonical() {
        IpAddr::V4(to) if to.is_multicast() || to.octets()[0] == 255 => Some(DropReason::Multicast),
        IpAddr::V4(to) if to.octets()[0] == 0 || to.is_loopback() || to == GATEWAY_V4 => Some(DropReason::BadAddress),
        IpAddr::V6(to) if to.is_multicast() => Some(DropReason::Multicast),
        IpAddr::V6(to) if to.is_unicast_link_local() || to.is_loopback() || to.is_unspecified() => {
            Some(DropReason::BadAddress)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn end<'a>(world: &World<'a>, ip: IpAddr) -> End<'a> {
    let ip = ip.to_canonical();
    let local = world.local.iter().copied().find(|local| local.ips.iter().any(|own| own.to_canonical() == ip));
    End { ip, local, pod: world.owner(ip) }
}

/// Whether an end is a pod of this node that its CNI plugin has not connected.
fn is_unattached(world: &World<'_>, end: &End<'_>) -> bool {
    end.local.is_none() && end.pod.is_some_and(|pod| pod.node_name.as_deref() == Some(world.node))
}

fn node_of<'a>(world: &World<'a>, pod: &Pod) -> Option<&'a Node> {
    world.nodes.iter().copied().find(|node| pod.node_name.as_deref() == Some(&node.name))
}

fn has(world: &World<'_>, node: &Node, ip: IpAddr) -> bool {
    world.ranges().addresses(node).any(|own| own.to_canonical() == ip)
}

fn own_range(world: &World<'_>, ip: IpAddr) -> bool {
    let own = world.nodes.iter().find(|node| node.name == world.node);
    own.is_some_and(|node| node.pod_cidrs.iter().any(|range| range.contains(ip)) && !has(world, node, ip))
}

impl Explanation {
    /// The first reason is what the datapath gives; the others would be met if that were not.
    fn drop(&mut self, reason: DropReason, line: String) {
        self.dropped.get_or_insert(reason);
        self.lines.push(line);
    }

    fn add(&mut self, world: &World<'_>, pod: &Pod, local: Option<&LocalPod>, direction: Direction, flow: Flow) {
        let judgement = judge(world, pod, direction, flow);
        let (allow, own) = (judgement.allow(), judgement.own);
        if let Some(local) = local {
            self.judged.push(Judged { slot: local.slot, direction, flow, own, allow });
        }
        let key = &pod.key;
        let passed = judgement.passed_by().map(|rule| format!("passed by {}, then ", Named(rule, direction)));
        let passed = passed.unwrap_or_default();
        let why = match judgement.decided_by() {
            Some(rule) if allow => format!("allowed by {}", Named(rule, direction)),
            Some(rule) => format!("silently dropped, denied by {}", Named(rule, direction)),
            None if allow && judgement.isolated => {
                "allowed, NetworkPolicies keep no pod from itself through a Service".to_owned()
            }
            None if allow && judgement.trail.is_empty() => "allowed, no policy selects it".to_owned(),
            None if allow => {
                "allowed, no NetworkPolicy selects it and no rule of a ClusterNetworkPolicy denies it".to_owned()
            }
            None => {
                let mut policies: Vec<_> = isolating(world, pod, direction).map(|p| p.key.to_string()).collect();
                policies.sort();
                format!("silently dropped, no rule of {} allows it", policies.join(", "))
            }
        };
        let line = format!("{direction} of {key}: {passed}{why}");
        if allow {
            self.lines.push(line);
            return;
        }
        let reason = match direction {
            Direction::Egress => DropReason::EgressPolicy,
            Direction::Ingress => DropReason::IngressPolicy,
        };
        self.drop(reason, line);
        if own {
            let line = "a client whose socket is translated when it connects stays in its pod, and is not asked about";
            self.lines.push(line.to_owned());
        }
        self.near_misses(world, direction, &judgement);
    }

    fn near_misses(&mut self, world: &World<'_>, direction: Direction, judgement: &Judgement) {
        // Of a rule that comes after the one that denies it nothing is to be had.
        let before = judgement.trail.iter().take_while(|step| Some(&step.rule) != judgement.decided_by());
        for step in before.filter(|step| step.action == Action::Accept) {
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

#[cfg(test)]
mod tests;
