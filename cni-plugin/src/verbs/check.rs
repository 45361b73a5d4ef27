//! CHECK

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use crate::client::Client;
use crate::conf::NetConf;
use crate::netlink::Netlink;
use crate::protocol::{Attachment, Request};
use crate::result::PrevResult;
use crate::wire::PodSide;
use crate::{Error, Mac, Version};

/// Fails when a link, address or route of `prevResult` is missing, or the agent does not know the attachment. What
/// others added is no concern of ours.
pub(crate) fn check(conf: &NetConf, attachment: &Attachment, netns: &str) -> Result<(), Error> {
    conf.version.require(Version::V0_4_0, "CHECK")?;
    let prev = conf.prev_result.as_ref().ok_or_else(|| Error::Config {
        key: "prevResult",
        reason: "missing; CHECK needs the result of ADD".to_owned(),
    })?;
    let prev = PrevResult::parse(prev)?;
    let reservation = Client::connect(&conf.socket)?.reservation(&Request::Check { attachment: attachment.clone() })?;

    let host = Netlink::open()?.link(&reservation.host_link)?;
    let host = expect_link(host, &reservation.host_link, "the node")?;
    if host.header.index != reservation.ifindex {
        let found = host.header.index;
        return Err(differs(format!("{} has index {found}, not {}", reservation.host_link, reservation.ifindex)));
    }

    let mut pod = PodSide::open(netns, true)?.netlink;
    let link = expect_link(pod.link(&attachment.ifname)?, &attachment.ifname, "the pod")?;
    for interface in prev.interfaces.iter().filter(|i| !i.sandbox.is_empty() && i.name == attachment.ifname) {
        if interface.mac.is_empty() {
            continue;
        }
        let mac: Mac =
            interface.mac.parse().map_err(|reason| Error::Config { key: "prevResult.interfaces.mac", reason })?;
        if !link.attributes.contains(&LinkAttribute::Address(mac.0.to_vec())) {
            return Err(differs(format!("{} does not have the MAC address that ADD set", attachment.ifname)));
        }
    }

    let addresses = pod.addresses()?;
    for ip in &prev.ips {
        let interface = ip.interface.and_then(|index| prev.interfaces.get(index));
        if interface.is_some_and(|i| i.sandbox.is_empty() || i.name != attachment.ifname) {
            continue;
        }
        let wanted = network(&ip.address, "prevResult.ips")?;
        if !addresses.iter().any(|found| found.header.index == link.header.index && address_is(found, wanted)) {
            return Err(differs(format!("{} has no address {}", attachment.ifname, ip.address)));
        }
    }

    let routes = pod.routes()?;
    for route in &prev.routes {
        let wanted = network(&route.dst, "prevResult.routes")?;
        if !routes.iter().any(|found| route_is(found, wanted, route.gw)) {
            let gateway = route.gw.map(|gw| format!(" via {gw}")).unwrap_or_default();
            return Err(differs(format!("the pod has no route to {}{gateway}", route.dst)));
        }
    }
    Ok(())
}

fn differs(text: String) -> Error {
    Error::Differs(text)
}

fn expect_link(link: Option<LinkMessage>, name: &str, place: &str) -> Result<LinkMessage, Error> {
    let link = link.ok_or_else(|| differs(format!("{name} is missing in {place}")))?;
    if link.header.flags.contains(LinkFlags::Up) {
        Ok(link)
    } else {
        Err(differs(format!("{name} of {place} is down")))
    }
}

fn network(text: &str, key: &'static str) -> Result<(IpAddr, u8), Error> {
    let parse = || {
        let (ip, length) = text.split_once('/')?;
        Some((ip.parse().ok()?, length.parse().ok()?))
    };
    parse().ok_or_else(|| Error::Config { key, reason: format!("{text:?} is not ADDRESS/LENGTH") })
}

fn address_is(found: &AddressMessage, (ip, length): (IpAddr, u8)) -> bool {
    let is = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(a) | AddressAttribute::Address(a) if *a == ip);
    found.header.prefix_len == length && found.attributes.iter().any(is)
}

fn route_is(found: &RouteMessage, (ip, length): (IpAddr, u8), gateway: Option<IpAddr>) -> bool {
    let family = if ip.is_ipv4() {
        netlink_packet_route::AddressFamily::Inet
    } else {
        netlink_packet_route::AddressFamily::Inet6
    };
    let destination = RouteAttribute::Destination(RouteAddress::from(ip));
    let gateway = gateway.map(|gw| RouteAttribute::Gateway(RouteAddress::from(gw)));
    found.header.address_family == family
        && found.header.destination_prefix_length == length
        && (length == 0 || found.attributes.contains(&destination))
        && gateway.is_none_or(|gateway| found.attributes.contains(&gateway))
}
