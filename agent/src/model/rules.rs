//! What the administrator lets objects claim, and with which address pods leave the cluster.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::NodeLocalDns;
use crate::masquerade::Masquerade;
use crate::parts::Parts;

/// Settings about claims: they are not for those who write objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Prefixes that `externalIPs` may be of; `None` lets them be of any.
    pub external_ips: Option<Vec<IpNetwork>>,
    /// Prefixes that pods' addresses may be of on every node, beside `podCIDRs`.
    pub pod_ranges: Vec<IpNetwork>,
    /// Prefixes in which ranges count that Nodes name in an annotation.
    pub annotated_ranges: Vec<IpNetwork>,
    /// Addresses of metadata services: no endpoint has one, and no Service claims one.
    pub metadata: Vec<IpAddr>,
    /// Whether they are closed to pods.
    pub metadata_closed: bool,
    /// With which address pods leave the cluster.
    pub masquerade: Masquerade,
    /// Addresses that are DNS, and nobody else's.
    pub node_local_dns: NodeLocalDns,
    /// UDP port of the tunnel between nodes, if there is one.
    pub tunnel_port: Option<u16>,
    /// The TCP port at which nodes answer health checks, if load balancers can reach it.
    pub health_port: Option<u16>,
    /// Which parts run here.
    pub parts: Parts,
}

impl Rules {
    /// Whether `externalIPs` may have an address.
    #[must_use]
    pub fn admits_external(&self, ip: IpAddr) -> bool {
        self.external_ips.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(ip)))
    }

    /// Whether an address is a metadata service's.
    #[must_use]
    pub fn is_metadata(&self, ip: IpAddr) -> bool {
        self.metadata.iter().any(|other| other.to_canonical() == ip.to_canonical())
    }

    /// The addresses that are closed to pods, whatever their policies say.
    #[must_use]
    pub fn closed(&self) -> &[IpAddr] {
        if self.metadata_closed { &self.metadata } else { &[] }
    }

    /// The pool beside `podCIDRs` that an address is of. A prefix of everything is no pool: it says that nothing is checked.
    #[must_use]
    pub fn pool_of(&self, ip: IpAddr) -> Option<IpNetwork> {
        self.pod_ranges.iter().copied().find(|range| range.prefix() > 0 && range.contains(ip))
    }
}
