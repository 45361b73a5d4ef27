//! What has to be compiled again.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_objects::{ObjectKey, Pod};

/// What changed, by kind. Services are compiled one by one; peers and policies depend on one another and are compiled
/// together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dirty {
    /// Services of which the object or a slice changed, came or went.
    pub services: BTreeSet<ObjectKey>,
    /// Pods with hostPorts that changed, came or went, on this node.
    pub host_ports: BTreeSet<ObjectKey>,
    /// Pods that changed, came or went, and those that were attached to this node or taken from it.
    pub pods: Pods,
    /// Whether pods were attached to this node or taken from it.
    pub attached: bool,
    /// Namespaces that changed, came or went.
    pub namespaces: BTreeSet<ObjectKey>,
    /// NetworkPolicies and ClusterNetworkPolicies that changed, came or went.
    pub policies: BTreeSet<ObjectKey>,
    /// Nodes that changed, came or went.
    pub nodes: BTreeSet<ObjectKey>,
    /// What is compiled as a whole, whichever objects changed.
    pub whole: BTreeSet<Whole>,
}

/// Pods by name, each as it was before it changed; nothing where there was none.
pub type Pods = BTreeMap<ObjectKey, Option<Box<Pod>>>;

/// What depends on more than the objects that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whole {
    /// Every hostPort of this node: what they may claim changed.
    HostPorts,
    /// Every peer: how other nodes are reached changed.
    Peers,
    /// The routes to services: which addresses those have changed.
    Routes,
    /// What names open: addresses of this node or of an API server changed.
    Names,
}

impl Dirty {
    /// Whether anything changed that peers or policies are compiled from.
    #[must_use]
    pub fn policy(&self) -> bool {
        let Self { services: _, host_ports: _, pods, attached, namespaces, policies, nodes, whole } = self;
        let others = [namespaces, policies, nodes].into_iter().any(|keys| !keys.is_empty());
        whole.contains(&Whole::Peers) || *attached || !pods.is_empty() || others
    }

    /// Whether this node's own object changed, and with it what is near (S32).
    #[must_use]
    pub fn place(&self, node: &str) -> bool {
        self.nodes.contains(&ObjectKey::cluster(node))
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}
