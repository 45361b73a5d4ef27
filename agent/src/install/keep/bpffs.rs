//! The node's bpf file system: mounted, and the one that has the pins.
//!
//! How containers have it, and why that takes a keeper:
//! - The agent's container has a mount of its own of that file system, made when the container was. If somebody unmounts
//!   `/sys/fs/bpf` on the node, that one stays: the agent goes on and sees nothing of it. The *next* container of the agent is
//!   given what is at `/sys/fs/bpf` then, an empty directory of sysfs, and may not mount. With the container before, the last
//!   mount of the file system has gone, and with that all pins: programs are detached, tables and connections are lost.
//! - A container whose mount is that directory of sysfs, since nothing was mounted when it was made, is different: what the node
//!   mounts there later, and what it unmounts, comes to it (`HostToContainer`).
//! - So whoever keeps the file system mounted has to see the node's mount come and go, and that takes a mount of the directory
//!   *above* that is shared with the node: `/sys/fs`, `Bidirectional`. A shared mount of `/sys/fs/bpf` itself would stay as the
//!   agent's does. It is not at `/sys/fs` in its container: the runtime would mount the container's cgroup below that, and by
//!   that on the node.
//! - And it has to hold the file system while nobody has it mounted: by mounts that have no place in any tree (open_tree(2)),
//!   which nobody else can unmount. Attached again (move_mount(2)), that is the file system that was there, with all pins. A mount
//!   that has a place has left the hand that attaches it, so there are two: should somebody unmount the first before the next is
//!   made of it, the second is left. None keeps the mounted file system busy: `umount` works.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstat, fstatat, stat};

use super::{Looked, trees};
use crate::bpf::PinDir;
use crate::install::on_node;

/// Mounts without a place: see above.
const HELD: usize = 2;

/// What the kernel itself pins in each new bpf file system where it was built so (`populate_bpffs` in kernel/bpf/inode.c,
/// kernel/bpf/preload).
const OF_KERNEL: [&str; 2] = ["maps.debug", "progs.debug"];

/// A bpf file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The number by which the kernel tells file systems apart.
    pub(super) device: u64,
    /// Whether Fairlead's directory is in it.
    pub(super) has_ours: bool,
    /// Whether nobody has put anything in it.
    pub(super) is_empty: bool,
}

/// What is where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// Nothing is mounted.
    Nothing,
    /// A bpf file system.
    Bpf(Found),
    /// Another one.
    Other,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All is well.
    Nothing,
    /// Hold what is there from now on, and nothing else.
    Hold,
    /// Attach what is held, on top.
    Attach,
    /// Mount a new one.
    Mount,
    /// It is left to a person.
    Report,
}

/// What to do, by what is there and what is held, of which only the second can be told apart from others' by its pins.
///
/// A new bpf file system on top of ours or in its place (systemd mounts one when it starts again, and finds none) is:
/// - ours from now on where Fairlead's directory is in it: an agent uses it. What is held is let go of, so that its programs are
///   detached, which would run beside those of that agent;
/// - covered by what is held where nothing is in it: nobody loses anything by that, and the next agent finds its pins;
/// - left alone where others have pins in it, which would be hidden from them. That is reported: only a person knows who made it.
pub(super) fn decide(there: There, held: Option<Found>) -> Step {
    match (there, held) {
        (There::Bpf(found), Some(held)) if found.device == held.device => Step::Nothing,
        (There::Bpf(found), Some(held)) if held.has_ours && !found.has_ours => {
            if found.is_empty {
                Step::Attach
            } else {
                Step::Report
            }
        }
        (There::Bpf(_), _) => Step::Hold,
        (There::Nothing, Some(_)) => Step::Attach,
        (There::Nothing, None) => Step::Mount,
        // What is below is not lost, and whoever mounted on top may have a reason.
        (There::Other, _) => Step::Report,
    }
}

/// The file system, where it belongs and held.
#[derive(Debug)]
pub(super) struct Bpffs {
    /// Where it belongs.
    path: PathBuf,
    /// The name of Fairlead's directory in it.
    ours: OsString,
    /// Mounts of it without a place.
    held: Vec<OwnedFd>,
}

impl Bpffs {
    /// `pins`: Fairlead's directory.
    pub(super) fn new(pins: &Path) -> Self {
        let path = pins.parent().unwrap_or(pins).to_owned();
        Self { path, ours: pins.file_name().unwrap_or_default().to_owned(), held: Vec::new() }
    }

    /// Looks, and does what is to be done.
    pub(super) fn look(&mut self) -> Looked {
        let path = on_node(&self.path);
        let path = path.display();
        let there = self.there().map_err(|error| {
            format!("can't look at {path}: {error}; is the node's /sys/fs mounted in this container, shared (Bidirectional)?")
        })?;
        let step = decide(there, self.found_held());
        let done = match step {
            Step::Nothing => self.hold().map(|()| None),
            Step::Hold => {
                let before = std::mem::take(&mut self.held);
                let held = self.hold();
                if held.is_err() {
                    self.held = before;
                    held.map(|()| None)
                } else if before.is_empty() {
                    Ok(None)
                } else {
                    let text = "another bpf file system was mounted, which is kept from now on; what was pinned in the one before is \
                                given up";
                    Ok(Some(format!("{path}: {text}")))
                }
            }
            Step::Attach => self
                .attach()
                .map(|()| Some(format!("{path} is mounted again: the same file system with the same pins"))),
            Step::Mount => PinDir::mount(&self.path)
                .map_err(io::Error::other)
                .and_then(|_| self.hold())
                .map(|()| Some(format!("a bpf file system is mounted at {path}, a new one"))),
            Step::Report => return Err(self.report(there)),
        };
        done.map_err(|error| {
            format!(
                "the bpf file system at {path} can't be kept mounted ({step:?}): {error}; this needs CAP_SYS_ADMIN (a privileged \
                 container), and on the node: mount -t bpf bpf {path}"
            )
        })
    }

    fn report(&self, there: There) -> String {
        let path = on_node(&self.path);
        let path = path.display();
        match there {
            There::Other => format!(
                "a file system of another kind is mounted at {path}: the agent goes on, but the next one would not start; unmount \
                 it on the node (umount {path})"
            ),
            There::Nothing | There::Bpf(_) => format!(
                "another bpf file system was mounted at {path}, in which others have pins and Fairlead has none: the agent goes on \
                 with the one before, but the next one would begin with empty tables, and connections would break; unmount it on \
                 the node (umount {path}), and the one before is put back"
            ),
        }
    }

    fn there(&self) -> io::Result<There> {
        let own = stat(&self.path)?.st_dev;
        if PinDir::is_bpffs(&self.path) {
            let mut names = std::fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name()));
            let is_empty = names.all(|name| name.is_ok_and(|name| OF_KERNEL.iter().any(|known| name == *known)));
            return Ok(There::Bpf(Found { device: own, has_ours: self.path.join(&self.ours).is_dir(), is_empty }));
        }
        let parent = self.path.parent().unwrap_or(&self.path);
        Ok(if stat(parent)?.st_dev == own { There::Nothing } else { There::Other })
    }

    /// What is held, if anything is. Whether it is empty does not matter.
    fn found_held(&self) -> Option<Found> {
        let tree = self.held.first()?;
        let device = fstat(tree).ok()?.st_dev;
        let ours = fstatat(tree, self.ours.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        let has_ours = ours.is_ok_and(|ours| SFlag::from_bits_truncate(ours.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR);
        Some(Found { device, has_ours, is_empty: false })
    }

    /// Holds what is there, as often as it takes.
    fn hold(&mut self) -> io::Result<()> {
        while self.held.len() < HELD {
            let tree = trees::clone_of(&self.path)?;
            // Somebody may have unmounted it since it was looked at, or have mounted another.
            let wanted = match self.held.first() {
                Some(held) => fstat(held)?.st_dev,
                None if PinDir::is_bpffs(&self.path) => stat(&self.path)?.st_dev,
                None => return Err(io::Error::other("it was unmounted meanwhile")),
            };
            if fstat(&tree)?.st_dev != wanted {
                return Err(io::Error::other("another file system was mounted meanwhile"));
            }
            self.held.push(tree);
        }
        Ok(())
    }

    fn attach(&mut self) -> io::Result<()> {
        let Some(tree) = self.held.pop() else { return Err(io::Error::other("nothing is held")) };
        if let Err(error) = trees::attach(&tree, &self.path) {
            self.held.push(tree);
            return Err(error);
        }
        // The one that has its place now is let go of behind this, since it would keep the mount busy.
        self.hold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Found = Found { device: 2, has_ours: false, is_empty: true };

    fn held(has_ours: bool) -> Option<Found> {
        Some(Found { device: 1, has_ours, is_empty: false })
    }

    #[test]
    fn what_is_unmounted_comes_back_and_a_new_one_is_mounted_only_where_nothing_is_held() {
        assert_eq!(decide(There::Nothing, None), Step::Mount);
        for has_ours in [false, true] {
            assert_eq!(decide(There::Nothing, held(has_ours)), Step::Attach);
        }
    }

    #[test]
    fn what_is_mounted_is_held_and_left_alone() {
        for has_ours in [false, true] {
            let same = Found { device: 1, has_ours, is_empty: !has_ours };
            assert_eq!(decide(There::Bpf(same), held(has_ours)), Step::Nothing);
            assert_eq!(decide(There::Bpf(same), None), Step::Hold);
        }
    }

    #[test]
    fn another_file_system_hides_no_pins_and_none_is_hidden() {
        let of_others = Found { is_empty: false, ..NEW };
        let ours = Found { has_ours: true, ..of_others };
        assert_eq!(decide(There::Bpf(NEW), held(true)), Step::Attach);
        assert_eq!(decide(There::Bpf(of_others), held(true)), Step::Report, "others' pins would be hidden");
        assert_eq!(decide(There::Bpf(ours), held(true)), Step::Hold, "an agent uses it");
        for new in [NEW, of_others, ours] {
            assert_eq!(decide(There::Bpf(new), held(false)), Step::Hold, "nothing of Fairlead's is lost");
        }
        for held in [None, held(false), held(true)] {
            assert_eq!(decide(There::Other, held), Step::Report);
        }
    }
}
