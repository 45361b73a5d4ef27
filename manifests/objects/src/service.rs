//! Services.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use crate::{ObjectKey, Protocol};

/// A core/v1 Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.creationTimestamp`, which the API server sets: of two that claim one address the older one has it.
    pub created: Option<Timestamp>,
    /// Its type.
    pub service_type: ServiceType,
    /// `clusterIPs` (or `clusterIP`), parsed; empty for headless and ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `externalName` of an ExternalName service.
    pub external_name: Option<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP` with its time-out in seconds, or `None`.
    pub affinity_seconds: Option<u32>,
    /// `internalTrafficPolicy`.
    pub internal_traffic_policy: TrafficPolicy,
    /// `externalTrafficPolicy`.
    pub external_traffic_policy: TrafficPolicy,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress` entries that have an address.
    pub load_balancer: Vec<LoadBalancerIngress>,
    /// `status.loadBalancer.ingress` entries that have a host name and no address.
    pub load_balancer_names: Vec<String>,
    /// `loadBalancerSourceRanges`, canonical; with none, everybody.
    pub source_ranges: Vec<IpNetwork>,
    /// `healthCheckNodePort`, where it has one.
    pub health_check_node_port: Option<u16>,
    /// Value of the label `service.kubernetes.io/service-proxy-name`: with it, the service is somebody else's to proxy
    /// (KEP-2447). A service labelled `service.kubernetes.io/headless` is nobody's, and has the label's key here.
    /// DNS serves both all the same.
    pub proxy_name: Option<String>,
}

impl Service {
    /// Whether this proxy translates its addresses: not headless, not ExternalName, not another proxy's.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        !self.headless && self.service_type != ServiceType::ExternalName && self.proxy_name.is_none()
    }
}

/// `spec.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceType {
    /// Reached by its cluster addresses.
    ClusterIp,
    /// And by a port of every node.
    NodePort,
    /// And by a load balancer's addresses.
    LoadBalancer,
    /// A DNS alias, nothing to translate.
    ExternalName,
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any endpoint.
    Cluster,
    /// Endpoints of this node.
    Local,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Its name; empty when it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// `nodePort`, where it has one.
    pub node_port: Option<u16>,
}

/// One address of a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoadBalancerIngress {
    /// The address.
    pub ip: IpAddr,
    /// Whether nodes capture it: `ipMode` is absent or `VIP` (KEP-1860).
    pub vip: bool,
}
