//! The stream of objects.

use crate::{ClusterNetworkPolicy, EndpointSlice, Namespace, NetworkPolicy, Node, ObjectKey, Pod, Service};

/// What a source tells its consumer. Order matters only per object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The object exists in this form. A source may repeat itself.
    Applied(Object),
    /// The object is gone. A source may name an object that it never applied.
    Deleted(Kind, ObjectKey),
    /// Every object of this kind that existed when the source started has been applied: the first list is complete.
    Synced(Kind),
    /// An object, or a piece of one, exists and can't be read. An object that can't be read replaces nothing: what was
    /// applied under this key before goes on. A piece is made harmless as its type says, and the rest is applied.
    Invalid {
        /// What it claims to be, where that could be read.
        kind: Option<Kind>,
        /// Its name, where that could be read.
        key: Option<ObjectKey>,
        /// Where it is: a file and document number, or the API's path.
        origin: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// What was said of this origin in [`Event::Invalid`] holds no more: it can be read now, or it is gone. A source that
    /// has no more to say of an origin than its objects leaves this out: applied or deleted, an object is mended.
    Mended {
        /// Where it was.
        origin: String,
        /// What was wrong with it.
        reason: String,
    },
}

/// The kinds of objects in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// core/v1 Service
    Service,
    /// discovery.k8s.io/v1 EndpointSlice
    EndpointSlice,
    /// core/v1 Pod
    Pod,
    /// core/v1 Node
    Node,
    /// core/v1 Namespace
    Namespace,
    /// networking.k8s.io/v1 NetworkPolicy
    NetworkPolicy,
    /// policy.networking.k8s.io/v1beta1 or v1alpha2 ClusterNetworkPolicy
    ClusterNetworkPolicy,
}

impl Kind {
    /// Every kind, in the order in which a consumer that reads kind by kind should read them.
    pub const ALL: [Self; 7] = [
        Self::Node,
        Self::Namespace,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::Pod,
    ];

    /// The versions of the API that it is read in, the best first.
    #[must_use]
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Service | Self::Pod | Self::Node | Self::Namespace => &["v1"],
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
            Self::NetworkPolicy => &["networking.k8s.io/v1"],
            Self::ClusterNetworkPolicy => &["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"],
        }
    }

    /// The best version of the API that it is read in.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        self.api_versions().first().copied().unwrap_or_default()
    }

    /// Whether an API server may not have it: its definition is an object itself.
    #[must_use]
    pub fn may_be_absent(self) -> bool {
        self == Self::ClusterNetworkPolicy
    }

    /// Whether its objects are of the cluster and in no namespace.
    #[must_use]
    pub fn is_of_cluster(self) -> bool {
        matches!(self, Self::Node | Self::Namespace | Self::ClusterNetworkPolicy)
    }

    /// The kind as Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

/// One object of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Pod.
    Pod(Pod),
    /// A Node.
    Node(Node),
    /// A Namespace.
    Namespace(Namespace),
    /// A NetworkPolicy.
    NetworkPolicy(NetworkPolicy),
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy(ClusterNetworkPolicy),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Pod(_) => Kind::Pod,
            Self::Node(_) => Kind::Node,
            Self::Namespace(_) => Kind::Namespace,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
        }
    }

    /// Its namespace (empty for objects of the cluster) and name.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Service(o) => o.key.clone(),
            Self::EndpointSlice(o) => o.key.clone(),
            Self::Pod(o) => o.key.clone(),
            Self::Node(o) => ObjectKey::cluster(&o.name),
            Self::Namespace(o) => ObjectKey::cluster(&o.name),
            Self::NetworkPolicy(o) => o.key.clone(),
            Self::ClusterNetworkPolicy(o) => o.key.clone(),
        }
    }
}
