//! What policies ask about a peer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_objects::{DomainName, Labels, Node, ObjectKey, Peer, Pod, Protocol, Selector};
use ipnetwork::IpNetwork;

/// One question about an address. Only what a policy of a pod of this node asks becomes an atom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// Is it a pod of this namespace with these labels?
    PodsOf {
        /// The policy's namespace.
        namespace: String,
        /// The pods' labels.
        pods: Selector,
    },
    /// Is it a pod with these labels in a namespace with these labels?
    Pods {
        /// The namespaces' labels.
        namespaces: Selector,
        /// The pods' labels.
        pods: Selector,
    },
    /// Is it an address of a node with these labels?
    Nodes(Selector),
    /// Is it an address that only a pod can have, and is not known of which pod or in which namespace? It may be of a pod
    /// that is to be denied.
    UnknownPod,
    /// Is it in this prefix and in none of those?
    Block {
        /// The prefix.
        cidr: IpNetwork,
        /// The exceptions.
        except: BTreeSet<IpNetwork>,
    },
    /// Is it a pod that declares this port under this name? Only egress rules ask: what a name means there depends on
    /// the destination.
    Port {
        /// The name.
        name: String,
        /// The protocol.
        protocol: Protocol,
        /// The number that it stands for.
        port: u16,
    },
    /// Is it one that this pod was told for one of these names? What one pod was told opens nothing to another.
    Told {
        /// The pod, of this node.
        pod: ObjectKey,
        /// The names.
        names: BTreeSet<DomainName>,
    },
}

/// The atoms that an address meets, by number: what its class stands for.
pub type Signature = BTreeSet<usize>;

impl Atom {
    /// What a peer of a policy asks, or `None` if it matches nothing.
    #[must_use]
    pub fn of(peer: &Peer, namespace: &str) -> Option<Self> {
        match peer {
            // What it asks depends on the pod: `Atom::of_pod`.
            Peer::Nothing | Peer::DomainNames(_) => None,
            Peer::Nodes(selector) => Some(Self::Nodes(selector.clone())),
            Peer::Pods { namespaces: None, pods } => {
                Some(Self::PodsOf { namespace: namespace.to_owned(), pods: pods.clone() })
            }
            Peer::Pods { namespaces: Some(namespaces), pods } => {
                Some(Self::Pods { namespaces: namespaces.clone(), pods: pods.clone() })
            }
            Peer::IpBlock { cidr, except } => {
                let plain = |prefix: &IpNetwork| shortened(*prefix, prefix.prefix()).unwrap_or(*prefix);
                Some(Self::Block { cidr: plain(cidr), except: except.iter().map(plain).collect() })
            }
        }
    }

    /// What a peer of a policy asks for a pod, or `None` if it matches nothing.
    #[must_use]
    pub fn of_pod(peer: &Peer, namespace: &str, pod: &Pod) -> Option<Self> {
        match peer {
            Peer::DomainNames(names) => Some(Self::Told { pod: pod.key.clone(), names: names.clone() }),
            _ => Self::of(peer, namespace),
        }
    }

    /// Whether a pod meets it by its labels.
    #[must_use]
    pub fn meets_labels(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        self.pods_in(namespace, namespace_labels).is_some_and(|pods| pods.matches(labels))
    }

    /// What selects the pods of a namespace that meet it by their labels, if there can be any.
    #[must_use]
    pub fn pods_in(&self, namespace: &str, namespace_labels: Option<&Labels>) -> Option<&Selector> {
        match self {
            Self::PodsOf { namespace: own, pods } => (own == namespace).then_some(pods),
            Self::Pods { namespaces, pods } => {
                namespace_labels.is_some_and(|labels| namespaces.matches(labels)).then_some(pods)
            }
            Self::Nodes(_) | Self::UnknownPod | Self::Block { .. } | Self::Port { .. } | Self::Told { .. } => None,
        }
    }

    /// What selects pods by their labels, if it asks about these.
    pub(super) fn pods(&self) -> Option<&Selector> {
        match self {
            Self::PodsOf { pods, .. } | Self::Pods { pods, .. } => Some(pods),
            Self::Nodes(_) | Self::UnknownPod | Self::Block { .. } | Self::Port { .. } | Self::Told { .. } => None,
        }
    }

    /// Whether an address of a node meets it by that.
    #[must_use]
    pub fn meets_node(&self, node: &Node) -> bool {
        matches!(self, Self::Nodes(selector) if selector.matches(&node.labels))
    }

    /// Whether an address meets it.
    #[must_use]
    pub fn meets_address(&self, ip: IpAddr) -> bool {
        let Self::Block { cidr, except } = self else { return false };
        cidr.contains(ip) && !has_outer(except, IpNetwork::from(ip))
    }

    /// Whether all addresses of a prefix meet it that are in no longer prefix of any atom.
    #[must_use]
    pub fn meets_prefix(&self, prefix: IpNetwork) -> bool {
        let Self::Block { cidr, except } = self else { return false };
        holds(*cidr, prefix) && !has_outer(except, prefix)
    }

    /// The prefixes where what it says changes.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNetwork> {
        let (cidr, except) = match self {
            Self::Block { cidr, except } => (Some(*cidr), Some(except)),
            _ => (None, None),
        };
        cidr.into_iter().chain(except.into_iter().flatten().copied())
    }
}

/// So many prefixes are compared one by one.
const FEW: usize = 32;

/// Whether one of these prefixes holds all of another. There may be thousands, and lengths are few.
fn has_outer(prefixes: &BTreeSet<IpNetwork>, inner: IpNetwork) -> bool {
    if prefixes.len() <= FEW {
        return prefixes.iter().any(|outer| holds(*outer, inner));
    }
    (0..=inner.prefix()).filter_map(|len| shortened(inner, len)).any(|outer| prefixes.contains(&outer))
}

/// The prefix of this length that holds a prefix.
pub(super) fn shortened(prefix: IpNetwork, len: u8) -> Option<IpNetwork> {
    let outer = IpNetwork::new(prefix.ip(), len).ok()?;
    IpNetwork::new(outer.network(), len).ok()
}

/// Whether a prefix holds all of another.
pub(crate) fn holds(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.network())
}

#[cfg(test)]
pub(super) mod testing {
    use proptest::prelude::*;

    use super::*;

    pub(in super::super) fn prefix() -> impl Strategy<Value = IpNetwork> {
        // Few addresses, so that one prefix often holds another.
        let v4 = (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| IpNetwork::new((bits & 0xf000_000f).to_be_bytes().into(), len));
        let v6 = (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, len)| IpNetwork::new((bits & (0xf << 124 | 0xf)).to_be_bytes().into(), len));
        prop_oneof![v4, v6].prop_map(|network| {
            let network = network.unwrap();
            shortened(network, network.prefix()).unwrap()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::prefix;
    use super::*;

    proptest! {
        #[test]
        fn many_exceptions_are_found_as_few_are(
            except in prop::collection::btree_set(prefix(), FEW + 1..3 * FEW), inner in prop::collection::vec(prefix(), 20),
        ) {
            for inner in inner {
                prop_assert_eq!(has_outer(&except, inner), except.iter().any(|outer| holds(*outer, inner)));
            }
        }
    }
}
