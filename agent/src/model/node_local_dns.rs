//! Addresses that are DNS on every node.

use std::net::IpAddr;

use fairlead_objects::ObjectKey;

/// Which addresses lead to which Service. Nothing unless it is set: what answers at such an address is otherwise the node's
/// own business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLocalDns {
    /// The addresses, each as [`NodeLocalDns::address`] permits it.
    pub addresses: Vec<IpAddr>,
    /// The Service whose endpoints answer.
    pub service: ObjectKey,
}

impl Default for NodeLocalDns {
    fn default() -> Self {
        Self { addresses: Vec::new(), service: ObjectKey::new("kube-system", "kube-dns") }
    }
}

impl NodeLocalDns {
    /// An address that NodeLocal DNSCache may have had: IPv4 link-local, or IPv6 unique local, since pods could not write
    /// down which link a link-local one is on.
    ///
    /// # Errors
    /// What to give instead.
    pub fn address(text: &str) -> Result<IpAddr, String> {
        let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an IP address such as 169.254.20.10"))?;
        match ip {
            // Metadata services, and in some clouds the servers that nodes ask themselves.
            IpAddr::V4(v4) if v4.octets()[..3] == [169, 254, 169] => {
                Err(format!("{ip} is used by clouds; choose another in 169.254.0.0/16, such as 169.254.20.10"))
            }
            // The gateway of pods, and the address of the tunnel's device.
            IpAddr::V4(v4) if v4.octets()[..3] == [169, 254, 1] => {
                Err(format!("{ip} is used by Fairlead; choose another in 169.254.0.0/16, such as 169.254.20.10"))
            }
            IpAddr::V4(v4) if v4.is_link_local() => Ok(ip),
            IpAddr::V6(v6) if v6.is_unique_local() => Ok(ip),
            IpAddr::V4(_) | IpAddr::V6(_) => Err(format!(
                "{ip} is not in 169.254.0.0/16 or fc00::/7; to use the Service's cluster IP, set that as clusterDNS \
                 of the kubelets"
            )),
        }
    }

    /// Whether an address is one of these.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_node_local_dns_are_those_that_no_other_host_has() {
        for good in ["169.254.20.10", "169.254.25.10", "fd00:90::10"] {
            assert_eq!(NodeLocalDns::address(good).unwrap().to_string(), good);
        }
        let cases = [
            ("169.254.169.253", "used by clouds"),
            ("169.254.1.1", "used by Fairlead"),
            ("10.96.0.10", "not in 169.254.0.0/16"),
            ("fe80::10", "not in 169.254.0.0/16"),
            ("node-local", "such as 169.254.20.10"),
        ];
        for (bad, says) in cases {
            let error = NodeLocalDns::address(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
