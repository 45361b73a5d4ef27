//! Routes to the pods of other nodes.
//!
//! Nodes that share a network need no overlay: the pod range of each other node is reached through that node's
//! address. What the node's own range does not give to a pod is unreachable, or it would leave by the default route and
//! come back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_objects::Node;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Netlink, WiringError};

/// The protocol number (`rtm_protocol`) of these routes, by which they are found again; pods' routes have another.
pub const NODE_ROUTE_PROTOCOL: u8 = 242;

/// A route to a pod range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRoute {
    /// The range.
    pub destination: IpNetwork,
    /// The node that has it; nothing for what is unreachable.
    pub via: Option<IpAddr>,
}

/// The routes that the node `own` should have.
#[must_use]
#[expect(single_use_lifetimes, reason = "a lifetime in `impl Trait` can't be left out on stable")]
pub fn desired<'a>(own: &str, nodes: impl IntoIterator<Item = &'a Node>) -> BTreeSet<NodeRoute> {
    let mut routes = BTreeSet::new();
    for node in nodes {
        for destination in node.pod_cidrs.iter().copied() {
            if node.name == own {
                routes.insert(NodeRoute { destination, via: None });
                continue;
            }
            // A range whose family the node has no address of can't be reached without an overlay.
            let via = node.internal_ips.iter().copied().find(|ip| ip.is_ipv4() == destination.is_ipv4());
            routes.extend(via.map(|via| NodeRoute { destination, via: Some(via) }));
        }
    }
    routes
}

/// What has to change, removals and additions. A range that gets another next hop is replaced in one step, so it is
/// among the additions alone.
#[must_use]
pub fn difference(now: &BTreeSet<NodeRoute>, wanted: &BTreeSet<NodeRoute>) -> (Vec<NodeRoute>, Vec<NodeRoute>) {
    let kept: BTreeSet<IpNetwork> = wanted.iter().map(|route| route.destination).collect();
    let gone = now.iter().filter(|route| !kept.contains(&route.destination)).copied().collect();
    (gone, wanted.difference(now).copied().collect())
}

impl Netlink {
    /// The routes of this kind that exist.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn node_routes(&self) -> Result<BTreeSet<NodeRoute>, WiringError> {
        Ok(self.routes().await?.iter().filter_map(parse).collect())
    }

    /// Makes the routes of this kind be these. One that the kernel refuses does not keep the others from being made;
    /// the errors are given back.
    ///
    /// # Errors
    /// When the kernel refuses to list what exists.
    pub async fn set_node_routes(&self, wanted: &BTreeSet<NodeRoute>) -> Result<Vec<WiringError>, WiringError> {
        let now = self.node_routes().await?;
        let (gone, new) = difference(&now, wanted);
        let mut errors = Vec::new();
        for route in gone {
            let result = self.handle.route().del(message(route)).execute().await;
            errors.extend(result.err().map(|e| WiringError::kernel(format!("delete the route {}", text(route)), &e)));
        }
        for route in new {
            let result = self.handle.route().add(message(route)).replace().execute().await;
            errors.extend(result.err().map(|e| WiringError::kernel(format!("add the route {}", text(route)), &e)));
        }
        Ok(errors)
    }
}

fn text(route: NodeRoute) -> String {
    match route.via {
        Some(via) => format!("{} via {via} (are the nodes on one network?)", route.destination),
        None => format!("unreachable {}", route.destination),
    }
}

fn message(route: NodeRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination;
    message.header.address_family = if destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(NODE_ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = if route.via.is_some() { RouteType::Unicast } else { RouteType::Unreachable };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.network())));
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(RouteAddress::from(via))));
    message
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn parse(route: &RouteMessage) -> Option<NodeRoute> {
    if route.header.protocol != RouteProtocol::Other(NODE_ROUTE_PROTOCOL) {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    let via = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    });
    let destination = IpNetwork::new(destination, route.header.destination_prefix_length).ok()?;
    Some(NodeRoute { destination, via })
}

#[cfg(test)]
mod tests {
    use fairlead_objects::Labels;
    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> Node {
        Node {
            name: format!("node-{n}"),
            labels: Labels::new(),
            zone: None,
            internal_ips: vec![format!("172.18.0.{n}").parse().unwrap(), format!("fd00:172:18::{n}").parse().unwrap()],
            external_ips: Vec::new(),
            pod_cidrs: vec![
                format!("10.244.{n}.0/24").parse().unwrap(),
                format!("fd00:10:244:{n}::/64").parse().unwrap(),
            ],
        }
    }

    fn route(destination: &str, via: Option<&str>) -> NodeRoute {
        NodeRoute { destination: destination.parse().unwrap(), via: via.map(|via| via.parse().unwrap()) }
    }

    #[test]
    fn other_nodes_ranges_go_via_their_addresses() {
        let expected = BTreeSet::from([
            route("10.244.1.0/24", None),
            route("fd00:10:244:1::/64", None),
            route("10.244.2.0/24", Some("172.18.0.2")),
            route("fd00:10:244:2::/64", Some("fd00:172:18::2")),
        ]);
        assert_eq!(desired("node-1", &[node(1), node(2)]), expected);
    }

    #[test]
    fn a_range_without_an_address_of_its_family_has_no_route() {
        let mut other = node(2);
        other.internal_ips.truncate(1);
        assert_eq!(desired("node-1", &[other]), BTreeSet::from([route("10.244.2.0/24", Some("172.18.0.2"))]));
    }

    proptest! {
        #[test]
        fn the_difference_leads_to_what_is_wanted(
            now in prop::collection::btree_map(0..8u8, 1..4u8, 0..8),
            wanted in prop::collection::btree_map(0..8u8, 1..4u8, 0..8),
        ) {
            let routes = |map: &std::collections::BTreeMap<u8, u8>| -> BTreeSet<NodeRoute> {
                map.iter().map(|(d, v)| route(&format!("10.244.{d}.0/24"), Some(&format!("172.18.0.{v}")))).collect()
            };
            let (now, wanted) = (routes(&now), routes(&wanted));
            let (gone, new) = difference(&now, &wanted);
            let mut result = now.clone();
            for route in gone {
                prop_assert!(result.remove(&route));
            }
            for route in new {
                prop_assert!(!now.contains(&route), "nothing is added twice");
                result.retain(|old| old.destination != route.destination);
                result.insert(route);
            }
            prop_assert_eq!(result, wanted);
        }
    }
}
