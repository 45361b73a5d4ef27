//! What rules of policies have decided on.

use serde::{Deserialize, Serialize};

/// A rule of a policy that judges pods of this node, and what it has decided on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRuleView {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// Namespace and name of the policy.
    pub policy: String,
    /// The tier: `Admin`, `NetworkPolicy` or `Baseline`.
    pub tier: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Its place in the policy's list for the direction, from 0. Nothing: what none of the rules of the NetworkPolicies that
    /// select the same pods allows.
    pub rule: Option<usize>,
    /// Its name, or nothing.
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// What it matches, in words.
    pub matches: String,
    /// New flows that it allowed, in all pods of this node. Their further packets are not counted.
    pub flows: u64,
    /// Packets that were dropped because of it.
    pub denied: u64,
    /// When it last matched, in seconds since 1970, if it ever did.
    pub last_seconds: Option<u64>,
    /// When counting began, in seconds since 1970; null if the rule is not counted.
    pub since_seconds: Option<u64>,
}
