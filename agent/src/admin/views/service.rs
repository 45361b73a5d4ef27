//! Services, and what happens to connections to one.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One port of a service, with its addresses of both families.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// `namespace/name`.
    pub service: String,
    /// `spec.type`, or `hostPort` for the ports of a pod.
    pub kind: String,
    /// The port's name; empty when it has none.
    pub port_name: String,
    /// The port's number: a NodePort's or a load balancer's is in the addresses.
    pub port: u16,
    /// Its addresses with their ports; of a NodePort or hostPort at every address of the node the unspecified one. None of a
    /// headless service.
    pub addresses: Vec<SocketAddr>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `clusterIP: None`: names lead to its endpoints, and nothing is translated.
    pub headless: bool,
    /// Endpoints that new connections from this node may choose; one with an address of each family counts once. Of a headless
    /// service those that are ready.
    pub endpoints: usize,
    /// Of these the addresses of IPv4.
    pub endpoints_ipv4: usize,
    /// Of these the addresses of IPv6.
    pub endpoints_ipv6: usize,
    /// `internalTrafficPolicy`, `Cluster` of a hostPort.
    pub internal_policy: String,
    /// `externalTrafficPolicy`, `Cluster` of a hostPort.
    pub external_policy: String,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes to one of the chosen endpoints.
    Forward,
    /// It is refused.
    Reject,
    /// It is dropped in silence.
    Drop,
}

/// What happens to connections to one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceExplanation {
    /// `namespace/name`.
    pub service: String,
    /// The port's name; empty when it has none.
    pub port_name: String,
    /// The address that was asked for.
    pub address: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// What kind of address it is: of the cluster, of a load balancer, …
    pub kind: String,
    /// The traffic policy that clients in the cluster meet.
    pub policy: String,
    /// What becomes of a new connection of theirs.
    pub verdict: Verdict,
    /// The traffic policy that clients outside meet.
    pub outside_policy: String,
    /// What becomes of a new connection of theirs.
    pub outside_verdict: Verdict,
    /// Whether a pod of this node sees the addresses of clients outside, and not the node's.
    pub keeps_source: bool,
    /// The clients that may use it; with none, everybody.
    pub source_ranges: Vec<String>,
    /// Whether the kernel's table has the address.
    pub in_force: bool,
    /// Who else claims it, in vain, and why.
    pub others: Vec<String>,
    /// Every endpoint, chosen or not.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether new connections from inside may choose it.
    pub chosen: bool,
    /// Whether new connections from outside may.
    pub chosen_outside: bool,
    /// Whether it is on this node.
    pub local: bool,
    /// Why it is in or out.
    pub why: String,
}
