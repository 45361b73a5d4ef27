//! What is asked for: who needs less of the cluster is not sent the rest.

use crate::Kind;

/// Which objects are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// What the agent of a node acts on: every kind; of services and their endpoints those that this proxy serves. A
    /// service that gets another proxy's label is deleted in the stream, and one that loses it is applied (S15).
    Node,
    /// What names come from: Services, EndpointSlices and Namespaces, whoever proxies them.
    Names,
}

impl Interest {
    /// Whether objects of a kind are wanted.
    pub(super) fn wants(self, kind: Kind) -> bool {
        self == Self::Node || matches!(kind, Kind::Service | Kind::EndpointSlice | Kind::Namespace)
    }

    /// Which of them, as a label selector (`noProxyName` and `noHeadlessEndpoints` of cmd/kube-proxy/app/server.go).
    pub(super) fn labels(self, kind: Kind) -> Option<&'static str> {
        match (self, kind) {
            (Self::Node, Kind::Service) => {
                Some("!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless")
            }
            (Self::Node, Kind::EndpointSlice) => Some("!service.kubernetes.io/headless"),
            _ => None,
        }
    }
}
