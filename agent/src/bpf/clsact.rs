//! Filters of the clsact qdisc over rtnetlink: everything for an interface in two system calls, since all of it is in the way
//! of a pod that begins. A qdisc and four filters take a quarter of a millisecond, of a device that is down no grace period.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::filters::Rank;
use super::netlink::{Request, execute};

/// `TC_H_CLSACT`, the parent of the qdisc, which is also its handle's upper half.
pub(super) const CLSACT: u32 = 0xffff_fff1;
/// Its handle.
const QDISC: u32 = 0xffff_0000;
/// The parents of its filters: `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS` of it.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// The handle of our filters. It and the priority are fixed, so that the next agent replaces them.
const HANDLE: u32 = 1;

/// What the kernel says of what is not there: no such filter, no interface, no qdisc.
const ABSENT: [Errno; 3] = [Errno::ENOENT, Errno::ENODEV, Errno::EINVAL];

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

/// Adds filters to an interface, in this order, or replaces those that are there: each at once, without a moment in which none
/// is. A clsact qdisc that exists is used: ours from before, or another's.
///
/// # Errors
/// The interface is gone, or the kernel refuses. Somebody's `ingress` qdisc stands in clsact's place and sees nothing that
/// leaves by the interface: filters of what comes in are there then.
pub(super) fn put(ifindex: u32, filters: &[Filter<'_>]) -> io::Result<()> {
    let mut qdisc = message(ifindex, CLSACT, QDISC)?;
    qdisc.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
    let qdisc = RouteNetlinkMessage::NewQueueDiscipline(qdisc);
    let made = execute(vec![Request { message: qdisc, flags: NLM_F_CREATE | NLM_F_EXCL }])?;
    made.iter().try_for_each(|answer| answer.done(&[Errno::EEXIST]))?;
    // The kernel would take a filter of what leaves for one of what comes in.
    let is_ingress_alone =
        made.iter().any(|answer| answer.refused.is_some()) && kind(ifindex)? == Some("ingress".into());
    let (mut requests, mut refused) = (Vec::with_capacity(filters.len()), false);
    for filter in filters {
        if is_ingress_alone && !filter.ingress {
            refused = true;
            continue;
        }
        let mut message = filter_message(ifindex, filter.ingress, filter.rank)?;
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(filter.program.as_raw_fd().cast_unsigned())),
            TcOption::Bpf(TcFilterBpfOption::ProgName(filter.name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        requests.push(Request { message: RouteNetlinkMessage::NewTrafficFilter(message), flags: NLM_F_CREATE });
    }
    if !requests.is_empty() {
        execute(requests)?.iter().try_for_each(|answer| answer.done(&[]))?;
    }
    if refused { Err(in_the_way()) } else { Ok(()) }
}

fn in_the_way() -> io::Error {
    let text = "an `ingress` qdisc takes the place of clsact, so traffic that leaves through the interface can't be \
                processed; find out \
                who added it, and remove it (tc qdisc del dev INTERFACE ingress)";
    io::Error::new(io::ErrorKind::AlreadyExists, text)
}

/// Removes our filter of this rank in a direction. Whether there was one: one of another name is somebody else's, and stays.
pub(super) fn remove(ifindex: u32, ingress: bool, rank: Rank, name: &str) -> io::Result<bool> {
    if find(ifindex, ingress, rank)?.is_none_or(|found| found.name != name) {
        return Ok(false);
    }
    let del = RouteNetlinkMessage::DelTrafficFilter(filter_message(ifindex, ingress, rank)?);
    let del = Request { message: del, flags: 0 };
    execute(vec![del])?.iter().try_for_each(|answer| answer.done(&ABSENT))?;
    Ok(true)
}

/// A filter that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The name that it was given.
    pub(super) name: String,
    /// The id of its program.
    pub(super) program: Option<u32>,
}

/// The filter of this rank in a direction, whoever's it is.
pub(super) fn find(ifindex: u32, ingress: bool, rank: Rank) -> io::Result<Option<Found>> {
    let message = filter_message(ifindex, ingress, rank)?;
    let answers = execute(vec![Request { message: RouteNetlinkMessage::GetTrafficFilter(message), flags: 0 }])?;
    let [answer] = &*answers else { return Ok(None) };
    answer.done(&ABSENT)?;
    let Some(RouteNetlinkMessage::NewTrafficFilter(found)) = &answer.found else { return Ok(None) };
    let name = options(found).find_map(|option| match option {
        TcFilterBpfOption::ProgName(name) => Some(name.clone()),
        _ => None,
    });
    let program = options(found).find_map(|option| match option {
        TcFilterBpfOption::ProgId(id) => Some(*id),
        _ => None,
    });
    Ok(name.map(|name| Found { name, program }))
}

/// The kind of the qdisc in clsact's place.
fn kind(ifindex: u32) -> io::Result<Option<String>> {
    let get = RouteNetlinkMessage::GetQueueDiscipline(message(ifindex, CLSACT, 0)?);
    // The kernel tells everybody else of a qdisc that was asked for, and who asked only if he wants to hear it.
    let answers = execute(vec![Request { message: get, flags: NLM_F_ECHO }])?;
    answers.iter().try_for_each(|answer| answer.done(&ABSENT))?;
    let found = answers.into_iter().find_map(|answer| answer.found);
    let Some(RouteNetlinkMessage::NewQueueDiscipline(qdisc)) = found else { return Ok(None) };
    Ok(qdisc.attributes.into_iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind),
        _ => None,
    }))
}

fn options(filter: &TcMessage) -> impl Iterator<Item = &TcFilterBpfOption> {
    let options = filter.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().filter_map(|option| match option {
        TcOption::Bpf(option) => Some(option),
        _ => None,
    })
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
