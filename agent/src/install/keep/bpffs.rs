//! The node's bpf file system: mounted, and the one that has the pins.
//!
//! How containers have it, and why that takes a keeper:
//! - The agent's container has a mount of its own of that file system, made when the container was. If somebody unmounts
//!   `/sys/fs/bpf` on the node, that one stays: the agent goes on and sees nothing of it. The *next* container of the agent is
//!   given what is at `/sys/fs/bpf` then, an empty directory of sysfs, and may not mount. With the container before, the last
//!   mount of the file system has gone, and with that all pins: programs are detached, tables and connections are lost.
//! - What somebody mounts *over* the file system on the node does come to the agent's container, since that is mounted at its root. The
//!   agent leaves it to the keeper, goes on to look after programs, and is impaired until what is on top has gone or is covered.
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
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{fstat, stat};

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
    /// Whether pins of Fairlead's are in it.
    pub(super) has_ours: bool,
    /// Whether nobody has put anything in it that would be missed. Any user may make directories and symlinks in one that was
    /// mounted without a mode: those do not count, whatever is pinned does.
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
/// - ours from now on where pins of Fairlead's are in it: an agent uses it. What is held is let go of, so that its programs are
///   detached, which would run beside those of that agent;
/// - covered by what is held where nothing is in it but what any user may make, or Fairlead's directory without a pin: nobody loses
///   anything by that, and the next agent finds its pins;
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
            Step::Attach => match self.attach() {
                Ok(Some(hidden)) => {
                    let text = "something was pinned there in the moment in which it was mounted, which is hidden now";
                    return Err(format!(
                        "{path} is mounted again, but {text} ({hidden}): unmount it to see that (umount {path})"
                    ));
                }
                Ok(None) => Ok(Some(format!("{path} is mounted again: the same file system with the same pins"))),
                Err(error) if self.is_in_place() => {
                    return Err(format!("{path} is mounted again, but can't be held a second time: {error}"));
                }
                Err(error) => Err(error),
            },
            Step::Mount => PinDir::mount(&self.path)
                .map_err(io::Error::other)
                .and_then(|_| self.hold())
                .map(|()| Some(format!("a bpf file system is mounted at {path}, a new one"))),
            Step::Report => return Err(self.report(there)),
        };
        done.map_err(|error| {
            format!(
                "the bpf file system at {path} can't be kept mounted ({step:?}): {error}; this needs CAP_SYS_ADMIN (a privileged \
                 container), and on the node: mount -t bpf -o mode=0700 bpf {path}"
            )
        })
    }

    fn report(&self, there: There) -> String {
        let path = on_node(&self.path);
        let path = path.display();
        match there {
            There::Other => format!(
                "a file system of another kind is mounted at {path}: the next agent would not start, and one that has it in its \
                 container too is impaired, so new pods wait, while traffic goes on; unmount it on the node (umount {path})"
            ),
            There::Nothing | There::Bpf(_) => format!(
                "another bpf file system was mounted at {path}, in which others have pins and Fairlead has none: traffic goes on with \
                 the one before, which is held, but the next agent waits for it and does not start, and one that has this one in its \
                 container too is impaired, so new pods wait; unmount it on the node (umount {path}), and the one before is put back"
            ),
        }
    }

    fn there(&self) -> io::Result<There> {
        let own = stat(&self.path)?.st_dev;
        if PinDir::is_bpffs(&self.path) {
            return Ok(There::Bpf(self.found(&self.path, own)?));
        }
        let parent = self.path.parent().unwrap_or(&self.path);
        Ok(if stat(parent)?.st_dev == own { There::Nothing } else { There::Other })
    }

    /// A bpf file system whose root is at a path.
    fn found(&self, root: &Path, device: u64) -> io::Result<Found> {
        let has_ours = PinDir::has_pins(&root.join(&self.ours));
        Ok(Found { device, has_ours, is_empty: self.missed(root)?.is_none() })
    }

    /// The number of the file system that is held, if any is.
    pub(super) fn held(&self) -> Option<u64> {
        Some(fstat(self.held.first()?).ok()?.st_dev)
    }

    /// Whether what is held is where it belongs: this process may end.
    pub(super) fn is_in_place(&self) -> bool {
        self.held().is_some() && stat(&self.path).ok().map(|there| there.st_dev) == self.held()
    }

    /// What is held, if anything is.
    fn found_held(&self) -> Option<Found> {
        let (tree, device) = (self.held.first()?, self.held()?);
        // What can't be looked at is not given up.
        Some(self.found(&root_of(tree), device).unwrap_or(Found { device, has_ours: true, is_empty: false }))
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

    /// Attaches what is held. Says what is below it that would be missed, since somebody may have mounted something since it was looked
    /// at.
    fn attach(&mut self) -> io::Result<Option<String>> {
        let Some(tree) = self.held.pop() else { return Err(io::Error::other("nothing is held")) };
        let below = File::open(&self.path);
        if let Err(error) = trees::attach(&tree, &self.path) {
            self.held.push(tree);
            return Err(error);
        }
        // The one that has its place now would keep the mount busy.
        drop(tree);
        // What can't be looked at again has been looked at before.
        let hidden = below.and_then(|below| self.missed(&root_of(&below))).unwrap_or_default();
        self.hold()?;
        Ok(hidden)
    }

    /// Something in a directory that would be missed, if there is any.
    fn missed(&self, root: &Path) -> io::Result<Option<String>> {
        let has_ours = PinDir::has_pins(&root.join(&self.ours));
        for entry in std::fs::read_dir(root)? {
            let name = entry?.file_name();
            // Fairlead's own directory without a pin in it is nothing that anybody misses.
            let is_known = OF_KERNEL.iter().any(|known| name == *known) || name == self.ours && !has_ours;
            if !is_known && !is_of_any_user(&root.join(&name)) {
                return Ok(Some(name.to_string_lossy().into_owned()));
            }
        }
        Ok(None)
    }
}

/// The path of what is open.
fn root_of(directory: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Whether it is what any user may make where there is no mode. A file is a pin, for which it takes CAP_BPF.
fn is_of_any_user(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.uid() != 0 && !meta.is_file())
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
