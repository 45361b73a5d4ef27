//! Who has which address: fixed, since every cluster is alone in its namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Service addresses, IPv4 first.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// The addresses of the `kubernetes` service: the first ones of [`SERVICE_CIDRS`].
pub const KUBERNETES_SERVICE: [&str; 2] = ["10.96.0.1", "fd00:10:96::1"];
/// What every pod is told to ask for names.
pub const CLUSTER_DNS: &str = "10.96.0.10";
/// Pod addresses, IPv4 first; each node gets a /24 and a /64 of them.
pub const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
/// The length of a node's own part of [`POD_CIDRS`].
pub(crate) const NODE_MASKS: [u8; 2] = [24, 64];
/// The API server's port, in the fabric.
pub(crate) const API_PORT: u16 = 6443;

/// The router of a subnet: the fabric's own address there. The API server has that of subnet 0.
pub fn router(subnet: u8) -> (Ipv4Addr, Ipv6Addr) {
    host(subnet, 1)
}

/// A node's addresses; nodes are numbered from 1.
pub fn node(number: u8, subnets: u8) -> (Ipv4Addr, Ipv6Addr) {
    // 1 is the router, and tests may put clients of their own below 10.
    host(subnet_of(number, subnets), 10 + number)
}

/// The subnet that a node is in: they take turns.
pub(crate) fn subnet_of(number: u8, subnets: u8) -> u8 {
    number.saturating_sub(1) % subnets.max(1)
}

/// The same number at the end of both addresses, so that people recognize them.
fn host(subnet: u8, number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let digits = |value: u8| u16::from(value / 100 * 16 + value / 10 % 10) * 16 + u16::from(value % 10);
    (
        Ipv4Addr::new(172, 18, subnet, number),
        Ipv6Addr::new(0xfd00, 0x172, 0x18, digits(subnet), 0, 0, 0, digits(number)),
    )
}

/// The API server's real address, which needs no service to be reached.
pub fn api_url() -> String {
    format!("https://{}:{API_PORT}", router(0).0)
}

/// Every name and address by which somebody may call the API server.
pub(crate) fn api_names() -> Vec<String> {
    let (v4, v6) = router(0);
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).into();
    names.push("kubernetes.default.svc.cluster.local".to_owned());
    names.push("localhost".to_owned());
    names.extend(KUBERNETES_SERVICE.map(String::from));
    names.extend(
        [IpAddr::from(v4), v6.into(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(|ip| ip.to_string()),
    );
    names
}

/// The zone of a node: they take turns, so that two nodes are two zones, and three are three.
pub fn zone(number: u8) -> &'static str {
    ["zone-a", "zone-b", "zone-c"][usize::from(number - 1) % 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_end_alike() {
        let (v4, v6) = node(2, 1);
        assert_eq!((v4.to_string(), v6.to_string()), ("172.18.0.12".to_owned(), "fd00:172:18::12".to_owned()));
        let (v4, v6) = node(100, 1);
        assert_eq!((v4.to_string(), v6.to_string()), ("172.18.0.110".to_owned(), "fd00:172:18::110".to_owned()));
    }

    #[test]
    fn nodes_take_turns_in_subnets_and_zones() {
        assert_eq!(node(1, 2).0.to_string(), "172.18.0.11");
        assert_eq!(node(2, 2).0.to_string(), "172.18.1.12");
        assert_eq!(node(3, 2).0.to_string(), "172.18.0.13");
        assert_eq!([1, 2, 3, 4].map(zone), ["zone-a", "zone-b", "zone-c", "zone-a"]);
    }

    #[test]
    fn the_api_server_is_called_by_its_real_and_its_service_address() {
        let names = api_names();
        for name in ["172.18.0.1", "fd00:172:18::1", "10.96.0.1", "kubernetes.default.svc"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
