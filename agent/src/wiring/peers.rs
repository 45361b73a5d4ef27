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
use futures::{StreamExt, TryStreamExt, stream};
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Netlink;
use super::uplinks::is_pod;

/// How long what was seen counts when nothing tells of a change.
const FRESH: Duration = Duration::from_secs(9);

/// How long an answer is waited for, and one that did not come the last time.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
const LESS_PATIENCE: Duration = Duration::from_millis(100);

/// How long nothing is asked of a side of which no answer came.
pub(super) const REST: Duration = Duration::from_secs(30);

/// How many are asked about at once: so many answers the socket has room for.
const AT_ONCE: usize = 4;

/// What was seen of pods' sides, by the index of the host side.
#[derive(Debug, Default)]
pub struct Peers {
    seen: BTreeMap<u32, Seen>,
    changed: Changed,
    asking: Asking,
}

/// A connection of its own for questions about other network namespaces. What is in those decides how long an answer is, and one
/// that is longer than the room for it never comes (a link may have names for 64 KiB): then the connection is made anew, so that
/// nothing waits in it.
#[derive(Debug, Default)]
pub(super) struct Asking {
    open: Option<(Handle, AbortHandle)>,
    strict: bool,
}

impl Asking {
    /// One whose requests the kernel checks strictly.
    pub(super) fn strict() -> Self {
        Self { open: None, strict: true }
    }

    /// The connection, opened if need be. `None`: it can't be.
    pub(super) fn handle(&mut self) -> Option<Handle> {
        if let Some((handle, _)) = &self.open {
            return Some(handle.clone());
        }
        let opened = if self.strict {
            rtnetlink::new_connection_with_strict_check()
                .map(|(connection, handle, _)| (tokio::spawn(connection), handle))
        } else {
            rtnetlink::new_connection().map(|(connection, handle, _)| (tokio::spawn(connection), handle))
        };
        let (worker, handle) =
            opened.inspect_err(|error| warn!(%error, "can't open a socket to look at the pod sides of veths")).ok()?;
        self.open = Some((handle.clone(), worker.abort_handle()));
        Some(handle)
    }

    /// Ends the connection, with whatever waits in it.
    pub(super) fn renew(&mut self) {
        if let Some((_, worker)) = self.open.take() {
            worker.abort();
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.renew();
    }
}

/// No answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mute;

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
    /// Whether no answer came.
    mute: bool,
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
        let Peers { seen: known, asking, .. } = known;
        known.retain(|at, _| links.iter().any(|link| link.header.index == *at));
        let mut due = Vec::new();
        for link in links {
            let (at, Some(peer)) = (link.header.index, Peer::of(link)) else { continue };
            // The same slot may be another pod's by now.
            let before = known.get(&at).copied();
            let last = before.filter(|seen| seen.peer.is(&peer));
            let is_fresh = |seen: Seen| seen.peer == peer && seen.at.elapsed() < FRESH && !changed.has(at);
            let rests = |seen: Seen| seen.mute && seen.at.elapsed() < REST;
            if !before.is_some_and(is_fresh) && !last.is_some_and(rests) {
                due.push((at, peer, last));
            }
        }
        if !due.is_empty()
            && let Some(handle) = asking.handle()
        {
            let ask = |(at, peer, last): (u32, Peer, Option<Seen>)| {
                let handle = handle.clone();
                let was_mute = last.is_some_and(|seen| seen.mute);
                let wait = if was_mute { LESS_PATIENCE } else { PATIENCE };
                async move {
                    let answer = mac_of(&handle, peer, wait).await;
                    let mac = answer.ok().flatten().or(last.and_then(|seen| seen.mac));
                    (at, was_mute, Seen { peer, at: Instant::now(), mac, mute: answer.is_err() })
                }
            };
            let answers: Vec<_> = stream::iter(due).map(ask).buffer_unordered(AT_ONCE).collect().await;
            for (at, was_mute, seen) in answers {
                if seen.mute {
                    asking.renew();
                    if !was_mute {
                        warn!(
                            ifindex = at,
                            "the kernel does not tell of the pod side of this interface (too many names?): its MAC address is \
                             taken for what it was"
                        );
                    }
                }
                known.insert(at, seen);
            }
        }
        known.iter().filter_map(|(at, seen)| Some((*at, seen.mac?))).collect()
    }
}

/// The MAC address of the other end of a veth; `None` if the kernel shows none.
///
/// # Errors
/// No answer comes in that time.
pub(super) async fn mac_of(handle: &Handle, peer: Peer, wait: Duration) -> Result<Option<Mac>, Mute> {
    let mut request = handle.link().get().match_index(peer.index);
    request.message_mut().attributes.push(LinkAttribute::IfNetnsId(peer.netns));
    let answers = request.execute().try_collect::<Vec<LinkMessage>>();
    let found = match timeout(wait, answers).await {
        Err(_) | Ok(Err(rtnetlink::Error::RequestFailed)) => return Err(Mute),
        Ok(Err(error)) => {
            debug!(%error, ?peer, "can't see the pod side of a veth");
            return Ok(None);
        }
        Ok(Ok(found)) => found,
    };
    Ok(found.iter().flat_map(|link| &link.attributes).find_map(mac))
}

/// A link's MAC address, if the attribute is that.
pub(super) fn mac(attribute: &LinkAttribute) -> Option<Mac> {
    match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    }
}
