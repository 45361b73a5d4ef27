//! The wiring of one pod.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkMessage, State};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteProtocol, RouteType};

use crate::Error;
use crate::netlink::{
    Netlink, Operation, Route, add_address, add_neighbour, add_route, create_veth, delete_link, no_automatic_address,
    no_reverse_path_filter, set_alias, set_up, within,
};
use crate::protocol::{POD_ROUTE_PROTOCOL, Reservation, network_alias};

/// The index of `lo`, the first device of every namespace (`LOOPBACK_IFINDEX` in include/net/flow.h).
const LOOPBACK: u32 = 1;

/// How long the pod's side may take to be ready, its carrier and its addresses each: a thousand times what it does take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The pod's namespace, open, with a socket in it.
#[derive(Debug)]
pub(crate) struct PodSide {
    file: File,
    inode: u64,
    pub(crate) netlink: Netlink,
}

impl PodSide {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// Code 4 when there is none, or it is the plugin's own and that was not asked for.
    pub(crate) fn open(path: &str, allow_own: bool) -> Result<Self, Error> {
        let invalid = |reason| Error::Env { variable: "CNI_NETNS", reason };
        let stat = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        let file = File::open(path).map_err(|e| invalid(format!("can't open {path}: {e}")))?;
        let (device, inode) = stat(&file).map_err(|e| invalid(format!("can't stat {path}: {e}")))?;
        let own = File::open("/proc/thread-self/ns/net").and_then(|own| stat(&own));
        if !allow_own && own.is_ok_and(|own| own == (device, inode)) {
            return Err(invalid(format!(
                "{path} is the node's own network namespace; set CNI_NETNS_OVERRIDE=1 if that is intended"
            )));
        }
        let netlink = Netlink::open_in(file.as_fd())?;
        Ok(Self { file, inode, netlink })
    }

    /// The inode that names the namespace.
    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// The families in which the pod has a default route.
    ///
    /// # Errors
    /// Code 100.
    pub(crate) fn taken(&mut self) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        for route in self.netlink.routes()? {
            let header = &route.header;
            let is_default = header.destination_prefix_length == 0
                && header.kind == RouteType::Unicast
                && header.table == RouteHeader::RT_TABLE_MAIN;
            match header.address_family {
                AddressFamily::Inet => taken.v4 |= is_default,
                AddressFamily::Inet6 => taken.v6 |= is_default,
                _ => {}
            }
        }
        Ok(taken)
    }
}

/// In which families the pod has a default route before we come: by its first interface, whose pod's route stays what it
/// is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// IPv4.
    pub(crate) v4: bool,
    /// IPv6.
    pub(crate) v6: bool,
}

impl Taken {
    /// Whether it has one in the family of this address.
    pub(crate) fn has(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    /// What the agent gave.
    pub(crate) reservation: &'a Reservation,
    /// `CNI_IFNAME`
    pub(crate) ifname: &'a str,
    /// The name of the network.
    pub(crate) network: &'a str,
    /// Where the pod has a default route.
    pub(crate) taken: Taken,
}

/// The kernel's settings of IPv6, which are missing where it was started without (`ipv6.disable=1`).
const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// Switches IPv6 on for a link of the calling thread's namespace. Some runtimes leave it off for devices of a pod that are yet to
/// come, and some administrators for those of the node. Where this can't be written the addition of an IPv6 address or route says
/// so.
fn allow_ipv6(link: &str) {
    let path = Path::new(IPV6_CONF).join(link).join("disable_ipv6");
    if std::fs::read(&path).is_ok_and(|value| value.starts_with(b"1")) {
        let _unwritable = std::fs::write(&path, "0");
    }
}

/// Whether IPv6 is off for a link.
fn is_without_ipv6(link: &LinkMessage) -> bool {
    let specs = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(specs) => Some(specs),
        _ => None,
    });
    let of_ipv6 = specs.flatten().filter_map(|spec| match spec {
        AfSpecUnspec::Inet6(spec) => Some(spec),
        _ => None,
    });
    of_ipv6.flatten().any(|spec| matches!(spec, AfSpecInet6::DevConf(conf) if conf.disable_ipv6 != 0))
}

/// No automatic addresses for a link, where the kernel has IPv6: one without refuses what is said of it.
fn no_address_by_itself(kernel_has_ipv6: bool, index: u32, name: &str) -> Option<Operation> {
    kernel_has_ipv6.then(|| no_automatic_address(index, name))
}

fn kernel_has_ipv6() -> bool {
    Path::new(IPV6_CONF).exists()
}

/// Makes the links, both down. Nothing is left behind on an error.
///
/// # Errors
/// Code 100.
pub(crate) fn create(host: &mut Netlink, pod: &PodSide, plan: &Plan<'_>) -> Result<(), Error> {
    let Plan { reservation, ifname, network, .. } = plan;
    let Reservation { ifindex, host_link, .. } = reservation;
    host.execute(vec![create_veth(reservation, ifname, pod.file.as_fd())])?;
    let mut operations =
        vec![set_alias(*ifindex, host_link, &network_alias(network)), no_reverse_path_filter(*ifindex, host_link)];
    operations.extend(no_address_by_itself(kernel_has_ipv6(), *ifindex, host_link));
    host.execute(operations).inspect_err(|_| remove(host, host_link).unwrap_or_default())?;
    if has_ipv6(reservation) {
        allow_ipv6(host_link);
    }
    Ok(())
}

/// Configures both sides and brings them up.
///
/// # Errors
/// Code 100.
pub(crate) fn bring_up(host: &mut Netlink, pod: &mut PodSide, plan: &Plan<'_>) -> Result<(), Error> {
    let Plan { reservation, ifname, .. } = *plan;
    let link = pod.netlink.link(ifname)?.ok_or_else(|| Error::Kernel {
        what: format!("find {ifname}"),
        source: std::io::Error::other("it disappeared from the pod's namespace"),
    })?;
    if has_ipv6(reservation) && is_without_ipv6(&link) {
        within(pod.file.as_fd(), || {
            allow_ipv6(ifname);
            Ok(())
        })?;
    }
    pod.netlink.execute(pod_operations(plan, link.header.index, kernel_has_ipv6()))?;
    host.execute(host_operations(reservation))?;
    wait_for_carrier(&mut pod.netlink, ifname)?;
    wait_for_addresses(&mut pod.netlink, reservation)
}

fn has_ipv6(reservation: &Reservation) -> bool {
    reservation.addresses.iter().any(|address| address.ip.is_ipv6())
}

/// Waits until the pod's side can send. It went up before its peer, so it had no carrier, and the kernel gives it its
/// queue in a work item of its own (net/core/link_watch.c); what is sent before that is lost without a trace.
fn wait_for_carrier(pod: &mut Netlink, ifname: &str) -> Result<(), Error> {
    let begin = Instant::now();
    loop {
        let link = pod.link(ifname)?;
        let up = link.is_some_and(|link| link.attributes.contains(&LinkAttribute::OperState(State::Up)));
        // After that long somebody has taken the carrier away on purpose, and the pod is none the worse for it.
        if up || begin.elapsed() > PATIENCE {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Waits until the pod takes packets to its IPv6 addresses: the kernel makes the local route of one in a work item, some
/// time after it took the address (`addrconf_dad_start` in net/ipv6/addrconf.c). What comes before is lost.
fn wait_for_addresses(pod: &mut Netlink, reservation: &Reservation) -> Result<(), Error> {
    let v6 = || reservation.addresses.iter().map(|address| address.ip).filter(IpAddr::is_ipv6);
    let begin = Instant::now();
    while v6().next().is_some() {
        let routes = pod.routes()?;
        let is_local = |ip: IpAddr| {
            let destination = RouteAttribute::Destination(ip.into());
            routes.iter().any(|route| route.header.kind == RouteType::Local && route.attributes.contains(&destination))
        };
        if v6().all(is_local) || begin.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

fn pod_operations(plan: &Plan<'_>, index: u32, kernel_has_ipv6: bool) -> Vec<Operation> {
    let Plan { reservation, ifname, network: _, taken } = *plan;
    // Most runtimes bring lo up, not all do.
    let mut operations = vec![set_up(LOOPBACK, "lo")];
    operations.extend(no_address_by_itself(kernel_has_ipv6, index, ifname));
    for address in &reservation.addresses {
        if address.ip.is_ipv6() {
            // Without the route of all link-local addresses: each that the pod sends to would be an entry that waits for an
            // answer, and the kernel has one number of neighbours for all network namespaces of a node.
            operations.push(add_address(index, IpAddr::V6(reservation.pod_mac.link_local()), 128));
        }
        operations.push(add_address(index, address.ip, if address.ip.is_ipv4() { 32 } else { 128 }));
    }
    operations.push(set_up(index, ifname));
    for address in &reservation.addresses {
        operations.push(add_neighbour(index, address.gateway, reservation.host_mac));
        let taken = taken.has(address.ip);
        // A gateway has to be on a link: whoever adds a route through ours, or checks those there are, looks for that. A further
        // interface must not take the first one's, so its metric differs.
        let metric = taken.then_some(index);
        let source = address.gateway.is_ipv4().then_some(address.ip);
        let route = Route::To { ip: address.gateway, source, metric };
        operations.push(add_route(index, route, RouteProtocol::Boot));
        if !taken {
            operations.push(add_route(index, Route::DefaultVia(address.gateway), RouteProtocol::Boot));
        }
    }
    operations
}

fn host_operations(reservation: &Reservation) -> Vec<Operation> {
    let index = reservation.ifindex;
    let mut operations = vec![set_up(index, &reservation.host_link)];
    for address in &reservation.addresses {
        let route = Route::To { ip: address.ip, source: address.host_source, metric: None };
        operations.push(add_neighbour(index, address.ip, reservation.pod_mac));
        operations.push(add_route(index, route, RouteProtocol::Other(POD_ROUTE_PROTOCOL)));
    }
    operations
}

/// Removes the host side and with it the pod's; its routes and neighbours go with it. No such link is fine.
///
/// # Errors
/// Code 100.
pub(crate) fn remove(host: &mut Netlink, host_link: &str) -> Result<(), Error> {
    match host.execute(vec![delete_link(host_link)]) {
        Err(Error::Kernel { source, .. }) if source.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => Ok(()),
        result => result,
    }
}
