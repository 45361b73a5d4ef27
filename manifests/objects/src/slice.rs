//! EndpointSlices.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::{ObjectKey, Protocol};

/// A discovery.k8s.io/v1 EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub key: ObjectKey,
    /// The service that it belongs to: label `kubernetes.io/service-name`.
    pub service_name: Option<String>,
    /// What its addresses are.
    pub address_type: AddressType,
    /// Its ports. None at all means that the endpoints have addresses only.
    pub ports: Vec<EndpointPort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When what led to its last change happened: annotation `endpoints.kubernetes.io/last-change-trigger-time`. From it
    /// the time until a change is in force is measured.
    pub triggered: Option<Timestamp>,
}

/// `addressType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressType {
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// Names; ignored by proxies and by DNS, and its endpoints are left out.
    Fqdn,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointPort {
    /// Its name; `None` matches no service port, the empty name matches the unnamed one. The API makes an absent name
    /// the empty one, and so do the sources.
    pub name: Option<String>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number; `None` (or 0) matches nothing.
    pub port: Option<u16>,
}

/// One endpoint of a slice, with the defaults of its conditions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses, of the slice's family. Proxies use the first alone.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, absent is true.
    pub ready: bool,
    /// `conditions.serving`, absent is the same as ready.
    pub serving: bool,
    /// `conditions.terminating`, absent is false.
    pub terminating: bool,
    /// `hostname`, a label of DNS.
    pub hostname: Option<String>,
    /// The node that it runs on.
    pub node_name: Option<String>,
    /// The zone that it runs in.
    pub zone: Option<String>,
    /// `hints.forZones`.
    pub zone_hints: Vec<String>,
    /// `hints.forNodes`.
    pub node_hints: Vec<String>,
    /// The pod behind it, where `targetRef` names one.
    pub pod: Option<ObjectKey>,
}
