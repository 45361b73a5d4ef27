//! The host sides of pods' veth pairs: which exist, and how they go.
//!
//! Deleting a link holds the RTNL lock over several RCU grace periods, some 40 ms, and everybody else who wires
//! something waits. A hundred links deleted as one group take little more than one. So deletions that come while one
//! is under way are collected, and the next takes all of them.

use std::net::IpAddr;

use fairlead_cni::protocol::{FIRST_POD_IFINDEX, HOST_LINK_PREFIX, POD_ROUTE_PROTOCOL, SLOTS, is_network_alias};
use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use tokio::sync::{mpsc, oneshot};

use super::{Netlink, WiringError};

/// The device group into which links go to be deleted together. No one else's: it spells "fair".
const DELETION_GROUP: u32 = 0x6661_6972;

/// A host side that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Its slot, from its index.
    pub slot: u16,
    /// Its name.
    pub name: String,
    /// Its alias, from which its network is known.
    pub alias: Option<String>,
    /// The addresses that are routed to it.
    pub ips: Vec<IpAddr>,
}

type Deletion = (String, oneshot::Sender<Result<(), WiringError>>);

/// Lists and deletes host sides. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PodLinks {
    netlink: Netlink,
    deletions: mpsc::UnboundedSender<Deletion>,
}

impl PodLinks {
    /// Starts the worker that deletes.
    #[must_use]
    pub fn new(netlink: Netlink) -> Self {
        let (deletions, received) = mpsc::unbounded_channel();
        tokio::spawn(delete_in_batches(netlink.clone(), received));
        Self { netlink, deletions }
    }

    /// The host sides that exist, with the addresses routed to each.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub async fn list(&self) -> Result<Vec<PodLink>, WiringError> {
        // Of one moment: a pod whose link is left out is taken for one that is gone.
        let links = self.netlink.list_links().await?;
        let mut found: Vec<PodLink> = links.iter().filter_map(pod_link).collect();
        for (slot, ip) in self.netlink.routes().await?.iter().filter_map(pod_route) {
            if let Some(link) = found.iter_mut().find(|link| link.slot == slot) {
                link.ips.push(ip);
            }
        }
        Ok(found)
    }

    /// Deletes a host side and waits until it is gone, routes, neighbours and the pod's side included. None of that
    /// name is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn delete(&self, name: &str) -> Result<(), WiringError> {
        let (answer, done) = oneshot::channel();
        self.deletions.send((name.to_owned(), answer)).map_err(|_| WiringError::Stopping)?;
        done.await.unwrap_or(Err(WiringError::Stopping))
    }
}

fn slot(ifindex: u32) -> Option<u16> {
    let slot = u16::try_from(ifindex.checked_sub(FIRST_POD_IFINDEX)?).ok()?;
    (slot < SLOTS).then_some(slot)
}

pub(super) fn pod_link(link: &LinkMessage) -> Option<PodLink> {
    let slot = slot(link.header.index)?;
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let alias = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.clone()),
        _ => None,
    });
    // One that somebody has renamed (udev does) is a pod's all the same; those of earlier releases have no alias.
    let is_veth = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(info) => info.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    });
    let ours = is_veth || name.starts_with(HOST_LINK_PREFIX) || alias.as_deref().is_some_and(is_network_alias);
    ours.then_some(PodLink { slot, name, alias, ips: Vec::new() })
}

pub(super) fn pod_route(route: &RouteMessage) -> Option<(u16, IpAddr)> {
    // What others have copied to another table leads to no pod.
    if route.header.protocol != RouteProtocol::Other(POD_ROUTE_PROTOCOL)
        || route.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let slot = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => slot(*index),
        _ => None,
    })?;
    let ip = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    Some((slot, ip))
}

async fn delete_in_batches(netlink: Netlink, mut deletions: mpsc::UnboundedReceiver<Deletion>) {
    let mut batch = Vec::new();
    while deletions.recv_many(&mut batch, usize::from(SLOTS)).await > 0 {
        match batch.len() {
            1 => {
                for (name, answer) in batch.drain(..) {
                    let _gone = answer.send(delete_one(&netlink, &name).await);
                }
            }
            _ => delete_group(&netlink, &mut batch).await,
        }
    }
}

async fn delete_one(netlink: &Netlink, name: &str) -> Result<(), WiringError> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let result = netlink.handle.link().del_with_message(message).execute().await;
    missing_is_fine(result.map_err(|e| WiringError::kernel(format!("delete the link {name}"), &e)))
}

/// Puts each link into the group, then deletes the group.
async fn delete_group(netlink: &Netlink, batch: &mut Vec<Deletion>) {
    let mut grouped = Vec::new();
    for (name, answer) in batch.drain(..) {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.clone()), LinkAttribute::Group(DELETION_GROUP)];
        let result = netlink.handle.link().set(message).execute().await;
        match result.map_err(|e| WiringError::kernel(format!("put the link {name} into a group"), &e)) {
            Ok(()) => grouped.push((name, answer)),
            Err(error) => drop(answer.send(missing_is_fine(Err(error)))),
        }
    }
    if grouped.is_empty() {
        return;
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(DELETION_GROUP));
    let whole = netlink.handle.link().del_with_message(message).execute().await;
    for (name, answer) in grouped {
        // When the group could not be deleted, one link may be why: each for itself then.
        let result = if whole.is_ok() { Ok(()) } else { delete_one(netlink, &name).await };
        let _gone = answer.send(result);
    }
}

fn missing_is_fine(result: Result<(), WiringError>) -> Result<(), WiringError> {
    match result {
        Err(error) if error.errno() == Some(Errno::ENODEV as i32) => Ok(()),
        result => result,
    }
}
