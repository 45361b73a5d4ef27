//! Addresses that pods claim in their status, which the kubelet of their node writes.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use fairlead_objects::{Node, Pod};
use ipnetwork::IpNetwork;

/// Which addresses pods may have, by their node. Made of the Nodes as they are now: whichever of a Pod and its Node is seen
/// first, its addresses count once both are known.
#[derive(Debug)]
pub struct PodRanges<'a> {
    of_node: HashMap<&'a str, &'a [IpNetwork]>,
    /// The node of each range; of two that name one the first by name.
    node_of: HashMap<IpNetwork, &'a str>,
    /// The lengths that ranges have: few, where there are thousands of ranges.
    lengths: BTreeSet<u8>,
    /// Prefixes that count on every node.
    beside: &'a [IpNetwork],
}

/// What an address in a Pod's status is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It is the pod's.
    Counts,
    /// The pod is bound to no node, or to one that is not known (yet).
    NoNode,
    /// Its node's ranges, which are these, don't hold it.
    Foreign(&'a [IpNetwork]),
}

impl<'a> PodRanges<'a> {
    /// The ranges of these nodes, and prefixes that count on every node.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = &'a Node>, beside: &'a [IpNetwork]) -> Self {
        let mut ranges = Self { of_node: HashMap::new(), node_of: HashMap::new(), lengths: BTreeSet::new(), beside };
        for node in nodes {
            ranges.of_node.insert(&node.name, &node.pod_cidrs);
            for range in &node.pod_cidrs {
                ranges.lengths.insert(range.prefix());
                let first = ranges.node_of.entry(*range).or_insert(&node.name);
                *first = (*first).min(&node.name);
            }
        }
        ranges
    }

    /// What one of a pod's addresses is worth.
    #[must_use]
    pub fn standing(&self, pod: &Pod, ip: IpAddr) -> Standing<'a> {
        self.standing_on(pod.node_name.as_deref(), ip)
    }

    /// What an address of a pod on a node is worth.
    #[must_use]
    pub fn standing_on(&self, node: Option<&str>, ip: IpAddr) -> Standing<'a> {
        let ip = ip.to_canonical();
        if holds(self.beside, ip) {
            return Standing::Counts;
        }
        match node.and_then(|name| self.of_node.get(name)) {
            None => Standing::NoNode,
            Some(ranges) if holds(ranges, ip) => Standing::Counts,
            Some(ranges) => Standing::Foreign(ranges),
        }
    }

    /// The addresses that are a pod's own and that its node may give it.
    pub fn owned<'p>(&self, pod: &'p Pod) -> impl Iterator<Item = IpAddr> + use<'_, 'a, 'p> {
        let ips = pod.owned_ips().iter().map(IpAddr::to_canonical);
        ips.filter(|ip| self.standing(pod, *ip) == Standing::Counts)
    }

    /// A node's addresses, which its kubelet writes too: those that are of another node's pods are not among them.
    pub fn addresses<'n>(&self, node: &'n Node) -> impl Iterator<Item = IpAddr> + use<'_, 'a, 'n> {
        let ips = node.internal_ips.iter().chain(&node.external_ips).map(IpAddr::to_canonical);
        ips.filter(|ip| self.node_of(*ip).is_none_or(|owner| owner == node.name))
    }

    /// The addresses of a node that are not, each with the node whose pods it is of.
    pub fn foreign_addresses<'n>(&self, node: &'n Node) -> impl Iterator<Item = (IpAddr, &'a str)> + use<'_, 'a, 'n> {
        let ips = node.internal_ips.iter().chain(&node.external_ips).map(IpAddr::to_canonical);
        ips.filter_map(|ip| self.node_of(ip).filter(|owner| *owner != node.name).map(|owner| (ip, owner)))
    }

    /// The node whose pods an address is of, by the longest range that holds it.
    fn node_of(&self, ip: IpAddr) -> Option<&'a str> {
        self.lengths.iter().rev().find_map(|length| {
            // Of the other family it may be too long.
            let outer = IpNetwork::new(ip, *length).ok()?;
            self.node_of.get(&IpNetwork::new(outer.network(), *length).ok()?).copied()
        })
    }
}

fn holds(ranges: &[IpNetwork], ip: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(ip))
}
