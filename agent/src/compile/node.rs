//! What the programs are told of the node: `CONFIG`, `UPLINKS` and `NODE_ADDRESSES`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use fairlead_datapath::{Addr, WirePort};

use fairlead_datapath::config::{Config, Lifetimes, Uplink as UplinkRow, UplinkFlags};
use fairlead_datapath::service::{FrontendFlags, NodeAddress};
use fairlead_objects::Node;
use ipnetwork::IpNetwork;

use crate::masquerade::PortRange;
use crate::network::{Network, TunnelSettings};
use crate::parts::Parts;
use crate::wiring::Uplink;

/// MTU of pods while no uplink is known: Ethernet's.
const MTU: u32 = 1500;

/// A device's first address of a family, which is the one that it sends with; link-local ones mean nothing to others.
fn address(uplink: &Uplink, v4: bool) -> Option<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => v4 && !ip.is_link_local(),
        IpAddr::V6(ip) => !v4 && !ip.is_unicast_link_local(),
    };
    uplink.addresses.iter().map(|(ip, _)| *ip).find(usable)
}

/// What the interfaces say of the node. Its addresses are those that its object names and that it really has, or else
/// those of its uplinks.
#[must_use]
pub fn network(uplinks: &[Uplink], addresses: &[IpAddr], node: Option<&Node>, tunnel: TunnelSettings) -> Network {
    // What leads to containers or virtual machines of the node says nothing of the ways between nodes.
    let uplinks: Vec<&Uplink> = uplinks.iter().filter(|uplink| uplink.is_primary).collect();
    let of_uplinks = uplinks.iter().flat_map(|uplink| &uplink.addresses).map(|(ip, _)| *ip);
    // The address that the object names may be on loopback or a dummy, where routers are told the way to it.
    let own: Vec<IpAddr> = of_uplinks.chain(addresses.iter().copied()).collect();
    let of_family = |v4: bool| {
        let named = node.into_iter().flat_map(|node| &node.internal_ips).copied();
        let mut named = named.filter(|ip| ip.is_ipv4() == v4 && own.contains(ip));
        named.next().or_else(|| uplinks.iter().find_map(|uplink| address(uplink, v4)))
    };
    let addresses: Vec<_> = [true, false].into_iter().filter_map(of_family).collect();
    let has = |uplink: &&&Uplink| uplink.addresses.iter().any(|(ip, _)| addresses.contains(ip));
    let between = uplinks.iter().find(has).or_else(|| uplinks.first());
    Network {
        ifindex: between.map_or(0, |uplink| uplink.ifindex),
        mtu: uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(MTU),
        addresses,
        // Programs send what goes directly to other nodes by that one interface.
        subnets: between.into_iter().flat_map(|uplink| uplink.subnets()).collect(),
        tunnel,
    }
}

/// What this node has, which hostPorts may be at: link-local addresses too, where other nodes are. Those of containers' devices
/// come and go.
pub fn own_addresses<'a>(uplinks: &'a [Uplink], addresses: &'a [IpAddr]) -> impl Iterator<Item = IpAddr> + 'a {
    let primary = uplinks.iter().filter(|uplink| uplink.is_primary).flat_map(|uplink| &uplink.addresses);
    primary.map(|(ip, _)| *ip).chain(addresses.iter().copied())
}

/// What the kernel takes for the node's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// Its own addresses.
    pub own: Vec<IpAddr>,
    /// Those that mean all hosts of a network that it is on.
    pub broadcasts: Vec<Ipv4Addr>,
}

/// What the tables about the node should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The one element of `CONFIG`.
    pub config: Config,
    /// Those of `UPLINKS` by interface index, in the order in which they were found.
    pub uplinks: Vec<(u32, UplinkRow)>,
    /// Those of `NODE_ADDRESSES`, the primary ones first.
    pub addresses: Vec<(Addr, u32)>,
}

/// What the programs are to know of the tables' age, and go on to know while those last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// See [`Config::pickup_until`].
    pub pickup_until: u32,
    /// See [`Config::seed`].
    pub seed: u32,
}

/// What a pod may have of the tables of flows, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`Config::max_flows`].
    pub flows: u32,
    /// See [`Config::max_open`].
    pub open: u32,
    /// See [`Config::max_rate`].
    pub rate: u32,
    /// See [`Config::lifetimes`].
    pub lifetimes: Lifetimes,
}

/// What the settings say of the node.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// Where NodePorts are, if not at the primary addresses.
    pub prefixes: &'a [IpNetwork],
    /// What pods may not reach, of which the first [`fairlead_datapath::config::MAX_CLOSED`] count.
    pub closed: &'a [IpAddr],
    /// Source ports of translated flows.
    pub ports: PortRange,
    /// What a pod may have.
    pub limits: Limits,
    /// Which parts run here.
    pub parts: Parts,
}

/// Compiles. `addresses`: all that the node has, and those that mean all hosts of a network that it is on; `since`: what holds as long as the tables do.
#[must_use]
pub fn compile(
    uplinks: &[Uplink],
    network: &Network,
    Addresses { own: addresses, broadcasts }: &Addresses,
    chosen: Chosen<'_>,
    since: Since,
) -> Wanted {
    let Chosen { prefixes, closed, ports, limits, parts } = chosen;
    let of_family =
        |v4: bool| network.addresses.iter().find(|ip| ip.is_ipv4() == v4).map_or(Addr::UNSPECIFIED, |ip| (*ip).into());
    let config = Config {
        v4: of_family(true),
        v6: of_family(false),
        mtu: network.mtu,
        mark: Config::MARK,
        snat_first: ports.first(),
        snat_count: ports.count(),
        max_flows: limits.flows,
        max_rate: limits.rate,
        pickup_until: since.pickup_until,
        max_open: limits.open,
        seed: since.seed,
        closed: std::array::from_fn(|place| closed.get(place).map_or(Addr::UNSPECIFIED, |ip| (*ip).into())),
        tunnel_port: network.tunnel.guarded_port().map_or(WirePort::NONE, WirePort::new),
        pad: [0; 6],
        lifetimes: limits.lifetimes,
    };
    let row = |uplink: &Uplink| {
        // By one without an address the kernel sends with another's.
        let of = |v4| address(uplink, v4).or_else(|| network.address(v4)).map_or(Addr::UNSPECIFIED, Addr::from);
        // What goes straight to a pod of another network is the stack's to deliver, by whatever it comes in.
        let flags = if uplink.is_primary && parts.wires() { UplinkFlags::PRIMARY } else { 0 };
        (uplink.ifindex, UplinkRow { v4: of(true), v6: of(false), flags, ..UplinkRow::default() })
    };
    let mut addresses: Vec<_> = reached(addresses, &network.addresses, prefixes).into_iter().collect();
    let is_primary = |addr: &Addr| network.addresses.iter().any(|ip| Addr::from(*ip) == *addr);
    addresses.sort_by_key(|(addr, _)| !is_primary(addr));
    let broadcasts = broadcasts.iter().map(|ip| Addr::from(IpAddr::V4(*ip)));
    let of_nobody: Vec<_> = broadcasts.filter(|addr| addresses.iter().all(|(own, _)| own != addr)).collect();
    addresses.extend(of_nobody.into_iter().map(|addr| (addr, NodeAddress::BROADCAST)));
    // Where there is no room for all, those go without by which no node is reached.
    let (first, rest): (Vec<_>, Vec<_>) = uplinks.iter().partition(|uplink| uplink.is_primary);
    Wanted { config, uplinks: first.into_iter().chain(rest).map(row).collect(), addresses }
}

/// Which ports are reached by which of the node's addresses: hostPorts by each, NodePorts by the primary ones (KEP-3866) or,
/// where prefixes are named, by those that are in one; a family for which none is named has all (as
/// pkg/proxy/util/nodeport_addresses.go of Kubernetes).
fn reached(addresses: &[IpAddr], primary: &[IpAddr], prefixes: &[IpNetwork]) -> BTreeMap<Addr, u32> {
    let of_node_ports = |ip: &IpAddr| {
        let mut of_family = prefixes.iter().filter(|prefix| prefix.is_ipv4() == ip.is_ipv4()).peekable();
        match (prefixes.is_empty(), of_family.peek().is_none()) {
            (true, _) => primary.contains(ip),
            (false, true) => true,
            (false, false) => of_family.any(|prefix| prefix.contains(*ip)),
        }
    };
    let kinds = |ip: &IpAddr| FrontendFlags::HOST_PORT | if of_node_ports(ip) { FrontendFlags::NODE_PORT } else { 0 };
    addresses.iter().chain(primary).map(|ip| (Addr::from(*ip), kinds(ip))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::Framing;

    #[test]
    fn s4_node_ports_are_at_the_primary_addresses_or_at_those_that_are_named() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let addresses = ips(&["172.18.0.11", "172.17.0.1", "10.0.0.1", "fd00:172:18::11", "fd00::1"]);
        let primary = ips(&["172.18.0.11", "fd00:172:18::11"]);
        let at = |prefixes: &[&str]| {
            let prefixes: Vec<_> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
            let reached = reached(&addresses, &primary, &prefixes);
            assert_eq!(reached.len(), addresses.len());
            assert!(reached.values().all(|kinds| kinds & FrontendFlags::HOST_PORT != 0));
            let of_node_ports = |ip: &&IpAddr| reached[&Addr::from(**ip)] & FrontendFlags::NODE_PORT != 0;
            addresses.iter().filter(of_node_ports).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(at(&[]), ["172.18.0.11", "fd00:172:18::11"]);
        assert_eq!(at(&["172.16.0.0/12"]), ["172.18.0.11", "172.17.0.1", "fd00:172:18::11", "fd00::1"]);
        assert_eq!(at(&["10.0.0.0/8", "fd00::1/128"]), ["10.0.0.1", "fd00::1"]);
        assert_eq!(at(&["0.0.0.0/0", "::/0"]).len(), 5);
    }

    fn uplink(ifindex: u32, mtu: u32, addresses: &[&str]) -> Uplink {
        let prefix = |ip: IpAddr| if ip.is_ipv4() { 24 } else { 64 };
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).map(|ip| (ip, prefix(ip))).collect();
        Uplink {
            ifindex,
            name: format!("eth{ifindex}"),
            mtu,
            mac: None,
            addresses,
            is_primary: true,
            has_ip: true,
            paces: false,
            framing: Framing::Ethernet,
            has_vlans: false,
        }
    }

    #[test]
    fn s73_link_local_addresses_of_containers_devices_are_nobodys_claim() {
        let own = |uplinks: &[Uplink]| {
            let addresses = ["10.0.0.1", "10.1.0.1"].map(|ip| ip.parse().unwrap());
            own_addresses(uplinks, &addresses).collect::<std::collections::BTreeSet<IpAddr>>()
        };
        let first = uplink(2, 1500, &["10.0.0.1", "fe80::1"]);
        let before = own(std::slice::from_ref(&first));
        assert!(before.contains(&"fe80::1".parse::<IpAddr>().unwrap()), "{before:?}");
        let container = Uplink { is_primary: false, ..uplink(9, 1500, &["10.1.0.1", "169.254.3.4", "fe80::9"]) };
        assert_eq!(own(&[first, container]), before);
    }

    #[test]
    fn nodes_on_the_networks_of_one_uplink_alone_are_reached_directly() {
        use crate::network::{Tunnel, VXLAN_PORT, Way};
        let uplinks = [uplink(2, 1500, &["10.0.0.1"]), uplink(3, 1500, &["fd00:172:18::11"])];
        let tunnel = TunnelSettings { when: Tunnel::Auto, port: VXLAN_PORT, ..TunnelSettings::default() };
        let found = network(&uplinks, &[], None, tunnel);
        let other = Node {
            name: "n".into(),
            labels: [].into(),
            zone: None,
            internal_ips: ["10.0.0.2", "fd00:172:18::12"].map(|ip| ip.parse().unwrap()).into(),
            external_ips: vec![],
            pod_cidrs: vec![],
            annotated: None,
            leaving: false,
        };
        assert_eq!(found.ifindex, 2);
        assert_eq!([true, false].map(|v4| found.way(&other, v4)), [Way::Direct(other.internal_ips[0]), Way::Tunnel]);
    }

    #[test]
    fn the_nodes_addresses_are_those_it_names_and_has() {
        let uplinks = [
            uplink(2, 9000, &["fe80::1", "10.0.0.1", "10.0.0.2", "2001:db8::1"]),
            uplink(3, 1400, &["172.18.0.11", "fd00:172:18::11"]),
        ];
        let found = network(&uplinks, &[], None, TunnelSettings::default());
        assert_eq!(found.addresses, ["10.0.0.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!((found.ifindex, found.mtu), (2, 1400));
        let node = Node {
            name: "n".into(),
            labels: [].into(),
            zone: None,
            internal_ips: ["192.0.2.9", "172.18.0.11"].map(|ip| ip.parse().unwrap()).into(),
            external_ips: vec![],
            pod_cidrs: vec![],
            annotated: None,
            leaving: false,
        };
        let found = network(&uplinks[1..], &[], Some(&node), TunnelSettings::default());
        assert_eq!(found.addresses, ["172.18.0.11", "fd00:172:18::11"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(found.ifindex, 3);
        // One that no uplink has: on a dummy, with routes to it.
        let on_dummy = ["192.0.2.9".parse().unwrap()];
        let found = network(&uplinks, &on_dummy, Some(&node), TunnelSettings::default());
        assert_eq!(found.addresses[0], on_dummy[0]);
        assert!(network(&[], &[], None, TunnelSettings::default()).addresses.is_empty());
    }
}
