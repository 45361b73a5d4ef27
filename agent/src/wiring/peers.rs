//! The MAC addresses that pods' sides of veth pairs have.
//!
//! A plugin behind ours in the chain may give a pod another one (`tuning`), and so may a pod that is permitted to. The node's
//! neighbour entries have to follow, or what the stack sends is addressed to nobody. The kernel shows a link of another
//! network namespace to whoever is privileged in that (`IFLA_TARGET_NETNSID`): nothing has to enter the pod, and no pod is
//! asked, so none can answer for another's addresses. It also tells of changes there (`NETLINK_LISTEN_ALL_NSID`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fairlead_cni::Mac;
use futures::TryStreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use tracing::debug;

use super::Netlink;
use super::uplinks::is_pod;

/// How long what was seen counts when nothing tells of a change.
const FRESH: Duration = Duration::from_secs(9);

/// What was seen of pods' sides, by the index of the host side.
#[derive(Debug, Default)]
pub struct Peers {
    seen: BTreeMap<u32, Seen>,
    changed: Changed,
}

/// Pods whose own side has changed since it was seen.
#[derive(Debug, Clone, Default)]
pub struct Changed(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// Whether messages were lost: then it may be any.
    all: bool,
    /// By the index of the host side: at most one for each slot.
    some: BTreeSet<u32>,
}

impl Noted {
    fn has(&self, host_side: u32) -> bool {
        self.all || self.some.contains(&host_side)
    }
}

impl Changed {
    /// Notes the pod whose side this is, if it is one. A namespace may have links that only claim to be one: nothing is
    /// taken from the message, and who is named is looked at once more.
    pub(super) fn note(&self, link: &LinkMessage) -> bool {
        let other = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Link(index) => Some(*index),
            _ => None,
        });
        let Some(host_side) = other.filter(|index| is_pod(*index)) else { return false };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).some.insert(host_side);
        true
    }

    /// Notes that messages were lost.
    pub(super) fn note_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all = true;
    }

    fn take(&self) -> Noted {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Peers {
    /// Where changes are noted.
    #[must_use]
    pub fn changed(&self) -> Changed {
        self.changed.clone()
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    peer: Peer,
    at: Instant,
    mac: Option<Mac>,
}

/// Where the other end of a host side is, and how often the carrier has come and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) netns: i32,
    pub(super) index: u32,
    changes: u32,
}

impl Peer {
    /// Whether the other end is the same, whatever has become of the carrier.
    pub(super) fn is(&self, other: &Self) -> bool {
        (self.netns, self.index) == (other.netns, other.index)
    }

    pub(super) fn of(link: &LinkMessage) -> Option<Self> {
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
        let changed = known.changed.take();
        let known = &mut known.seen;
        known.retain(|at, _| links.iter().any(|link| link.header.index == *at));
        for link in links {
            let (at, Some(peer)) = (link.header.index, Peer::of(link)) else { continue };
            let before = known.get(&at).copied();
            let is_fresh = |seen: Seen| seen.peer == peer && seen.at.elapsed() < FRESH && !changed.has(at);
            if before.is_some_and(is_fresh) {
                continue;
            }
            // The same slot may be another pod's by now.
            let last = before.filter(|seen| (seen.peer.netns, seen.peer.index) == (peer.netns, peer.index));
            let mac = self.mac_of(peer).await.or(last.and_then(|seen| seen.mac));
            known.insert(at, Seen { peer, at: Instant::now(), mac });
        }
        known.iter().filter_map(|(at, seen)| Some((*at, seen.mac?))).collect()
    }

    pub(super) async fn mac_of(&self, peer: Peer) -> Option<Mac> {
        let mut request = self.handle.link().get().match_index(peer.index);
        request.message_mut().attributes.push(LinkAttribute::IfNetnsId(peer.netns));
        let found: Result<Vec<LinkMessage>, _> = request.execute().try_collect().await;
        let found = found.inspect_err(|error| debug!(%error, ?peer, "can't see the pod side of a veth")).ok()?;
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
