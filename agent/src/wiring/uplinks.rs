//! The devices by which the node reaches the world.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_cni::Mac;
use fairlead_cni::protocol::{FIRST_POD_IFINDEX, SLOTS};
use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{Netlink, WiringError};

/// A device that has an address of the node, or a default route.
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
    /// Its addresses with their prefix lengths, link-local ones too.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether a default route leaves by it.
    pub has_default_route: bool,
    /// Whether its queues keep each packet until its departure time, as fq does.
    pub paces: bool,
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
    /// The uplinks, in order of their index. `node_ips` are the node's internal addresses.
    ///
    /// # Errors
    /// When the kernel refuses to list something.
    pub async fn uplinks(&self, node_ips: &[IpAddr]) -> Result<Vec<Uplink>, WiringError> {
        Ok(uplinks(&self.dump().await?, node_ips))
    }

    /// The node's addresses, in order, that others may know: neither loopback nor link-local.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn addresses(&self) -> Result<Vec<IpAddr>, WiringError> {
        let refused = |e| WiringError::kernel("list addresses", &e);
        let all: Vec<AddressMessage> = self.handle.address().get().execute().try_collect().await.map_err(refused)?;
        let found: BTreeSet<IpAddr> = all.iter().filter_map(local).filter(is_known_to_others).collect();
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

    async fn dump(&self) -> Result<Dump, WiringError> {
        let refused = |what: &'static str| move |e| WiringError::kernel(what, &e);
        let links = self.handle.link().get().execute().try_collect().await.map_err(refused("list links"))?;
        let addresses = self.handle.address().get().execute().try_collect().await.map_err(refused("list addresses"))?;
        let queues = self.handle.qdisc().get().execute().try_collect().await.map_err(refused("list queues"))?;
        Ok(Dump { links, addresses, routes: self.routes().await?, queues })
    }

    pub(super) async fn routes(&self) -> Result<Vec<RouteMessage>, WiringError> {
        let requests = [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ];
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

pub(super) fn is_pod(ifindex: u32) -> bool {
    (FIRST_POD_IFINDEX..FIRST_POD_IFINDEX + u32::from(SLOTS)).contains(&ifindex)
}

fn uplinks(dump: &Dump, node_ips: &[IpAddr]) -> Vec<Uplink> {
    let default_routes: BTreeSet<u32> = dump.routes.iter().flat_map(default_devices).collect();
    let mut found: Vec<Uplink> = dump
        .links
        .iter()
        .filter(|link| !link.header.flags.contains(LinkFlags::Loopback) && !is_pod(link.header.index))
        .filter_map(|link| uplink(link, dump, default_routes.contains(&link.header.index)))
        .filter(|uplink| uplink.has_default_route || uplink.addresses.iter().any(|(ip, _)| node_ips.contains(ip)))
        .collect();
    found.sort_by_key(|uplink| uplink.ifindex);
    found
}

fn uplink(link: &LinkMessage, dump: &Dump, has_default_route: bool) -> Option<Uplink> {
    let (name, mtu) = (name(link)?, mtu(link)?);
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    });
    let of_link = dump.addresses.iter().filter(|address| address.header.index == link.header.index);
    let addresses = of_link.filter_map(|a| Some((local(a)?, a.header.prefix_len))).collect();
    let paces = paces(&dump.queues, link.header.index);
    Some(Uplink { ifindex: link.header.index, name, mtu, mac, addresses, has_default_route, paces })
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

fn name(link: &LinkMessage) -> Option<String> {
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
fn local(address: &AddressMessage) -> Option<IpAddr> {
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

fn default_devices(route: &RouteMessage) -> Vec<u32> {
    if route.header.destination_prefix_length != 0 || route.header.kind != RouteType::Unicast {
        return Vec::new();
    }
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
