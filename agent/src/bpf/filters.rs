//! Programs as filters of the clsact qdisc. They need no pin and stay until somebody removes them, and nothing waits for them:
//! so a pod begins with them, also where its programs are attached by links later ([`super::later`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use tracing::warn;

use super::BpfError;
use super::clsact::{self, Filter};

/// The priority of filters of one purpose. It and the handle are fixed, so that the next agent replaces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank(pub(super) u16);

/// The priority of filters that stand in for a pod's links until it has them. Where there is no tcx they are what stays.
pub const STAND_IN: u16 = 50;

impl Rank {
    /// Whatever makes a pause, before all of them, on kernels without tcx.
    pub(super) const PAUSE: Self = Self(40);
    /// The programs themselves: where there is no tcx, and of a pod until it has its links.
    pub(super) const PROGRAM: Self = Self(STAND_IN);
    /// The guards, behind them.
    pub(super) const GUARD: Self = Self(60);
}

/// The program that drops whatever none before it has decided on.
pub(super) const GUARD: &str = "fairlead_guard";

/// The program that leaves every packet to the next.
pub(super) const PASS: &str = "fairlead_pass";

/// The programs of a pod's interface: what it sends, what it gets, and the guard.
pub(super) const OF_POD: [&str; 3] = ["from_pod", "to_pod", GUARD];

/// The programs of an uplink: what comes in by it, and what leaves.
pub(super) const OF_UPLINK: [&str; 2] = ["from_uplink", "to_uplink"];
/// The same of one whose packets have no Ethernet header.
pub(super) const OF_BARE_UPLINK: [&str; 2] = ["from_bare", "to_bare"];

/// The programs of the tunnel's device.
pub(super) const OF_OVERLAY: [&str; 2] = ["from_overlay", "to_overlay"];

/// The program of the device for Services: what leaves by it.
pub(super) const OF_SERVICES: &str = "to_services";

/// Every program of packets: whether it sees what comes in at an interface, and its name.
const PACKET: [(bool, &str); 9] = [
    (true, OF_POD[0]),
    (false, OF_POD[1]),
    (true, OF_UPLINK[0]),
    (false, OF_UPLINK[1]),
    (true, OF_BARE_UPLINK[0]),
    (false, OF_BARE_UPLINK[1]),
    (true, OF_OVERLAY[0]),
    (false, OF_OVERLAY[1]),
    (false, OF_SERVICES),
];

/// Whether a program is one of packets in this direction.
pub(super) fn is_packet(ingress: bool, program: &str) -> bool {
    PACKET.contains(&(ingress, program))
}

/// Whether a program is an uplink's.
pub(super) fn is_of_uplink(program: &str) -> bool {
    [OF_UPLINK, OF_BARE_UPLINK].as_flattened().contains(&program)
}

/// The programs of pods, for whoever attaches them beside the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PodFilters {
    programs: Arc<[OwnedFd; 3]>,
}

impl PodFilters {
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, BpfError> {
        let [from, to, guard] = OF_POD.map(|name| {
            let missing = || BpfError::Missing { what: "program", name: name.to_owned() };
            let fd = ebpf.program(name).ok_or_else(missing)?.fd().map_err(io::Error::other);
            let fd = fd.and_then(|fd| fd.as_fd().try_clone_to_owned());
            let attach =
                |source| BpfError::Attach { program: name, target: "the interfaces of pods".to_owned(), source };
            fd.map_err(attach)
        });
        Ok(Self { programs: Arc::new([from?, to?, guard?]) })
    }

    /// Attaches all of them to the host side of a pod's veth, as filters, guards behind the programs and what leaves by it
    /// first. Of a device that is down nothing waits for a grace period.
    ///
    /// # Errors
    /// The interface is gone, or the kernel refuses.
    pub fn attach(&self, ifindex: u32) -> io::Result<()> {
        clsact::put(
            ifindex,
            &self.filters([(Rank::GUARD, false), (Rank::PROGRAM, false), (Rank::GUARD, true), (Rank::PROGRAM, true)]),
        )
    }

    /// Attaches the guards alone, where links attach the programs.
    pub(super) fn guard(&self, ifindex: u32) -> io::Result<()> {
        clsact::put(ifindex, &self.filters([(Rank::GUARD, false), (Rank::GUARD, true)]))
    }

    fn filters<const N: usize>(&self, places: [(Rank, bool); N]) -> [Filter<'_>; N] {
        let [from, to, guard] = &*self.programs;
        let [from_name, to_name, guard_name] = OF_POD;
        places.map(|(rank, ingress)| {
            let (name, program) = match (rank, ingress) {
                (Rank::GUARD, _) => (guard_name, guard),
                (_, true) => (from_name, from),
                (_, false) => (to_name, to),
            };
            Filter { ingress, rank, name, program: program.as_fd() }
        })
    }

    /// The program of a direction.
    pub(super) fn program(&self, ingress: bool) -> &OwnedFd {
        let [from, to, _] = &*self.programs;
        if ingress { from } else { to }
    }
}

/// Filters that may be left when pods' links and the tunnel's device are gone: on kernels without tcx those of uplinks, and
/// those of links that could not be deleted. Whether they see what comes in, where they are, and of which program.
fn left() -> impl Iterator<Item = (bool, Rank, &'static str)> {
    let guards = [Rank::PAUSE, Rank::GUARD].into_iter().flat_map(|rank| [(true, rank, GUARD), (false, rank, GUARD)]);
    PACKET.into_iter().map(|(ingress, program)| (ingress, Rank::PROGRAM, program)).chain(guards)
}

/// Removes filters, which have no pins to go with.
pub fn remove_filters() {
    let links = nix::net::if_::if_nameindex();
    for link in links.iter().flat_map(|links| links.iter()) {
        for (ingress, rank, program) in left() {
            if let Err(error) = clsact::remove(link.index(), ingress, rank, program) {
                warn!(link = %link.name().to_string_lossy(), program, %error, "can't remove a filter");
            }
        }
    }
}
