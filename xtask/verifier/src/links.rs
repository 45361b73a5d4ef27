//! The interfaces that frames come in by: some with the indexes that the frames' hooks have, in a network namespace of
//! their own, so that neither the machine's interfaces nor its sockets have a say. No frame leaves a program, so it does not
//! matter of which kind they are: not every kernel has each.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use nix::sched::{CloneFlags, unshare};

use crate::netlink::Netlink;

/// What is added to an index to have that of the far end.
pub(crate) const FAR_ENDS: u32 = 1_000_000_000;

/// Puts this thread into a network namespace that has interfaces with these indexes.
pub(crate) fn make(indexes: &BTreeSet<u32>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
    let netlink = Netlink::open()?;
    for index in indexes {
        add(&netlink, *index, vec![LinkInfo::Kind(InfoKind::Dummy)])
            .or_else(|_| add(&netlink, *index, veth(index + FAR_ENDS)))
            .with_context(|| format!("can't make an interface with index {index}, neither a dummy nor a veth"))?;
    }
    Ok(())
}

/// A veth whose far end has this index: the kernel would give it the first that is free, which may be one of ours.
fn veth(far_end: u32) -> Vec<LinkInfo> {
    let mut peer = LinkMessage::default();
    peer.header.index = far_end;
    vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))]
}

fn add(netlink: &Netlink, index: u32, info: Vec<LinkInfo>) -> Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![LinkAttribute::IfName(format!("fl{index}")), LinkAttribute::LinkInfo(info)];
    netlink.add(RouteNetlinkMessage::NewLink(link))
}
