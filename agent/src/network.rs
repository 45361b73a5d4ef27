//! How this node reaches the others: directly, through the tunnel, or by a network that knows where pods are.

use std::net::IpAddr;

use fairlead_datapath::overlay::{OVERHEAD_V4, OVERHEAD_V6};
use fairlead_datapath::peer::HopFlags;
use fairlead_objects::Node;
use ipnetwork::IpNetwork;

/// UDP port of the tunnel: IANA's for VXLAN, which firewalls and network cards know. Linux' own default, 8472, is what
/// flannel and Cilium use, and may be taken while one of them is being replaced.
pub const VXLAN_PORT: u16 = 4789;

/// The MTU that every link of IPv6 has (RFC 8200 section 5).
const LEAST_V6: u32 = 1280;

/// Whether packets between nodes go through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Tunnel {
    /// Only to nodes that are on none of this node's own networks
    #[default]
    Auto,
    /// To every node: for networks that check source addresses
    Always,
    /// Never: the network knows the ranges of pods
    Never,
}

/// Whose packets are accepted through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TunnelFrom {
    /// Those of nodes that this one reaches through it, or did in the last ten minutes
    #[default]
    Reached,
    /// Those of every node: while `tunnel` is being changed from one value to another
    Nodes,
}

/// What the settings say of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelSettings {
    /// Whether packets between nodes go through it.
    pub when: Tunnel,
    /// Whose packets are accepted.
    pub from: TunnelFrom,
    /// Its UDP port.
    pub port: u16,
}

impl TunnelSettings {
    /// Of a node whose pods another network connects: there is none.
    #[must_use]
    pub fn beside(self) -> Self {
        Self { when: Tunnel::Never, ..self }
    }

    /// The port that nodes alone send to, if there is a tunnel.
    #[must_use]
    pub fn guarded_port(&self) -> Option<u16> {
        (self.when != Tunnel::Never).then_some(self.port)
    }
}

/// The way of a family's packets to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To this address of it, which is on a network of this node.
    Direct(IpAddr),
    /// Through the tunnel.
    Tunnel,
    /// Where the routes of this node lead.
    Routed,
}

/// What the node's interfaces say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The interface that other nodes are reached by, 0 when there is none.
    pub ifindex: u32,
    /// MTU of the uplinks, the smallest, in bytes.
    pub mtu: u32,
    /// The node's own addresses, one of a family at most.
    pub addresses: Vec<IpAddr>,
    /// The networks that this interface is on.
    pub subnets: Vec<IpNetwork>,
    /// Whether packets to other nodes go through the tunnel, and whose come from there.
    pub tunnel: TunnelSettings,
}

impl Network {
    /// The node's own address of a family.
    #[must_use]
    pub fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }

    /// The way of a family's packets to another node. Both nodes come to the same where their networks have one length of
    /// prefix. What a node sends through the tunnel is accepted by those that reach it so, see [`TunnelFrom`]; what it sends
    /// otherwise always is.
    #[must_use]
    pub fn way(&self, node: &Node, v4: bool) -> Way {
        let near = address(node, v4).filter(|ip| self.subnets.iter().any(|subnet| subnet.contains(*ip)));
        match (self.tunnel.when, near) {
            (Tunnel::Auto | Tunnel::Never, Some(ip)) => Way::Direct(ip),
            (Tunnel::Auto | Tunnel::Always, _) if self.overhead(node).is_some() => Way::Tunnel,
            (_, Some(ip)) => Way::Direct(ip),
            (_, None) => Way::Routed,
        }
    }

    /// The ways to another node, as its record in the table says them.
    #[must_use]
    pub fn hop_flags(&self, node: &Node) -> u32 {
        let [v4, v6] = [true, false].map(|v4| self.way(node, v4));
        let of = |way, tunnel, routed| match way {
            Way::Direct(_) => 0,
            Way::Tunnel => tunnel,
            Way::Routed => routed,
        };
        let sends = match self.tunnel.from {
            TunnelFrom::Reached => v4 == Way::Tunnel || v6 == Way::Tunnel,
            TunnelFrom::Nodes => self.tunnel.when != Tunnel::Never,
        };
        of(v4, HopFlags::TUNNEL_V4, HopFlags::ROUTED_V4)
            | of(v6, HopFlags::TUNNEL_V6, HopFlags::ROUTED_V6)
            | if sends { HopFlags::SENDS } else { 0 }
    }

    /// What the tunnel to another node adds to a packet, by the family that both have; nothing if they share none.
    #[must_use]
    pub fn overhead(&self, node: &Node) -> Option<u32> {
        let shared = |v4| self.address(v4).is_some() && address(node, v4).is_some();
        [(true, OVERHEAD_V4), (false, OVERHEAD_V6)]
            .into_iter()
            .find_map(|(v4, overhead)| shared(v4).then_some(overhead))
    }

    /// The MTU of pods: what goes to every other node that is known. `nodes` may hold this one, which is `own`.
    #[must_use]
    #[expect(single_use_lifetimes, reason = "a lifetime in `impl Trait` can't be left out on stable")]
    pub fn pod_mtu<'a>(&self, own: &str, nodes: impl IntoIterator<Item = &'a Node>) -> u32 {
        let tunnelled =
            |node: &&Node| node.pod_cidrs.iter().any(|range| self.way(node, range.is_ipv4()) == Way::Tunnel);
        let others = nodes.into_iter().filter(|node| node.name != own);
        // Who always takes the tunnel knows before there is another node.
        let least = if self.tunnel.when == Tunnel::Always { self.own_overhead() } else { 0 };
        self.without(others.filter(tunnelled).filter_map(|node| self.overhead(node)).fold(least, Ord::max))
    }

    /// The MTU of the tunnel's device, for what the host's stack sends by it.
    #[must_use]
    #[expect(single_use_lifetimes, reason = "a lifetime in `impl Trait` can't be left out on stable")]
    pub fn tunnel_mtu<'a>(&self, own: &str, nodes: impl IntoIterator<Item = &'a Node>) -> u32 {
        let others = nodes.into_iter().filter(|node| node.name != own);
        self.without(others.filter_map(|node| self.overhead(node)).fold(self.own_overhead(), Ord::max))
    }

    /// The MTU without what a tunnel adds, but none on which Linux would have no IPv6: what is too large then is cut outside.
    fn without(&self, overhead: u32) -> u32 {
        self.mtu.saturating_sub(overhead).max(self.mtu.min(LEAST_V6))
    }

    fn own_overhead(&self) -> u32 {
        if self.address(true).is_some() { OVERHEAD_V4 } else { OVERHEAD_V6 }
    }
}

/// The address of a family that a node is reached by.
fn address(node: &Node, v4: bool) -> Option<IpAddr> {
    node.internal_ips.iter().map(IpAddr::to_canonical).find(|ip| ip.is_ipv4() == v4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ips: &[&str], pod_cidrs: &[&str]) -> Node {
        Node {
            leaving: false,
            name: name.into(),
            labels: [].into(),
            zone: None,
            internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            external_ips: vec![],
            pod_cidrs: pod_cidrs.iter().map(|range| range.parse().unwrap()).collect(),
            annotated: None,
        }
    }

    fn network(tunnel: Tunnel, addresses: &[&str]) -> Network {
        let subnets = addresses.iter().map(|ip| {
            let ip: IpAddr = ip.parse().unwrap();
            IpNetwork::new(ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap()
        });
        Network {
            ifindex: 2,
            mtu: 1500,
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            subnets: subnets.collect(),
            tunnel: TunnelSettings { when: tunnel, ..TunnelSettings::default() },
        }
    }

    const RANGES: &[&str] = &["10.244.2.0/24", "fd00:10:244:2::/64"];
    const OWN: &[&str] = &["172.18.0.11", "fd00:172:18::11"];

    #[test]
    fn nodes_beside_are_direct_and_others_behind_the_tunnel() {
        let beside = node("b", &["172.18.0.12", "fd00:172:18::12"], RANGES);
        let far = node("c", &["172.18.1.12", "fd00:172:18:1::12"], RANGES);
        let both = |tunnel, node: &Node| [true, false].map(|v4| network(tunnel, OWN).way(node, v4));
        let direct = [Way::Direct("172.18.0.12".parse().unwrap()), Way::Direct("fd00:172:18::12".parse().unwrap())];
        assert_eq!(both(Tunnel::Auto, &beside), direct);
        assert_eq!(both(Tunnel::Never, &beside), direct);
        assert_eq!(both(Tunnel::Always, &beside), [Way::Tunnel; 2]);
        assert_eq!(both(Tunnel::Auto, &far), [Way::Tunnel; 2]);
        assert_eq!(both(Tunnel::Always, &far), [Way::Tunnel; 2]);
        assert_eq!(both(Tunnel::Never, &far), [Way::Routed; 2]);
    }

    #[test]
    fn a_family_that_a_node_has_no_address_of_goes_through_the_tunnel() {
        let beside = node("b", &["172.18.0.12"], RANGES);
        let network = network(Tunnel::Auto, OWN);
        assert_eq!(network.way(&beside, true), Way::Direct("172.18.0.12".parse().unwrap()));
        assert_eq!(network.way(&beside, false), Way::Tunnel);
        assert_eq!(network.hop_flags(&beside), HopFlags::TUNNEL_V6 | HopFlags::SENDS);
        assert_eq!(Network { addresses: vec![], ..network }.way(&beside, false), Way::Routed);
    }

    #[test]
    fn a_node_sends_through_the_tunnel_that_is_reached_through_it_or_while_all_do() {
        let beside = node("b", &["172.18.0.12", "fd00:172:18::12"], RANGES);
        let far = node("c", &["172.18.1.12", "fd00:172:18:1::12"], RANGES);
        let sends = |when, from, node: &Node| {
            let tunnel = TunnelSettings { when, from, port: VXLAN_PORT };
            Network { tunnel, ..network(when, OWN) }.hop_flags(node) & HopFlags::SENDS != 0
        };
        use TunnelFrom::{Nodes, Reached};
        for (when, from, of_beside, of_far) in [
            (Tunnel::Auto, Reached, false, true),
            (Tunnel::Always, Reached, true, true),
            (Tunnel::Never, Reached, false, false),
            (Tunnel::Auto, Nodes, true, true),
            (Tunnel::Never, Nodes, false, false),
        ] {
            assert_eq!((sends(when, from, &beside), sends(when, from, &far)), (of_beside, of_far), "{when:?} {from:?}");
        }
    }

    #[test]
    fn the_mtu_of_pods_is_that_of_the_ways_in_use() {
        let own = node("a", OWN, RANGES);
        let beside = node("b", &["172.18.0.12", "fd00:172:18::12"], RANGES);
        let far = node("c", &["172.18.1.12", "fd00:172:18:1::12"], RANGES);
        let far_v6 = node("d", &["fd00:172:18:1::13"], RANGES);
        let mtu = |tunnel, nodes: &[&Node]| network(tunnel, OWN).pod_mtu("a", nodes.iter().copied());
        assert_eq!(mtu(Tunnel::Auto, &[&own, &beside]), 1500);
        assert_eq!(mtu(Tunnel::Auto, &[&own, &beside, &far]), 1450);
        assert_eq!(mtu(Tunnel::Auto, &[&own, &far, &far_v6]), 1430);
        assert_eq!(mtu(Tunnel::Never, &[&own, &far]), 1500);
        assert_eq!(mtu(Tunnel::Always, &[&own]), 1450);
        assert_eq!(network(Tunnel::Always, &OWN[1..]).pod_mtu("a", []), 1430);
        // A family without pods does not matter.
        let v4_only = node("b", &["172.18.0.12"], &RANGES[..1]);
        assert_eq!(mtu(Tunnel::Auto, &[&own, &v4_only]), 1500);
        assert_eq!(network(Tunnel::Auto, OWN).tunnel_mtu("a", [&own, &beside]), 1450);
        assert_eq!(network(Tunnel::Auto, OWN).tunnel_mtu("a", [&own, &far_v6]), 1430);
        // Never so small that Linux has no IPv6 on it, save where the uplink's is.
        for (uplink, expected) in [(1349, 1299), (1329, 1280), (1280, 1280), (900, 900)] {
            let small = Network { mtu: uplink, ..network(Tunnel::Auto, OWN) };
            assert_eq!((small.pod_mtu("a", [&far]), small.tunnel_mtu("a", [&far])), (expected, expected), "{uplink}");
        }
    }
}
