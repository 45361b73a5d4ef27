//! The veths of a node that lead into other network namespaces, and the addresses at their other ends: what another plugin has made
//! for pods.
//!
//! The kernel shows addresses of another network namespace to whoever is privileged in that (`IFA_TARGET_NETNSID`), by sockets that
//! have their requests checked strictly: of others it ignores the namespace (`inet_dump_ifaddr` in net/ipv4/devinet.c).

use std::collections::BTreeMap;
use std::net::IpAddr;

use fairlead_cni::Mac;
use futures::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tracing::debug;

use super::peers::{Peer, mac};
use super::uplinks::{is_a, is_pod, local, name};
use super::{Netlink, WiringError};

/// A veth whose other end is in a network namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The index of the end on the node.
    pub ifindex: u32,
    /// The name of that.
    pub link: String,
    /// Its MAC address.
    pub host_mac: Mac,
    /// That of the other end.
    pub pod_mac: Mac,
    /// The addresses of the other end, none that are link-local.
    pub ips: Vec<IpAddr>,
}

/// Looks for them, and remembers what it saw.
#[derive(Debug)]
pub struct Sides {
    netlink: Netlink,
    strict: Handle,
    seen: BTreeMap<u32, (Peer, Side)>,
}

impl Sides {
    /// Opens a connection of its own.
    ///
    /// # Errors
    /// When the socket can't be opened.
    pub fn open(netlink: Netlink) -> Result<Self, WiringError> {
        let (connection, strict, _) = rtnetlink::new_connection_with_strict_check().map_err(WiringError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { netlink, strict, seen: BTreeMap::new() })
    }

    /// Every such veth. `again`: what was seen before may have changed, but for those at these indices.
    ///
    /// # Errors
    /// When the kernel refuses to list the node's links.
    pub async fn look(&mut self, again: bool, but: &[u32]) -> Result<Vec<Side>, WiringError> {
        let links = self.netlink.list_links().await?;
        let mut seen = BTreeMap::new();
        for link in &links {
            let ifindex = link.header.index;
            let (Some(peer), Some(name)) = (Peer::of(link), name(link)) else { continue };
            if is_pod(ifindex) || !is_a(link, &InfoKind::Veth) {
                continue;
            }
            let known = self.seen.remove(&ifindex).filter(|(before, side)| before.is(&peer) && side.link == name);
            let known = known.filter(|_| !again || but.contains(&ifindex));
            if let Some(known) = known {
                seen.insert(ifindex, known);
                continue;
            }
            // One that goes while it is looked at has none.
            let Some(pod_mac) = self.netlink.mac_of(peer).await else { continue };
            let host_mac = link.attributes.iter().find_map(mac).unwrap_or(Mac([0; 6]));
            let ips = self.addresses_of(peer).await;
            seen.insert(ifindex, (peer, Side { ifindex, link: name, host_mac, pod_mac, ips }));
        }
        self.seen = seen;
        Ok(self.seen.values().map(|(_, side)| side.clone()).collect())
    }

    async fn addresses_of(&self, peer: Peer) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = AddressMessage::default();
            (request.header.family, request.header.index) = (family, peer.index);
            request.attributes.push(AddressAttribute::TargetNetNsId(peer.netns));
            let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(request));
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let Ok(mut answers) = self.strict.clone().request(message) else { continue };
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address))
                        if address.header.index == peer.index =>
                    {
                        found.extend(local(&address).filter(is_own));
                    }
                    NetlinkPayload::Error(error) => {
                        debug!(%error, ?peer, "can't see the addresses of a veth's other end");
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// Whether a pod can be known by an address.
fn is_own(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}
