//! Peers: what is known of every address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{CidrKey, HopFlags, NodeHop, PeerFlags, Pod as PodRecord};
use fairlead_objects::{Node, ObjectKey, Pod};
use ipnetwork::IpNetwork;

use super::policy::{
    Classifier, MOST_TOLD_ROWS, Met, Numbers, ToldAtoms, Wanted, WantedPeer, World, claim, is_object_of,
};
use crate::model::LocalPod;

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

/// Compiles nodes, addresses and prefixes, and with them the classes in use.
pub(crate) fn compile(
    world: &World<'_>,
    objects: &HashMap<&ObjectKey, Vec<&Pod>>,
    numbers: &Numbers,
    wanted: &mut Wanted,
) {
    let mut classifier = Classifier::new(world, numbers);
    let nodes = Nodes::new(world);
    let ranges = world.ranges();
    wanted.nodes.clone_from(&nodes.hops);

    // The first to claim an address has it: pods attached here, nodes, then other pods, as far as their ranges go.
    for local in &world.local {
        let pod = objects.get(&local.key).into_iter().flatten().copied().find(|pod| is_object_of(pod, local));
        for ip in local.ips.iter().map(IpAddr::to_canonical) {
            wanted.peers.entry(ip.into()).or_insert_with(|| WantedPeer {
                class: match pod {
                    Some(pod) => classifier.of_pod(pod, ip),
                    None => classifier.of_unknown(ip),
                },
                pair: None,
                slot: Some(local.slot),
                node: None,
                flags: PeerFlags::POD | PeerFlags::EXISTS,
            });
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
                class: classifier.of_nodes(&named[&ip], ip),
                pair: None,
                slot: None,
                node: nodes.by_name.get(node.name.as_str()).copied(),
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
        for ip in ranges.owned(pod) {
            wanted.peers.entry(ip.into()).or_insert_with(|| WantedPeer {
                class: classifier.of_pod(pod, ip),
                pair: None,
                slot: None,
                node: nodes.of_pod(pod, ip),
                flags: PeerFlags::POD | PeerFlags::EXISTS,
            });
        }
    }

    let in_rules: BTreeSet<IpNetwork> = numbers.atoms().flat_map(|(atom, _)| atom.prefixes()).collect();
    wanted.named = in_rules.iter().map(|prefix| CidrKey::prefix(prefix.network().into(), prefix.prefix())).collect();
    let prefixes: BTreeSet<IpNetwork> =
        in_rules.into_iter().chain(nodes.pod_cidrs.keys().copied()).chain(world.own_sources.prefixes()).collect();
    for prefix in prefixes {
        // A prefix inside a node's is that node's too, or naming it in a policy would change where its packets go.
        // So with a prefix inside one that is not masqueraded.
        let pods_of = nodes.pod_cidr(prefix);
        wanted.cidrs.insert(
            CidrKey::prefix(prefix.network().into(), prefix.prefix()),
            WantedPeer {
                class: classifier.of_prefix(prefix, pods_of.is_some()),
                pair: None,
                slot: None,
                node: pods_of.flatten(),
                flags: match pods_of {
                    Some(_) => PeerFlags::POD,
                    None if world.own_sources.at(prefix) => PeerFlags::KEEP_SOURCE,
                    None => 0,
                },
            },
        );
    }
    told(world, &nodes, numbers, &mut classifier, wanted);
    (wanted.classes, wanted.hashes) = classifier.finish();
}

/// Adds the addresses outside that pods were told by DNS. Each is what the longest prefix around it is, and besides that it meets
/// what those pods ask.
fn told(world: &World<'_>, nodes: &Nodes<'_>, numbers: &Numbers, classifier: &mut Classifier<'_>, wanted: &mut Wanted) {
    wanted.told = ToldAtoms::new(numbers);
    let Some(names) = world.names.filter(|_| !wanted.told.is_empty()) else { return };
    let mut known: BTreeSet<Met> = BTreeSet::new();
    let mut pairs: HashMap<(usize, usize), usize> = HashMap::new();
    for ip in names.addresses() {
        let met = wanted.told.met(names, ip);
        if met.is_empty() || nodes.pod_cidr(ip.into()).is_some() || wanted.peers.contains_key(&ip.into()) {
            continue;
        }
        if !known.contains(&met) {
            let rows = wanted.told_rows + told_rows(&met);
            if rows > MOST_TOLD_ROWS {
                wanted.untold += 1;
                continue;
            }
            wanted.told_rows = rows;
            known.insert(met.clone());
        }
        let (class, of_known) = classifier.of_told(&met, ip);
        let pair = (class != of_known).then(|| {
            *pairs.entry((class, of_known)).or_insert_with(|| {
                wanted.pairs.push((class, of_known));
                wanted.pairs.len() - 1
            })
        });
        let flags = if world.own_sources.at(ip.into()) { PeerFlags::KEEP_SOURCE } else { 0 };
        let lingers = if pair.is_some() { PeerFlags::LINGERS } else { 0 };
        wanted.peers.insert(ip.into(), WantedPeer { class, pair, slot: None, node: None, flags: flags | lingers });
    }
}

/// Rows that addresses take which meet this, at most, as far as they are counted.
pub(crate) fn told_rows(met: &Met) -> usize {
    met.live.len() + if met.lingering.is_empty() { 0 } else { met.live.len() + met.lingering.len() }
}

/// The other nodes, and whose pods are where.
struct Nodes<'a> {
    own: &'a str,
    hops: Vec<NodeHop>,
    by_name: HashMap<&'a str, usize>,
    /// The prefixes that pods get their addresses from, with the index of their node; this node has none.
    pod_cidrs: BTreeMap<IpNetwork, Option<usize>>,
    /// Their lengths.
    lengths: BTreeSet<u8>,
}

impl<'a> Nodes<'a> {
    fn new(world: &World<'a>) -> Self {
        let mut sorted: Vec<&Node> = world.nodes.clone();
        sorted.sort_by_key(|node| &node.name);
        let mut nodes = Self {
            own: world.node,
            hops: Vec::new(),
            by_name: HashMap::new(),
            pod_cidrs: BTreeMap::new(),
            lengths: BTreeSet::new(),
        };
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
                nodes.by_name.insert(&node.name, index);
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
            Some(name) if name == self.own => None,
            Some(name) => self.by_name.get(name.as_str()).copied(),
            None => self.pod_cidr(ip.into()).flatten(),
        }
    }
}
