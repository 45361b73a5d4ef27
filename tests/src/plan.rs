//! What a lab consists of: names and addresses, all known before anything is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A lab, as its owner describes it to the processes that make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Tells this lab from others on the machine.
    pub(crate) id: String,
    /// Its nodes; the first has number 1.
    pub(crate) nodes: Vec<NodePlan>,
    /// The MTU of the network between nodes.
    pub(crate) mtu: u32,
    /// Whether the router between subnets drops what does not come from a node's or a client's address.
    pub(crate) checks_sources: bool,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    /// Its number, from 1: part of all its addresses.
    pub(crate) number: u8,
    /// Its zone.
    pub(crate) zone: String,
    /// The network that it is on: 0 is the clients' too.
    pub(crate) subnet: u8,
    /// Whether its object names its IPv6 address alone.
    pub(crate) ipv6_alone: bool,
}

impl NodePlan {
    pub(crate) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    pub(crate) fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 18, self.subnet, 10 + self.number)
    }

    pub(crate) fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x172, 0x18, self.subnet.into(), 0, 0, 0, decimal(10 + self.number))
    }

    /// The addresses of its pods: prefix and length.
    pub(crate) fn pod_cidrs(&self) -> [(IpAddr, u8); 2] {
        let number = decimal(self.number);
        [
            (Ipv4Addr::new(10, 244, self.number, 0).into(), 24),
            (Ipv6Addr::new(0xfd00, 0x10, 0x244, number, 0, 0, 0, 0).into(), 64),
        ]
    }
}

/// A number whose hexadecimal digits are the decimal digits of another: addresses of both families read alike.
fn decimal(number: u8) -> u16 {
    u16::from(number / 10) * 16 + u16::from(number % 10)
}

/// More nodes would have addresses that others have.
pub(crate) const MOST_NODES: usize = 88;

/// The router from a network of nodes to elsewhere.
pub(crate) fn router(subnet: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(172, 18, subnet, 1).into(), Ipv6Addr::new(0xfd00, 0x172, 0x18, subnet.into(), 0, 0, 0, 1).into()]
}

/// The bridge that is a network of nodes.
pub(crate) fn bridge(subnet: u8) -> String {
    format!("br{subnet}")
}

/// The addresses of all pods.
pub(crate) const PODS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];

/// A place outside of the cluster.
pub(crate) struct ClientPlan {
    pub(crate) name: &'static str,
    pub(crate) addresses: [(&'static str, u8); 2],
    /// Whether it is on the nodes' network; otherwise behind the router, which has these addresses towards it.
    pub(crate) router: Option<[&'static str; 2]>,
}

/// The outside client, on the nodes' network.
pub(crate) const CLIENT: ClientPlan =
    ClientPlan { name: "client", addresses: [("172.18.0.100", 24), ("fd00:172:18::100", 64)], router: None };

/// Another one, behind the router.
pub(crate) const FAR_CLIENT: ClientPlan = ClientPlan {
    name: "far-client",
    addresses: [("192.0.2.100", 24), ("2001:db8::100", 64)],
    router: Some(["192.0.2.1", "2001:db8::1"]),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_read_alike() {
        let node = NodePlan { number: 12, zone: "zone-a".into(), subnet: 0, ipv6_alone: false };
        assert_eq!(node.v4().to_string(), "172.18.0.22");
        assert_eq!(node.v6().to_string(), "fd00:172:18::22");
        assert_eq!(node.pod_cidrs()[1].0.to_string(), "fd00:10:244:12::");
    }
}
