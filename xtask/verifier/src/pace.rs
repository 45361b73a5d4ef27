//! Limits of bandwidth on a queue that keeps departure times (`fq`), with real packets: what a pod sends leaves the node as
//! its limit has it, late and not lost; what it sends to a pod beside is let through at once, or dropped.
//!
//! The node is a network namespace with the walk's own test tables, the interfaces of two pods and one uplink, and the
//! programs at them. The other ends are in a second namespace, which has no addresses: whole frames come from and go there.

use std::{
    collections::{
        BTreeMap,
        btree_map::Entry::{Occupied, Vacant},
    },
    fs::{self, File},
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc::qdisc_add_clsact},
    util::KernelVersion,
};
use fairlead_datapath::{
    bandwidth::{Bandwidth, Limit},
    catalog::TableId,
    ifindex_of,
    testing::{L4, Message, Node},
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{
            AddressFamily as Family, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{
    links::FAR_ENDS,
    netlink::Netlink,
    store::{self, Store},
};

/// What this test is called in the report.
const NAME: &str = "c42_what_leaves_waits_for_its_turn_at_fq";

/// Of every interface.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Bytes of a frame, the time that it takes at the limit, and how many are sent at once.
const BYTES: usize = 1000;
const EACH: Duration = Duration::from_micros(2500);
const FRAMES: u32 = 60;

/// How much later than its turn a frame may be seen by a guest that is emulated, and how long none comes after the last.
const SLACK: Duration = Duration::from_millis(500);
const QUIET: i64 = 700;

/// Sends by way of the queue and prints a line about it; whether all was right.
pub(crate) fn run(ebpf: &mut Ebpf) -> Result<bool> {
    let result = Site::make(ebpf).and_then(Site::measure);
    match &result {
        Ok(frames) => println!("fairlead-verifier\tframes\t{NAME}\t{frames}"),
        Err(error) => {
            println!("fairlead-verifier\tframes-failed\t{NAME}\t{}", crate::load::one_line(&format!("{error:#}")));
        }
    }
    Ok(result.is_ok())
}

/// A limit with so many frames ahead of it.
fn limit(ahead: u32, paced: bool) -> Limit {
    let rate = BYTES as u64 * 1_000_000 / EACH.as_micros() as u64;
    Limit { rate, ahead: ahead * EACH.as_micros() as u32, paced: u32::from(paced) }
}

/// The other ends, and what the pod may send.
struct Site {
    /// The pod's own side.
    pod: OwnedFd,
    /// That of a pod beside it.
    beside: OwnedFd,
    /// What is behind the uplink.
    outside: OwnedFd,
    limits: Box<dyn Store>,
    paces: Box<dyn Store>,
}

impl Site {
    fn make(ebpf: &mut Ebpf) -> Result<Self> {
        let mut stores: BTreeMap<TableId, Box<dyn Store>> = BTreeMap::new();
        for entry in Node::new().host.tables() {
            let store = match stores.entry(entry.table) {
                Occupied(at) => at.into_mut(),
                Vacant(at) => at.insert(store::take(ebpf, entry.table)?),
            };
            store.put(&entry.key, &entry.value).with_context(|| entry.table.to_string())?;
        }
        unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
        let others = in_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })?;
        links(&others)?;
        let ends = in_a_thread(|| {
            setns(&others, CloneFlags::CLONE_NEWNET)?;
            [ifindex_of(0), ifindex_of(1), Node::UPLINK].into_iter().map(end).collect::<Result<Vec<_>>>()
        })?;
        let [pod, beside, outside] = ends.try_into().map_err(|_| anyhow!("three links have three ends"))?;
        for slot in [0, 1] {
            attach(ebpf, "from_pod", &name(ifindex_of(slot)), TcAttachType::Ingress)?;
        }
        attach(ebpf, "to_uplink", &name(Node::UPLINK), TcAttachType::Egress)?;
        let (limits, paces) = (store::take(ebpf, TableId::Limits)?, store::take(ebpf, TableId::Paces)?);
        Ok(Self { pod, beside, outside, limits, paces })
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
        ensure!(*last <= longest, "the last arrives after {last:?}, and not within {longest:?}: nothing waits there");
        Ok(5 * FRAMES)
    }

    fn send(&mut self, to: IpAddr, egress: Limit, here: bool) -> Result<Arrived> {
        let slot = 0_u32.to_ne_bytes();
        self.paces.remove(&slot)?;
        let value = Bandwidth { egress, ingress: Limit::NONE };
        self.limits.put(&slot, zerocopy::IntoBytes::as_bytes(&value))?;
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

/// A thread has a network namespace of its own if it wants to.
fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread has panicked"))?
}

fn name(index: u32) -> String {
    format!("fl{index}")
}

fn attach(ebpf: &mut Ebpf, program: &str, interface: &str, at: TcAttachType) -> Result<()> {
    if KernelVersion::current()? < KernelVersion::new(6, 6, 0) {
        qdisc_add_clsact(interface).with_context(|| format!("can't make the hooks of {interface}"))?;
    }
    let loaded = ebpf.program_mut(program).with_context(|| format!("the object has no program {program}"))?;
    let loaded: &mut SchedClassifier = loaded.try_into()?;
    loaded.attach(interface, at).with_context(|| format!("can't attach {program} to {interface}"))?;
    Ok(())
}

/// Makes the links, whose far ends are in another namespace, and the node's ways: out of the uplink, to the other node.
fn links(others: &File) -> Result<()> {
    let netlink = Netlink::open()?;
    for index in [ifindex_of(0), ifindex_of(1), Node::UPLINK] {
        let mut far = LinkMessage::default();
        far.header.index = index + FAR_ENDS;
        far.attributes = vec![LinkAttribute::IfName(name(index)), LinkAttribute::NetNsFd(others.as_raw_fd())];
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far)));
        link.attributes = vec![
            LinkAttribute::IfName(name(index)),
            LinkAttribute::Address(MAC.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), data]),
        ];
        netlink.add(RouteNetlinkMessage::NewLink(link)).with_context(|| format!("can't make the veth {index}"))?;
    }
    let mut queue = TcMessage::default();
    queue.header.index = Node::UPLINK as i32;
    queue.header.parent = TcHandle::ROOT;
    queue.attributes = vec![TcAttribute::Kind("fq".to_owned())];
    netlink.add(RouteNetlinkMessage::NewQueueDiscipline(queue)).context("can't give the uplink fq")?;

    let (IpAddr::V4(own), IpAddr::V4(hop)) = (Node::address(false), Node::other_node(false)) else {
        unreachable!("asked for IPv4")
    };
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.prefix_len = 24;
    address.header.index = Node::UPLINK;
    address.attributes = vec![AddressAttribute::Local(own.into()), AddressAttribute::Address(own.into())];
    netlink.add(RouteNetlinkMessage::NewAddress(address)).context("can't give the uplink an address")?;
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Inet;
    neighbour.header.ifindex = Node::UPLINK;
    neighbour.header.state = NeighbourState::Permanent;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(hop)),
        NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
    ];
    netlink.add(RouteNetlinkMessage::NewNeighbour(neighbour)).context("can't add the other node as a neighbour")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("the node can't forward")?;
    // A default route needs its uplink to run, which it does once the other end is up too.
    in_a_thread(|| {
        setns(others, CloneFlags::CLONE_NEWNET)?;
        let netlink = Netlink::open()?;
        for index in [ifindex_of(0), ifindex_of(1), Node::UPLINK] {
            let mut link = LinkMessage::default();
            link.header.index = index + FAR_ENDS;
            link.header.flags = LinkFlags::Up;
            link.header.change_mask = LinkFlags::Up;
            netlink.set(RouteNetlinkMessage::NewLink(link))?;
        }
        Ok(())
    })?;
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..route.header
    };
    route.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(hop)), RouteAttribute::Oif(Node::UPLINK)];
    netlink.add(RouteNetlinkMessage::NewRoute(route)).context("can't add a default route")
}

/// A socket for the whole frames of an interface's far end.
fn end(index: u32) -> Result<OwnedFd> {
    let interface = getifaddrs()?.find(|found| {
        let link = found.address.as_ref().and_then(|address| address.as_link_addr());
        link.is_some_and(|link| link.ifindex() == (index + FAR_ENDS) as usize)
    });
    let address = interface.and_then(|found| found.address).context("the far end is not there")?;
    let address = address.as_link_addr().context("it was one above")?;
    let fd = socket(Family::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(fd.as_raw_fd(), address)?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(QUIET))?;
    Ok(fd)
}
