//! The wanted content of the tables of services.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use fairlead_datapath::service::{FrontendFlags, FrontendKey};
use fairlead_objects::{AddressType, ObjectKey, Protocol, TrafficPolicy};
use ipnetwork::IpNetwork;
use jiff::Timestamp;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a slice; `None` for one of names.
    #[must_use]
    pub fn of_slice(address_type: AddressType) -> Option<Self> {
        match address_type {
            AddressType::Ipv4 => Some(Self::V4),
            AddressType::Ipv6 => Some(Self::V6),
            AddressType::Fqdn => None,
        }
    }
}

/// Names one port of one service in one family: the unit that has backends, and that affinity and metrics go by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The service.
    pub service: ObjectKey,
    /// The port's name; empty when it has none.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
}

impl PortKey {
    /// The key that no port of a service comes before.
    pub(crate) fn first_of(service: ObjectKey) -> Self {
        Self { service, port: String::new(), protocol: Protocol::Tcp, family: Family::V4 }
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "{}", self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        write!(f, " ({}, {family})", self.protocol)
    }
}

/// Where an endpoint of a service port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendAddr {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for BackendAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// What a new flow is answered under one traffic policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It goes to one of these, never none.
    Forward(BTreeSet<BackendAddr>),
    /// It is refused: there is no endpoint anywhere (S33).
    Reject,
    /// It is dropped: there are endpoints, none on this node (S34).
    Drop,
}

/// What kind of address a frontend is. Of two that claim one address and port the first in this order has it: what the
/// cluster gives out itself goes before what somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    /// A cluster address.
    Cluster,
    /// An address of node-local DNS, which the settings name.
    NodeLocalDns,
    /// A NodePort: the node's addresses that are for it.
    NodePort,
    /// A load balancer's.
    LoadBalancer,
    /// One of `externalIPs`.
    External,
    /// A hostPort of a pod of this node.
    HostPort,
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster address",
            Self::NodeLocalDns => "node-local DNS address",
            Self::External => "external address",
            Self::LoadBalancer => "load balancer's address",
            Self::NodePort => "NodePort",
            Self::HostPort => "hostPort",
        })
    }
}

/// How good a claim to an address and port is: the smallest is the best. By kind, then by age, where one that does not say
/// when it was created counts as young, then by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank<'a> {
    kind: FrontendKind,
    is_young: bool,
    created: Option<Timestamp>,
    name: &'a PortKey,
}

impl<'a> Rank<'a> {
    /// The rank of a service port's claim.
    #[must_use]
    pub fn new(kind: FrontendKind, created: Option<Timestamp>, name: &'a PortKey) -> Self {
        Self { kind, is_young: created.is_none(), created, name }
    }
}

/// The traffic policy under which a frontend answers, by where the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontendPolicy {
    /// What it is.
    pub kind: FrontendKind,
    /// For clients inside the cluster.
    pub inside: TrafficPolicy,
    /// For clients outside.
    pub outside: TrafficPolicy,
    /// Whether processes of the node are kept from binding to it, if it is a NodePort (S7).
    pub guarded: bool,
}

impl FrontendPolicy {
    /// Its [`FrontendFlags`], where the service port's source ranges are this set, 0 if it has none.
    #[must_use]
    pub fn flags(&self, source_set: u32) -> u32 {
        let local = self.outside == TrafficPolicy::Local;
        let keeps = if local { FrontendFlags::KEEP_SOURCE } else { 0 };
        let guard = if self.guarded { FrontendFlags::GUARDED } else { 0 };
        match self.kind {
            FrontendKind::Cluster | FrontendKind::NodeLocalDns => FrontendFlags::CLUSTER,
            FrontendKind::External => keeps,
            FrontendKind::LoadBalancer => keeps | FrontendFlags::source_set(source_set),
            FrontendKind::NodePort => keeps | guard | FrontendFlags::NODE_PORT,
            FrontendKind::HostPort => FrontendFlags::KEEP_SOURCE | FrontendFlags::HOST_PORT,
        }
    }
}

/// One service port in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortContent {
    /// Seconds of client-IP affinity, 0 for none.
    pub affinity_seconds: u32,
    /// The answer under policy Cluster.
    pub cluster: Answer,
    /// The answer under policy Local.
    pub local: Answer,
    /// Endpoints that flows may stay with, whether or not new ones may choose them (S40: ignoring policy, topology and
    /// termination, so that UDP behaves like TCP).
    pub in_service: BTreeSet<BackendAddr>,
    /// Those of them that are about to end: only flows that last stay with them.
    pub ending: BTreeSet<BackendAddr>,
    /// Clients that may use its load balancer's addresses; with none, everybody may (S12).
    pub source_ranges: BTreeSet<IpNetwork>,
    /// When its Service or Pod was created: of two of a kind that claim one address and port the older one has it.
    pub created: Option<Timestamp>,
    /// Its addresses.
    pub frontends: BTreeMap<FrontendKey, FrontendPolicy>,
}

impl PortContent {
    /// Forgets source ranges that no frontend refers to: a table that has them could not be told from an interrupted plan.
    pub(crate) fn forget_unused_ranges(&mut self) {
        if self.frontends.values().all(|policy| policy.kind != FrontendKind::LoadBalancer) {
            self.source_ranges.clear();
        }
    }

    /// The answer under a policy.
    #[must_use]
    pub fn answer(&self, policy: TrafficPolicy) -> &Answer {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }
}

/// One service: what its ports have. A service that is gone, or not proxied, has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceContent {
    /// Its ports in their families.
    pub ports: BTreeMap<PortKey, PortContent>,
}
