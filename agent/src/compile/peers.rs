//! Peers: what is known of every address.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{CidrKey, HopFlags, NodeHop, PeerFlags, Pod as PodRecord};
use fairlead_objects::{Labels, Node, ObjectKey, Pod};
use ipnetwork::IpNetwork;

use super::policy::{
    Classifier, MOST_TOLD_ROWS, Met, Numbers, Signature, ToldAtoms, ToldRoom, Wanted, WantedPeer, World, claim,
    is_object_of,
};
use crate::compile::claims::PodRanges;
use crate::masquerade::OwnSources;
use crate::model::LocalPod;
use crate::names;

/// The record of a pod of this node. Its word is no part of it.
pub(crate) fn record(local: &LocalPod) -> PodRecord {
    PodRecord {
        word: 0,
        v4: first(&local.ips, IpAddr::is_ipv4),
        v6: first(&local.ips, IpAddr::is_ipv6),
        max_flows: 0,
        max_rate: 0,
        pod_mac: local.pod_mac,
        host_mac: local.host_mac,
        pad: [0; 4],
    }
}

fn first(ips: &[IpAddr], family: impl Fn(&IpAddr) -> bool) -> Addr {
    ips.iter().map(IpAddr::to_canonical).find(|ip| family(ip)).map_or(Addr::UNSPECIFIED, Addr::from)
}

/// What peers were compiled with, kept to look at single ones again.
#[derive(Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) classifier: Classifier,
    nodes: Nodes,
    /// Addresses that several pods claim which are not attached here, and how many.
    pub(crate) contested: HashMap<Addr, usize>,
    /// Where outside of the cluster pods go with their own addresses.
    own_sources: OwnSources,
    /// Whether another network leads to pods elsewhere: to here they are like what is outside, reached with pods' own addresses.
    beside: bool,
    /// What names don't open beside pods and nodes.
    inside: BTreeSet<IpAddr>,
}

impl Lookup {
    /// What is known of the addresses of each prefix: those that policies name, of nodes, and outside of the cluster. Of sets
    /// that were added since there were so many groups only prefixes that they ask about, or name.
    pub(crate) fn prefixes(&mut self, since: usize) -> BTreeMap<CidrKey, WantedPeer> {
        let Self { classifier, nodes, contested: _, own_sources, beside, inside: _ } = self;
        let others = classifier.prefixes(0).chain(nodes.pod_cidrs.keys().copied()).chain(own_sources.prefixes());
        let asked =
            others.filter(|prefix| since == 0 || classifier.asks(since, *prefix, || nodes.pod_cidr(*prefix).is_some()));
        let prefixes: BTreeSet<IpNetwork> = asked.chain(classifier.prefixes(since)).collect();
        let peer = |prefix: IpNetwork| {
            // A prefix inside a node's is that node's too, or naming it in a policy would change where its packets go.
            // So with a prefix inside one that is not masqueraded.
            let pods_of = nodes.pod_cidr(prefix);
            let peer = WantedPeer {
                class: classifier.of_prefix(prefix, pods_of.is_some()),
                pair: None,
                slot: None,
                node: pods_of.flatten().filter(|_| !*beside),
                flags: match pods_of {
                    Some(_) if *beside => PeerFlags::KEEP_SOURCE,
                    Some(_) => PeerFlags::POD,
                    None if own_sources.at(prefix) => PeerFlags::KEEP_SOURCE,
                    None => 0,
                },
            };
            (CidrKey::prefix(prefix.network().into(), prefix.prefix()), peer)
        };
        prefixes.into_iter().map(peer).collect()
    }

    /// Whether names may open an address. `has`: whether a pod or a node is known to have one.
    pub(crate) fn is_outside(&self, ip: IpAddr, has: impl Fn(IpAddr) -> bool) -> bool {
        let is_pods = |ip: IpAddr| self.nodes.pod_cidr(ip.into()).is_some();
        names::is_outside(ip, |ip| self.inside.contains(&ip) || is_pods(ip) || has(ip))
    }

    /// What is known of the address of the attached pod in a slot that meets these.
    pub(crate) fn attached(&mut self, met: &Signature, slot: u16, ip: IpAddr) -> WantedPeer {
        WantedPeer {
            class: self.classifier.of_address(met, ip),
            pair: None,
            slot: Some(slot),
            node: None,
            flags: PeerFlags::POD | PeerFlags::EXISTS,
        }
    }

    /// What is known of the address of a pod that is not attached here and meets these.
    pub(crate) fn pod(&mut self, pod: &Pod, met: &Signature, ip: IpAddr) -> WantedPeer {
        let (node, kind) = match self.beside {
            true => (None, PeerFlags::KEEP_SOURCE),
            false => (self.nodes.of_pod(pod, ip), PeerFlags::POD),
        };
        WantedPeer {
            class: self.classifier.of_address(met, ip),
            pair: None,
            slot: None,
            node,
            flags: kind | PeerFlags::EXISTS,
        }
    }
}

/// The addresses that are a pod's own and that its node may give it, each once.
pub(crate) fn owned(ranges: &PodRanges<'_>, pod: &Pod) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in ranges.owned(pod) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

/// Compiles nodes, addresses and prefixes, and with them the classes in use.
pub(crate) fn compile(
    world: &World<'_>,
    objects: &HashMap<&ObjectKey, Vec<&Pod>>,
    numbers: Numbers,
    wanted: &mut Wanted,
) {
    let namespaces: HashMap<&str, &Labels> = world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect();
    let labels_of = |pod: &Pod| namespaces.get(pod.key.namespace.as_str()).copied();
    wanted.told = ToldAtoms::new(&numbers);
    let mut lookup = Lookup {
        classifier: Classifier::new(numbers),
        nodes: Nodes::new(world),
        contested: HashMap::new(),
        own_sources: world.own_sources.clone(),
        beside: !world.parts.wires(),
        inside: world.inside.clone(),
    };
    let ranges = world.ranges();
    wanted.nodes.clone_from(&lookup.nodes.hops);

    // The first to claim an address has it: pods attached here, nodes, then other pods, as far as their ranges go.
    for local in &world.local {
        let pod = objects.get(&local.key).into_iter().flatten().copied().find(|pod| is_object_of(pod, local));
        let met = match pod {
            Some(pod) => lookup.classifier.met_by_pod(pod, labels_of(pod)),
            None => lookup.classifier.met_by_unknown(),
        };
        for ip in local.ips.iter().map(IpAddr::to_canonical) {
            wanted.peers.entry(ip.into()).or_insert_with(|| lookup.attached(&met, local.slot, ip));
        }
    }
    let mut named: HashMap<IpAddr, Vec<&Node>> = HashMap::new();
    for node in &world.nodes {
        ranges.addresses(node).for_each(|ip| named.entry(ip).or_default().push(node));
    }
    for node in &world.nodes {
        let own = if node.name == world.node { PeerFlags::SELF } else { 0 };
        for ip in ranges.addresses(node) {
            wanted.peers.entry(ip.into()).or_insert_with(|| WantedPeer {
                class: lookup.classifier.of_address(&lookup.classifier.met_by_nodes(&named[&ip]), ip),
                pair: None,
                slot: None,
                node: lookup.nodes.by_name.get(node.name.as_str()).copied(),
                flags: PeerFlags::NODE | own,
            });
        }
    }
    let mut local: HashMap<_, Vec<_>> = HashMap::new();
    for attached in &world.local {
        local.entry(&attached.key).or_default().push(*attached);
    }
    let mut pods: Vec<_> = world.pods.iter().filter(|pod| !pod.owned_ips().is_empty()).collect();
    pods.sort_by_key(|pod| claim(pod));
    for pod in pods {
        if local.get(&pod.key).into_iter().flatten().any(|attached| is_object_of(pod, attached)) {
            continue;
        }
        let met = lookup.classifier.met_by_pod(pod, labels_of(pod));
        for ip in owned(&ranges, pod) {
            match wanted.peers.entry(ip.into()) {
                Entry::Vacant(entry) => drop(entry.insert(lookup.pod(pod, &met, ip))),
                Entry::Occupied(entry) if is_elsewhere(entry.get()) => {
                    *lookup.contested.entry(*entry.key()).or_insert(1) += 1;
                }
                Entry::Occupied(_) => {}
            }
        }
    }

    let in_rules: BTreeSet<IpNetwork> = lookup.classifier.prefixes(0).collect();
    wanted.named = in_rules.iter().map(|prefix| CidrKey::prefix(prefix.network().into(), prefix.prefix())).collect();
    wanted.cidrs = lookup.prefixes(0);
    told(world, &mut lookup, wanted);
    wanted.classes = lookup.classifier.classes();
    wanted.lookup = lookup;
}

/// Whether an address is that of a pod which is not attached here.
fn is_elsewhere(peer: &WantedPeer) -> bool {
    peer.slot.is_none() && peer.flags & PeerFlags::NODE == 0
}

/// Whether what is known of an address with these flags is that pods were told it: it is none of a pod, wherever that is, or a node.
pub(crate) fn is_told(flags: u32) -> bool {
    flags & (PeerFlags::POD | PeerFlags::NODE | PeerFlags::EXISTS) == 0
}

/// Adds the addresses outside that pods were told by DNS. Each is what the longest prefix around it is, and besides that it meets
/// what those pods ask.
fn told(world: &World<'_>, lookup: &mut Lookup, wanted: &mut Wanted) {
    if wanted.told.is_empty() {
        return;
    }
    wanted.hashes.clone_from(lookup.classifier.hashes());
    let Some(names) = world.names else { return };
    let mut all: BTreeSet<Arc<Met>> = BTreeSet::new();
    for ip in names.addresses() {
        let met = wanted.told.met(names, ip);
        let has = |ip: IpAddr| wanted.peers.contains_key(&ip.into());
        if met.is_empty() || !lookup.is_outside(ip, has) {
            continue;
        }
        let met = all.get(&met).cloned().unwrap_or_else(|| Arc::new(met));
        all.insert(Arc::clone(&met));
        wanted.met.insert(ip.into(), met);
    }
    let chosen = ToldRoom::new(&wanted.told, MOST_TOLD_ROWS).choose(&all);
    let before = wanted.met.len();
    wanted.met.retain(|_, met| chosen.contains(met));
    wanted.untold = before - wanted.met.len();
    let mut pairs: HashMap<(usize, usize), usize> = HashMap::new();
    for (addr, met) in &wanted.met {
        let ip = IpAddr::from(*addr);
        let (class, of_known) = lookup.classifier.of_told(met, ip);
        let pair = (class != of_known).then(|| {
            *pairs.entry((class, of_known)).or_insert_with(|| {
                wanted.pairs.push((class, of_known));
                wanted.pairs.len() - 1
            })
        });
        let flags = if lookup.own_sources.at(ip.into()) { PeerFlags::KEEP_SOURCE } else { 0 };
        let lingers = if pair.is_some() { PeerFlags::LINGERS } else { 0 };
        wanted.peers.insert(*addr, WantedPeer { class, pair, slot: None, node: None, flags: flags | lingers });
    }
}

/// The other nodes, and whose pods are where.
#[derive(Debug, Default)]
struct Nodes {
    own: String,
    hops: Vec<NodeHop>,
    by_name: HashMap<String, usize>,
    /// The prefixes that pods get their addresses from, with the index of their node; this node has none.
    pod_cidrs: BTreeMap<IpNetwork, Option<usize>>,
    /// Their lengths.
    lengths: BTreeSet<u8>,
}

impl Nodes {
    fn new(world: &World<'_>) -> Self {
        let mut sorted: Vec<&Node> = world.nodes.clone();
        sorted.sort_by_key(|node| &node.name);
        let mut nodes = Self { own: world.node.to_owned(), ..Self::default() };
        let mut by_address = HashMap::new();
        for node in sorted {
            let (v4, v6) = (first(&node.internal_ips, IpAddr::is_ipv4), first(&node.internal_ips, IpAddr::is_ipv6));
            let reachable = node.name != world.node && !node.internal_ips.is_empty();
            // Two nodes of the same addresses are one way.
            let index = reachable.then(|| {
                *by_address.entry((v4, v6)).or_insert_with(|| {
                    let (ifindex, mut flags) = (world.network.ifindex, world.network.hop_flags(node));
                    // Who sends by the settings does so without an end.
                    if let (0, Some(until)) = (flags & HopFlags::SENDS, world.senders.get(&(v4, v6))) {
                        flags |= HopFlags::SENDS | NodeHop::end(*until);
                    }
                    nodes.hops.push(NodeHop { v4, v6, ifindex, flags });
                    nodes.hops.len() - 1
                })
            });
            if let Some(index) = index {
                nodes.by_name.insert(node.name.clone(), index);
            }
            for cidr in &node.pod_cidrs {
                nodes.pod_cidrs.entry(*cidr).or_insert(index);
                nodes.lengths.insert(cidr.prefix());
            }
        }
        nodes
    }

    /// The node of the longest of the pods' prefixes that holds a prefix: `Some(None)` for this node's.
    fn pod_cidr(&self, prefix: IpNetwork) -> Option<Option<usize>> {
        self.lengths.range(..=prefix.prefix()).rev().find_map(|len| {
            let outer = IpNetwork::new(prefix.ip(), *len).ok()?;
            self.pod_cidrs.get(&IpNetwork::new(outer.network(), *len).ok()?).copied()
        })
    }

    /// The node that a pod's address is behind: the one that the pod is bound to, or whose prefix holds it.
    fn of_pod(&self, pod: &Pod, ip: IpAddr) -> Option<usize> {
        match &pod.node_name {
            Some(name) if *name == self.own => None,
            Some(name) => self.by_name.get(name.as_str()).copied(),
            None => self.pod_cidr(ip.into()).flatten(),
        }
    }
}
