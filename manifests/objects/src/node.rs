//! Nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::Labels;

/// A core/v1 Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// `topology.kubernetes.io/zone`, where it has one.
    pub zone: Option<String>,
    /// `status.addresses` of type InternalIP, in order; the first of a family is the node's address in that family.
    pub internal_ips: Vec<IpAddr>,
    /// `status.addresses` of type ExternalIP, in order.
    pub external_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`, canonical.
    pub pod_cidrs: Vec<IpNetwork>,
    /// It is about to go: deleted, or tainted so by the cluster autoscaler. It should get no new connections (KEP-3836).
    pub leaving: bool,
}
