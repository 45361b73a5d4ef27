//! Pinned links: made once, updated by every agent that follows. Their descriptors stay open, so that a lost pin takes no
//! program away while an agent runs.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::fs::unpin;
use super::{BpfError, PinDir, sys};

/// What a link attaches to, as the kernel reports it: `tcx.ifindex`, `xdp.ifindex` or `cgroup.cgroup_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// An interface index.
    Interface(u32),
    /// The same, of the driver of it.
    Driver(u32),
    /// The id of a cgroup, and a descriptor of its directory.
    Cgroup { id: u64, fd: u32 },
}

impl Target {
    fn is(self, info: sys::LinkInfo) -> bool {
        match self {
            Self::Interface(index) | Self::Driver(index) => info.a == index,
            Self::Cgroup { id, .. } => u64::from(info.a) | u64::from(info.b) << 32 == id,
        }
    }

    /// Where a new link goes. The programs of an interface have an order, and one that decides on a packet keeps it from those behind.
    const fn position(self) -> sys::Position {
        match self {
            Self::Interface(_) => sys::Position::First,
            Self::Driver(_) => sys::Position::Driver,
            Self::Cgroup { .. } => sys::Position::Any,
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Interface(index) | Self::Driver(index) => index,
            Self::Cgroup { fd, .. } => fd,
        }
    }
}

/// `BPF_LINK_TYPE_XDP` and `BPF_LINK_TYPE_TCX` (include/uapi/linux/bpf.h).
const TYPE_XDP: u32 = 6;
const TYPE_TCX: u32 = 11;

/// Who makes links, one at a time: the loop, and the worker behind CNI ADD. Whoever comes second for a place finds the other's
/// pin, and does not try to attach a program that is there.
static MAKER: Mutex<()> = Mutex::new(());

/// Attaches `prog` by the link that is pinned at `pin`, or else by `own`, which is held open and may have lost its pin; where
/// there is none, or its target is gone, by a new one. One in place of `own` goes without a pin while the directory of pins is gone.
pub(super) fn attach(
    prog: BorrowedFd<'_>,
    target: Target,
    attach_type: u32,
    pin: &Path,
    own: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let _turn = MAKER.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = |link: BorrowedFd<'_>| sys::link_info(link).is_ok_and(|info| target.is(info));
    if let Ok(link) = sys::obj_get(pin) {
        if is_there(link.as_fd()) && sys::link_update(link.as_fd(), prog).is_ok() {
            return Ok(link);
        }
        fs::remove_file(pin)?;
    }
    if let Some(link) = own.filter(|link| is_there(*link))
        && sys::link_update(link, prog).is_ok()
    {
        pin_where_there_is_a_place(link, pin)?;
        return link.try_clone_to_owned();
    }
    let link = sys::link_create(prog, target.number(), attach_type, target.position())?;
    match own {
        Some(_) => pin_where_there_is_a_place(link.as_fd(), pin)?,
        None => sys::obj_pin(link.as_fd(), pin)?,
    }
    Ok(link)
}

/// Whoever looks after pins makes it once the directory is back.
fn pin_where_there_is_a_place(link: BorrowedFd<'_>, pin: &Path) -> io::Result<()> {
    match sys::obj_pin(link, pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether nobody else's program at the target sees a packet before the one with this id. Nothing if the kernel does not say.
pub(super) fn is_first(program: u32, target: Target, attach_type: u32) -> Option<bool> {
    match target {
        Target::Cgroup { .. } | Target::Driver(_) => Some(true),
        Target::Interface(ifindex) => {
            sys::programs_at(ifindex, attach_type).ok().map(|ids| ids.first() == Some(&program))
        }
    }
}

/// Puts a program before those of others, by a new link in place of `link`, which has to be pinned at `pin`: links can't be
/// moved, and a program can't be at a hook twice. Until the new link is there `guard` is where the program was, so no packet
/// gets past both.
pub(super) fn put_first(
    link: BorrowedFd<'_>,
    (prog, guard): (BorrowedFd<'_>, BorrowedFd<'_>),
    target: Target,
    attach_type: u32,
    pin: &Path,
) -> io::Result<OwnedFd> {
    let _turn = MAKER.lock().unwrap_or_else(PoisonError::into_inner);
    sys::link_update(link, guard)?;
    let first = sys::link_create(prog, target.number(), attach_type, sys::Position::First);
    let first = first.or_else(|error| sys::link_update(link, prog).and(Err(error)))?;
    unpin(pin.to_owned()).map_err(io::Error::other)?;
    pin_where_there_is_a_place(first.as_fd(), pin)?;
    sys::link_detach(link)?;
    Ok(first)
}

/// The id of the program that a link attaches to its target. Nothing if it was detached, or the target is gone.
pub(super) fn program(link: BorrowedFd<'_>, target: Target) -> Option<u32> {
    sys::link_info(link).ok().filter(|info| target.is(*info)).map(|info| info.prog_id)
}

/// Whether a link is what is pinned there.
pub(super) fn is_pinned(link: BorrowedFd<'_>, pin: &Path) -> bool {
    let id = |link: BorrowedFd<'_>| sys::link_info(link).map(|info| info.id);
    sys::obj_get(pin).is_ok_and(|pinned| matches!((id(pinned.as_fd()), id(link)), (Ok(a), Ok(b)) if a == b))
}

/// Pins a link, in place of whatever is there.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sys::obj_pin(link, path)
}

/// Detaches what the link attaches that is pinned there. The link and its pin stay, and attach nothing any more.
///
/// # Errors
/// There is no link, or the kernel refuses.
pub fn detach(pin: &Path) -> io::Result<()> {
    sys::link_detach(sys::obj_get(pin)?.as_fd())
}

/// Detaches what the link attaches that is pinned there, and removes the pin.
pub(super) fn remove(pin: &Path) -> io::Result<()> {
    let detached = detach(pin);
    fs::remove_file(pin).and(detached)
}

/// The interface of the link that is pinned at `pin`, 0 if it is gone. Nothing if it is no link to an interface.
pub(super) fn interface(pin: &Path) -> Option<u32> {
    let info = sys::obj_get(pin).and_then(|link| sys::link_info(link.as_fd())).ok()?;
    [TYPE_TCX, TYPE_XDP].contains(&info.link_type).then_some(info.a)
}

/// Whether what is pinned there is a link to the driver of an interface.
pub(super) fn is_xdp(pin: &Path) -> bool {
    let info = sys::obj_get(pin).and_then(|link| sys::link_info(link.as_fd()));
    info.is_ok_and(is_of_driver)
}

/// Whether a link attaches to the driver of an interface.
pub(super) fn is_of_driver(info: sys::LinkInfo) -> bool {
    info.link_type == TYPE_XDP
}

/// Removes the pins of links whose interface is gone. Says how many.
pub(super) fn remove_orphans(pins: &PinDir) -> Result<usize, BpfError> {
    let mut removed = 0;
    for name in pins.links()? {
        let path = pins.link(&name);
        if interface(&path) == Some(0) {
            unpin(path)?;
            removed += 1;
        }
    }
    Ok(removed)
}
