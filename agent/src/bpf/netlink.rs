//! Requests to the kernel over rtnetlink that can't wait for the loop's own connection: several in one system call, answered
//! before it returns.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkFlags, LinkLayerType, LinkMessage};

/// More than the answers to the messages of one interface take.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// A message, and the flags that it takes besides those of every request.
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
}

/// What the kernel said to a request.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Why it was refused.
    pub(super) refused: Option<Errno>,
    /// What was asked for.
    pub(super) found: Option<RouteNetlinkMessage>,
}

impl Answer {
    /// Whether it was done. What is `fine` is no refusal.
    pub(super) fn done(&self, fine: &[Errno]) -> io::Result<()> {
        match self.refused {
            Some(errno) if !fine.contains(&errno) => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?)
}

/// A socket that hears of changes of these groups (`RTMGRP_*`).
pub(super) fn listen(groups: u32) -> io::Result<OwnedFd> {
    let fd = open()?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// The messages that have come, or come next; an error in place of one that can't be read.
fn receive_each(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Vec<io::Result<NetlinkMessage<RouteNetlinkMessage>>>> {
    let length = recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?;
    let mut rest = buffer.get(..length).unwrap_or_default();
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let message = NetlinkMessage::deserialize(rest);
        messages.push(message.map_err(|error| io::Error::other(error.to_string())));
        // Each begins with its length. What is cut off before that is the last.
        let size = rest.first_chunk::<4>().map_or(rest.len(), |size| u32::from_ne_bytes(*size) as usize);
        rest = rest.get(size.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// The messages that have come, or come next.
pub(super) fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    receive_each(fd, buffer)?.into_iter().collect()
}

/// The same, without those that can't be read: qdiscs and filters of others have what no library knows yet.
pub(super) fn receive_known(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    Ok(receive_each(fd, buffer)?.into_iter().flatten().collect())
}

/// Sends all requests in one system call. The kernel goes on after one that it refuses. An answer for each.
pub(super) fn execute(requests: Vec<Request>) -> io::Result<Vec<Answer>> {
    let fd = open()?;
    let mut outgoing = Vec::with_capacity(1024);
    let mut answers: Vec<Answer> = requests.iter().map(|_| Answer::default()).collect();
    for (request, sequence) in requests.into_iter().zip(0..) {
        let mut header = NetlinkHeader::default();
        header.flags = request.flags | NLM_F_REQUEST | NLM_F_ACK;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
        message.finalize();
        let start = outgoing.len();
        outgoing.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut outgoing[start..]);
    }
    send(fd.as_raw_fd(), &outgoing, MsgFlags::empty())?;
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut missing = answers.len();
    while missing > 0 {
        for message in receive(&fd, &mut buffer)? {
            let answer = answers.get_mut(message.header.sequence_number as usize);
            match (message.payload, answer) {
                (NetlinkPayload::Error(error), answer) => {
                    missing = missing.saturating_sub(1);
                    if let Some(answer) = answer {
                        answer.refused = error.code.map(|code| Errno::from_raw(-code.get()));
                    }
                }
                (NetlinkPayload::InnerMessage(found), Some(answer)) => answer.found = Some(found),
                _ => {}
            }
        }
    }
    Ok(answers)
}

/// Sets an interface down: nothing passes it, in neither direction.
pub(super) fn set_down(ifindex: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    link.header.change_mask = LinkFlags::Up;
    let answers = execute(vec![Request { message: RouteNetlinkMessage::SetLink(link), flags: 0 }])?;
    answers.iter().try_for_each(|answer| answer.done(&[]))
}

/// What packets of an interface begin with.
pub(super) fn link_layer(ifindex: u32) -> io::Result<LinkLayerType> {
    let mut link = LinkMessage::default();
    link.header.index = ifindex;
    let answers = execute(vec![Request { message: RouteNetlinkMessage::GetLink(link), flags: 0 }])?;
    answers.iter().try_for_each(|answer| answer.done(&[]))?;
    match answers.into_iter().find_map(|answer| answer.found) {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.link_layer_type),
        _ => Err(io::Error::other("the kernel says nothing of the interface")),
    }
}
