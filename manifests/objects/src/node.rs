//! Nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use crate::Labels;

/// The annotation of a Node with its ranges for pods.
pub const POD_CIDRS: &str = "fairlead.io/pod-cidrs";

/// Ranges for pods that a Node's annotation names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated {
    /// The ranges, canonical, one of a family at most.
    pub ranges: Vec<IpNetwork>,
    /// `metadata.creationTimestamp` of the Node, which the API server sets.
    pub created: Option<Timestamp>,
}

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
    /// What the annotation [`POD_CIDRS`] names, where `spec.podCIDRs` is empty. Its kubelet may write it: whether it counts is
    /// not decided here.
    pub annotated: Option<Annotated>,
    /// It is about to go: deleted, or tainted so by the cluster autoscaler. It should get no new connections (KEP-3836).
    pub leaving: bool,
}
