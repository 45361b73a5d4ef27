//! Routes to the pods of other nodes, for the host's stack.
//!
//! Nodes that share a network need no tunnel: the pod range of each other node is reached through that node's address.
//! What goes through the tunnel is routed to its device, whose program knows the node. What the node's own range does not give to a pod is unreachable, or it would leave by the default route and
//! come back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fairlead_objects::Node;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Kept, Netlink, Uplink, WiringError, overlay, svc};
use crate::network::{Network, Way};

/// The protocol number (`rtm_protocol`) of these routes, by which they are found again; pods' routes have another.
pub const NODE_ROUTE_PROTOCOL: u8 = 242;

/// A route to a pod range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRoute {
    /// The range.
    pub destination: IpNetwork,
    /// Where it leads.
    pub via: Via,
}

/// Where a route to a pod range leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Nowhere: what the node's own range does not give to a pod.
    Nobody,
    /// To the node at this address.
    Node(IpAddr),
    /// Into the tunnel, from this address of the node: its device has none.
    Tunnel(Option<IpAddr>),
    /// To services, from this address of the node.
    Services(IpAddr),
}

/// The routes that the node `own` should have. Of nodes with one range the first by name has it, as for the programs
/// (`compile/peers.rs`).
#[must_use]
#[expect(single_use_lifetimes, reason = "a lifetime in `impl Trait` can't be left out on stable")]
pub fn desired<'a>(own: &str, nodes: impl IntoIterator<Item = &'a Node>, network: &Network) -> BTreeSet<NodeRoute> {
    let mut routes = BTreeSet::new();
    let mut sorted: Vec<&Node> = nodes.into_iter().collect();
    sorted.sort_by_key(|node| &node.name);
    let mut taken = BTreeSet::new();
    for node in sorted {
        for destination in node.pod_cidrs.iter().copied().filter(|range| taken.insert(*range)) {
            let v4 = destination.is_ipv4();
            let via = match network.way(node, v4) {
                _ if node.name == own => Via::Nobody,
                Way::Direct(ip) => Via::Node(ip),
                Way::Tunnel => Via::Tunnel(network.address(v4)),
                // The node's other routes know.
                Way::Routed => continue,
            };
            routes.insert(NodeRoute { destination, via });
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

    /// Makes the routes of this kind be these. One that the kernel refuses does not keep the others from being made. A route that
    /// somebody else has to the same prefix stays, since nobody would give it back; one that leads the same way will do. A route
    /// to a node that one of these uplinks reaches leads by it: the network may have moved to another interface.
    ///
    /// # Errors
    /// When the kernel refuses to list what exists.
    pub async fn set_node_routes(&self, wanted: &BTreeSet<NodeRoute>, uplinks: &[Uplink]) -> Result<Kept, WiringError> {
        let all = self.routes().await?;
        let now = all.iter().filter_map(parse).collect();
        let others = others(&all);
        let (gone, mut new) = difference(&now, wanted);
        let stray = all.iter().filter(|route| parse(route).is_some_and(|ours| is_stray(ours.via, oif(route), uplinks)));
        new.extend(stray.filter_map(parse).filter(|route| wanted.contains(route)));
        let mut kept = Kept::default();
        for route in gone {
            let result = self.handle.route().del(message(route, None)).execute().await;
            let result = result.map_err(|e| WiringError::kernel(format!("delete the route {}", text(route)), &e));
            kept.note(|| format!("no route {}", text(route)), result);
        }
        for route in new {
            if let Some(theirs) = others.get(&route.destination) {
                if theirs.same != Some(route) {
                    kept.errors.push(WiringError::Taken { theirs: theirs.text.clone(), wanted: text(route) });
                }
                continue;
            }
            let result = self.replace(route, &reaching(route.via, uplinks)).await;
            let result = result.map_err(|e| WiringError::kernel(format!("add the route {}", text(route)), &e));
            kept.note(|| format!("the route {}", text(route)), result);
        }
        Ok(kept)
    }

    /// Makes a route, by the first of these interfaces by which the kernel takes it, or by the one that it chooses.
    async fn replace(&self, route: NodeRoute, by: &[u32]) -> Result<(), rtnetlink::Error> {
        let (first, rest) = by.split_first().map_or((None, by), |(first, rest)| (Some(*first), rest));
        let mut result = self.handle.route().add(message(route, first)).replace().execute().await;
        for ifindex in rest {
            if result.is_err() {
                result = self.handle.route().add(message(route, Some(*ifindex))).replace().execute().await;
            }
        }
        result
    }
}

/// The uplinks by which the node is reached that a route leads to.
fn reaching(via: Via, uplinks: &[Uplink]) -> Vec<u32> {
    let Via::Node(hop) = via else { return Vec::new() };
    let reaching = uplinks.iter().filter(|uplink| uplink.is_primary && uplink.reaches(hop));
    reaching.map(|uplink| uplink.ifindex).collect()
}

/// Whether a route leads by another interface than those by which its node is reached.
fn is_stray(via: Via, oif: Option<u32>, uplinks: &[Uplink]) -> bool {
    let reaching = reaching(via, uplinks);
    !reaching.is_empty() && !oif.is_some_and(|oif| reaching.contains(&oif))
}

/// A route that another program has made where one of ours would be.
struct Other {
    /// The route of ours that leads the same way, if there can be one.
    same: Option<NodeRoute>,
    /// In words.
    text: String,
}

/// The routes of others that a route of ours to the same prefix would replace: those of the main table with the metric that routes
/// get which name none (`IP6_RT_PRIO_USER` in include/uapi/linux/ipv6_route.h).
fn others(all: &[RouteMessage]) -> BTreeMap<IpNetwork, Other> {
    let is_in_the_way = |route: &&RouteMessage| {
        let is_v4 = route.header.address_family == AddressFamily::Inet;
        let metric = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(metric) => Some(*metric),
            _ => None,
        });
        route.header.protocol != RouteProtocol::Other(NODE_ROUTE_PROTOCOL)
            && route.header.table == RouteHeader::RT_TABLE_MAIN
            && metric.unwrap_or(0) == if is_v4 { 0 } else { 1024 }
    };
    let other = |route: &RouteMessage| {
        let read = read(route)?;
        let by = oif(route).map(|ifindex| format!(" by interface {ifindex}"));
        let (is_unicast, by) = (route.header.kind == RouteType::Unicast, by.unwrap_or_default());
        let (same, way) = match read.via {
            Via::Node(ip) if is_unicast => (Some(read), format!("via {ip}")),
            Via::Nobody if route.header.kind == RouteType::Unreachable => (Some(read), "unreachable".to_owned()),
            _ => (None, format!("{:?}", route.header.kind).to_lowercase()),
        };
        let number = u8::from(route.header.protocol);
        Some((read.destination, Other { same, text: format!("{} {way}{by} (protocol {number})", read.destination) }))
    };
    all.iter().filter(is_in_the_way).filter_map(other).collect()
}

fn text(route: NodeRoute) -> String {
    match route.via {
        Via::Node(ip) => format!("{} via {ip} (are the nodes on the same network?)", route.destination),
        Via::Tunnel(_) => format!("{} dev {}", route.destination, overlay::NAME),
        Via::Services(_) => format!("{} dev {}", route.destination, svc::NAME),
        Via::Nobody => format!("unreachable {}", route.destination),
    }
}

/// `by`: the interface by which it leads to a node, if not by the one that the kernel chooses.
fn message(route: NodeRoute, by: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = route.destination;
    message.header.address_family = if destination.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = destination.prefix();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(NODE_ROUTE_PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = if route.via == Via::Nobody { RouteType::Unreachable } else { RouteType::Unicast };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination.network())));
    let mut by_device = |ifindex, source: Option<IpAddr>| {
        message.header.scope = RouteScope::Link;
        message.attributes.push(RouteAttribute::Oif(ifindex));
        message.attributes.extend(source.map(|ip| RouteAttribute::PrefSource(RouteAddress::from(ip))));
    };
    match route.via {
        Via::Nobody => {}
        Via::Tunnel(source) => by_device(overlay::IFINDEX, source),
        Via::Services(source) => by_device(svc::IFINDEX, Some(source)),
        Via::Node(ip) => {
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(ip)));
            message.attributes.extend(by.map(RouteAttribute::Oif));
        }
    }
    message
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// A route of ours. What others have copied to another table is theirs.
fn parse(route: &RouteMessage) -> Option<NodeRoute> {
    let is_ours = route.header.protocol == RouteProtocol::Other(NODE_ROUTE_PROTOCOL)
        && route.header.table == RouteHeader::RT_TABLE_MAIN;
    is_ours.then(|| read(route))?
}

fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}

/// Where a route leads, as one of ours would.
fn read(route: &RouteMessage) -> Option<NodeRoute> {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    });
    let source = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    let by = |ifindex| oif(route) == Some(ifindex);
    let via = match (gateway, source) {
        (Some(ip), _) => Via::Node(ip),
        (None, _) if by(overlay::IFINDEX) => Via::Tunnel(source),
        (None, Some(source)) if by(svc::IFINDEX) => Via::Services(source),
        (None, _) => Via::Nobody,
    };
    let destination = IpNetwork::new(destination, route.header.destination_prefix_length).ok()?;
    Some(NodeRoute { destination, via })
}

#[cfg(test)]
mod tests {
    use fairlead_objects::Labels;
    use proptest::prelude::*;

    use super::*;
    use crate::network::{Tunnel, TunnelSettings};

    fn node(n: u8) -> Node {
        Node {
            name: format!("node-{n}"),
            labels: Labels::new(),
            zone: None,
            internal_ips: vec![format!("172.18.0.{n}").parse().unwrap(), format!("fd00:172:18::{n}").parse().unwrap()],
            external_ips: Vec::new(),
            annotated: None,
            leaving: false,
            pod_cidrs: vec![
                format!("10.244.{n}.0/24").parse().unwrap(),
                format!("fd00:10:244:{n}::/64").parse().unwrap(),
            ],
        }
    }

    fn route(destination: &str, via: Option<&str>) -> NodeRoute {
        let via = via.map_or(Via::Nobody, |via| Via::Node(via.parse().unwrap()));
        NodeRoute { destination: destination.parse().unwrap(), via }
    }

    fn network() -> Network {
        Network {
            addresses: node(1).internal_ips,
            subnets: ["172.18.0.0/24", "fd00:172:18::/64"].map(|subnet| subnet.parse().unwrap()).into(),
            ..Network::default()
        }
    }

    #[test]
    fn other_nodes_ranges_go_via_their_addresses() {
        let expected = BTreeSet::from([
            route("10.244.1.0/24", None),
            route("fd00:10:244:1::/64", None),
            route("10.244.2.0/24", Some("172.18.0.2")),
            route("fd00:10:244:2::/64", Some("fd00:172:18::2")),
        ]);
        assert_eq!(desired("node-1", &[node(1), node(2)], &network()), expected);
    }

    #[test]
    fn ranges_elsewhere_go_into_the_tunnel_or_where_other_routes_lead() {
        let mut far = node(2);
        far.internal_ips = vec!["172.18.1.2".parse().unwrap()];
        let tunnel = |destination: &str, source: &str| NodeRoute {
            destination: destination.parse().unwrap(),
            via: Via::Tunnel(Some(source.parse().unwrap())),
        };
        let expected =
            BTreeSet::from([tunnel("10.244.2.0/24", "172.18.0.1"), tunnel("fd00:10:244:2::/64", "fd00:172:18::1")]);
        assert_eq!(desired("node-1", [&far], &network()), expected);
        let never = Network { tunnel: TunnelSettings { when: Tunnel::Never, ..Default::default() }, ..network() };
        assert!(desired("node-1", [&far], &never).is_empty());
    }

    #[test]
    fn one_range_is_one_route_to_the_first_of_its_nodes() {
        // As a machine that registered under another name, and whose old Node is still there.
        let twin = Node { name: "node-0".to_owned(), pod_cidrs: node(2).pod_cidrs, ..node(3) };
        let expected = desired("node-1", [&twin], &network());
        assert_eq!(expected.len(), 2);
        let two = node(2);
        for nodes in [[&two, &twin], [&twin, &two]] {
            assert_eq!(desired("node-1", nodes, &network()), expected);
        }
        // Where the first is this node, or is reached by other routes, the second gets none.
        assert!(desired("node-0", [&two, &twin], &network()).iter().all(|route| route.via == Via::Nobody));
        let far = Node { internal_ips: vec!["192.0.2.1".parse().unwrap()], ..twin };
        let never = Network { tunnel: TunnelSettings { when: Tunnel::Never, ..Default::default() }, ..network() };
        assert!(desired("node-1", [&two, &far], &never).is_empty());
    }

    proptest! {
        #[test]
        fn the_difference_leads_to_what_is_wanted(
            now in prop::collection::btree_map(0..8u8, 1..4u8, 0..8),
            wanted in prop::collection::btree_map(0..8u8, 1..4u8, 0..8),
        ) {
            let routes = |map: &BTreeMap<u8, u8>| -> BTreeSet<NodeRoute> {
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
