//! The wiring of pods as the kernel shows it, and the steps that put it right.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use fairlead_cni::Mac;
use fairlead_cni::protocol::POD_ROUTE_PROTOCOL;
use futures::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use super::links::{pod_link, pod_route};
use super::{Netlink, Peers, Sysctls, WiringError, peers};
use crate::repair::{FilterPlace, Filters, HaveLink, HavePods, Setting, Step};

/// The names of a host side.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The one that it has.
    pub now: &'a str,
    /// The one that it should have.
    pub right: &'a str,
}

impl Netlink {
    /// What there is of pods on the node's side. `peers`: what was seen of the other side before.
    ///
    /// # Errors
    /// When the kernel refuses to list something.
    pub async fn pods(&self, peers: &mut Peers) -> Result<HavePods, WiringError> {
        let refused = |what: &'static str| move |e| WiringError::kernel(what, &e);
        let links = self.handle.link().get().execute();
        let links: Vec<LinkMessage> = links.try_collect().await.map_err(refused("list links"))?;
        let neighbours = self.handle.neighbours().get().execute();
        let neighbours: Vec<NeighbourMessage> = neighbours.try_collect().await.map_err(refused("list neighbours"))?;
        let of_pods: Vec<&LinkMessage> = links.iter().filter(|link| pod_link(link).is_some()).collect();
        let macs = self.peers(&of_pods, peers).await;
        let have = |link: &&LinkMessage| have_link(link, macs.get(&link.header.index).copied());
        let links: BTreeMap<u32, HaveLink> = of_pods.iter().filter_map(have).collect();
        let routes = self.routes().await?;
        let routes = routes.iter().filter_map(pod_route).map(|(slot, ip)| (index(slot), ip));
        let neighbours = neighbours.iter().filter_map(permanent).filter(|((at, _), _)| links.contains_key(at));
        Ok(HavePods { routes: routes.collect(), neighbours: neighbours.collect(), links })
    }

    /// Does one thing for a pod. `source` is the node's own address of the family, for the node's own packets.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn mend(
        &self,
        step: Step,
        names: Names<'_>,
        source: Option<IpAddr>,
        sysctls: &Sysctls,
    ) -> Result<(), WiringError> {
        let name = names.now;
        match step {
            Step::Release(at) => self.set_attribute(at, LinkAttribute::Controller(0), name).await,
            Step::Mtu(at, mtu) => self.set_attribute(at, LinkAttribute::Mtu(mtu), name).await,
            Step::Mac(at, mac) => self.set_attribute(at, LinkAttribute::Address(mac.0.to_vec()), name).await,
            Step::Up(at) => self.set_up(at, true, name).await,
            Step::Rename(at) => {
                let rename = || self.set_attribute(at, LinkAttribute::IfName(names.right.to_owned()), name);
                match rename().await {
                    // Before Linux 6.2 a link has to be down for it. Its routes are put back by the next look.
                    Err(error) if error.errno() == Some(Errno::EBUSY as i32) => {
                        self.set_up(at, false, name).await?;
                        let renamed = rename().await;
                        self.set_up(at, true, name).await.and(renamed)
                    }
                    result => result,
                }
            }
            Step::Set(_, setting) => sysctls.set_device(&key(setting, name), setting.value()),
            Step::Neighbour(at, ip, mac) => {
                let request = self.handle.neighbours().add(at, ip).state(NeighbourState::Permanent).replace();
                let result = request.link_layer_address(&mac.0).execute().await;
                result.map_err(|e| WiringError::kernel(format!("add the neighbour {ip} at {name}"), &e))
            }
            Step::Route(at, ip) => match self.add_pod_route(at, ip, source, name).await {
                // An address that the node has lost since is no reason to do without the route.
                Err(error) if source.is_some() && error.errno() == Some(Errno::EINVAL as i32) => {
                    self.add_pod_route(at, ip, None, name).await
                }
                result => result,
            },
            Step::Unroute(at, ip) => {
                let result = self.handle.route().del(route(at, ip, None)).execute().await;
                result.map_err(|e| WiringError::kernel(format!("delete the route to {ip} at {name}"), &e))
            }
        }
    }

    /// The filters of these interfaces that are programs.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn filters(&self, interfaces: &BTreeSet<u32>) -> Result<Filters, WiringError> {
        let mut filters = Filters { as_of: Instant::now(), interfaces: interfaces.clone(), programs: BTreeMap::new() };
        let of_ingress_alone = self.of_ingress_alone().await?;
        for &ifindex in interfaces {
            let Ok(at) = i32::try_from(ifindex) else { continue };
            for ingress in [true, false] {
                if !ingress && of_ingress_alone.contains(&ifindex) {
                    continue;
                }
                let request = self.handle.traffic_filter(at).get();
                let request = if ingress { request.ingress() } else { request.egress() };
                let found: Result<Vec<TcMessage>, _> = request.execute().try_collect().await;
                match found.map_err(|e| WiringError::kernel(format!("list the filters of interface {ifindex}"), &e)) {
                    Ok(found) => {
                        filters
                            .programs
                            .extend(found.iter().filter_map(|filter| have_filter(filter, ifindex, ingress)));
                    }
                    // It went in between.
                    Err(error) if error.errno() == Some(Errno::ENODEV as i32) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(filters)
    }

    /// The interfaces with an `ingress` qdisc where clsact would be: of those the kernel shows filters of what comes in as those
    /// of what leaves, of which there are none.
    async fn of_ingress_alone(&self) -> Result<BTreeSet<u32>, WiringError> {
        let found: Result<Vec<TcMessage>, _> = self.handle.qdisc().get().execute().try_collect().await;
        let found = found.map_err(|e| WiringError::kernel("list qdiscs", &e))?;
        let is_it = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "ingress");
        let of_them = found.iter().filter(|qdisc| qdisc.attributes.iter().any(is_it));
        Ok(of_them.filter_map(|qdisc| u32::try_from(qdisc.header.index).ok()).collect())
    }

    async fn set_attribute(&self, at: u32, attribute: LinkAttribute, name: &str) -> Result<(), WiringError> {
        let mut message = LinkMessage::default();
        message.header.index = at;
        message.attributes.push(attribute);
        self.set_link(message, name).await
    }

    async fn set_up(&self, at: u32, up: bool, name: &str) -> Result<(), WiringError> {
        let mut message = LinkMessage::default();
        message.header.index = at;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
        self.set_link(message, name).await
    }

    async fn set_link(&self, message: LinkMessage, name: &str) -> Result<(), WiringError> {
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| WiringError::kernel(format!("change the link {name}"), &e))
    }

    async fn add_pod_route(&self, at: u32, ip: IpAddr, source: Option<IpAddr>, name: &str) -> Result<(), WiringError> {
        let result = self.handle.route().add(route(at, ip, source)).replace().execute().await;
        result.map_err(|e| WiringError::kernel(format!("add the route to {ip} at {name}"), &e))
    }
}

fn index(slot: u16) -> u32 {
    fairlead_cni::protocol::FIRST_POD_IFINDEX + u32::from(slot)
}

fn key(setting: Setting, name: &str) -> String {
    match setting {
        Setting::ForwardingV4 => format!("net/ipv4/conf/{name}/forwarding"),
        Setting::ForwardingV6 => format!("net/ipv6/conf/{name}/forwarding"),
        Setting::RpFilter => format!("net/ipv4/conf/{name}/rp_filter"),
        Setting::DisableIpv6 => format!("net/ipv6/conf/{name}/disable_ipv6"),
    }
}

fn have_link(message: &LinkMessage, peer_mac: Option<Mac>) -> Option<(u32, HaveLink)> {
    let link = pod_link(message)?;
    let mac = message.attributes.iter().find_map(peers::mac);
    let mut settings = BTreeMap::new();
    let specs = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(specs) => Some(specs),
        _ => None,
    });
    for spec in specs.flatten() {
        match spec {
            AfSpecUnspec::Inet(all) => all.iter().for_each(|spec| {
                if let AfSpecInet::DevConf(conf) = spec {
                    settings.insert(Setting::ForwardingV4, conf.forwarding);
                    settings.insert(Setting::RpFilter, conf.rp_filter);
                }
            }),
            AfSpecUnspec::Inet6(all) => all.iter().for_each(|spec| {
                if let AfSpecInet6::DevConf(conf) = spec {
                    settings.insert(Setting::ForwardingV6, conf.forwarding);
                    settings.insert(Setting::DisableIpv6, conf.disable_ipv6);
                }
            }),
            _ => {}
        }
    }
    let mtu = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })?;
    let is_port = message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Controller(1..)));
    let up = message.header.flags.contains(LinkFlags::Up);
    Some((message.header.index, HaveLink { name: link.name, up, mtu, is_port, mac, peer_mac, settings }))
}

fn permanent(message: &NeighbourMessage) -> Option<((u32, IpAddr), Mac)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })?;
    Some(((message.header.ifindex, ip), mac))
}

fn have_filter(message: &TcMessage, ifindex: u32, ingress: bool) -> Option<(FilterPlace, u32)> {
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let program = options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })?;
    Some((FilterPlace { ifindex, ingress, priority }, program))
}

/// The route to a pod, as ADD makes it.
fn route(at: u32, ip: IpAddr, source: Option<IpAddr>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(POD_ROUTE_PROTOCOL);
    message.header.scope = if ip.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(at), RouteAttribute::Destination(RouteAddress::from(ip))];
    message.attributes.extend(source.map(|ip| RouteAttribute::PrefSource(RouteAddress::from(ip))));
    message
}
