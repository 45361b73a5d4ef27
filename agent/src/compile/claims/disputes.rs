//! Claims that do not count, in words: for Events, `fairlead status` and `fairlead doctor`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fairlead_objects::{Kind, Node, ObjectKey, Pod};
use ipnetwork::IpNetwork;

use super::{PodRanges, Refusal, Standing};
use crate::compile::services::Contested;
use crate::compile::services::{PortKey, host_ports_key, pod_of_host_ports};
use crate::model::NotGiven;

/// Claims of one object that are told one by one: one object can make thousands.
const TOLD: usize = 8;

/// An object that has to do with a claim.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// What it is: a Service, a Pod or a Node.
    pub kind: Kind,
    /// Its name.
    pub key: ObjectKey,
}

impl Party {
    /// A Service.
    #[must_use]
    pub fn service(key: &ObjectKey) -> Self {
        Self { kind: Kind::Service, key: key.clone() }
    }

    /// A Pod.
    #[must_use]
    pub fn pod(key: &ObjectKey) -> Self {
        Self { kind: Kind::Pod, key: key.clone() }
    }

    /// Whoever a service port is of: a Service, or a Pod with hostPorts.
    #[must_use]
    pub fn of_port(port: &PortKey) -> Self {
        pod_of_host_ports(&port.service).map_or_else(|| Self::service(&port.service), |pod| Self::pod(&pod))
    }

    /// Under which key it is planned.
    #[must_use]
    pub fn plan_key(&self) -> ObjectKey {
        if self.kind == Kind::Pod { host_ports_key(&self.key) } else { self.key.clone() }
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.key)
    }
}

/// A claim that does not count, and who has what is claimed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dispute {
    /// Who claims in vain.
    pub loser: Party,
    /// Who has it, if that is an object that can be told.
    pub winner: Option<Party>,
    /// What is so and what to do, as the loser is told.
    pub text: String,
    /// Whether every node sees it alike.
    pub everywhere: bool,
}

impl Dispute {
    /// The same, as the winner is told.
    #[must_use]
    pub fn for_winner(&self) -> String {
        format!("{} claims what belongs to this object: {}", self.loser, self.text)
    }
}

/// What is refused to an object: that of a Service by every node, that of a Pod by its own.
#[must_use]
pub fn of_refusals(loser: &Party, refusals: &[Refusal]) -> Vec<Dispute> {
    let told = refusals.iter().take(TOLD).map(|refusal| Dispute {
        loser: loser.clone(),
        winner: refusal.why.winner().map(Party::service),
        text: format!("{refusal}; {}", refusal.remedy()),
        everywhere: loser.kind != Kind::Pod,
    });
    let more = refusals.len().saturating_sub(TOLD);
    let rest = (more > 0).then(|| Dispute {
        loser: loser.clone(),
        winner: None,
        text: format!("{more} more claimed addresses are not served"),
        everywhere: loser.kind != Kind::Pod,
    });
    told.chain(rest).collect()
}

/// What several objects claim, each with right, and one has.
#[must_use]
pub fn of_frontends<'a, I: IntoIterator<Item = &'a Contested>>(contested: I) -> Vec<Dispute> {
    let mut told: BTreeMap<Party, usize> = BTreeMap::new();
    let mut disputes = Vec::new();
    for Contested { key, owner, others } in contested {
        let address = SocketAddr::new(IpAddr::from(key.addr), key.port.number());
        let winner = Party::of_port(&owner.port);
        for other in others {
            let loser = Party::of_port(&other.port);
            let count = told.entry(loser.clone()).or_default();
            *count += 1;
            if *count > TOLD || loser == winner {
                continue;
            }
            let text = format!(
                "the {} {address}/{} is served for {winner}, as its {}: {}; use a different address or port",
                other.kind,
                other.port.protocol,
                owner.kind,
                if owner.kind == other.kind { "the older one takes precedence" } else { "that kind takes precedence" },
            );
            let everywhere = loser.kind != Kind::Pod && winner.kind != Kind::Pod;
            disputes.push(Dispute { loser, winner: Some(winner.clone()), text, everywhere });
        }
    }
    disputes
}

/// Addresses in the status of pods that don't count, and how many pods wait for their Node to be known, by its name.
#[must_use]
pub fn of_pods<'a, I: IntoIterator<Item = &'a Pod>>(
    pods: I,
    ranges: &PodRanges<'_>,
) -> (Vec<Dispute>, BTreeMap<String, usize>) {
    let (mut disputes, mut waiting) = (Vec::new(), BTreeMap::new());
    for pod in pods {
        let foreign = pod.owned_ips().iter().filter_map(|ip| match ranges.standing(pod, *ip) {
            Standing::Counts => None,
            Standing::NoNode => {
                *waiting.entry(pod.node_name.clone().unwrap_or_default()).or_default() += 1;
                None
            }
            Standing::Foreign(ranges) => Some((*ip, ranges)),
        });
        disputes.extend(foreign.take(TOLD).map(|(ip, ranges)| Dispute {
            loser: Party::pod(&pod.key),
            winner: None,
            text: foreign_text(pod.node_name.as_deref().unwrap_or_default(), ip, ranges),
            everywhere: true,
        }));
    }
    (disputes, waiting)
}

/// Addresses of nodes that don't count, and ranges that another node has too.
#[must_use]
pub fn of_nodes<'a, I: IntoIterator<Item = &'a Node>>(nodes: I, ranges: &PodRanges<'_>) -> Vec<Dispute> {
    let mut sorted: Vec<&Node> = nodes.into_iter().collect();
    sorted.sort_by_key(|node| &node.name);
    let party = |name: &str| Party { kind: Kind::Node, key: ObjectKey::cluster(name) };
    let (mut disputes, mut owners) = (Vec::new(), BTreeMap::new());
    for node in sorted {
        let in_vain = |owner: &str, text| Dispute {
            loser: party(&node.name),
            winner: Some(party(owner)),
            text,
            everywhere: true,
        };
        disputes.extend(ranges.foreign_addresses(node).take(TOLD).map(|(ip, owner)| {
            let text = format!(
                "status.addresses has {ip}, which is in the pod ranges of node {owner}: it does not count as this \
                 node's; correct the address or the podCIDRs"
            );
            in_vain(owner, text)
        }));
        // As routes are chosen (`wiring/routes.rs`), and what the programs know of prefixes (`compile/peers.rs`).
        for range in &node.pod_cidrs {
            let owner = *owners.entry(*range).or_insert(node.name.as_str());
            if owner != node.name {
                let text = format!(
                    "spec.podCIDRs has {range}, which node {owner} has too: the nodes' routes lead to {owner} \
                     alone; delete the Node that is gone, or drain this one, delete its Node and let it register again \
                     to get a range of its own"
                );
                disputes.push(in_vain(owner, text));
            }
        }
    }
    disputes
}

/// Ranges that nodes name in an annotation and do not get.
#[must_use]
pub fn of_annotations<'a, I: IntoIterator<Item = (&'a ObjectKey, &'a NotGiven)>>(not_given: I) -> Vec<Dispute> {
    let node = |key: ObjectKey| Party { kind: Kind::Node, key };
    let told = not_given.into_iter().map(|(key, why)| Dispute {
        loser: node(key.clone()),
        winner: why.winner().map(|name| node(ObjectKey::cluster(name))),
        text: why.to_string(),
        everywhere: true,
    });
    told.collect()
}

fn foreign_text(node: &str, ip: IpAddr, ranges: &[IpNetwork]) -> String {
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    let ranges = if ranges.is_empty() { "it has none".to_owned() } else { ranges.join(", ") };
    format!(
        "status.podIPs has {ip}, which is not in the ranges of its node {node} ({ranges}): policies do not match \
         the pod by it; if the address comes from another pool, add that to the setting `podRanges`"
    )
}
