//! The changes that wiring a pod is made of.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Operation;
use crate::Mac;
use crate::protocol::Reservation;

/// `IFLA_INET_CONF` (include/uapi/linux/if_link.h).
const IFLA_INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_RP_FILTER` (include/uapi/linux/ip.h).
const IPV4_DEVCONF_RP_FILTER: u16 = 8;

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Makes the veth pair, both sides down, with the pod's side born in its namespace: moving a device into another
/// namespace would wait for an RCU grace period, which is tens of milliseconds.
pub(crate) fn create_veth(reservation: &Reservation, ifname: &str, netns: BorrowedFd<'_>) -> Operation {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(ifname.to_owned()),
        LinkAttribute::Address(reservation.pod_mac.0.to_vec()),
        LinkAttribute::Mtu(reservation.mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let mut host = LinkMessage::default();
    host.header.index = reservation.ifindex;
    host.attributes = vec![
        LinkAttribute::IfName(reservation.host_link.clone()),
        LinkAttribute::Address(reservation.host_mac.0.to_vec()),
        LinkAttribute::Mtu(reservation.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    Operation {
        what: format!("create the veth pair {} and {ifname}", reservation.host_link),
        message: RouteNetlinkMessage::NewLink(host),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Removes a link, and with a veth its peer.
pub(crate) fn delete_link(name: &str) -> Operation {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    Operation { what: format!("delete the link {name}"), message: RouteNetlinkMessage::DelLink(link), flags: 0 }
}

/// Brings a link up.
pub(crate) fn set_up(index: u32, name: &str) -> Operation {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Operation { what: format!("bring {name} up"), message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}

/// Gives a link an alias, which `ip link` shows. The kernel takes none when it makes one.
pub(crate) fn set_alias(index: u32, name: &str, alias: &str) -> Operation {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    Operation { what: format!("set the alias of {name}"), message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}

/// Keeps the kernel from giving a link an IPv6 address of its own, which would go through duplicate address
/// detection.
pub(crate) fn no_automatic_address(index: u32, name: &str) -> Operation {
    let specs = vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])];
    set_specs(index, specs, format!("set the address generation mode of {name}"))
}

/// Switches the reverse path filter off: the datapath has its own, stricter source check.
pub(crate) fn no_reverse_path_filter(index: u32, name: &str) -> Operation {
    let mut nested = Vec::with_capacity(8);
    nested.extend_from_slice(&8u16.to_ne_bytes());
    nested.extend_from_slice(&IPV4_DEVCONF_RP_FILTER.to_ne_bytes());
    nested.extend_from_slice(&0u32.to_ne_bytes());
    let conf = DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, nested);
    let specs = vec![AfSpecUnspec::Inet(vec![AfSpecInet::Other(conf)])];
    set_specs(index, specs, format!("disable reverse path filtering on {name}"))
}

fn set_specs(index: u32, specs: Vec<AfSpecUnspec>, what: String) -> Operation {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::AfSpecUnspec(specs));
    Operation { what, message: RouteNetlinkMessage::SetLink(link), flags: 0 }
}

/// Gives a link an address that can be used at once: no duplicate address detection, no route for its prefix.
pub(crate) fn add_address(index: u32, ip: IpAddr, prefix_len: u8) -> Operation {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    if matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        message.header.scope = AddressScope::Link;
    }
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    let mut flags = AddressFlags::Permanent;
    if ip.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    if prefix_len == full_length(ip) {
        flags |= AddressFlags::Noprefixroute;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    Operation {
        what: format!("add the address {ip}/{prefix_len}"),
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

/// Tells a link the MAC address of a neighbour for good.
pub(crate) fn add_neighbour(index: u32, ip: IpAddr, mac: Mac) -> Operation {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    let destination = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message.attributes =
        vec![NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    Operation {
        what: format!("add the neighbour {ip}"),
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

/// A route to one address on a link, or the default route through a gateway on it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Route {
    /// Everything goes through this gateway.
    DefaultVia(IpAddr),
    /// This address is on the link; the stack talks to it from `source`.
    To {
        /// The destination.
        ip: IpAddr,
        /// The preferred source.
        source: Option<IpAddr>,
        /// The route's metric, where it is not the best.
        metric: Option<u32>,
    },
}

/// Adds a route, or takes over one that is there.
pub(crate) fn add_route(index: u32, route: Route, protocol: RouteProtocol) -> Operation {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = protocol;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Oif(index));
    let what = match route {
        Route::DefaultVia(gateway) => {
            message.header.address_family = family(gateway);
            message.header.scope = RouteScope::Universe;
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
            format!("add the default route via {gateway}")
        }
        Route::To { ip, source, metric } => {
            message.header.address_family = family(ip);
            message.header.scope = if ip.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
            message.header.destination_prefix_length = full_length(ip);
            message.attributes.push(RouteAttribute::Destination(RouteAddress::from(ip)));
            if let Some(source) = source {
                message.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
            }
            message.attributes.extend(metric.map(RouteAttribute::Priority));
            format!("add the route to {ip}")
        }
    };
    Operation { what, message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_REPLACE }
}
