//! VLANs on an uplink, with real packets: the uplink's own programs leave frames of its VLANs alone, what a VLAN's device receives is
//! judged there as by any uplink, and no frame that a pod tagged goes anywhere.
//!
//! A tag is in the frame, or beside it in the kernel's metadata, by who sent the frame: both are tried. The kernel itself takes a tag
//! out of a frame that comes in before it runs programs; a device that keeps its headers together (`reorder_hdr off`) puts it back.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use aya::programs::TcAttachType;
use fairlead_datapath::{
    catalog::TableId,
    config::{Uplink, UplinkFlags},
    drop::DropReason,
    ifindex_of,
    testing::{Frame, L4, Message, Node, Seen},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, VlanFlags},
};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use zerocopy::IntoBytes as _;

use crate::{
    links::FAR_ENDS,
    netlink::Netlink,
    site::{self, MAC, Programs, name},
};

/// What this test is called in the report.
const NAME: &str = "s79_what_a_vlan_receives_is_judged_there_alone";

/// The VLAN that the uplink has a device for, and one that it has none for.
const OURS: u16 = 5;
const OTHER: u16 = 6;

/// Indexes of the devices: the node's own, one with its headers together, and those of the other ends.
const TAGGED: u32 = 5;
const TOGETHER: u32 = 6;
const FAR_TAGGED: u32 = 7;
const POD_TAGGED: u32 = 8;

/// The VLAN of the device with its headers together.
const KEPT: u16 = 7;

/// EtherTypes of tags: of customers and of providers (802.1Q, 802.1ad).
const TAG: u16 = 0x8100;
const OUTER: u16 = 0x88a8;

/// The pod that anybody may send to, and one that nobody may.
const OPEN: u16 = 0;
const CLOSED: u16 = 1;

/// A policy set that allows nothing that is sent here.
const NOTHING: u32 = 41;

/// A port that nothing else is sent to.
const PORT: u16 = 5353;

/// Sends frames and prints a line about it; whether all was right.
pub(crate) fn run(programs: &mut Programs<'_>) -> Result<bool> {
    let result = Site::make(programs).and_then(Site::try_all);
    programs.detach()?;
    Ok(site::report(NAME, &result))
}

/// The node's address in the VLAN, and a hop there that leads to the world.
const OWN: Ipv4Addr = Ipv4Addr::new(172, 19, 0, 1);
const HOP: Ipv4Addr = Ipv4Addr::new(172, 19, 0, 2);

/// The far ends of the interfaces.
struct Site<'p, 'e> {
    programs: &'p mut Programs<'e>,
    open: OwnedFd,
    closed: OwnedFd,
    /// What is behind the uplink, and its end of the VLAN.
    outside: OwnedFd,
    tagged: OwnedFd,
    /// The open pod's own device for the VLAN.
    pod_tagged: OwnedFd,
    /// The port that the next frame comes from, by which it is known.
    next: u16,
}

impl<'p, 'e> Site<'p, 'e> {
    fn make(programs: &'p mut Programs<'e>) -> Result<Self> {
        programs.write(&node(UplinkFlags::PRIMARY))?;
        let others = site::enter()?;
        programs.hold(others.try_clone()?);
        site::links(&others, &[ifindex_of(OPEN), ifindex_of(CLOSED), Node::UPLINK])?;
        vlan(TAGGED, Node::UPLINK, OURS, true)?;
        vlan(TOGETHER, Node::UPLINK, KEPT, false)?;
        [TAGGED, TOGETHER].into_iter().try_for_each(site::hooks)?;
        ways()?;
        let [open, closed, outside, tagged, pod_tagged] = site::there(&others, far_ends)?;
        for slot in [OPEN, CLOSED] {
            programs.attach("from_pod", ifindex_of(slot), TcAttachType::Ingress)?;
            programs.attach("to_pod", ifindex_of(slot), TcAttachType::Egress)?;
        }
        uplink(programs, Node::UPLINK)?;
        Ok(Self { programs, open, closed, outside, tagged, pod_tagged, next: 20_000 })
    }

    /// Everything in turn; how many frames there were.
    fn try_all(mut self) -> Result<u32> {
        self.the_parent_leaves_tags_alone().context("with programs at the uplink alone")?;
        uplink(self.programs, TAGGED)?;
        self.a_vlan_is_an_uplink().context("with programs at the VLAN's device")?;
        self.a_pod_has_no_vlan().context("from a pod")?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("the node can't forward")?;
        self.the_stack_forwards().context("by the stack")?;
        self.a_pod_is_answered().context("out by the VLAN")?;
        Ok(u32::from(self.next - 20_000))
    }

    /// The node forwards nothing by itself here: what gets to a pod was handed over by a program.
    fn the_parent_leaves_tags_alone(&mut self) -> Result<()> {
        for v6 in [false, true] {
            let mut wanted = BTreeSet::new();
            for tags in [vec![], vec![(TAG, 0)], vec![(OUTER, 0)]] {
                wanted.insert(self.comes_in(OPEN, v6, &tags)?);
            }
            for tags in [
                vec![(TAG, OURS)],
                vec![(TAG, OTHER)],
                vec![(TAG, KEPT)],
                vec![(OUTER, OURS)],
                vec![(TAG, OURS), (TAG, OTHER)],
                vec![(TAG, 0), (TAG, OURS)],
                vec![(TAG, 0), (TAG, 0)],
            ] {
                self.comes_in(OPEN, v6, &tags)?;
            }
            self.comes_in_beside(OPEN, v6)?;
            ensure_same(&got(&self.open)?, &wanted, "of all tags, one that only gives a priority is none")?;
        }
        Ok(())
    }

    /// Frames of the VLAN are judged at its device, whichever way they carry their tag.
    fn a_vlan_is_an_uplink(&mut self) -> Result<()> {
        for v6 in [false, true] {
            let mut wanted = BTreeSet::new();
            wanted.insert(self.comes_in(OPEN, v6, &[(TAG, OURS)])?);
            wanted.insert(self.comes_in(OPEN, v6, &[(TAG, 0), (TAG, OURS)])?);
            wanted.insert(self.comes_in_beside(OPEN, v6)?);
            for tags in [vec![(TAG, OTHER)], vec![(OUTER, OURS)], vec![(TAG, OURS), (TAG, OTHER)]] {
                self.comes_in(OPEN, v6, &tags)?;
            }
            ensure_same(&got(&self.open)?, &wanted, "frames of the VLAN arrive")?;
            // Each is judged once.
            let before = self.drops(CLOSED, DropReason::IngressPolicy)?;
            for tags in [vec![(TAG, OURS)], vec![], vec![(TAG, 0)], vec![(TAG, 0), (TAG, OURS)]] {
                self.comes_in(CLOSED, v6, &tags)?;
            }
            self.comes_in_beside(CLOSED, v6)?;
            ensure_same(&got(&self.closed)?, &BTreeSet::new(), "policy holds")?;
            let drops = self.drops(CLOSED, DropReason::IngressPolicy)? - before;
            ensure!(drops == 5, "policy has dropped {drops} frames of 5");
        }
        Ok(())
    }

    /// Whatever tag a pod gives its frames, in whichever way, they go nowhere and are counted.
    fn a_pod_has_no_vlan(&mut self) -> Result<()> {
        // A device shows what is sent by another that is above it.
        got(&self.outside)?;
        let before = [DropReason::Vlan, DropReason::NotIp].map(|reason| self.drops(OPEN, reason));
        let mut sent = 0;
        for v6 in [false, true] {
            for to in [Node::pod(2, v6), Node::world(v6), Node::other_node(v6)] {
                for tags in [vec![(TAG, OURS)], vec![(TAG, OTHER)], vec![(OUTER, OURS)], vec![(TAG, OURS), (TAG, 0)]] {
                    self.pod_sends(to, &tags)?;
                    sent += 1;
                }
                let (_, frame) = self.frame(Node::pod(OPEN, v6), to, &[]);
                send(self.pod_tagged.as_raw_fd(), &frame, MsgFlags::empty()).context("the pod can't send")?;
                sent += 1;
                // A priority, and a tag behind it: not IP.
                self.pod_sends(to, &[(TAG, 0), (TAG, OURS)])?;
            }
        }
        for place in [&self.outside, &self.tagged, &self.closed] {
            ensure_same(&got(place)?, &BTreeSet::new(), "nothing of it arrives")?;
        }
        let after = [DropReason::Vlan, DropReason::NotIp].map(|reason| self.drops(OPEN, reason));
        for ((before, after), count) in before.into_iter().zip(after).zip([sent, 6]) {
            let drops = after? - before?;
            // The pod's kernel sends some of its own, about groups and neighbours.
            ensure!(drops >= count, "{drops} frames of {count} are counted");
        }
        got(&self.open)?;
        Ok(())
    }

    /// What comes in where no node is goes to a pod by the stack, which policy stands before; so does what the kernel tags again.
    fn the_stack_forwards(&mut self) -> Result<()> {
        let aside = node(0).host.uplinks[&TAGGED];
        self.programs.table(TableId::Uplinks)?.put(&TAGGED.to_ne_bytes(), aside.sealed(TAGGED).as_bytes())?;
        for tags in [[(TAG, OURS)], [(TAG, KEPT)]] {
            let wanted = BTreeSet::from([self.comes_from_afar(OPEN, &tags)?]);
            ensure_same(&got(&self.open)?, &wanted, &format!("{tags:?} is forwarded"))?;
            let before = self.drops(CLOSED, DropReason::IngressPolicy)?;
            self.comes_from_afar(CLOSED, &tags)?;
            ensure_same(&got(&self.closed)?, &BTreeSet::new(), "policy holds")?;
            let drops = self.drops(CLOSED, DropReason::IngressPolicy)? - before;
            ensure!(drops == 1, "policy has dropped {drops} frames of 1");
        }
        Ok(())
    }

    /// What a pod sends by the VLAN has the node's address there, and its answer comes back; and a pod answers by the VLAN.
    fn a_pod_is_answered(&mut self) -> Result<()> {
        let (pod, world) = (Node::pod(OPEN, false), Node::world(false));
        let (sport, frame) = self.frame(pod, world, &[]);
        send(self.open.as_raw_fd(), &frame, MsgFlags::empty()).context("the pod can't send")?;
        let out =
            seen(&self.tagged)?.into_iter().find(|seen| seen.dport == PORT).context("nothing leaves by the VLAN")?;
        ensure!(out.src == IpAddr::from(OWN) && out.dst == world, "{} goes to {} by the VLAN", out.src, out.dst);
        let back = Message::new(world, OWN.into(), L4::Udp(PORT, out.sport));
        self.sends_in(&back.frame(), &[(TAG, OURS)])?;
        let back = seen(&self.open)?.into_iter().find(|seen| seen.sport == PORT).context("no answer comes back")?;
        ensure!((back.src, back.dst, back.dport) == (world, pod, sport), "the pod is answered by {}", back.src);
        // The other way round.
        let asks = self.comes_from_afar(OPEN, &[(TAG, OURS)])?;
        ensure_same(&got(&self.open)?, &BTreeSet::from([asks]), "the pod is asked")?;
        let answer = framed(&Message::new(pod, world, L4::Udp(PORT, asks)).frame(), &[]);
        send(self.open.as_raw_fd(), &answer, MsgFlags::empty()).context("the pod can't send")?;
        let back = seen(&self.tagged)?.into_iter().find(|seen| seen.sport == PORT).context("no answer leaves")?;
        ensure!((back.src, back.dst, back.dport) == (pod, world, asks), "{} answers {}", back.src, back.dst);
        Ok(())
    }

    /// A frame of a datagram, and the port that it comes from.
    fn frame(&mut self, from: IpAddr, to: IpAddr, tags: &[(u16, u16)]) -> (u16, Vec<u8>) {
        self.next += 1;
        (self.next, framed(&Message::new(from, to, L4::Udp(self.next, PORT)).frame(), tags))
    }

    /// Has a pod of another node send to a pod, with tags in the frame: it is handed over past the stack.
    fn comes_in(&mut self, slot: u16, v6: bool, tags: &[(u16, u16)]) -> Result<u16> {
        let (port, frame) = self.frame(Node::far_pod(v6), Node::pod(slot, v6), tags);
        send(self.outside.as_raw_fd(), &frame, MsgFlags::empty()).context("the outside can't send")?;
        Ok(port)
    }

    /// The same of somebody in the world: the stack forwards it.
    fn comes_from_afar(&mut self, slot: u16, tags: &[(u16, u16)]) -> Result<u16> {
        let (port, frame) = self.frame(Node::world(false), Node::pod(slot, false), tags);
        send(self.outside.as_raw_fd(), &frame, MsgFlags::empty()).context("the outside can't send")?;
        Ok(port)
    }

    /// As [`Self::comes_in`] with the tag beside the frame, as a device of the VLAN sends it.
    fn comes_in_beside(&mut self, slot: u16, v6: bool) -> Result<u16> {
        let (port, frame) = self.frame(Node::far_pod(v6), Node::pod(slot, v6), &[]);
        send(self.tagged.as_raw_fd(), &frame, MsgFlags::empty()).context("the outside can't send")?;
        Ok(port)
    }

    fn sends_in(&self, frame: &Frame, tags: &[(u16, u16)]) -> Result<()> {
        send(self.outside.as_raw_fd(), &framed(frame, tags), MsgFlags::empty()).context("the outside can't send")?;
        Ok(())
    }

    fn pod_sends(&mut self, to: IpAddr, tags: &[(u16, u16)]) -> Result<()> {
        let (_, frame) = self.frame(Node::pod(OPEN, to.is_ipv6()), to, tags);
        send(self.open.as_raw_fd(), &frame, MsgFlags::empty()).context("the pod can't send")?;
        Ok(())
    }

    /// How many packets were dropped for a reason, of those that are counted to a pod.
    fn drops(&mut self, slot: u16, reason: DropReason) -> Result<u64> {
        let table = self.programs.table(TableId::DropsOfPods)?;
        let Some((_, value)) = table.among(Some(&BTreeSet::from([slot.into()])))?.into_iter().next() else {
            return Ok(0);
        };
        let at = usize::from(reason as u8) * size_of::<u64>();
        let word = value.get(at..at + size_of::<u64>()).context("the table has no such reason")?;
        Ok(u64::from_ne_bytes(word.try_into()?))
    }
}

/// A node with the VLAN's device as an uplink, and a pod that takes nothing.
fn node(flags: u32) -> Node {
    let mut node = Node::new();
    node.policy_set(NOTHING, Some((6, 1)));
    node.police(CLOSED, NOTHING, NOTHING);
    node.host.uplinks.insert(TAGGED, Uplink { v4: IpAddr::from(OWN).into(), flags, ..Uplink::default() });
    node
}

/// Attaches what an uplink has.
fn uplink(programs: &mut Programs<'_>, index: u32) -> Result<()> {
    programs.attach("from_uplink", index, TcAttachType::Ingress)?;
    programs.attach("to_uplink", index, TcAttachType::Egress)
}

/// Makes the device of a VLAN above another.
fn vlan(index: u32, above: u32, id: u16, reorder: bool) -> Result<()> {
    let mut link = site::up(index);
    let flags = if reorder { VlanFlags::ReorderHdr } else { VlanFlags::empty() };
    let data = InfoData::Vlan(vec![InfoVlan::Id(id), InfoVlan::Flags((flags, VlanFlags::ReorderHdr))]);
    link.attributes = vec![
        LinkAttribute::IfName(name(index)),
        LinkAttribute::Link(above),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)]),
    ];
    Netlink::open()?.add(RouteNetlinkMessage::NewLink(link)).with_context(|| format!("can't make the VLAN {id}"))
}

/// The way to the world is by the VLAN; the stack knows the pods.
fn ways() -> Result<()> {
    site::address(TAGGED, OWN)?;
    site::neighbour(TAGGED, HOP)?;
    site::route(None, TAGGED, Some(HOP))?;
    for slot in [OPEN, CLOSED] {
        let ip = site::v4(Node::pod(slot, false));
        site::route(Some(ip), ifindex_of(slot), None)?;
        site::neighbour(ifindex_of(slot), ip)?;
    }
    // By the device with its headers together come senders that routes have elsewhere.
    for place in ["all", "default", &name(TAGGED), &name(TOGETHER)] {
        fs::write(format!("/proc/sys/net/ipv4/conf/{place}/rp_filter"), "0").context("can't have any sender let in")?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").context("the node can't stop forwarding")
}

/// The far ends, in their namespace.
fn far_ends() -> Result<[OwnedFd; 5]> {
    vlan(FAR_TAGGED, Node::UPLINK + FAR_ENDS, OURS, true)?;
    vlan(POD_TAGGED, ifindex_of(OPEN) + FAR_ENDS, OURS, true)?;
    let far = |index| site::end(index + FAR_ENDS);
    let (open, closed) = (far(ifindex_of(OPEN))?, far(ifindex_of(CLOSED))?);
    Ok([open, closed, far(Node::UPLINK)?, site::end(FAR_TAGGED)?, site::end(POD_TAGGED)?])
}

/// A frame to an interface, with tags, the outer one first.
fn framed(frame: &Frame, tags: &[(u16, u16)]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|(kind, id)| [kind.to_be_bytes(), id.to_be_bytes()]).flatten();
    [&MAC[..], &MAC].concat().into_iter().chain(tags).chain(frame.bytes[12..].iter().copied()).collect()
}

/// What arrives at an interface until nothing does.
fn seen(at: &OwnedFd) -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match recv(at.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            // The kernel's own, about neighbours, are among them.
            Ok(length) => all.extend(Seen::of(&Frame::new(buffer[..length].to_vec()))),
            Err(Errno::EAGAIN) => return Ok(all),
            Err(error) => return Err(error).context("nothing can be received"),
        }
        ensure!(all.len() < 10_000, "something else arrives without end");
    }
}

/// The ports that datagrams which arrive at an interface come from.
fn got(at: &OwnedFd) -> Result<BTreeSet<u16>> {
    Ok(seen(at)?.into_iter().filter(|seen| seen.dport == PORT).map(|seen| seen.sport).collect())
}

fn ensure_same(got: &BTreeSet<u16>, wanted: &BTreeSet<u16>, what: &str) -> Result<()> {
    let numbers = |set: &BTreeSet<u16>| set.iter().map(|port| port - 20_000).collect::<Vec<_>>();
    ensure!(got == wanted, "{what}: got {:?}, and not {:?}", numbers(got), numbers(wanted));
    Ok(())
}
