//! Where the socket hooks go.
//!
//! It has to be the root of the node's cgroups, where the sockets of every pod and of the host are below. A container has
//! a cgroup namespace of its own, and what it sees at its `/sys/fs/cgroup` is a root with nobody but itself below: hooks
//! there would serve the agent alone, in silence.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::BpfError;
use super::mounts::{Mount, mounts};

/// The inode of a hierarchy's true root (`kernfs_create_root` in fs/kernfs/dir.c).
const ROOT_INODE: u64 = 1;

/// Directories that are looked through for a process of somebody else.
const MOST_LOOKED_AT: usize = 4096;

/// The cgroup whose sockets are to be served: a directory of cgroup v2, or what is mounted below it, as on hosts that have
/// v1 beside v2. Without a name, where cgroup v2 is mounted.
///
/// # Errors
/// There is none, or it is this container's own.
pub fn cgroup2_root(named: Option<&Path>) -> Result<PathBuf, BpfError> {
    let mounts = mounts().unwrap_or_default();
    let missing = || BpfError::NoCgroup2 { below: named.unwrap_or(Path::new("/")).to_owned() };
    // What is listed may be hidden by another mount.
    let is_cgroup2 = |path: &Path| statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let path = match named {
        Some(path) if is_cgroup2(path) => path.to_owned(),
        named => find(&mounts, named.unwrap_or(Path::new("/"))).find(|path| is_cgroup2(path)).ok_or_else(missing)?,
    };
    let place = Place {
        in_pod: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        inode: path.metadata().map_or(ROOT_INODE, |meta| meta.ino()),
        root: root_of(&mounts, &path).unwrap_or(Path::new("")),
        strangers: has_strangers(&path),
    };
    if place.is_own() { Err(BpfError::OwnCgroup { path }) } else { Ok(path) }
}

/// What tells a node's cgroup from a container's own.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// Whether this process is in a pod.
    in_pod: bool,
    /// The directory's inode.
    inode: u64,
    /// What of the hierarchy is mounted, as seen from this process's cgroup namespace: `/` is that namespace's root,
    /// `/../..` above it.
    root: &'a Path,
    /// Whether processes of other containers, or of the node, are in it.
    strangers: bool,
}

impl Place<'_> {
    /// Whether hooks there would see the agent's container alone. A node may itself be in a cgroup namespace, as those of
    /// kind are, so the inode is not enough; nor is the mount's root, where containers get no namespace of their own.
    fn is_own(self) -> bool {
        self.in_pod && self.inode != ROOT_INODE && self.root == Path::new("/") && !self.strangers
    }
}

/// The last mount wins: it is on top where two have one mount point.
fn find<'a>(mounts: &'a [Mount], below: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    let found = mounts.iter().rev().filter(move |mount| mount.kind == "cgroup2" && mount.at.starts_with(below));
    found.map(|mount| mount.at.clone())
}

/// What is mounted where this directory is, if it is a mount point.
fn root_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Path> {
    let mount = mounts.iter().rev().find(|mount| mount.at == path && mount.kind == "cgroup2")?;
    Some(&mount.root)
}

/// Whether a process is in it that this container does not have. Its id reads as 0, unless this container has the node's
/// processes, as those of `kubectl debug node` do: then it has other mounts.
fn has_strangers(path: &Path) -> bool {
    let mounts = |id: &str| fs::read_link(format!("/proc/{id}/ns/mnt"));
    let own = mounts("self").ok();
    let is_stranger =
        |id: &str| id == "0" || mounts(id).is_ok_and(|other| own.as_ref().is_some_and(|own| other != *own));
    let mut directories = vec![path.to_owned()];
    let mut next = 0;
    while let Some(directory) = directories.get(next).cloned() {
        // Of a threaded cgroup it can't be read.
        let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        if processes.lines().any(is_stranger) {
            return true;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if directories.len() < MOST_LOOKED_AT && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
        next += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::mounts::parse;
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
42 23 0:39 / /proc rw - proc proc rw
";

    /// A pod's: its own, and the node's by a hostPath.
    const POD: &str = "800 1 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
801 1 0:27 /../../.. /host/sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn cgroup2_is_found_where_it_is_mounted() {
        let [hybrid, pod, other] = [HYBRID, POD, "31 23 0:28 / /sys/fs/cgroup2 rw - tmpfs tmpfs rw\n"].map(parse);
        let unified = Some(PathBuf::from("/sys/fs/cgroup/unified"));
        let first = |mounts, below| find(mounts, Path::new(below)).next();
        assert_eq!(first(&hybrid, "/"), unified);
        assert_eq!(first(&hybrid, "/sys/fs/cgroup"), unified, "below what is named");
        assert_eq!(first(&hybrid, "/host/sys/fs/cgroup"), None);
        assert_eq!(first(&pod, "/host"), Some("/host/sys/fs/cgroup".into()));
        assert_eq!(first(&other, "/"), None);
        assert_eq!(root_of(&pod, Path::new("/sys/fs/cgroup")), Some(Path::new("/")));
        assert_eq!(root_of(&pod, Path::new("/host/sys/fs/cgroup")), Some(Path::new("/../../..")));
    }

    #[test]
    fn a_containers_own_cgroup_is_told_from_a_nodes() {
        let own = Place { in_pod: true, inode: 4711, root: Path::new("/"), strangers: false };
        assert!(own.is_own());
        let fine = [
            ("a process of the node, which may be in a namespace", Place { in_pod: false, ..own }),
            ("no cgroup namespace at all", Place { inode: ROOT_INODE, ..own }),
            ("the node's, by a hostPath", Place { root: Path::new("/../../.."), ..own }),
            ("a node in a namespace, its containers in none of their own", Place { strangers: true, ..own }),
        ];
        for (what, place) in fine {
            assert!(!place.is_own(), "{what}");
        }
    }
}
