//! A pause of packets: guards, which drop, in front of every packet program of an agent before.
//!
//! While tables of flows are read into new ones no program may write either. Nor may an old program see a packet of a flow
//! that a new one has made, or the reverse: each would take it for a stranger's, and the host's stack would answer it with a
//! reset. So no old program sees anything any more before the first new one comes. What is sent meanwhile is sent again.
//!
//! The programs stay where they are, behind the guard: nobody could put them back, since a link does not give away its program,
//! and the kernel's list of programs is for `CAP_SYS_ADMIN` alone, which agents don't have. Where there is tcx the guard has a
//! link of its own that is pinned nowhere. So it is gone with the agent, however that ends, and the old programs go on. Before
//! tcx it is a filter ahead of the programs', which goes with the pause, or when the next agent starts ([`clear`]).
//!
//! XDP has one program at an interface, and none in front of it. There the old one goes for good: one in its place leaves all
//! packets to the guard behind, and to whatever is there after it, until the new one comes. It goes on like that, slower but right,
//! if the agent is killed.
//!
//! A place in front takes a grace period of the kernel, a change of who is there does not. So [`Pause::prepare`] takes the
//! places, for a program that leaves every packet to the next; the pause itself begins and ends within a moment at all of them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use fairlead_datapath::{overlay, slot_of, svc};
use rtnetlink::packet_route::link::LinkLayerType;
use tracing::{debug, info, warn};

use super::attach::TCX;
use super::clsact::{self, Filter};
use super::filters::{GUARD, OF_BARE_UPLINK, OF_OVERLAY, OF_POD, OF_SERVICES, OF_UPLINK, PASS, Rank, is_packet};
use super::map::Map;
use super::{BpfError, PinDir, links, netlink, sys, xdp};

/// A hook: an interface's index, and whether it sees what comes in there.
type At = (u32, bool);

/// What an agent before has attached to packets.
#[derive(Debug, Default)]
pub(super) struct Attached {
    programs: Vec<Program>,
    drivers: Vec<Driver>,
}

/// An XDP program that is attached.
#[derive(Debug)]
struct Driver {
    ifindex: u32,
    /// The link's pin, for messages.
    target: String,
    link: OwnedFd,
}

/// A program that is attached.
#[derive(Debug)]
struct Program {
    at: At,
    /// The interface or the link's pin, for messages.
    target: String,
    by: By,
}

/// How it is attached.
#[derive(Debug)]
enum By {
    /// By a link, which is pinned.
    Link(OwnedFd),
    /// As a filter, with this name.
    Filter(String),
}

impl Attached {
    /// What is attached.
    ///
    /// # Errors
    /// The pins can't be listed.
    pub(super) fn find(pins: &PinDir) -> Result<Self, BpfError> {
        let (mut programs, mut drivers) = (Vec::new(), Vec::new());
        for name in pins.links()? {
            let pin = pins.link(&name);
            let Some(ifindex) = links::interface(&pin).filter(|ifindex| *ifindex != 0) else { continue };
            let Ok((link, info)) = sys::obj_get(&pin).and_then(|link| sys::link_info(link.as_fd()).map(|i| (link, i)))
            else {
                continue;
            };
            let [ingress, _] = TCX;
            if links::is_of_driver(info) {
                drivers.push(Driver { ifindex, target: name, link });
            } else {
                programs.push(Program { at: (ifindex, info.b == ingress), target: name, by: By::Link(link) });
            }
        }
        each_hook(|at, target| {
            let found = clsact::find(at.0, at.1, Rank::PROGRAM).ok().flatten();
            if let Some(clsact::Found { name, .. }) = found.filter(|found| is_packet(at.1, &found.name)) {
                programs.push(Program { at, target: target.to_owned(), by: By::Filter(name) });
            }
        });
        Ok(Self { programs, drivers })
    }

    /// Puts this agent's programs in the place of those of an agent before. `foreign`: the table of pods that another plugin
    /// has wired. Those that can't be are left to whoever attaches programs next.
    pub(super) fn replace(&self, ebpf: &Ebpf, foreign: &Map) {
        for Program { at, target, by } in &self.programs {
            let put = || match by {
                By::Link(link) => sys::link_update(link.as_fd(), fd(ebpf, belongs(*at, foreign)?)?),
                By::Filter(name) => put(*at, Rank::PROGRAM, name, fd(ebpf, name)?),
            };
            match put() {
                Err(error) if is_there(*at) => {
                    warn!(target, %error, "the program of the agent before stays until this one attaches its own");
                }
                Err(error) => debug!(target, %error, "the interface is gone"),
                Ok(()) => {}
            }
        }
        for Driver { ifindex, target, link } in &self.drivers {
            match fd(ebpf, xdp::PROGRAM).and_then(|program| sys::link_update(link.as_fd(), program)) {
                Err(error) if is_there((*ifindex, true)) => {
                    warn!(target, %error, "no XDP there until this agent attaches its own: traffic takes the slower way");
                }
                Err(error) => debug!(target, %error, "the interface is gone"),
                Ok(()) => {}
            }
        }
    }

    /// Has no XDP program of an agent before see a packet any more. When it returns, one that was running before may still be.
    ///
    /// # Errors
    /// One can't be replaced.
    pub(super) fn retire_drivers(&self, ebpf: &Ebpf) -> Result<(), BpfError> {
        self.drivers.iter().try_for_each(|Driver { ifindex, target, link }| {
            match fd(ebpf, xdp::PASS).and_then(|pass| sys::link_update(link.as_fd(), pass)) {
                Err(source) if is_there((*ifindex, true)) => {
                    Err(BpfError::Attach { program: xdp::PASS, target: target.clone(), source })
                }
                _ => Ok(()),
            }
        })
    }
}

/// A place in front of every program that is attached.
#[derive(Debug)]
pub(super) struct Pause {
    places: Vec<Place>,
    pass: OwnedFd,
    guard: OwnedFd,
}

/// A place in front of a program.
#[derive(Debug)]
struct Place {
    at: At,
    target: String,
    /// The link. `None`: it is a filter.
    link: Option<OwnedFd>,
}

impl Pause {
    /// Takes a place in front of every program, and lets everything pass there. `tcx`: whether the kernel has it.
    ///
    /// # Errors
    /// A place can't be had. Then there is none.
    pub(super) fn prepare(attached: &Attached, ebpf: &Ebpf, tcx: bool) -> Result<Self, BpfError> {
        let own = |name| {
            let own = fd(ebpf, name).and_then(|fd| fd.try_clone_to_owned());
            own.map_err(|source| BpfError::Attach { program: name, target: "any interface".to_owned(), source })
        };
        let mut pause = Self { places: Vec::new(), pass: own(PASS)?, guard: own(GUARD)? };
        let hooks: BTreeMap<At, &str> = attached.programs.iter().map(|p| (p.at, p.target.as_str())).collect();
        for (at, target) in hooks {
            let [ingress, egress] = TCX;
            let attach_type = if at.1 { ingress } else { egress };
            let pass = pause.pass.as_fd();
            let made = if tcx {
                sys::link_create(pass, at.0, attach_type, sys::Position::First).map(Some)
            } else {
                put(at, Rank::PAUSE, GUARD, pass).map(|()| None)
            };
            match made {
                Ok(link) => pause.places.push(Place { at, target: target.to_owned(), link }),
                // No packet comes there any more.
                Err(_) if !is_there(at) => {}
                Err(source) => return Err(BpfError::Attach { program: PASS, target: target.to_owned(), source }),
            }
        }
        Ok(pause)
    }

    /// Lets nothing pass any more. When it returns, programs that were running before may still be.
    ///
    /// # Errors
    /// A hook lets everything pass. Drop the pause then.
    pub(super) fn begin(&self) -> Result<(), BpfError> {
        self.places.iter().try_for_each(|place| match place.put(self.guard.as_fd()) {
            Err(source) if is_there(place.at) => {
                Err(BpfError::Attach { program: GUARD, target: place.target.clone(), source })
            }
            _ => Ok(()),
        })
    }

    /// How many hooks there are.
    pub(super) fn hooks(&self) -> usize {
        self.places.len()
    }

    /// Lets everything pass again, to whatever program is there now.
    pub(super) fn end(&self) {
        for place in &self.places {
            if let Err(error) = place.put(self.pass.as_fd())
                && is_there(place.at)
            {
                warn!(target = place.target, %error, "packets are dropped there until the guard is gone");
            }
        }
    }
}

impl Drop for Pause {
    /// Gives up the places.
    fn drop(&mut self) {
        self.end();
        for Place { at, target, .. } in self.places.extract_if(.., |place| place.link.is_none()) {
            if let Err(error) = clsact::remove(at.0, at.1, Rank::PAUSE, GUARD) {
                warn!(target, %error, "can't remove the filter in front of a program");
            }
        }
    }
}

impl Place {
    /// Replaces who is there by another, at once.
    fn put(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        match &self.link {
            Some(link) => sys::link_update(link.as_fd(), program),
            None => put(self.at, Rank::PAUSE, GUARD, program),
        }
    }
}

/// Removes the filters of a pause in which an agent was killed. Links are gone with it.
pub(super) fn clear() {
    each_hook(|at, target| match clsact::remove(at.0, at.1, Rank::PAUSE, GUARD) {
        Ok(false) => {}
        Ok(true) => info!(target, "an agent ended in a pause: packets pass again"),
        Err(error) => debug!(target, %error, "nothing to remove"),
    });
}

fn each_hook(mut each: impl FnMut(At, &str)) {
    for interface in nix::net::if_::if_nameindex().iter().flat_map(|all| all.iter()) {
        for ingress in [true, false] {
            each((interface.index(), ingress), &interface.name().to_string_lossy());
        }
    }
}

fn is_there((ifindex, _): At) -> bool {
    nix::net::if_::if_indextoname(ifindex).is_ok()
}

fn put((ifindex, ingress): At, rank: Rank, name: &str, program: BorrowedFd<'_>) -> io::Result<()> {
    clsact::put(ifindex, &[Filter { ingress, rank, name, program }])
}

/// The program that belongs to a hook that has one.
fn belongs((ifindex, ingress): At, foreign: &Map) -> io::Result<&'static str> {
    let is_foreign = || foreign.get(&ifindex.to_ne_bytes()).map(|side| side.is_some()).map_err(io::Error::other);
    let [from, to] = match ifindex {
        overlay::IFINDEX => OF_OVERLAY,
        svc::IFINDEX => [OF_SERVICES; 2],
        _ if slot_of(ifindex).is_some() || is_foreign()? => [OF_POD[0], OF_POD[1]],
        _ if netlink::link_layer(ifindex)? == LinkLayerType::Ether => OF_UPLINK,
        _ => OF_BARE_UPLINK,
    };
    Ok(if ingress { from } else { to })
}

fn fd<'a>(ebpf: &'a Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    let program = ebpf.program(name).ok_or_else(|| io::Error::other(format!("the object has no program {name}")))?;
    program.fd().map(AsFd::as_fd).map_err(io::Error::other)
}
