//! Pinned links: made once, updated by every agent that follows.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::fs::unpin;
use super::{BpfError, PinDir, sys};

/// What a link attaches to, as the kernel reports it: `tcx.ifindex` or `cgroup.cgroup_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// An interface index.
    Interface(u32),
    /// The id of a cgroup, and a descriptor of its directory.
    Cgroup { id: u64, fd: u32 },
}

impl Target {
    fn is(self, info: sys::LinkInfo) -> bool {
        match self {
            Self::Interface(index) => info.a == index,
            Self::Cgroup { id, .. } => u64::from(info.a) | u64::from(info.b) << 32 == id,
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Interface(index) => index,
            Self::Cgroup { fd, .. } => fd,
        }
    }
}

/// Attaches `prog` by the link that is pinned at `pin`; where there is none, or its target is gone, by a new one.
pub(super) fn attach(prog: BorrowedFd<'_>, target: Target, attach_type: u32, pin: &Path) -> io::Result<()> {
    if let Ok(link) = sys::obj_get(pin) {
        let same = sys::link_info(link.as_fd()).is_ok_and(|info| target.is(info));
        if same && sys::link_update(link.as_fd(), prog).is_ok() {
            return Ok(());
        }
        fs::remove_file(pin)?;
    }
    let link = sys::link_create(prog, target.number(), attach_type)?;
    sys::obj_pin(link.as_fd(), pin)
}

/// Whether the link that is pinned at `pin` has lost its interface.
fn is_orphan(pin: &Path) -> bool {
    /// `BPF_LINK_TYPE_TCX`
    const TCX: u32 = 11;
    sys::obj_get(pin)
        .and_then(|link| sys::link_info(link.as_fd()))
        .is_ok_and(|info| info.link_type == TCX && info.a == 0)
}

/// Removes the pins of links whose interface is gone. Says how many.
pub(super) fn remove_orphans(pins: &PinDir) -> Result<usize, BpfError> {
    let mut removed = 0;
    for name in pins.links()? {
        let path = pins.link(&name);
        if is_orphan(&path) {
            unpin(path)?;
            removed += 1;
        }
    }
    Ok(removed)
}
