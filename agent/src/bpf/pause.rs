//! A pause of packets: the guard, which drops, in the place of every packet program of an agent before.
//!
//! While tables of flows are read into new ones no program may write either. Nor may an old program see a packet of a flow
//! that a new one has made, or the reverse: each would take it for a stranger's, and the host's stack would answer it with a
//! reset. So all old programs go before the first new one comes. What is sent meanwhile is sent again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::programs::{ProgramFd, loaded_programs};
use fairlead_datapath::slot_of;
use tracing::{debug, warn};

use super::clsact::{self, Filter};
use super::filters::{GUARD, OF_BARE_UPLINK, OF_POD, OF_UPLINK, Rank};
use super::{BpfError, PinDir, links, sys};

/// The programs of the tunnel's device.
const OF_OVERLAY: [&str; 2] = ["from_overlay", "to_overlay"];

/// Every hook of packets, with guards in place of the programs.
#[derive(Debug, Default)]
pub(super) struct Pause {
    hooks: Vec<Hook>,
}

/// A hook that has a program.
#[derive(Debug)]
struct Hook {
    at: At,
    /// The interface, for messages.
    target: String,
    /// The name of the program that belongs there.
    program: String,
    /// The one that was there, to put back.
    before: Option<ProgramFd>,
}

/// Where a program is attached.
#[derive(Debug)]
enum At {
    Link(OwnedFd),
    Filter { ifindex: u32, ingress: bool },
}

impl At {
    /// Replaces the program there by another, at once.
    fn put(&self, program: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        match self {
            Self::Link(link) => sys::link_update(link.as_fd(), program),
            Self::Filter { ifindex, ingress } => {
                // It keeps its name, by which the next agent knows what belongs there.
                clsact::put(*ifindex, &[Filter { ingress: *ingress, rank: Rank::PROGRAM, name, program }])
            }
        }
    }
}

impl Pause {
    /// What is attached.
    ///
    /// # Errors
    /// The pins can't be listed.
    pub(super) fn find(pins: &PinDir) -> Result<Self, BpfError> {
        let programs = loaded_programs().filter_map(Result::ok);
        let mut programs: BTreeMap<u32, _> = programs.map(|info| (info.id(), info)).collect();
        let mut hooks = Vec::new();
        for name in pins.links()? {
            let pin = pins.link(&name);
            let Some(ifindex) = links::interface(&pin).filter(|ifindex| *ifindex != 0) else { continue };
            let Ok((link, info)) = sys::obj_get(&pin).and_then(|link| sys::link_info(link.as_fd()).map(|i| (link, i)))
            else {
                continue;
            };
            let found = programs.get(&info.prog_id);
            let program = found.and_then(|info| info.name_as_str()).unwrap_or_default().to_owned();
            let ingress = name.starts_with("tcx_in_");
            let before = found.and_then(|info| info.fd().ok());
            let program = belongs(&program, ifindex, ingress);
            hooks.push(Hook { at: At::Link(link), target: name, program, before });
        }
        for interface in nix::net::if_::if_nameindex().iter().flat_map(|all| all.iter()) {
            let ifindex = interface.index();
            for ingress in [true, false] {
                let found = clsact::find(ifindex, ingress, Rank::PROGRAM);
                let Ok(Some(clsact::Found { name, program })) = found else { continue };
                if !is_ours(&name) {
                    continue;
                }
                let before = program.and_then(|id| programs.remove(&id)).and_then(|info| info.fd().ok());
                let target = interface.name().to_string_lossy().into_owned();
                hooks.push(Hook { at: At::Filter { ifindex, ingress }, target, program: name, before });
            }
        }
        Ok(Self { hooks })
    }

    /// Puts the guard everywhere. When it returns, programs that were running before may still be.
    ///
    /// # Errors
    /// A hook keeps its program. Then all have theirs again.
    pub(super) fn begin(&self, ebpf: &Ebpf) -> Result<(), BpfError> {
        let guard = fd(ebpf, GUARD)?;
        let result = self.hooks.iter().try_for_each(|hook| {
            hook.at.put(guard, &hook.program).or_else(|source| match &hook.at {
                // Its interface is gone, and no packet comes there.
                At::Link(link) if sys::link_info(link.as_fd()).is_ok_and(|info| info.a == 0) => Ok(()),
                At::Filter { ifindex, .. } if nix::net::if_::if_indextoname(*ifindex).is_err() => Ok(()),
                _ => Err(BpfError::Attach { program: GUARD, target: hook.target.clone(), source }),
            })
        });
        if result.is_err() {
            self.undo();
        }
        result
    }

    /// Puts back what was there.
    pub(super) fn undo(&self) {
        for Hook { at, target, program, before } in &self.hooks {
            let result = before
                .as_ref()
                .map_or_else(|| Err(io::Error::other("the program is gone")), |before| at.put(before.as_fd(), program));
            if let Err(error) = result {
                warn!(target, program, %error, "can't put back a program: nothing passes there until an agent has started");
            }
        }
    }

    /// Puts this agent's programs in the place of the guards. Those that can't be are left to whoever attaches programs next.
    pub(super) fn end(&self, ebpf: &Ebpf) {
        for Hook { at, target, program, before: _ } in &self.hooks {
            let result = fd(ebpf, program).map_err(io::Error::other).and_then(|fd| at.put(fd, program));
            if let Err(error) = result {
                debug!(target, program, %error, "no program yet after the pause");
            }
        }
    }

    /// How many hooks there are.
    pub(super) fn hooks(&self) -> usize {
        self.hooks.len()
    }
}

/// The program that belongs where this one is: an agent may have ended in a pause.
fn belongs(program: &str, ifindex: u32, ingress: bool) -> String {
    let [from, to, _] = OF_POD;
    match program {
        GUARD if slot_of(ifindex).is_some() => if ingress { from } else { to }.to_owned(),
        other => other.to_owned(),
    }
}

fn is_ours(program: &str) -> bool {
    [[OF_POD[0], OF_POD[1]], OF_UPLINK, OF_BARE_UPLINK, OF_OVERLAY].as_flattened().contains(&program)
}

fn fd<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, BpfError> {
    let missing = || BpfError::Missing { what: "program", name: name.to_owned() };
    let program = ebpf.program(name).ok_or_else(missing)?;
    Ok(program.fd().map_err(|_| missing())?.as_fd())
}
