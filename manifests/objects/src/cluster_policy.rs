//! ClusterNetworkPolicies, with mistakes made harmless: what can't be read closes, and never opens.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Labels, Mode, ObjectKey, Rule, Selector};

/// A policy.networking.k8s.io ClusterNetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    /// Its name, in no namespace.
    pub key: ObjectKey,
    /// Whether it is in force.
    pub mode: Mode,
    /// Whether it is asked before NetworkPolicies or after them.
    pub tier: Tier,
    /// Its place in the tier: the lowest is asked first, and before that what has none that can be read.
    pub priority: Option<u16>,
    /// The pods that it is for.
    pub subject: Subject,
    /// Its ingress rules, in order.
    pub ingress: Vec<ClusterRule>,
    /// Its egress rules, in order.
    pub egress: Vec<ClusterRule>,
}

/// When the rules of a policy are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// The NetworkPolicies themselves.
    NetworkPolicy,
    /// After them, for what none of them selects.
    Baseline,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        })
    }
}

/// The pods that a policy is for. Pods in their node's network are never among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Their namespaces.
    pub namespaces: Selector,
    /// Their labels.
    pub pods: Selector,
}

impl Subject {
    /// Whether a pod is one of them: its labels, and those of its namespace, if they are known.
    #[must_use]
    pub fn selects(&self, pod: &Labels, namespace: Option<&Labels>) -> bool {
        namespace.is_some_and(|labels| self.namespaces.matches(labels)) && self.pods.matches(pod)
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRule {
    /// Its name, or nothing.
    pub name: String,
    /// What becomes of what it matches.
    pub action: Action,
    /// What it matches. `None`: nothing, since it can't be read and would accept.
    pub matches: Option<Rule>,
}

/// What becomes of what a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// It may pass, whatever comes after.
    Accept,
    /// It is dropped, whatever comes after.
    Deny,
    /// The rest of the tier is left out.
    Pass,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "Accept",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
        })
    }
}
