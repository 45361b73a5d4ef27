//! Which pods have a place in a comparison, and why others have none.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_objects::{ClusterNetworkPolicy, Labels, NetworkPolicy, ObjectKey, Pod};

use super::super::World;
use super::ends::owners;
use crate::compile::claims::Standing;

/// Why a pod has no place: nobody can tell which traffic is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeftOut {
    /// It has no address yet.
    NoAddress,
    /// It is bound to no node, or to one that is not known.
    NoNode,
    /// Its node has no ranges of addresses.
    NoRange,
    /// Its node's ranges don't hold its addresses.
    Foreign,
    /// Its addresses are those of a node, or of another pod.
    Taken,
}

/// The pods that a comparison could be about: those that run, each in a network of its own.
#[derive(Debug, Clone, Default)]
pub struct Places<'a> {
    placed: Vec<&'a Pod>,
    left_out: BTreeMap<LeftOut, BTreeSet<&'a ObjectKey>>,
    without: Vec<&'a Pod>,
    namespaces: BTreeMap<&'a str, &'a Labels>,
}

/// How many pods a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selected {
    /// Those that have a place.
    pub placed: usize,
    /// Those that have none.
    pub left_out: usize,
}

impl<'a> Places<'a> {
    /// Of the pods of a cluster.
    #[must_use]
    pub fn of(world: &World<'a>) -> Self {
        let (owning, _) = owners(world);
        let ranges = world.ranges();
        let mut places = Self {
            namespaces: world.namespaces.iter().map(|ns| (ns.name.as_str(), &ns.labels)).collect(),
            ..Self::default()
        };
        for pod in world.pods.iter().copied().filter(|pod| !pod.host_network && !pod.phase.is_terminal()) {
            if owning.contains_key(&pod.key) {
                places.placed.push(pod);
                continue;
            }
            let standings = || pod.owned_ips().iter().map(|ip| ranges.standing(pod, *ip));
            let why = match standings().find(|standing| *standing == Standing::Counts).or(standings().next()) {
                None => LeftOut::NoAddress,
                Some(Standing::NoNode) => LeftOut::NoNode,
                Some(Standing::Foreign([])) => LeftOut::NoRange,
                Some(Standing::Foreign(_)) => LeftOut::Foreign,
                Some(Standing::Counts) => LeftOut::Taken,
            };
            places.left_out.entry(why).or_default().insert(&pod.key);
            places.without.push(pod);
        }
        places
    }

    /// How many pods have a place.
    #[must_use]
    pub fn placed(&self) -> usize {
        self.placed.len()
    }

    /// Those that have none.
    #[must_use]
    pub fn left_out(&self) -> &BTreeMap<LeftOut, BTreeSet<&'a ObjectKey>> {
        &self.left_out
    }

    /// Those that have a place in a namespace whose labels are not known.
    #[must_use]
    pub fn in_unknown_namespaces(&self) -> BTreeSet<&'a ObjectKey> {
        let unknown = self.placed.iter().filter(|pod| !self.namespaces.contains_key(pod.key.namespace.as_str()));
        unknown.map(|pod| &pod.key).collect()
    }

    /// The pods that a policy selects.
    #[must_use]
    pub fn selected(&self, policy: &NetworkPolicy) -> Selected {
        self.count(|pod| pod.key.namespace == policy.key.namespace && policy.pod_selector.matches(&pod.labels))
    }

    /// The pods that a policy of the cluster selects.
    #[must_use]
    pub fn selected_by_cluster(&self, policy: &ClusterNetworkPolicy) -> Selected {
        self.count(|pod| {
            let labels = self.namespaces.get(pod.key.namespace.as_str()).copied();
            policy.subject.selects(&pod.labels, labels)
        })
    }

    fn count(&self, selects: impl Fn(&Pod) -> bool) -> Selected {
        let among = |pods: &[&Pod]| pods.iter().filter(|pod| selects(pod)).count();
        Selected { placed: among(&self.placed), left_out: among(&self.without) }
    }
}
