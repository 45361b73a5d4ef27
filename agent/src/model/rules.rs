//! What the administrator lets objects claim.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Settings about claims: they are not for those who write objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Prefixes that `externalIPs` may be of; `None` lets them be of any.
    pub external_ips: Option<Vec<IpNetwork>>,
    /// Prefixes that pods' addresses may be of on every node, beside `podCIDRs`.
    pub pod_ranges: Vec<IpNetwork>,
    /// UDP port of the tunnel between nodes, if there is one.
    pub tunnel_port: Option<u16>,
}

impl Rules {
    /// Whether `externalIPs` may have an address.
    #[must_use]
    pub fn admits_external(&self, ip: IpAddr) -> bool {
        self.external_ips.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(ip)))
    }

    /// The pool beside `podCIDRs` that an address is of. A prefix of everything is no pool: it says that nothing is checked.
    #[must_use]
    pub fn pool_of(&self, ip: IpAddr) -> Option<IpNetwork> {
        self.pod_ranges.iter().copied().find(|range| range.prefix() > 0 && range.contains(ip))
    }
}
