//! What policies in audit mode would drop.

use serde::{Deserialize, Serialize};

/// What policies in audit mode would have dropped of what this node's pods sent and received.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyAudit {
    /// The policies in audit mode.
    pub policies: Vec<AuditedPolicyView>,
    /// Since when this agent has audited policies, in seconds since 1970; null if there are none.
    pub since_seconds: Option<u64>,
    /// Flows that would have been dropped.
    pub flows: Vec<AuditedFlowView>,
    /// Entries of `flows` that there was no room for: those that were not seen for the longest time.
    pub left_out: u64,
}

/// A policy in audit mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedPolicyView {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// Namespace and name of the policy.
    pub policy: String,
}

/// Flows between a pod and a peer to one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedFlowView {
    /// Namespace and name of the pod whose policy it is.
    pub pod: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// The other end: `namespace/pod`, `node/name` or an address.
    pub peer: String,
    /// `TCP`, `UDP`, `SCTP`, `ICMP` or the IP protocol number.
    pub protocol: String,
    /// The destination's port, after translation; 0 where there is none.
    pub port: u16,
    /// The policy that denies it, or, if no rule allows it, the policies in audit mode that select the pod.
    pub policies: Vec<String>,
    /// The rule that denies it; null if no rule allows it.
    pub rule: Option<String>,
    /// New flows.
    pub flows: u64,
    /// When one was seen first, in seconds since 1970.
    pub first_seconds: u64,
    /// When one was seen last, in seconds since 1970.
    pub last_seconds: u64,
}
