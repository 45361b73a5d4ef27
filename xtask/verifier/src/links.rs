//! The interfaces that frames come in by: some with the indexes that the frames' hooks have, in a network namespace of
//! their own, so that neither the machine's interfaces nor its sockets have a say. No frame leaves a program, so it does not
//! matter of which kind they are: not every kernel has each.

use std::{
    collections::BTreeSet,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// What is added to an index to have that of the far end.
const FAR_ENDS: u32 = 1_000_000_000;

/// Puts this thread into a network namespace that has interfaces with these indexes.
pub(crate) fn make(indexes: &BTreeSet<u32>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
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

fn add(netlink: &OwnedFd, index: u32, info: Vec<LinkInfo>) -> Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![LinkAttribute::IfName(format!("fl{index}")), LinkAttribute::LinkInfo(info)];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::NewLink(link)));
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    send(netlink.as_raw_fd(), &buffer, MsgFlags::empty())?;
    let mut answer = vec![0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length])?.payload {
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io().into()),
        _ => bail!("the kernel answers with something else than an acknowledgement"),
    }
}
