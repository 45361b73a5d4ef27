//! Limits of bandwidth on a queue that keeps departure times (`fq`), with real packets: what a pod sends leaves the node as
//! its limit has it, late and not lost; what it sends to a pod beside is let through at once, or dropped.
//!
//! The node is a network namespace with the walk's own test tables, the interfaces of two pods and one uplink, and the
//! programs at them. The other ends are in a second namespace, which has no addresses: whole frames come from and go there.

use std::{
    fs,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use aya::programs::TcAttachType;
use fairlead_datapath::{
    bandwidth::{Bandwidth, Limit},
    catalog::TableId,
    ifindex_of,
    testing::{L4, Message, Node},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage},
};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};

use crate::{
    links::FAR_ENDS,
    netlink::Netlink,
    site::{self, MAC, Programs},
};

/// What this test is called in the report.
const NAME: &str = "c42_what_leaves_waits_for_its_turn_at_fq";

/// Bytes of a frame, the time that it takes at the limit, and how many are sent at once.
const BYTES: usize = 1000;
const EACH: Duration = Duration::from_micros(2500);
const FRAMES: u32 = 60;

/// How much later than its turn a frame may be seen by a guest that is emulated.
const SLACK: Duration = Duration::from_millis(500);

/// Sends by way of the queue and prints a line about it; whether all was right.
pub(crate) fn run(programs: &mut Programs<'_>) -> Result<bool> {
    let result = Site::make(programs).and_then(Site::measure);
    programs.detach()?;
    Ok(site::report(NAME, &result))
}

/// A limit with so many frames ahead of it.
fn limit(ahead: u32, paced: bool) -> Limit {
    let rate = BYTES as u64 * 1_000_000 / EACH.as_micros() as u64;
    Limit { rate, ahead: ahead * EACH.as_micros() as u32, paced: u32::from(paced) }
}

/// The other ends, and what the pod may send.
struct Site<'p, 'e> {
    programs: &'p mut Programs<'e>,
    /// The pod's own side.
    pod: OwnedFd,
    /// That of a pod beside it.
    beside: OwnedFd,
    /// What is behind the uplink.
    outside: OwnedFd,
}

impl<'p, 'e> Site<'p, 'e> {
    fn make(programs: &'p mut Programs<'e>) -> Result<Self> {
        programs.write(&Node::new())?;
        let others = site::enter()?;
        programs.hold(others.try_clone()?);
        let indexes = [ifindex_of(0), ifindex_of(1), Node::UPLINK];
        site::links(&others, &indexes)?;
        ways()?;
        let ends = site::there(&others, || {
            indexes.into_iter().map(|index| site::end(index + FAR_ENDS)).collect::<Result<Vec<_>>>()
        })?;
        let [pod, beside, outside] = ends.try_into().map_err(|_| anyhow!("three links have three ends"))?;
        for slot in [0, 1] {
            programs.attach("from_pod", ifindex_of(slot), TcAttachType::Ingress)?;
        }
        programs.attach("to_uplink", Node::UPLINK, TcAttachType::Egress)?;
        Ok(Self { programs, pod, beside, outside })
    }

    /// Sends to each destination; how many frames there were.
    fn measure(mut self) -> Result<u32> {
        for (place, to) in [("another node", Node::far_pod(false)), ("the outside", Node::world(false))] {
            let place = |error: anyhow::Error| error.context(format!("to {place}"));
            // What fits into the limit comes late, and all of it.
            let arrived = self.send(to, limit(FRAMES, true), false).map_err(place)?;
            on_time(&arrived).map_err(place)?;
            // Beyond it frames are lost, and the others still wait.
            let arrived = self.send(to, limit(FRAMES / 3, true), false).map_err(place)?;
            some(&arrived).and_then(|()| on_time(&arrived)).map_err(place)?;
        }
        let here = |error: anyhow::Error| error.context("to a pod beside");
        let arrived = self.send(Node::pod(1, false), limit(FRAMES / 3, true), true).map_err(here)?;
        some(&arrived).map_err(here)?;
        let (_, last) = arrived.times.last().context("nothing arrives")?;
        let longest = arrived.took + SLACK / 5;
        self.programs.table(TableId::Limits)?.remove(&0_u32.to_ne_bytes())?;
        ensure!(*last <= longest, "the last arrives after {last:?}, and not within {longest:?}: nothing waits there");
        Ok(5 * FRAMES)
    }

    fn send(&mut self, to: IpAddr, egress: Limit, here: bool) -> Result<Arrived> {
        let slot = 0_u32.to_ne_bytes();
        self.programs.table(TableId::Paces)?.remove(&slot)?;
        let value = Bandwidth { egress, ingress: Limit::NONE };
        self.programs.table(TableId::Limits)?.put(&slot, zerocopy::IntoBytes::as_bytes(&value))?;
        let mut message = Message::new(Node::pod(0, false), to, L4::Udp(40_000, 9));
        message.payload.resize(BYTES - message.frame().bytes.len() + message.payload.len(), 0);
        let mut frame = message.frame().bytes;
        frame[..6].copy_from_slice(&MAC);
        let begun = Instant::now();
        for _ in 0..FRAMES {
            send(self.pod.as_raw_fd(), &frame, MsgFlags::empty()).context("the pod can't send")?;
        }
        let took = begun.elapsed();
        let from = if here { &self.beside } else { &self.outside };
        let mut times = Vec::new();
        let mut buffer = [0; 2 * BYTES];
        loop {
            match recv(from.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                // Others are the kernel's own, about neighbours.
                Ok(BYTES) => times.push((times.len() as u32, begun.elapsed())),
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(Arrived { times, took }),
                Err(error) => return Err(error).context("nothing can be received"),
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "something else arrives without end");
        }
    }
}

/// What arrived: the frames by their number, with the time since the first was sent.
struct Arrived {
    times: Vec<(u32, Duration)>,
    /// How long sending took.
    took: Duration,
}

/// None comes before its turn, and none long after it.
fn on_time(arrived: &Arrived) -> Result<()> {
    for (number, at) in &arrived.times {
        let turn = EACH * *number;
        ensure!(*at >= turn, "frame {number} arrives after {at:?}: its turn is at {turn:?}");
        let latest = turn + arrived.took + SLACK;
        ensure!(*at <= latest, "frame {number} arrives after {at:?}: its turn was at {turn:?}");
    }
    if arrived.took < EACH * FRAMES / 2 {
        // Sent faster than they may leave: whatever was not lost has waited.
        ensure!(arrived.times.len() >= FRAMES as usize / 3, "{} of {FRAMES} arrive", arrived.times.len());
    }
    Ok(())
}

/// As many as the limit lets through arrive, and no more.
fn some(arrived: &Arrived) -> Result<()> {
    let least = FRAMES / 3;
    // One begins, and while they are sent the turns of some come.
    let most = least + 1 + (arrived.took.as_micros() / EACH.as_micros()) as u32 + 1;
    let count = arrived.times.len() as u32;
    ensure!((least..=most).contains(&count), "{count} of {FRAMES} arrive, and not {least} to {most}");
    Ok(())
}

/// Gives the uplink a queue, and makes the node's ways: out of the uplink, to the other node.
fn ways() -> Result<()> {
    let mut queue = TcMessage::default();
    queue.header.index = Node::UPLINK as i32;
    queue.header.parent = TcHandle::ROOT;
    queue.attributes = vec![TcAttribute::Kind("fq".to_owned())];
    Netlink::open()?.add(RouteNetlinkMessage::NewQueueDiscipline(queue)).context("can't give the uplink fq")?;
    let [own, hop] = [Node::address(false), Node::other_node(false)].map(site::v4);
    site::address(Node::UPLINK, own)?;
    site::neighbour(Node::UPLINK, hop)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("the node can't forward")?;
    site::route(None, Node::UPLINK, Some(hop))
}
