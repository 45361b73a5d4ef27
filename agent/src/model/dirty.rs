//! What has to be compiled again.

use std::collections::BTreeSet;

use fairlead_objects::ObjectKey;

/// What changed. Services are compiled one by one; peers and policies depend on one another and are compiled together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dirty {
    /// Services of which the object or a slice changed, came or went.
    pub services: BTreeSet<ObjectKey>,
    /// Pods with hostPorts that changed, came or went, on this node.
    pub host_ports: BTreeSet<ObjectKey>,
    /// This node's own object changed, and with it what is near (S32).
    pub place: bool,
    /// Something changed that peers, policies or routes depend on.
    pub policy: bool,
    /// A Node changed: routes between nodes.
    pub nodes: bool,
}

impl Dirty {
    pub(super) fn node(&mut self, own: bool) {
        self.nodes = true;
        self.policy = true;
        self.place |= own;
    }

    /// Adds what another names.
    pub(super) fn merge(&mut self, other: Self) {
        let Self { services, host_ports, place, policy, nodes } = other;
        self.services.extend(services);
        self.host_ports.extend(host_ports);
        self.place |= place;
        self.policy |= policy;
        self.nodes |= nodes;
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}
