//! Pods.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{Labels, ObjectKey, Protocol};

/// A core/v1 Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`; empty where the source has none.
    pub uid: String,
    /// `metadata.creationTimestamp`, which the API server sets.
    pub created: Option<Timestamp>,
    /// Under which uid kubelet runs it, where it is the mirror of a static pod: the hash of its file.
    pub static_uid: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// The node that it is bound to.
    pub node_name: Option<String>,
    /// `status.podIPs` (or `status.podIP`), in order. A finished pod owns none of them any more: see [`Pod::owned_ips`].
    pub ips: Vec<IpAddr>,
    /// Whether it shares the node's network namespace.
    pub host_network: bool,
    /// Its phase.
    pub phase: Phase,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Ports of its containers and native sidecars (init containers that restart always).
    pub container_ports: Vec<ContainerPort>,
    /// What it may send and receive in a second.
    pub bandwidth: Bandwidth,
}

/// The limits of annotations `kubernetes.io/egress-bandwidth` and `kubernetes.io/ingress-bandwidth`, in bits a second. Nothing
/// where there is none, or none that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Bandwidth {
    /// Of what it sends.
    pub egress: Option<u64>,
    /// Of what it receives.
    pub ingress: Option<u64>,
}

impl Pod {
    /// The uid that kubelet gives to the container runtime, and that to CNI plugins (`K8S_POD_UID`). A static pod runs
    /// under the hash of its file, and its object, the mirror that kubelet makes of it, has a uid of its own.
    #[must_use]
    pub fn runtime_uid(&self) -> &str {
        self.static_uid.as_deref().unwrap_or(&self.uid)
    }

    /// Whether the container runtime may have it under this uid. Empty where one is not known, which says nothing.
    #[must_use]
    pub fn runs_as(&self, uid: &str) -> bool {
        uid.is_empty() || self.runtime_uid().is_empty() || uid == self.runtime_uid()
    }

    /// The addresses that are the pod's own: none for host-network pods and for finished ones, whose addresses may
    /// already belong to somebody else (kubernetes/kubernetes#92697).
    #[must_use]
    pub fn owned_ips(&self) -> &[IpAddr] {
        if self.host_network || self.phase.is_terminal() { &[] } else { &self.ips }
    }
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Accepted, not all containers started. What an absent phase is read as.
    Pending,
    /// Bound and started.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node can't be asked.
    Unknown,
}

impl Phase {
    /// Whether the pod will never run again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A declared port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerPort {
    /// Its name, which policies and Services may use.
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// `hostPort`, where it has one.
    pub host_port: Option<u16>,
    /// `hostIP`, where it has one.
    pub host_ip: Option<IpAddr>,
}
