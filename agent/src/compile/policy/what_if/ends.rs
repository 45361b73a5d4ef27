//! Who is at an end of a flow: pods, nodes and networks, those that policies can't tell apart as one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_objects::{DomainName, Labels, Node, ObjectKey, Peer, Pod, Protocol};
use ipnetwork::IpNetwork;

use super::super::atom::shortened;
use super::super::{World, claim, is_object_of};
use super::Family;
use super::sets::Sets;
use crate::model::LocalPod;

/// A declared port: name, protocol and number.
pub(super) type Declared = (String, Protocol, u16);

/// Ends that are alike.
#[derive(Debug)]
pub(super) struct End<'a> {
    /// What they are called.
    pub(super) names: BTreeSet<String>,
    /// What judges them: by state, then by direction. No rules judge what is no pod.
    pub(super) sets: [[usize; 2]; 2],
    /// For each family in which they have an address, the rules that have them among their peers.
    pub(super) met: [Option<BTreeSet<usize>>; 2],
    /// The named ports of their containers.
    pub(super) declared: BTreeSet<Declared>,
    /// A pod whose Namespace is not known.
    pub(super) is_unknown: bool,
    /// The nodes that they are, or, of pods, that they run on.
    on: BTreeSet<&'a str>,
    is_node: bool,
    /// What DNS tells pods for names, to which nothing but a pod connects.
    pub(super) is_named: bool,
}

impl End<'_> {
    /// Whether it is a node, and the other end pods of it alone: it always reaches those.
    pub(super) fn is_node_of(&self, pods: &Self) -> bool {
        self.is_node && !pods.is_node && self.on.len() == 1 && self.on == pods.on
    }
}

/// What an end is made of.
#[derive(Debug, Clone, Default)]
struct One<'a> {
    name: String,
    pod: Option<(&'a Pod, Option<&'a Labels>)>,
    nodes: Vec<&'a Node>,
    ips: [Option<IpAddr>; 2],
    /// What pods ask DNS for it by.
    asked: Option<String>,
}

/// What tells ends apart.
type Key = ([[usize; 2]; 2], [Option<BTreeSet<usize>>; 2], BTreeSet<Declared>, bool, bool, bool);

/// Addresses of a name that are known, as many as are named.
const KNOWN: usize = 4;

/// All ends, and what judges them.
#[derive(Debug)]
pub(super) struct Ends<'a> {
    pub(super) list: Vec<End<'a>>,
    pub(super) sets: Sets<'a>,
}

/// The ends of two states, between which nothing differs but policies.
pub(super) fn of<'a>(worlds: [&World<'a>; 2]) -> Ends<'a> {
    let (all, networks) = everybody(worlds);
    let names = names(worlds, &networks);
    let mut sets = Sets::new(worlds);
    let judged: Vec<_> = all
        .into_iter()
        .map(|one| {
            let of_pod = one.pod.map(|(pod, namespace)| sets.of(pod, namespace));
            (one, of_pod.unwrap_or_default())
        })
        .chain(networks.into_iter().chain(names).map(|one| (one, Default::default())))
        .collect();
    let mut known: BTreeMap<Key, usize> = BTreeMap::new();
    let mut list: Vec<End<'a>> = Vec::new();
    for (one, numbers) in judged {
        let (pod, nodes, asked) = (one.pod, &one.nodes, one.asked.as_deref());
        let met = one.ips.map(|ip| {
            let rules =
                |ip| sets.rules.iter().enumerate().filter(move |(_, rule)| rule.has_peer(pod, nodes, asked, ip));
            ip.map(|ip| rules(ip).map(|(number, _)| number).collect::<BTreeSet<_>>())
        });
        let ports = one.pod.iter().flat_map(|(pod, _)| &pod.container_ports);
        let declared: BTreeSet<Declared> =
            ports.filter_map(|port| Some((port.name.clone()?, port.protocol, port.port))).collect();
        let is_unknown = one.pod.is_some_and(|(_, namespace)| namespace.is_none());
        let is_named = one.asked.is_some();
        let key = (numbers, met.clone(), declared.clone(), is_unknown, one.pod.is_some(), is_named);
        let next = list.len();
        let place = *known.entry(key).or_insert(next);
        if place == next {
            let names = BTreeSet::new();
            list.push(End {
                names,
                sets: numbers,
                met,
                declared,
                is_unknown,
                on: BTreeSet::new(),
                is_node: !nodes.is_empty(),
                is_named,
            });
        }
        list[place].on.extend(nodes.iter().map(|node| node.name.as_str()));
        list[place].on.extend(pod.and_then(|(pod, _)| pod.node_name.as_deref()));
        list[place].names.insert(one.name);
    }
    Ends { list, sets }
}

/// Pods and nodes, and the networks that policies name.
fn everybody<'a>(worlds: [&World<'a>; 2]) -> (Vec<One<'a>>, Vec<One<'a>>) {
    let world = worlds[0];
    let namespaces: HashMap<&str, &Labels> = world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect();
    let (pods, nodes) = owners(world);
    let taken: BTreeSet<IpAddr> = pods.values().flat_map(|(_, ips)| ips).chain(nodes.keys()).copied().collect();
    let mut all = Vec::new();
    for (key, (pod, ips)) in pods {
        let of = |v4: bool| ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
        let namespace = namespaces.get(pod.key.namespace.as_str()).copied();
        all.push(One {
            name: key.to_string(),
            pod: Some((pod, namespace)),
            ips: [of(true), of(false)],
            ..One::default()
        });
    }
    // A node's addresses are one end, of each family one; if it has more, they are told apart.
    let mut by_node: BTreeMap<String, (Vec<&Node>, [Vec<IpAddr>; 2])> = BTreeMap::new();
    for (ip, of_node) in nodes {
        let names: Vec<_> = of_node.iter().map(|node| format!("node/{}", node.name)).collect();
        let entry = by_node.entry(names.join(", ")).or_insert((of_node, Default::default()));
        entry.1[usize::from(ip.is_ipv6())].push(ip);
    }
    for (name, (nodes, [v4, v6])) in by_node {
        all.push(One {
            name: name.clone(),
            nodes: nodes.clone(),
            ips: [v4.first().copied(), v6.first().copied()],
            ..One::default()
        });
        for ip in v4.iter().skip(1).chain(v6.iter().skip(1)) {
            all.push(One {
                name: format!("{name} ({ip})"),
                nodes: nodes.clone(),
                ips: in_family(*ip),
                ..One::default()
            });
        }
    }
    (all, regions(worlds, &taken))
}

fn in_family(ip: IpAddr) -> [Option<IpAddr>; 2] {
    Family::BOTH.map(|family| (ip.is_ipv4() == (family == Family::V4)).then_some(ip))
}

/// A pod with the addresses that are its own.
pub(super) type Owning<'a> = BTreeMap<&'a ObjectKey, (&'a Pod, Vec<IpAddr>)>;

/// Who has which address: as [`World::owner`] says, of all addresses at once.
pub(super) fn owners<'a>(world: &World<'a>) -> (Owning<'a>, BTreeMap<IpAddr, Vec<&'a Node>>) {
    let mut objects: HashMap<&ObjectKey, Vec<&'a Pod>> = HashMap::new();
    world.pods.iter().for_each(|pod| objects.entry(&pod.key).or_default().push(pod));
    let (mut pods, mut taken) = (Owning::new(), BTreeSet::new());
    let mut attached: HashMap<&ObjectKey, Vec<&LocalPod>> = HashMap::new();
    for local in &world.local {
        let object = objects.get(&local.key).into_iter().flatten().find(|pod| is_object_of(pod, local));
        for ip in local.ips.iter().map(IpAddr::to_canonical).filter(|ip| taken.insert(*ip)) {
            if let Some(pod) = object {
                pods.entry(&pod.key).or_insert((*pod, Vec::new())).1.push(ip);
            }
        }
        attached.entry(&local.key).or_default().push(local);
    }
    let ranges = world.ranges();
    let mut nodes: BTreeMap<IpAddr, Vec<&Node>> = BTreeMap::new();
    for node in &world.nodes {
        for ip in ranges.addresses(node).filter(|ip| !taken.contains(ip)) {
            nodes.entry(ip).or_default().push(node);
        }
    }
    taken.extend(nodes.keys());
    let is_attached = |pod: &Pod| attached.get(&pod.key).into_iter().flatten().any(|local| is_object_of(pod, local));
    let mut others: Vec<_> = world.pods.iter().filter(|pod| !is_attached(pod)).collect();
    others.sort_by_key(|pod| claim(pod));
    for pod in others {
        for ip in ranges.owned(pod).filter(|ip| taken.insert(*ip)) {
            pods.entry(&pod.key).or_insert((*pod, Vec::new())).1.push(ip);
        }
    }
    (pods, nodes)
}

/// The networks outside that policies name, each without those inside of it, and the rest of the world. Where pods get their
/// addresses from there is nobody but they.
fn regions<'a>(worlds: [&World<'a>; 2], taken: &BTreeSet<IpAddr>) -> Vec<One<'a>> {
    let of_policies = worlds.iter().flat_map(|world| {
        let network = world.policies.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
        let cluster = world.cluster_policies.iter().flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
        network.chain(cluster.filter_map(|rule| rule.matches.as_ref()))
    });
    let blocks = of_policies.flat_map(|rule| &rule.peers).flat_map(|peer| match peer {
        Peer::IpBlock { cidr, except } => std::iter::once(cidr).chain(except).copied().collect(),
        _ => Vec::new(),
    });
    let everything = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse().ok());
    let plain = |prefix: IpNetwork| shortened(prefix, prefix.prefix()).unwrap_or(prefix);
    let named: BTreeSet<IpNetwork> = blocks.chain(everything).map(plain).collect();
    let of_pods: BTreeSet<IpNetwork> =
        worlds[0].nodes.iter().flat_map(|node| &node.pod_cidrs).copied().map(plain).collect();
    let lengths: BTreeSet<u8> = named.iter().chain(&of_pods).map(IpNetwork::prefix).collect();
    let is_outside = |ip: IpAddr, region: IpNetwork| {
        let around =
            || lengths.iter().rev().filter_map(move |len| shortened(ip.into(), *len).filter(|n| n.prefix() == *len));
        !taken.contains(&ip)
            && !around().any(|prefix| of_pods.contains(&prefix))
            && around().find(|prefix| named.contains(prefix)) == Some(region)
    };
    // In a network that is not covered by smaller ones an address is free at its begin, or behind one of these.
    let smaller = named.iter().chain(&of_pods).copied().chain(taken.iter().map(|ip| IpNetwork::from(*ip)));
    let behind: BTreeSet<IpAddr> = smaller.filter_map(|prefix| next(prefix.broadcast())).collect();
    let found = named.iter().filter_map(|region| {
        let inside = behind.range(region.network()..).copied().take_while(|ip| region.contains(*ip));
        let ip = std::iter::once(region.network()).chain(inside).find(|ip| is_outside(*ip, *region))?;
        Some(One { name: region.to_string(), ips: in_family(ip), ..One::default() })
    });
    found.collect()
}

/// The names that rules have: what DNS tells a pod for each. Where that is known it is judged at such an address, else at one
/// outside that no policy names.
fn names<'a>(worlds: [&World<'a>; 2], networks: &[One<'a>]) -> Vec<One<'a>> {
    let rules = worlds.iter().flat_map(|world| &world.cluster_policies).flat_map(|policy| &policy.egress);
    let peers = rules.filter_map(|rule| rule.matches.as_ref()).flat_map(|rule| &rule.peers);
    let names: BTreeSet<&DomainName> = peers
        .flat_map(|peer| match peer {
            Peer::DomainNames(names) => names.iter().collect(),
            _ => Vec::new(),
        })
        .collect();
    let everything = ["0.0.0.0/0", "::/0"];
    let rest = Family::BOTH.map(|family| {
        let mut rest = networks.iter().filter(|one| one.name == everything[family as usize]);
        rest.find_map(|one| one.ips[family as usize])
    });
    let one = |name: &DomainName| {
        let world = worlds[0];
        let told = world.names.into_iter().flat_map(|told| {
            told.addresses().filter(move |ip| told.told(*ip).any(|(_, asked, is_live)| is_live && name.matches(asked)))
        });
        let known: Vec<IpAddr> = told.filter(|ip| world.is_outside(*ip)).take(KNOWN).collect();
        let of = |family: Family| {
            let mut known = known.iter().copied().filter(|ip| ip.is_ipv4() == (family == Family::V4));
            known.next().or(rest[family as usize])
        };
        let list: Vec<_> = known.iter().map(ToString::to_string).collect();
        let now = if list.is_empty() { String::new() } else { format!(" (now {})", list.join(", ")) };
        let asked = Some(name.to_string().replacen('*', "any-name", 1));
        One { name: format!("name/{name}{now}"), ips: Family::BOTH.map(of), asked, ..One::default() }
    };
    names.into_iter().map(one).collect()
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}
