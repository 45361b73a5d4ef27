//! The device by which the node itself sends to addresses of services where no socket hook has seen the socket: one end of a
//! veth pair, whose program sees what leaves by it and sends it elsewhere. By the other end nothing ever comes.
//!
//! A dummy would do, but not every kernel has those; without veth there are no pods. Routes lead there to each address of a
//! service, or to the ranges that the settings name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fairlead_datapath::svc::{MAC, PEER_IFINDEX};
use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::{Netlink, NodeRoute, Via, WiringError};
use crate::network::Network;

pub use fairlead_datapath::svc::IFINDEX;

/// Its name.
pub const NAME: &str = "fairlead.svc";

/// The name of its other end.
pub const PEER: &str = "fairlead.peer";

/// Addresses that are routed one by one, so that what looks at routes has no thousands of them to look at.
pub const MOST: usize = 512;

/// So long the route to an address stays that no Service has any more. Connections to a Service outlive it; without the route they
/// would leave by the node's default route, and with it what is of none is refused.
const LINGERS: Duration = Duration::from_secs(3600);

/// So many of those routes stay, those that were left last.
const MOST_LEFT: usize = 256;

/// The routes to services, and how many addresses have none because there are too many. `ranges` are routed as a whole, and
/// addresses outside of them one by one; of a family that the node has no address of, nothing is. Each address comes with its
/// namespace: where there is no room for all, each namespace has one in turn, so that none takes the room of others. Of several the
/// ones that have a route `before` go first: a new address takes no other's.
#[must_use]
pub fn desired<N: Ord>(
    ranges: &[IpNetwork],
    addresses: impl IntoIterator<Item = (N, IpAddr)>,
    before: &BTreeSet<NodeRoute>,
    network: &Network,
) -> (BTreeSet<NodeRoute>, usize) {
    let source = |ip: IpAddr| network.address(ip.is_ipv4());
    let routed: BTreeSet<IpAddr> = before.iter().filter(|route| is_single(route)).map(|r| r.destination.ip()).collect();
    let canonical = |range: &IpNetwork| IpNetwork::new(range.network(), range.prefix()).ok();
    let ranges: BTreeSet<IpNetwork> = ranges.iter().filter_map(canonical).collect();
    let has_own = |ip: &IpAddr| source(*ip).is_some() && !ranges.iter().any(|range| range.contains(*ip));
    let mut of: BTreeMap<N, BTreeSet<(bool, IpAddr)>> = BTreeMap::new();
    for (namespace, ip) in addresses.into_iter().filter(|(_, ip)| has_own(ip)) {
        of.entry(namespace).or_default().insert((!routed.contains(&ip), ip));
    }
    let in_turn: BTreeSet<(usize, (bool, IpAddr))> =
        of.into_values().flat_map(|ips| ips.into_iter().enumerate()).collect();
    let left_out = in_turn.len().saturating_sub(MOST);
    let single = in_turn.into_iter().take(MOST).map(|(_, (_, ip))| IpNetwork::from(ip));
    (ranges.into_iter().chain(single).filter_map(|to| route(to, network)).collect(), left_out)
}

/// The route to a prefix, if the node has an address of its family.
fn route(destination: IpNetwork, network: &Network) -> Option<NodeRoute> {
    let source = network.address(destination.is_ipv4())?;
    Some(NodeRoute { destination, via: Via::Services(source) })
}

/// Whether a route leads to one address of a service.
fn is_single(route: &NodeRoute) -> bool {
    let bits = if route.destination.is_ipv4() { 32 } else { 128 };
    matches!(route.via, Via::Services(_)) && route.destination.prefix() == bits
}

/// Routes to single addresses that no Service has any more, and since when.
#[derive(Debug, Default)]
pub struct Left(BTreeMap<IpNetwork, Instant>);

impl Left {
    /// What is wanted, and of what there was before what was left a short time ago.
    #[must_use]
    pub fn with(
        &mut self,
        before: &BTreeSet<NodeRoute>,
        mut wanted: BTreeSet<NodeRoute>,
        network: &Network,
        now: Instant,
    ) -> BTreeSet<NodeRoute> {
        let is_wanted = |to: IpNetwork| wanted.iter().any(|route| route.destination.contains(to.ip()));
        let left = before.iter().filter(|route| is_single(route) && !is_wanted(route.destination));
        let since = left.map(|route| (self.0.get(&route.destination).copied().unwrap_or(now), route.destination));
        let mut since: Vec<_> = since.filter(|(since, _)| now.saturating_duration_since(*since) < LINGERS).collect();
        since.sort_by_key(|(since, to)| (Reverse(*since), *to));
        since.truncate(MOST_LEFT);
        self.0 = since.into_iter().map(|(since, to)| (to, since)).collect();
        wanted.extend(self.0.keys().filter_map(|to| route(*to, network)));
        wanted
    }
}

impl Netlink {
    /// Makes the device be there, with this MTU. A new one stays down: [`Netlink::raise_svc`]. Says whether it is up, as it
    /// should be.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn keep_svc(&self, mtu: u32) -> Result<bool, WiringError> {
        match self.svc().await?.as_slice() {
            [link] if is_right(link) => {
                if !link.attributes.contains(&LinkAttribute::Mtu(mtu)) {
                    self.change_svc(IFINDEX, "set the MTU of", |message| {
                        message.attributes.push(LinkAttribute::Mtu(mtu));
                    })
                    .await?;
                }
                // Without a carrier the other end is down.
                return Ok(link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp));
            }
            others => {
                for link in others {
                    self.delete_svc(link.header.index).await?;
                }
            }
        }
        let made = self.handle.link().add(device(mtu)).execute().await;
        made.map_err(|e| WiringError::kernel(format!("create {NAME}"), &e))?;
        for (ifindex, flags) in [(IFINDEX, LinkFlags::Noarp), (PEER_IFINDEX, LinkFlags::Noarp)] {
            self.change_svc(ifindex, "take ARP from", |message| {
                (message.header.flags, message.header.change_mask) = (flags, flags);
            })
            .await?;
            let silent = self.change_svc(ifindex, "silence", |message| {
                let spec = vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)];
                message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(spec)]));
            });
            match silent.await {
                Err(error) if error.errno() != Some(Errno::EAFNOSUPPORT as i32) => return Err(error),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Sets it up, once its program is attached.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn raise_svc(&self) -> Result<(), WiringError> {
        for ifindex in [PEER_IFINDEX, IFINDEX] {
            self.change_svc(ifindex, "set up", |message| {
                (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
            })
            .await?;
        }
        Ok(())
    }

    /// Removes it, if there is one, and its routes with it. Says whether there was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn remove_svc(&self) -> Result<bool, WiringError> {
        let found = self.svc().await?;
        for link in &found {
            self.delete_svc(link.header.index).await?;
        }
        Ok(!found.is_empty())
    }

    /// Whether the device is there, or something in its place.
    ///
    /// # Errors
    /// The kernel refuses to say.
    pub async fn has_svc(&self) -> Result<bool, WiringError> {
        self.svc().await.map(|links| !links.is_empty())
    }

    /// Whatever has its name or its index, or is in the way of its other end: one link if all is well.
    async fn svc(&self) -> Result<Vec<LinkMessage>, WiringError> {
        let mut found: Vec<LinkMessage> = Vec::new();
        for request in [
            self.handle.link().get().match_name(NAME.to_owned()),
            self.handle.link().get().match_index(IFINDEX),
            self.handle.link().get().match_name(PEER.to_owned()),
            self.handle.link().get().match_index(PEER_IFINDEX),
        ] {
            let links: Result<Vec<LinkMessage>, _> = request.execute().try_collect().await;
            match links.map_err(|e| WiringError::kernel(format!("show {NAME}"), &e)) {
                Ok(links) => found.extend(links),
                Err(error) if error.errno() != Some(Errno::ENODEV as i32) => return Err(error),
                Err(_) => {}
            }
        }
        found.sort_by_key(|link| link.header.index);
        found.dedup_by_key(|link| link.header.index);
        // The other end goes with it.
        let whole = found.iter().any(is_right);
        found.retain(|link| !(whole && link.header.index == PEER_IFINDEX));
        Ok(found)
    }

    async fn delete_svc(&self, ifindex: u32) -> Result<(), WiringError> {
        let deleted = self.handle.link().del(ifindex).execute().await;
        match deleted.map_err(|e| WiringError::kernel(format!("delete {NAME}"), &e)) {
            // With one end goes the other.
            Err(error) if error.errno() == Some(Errno::ENODEV as i32) => Ok(()),
            result => result,
        }
    }

    async fn change_svc(
        &self,
        ifindex: u32,
        what: &str,
        change: impl FnOnce(&mut LinkMessage),
    ) -> Result<(), WiringError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        change(&mut message);
        let result = self.handle.link().set(message).execute().await;
        result.map_err(|e| WiringError::kernel(format!("{what} {NAME}"), &e))
    }
}

/// The pair as it is to be made.
fn device(mtu: u32) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.header.index = PEER_IFINDEX;
    peer.attributes = vec![LinkAttribute::IfName(PEER.to_owned())];
    let mut message = LinkMessage::default();
    message.header.index = IFINDEX;
    message.attributes = vec![
        LinkAttribute::IfName(NAME.to_owned()),
        LinkAttribute::Address(MAC.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    message
}

/// Whether a device is one that [`device`] made, and nobody has changed what matters.
fn is_right(link: &LinkMessage) -> bool {
    let is_veth = link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(info) if info.contains(&LinkInfo::Kind(InfoKind::Veth)))
    });
    let has = |attribute| link.attributes.contains(&attribute);
    is_veth
        && link.header.index == IFINDEX
        && link.header.flags.contains(LinkFlags::Noarp)
        && has(LinkAttribute::IfName(NAME.to_owned()))
        && has(LinkAttribute::Address(MAC.to_vec()))
        && has(LinkAttribute::Link(PEER_IFINDEX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> Network {
        Network {
            addresses: ["172.18.0.1", "fd00:172:18::1"].map(|ip| ip.parse().unwrap()).into(),
            ..Network::default()
        }
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn s80_ranges_that_are_named_are_routed_whole_and_other_addresses_one_by_one() {
        let addresses: Vec<IpAddr> = parse(&["10.96.0.1", "10.97.0.1", "fd00:10:96::1"]);
        let to = |ranges: &[&str], network: &Network| {
            let (routes, left_out) =
                desired(&parse(ranges), addresses.iter().map(|ip| ("shop", *ip)), &BTreeSet::new(), network);
            assert_eq!(left_out, 0);
            let own = |route: &NodeRoute| network.address(route.destination.is_ipv4()).map(Via::Services);
            assert!(routes.iter().all(|route| Some(route.via) == own(route)), "{routes:?}");
            routes.iter().map(|route| route.destination.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(to(&[], &network()), ["10.96.0.1/32", "10.97.0.1/32", "fd00:10:96::1/128"]);
        assert_eq!(to(&["10.96.0.7/16"], &network()), ["10.96.0.0/16", "10.97.0.1/32", "fd00:10:96::1/128"]);
        let v6 = Network { addresses: parse(&["fd00:172:18::1"]), ..Network::default() };
        assert_eq!(to(&["10.96.0.0/12"], &v6), ["fd00:10:96::1/128"]);
    }

    #[test]
    fn s80_no_namespace_takes_the_routes_of_others() {
        let at = |host: u16| IpAddr::from([10, 96, (host >> 8) as u8, host as u8]);
        let many = (0..1500).map(|host| ("many", at(host)));
        let few = (2000..2100).map(|host| ("few", at(host)));
        let (routes, left_out) = desired(&[], many.chain(few), &BTreeSet::new(), &network());
        let is_routed = |host: u16| routes.iter().any(|route| route.destination == IpNetwork::from(at(host)));
        assert!((2000..2100).all(is_routed) && routes.len() == MOST && left_out == 1600 - MOST);
    }

    #[test]
    fn s80_a_new_address_takes_no_others_route() {
        let at = |host: u16| IpAddr::from([10, 96, (host >> 8) as u8, host as u8]);
        for others in ["one", "two"] {
            let old = (1000..1600).map(|host| (if host % 2 == 0 { "one" } else { "two" }, at(host)));
            let (before, _) = desired(&[], old.clone(), &BTreeSet::new(), &network());
            let (after, left_out) = desired(&[], old.chain([(others, at(1))]), &before, &network());
            assert_eq!((&before, left_out), (&after, 601 - MOST));
        }
    }

    #[test]
    fn s80_what_no_service_has_any_more_stays_routed_for_a_time_and_so_many_of_it() {
        let (mut left, start, network) = (Left::default(), Instant::now(), network());
        let at = |seconds| start + Duration::from_secs(seconds);
        let to = |hosts: std::ops::Range<u16>| -> BTreeSet<NodeRoute> {
            let address = |host: u16| IpAddr::from([10, 96, (host >> 8) as u8, host as u8]);
            hosts.filter_map(|host| route(address(host).into(), &network)).collect()
        };
        let all = to(0..300);
        assert_eq!(left.with(&all, to(0..300), &network, at(0)), all);
        assert_eq!(left.with(&all, to(100..300), &network, at(1)), all, "a hundred are left");
        let rest = left.with(&all, BTreeSet::new(), &network, at(2));
        assert_eq!(rest.len(), MOST_LEFT);
        assert!(to(100..300).is_subset(&rest), "those that were left last");
        // One that comes back is left anew; what a range holds, or what is no single address, does not stay.
        assert_eq!(left.with(&rest, to(200..201), &network, at(3000)), rest);
        assert_eq!(left.with(&rest, BTreeSet::new(), &network, at(3500)), rest);
        assert_eq!(left.with(&rest, BTreeSet::new(), &network, at(3602)), to(200..201));
        let range: BTreeSet<_> = [route("10.96.0.0/16".parse().unwrap(), &network).unwrap()].into();
        assert_eq!(left.with(&to(200..201), range.clone(), &network, at(3700)), range);
        assert_eq!(left.with(&range, BTreeSet::new(), &network, at(3700)), BTreeSet::new());
    }

    proptest! {
        #[test]
        fn s80_each_address_has_a_route_or_is_counted(
            hosts in prop::collection::btree_set(any::<u16>(), 0..1500),
            ranges in prop::collection::vec((any::<u16>(), 18_u8..=32), 0..3),
        ) {
            let at = |host: u16| IpAddr::from([10, 96, (host >> 8) as u8, host as u8]);
            let ranges: Vec<_> =
                ranges.into_iter().map(|(host, length)| IpNetwork::new(at(host), length).unwrap()).collect();
            let addresses = hosts.iter().map(|host| (host % 3, at(*host)));
            let (routes, left_out) = desired(&ranges, addresses, &BTreeSet::new(), &network());
            let is_routed = |ip: IpAddr| routes.iter().any(|route| route.destination.contains(ip));
            prop_assert_eq!(hosts.iter().filter(|host| !is_routed(at(**host))).count(), left_out);
            prop_assert!(routes.len() <= MOST + ranges.len());
            // And nothing else has one.
            let is_meant = |host: u16| hosts.contains(&host) || ranges.iter().any(|range| range.contains(at(host)));
            prop_assert!((0..=u16::MAX).step_by(97).all(|host| !is_routed(at(host)) || is_meant(host)));
        }
    }
}
