//! Addresses and ports that Services and hostPorts claim.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use fairlead_objects::{ObjectKey, Protocol};
use ipnetwork::IpNetwork;

use crate::compile::services::{FrontendKind, ServiceContent};
use crate::model::{KUBELET_PORT, Reserved, Rules};

/// Who claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A Service.
    Service(&'a ObjectKey),
    /// A Pod of this node.
    Pod(&'a ObjectKey),
}

/// An address and port that somebody claims; every address of the node is the unspecified one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Who.
    pub owner: Owner<'a>,
    /// As what.
    pub kind: FrontendKind,
    /// The address and port.
    pub address: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
}

/// As what an address is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimed {
    /// As a frontend.
    Frontend(FrontendKind),
    /// As an endpoint, on every port.
    Endpoint,
}

/// A claim that does not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// As what it is claimed.
    pub claimed: Claimed,
    /// What is claimed. The port of an endpoint is 0.
    pub address: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Why it does not count.
    pub why: Why,
}

/// Why a claim does not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No packet between hosts has such an address.
    Special,
    /// It means all hosts of a network that this node is on.
    Broadcast,
    /// The settings let no external address be of it.
    NotPermitted,
    /// It is the ClusterIP of this Service.
    ClusterIp(ObjectKey),
    /// Pods have it.
    PodRange(IpNetwork),
    /// It is an address of a node, and the port is the NodePort of this Service.
    NodePort(ObjectKey),
    /// It is the port of a node's kubelet.
    Kubelet,
    /// It is the API server's.
    ApiServer,
    /// Nodes' agents say there how they are.
    Health,
    /// This node does not have it.
    NotOfNode,
    /// It is a metadata service's.
    Metadata,
    /// It is loopback, link-local or multicast: where it leads depends on who asks.
    NoServer,
    /// It is an address of node-local DNS.
    NodeLocalDns,
    /// Nodes take there what other nodes send them through the tunnel.
    Tunnel,
}

impl Why {
    /// The Service that has what is claimed.
    #[must_use]
    pub fn winner(&self) -> Option<&ObjectKey> {
        match self {
            Self::ClusterIp(service) | Self::NodePort(service) => Some(service),
            Self::Special | Self::Broadcast | Self::NotPermitted | Self::PodRange(_) => None,
            Self::Kubelet | Self::ApiServer | Self::Health | Self::NotOfNode | Self::Metadata => None,
            Self::NoServer | Self::NodeLocalDns | Self::Tunnel => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special => f.write_str("no packet between hosts has this address"),
            Self::Broadcast => f.write_str("it is the broadcast address of a network that the node is on"),
            Self::NotPermitted => f.write_str("the setting `externalIPs` does not permit it"),
            Self::ClusterIp(service) => write!(f, "it is the cluster address of {service}"),
            Self::PodRange(range) => write!(f, "it is in the pod range {range}"),
            Self::NodePort(service) => write!(f, "on node addresses this port is the NodePort of {service}"),
            Self::Kubelet => f.write_str("it is the port of a node's kubelet"),
            Self::ApiServer => f.write_str("the API server listens there"),
            Self::Health => f.write_str("Fairlead answers health checks there (setting `healthz.bind`)"),
            Self::Tunnel => f.write_str("it is the UDP port of the VXLAN tunnel on a node"),
            Self::NotOfNode => f.write_str("the pod's node does not have this address"),
            Self::Metadata => f.write_str("it is a metadata service (setting `metadata.addresses`)"),
            Self::NoServer => f.write_str("an endpoint can't be loopback, link-local or multicast"),
            Self::NodeLocalDns => f.write_str("it is reserved by the setting `nodeLocalDns`"),
        }
    }
}

impl Refusal {
    /// What its owner can do.
    pub(super) fn remedy(&self) -> &'static str {
        match (self.claimed, &self.why) {
            (Claimed::Frontend(_), _) => "use a different address or port",
            (Claimed::Endpoint, Why::Tunnel) => "use a different port",
            (Claimed::Endpoint, _) => "use the address of a pod or of a server",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claimed, address, protocol, why } = self;
        match claimed {
            Claimed::Frontend(kind) => write!(f, "the {kind} {address}/{protocol} is not served: {why}"),
            Claimed::Endpoint if address.port() == 0 => {
                write!(f, "the endpoint {} gets no traffic: {why}", address.ip())
            }
            Claimed::Endpoint => write!(f, "the endpoint {address}/{protocol} gets no traffic: {why}"),
        }
    }
}

/// Takes out of compiled content what its owner may not claim.
pub fn settle(owner: Owner<'_>, content: &mut ServiceContent, reserved: &Reserved, rules: &Rules) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (name, port) in &mut content.ports {
        port.frontends.retain(|key, policy| {
            let address = SocketAddr::new(IpAddr::from(key.addr), key.port.number());
            let claim = Claim { owner, kind: policy.kind, address, protocol: name.protocol };
            let why = judge(&claim, reserved, rules);
            let admitted = why.is_none();
            let claimed = Claimed::Frontend(claim.kind);
            refusals.extend(why.map(|why| Refusal { claimed, address, protocol: name.protocol, why }));
            admitted
        });
        port.forget_unused_ranges();
    }
    content.ports.retain(|_, port| !port.frontends.is_empty());
    refusals.sort();
    refusals
}

/// Why a claim does not count; `None`: it does, unless somebody else has a better one.
#[must_use]
pub fn judge(claim: &Claim<'_>, reserved: &Reserved, rules: &Rules) -> Option<Why> {
    match claim.kind {
        // The API server gives these out, each once, and settings name those of DNS.
        FrontendKind::Cluster | FrontendKind::NodeLocalDns => None,
        // The same, but of a range that may hold anything.
        FrontendKind::NodePort => tunnel(claim, reserved),
        FrontendKind::LoadBalancer | FrontendKind::External => outside(claim, reserved, rules),
        FrontendKind::HostPort => host_port(claim, reserved, rules),
    }
}

fn outside(claim: &Claim<'_>, reserved: &Reserved, rules: &Rules) -> Option<Why> {
    let ip = claim.address.ip();
    if is_special(ip) {
        return Some(Why::Special);
    }
    if reserved.is_broadcast(ip) {
        return Some(Why::Broadcast);
    }
    if rules.node_local_dns.has(ip) {
        return Some(Why::NodeLocalDns);
    }
    if rules.is_metadata(ip) {
        return Some(Why::Metadata);
    }
    if claim.kind == FrontendKind::External && !rules.admits_external(ip) {
        return Some(Why::NotPermitted);
    }
    if let Some(service) = reserved.cluster_ip(ip).find(|service| Owner::Service(service) != claim.owner) {
        return Some(Why::ClusterIp(service.clone()));
    }
    if let Some(range) = reserved.pod_range(ip).or_else(|| rules.pool_of(ip)) {
        return Some(Why::PodRange(range));
    }
    let at_node = reserved.is_node(ip);
    of_the_system(claim, at_node, reserved.is_api_server(ip, claim.address.port()))
        .or_else(|| at_node.then(|| of_nodes(claim, reserved, rules)).flatten())
}

fn host_port(claim: &Claim<'_>, reserved: &Reserved, rules: &Rules) -> Option<Why> {
    let (ip, port) = (claim.address.ip(), claim.address.port());
    let system = || of_the_system(claim, true, reserved.is_own_api_server(port));
    if let Some(why) = tunnel(claim, reserved) {
        return Some(why);
    }
    if ip.is_unspecified() {
        // A NodePort at every address is the same element of the table: the planner decides.
        return system().or_else(|| health(claim, rules));
    }
    // A node that runs NodeLocal DNSCache still has it.
    if rules.node_local_dns.has(ip) {
        return Some(Why::NodeLocalDns);
    }
    if rules.is_metadata(ip) {
        return Some(Why::Metadata);
    }
    if let Some(service) = reserved.cluster_ip(ip).next() {
        return Some(Why::ClusterIp(service.clone()));
    }
    if !ip.is_loopback() && !reserved.is_own(ip) {
        return Some(Why::NotOfNode);
    }
    system().or_else(|| of_nodes(claim, reserved, rules))
}

/// What nodes have at their addresses.
fn of_nodes(claim: &Claim<'_>, reserved: &Reserved, rules: &Rules) -> Option<Why> {
    tunnel(claim, reserved).or_else(|| health(claim, rules)).or_else(|| node_port(claim, reserved))
}

/// What other nodes send through the tunnel would be delivered to an endpoint.
fn tunnel(claim: &Claim<'_>, reserved: &Reserved) -> Option<Why> {
    reserved.is_tunnel_port(claim.address.port(), claim.protocol).then_some(Why::Tunnel)
}

/// Load balancers ask there whether to send to a node: an endpoint would answer for all of them.
fn health(claim: &Claim<'_>, rules: &Rules) -> Option<Why> {
    (claim.protocol == Protocol::Tcp && rules.health_port == Some(claim.address.port())).then_some(Why::Health)
}

/// Ports without which the cluster can't be reached any more.
fn of_the_system(claim: &Claim<'_>, at_node: bool, is_api_server: bool) -> Option<Why> {
    match claim.protocol {
        Protocol::Tcp if at_node && claim.address.port() == KUBELET_PORT => Some(Why::Kubelet),
        Protocol::Tcp if is_api_server => Some(Why::ApiServer),
        _ => None,
    }
}

/// A frontend of one address goes before one of every address, but a NodePort goes before all that is claimed.
fn node_port(claim: &Claim<'_>, reserved: &Reserved) -> Option<Why> {
    let mut services = reserved.node_port(claim.address.port(), claim.protocol);
    services.find(|service| Owner::Service(service) != claim.owner).cloned().map(Why::NodePort)
}

fn is_special(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    link_local || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast()
}
