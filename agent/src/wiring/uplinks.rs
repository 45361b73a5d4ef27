//! The devices by which the node reaches the world.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use fairlead_cni::Mac;
use fairlead_cni::protocol::{FIRST_POD_IFINDEX, SLOTS};
use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, VlanFlags,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::source::{Candidate, ranked};
use super::{Netlink, WiringError, overlay};
use fairlead_datapath::svc;

/// A device by which IP enters or leaves the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// MAC address; nothing for devices that have none, as tunnels.
    pub mac: Option<Mac>,
    /// Its addresses with their prefix lengths, link-local ones too. What leaves by it has the first of its family that is not.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether other nodes are reached by it, as far as can be told: it has a default route or an address of the Node object.
    /// What goes between nodes and what pods may send follows from these.
    pub is_primary: bool,
    /// Whether it has an address or a route.
    pub has_ip: bool,
    /// Whether its queues keep each packet until its departure time, as fq does.
    pub paces: bool,
    /// How its packets begin.
    pub framing: Framing,
    /// Whether a VLAN device stands on it.
    pub has_vlans: bool,
}

/// How the packets of a device begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// With an Ethernet header.
    Ethernet,
    /// With IP.
    Bare,
    /// With something that the programs do not read.
    Other,
}

impl Framing {
    /// The kernel takes for devices of packets without a header what `dev_is_mac_header_xmit` names (include/linux/if_arp.h),
    /// and since 5.14 all of them bring packets that begin with what was inside.
    fn of(link: &LinkMessage) -> Self {
        match link.header.link_layer_type {
            LinkLayerType::Ether if keeps_tags(link) => Self::Other,
            LinkLayerType::Ether => Self::Ethernet,
            LinkLayerType::None | LinkLayerType::Rawip | LinkLayerType::Ppp => Self::Bare,
            LinkLayerType::Tunnel | LinkLayerType::Tunnel6 | LinkLayerType::Sit => Self::Bare,
            // One without another end, or with a group, has the tunnel's own header before each packet (`ipgre_header_ops` in
            // net/ipv4/ip_gre.c).
            LinkLayerType::Ipgre | LinkLayerType::Ip6gre if has_other_end(link) => Self::Bare,
            _ => Self::Other,
        }
    }
}

/// Whether a device is a VLAN's and has its tags in its packets (`reorder_hdr off`): the header that the kernel says they have is
/// four bytes further on. A device without flags says nothing of them (`vlan_fill_info` in net/8021q/vlan_netlink.c).
fn keeps_tags(link: &LinkMessage) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|info| match info {
        LinkInfo::Data(InfoData::Vlan(vlan)) => !vlan
            .iter()
            .any(|info| matches!(info, InfoVlan::Flags((flags, _)) if flags.contains(VlanFlags::ReorderHdr))),
        _ => false,
    })
}

/// Whether a tunnel leads to one host, whose address its link-layer address for all is.
fn has_other_end(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::Broadcast(bytes) => match *bytes.as_slice() {
            [a, b, c, d] => !IpAddr::from([a, b, c, d]).is_multicast() && [a, b, c, d] != [0; 4],
            ref other => <[u8; 16]>::try_from(other)
                .is_ok_and(|ip| !IpAddr::from(ip).is_multicast() && !IpAddr::from(ip).is_unspecified()),
        },
        _ => false,
    })
}

impl Uplink {
    /// Whether an address is on one of its networks.
    #[must_use]
    pub fn reaches(&self, ip: IpAddr) -> bool {
        self.subnets().any(|subnet| subnet.contains(ip))
    }

    /// The networks that it is on.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> {
        self.addresses.iter().filter_map(|&(own, prefix)| IpNetwork::new(own, prefix).ok())
    }
}

/// What the kernel says about devices, addresses and routes.
#[derive(Debug, Clone, Default)]
struct Dump {
    links: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
    queues: Vec<TcMessage>,
}

impl Netlink {
    /// The uplinks, in order of their index: what has an address or a route. Bridges' ports and bonds' members are not, what they
    /// are ports and members of is. `node_ips` are the node's internal addresses.
    ///
    /// # Errors
    /// When the kernel refuses to list something.
    pub async fn uplinks(&self, node_ips: &[IpAddr]) -> Result<Vec<Uplink>, WiringError> {
        let mut uplinks = self.uplinks_and_candidates(node_ips).await?;
        uplinks.retain(|uplink| uplink.has_ip);
        Ok(uplinks)
    }

    /// The same with what would be one if it had an address or a route.
    ///
    /// # Errors
    /// When the kernel refuses to list something.
    pub async fn uplinks_and_candidates(&self, node_ips: &[IpAddr]) -> Result<Vec<Uplink>, WiringError> {
        Ok(uplinks(&self.dump().await?, node_ips))
    }

    /// The node's addresses, in order, that others may know: neither loopback nor link-local.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, WiringError> {
        let found: BTreeSet<IpAddr> =
            self.list_addresses().await?.iter().filter_map(local).filter(is_known_to_others).collect();
        Ok(found.into_iter().collect())
    }

    /// Every interface with its MTU.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn mtus(&self) -> Result<Vec<(String, u32)>, WiringError> {
        let dump = self.dump().await?;
        Ok(dump.links.iter().filter_map(|link| Some((name(link)?, mtu(link)?))).collect())
    }

    /// The addresses, in order, by which all hosts of a network that the node is on are meant, as the kernel has them: what is sent
    /// there it takes itself. Not those of loopback.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn broadcasts(&self) -> Result<Vec<Ipv4Addr>, WiringError> {
        Ok(broadcasts(&self.routes().await?))
    }

    async fn dump(&self) -> Result<Dump, WiringError> {
        let (links, addresses) = (self.list_links().await?, self.list_addresses().await?);
        let queues = self.handle.qdisc().get().execute().try_collect().await;
        let queues = queues.map_err(|e| WiringError::kernel("list queues", &e))?;
        Ok(Dump { links, addresses, routes: self.routes().await?, queues })
    }

    pub(super) async fn routes(&self) -> Result<Vec<RouteMessage>, WiringError> {
        let requests =
            [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<std::net::Ipv6Addr>::new().build()];
        let mut routes = Vec::new();
        for request in requests {
            let family: Vec<RouteMessage> = self
                .handle
                .route()
                .get(request)
                .execute()
                .try_collect()
                .await
                .map_err(|e| WiringError::kernel("list routes", &e))?;
            routes.extend(family);
        }
        Ok(routes)
    }
}

fn broadcasts(routes: &[RouteMessage]) -> Vec<Ipv4Addr> {
    let to = |route: &RouteMessage| {
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) if !ip.is_loopback() => Some(*ip),
            _ => None,
        })
    };
    let found: BTreeSet<Ipv4Addr> =
        routes.iter().filter(|route| route.header.kind == RouteType::Broadcast).filter_map(to).collect();
    found.into_iter().collect()
}

pub(super) fn is_pod(ifindex: u32) -> bool {
    (FIRST_POD_IFINDEX..FIRST_POD_IFINDEX + u32::from(SLOTS)).contains(&ifindex)
}

fn uplinks(dump: &Dump, node_ips: &[IpAddr]) -> Vec<Uplink> {
    let routes = dump.routes.iter().filter(|route| route.header.kind == RouteType::Unicast);
    let [defaults, all]: [BTreeSet<u32>; 2] = [0, u8::MAX].map(|most| {
        routes.clone().filter(|route| route.header.destination_prefix_length <= most).flat_map(devices).collect()
    });
    let vrfs: BTreeSet<u32> = dump.links.iter().filter(|link| is_a(link, &InfoKind::Vrf)).map(index).collect();
    let leads_out = |link: &&LinkMessage| {
        let is_ours = [overlay::IFINDEX, svc::IFINDEX, svc::PEER_IFINDEX].contains(&index(link));
        let of_others = link.header.flags.contains(LinkFlags::Loopback) || is_pod(index(link)) || is_ours;
        // Nothing comes in by a device that is none, and a program for frames reads nothing else.
        !of_others && !is_a(link, &InfoKind::Dummy) && controller(link).is_none_or(|master| vrfs.contains(&master))
    };
    let mut found: Vec<Uplink> = dump
        .links
        .iter()
        .filter(leads_out)
        .filter_map(|link| {
            let mut uplink = uplink(link, dump, node_ips, defaults.contains(&index(link)))?;
            uplink.has_ip = !uplink.addresses.is_empty() || all.contains(&uplink.ifindex);
            Some(uplink)
        })
        .collect();
    found.sort_by_key(|uplink| uplink.ifindex);
    found
}

const fn index(link: &LinkMessage) -> u32 {
    link.header.index
}

/// Whether it is a device of a kind.
pub(super) fn is_a(link: &LinkMessage, kind: &InfoKind) -> bool {
    let infos = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().any(|info| matches!(info, LinkInfo::Kind(is) if is == kind))
}

/// The device that it stands on.
fn below(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })
}

/// The device that it is a port or member of.
fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

fn uplink(link: &LinkMessage, dump: &Dump, node_ips: &[IpAddr], has_default_route: bool) -> Option<Uplink> {
    let (ifindex, name, mtu) = (index(link), name(link)?, mtu(link)?);
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    let of_link = dump.addresses.iter().filter(|address| address.header.index == ifindex);
    let candidates = of_link.filter_map(|address| Some(Candidate::new(local(address)?, address))).collect();
    let sources: Vec<IpAddr> =
        dump.routes.iter().filter(|route| devices(route).contains(&ifindex)).filter_map(preferred_source).collect();
    let addresses = ranked(candidates, node_ips, &sources);
    let is_primary = has_default_route || addresses.iter().any(|(ip, _)| node_ips.contains(ip));
    let paces = paces(&dump.queues, ifindex);
    let has_vlans = dump.links.iter().any(|other| is_a(other, &InfoKind::Vlan) && below(other) == Some(ifindex));
    Some(Uplink {
        ifindex,
        name,
        mtu,
        mac,
        addresses,
        is_primary,
        has_ip: false,
        paces,
        framing: Framing::of(link),
        has_vlans,
    })
}

/// The source that a default route names, which whoever leaves by it gets.
fn preferred_source(route: &RouteMessage) -> Option<IpAddr> {
    if route.header.destination_prefix_length != 0 {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// Whether what leaves by a device waits in fq: in one for the device, or in one for each of its hardware queues.
pub(super) fn paces(queues: &[TcMessage], ifindex: u32) -> bool {
    let here = |queue: &&TcMessage| u32::try_from(queue.header.index) == Ok(ifindex);
    let kind = |queue: &TcMessage| {
        queue.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.clone()),
            _ => None,
        })
    };
    let is = |queue: &TcMessage, name: &str| kind(queue).is_some_and(|kind| kind == name);
    let Some(root) = queues.iter().filter(here).find(|queue| queue.header.parent == TcHandle::ROOT) else {
        return false;
    };
    let mut of_root = queues.iter().filter(here).filter(|queue| queue.header.parent.major == root.header.handle.major);
    is(root, "fq") || (is(root, "mq") && of_root.clone().next().is_some() && of_root.all(|queue| is(queue, "fq")))
}

pub(super) fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The device's own address. On a point-to-point device `IFA_ADDRESS` is the peer's (include/uapi/linux/if_addr.h).
pub(super) fn local(address: &AddressMessage) -> Option<IpAddr> {
    let own = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    own.or_else(|| {
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

fn is_known_to_others(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

fn devices(route: &RouteMessage) -> Vec<u32> {
    let of = |attributes: &[RouteAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    };
    let hops = route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    });
    of(&route.attributes).into_iter().chain(hops).collect()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::AddressFamily;

    use super::*;

    /// A device of a kind, the port or member of another, with an address or without.
    fn device(dump: &mut Dump, index: u32, kind: Option<InfoKind>, of: Option<u32>, ip: Option<&str>) {
        let mut link = LinkMessage::default();
        (link.header.index, link.header.link_layer_type) = (index, LinkLayerType::Ether);
        link.attributes = vec![LinkAttribute::IfName(format!("dev{index}")), LinkAttribute::Mtu(1500)];
        link.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        link.attributes.extend(of.map(LinkAttribute::Controller));
        dump.links.push(link);
        let Some(ip) = ip else { return };
        let mut address = AddressMessage::default();
        (address.header.index, address.header.prefix_len, address.header.family) = (index, 24, AddressFamily::Inet);
        address.attributes = vec![AddressAttribute::Local(ip.parse().unwrap())];
        dump.addresses.push(address);
    }

    #[test]
    fn s82_a_vlan_device_is_noted_at_what_it_stands_on() {
        let mut dump = Dump::default();
        device(&mut dump, 2, None, None, Some("172.18.0.1"));
        device(&mut dump, 3, None, None, Some("172.19.0.1"));
        device(&mut dump, 4, Some(InfoKind::Vlan), None, Some("192.0.2.1"));
        dump.links[2].attributes.push(LinkAttribute::Link(3));
        let found: Vec<_> = uplinks(&dump, &[]).iter().map(|uplink| (uplink.ifindex, uplink.has_vlans)).collect();
        assert_eq!(found, [(2, false), (3, true), (4, false)]);
    }

    #[test]
    fn s73_what_is_a_part_of_another_device_is_left_alone() {
        let mut dump = Dump::default();
        let mut add = |index, kind, of, ip| device(&mut dump, index, kind, of, ip);
        add(2, Some(InfoKind::Bond), None, Some("172.18.0.1"));
        add(3, None, Some(2), Some("172.18.0.2"));
        add(4, Some(InfoKind::Vlan), None, Some("192.0.2.1"));
        add(5, Some(InfoKind::Vlan), Some(6), Some("192.0.2.2"));
        add(6, Some(InfoKind::Bridge), None, Some("198.51.100.1"));
        add(7, Some(InfoKind::Vrf), None, None);
        add(8, None, Some(7), Some("203.0.113.1"));
        add(9, Some(InfoKind::Dummy), None, Some("10.96.0.10"));
        add(10, None, None, None);
        for (index, of) in [(20, Some(6)), (21, None)] {
            add(index, Some(InfoKind::Veth), of, Some("169.254.3.4"));
        }
        let found = uplinks(&dump, &["172.18.0.1".parse().unwrap()]);
        let with_ip = found.iter().filter(|uplink| uplink.has_ip);
        let indices: Vec<_> = with_ip.map(|uplink| (uplink.ifindex, uplink.is_primary)).collect();
        assert_eq!(indices, [(2, true), (4, false), (6, false), (8, false), (21, false)]);
    }

    #[test]
    fn s81_tunnels_are_read_from_the_packet_inside_on_and_what_is_not_read_is_known() {
        let framing = |kind: LinkLayerType, broadcast: Option<&str>| {
            let mut link = LinkMessage::default();
            link.header.link_layer_type = kind;
            let bytes = broadcast.map(|ip| match ip.parse().unwrap() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            });
            link.attributes.extend(bytes.map(LinkAttribute::Broadcast));
            Framing::of(&link)
        };
        use LinkLayerType::{Ether, Infiniband, Ip6gre, Ipgre, None, Ppp, Rawip, Sit, Tunnel, Tunnel6};
        assert_eq!(framing(Ether, Option::None), Framing::Ethernet);
        for kind in [None, Rawip, Ppp, Tunnel, Tunnel6, Sit] {
            assert_eq!(framing(kind, Option::None), Framing::Bare, "{kind}");
            assert_eq!(framing(kind, Some("0.0.0.0")), Framing::Bare, "{kind}, as of 6to4");
        }
        for (kind, end, group) in [(Ipgre, "192.0.2.1", "239.0.0.1"), (Ip6gre, "2001:db8::1", "ff02::1")] {
            assert_eq!(framing(kind, Some(end)), Framing::Bare, "{kind}");
            let nobody = if end.contains(':') { "::" } else { "0.0.0.0" };
            for other in [Option::None, Some(nobody), Some(group)] {
                assert_eq!(framing(kind, other), Framing::Other, "{kind} {other:?}");
            }
        }
        assert_eq!(framing(Infiniband, Option::None), Framing::Other);
    }

    #[test]
    fn s79_a_vlan_device_that_keeps_its_tags_is_not_read() {
        let framing = |infos: Vec<LinkInfo>| {
            let mut link = LinkMessage::default();
            link.header.link_layer_type = LinkLayerType::Ether;
            link.attributes.push(LinkAttribute::LinkInfo(infos));
            Framing::of(&link)
        };
        let vlan =
            |infos: Vec<InfoVlan>| framing(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(infos))]);
        let all = VlanFlags::all();
        assert_eq!(vlan(vec![InfoVlan::Id(7), InfoVlan::Flags((VlanFlags::ReorderHdr, all))]), Framing::Ethernet);
        assert_eq!(vlan(vec![InfoVlan::Flags((VlanFlags::ReorderHdr | VlanFlags::Gvrp, all))]), Framing::Ethernet);
        assert_eq!(vlan(vec![InfoVlan::Id(7)]), Framing::Other);
        assert_eq!(vlan(vec![InfoVlan::Flags((VlanFlags::Gvrp, all))]), Framing::Other);
        assert_eq!(framing(vec![LinkInfo::Kind(InfoKind::Veth)]), Framing::Ethernet);
    }

    #[test]
    fn p82_broadcast_addresses_are_those_that_the_kernel_takes_for_such() {
        let route = |kind: RouteType, ip: [u8; 4]| {
            let mut route = RouteMessage::default();
            route.header.kind = kind;
            route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(ip.into())));
            route
        };
        let routes = [
            route(RouteType::Broadcast, [172, 18, 255, 255]),
            route(RouteType::Local, [172, 18, 0, 1]),
            route(RouteType::Broadcast, [127, 255, 255, 255]),
            route(RouteType::Unicast, [10, 0, 0, 255]),
            route(RouteType::Broadcast, [10, 0, 0, 15]),
            route(RouteType::Broadcast, [172, 18, 255, 255]),
        ];
        assert_eq!(broadcasts(&routes), [Ipv4Addr::new(10, 0, 0, 15), Ipv4Addr::new(172, 18, 255, 255)]);
    }

    #[test]
    fn s73_hundreds_of_interfaces_are_uplinks_that_change_nothing_between_nodes() {
        let mut dump = Dump::default();
        device(&mut dump, 2, None, None, Some("172.18.0.1"));
        for index in 100..400 {
            device(&mut dump, index, Some(InfoKind::Veth), None, Some("169.254.3.4"));
        }
        let found = uplinks(&dump, &["172.18.0.1".parse().unwrap()]);
        assert_eq!(found.len(), 301);
        let node_ips: Vec<IpAddr> = vec!["172.18.0.1".parse().unwrap()];
        let network = crate::compile::node::network(&found, &[], None, crate::network::TunnelSettings::default());
        assert_eq!((network.addresses, network.subnets.len(), network.ifindex), (node_ips, 1, 2));
    }
}
