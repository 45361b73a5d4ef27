//! The veths of a node that lead into other network namespaces, and the addresses at their other ends: what another plugin has made
//! for pods.
//!
//! The kernel shows addresses of another network namespace to whoever is privileged in that (`IFA_TARGET_NETNSID`), by sockets that
//! have their requests checked strictly: of others it ignores the namespace (`inet_dump_ifaddr` in net/ipv4/devinet.c).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use fairlead_cni::Mac;
use futures::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::peers::{Asking, Mute, PATIENCE, Peer, REST, mac, mac_of};
use super::uplinks::{is_a, is_pod, local, name};
use super::{Netlink, WiringError};

/// How many addresses of one end are read.
const MOST: usize = 1024;

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
    /// Those addresses of the other end that were asked for.
    pub ips: Vec<IpAddr>,
}

/// The veths of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Veths {
    /// The names of all, by index, as the node itself has them: nothing that is done at the other end changes these.
    pub names: BTreeMap<u32, String>,
    /// Those that lead into other network namespaces and whose other ends were looked at.
    pub sides: Vec<Side>,
}

/// Looks for them, and remembers what it saw.
#[derive(Debug)]
pub struct Sides {
    netlink: Netlink,
    macs: Asking,
    addresses: Asking,
    seen: BTreeMap<u32, (Peer, Side)>,
    /// Those of which no answer came, and when.
    mute: BTreeMap<u32, Instant>,
}

impl Sides {
    /// Looks by this connection for links, and by ones of its own for what is at their other ends.
    #[must_use]
    pub fn new(netlink: Netlink) -> Self {
        Self {
            netlink,
            macs: Asking::default(),
            addresses: Asking::strict(),
            seen: BTreeMap::new(),
            mute: BTreeMap::new(),
        }
    }

    /// Every veth, and which of these addresses the other ends have, but for those at the settled indices. Of an end that does not
    /// answer, what was seen last counts.
    ///
    /// # Errors
    /// When the kernel refuses to list the node's links.
    pub async fn look(&mut self, wanted: &BTreeSet<IpAddr>, settled: &[u32]) -> Result<Veths, WiringError> {
        let links = self.netlink.list_links().await?;
        let mut names = BTreeMap::new();
        let mut before = std::mem::take(&mut self.seen);
        self.mute.retain(|at, since| since.elapsed() < REST && links.iter().any(|link| link.header.index == *at));
        for link in &links {
            let ifindex = link.header.index;
            let Some(name) = name(link).filter(|_| !is_pod(ifindex) && is_a(link, &InfoKind::Veth)) else { continue };
            names.insert(ifindex, name.clone());
            if settled.contains(&ifindex) {
                continue;
            }
            let Some(peer) = Peer::of(link) else { continue };
            let last = before.remove(&ifindex).filter(|(last, side)| last.is(&peer) && side.link == name);
            let host_mac = link.attributes.iter().find_map(mac).unwrap_or(Mac([0; 6]));
            let looked = match self.mute.contains_key(&ifindex) {
                true => Err(Mute),
                false => self.look_at(peer, wanted).await,
            };
            match looked {
                Ok(Some((pod_mac, ips))) => {
                    self.seen.insert(ifindex, (peer, Side { ifindex, link: name, host_mac, pod_mac, ips }));
                }
                // It went while it was looked at.
                Ok(None) => {}
                Err(Mute) => {
                    self.mute.entry(ifindex).or_insert_with(|| {
                        warn!(
                            link = name,
                            "the kernel does not tell of the other end of this veth (too many names or addresses?)"
                        );
                        Instant::now()
                    });
                    if let Some(last) = last {
                        self.seen.insert(ifindex, last);
                    }
                }
            }
        }
        Ok(Veths { names, sides: self.seen.values().map(|(_, side)| side.clone()).collect() })
    }

    async fn look_at(&mut self, peer: Peer, wanted: &BTreeSet<IpAddr>) -> Result<Option<(Mac, Vec<IpAddr>)>, Mute> {
        let handle = self.macs.handle().ok_or(Mute)?;
        let Some(mac) = mac_of(&handle, peer, PATIENCE).await.inspect_err(|_| self.macs.renew())? else {
            return Ok(None);
        };
        let handle = self.addresses.handle().ok_or(Mute)?;
        let mut read = Read::default();
        let outcome = timeout(PATIENCE, addresses_of(&handle, peer, wanted, &mut read)).await;
        if outcome.is_err() || read.count >= MOST {
            self.addresses.renew();
        }
        if outcome.is_err() { Err(Mute) } else { Ok(Some((mac, read.found))) }
    }
}

/// What was read of an end's addresses.
#[derive(Debug, Default)]
struct Read {
    found: Vec<IpAddr>,
    count: usize,
}

/// Reads an end's addresses, as many as [`MOST`], and keeps those that are wanted.
async fn addresses_of(handle: &Handle, peer: Peer, wanted: &BTreeSet<IpAddr>, read: &mut Read) {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = AddressMessage::default();
        (request.header.family, request.header.index) = (family, peer.index);
        request.attributes.push(AddressAttribute::TargetNetNsId(peer.netns));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetAddress(request));
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let Ok(mut answers) = handle.clone().request(message) else { continue };
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address))
                    if address.header.index == peer.index =>
                {
                    read.count += 1;
                    let own = local(&address).filter(|ip| is_own(ip) && wanted.contains(ip));
                    read.found.extend(own);
                    if read.count >= MOST {
                        return;
                    }
                }
                NetlinkPayload::Error(error) => {
                    debug!(%error, ?peer, "can't see the addresses of a veth's other end");
                }
                _ => {}
            }
        }
    }
}

/// Whether a pod can be known by an address.
fn is_own(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}
