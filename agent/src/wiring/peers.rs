//! The MAC addresses that pods' sides of veth pairs have.
//!
//! A plugin behind ours in the chain may give a pod another one (`tuning`), and so may a pod that is permitted to. The node's
//! neighbour entries have to follow, or what the stack sends is addressed to nobody. The kernel shows a link of another
//! network namespace to whoever is privileged in that (`IFLA_TARGET_NETNSID`): nothing has to enter the pod, and no pod is
//! asked, so none can answer for another's addresses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fairlead_cni::Mac;
use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use tracing::debug;

use super::Netlink;

/// How long what was seen counts. Of a link that goes down to get another address the host side loses its carrier, so it is
/// looked at anew at once; nothing tells of one that gets it while it is up.
const FRESH: Duration = Duration::from_secs(9);

/// What was seen of pods' sides, by the index of the host side.
#[derive(Debug, Default)]
pub struct Peers(BTreeMap<u32, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    peer: Peer,
    at: Instant,
    mac: Option<Mac>,
}

/// Where the other end of a host side is, and how often the carrier has come and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    netns: i32,
    index: u32,
    changes: u32,
}

impl Peer {
    fn of(link: &LinkMessage) -> Option<Self> {
        let (mut netns, mut index, mut changes) = (None, None, 0);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::LinkNetNsId(id) => netns = Some(*id),
                LinkAttribute::Link(other) => index = Some(*other),
                LinkAttribute::CarrierChanges(count) => changes = *count,
                _ => {}
            }
        }
        // Below 0 the kernel knows no number for the namespace.
        Some(Self { netns: netns.filter(|id| *id >= 0)?, index: index?, changes })
    }
}

impl Netlink {
    /// The MAC addresses of the other ends of these links, by the links' own index. What can't be seen now is as it was last
    /// seen; what never was is missing.
    pub(super) async fn peers(&self, links: &[&LinkMessage], known: &mut Peers) -> BTreeMap<u32, Mac> {
        known.0.retain(|at, _| links.iter().any(|link| link.header.index == *at));
        for link in links {
            let (at, Some(peer)) = (link.header.index, Peer::of(link)) else { continue };
            let before = known.0.get(&at).copied();
            if before.is_some_and(|seen| seen.peer == peer && seen.at.elapsed() < FRESH) {
                continue;
            }
            // The same slot may be another pod's by now.
            let last = before.filter(|seen| (seen.peer.netns, seen.peer.index) == (peer.netns, peer.index));
            let mac = self.mac_of(peer).await.or(last.and_then(|seen| seen.mac));
            known.0.insert(at, Seen { peer, at: Instant::now(), mac });
        }
        known.0.iter().filter_map(|(at, seen)| Some((*at, seen.mac?))).collect()
    }

    async fn mac_of(&self, peer: Peer) -> Option<Mac> {
        let mut request = self.handle.link().get().match_index(peer.index);
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(peer.netns));
        let found: Result<Vec<LinkMessage>, _> = request.execute().try_collect().await;
        let found =
            found.inspect_err(|error| debug!(%error, ?peer, "the other end of a pod's link can't be seen")).ok()?;
        found.iter().flat_map(|link| &link.attributes).find_map(mac)
    }
}

/// A link's MAC address, if the attribute is that.
pub(super) fn mac(attribute: &LinkAttribute) -> Option<Mac> {
    match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    }
}
