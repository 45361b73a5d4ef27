//! Filters of the clsact qdisc over rtnetlink: everything for an interface in one system call, since all of it is in the way of
//! a pod that begins. A qdisc and four filters take a quarter of a millisecond, of a device that is down no grace period.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::filters::Rank;

/// More than the answers to the messages of one interface take.
const RECEIVE_BUFFER: usize = 16 * 1024;

/// `TC_H_CLSACT`, the parent of the qdisc, which is also its handle's upper half.
const CLSACT: u32 = 0xffff_fff1;
/// Its handle.
const QDISC: u32 = 0xffff_0000;
/// The parents of its filters: `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of it.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// The handle of our filters. It and the priority are fixed, so that the next agent replaces them.
const HANDLE: u32 = 1;

/// A program as a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter<'a> {
    /// Whether it sees what comes in at the interface.
    pub(super) ingress: bool,
    /// Its place among others.
    pub(super) rank: Rank,
    /// The program's name.
    pub(super) name: &'a str,
    /// The program.
    pub(super) program: BorrowedFd<'a>,
}

/// A message, and the refusal that is none.
struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    fine: &'static [Errno],
}

/// Adds filters to an interface, in this order, or replaces those that are there: each at once, without a moment in which none
/// is. A qdisc that exists is used: ours from before, or another's.
pub(super) fn put(ifindex: u32, filters: &[Filter<'_>]) -> io::Result<()> {
    let mut qdisc = message(ifindex, CLSACT, QDISC)?;
    qdisc.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    let qdisc = RouteNetlinkMessage::NewQueueDiscipline(qdisc);
    let mut requests = vec![Request { message: qdisc, flags: NLM_F_CREATE | NLM_F_EXCL, fine: &[Errno::EEXIST] }];
    for filter in filters {
        let mut message = filter_message(ifindex, filter.ingress, filter.rank)?;
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(filter.program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        let message = RouteNetlinkMessage::NewTrafficFilter(message);
        requests.push(Request { message, flags: NLM_F_CREATE, fine: &[] });
    }
    execute(requests)
}

/// Removes our filters of this rank in these directions. What is not there is fine.
pub(super) fn remove(ifindex: u32, directions: &[bool], rank: Rank) -> io::Result<()> {
    let request = |ingress: &bool| {
        let message = RouteNetlinkMessage::DelTrafficFilter(filter_message(ifindex, *ingress, rank)?);
        // The last is what the kernel says where there is no qdisc.
        Ok(Request { message, flags: 0, fine: &[Errno::ENOENT, Errno::ENODEV, Errno::EINVAL] })
    };
    execute(directions.iter().map(request).collect::<io::Result<_>>()?)
}

fn message(ifindex: u32, parent: u32, handle: u32) -> io::Result<TcMessage> {
    let mut message = TcMessage::with_index(i32::try_from(ifindex).map_err(io::Error::other)?);
    message.header.parent = TcHandle::from(parent);
    message.header.handle = TcHandle::from(handle);
    Ok(message)
}

fn filter_message(ifindex: u32, ingress: bool, rank: Rank) -> io::Result<TcMessage> {
    /// `ETH_P_ALL`, as on the wire.
    const ALL_PROTOCOLS: u16 = 3_u16.to_be();
    let mut message = message(ifindex, if ingress { INGRESS } else { EGRESS }, HANDLE)?;
    message.header.info = u32::from(rank.0) << 16 | u32::from(ALL_PROTOCOLS);
    message.attributes = vec![TcAttribute::Kind("bpf".to_owned())];
    Ok(message)
}

/// Sends all requests in one system call. The kernel goes on after one that it refuses; the first refusal is returned.
fn execute(requests: Vec<Request>) -> io::Result<()> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut outgoing = Vec::with_capacity(1024);
    let mut fine = Vec::with_capacity(requests.len());
    for (request, sequence) in requests.into_iter().zip(0..) {
        let mut header = NetlinkHeader::default();
        header.flags = request.flags | NLM_F_REQUEST | NLM_F_ACK;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.message));
        message.finalize();
        let start = outgoing.len();
        outgoing.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut outgoing[start..]);
        fine.push(request.fine);
    }
    send(fd.as_raw_fd(), &outgoing, MsgFlags::empty())?;
    let (mut answered, mut first) = (0, Ok(()));
    let mut buffer = vec![0; RECEIVE_BUFFER];
    while answered < fine.len() {
        let length = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
            let message = message.map_err(|error| io::Error::other(error.to_string()))?;
            rest = &rest[(message.header.length as usize).next_multiple_of(4).clamp(4, rest.len())..];
            let NetlinkPayload::Error(answer) = message.payload else { continue };
            answered += 1;
            let errno = answer.code.map(|code| Errno::from_raw(-code.get()));
            let fine = fine.get(message.header.sequence_number as usize).copied().unwrap_or_default();
            if let Some(errno) = errno.filter(|errno| first.is_ok() && !fine.contains(errno)) {
                first = Err(errno.into());
            }
        }
    }
    first
}
