//! The objects as the agent knows them: slim snapshots, kept from the stream, with what changed since it was last asked.

mod annotated;
mod change;
mod dirty;
mod local;
mod mistakes;
mod node_local_dns;
mod reserved;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fairlead_objects::{
    ClusterNetworkPolicy, EndpointSlice, Event, Kind, Labels, Namespace, NetworkPolicy, Node, ObjectKey, Pod, Service,
};

pub use annotated::NotGiven;
pub use dirty::{Dirty, Pods, Whole};
pub use local::LocalPod;
pub use mistakes::{Mistake, MistakeView, Mistakes};
pub use node_local_dns::NodeLocalDns;
pub use reserved::{KUBELET_PORT, Reserved};
pub use rules::Rules;

use crate::names::Names;

/// Everything that is known of the cluster, and the pods that are attached to this node.
#[derive(Debug)]
pub struct Model {
    node: String,
    nodes: BTreeMap<ObjectKey, Node>,
    namespaces: BTreeMap<ObjectKey, Namespace>,
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    /// The slices of each service, by the service's key.
    slices_of: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    policies: BTreeMap<ObjectKey, NetworkPolicy>,
    cluster_policies: BTreeMap<ObjectKey, ClusterNetworkPolicy>,
    pods: BTreeMap<ObjectKey, Pod>,
    local: BTreeMap<u16, LocalPod>,
    names: Names,
    reserved: Reserved,
    /// Annotations of Nodes that do not count, and why.
    not_given: BTreeMap<ObjectKey, NotGiven>,
    /// Whether which of them count is to be decided again.
    undecided: bool,
    rules: Rules,
    waiting_for: BTreeSet<Kind>,
    mistakes: Mistakes,
    dirty: Dirty,
}

impl Model {
    /// An empty model of the cluster, seen from the node with this name.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_of: BTreeMap::new(),
            policies: BTreeMap::new(),
            cluster_policies: BTreeMap::new(),
            pods: BTreeMap::new(),
            local: BTreeMap::new(),
            names: Names::default(),
            reserved: Reserved::default(),
            not_given: BTreeMap::new(),
            undecided: true,
            rules: Rules::default(),
            waiting_for: Kind::ALL.into(),
            mistakes: Mistakes::default(),
            dirty: Dirty::default(),
        }
    }

    /// The same with these rules about claims.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.reserved.set_tunnel_port(rules.tunnel_port);
        Self { rules, ..self }
    }

    /// Takes in what a source tells.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Applied(object) => {
                self.mistakes.fixed(object.kind(), &object.key());
                self.put(object);
            }
            Event::Deleted(kind, key) => {
                self.mistakes.fixed(kind, &key);
                self.remove(kind, &key);
            }
            Event::Synced(kind) => {
                self.waiting_for.remove(&kind);
            }
            Event::Invalid { kind, key, origin, reason } => {
                self.mistakes.add(Mistake { kind, key, origin, reason });
            }
            Event::Mended { origin, reason } => self.mistakes.mended(&origin, &reason),
        }
        self.decide_ranges();
    }

    /// A pod was attached to this node.
    pub fn attach(&mut self, pod: LocalPod) {
        if self.local.get(&pod.slot) != Some(&pod) {
            self.touch_attached(&pod.key.clone());
            self.local.insert(pod.slot, pod);
        }
    }

    /// The pod in a slot is being removed from this node.
    pub fn detach(&mut self, slot: u16) {
        if let Some(gone) = self.local.remove(&slot) {
            self.touch_attached(&gone.key);
        }
    }

    fn touch_attached(&mut self, pod: &ObjectKey) {
        let object = self.pods.get(pod);
        if object.is_some_and(has_host_ports) {
            self.dirty.host_ports.insert(pod.clone());
        }
        self.dirty.attached = true;
        self.dirty.pods.entry(pod.clone()).or_insert_with(|| object.cloned().map(Box::new));
    }

    /// What changed since this was last asked; nothing before the first lists are complete (S54), since what is missing
    /// in an incomplete model would be taken out of the tables.
    pub fn take_dirty(&mut self) -> Dirty {
        if self.synced() { std::mem::take(&mut self.dirty) } else { Dirty::default() }
    }

    /// What changed since [`Model::take_dirty`] was last asked.
    #[must_use]
    pub fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// The kernel has these addresses for this node now, and these mean all hosts of a network that it is on.
    pub fn set_addresses(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        broadcasts: impl IntoIterator<Item = Ipv4Addr>,
    ) {
        let (addresses, broadcasts) = (addresses.into_iter().collect(), broadcasts.into_iter().collect());
        self.reserved.set_own(addresses, broadcasts, &mut self.dirty);
    }

    /// The agent itself reaches an API server here.
    pub fn use_api_server(&mut self, server: SocketAddr) {
        self.reserved.use_api_server(server, &mut self.dirty);
    }

    /// How other nodes are reached changed, on which peers depend.
    pub fn touch_network(&mut self) {
        self.dirty.whole.insert(Whole::Peers);
    }

    /// Whether every kind has synced.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.waiting_for.is_empty()
    }

    /// The kinds that have not synced.
    pub fn waiting_for(&self) -> impl Iterator<Item = Kind> {
        self.waiting_for.iter().copied()
    }

    /// The name of this node.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.node
    }

    /// This node's object.
    #[must_use]
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&ObjectKey::cluster(&self.node))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// All NetworkPolicies.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicy> {
        self.policies.values()
    }

    /// The NetworkPolicies of a namespace.
    pub fn policies_in(&self, namespace: &str) -> impl Iterator<Item = &NetworkPolicy> {
        let from = self.policies.range(ObjectKey::new(namespace, "")..);
        from.take_while(move |(key, _)| key.namespace == namespace).map(|(_, policy)| policy)
    }

    /// All ClusterNetworkPolicies.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &ClusterNetworkPolicy> {
        self.cluster_policies.values()
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// A pod.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// The namespaces that pods are in.
    pub fn pod_namespaces(&self) -> impl Iterator<Item = &str> {
        let after = |key: &ObjectKey| ObjectKey::new(format!("{}\0", key.namespace), "");
        let first = self.pods.keys().next();
        let next = move |key: &&ObjectKey| self.pods.range(after(key)..).next().map(|(key, _)| key);
        std::iter::successors(first, next).map(|key| key.namespace.as_str())
    }

    /// The pods of a namespace.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let from = self.pods.range(ObjectKey::new(namespace, "")..);
        from.take_while(move |(key, _)| key.namespace == namespace).map(|(_, pod)| pod)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&ObjectKey::cluster(name))
    }

    /// The labels of a namespace, if it is known.
    #[must_use]
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(&ObjectKey::cluster(name)).map(|namespace| &namespace.labels)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// A service.
    #[must_use]
    pub fn service(&self, key: &ObjectKey) -> Option<&Service> {
        self.services.get(key)
    }

    /// All slices.
    pub fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values()
    }

    /// A slice.
    #[must_use]
    pub fn slice(&self, key: &ObjectKey) -> Option<&EndpointSlice> {
        self.slices.get(key)
    }

    /// The slices of a service, whether or not it exists.
    #[must_use]
    pub fn slices_of(&self, service: &ObjectKey) -> Vec<&EndpointSlice> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|key| self.slices.get(key)).collect()
    }

    /// The pods that are attached to this node, by slot.
    #[must_use]
    pub fn local(&self) -> &BTreeMap<u16, LocalPod> {
        &self.local
    }

    /// What this node's pods were told by DNS, as of the last turn of the loop.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The same, to change it. What changes is in force when somebody has seen to it: it is not dirty.
    pub fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }

    /// The Pod object of an attached pod: the same name, and the uid that it runs under where both have one.
    #[must_use]
    pub fn object_of(&self, local: &LocalPod) -> Option<&Pod> {
        let pod = self.pods.get(&local.key)?;
        (pod.runs_as(&local.uid) && !pod.host_network).then_some(pod)
    }

    /// The pods that are attached to this node and have hostPorts, with their addresses.
    pub fn host_port_pods(&self) -> impl Iterator<Item = (&Pod, &LocalPod)> {
        let known = self.local.values().filter_map(|local| Some((self.object_of(local)?, local)));
        known.filter(|(pod, _)| has_host_ports(pod))
    }

    /// Who has which addresses and ports.
    #[must_use]
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// Nodes of which the annotation with ranges does not count, and why.
    pub fn not_given(&self) -> impl Iterator<Item = (&ObjectKey, &NotGiven)> {
        self.not_given.iter()
    }

    /// What the administrator lets objects claim.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Objects that can't be read.
    #[must_use]
    pub fn mistakes(&self) -> &Mistakes {
        &self.mistakes
    }
}

fn has_host_ports(pod: &Pod) -> bool {
    pod.container_ports.iter().any(|port| port.host_port.is_some())
}
