//! What is asked for: who needs less of the cluster is not sent the rest.

use crate::Kind;

/// Which objects are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// What the agent of this node acts on: every kind; of services and their endpoints those that this proxy serves. A
    /// service that gets another proxy's label is deleted in the stream, and one that loses it is applied (S15). Of pods
    /// those of the node, and all once there is a policy.
    Node(String),
    /// What names come from: Services, EndpointSlices and Namespaces, whoever proxies them.
    Names,
    /// The same of Services and EndpointSlices with some labels, and every pod that has them, if pods are wanted.
    Selected {
        /// The labels, as a selector; none: whatever they have.
        labels: Option<String>,
        /// Pods too.
        pods: bool,
    },
}

impl Interest {
    /// Whether objects of a kind are wanted.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        let pods = matches!(self, Self::Selected { pods: true, .. }) && kind == Kind::Pod;
        self.node().is_some() || pods || matches!(kind, Kind::Service | Kind::EndpointSlice | Kind::Namespace)
    }

    /// The node, if it is one that is interested.
    pub(super) fn node(&self) -> Option<&str> {
        match self {
            Self::Node(name) => Some(name),
            Self::Names | Self::Selected { .. } => None,
        }
    }

    /// Which of them, as a label selector (`noHeadlessEndpoints` of cmd/kube-proxy/app/server.go). Services of other proxies are wanted
    /// too: their cluster IPs are nobody else's.
    pub(super) fn labels(&self, kind: Kind) -> Option<&str> {
        match (self, kind) {
            (Self::Node(_), Kind::EndpointSlice) => Some("!service.kubernetes.io/headless"),
            (Self::Selected { labels, .. }, Kind::Service | Kind::EndpointSlice | Kind::Pod) => labels.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_of_what_names_come_from() {
        let all = Interest::Selected { labels: None, pods: false };
        let some = Interest::Selected { labels: Some("app=web".to_owned()), pods: true };
        for kind in Kind::ALL {
            assert_eq!(all.wants(kind), Interest::Names.wants(kind), "{kind:?}");
            assert_eq!(some.wants(kind), Interest::Names.wants(kind) || kind == Kind::Pod, "{kind:?}");
            assert_eq!((all.labels(kind), Interest::Names.labels(kind)), (None, None), "{kind:?}");
        }
        assert_eq!(some.labels(Kind::Service), Some("app=web"));
        // Namespaces exist whatever labels they have.
        assert_eq!(some.labels(Kind::Namespace), None);
        assert_eq!(some.node(), None);
    }
}
