//! What policy is compiled from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_objects::{
    ClusterNetworkPolicy, DomainName, Labels, Mode, Namespace, NetworkPolicy, Node, ObjectKey, Pod,
};
use ipnetwork::IpNetwork;

use crate::compile::claims::PodRanges;
use crate::masquerade::OwnSources;
use crate::model::{LocalPod, Model};
use crate::names::{self, Names};
use crate::network::Network;
use crate::parts::Parts;

/// The objects that policy and peers depend on, and this node's place among them.
#[derive(Debug, Clone, Default)]
pub struct World<'a> {
    /// The name of this node.
    pub node: &'a str,
    /// How other nodes are reached.
    pub network: Network,
    /// All namespaces.
    pub namespaces: Vec<&'a Namespace>,
    /// All nodes, this one among them.
    pub nodes: Vec<&'a Node>,
    /// All pods of the cluster.
    pub pods: Vec<&'a Pod>,
    /// All NetworkPolicies.
    pub policies: Vec<&'a NetworkPolicy>,
    /// All ClusterNetworkPolicies.
    pub cluster_policies: Vec<&'a ClusterNetworkPolicy>,
    /// The pods that are attached to this node.
    pub local: Vec<&'a LocalPod>,
    /// Prefixes that pods' addresses may be of on every node, beside the nodes' ranges.
    pub pod_ranges: &'a [IpNetwork],
    /// Addresses that are closed to pods.
    pub closed: &'a [IpAddr],
    /// UDP port of the tunnel between nodes, if there is one: pods reach it at other pods alone.
    pub tunnel_port: Option<u16>,
    /// Where outside of the cluster pods go with their own addresses.
    pub own_sources: OwnSources,
    /// The addresses of nodes that were reached through the tunnel a short time ago, and may not have noticed yet.
    pub senders: BTreeMap<(Addr, Addr), u32>,
    /// Which parts run here.
    pub parts: Parts,
    /// What this node's pods were told by DNS, where that is known.
    pub names: Option<&'a Names>,
    /// What names don't open beside pods and nodes: metadata services, API servers, and whatever this node has.
    pub inside: BTreeSet<IpAddr>,
}

/// Whether a Pod object is that of an attached pod: the same name, and the uid that it runs under where both have one.
pub(crate) fn is_object_of(pod: &Pod, local: &LocalPod) -> bool {
    pod.key == local.key && !pod.host_network && pod.runs_as(&local.uid)
}

/// How good a pod's claim to its addresses is, smallest first: two may name the same one for a moment.
pub(crate) fn claim(pod: &Pod) -> (bool, &ObjectKey, &str) {
    (pod.terminating, &pod.key, &pod.uid)
}

impl<'a> World<'a> {
    /// The world of a model, as it is in force.
    #[must_use]
    pub fn of(model: &'a Model, network: &Network) -> Self {
        Self::with_audited(model, network).in_force()
    }

    /// The policies of a model that are in force, and nothing else.
    #[must_use]
    pub fn of_policies(model: &'a Model) -> Self {
        Self {
            policies: model.policies().filter(|policy| policy.mode == Mode::Enforce).collect(),
            cluster_policies: model.cluster_policies().filter(|policy| policy.mode == Mode::Enforce).collect(),
            ..Self::default()
        }
    }

    /// The same with the policies that are in audit mode.
    #[must_use]
    pub fn with_audited(model: &'a Model, network: &Network) -> Self {
        Self {
            node: model.node_name(),
            network: network.clone(),
            namespaces: model.namespaces().collect(),
            nodes: model.nodes().collect(),
            pods: model.pods().collect(),
            policies: model.policies().collect(),
            cluster_policies: model.cluster_policies().collect(),
            local: model.local().values().collect(),
            pod_ranges: &model.rules().pod_ranges,
            closed: model.rules().closed(),
            tunnel_port: model.rules().tunnel_port,
            own_sources: model.rules().masquerade.own_sources(),
            senders: BTreeMap::new(),
            parts: model.rules().parts,
            names: Some(model.names()),
            inside: model.reserved().of_the_cluster().chain(model.rules().metadata.iter().copied()).collect(),
        }
    }

    /// The same without the policies that are in audit mode.
    #[must_use]
    pub fn in_force(&self) -> Self {
        let mut world = self.clone();
        world.policies.retain(|policy| policy.mode == Mode::Enforce);
        world.cluster_policies.retain(|policy| policy.mode == Mode::Enforce);
        world
    }

    /// The policies in audit mode, where they are part of it; those of the cluster, which have no namespace, come first.
    #[must_use]
    pub fn audited(&self) -> BTreeSet<&'a ObjectKey> {
        let network = self.policies.iter().map(|policy| (policy.mode, &policy.key));
        let cluster = self.cluster_policies.iter().map(|policy| (policy.mode, &policy.key));
        network.chain(cluster).filter(|(mode, _)| *mode == Mode::Audit).map(|(_, key)| key).collect()
    }

    /// Which addresses pods of other nodes may have.
    #[must_use]
    pub fn ranges(&self) -> PodRanges<'a> {
        PodRanges::new(self.nodes.iter().copied(), self.pod_ranges)
    }

    /// The object of an attached pod, if it is known.
    #[must_use]
    pub fn object_of(&self, local: &LocalPod) -> Option<&'a Pod> {
        self.pods.iter().copied().find(|pod| is_object_of(pod, local))
    }

    /// The labels of a namespace.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<&'a Labels> {
        self.namespaces.iter().find(|ns| ns.name == name).map(|ns| &ns.labels)
    }

    /// Whether an address is one that only a pod can have, and no pod is known that has it, or not the labels of the pod's
    /// namespace.
    #[must_use]
    pub fn is_unknown_pod(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let is_local = self.local.iter().any(|local| local.ips.iter().any(|own| own.to_canonical() == ip));
        let in_range = || self.nodes.iter().any(|node| node.pod_cidrs.iter().any(|range| range.contains(ip)));
        match self.owner(ip) {
            Some(pod) => self.namespace_labels(&pod.key.namespace).is_none(),
            None => is_local || (in_range() && self.nodes_with(ip).next().is_none()),
        }
    }

    /// Whether names may open an address: it is none of a pod or a node, nor can it be one of a pod, nor is it anybody else's inside.
    #[must_use]
    pub fn is_outside(&self, ip: IpAddr) -> bool {
        names::is_outside(ip, |ip| {
            let in_range = || self.nodes.iter().any(|node| node.pod_cidrs.iter().any(|range| range.contains(ip)));
            let is_local = || self.local.iter().any(|local| local.ips.iter().any(|own| own.to_canonical() == ip));
            let is_nodes = || self.nodes_with(ip).next().is_some();
            self.inside.contains(&ip) || self.owner(ip).is_some() || is_nodes() || is_local() || in_range()
        })
    }

    /// Whether a pod was told an address for one of these names, and may connect to it.
    #[must_use]
    pub fn is_told(&self, pod: &ObjectKey, ip: IpAddr, names: &BTreeSet<DomainName>) -> bool {
        let ip = ip.to_canonical();
        let told = self.names.into_iter().flat_map(|all| all.told(ip));
        let mut told = told.filter(|(key, _, live)| *key == pod && *live);
        told.any(|(_, name, _)| names.iter().any(|each| each.matches(name))) && self.is_outside(ip)
    }

    /// Whether nobody can say which policies of the cluster select a pod.
    #[must_use]
    pub fn is_in_unknown_namespace(&self, pod: &Pod) -> bool {
        !self.cluster_policies.is_empty() && self.namespace_labels(&pod.key.namespace).is_none()
    }

    /// The nodes that have an address, where it is none of a pod attached here.
    pub fn nodes_with(&self, ip: IpAddr) -> impl Iterator<Item = &'a Node> {
        let ip = ip.to_canonical();
        let is_local = self.local.iter().any(|local| local.ips.iter().any(|own| own.to_canonical() == ip));
        let ranges = self.ranges();
        let nodes = self.nodes.iter().copied().filter(move |_| !is_local);
        nodes.filter(move |node| ranges.addresses(node).any(|own| own == ip)).collect::<Vec<_>>().into_iter()
    }

    /// The pod that an address belongs to. An attached pod's addresses are those that it was given here, a node's
    /// address is no pod's, and of several pods that name an address that their nodes may give them the one with the best
    /// claim has it.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&'a Pod> {
        let ip = ip.to_canonical();
        let same = |other: &IpAddr| other.to_canonical() == ip;
        if let Some(local) = self.local.iter().find(|local| local.ips.iter().any(same)) {
            return self.object_of(local);
        }
        let ranges = self.ranges();
        if self.nodes.iter().any(|node| ranges.addresses(node).any(|other| other == ip)) {
            return None;
        }
        self.pods
            .iter()
            .copied()
            .filter(|pod| ranges.owned(pod).any(|other| other == ip))
            .filter(|pod| !self.local.iter().any(|local| is_object_of(pod, local)))
            .min_by_key(|pod| claim(pod))
    }
}
