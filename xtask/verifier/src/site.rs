//! A node with links: a network namespace with the walk's own test tables, interfaces and the programs at them. The other ends are in a
//! second namespace, which has no addresses: whole frames come from and go there.

use std::{
    collections::{
        BTreeMap,
        btree_map::Entry::{Occupied, Vacant},
    },
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        tc::{SchedClassifierLinkId, qdisc_add_clsact},
    },
    util::KernelVersion,
};
use fairlead_datapath::{catalog::TableId, testing::Node};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{
            AddressFamily as Family, SockFlag, SockProtocol, SockType, bind, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::{
    links::FAR_ENDS,
    load::one_line,
    netlink::Netlink,
    store::{self, Store},
};

/// Of every interface.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// How long none comes after the last frame that is received, in milliseconds.
const QUIET: i64 = 700;

/// Prints the line about a test that sent frames; whether all was right.
pub(crate) fn report(name: &str, result: &Result<u32>) -> bool {
    match result {
        Ok(frames) => println!("fairlead-verifier\tframes\t{name}\t{frames}"),
        Err(error) => println!("fairlead-verifier\tframes-failed\t{name}\t{}", one_line(&format!("{error:#}"))),
    }
    result.is_ok()
}

/// The object's programs and tables.
pub(crate) struct Programs<'e> {
    ebpf: &'e mut Ebpf,
    tables: BTreeMap<TableId, Box<dyn Store>>,
    links: Vec<(String, SchedClassifierLinkId)>,
    /// The namespace of the other ends, until the programs are detached: when it goes, the interfaces go with it.
    others: Option<File>,
}

impl<'e> Programs<'e> {
    pub(crate) fn of(ebpf: &'e mut Ebpf) -> Self {
        Self { ebpf, tables: BTreeMap::new(), links: Vec::new(), others: None }
    }

    /// A table.
    pub(crate) fn table(&mut self, table: TableId) -> Result<&mut dyn Store> {
        let store = match self.tables.entry(table) {
            Occupied(at) => at.into_mut(),
            Vacant(at) => at.insert(store::take(self.ebpf, table)?),
        };
        Ok(store.as_mut())
    }

    /// Writes the tables of a node of the walk's tests.
    pub(crate) fn write(&mut self, node: &Node) -> Result<()> {
        for entry in node.host.tables() {
            self.table(entry.table)?.put(&entry.key, &entry.value).with_context(|| entry.table.to_string())?;
        }
        Ok(())
    }

    /// Holds the namespace of the other ends.
    pub(crate) fn hold(&mut self, others: File) {
        self.others = Some(others);
    }

    /// Attaches a program to an interface of the node.
    pub(crate) fn attach(&mut self, program: &str, index: u32, at: TcAttachType) -> Result<()> {
        let interface = name(index);
        let link = self.program(program)?.attach(&interface, at);
        let link = link.with_context(|| format!("can't attach {program} to {interface}"))?;
        self.links.push((program.to_owned(), link));
        Ok(())
    }

    /// Detaches all of them, in the namespace that they were attached in: without tcx they are known by numbers, which another
    /// namespace's interfaces may have.
    pub(crate) fn detach(&mut self) -> Result<()> {
        let _until_then = self.others.take();
        for (program, link) in std::mem::take(&mut self.links) {
            self.program(&program)?.detach(link).with_context(|| format!("can't detach {program}"))?;
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        Ok(program.try_into()?)
    }
}

/// Puts this thread into a network namespace of its own, and makes another for the other ends of its interfaces.
pub(crate) fn enter() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
    in_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(File::open("/proc/thread-self/ns/net")?)
    })
}

/// Does something in another namespace.
pub(crate) fn there<T: Send>(others: &File, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_a_thread(|| {
        setns(others, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// A thread has a network namespace of its own if it wants to.
fn in_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread has panicked"))?
}

/// The name of an interface of the node.
pub(crate) fn name(index: u32) -> String {
    format!("fl{index}")
}

/// Makes interfaces with these indexes, whose far ends are in another namespace.
pub(crate) fn links(others: &File, indexes: &[u32]) -> Result<()> {
    let netlink = Netlink::open()?;
    for &index in indexes {
        let mut far = LinkMessage::default();
        far.header.index = index + FAR_ENDS;
        far.attributes = vec![
            LinkAttribute::IfName(name(index)),
            LinkAttribute::Address(MAC.to_vec()),
            LinkAttribute::NetNsFd(others.as_raw_fd()),
        ];
        let mut link = up(index);
        let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far)));
        link.attributes = vec![
            LinkAttribute::IfName(name(index)),
            LinkAttribute::Address(MAC.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), data]),
        ];
        netlink.add(RouteNetlinkMessage::NewLink(link)).with_context(|| format!("can't make the veth {index}"))?;
        hooks(index)?;
    }
    // A route needs its interface to run, which it does once the other end is up too.
    there(others, || {
        let netlink = Netlink::open()?;
        indexes.iter().try_for_each(|index| netlink.set(RouteNetlinkMessage::NewLink(up(index + FAR_ENDS))))
    })
}

/// Makes the hooks of an interface, where the kernel does not have them by itself.
pub(crate) fn hooks(index: u32) -> Result<()> {
    if KernelVersion::current()? < KernelVersion::new(6, 6, 0) {
        qdisc_add_clsact(&name(index)).with_context(|| format!("can't make the hooks of {}", name(index)))?;
    }
    Ok(())
}

/// Has an interface be up.
pub(crate) fn up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

/// An address of IPv4.
pub(crate) fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => unreachable!("asked for IPv4, and not for {ip}"),
    }
}

/// Gives an interface an address in a network of 24 bits.
pub(crate) fn address(index: u32, own: Ipv4Addr) -> Result<()> {
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.prefix_len = 24;
    address.header.index = index;
    address.attributes = vec![AddressAttribute::Local(own.into()), AddressAttribute::Address(own.into())];
    let netlink = Netlink::open()?;
    netlink
        .add(RouteNetlinkMessage::NewAddress(address))
        .with_context(|| format!("can't give {} an address", name(index)))
}

/// Says who is at an address behind an interface: nobody there answers.
pub(crate) fn neighbour(index: u32, ip: Ipv4Addr) -> Result<()> {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Inet;
    neighbour.header.ifindex = index;
    neighbour.header.state = NeighbourState::Permanent;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)),
        NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
    ];
    Netlink::open()?
        .add(RouteNetlinkMessage::NewNeighbour(neighbour))
        .with_context(|| format!("can't add {ip} as a neighbour"))
}

/// Routes an address, or everything, to an interface; to a hop behind it if one is given.
pub(crate) fn route(to: Option<Ipv4Addr>, index: u32, hop: Option<Ipv4Addr>) -> Result<()> {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if hop.is_some() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        destination_prefix_length: if to.is_some() { 32 } else { 0 },
        ..route.header
    };
    route.attributes = vec![RouteAttribute::Oif(index)];
    route.attributes.extend(to.map(|ip| RouteAttribute::Destination(RouteAddress::Inet(ip))));
    route.attributes.extend(hop.map(|ip| RouteAttribute::Gateway(RouteAddress::Inet(ip))));
    Netlink::open()?.add(RouteNetlinkMessage::NewRoute(route)).with_context(|| format!("can't add a route to {to:?}"))
}

/// A socket for the whole frames of an interface of this namespace.
pub(crate) fn end(index: u32) -> Result<OwnedFd> {
    let interface = getifaddrs()?.find(|found| {
        let link = found.address.as_ref().and_then(|address| address.as_link_addr());
        link.is_some_and(|link| link.ifindex() == index as usize)
    });
    let address =
        interface.and_then(|found| found.address).with_context(|| format!("there is no interface {index}"))?;
    let address = address.as_link_addr().context("it was one above")?;
    let fd = socket(Family::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(fd.as_raw_fd(), address)?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(QUIET))?;
    Ok(fd)
}
