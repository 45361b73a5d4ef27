//! The nodes, and the addresses that follow from their numbers.

use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The number that the first pod of a node has in the node's prefixes.
const FIRST_POD: u16 = 10;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, from 1.
    pub number: u8,
    /// Its name: `node-1`.
    pub name: String,
    /// Its zone.
    pub zone: String,
}

/// The nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The nodes, in order.
    pub nodes: Vec<Place>,
}

impl Topology {
    /// One node for each zone that is named: at most 88, so that their addresses stay clear of the outside client's.
    #[must_use]
    pub fn of_zones(zones: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let places = zones.into_iter().zip(1..=88u8);
        let nodes = places.map(|(zone, number)| Place { number, name: format!("node-{number}"), zone: zone.into() });
        Self { nodes: nodes.collect() }
    }
}

impl Default for Topology {
    /// Three nodes in two zones, as the committed cluster has.
    fn default() -> Self {
        Self::of_zones(["zone-a", "zone-a", "zone-b"])
    }
}

impl Place {
    /// The node's address: 172.18.0.11 for the first.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 18, 0, 10 + self.number)
    }

    /// The node's address: fd00:172:18::11 for the first, with the same digits as the other.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, digits(10 + self.number))
    }

    /// The addresses of the node's n-th pod, from 0: 10.244.1.10 and fd00:10:244:1::a for the first of the first.
    #[must_use]
    pub fn pod_ips(&self, index: u8) -> (Ipv4Addr, Ipv6Addr) {
        let number = FIRST_POD + u16::from(index);
        let low = u8::try_from(number).unwrap_or(u8::MAX);
        let ipv6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(self.number), 0, 0, 0, number);
        (Ipv4Addr::new(10, 244, self.number, low), ipv6)
    }

    /// The node's pod prefixes.
    #[must_use]
    pub fn pod_cidrs(&self) -> [String; 2] {
        [format!("10.244.{}.0/24", self.number), format!("fd00:10:244:{}::/64", self.number)]
    }

    /// The Node.
    #[must_use]
    pub fn node(&self) -> Node {
        let labels = [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("topology.kubernetes.io/zone", &self.zone),
        ];
        let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
        let cidrs = self.pod_cidrs();
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: Some(cidrs[0].clone()),
                pod_cidrs: Some(cidrs.into()),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                addresses: Some(vec![
                    address("InternalIP", self.ipv4().to_string()),
                    address("InternalIP", self.ipv6().to_string()),
                    address("Hostname", self.name.clone()),
                ]),
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".to_owned(),
                    status: "True".to_owned(),
                    ..NodeCondition::default()
                }]),
                ..NodeStatus::default()
            }),
        }
    }
}

/// A number of up to two decimal digits as a group of an IPv6 address that shows the same digits.
fn digits(number: u8) -> u16 {
    u16::from(number / 10) * 16 + u16::from(number % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_the_number() {
        let topology = Topology::of_zones(["a"; 12]);
        let (first, last) = (&topology.nodes[0], &topology.nodes[11]);
        assert_eq!(
            (first.ipv4().to_string(), first.ipv6().to_string()),
            ("172.18.0.11".into(), "fd00:172:18::11".into())
        );
        assert_eq!(
            (last.ipv4().to_string(), last.ipv6().to_string()),
            ("172.18.0.22".into(), "fd00:172:18::22".into())
        );
        let (ipv4, ipv6) = last.pod_ips(1);
        assert_eq!((ipv4.to_string(), ipv6.to_string()), ("10.244.12.11".into(), "fd00:10:244:12::b".into()));
        assert_eq!(last.pod_cidrs()[1], "fd00:10:244:12::/64");
    }
}
