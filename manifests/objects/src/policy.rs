//! NetworkPolicies, with the API's defaults applied and mistakes made harmless.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use crate::{DomainName, ObjectKey, Protocol, Selector};

/// Whether a policy is in force: its annotation [`Mode::ANNOTATION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It is.
    #[default]
    Enforce,
    /// It is not: what it would drop is only counted.
    Audit,
}

impl Mode {
    /// The annotation that says so.
    pub const ANNOTATION: &str = "fairlead.io/mode";
}

/// A networking.k8s.io/v1 NetworkPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Whether it is in force.
    pub mode: Mode,
    /// The pods of its namespace that it selects.
    pub pod_selector: Selector,
    /// Its ingress rules, or `None` when it does not isolate its pods for ingress (`policyTypes`).
    /// An empty list isolates and allows nothing.
    pub ingress: Option<Vec<Rule>>,
    /// The same for egress.
    pub egress: Option<Vec<Rule>>,
}

/// One rule: a peer and a port must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// `from` or `to`; with none, every peer matches.
    pub peers: Vec<Peer>,
    /// `ports`; with none, every port and every protocol matches.
    pub ports: Vec<PolicyPort>,
}

/// One peer of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Pods by label.
    Pods {
        /// Their namespaces, or `None` for the policy's own.
        namespaces: Option<Selector>,
        /// Their labels (an absent `podSelector` is everything).
        pods: Selector,
    },
    /// Addresses in `cidr` and in none of `except`, all canonical.
    IpBlock {
        /// What matches.
        cidr: IpNetwork,
        /// What does not after all.
        except: Vec<IpNetwork>,
    },
    /// The addresses of nodes with these labels. Only rules of ClusterNetworkPolicies have it.
    Nodes(Selector),
    /// The addresses that a pod was told for these names. Only egress rules of ClusterNetworkPolicies that accept have it.
    DomainNames(BTreeSet<DomainName>),
    /// A peer that is empty or can't be read: matches nothing.
    Nothing,
}

/// One port of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Which ports of it.
    pub port: PortMatch,
}

/// Which ports of a protocol match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortMatch {
    /// All of them.
    Any,
    /// From the first to the second, both included.
    Range(u16, u16),
    /// Those that the destination pod's containers declare under this name.
    Named(String),
    /// A port that can't be read: matches nothing.
    Nothing,
}
