//! The socket: batches of changes, each acknowledged, and dumps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::RouteMessage;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::Error;

/// More than the kernel puts into one answer (`NLMSG_GOODSIZE` in include/linux/netlink.h is at most 8 KiB, dumps grow
/// to 32 KiB).
const RECEIVE_BUFFER: usize = 32 * 1024;

/// One change to make.
#[derive(Debug)]
pub(crate) struct Operation {
    /// What it does, as it goes on after "the kernel refused to".
    pub(crate) what: String,
    /// The message.
    pub(crate) message: RouteNetlinkMessage,
    /// `NLM_F_CREATE` and its like.
    pub(crate) flags: u16,
}

/// Does something in another namespace. A namespace belongs to a thread, so a short one enters it; a socket that it leaves
/// behind works from anywhere.
pub(crate) fn within<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| Error::Kernel {
            what: "enter the namespace of CNI_NETNS (is it a network namespace?)".to_owned(),
            source: e.into(),
        })?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|_| {
        Err(Error::Io { what: "enter the pod's namespace".to_owned(), source: io::Error::other("thread died") })
    })
}

/// An rtnetlink socket. It stays in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map_err(|e| Error::Kernel { what: "open an rtnetlink socket".to_owned(), source: e.into() })?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Opens one in another namespace.
    pub(crate) fn open_in(netns: BorrowedFd<'_>) -> Result<Self, Error> {
        within(netns, Self::open)
    }

    /// Makes the changes in order. The kernel reads them in one system call and goes on after an error; the first
    /// error is returned.
    pub(crate) fn execute(&mut self, operations: Vec<Operation>) -> Result<(), Error> {
        let first = self.sequence + 1;
        let mut buffer = Vec::with_capacity(1024);
        let mut whats = Vec::with_capacity(operations.len());
        for Operation { what, message, flags } in operations {
            self.append(&mut buffer, message, flags | NLM_F_ACK);
            whats.push(what);
        }
        self.send(&buffer)?;
        let mut acknowledged = 0;
        let mut failed: Option<(usize, i32)> = None;
        while acknowledged < whats.len() {
            self.receive(|message| {
                if let NetlinkPayload::Error(error) = message.payload {
                    acknowledged += 1;
                    if let Some(code) = error.code {
                        let index = message.header.sequence_number.wrapping_sub(first) as usize;
                        failed = failed.filter(|(earlier, _)| *earlier < index).or(Some((index, code.get())));
                    }
                }
                true
            })?;
        }
        match failed {
            None => Ok(()),
            Some((index, code)) => Err(Error::Kernel {
                what: whats.swap_remove(index.min(whats.len() - 1)),
                source: io::Error::from_raw_os_error(-code),
            }),
        }
    }

    /// The link of this name, where there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = self.query(RouteNetlinkMessage::GetLink(request), 0);
        match answers {
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })),
            Err(code) if code.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
            Err(source) => Err(Error::Kernel { what: format!("look up the link {name}"), source }),
        }
    }

    /// Every address.
    pub(crate) fn addresses(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let answers = self
            .query(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)
            .map_err(|source| Error::Kernel { what: "list addresses".to_owned(), source })?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(address) => Some(address),
                _ => None,
            })
            .collect())
    }

    /// Every route of both families.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteMessage>, Error> {
        let answers = self
            .query(RouteNetlinkMessage::GetRoute(RouteMessage::default()), NLM_F_DUMP)
            .map_err(|source| Error::Kernel { what: "list routes".to_owned(), source })?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })
            .collect())
    }

    fn query(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut buffer = Vec::with_capacity(256);
        self.append(&mut buffer, request, flags | NLM_F_ACK);
        self.send(&buffer).map_err(io::Error::other)?;
        let mut answers = Vec::new();
        let mut result = None;
        while result.is_none() {
            self.receive(|message| {
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Done(_) => result = Some(Ok(())),
                    NetlinkPayload::Error(error) => {
                        result = Some(error.code.map_or(Ok(()), |c| Err(io::Error::from_raw_os_error(-c.get()))));
                    }
                    _ => {}
                }
                result.is_none()
            })
            .map_err(io::Error::other)?;
        }
        result.unwrap_or(Ok(())).map(|()| answers)
    }

    fn append(&mut self, buffer: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
    }

    fn send(&self, buffer: &[u8]) -> Result<(), Error> {
        send(self.fd.as_raw_fd(), buffer, MsgFlags::empty())
            .map(drop)
            .map_err(|e| Error::Kernel { what: "accept an rtnetlink message".to_owned(), source: e.into() })
    }

    /// Reads one datagram and shows its messages to `take` until that has enough.
    fn receive(&self, mut take: impl FnMut(NetlinkMessage<RouteNetlinkMessage>) -> bool) -> Result<(), Error> {
        let what = || "answer over rtnetlink".to_owned();
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let length = recv(self.fd.as_fd().as_raw_fd(), &mut buffer, MsgFlags::empty())
            .map_err(|e| Error::Kernel { what: what(), source: e.into() })?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| Error::Kernel { what: what(), source: io::Error::other(e.to_string()) })?;
            let taken = (message.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
            rest = &rest[taken..];
            if !take(message) {
                break;
            }
        }
        Ok(())
    }
}
