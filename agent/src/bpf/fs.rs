//! The directory of pins on a bpf file system: `maps/NAME@VERSION`, with `maps/layout:NAME@VERSION`, which describes it,
//! `maps/new:NAME@VERSION` while that is being filled, and `links/NAME`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fairlead_datapath::catalog::TableId;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use super::mounts::{Mount, mounts};
use super::{BpfError, Kept};

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// What the name of a pin begins with that describes a table's layout, before the name of the table's pin.
const LAYOUT: &str = "layout:";

/// The same of a table that is being filled from one of another version, which is pinned until this one has all of it.
const NEW: &str = "new:";

/// Where the bpf file system belongs: systemd and bpftool mount it here.
const BPFFS: &str = "/sys/fs/bpf";

/// A directory on a bpf file system that is Fairlead's own.
#[derive(Debug, Clone)]
pub struct PinDir {
    dir: PathBuf,
    /// The lock of whoever keeps the file system mounted on this node, where somebody may.
    keeper: Option<PathBuf>,
    /// The number of the file system that it was last opened or made on.
    device: Arc<AtomicU64>,
}

impl PinDir {
    /// Opens or makes it, and mounts a bpf file system at `/sys/fs/bpf` if that is where it goes and there is none.
    ///
    /// # Errors
    /// It would not be on a bpf file system, or can't be made.
    pub fn open(dir: &Path) -> Result<Self, BpfError> {
        Self::open_beside(dir, None)
    }

    /// The same, but while somebody holds the lock `keeper`, and looks, mounting is left to that one: it has the file system that
    /// was there, and what is mounted in a container the node does not see. So is a file system without Fairlead's pins that is not
    /// the one that it holds: to begin in that would be to give up the pins.
    ///
    /// # Errors
    /// As [`PinDir::open`]. Where nothing is mounted yet and this process may not or should not do it, that is
    /// [`BpfError::NoBpffs`] with [`io::ErrorKind::PermissionDenied`]; where it should not begin, [`BpfError::Elsewhere`].
    pub fn open_beside(dir: &Path, keeper: Option<&Path>) -> Result<Self, BpfError> {
        let this = Self { dir: dir.to_owned(), keeper: keeper.map(Path::to_owned), device: Arc::default() };
        this.make().map(|()| this)
    }

    fn make(&self) -> Result<(), BpfError> {
        let (dir, parent) = (&self.dir, self.parent());
        let no_bpffs = |source| BpfError::NoBpffs { path: parent.to_owned(), source };
        if parent == Path::new(BPFFS) {
            // A restart must not wait for ever for one that hangs.
            let kept = self.kept().filter(|kept| kept.silent_for().is_none());
            match (is_bpffs(parent), kept) {
                (false, None) => drop(Self::mount(parent)?),
                (false, Some(_)) => {
                    let left = "it is left to `fairlead install --keep`, which runs on this node";
                    return Err(no_bpffs(io::Error::new(io::ErrorKind::PermissionDenied, left)));
                }
                (true, kept) => {
                    let (held, there) = (kept.and_then(|kept| kept.holds()), device(parent));
                    if is_left(held, there, self.device()) && !Self::has_pins(dir) {
                        return Err(BpfError::Elsewhere { path: parent.to_owned() });
                    }
                }
            }
        }
        if !is_bpffs(parent) {
            return Err(no_bpffs(io::Error::other(
                "a different file system is mounted there, or the path does not exist",
            )));
        }
        for sub in [dir.clone(), dir.join("maps"), dir.join("links")] {
            match fs::DirBuilder::new().mode(0o700).create(&sub) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(BpfError::Pin { what: "can't create the directory", path: sub, source: error });
                }
                _ => {}
            }
            owned(&sub)?;
        }
        self.device.store(device(dir).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }

    /// Mounts a bpf file system if there is none, for root alone. Says whether it did.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn mount(path: &Path) -> Result<bool, BpfError> {
        if is_bpffs(path) {
            return Ok(false);
        }
        mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|errno| BpfError::NoBpffs { path: path.to_owned(), source: errno.into() })?;
        Ok(true)
    }

    /// Whether a bpf file system is mounted there.
    #[must_use]
    pub fn is_bpffs(path: &Path) -> bool {
        is_bpffs(path)
    }

    /// Whether a directory, wherever it is seen, has pins of Fairlead's: what other users than root have made, or may change, has
    /// none.
    #[must_use]
    pub fn has_pins(dir: &Path) -> bool {
        [dir.to_owned(), dir.join("maps"), dir.join("links")].iter().all(|dir| owned(dir).is_ok())
            && Self::count(dir).is_ok_and(|pins| pins > 0)
    }

    /// Whether it is there, on a bpf file system.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        is_bpffs(&self.dir) && ["maps", "links"].iter().all(|sub| self.dir.join(sub).is_dir())
    }

    /// Makes it again, the mount included.
    ///
    /// # Errors
    /// As [`PinDir::open_beside`].
    pub fn remake(&self) -> Result<(), BpfError> {
        self.make()
    }

    /// The number of the file system that it was last opened or made on.
    #[must_use]
    pub fn device(&self) -> Option<u64> {
        Some(self.device.load(Ordering::Relaxed)).filter(|device| *device != 0)
    }

    /// What whoever keeps the file system mounted says. `None`: nobody does, or it is not the one that is kept.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        self.keeper.as_deref().filter(|_| self.parent() == Path::new(BPFFS)).and_then(Kept::of)
    }

    /// Where the bpf file system belongs.
    #[must_use]
    pub fn parent(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// Where a pin of a table is.
    #[must_use]
    pub fn map(&self, pin: &str) -> PathBuf {
        self.dir.join("maps").join(pin)
    }

    /// Where a table is pinned, in the version of its layout that this agent has. One that is memory of the programs
    /// is nowhere.
    #[must_use]
    pub fn table(&self, table: TableId) -> Option<PathBuf> {
        table.info().pin().map(|pin| self.map(&pin))
    }

    /// The pins of all tables, whichever agent made them.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn maps(&self) -> Result<Vec<String>, BpfError> {
        Ok(names(&self.dir.join("maps"))?.into_iter().filter(|name| !name.starts_with(LAYOUT)).collect())
    }

    /// The pins of tables whose layouts are described.
    ///
    /// # Errors
    /// The directory can't be read.
    pub(super) fn layouts(&self) -> Result<Vec<String>, BpfError> {
        Ok(names(&self.dir.join("maps"))?
            .iter()
            .filter_map(|name| Some(name.strip_prefix(LAYOUT)?.to_owned()))
            .collect())
    }

    /// Where the layout of a pinned table is described.
    pub(super) fn layout(&self, pin: &str) -> PathBuf {
        self.map(&format!("{LAYOUT}{pin}"))
    }

    /// Where a table is pinned while it is being filled.
    pub(super) fn new_table(&self, pin: &str) -> PathBuf {
        self.map(&format!("{NEW}{pin}"))
    }

    /// The table that is being filled under this pin. `None`: it is none such.
    pub(super) fn is_new(pin: &str) -> Option<&str> {
        pin.strip_prefix(NEW)
    }

    /// Where a link is pinned. The bpf file system takes no dots (`bpf_lookup` in kernel/bpf/inode.c), which names of
    /// interfaces may have; what they can't have is a colon.
    #[must_use]
    pub fn link(&self, name: &str) -> PathBuf {
        self.dir.join("links").join(name.replace('.', ":"))
    }

    /// Where the link of an interface is pinned, `in` or `out` as the host sees it.
    #[must_use]
    pub fn packet_link(&self, way: &str, interface: &str) -> PathBuf {
        self.link(&format!("tcx_{way}_{interface}"))
    }

    /// Where the link to the driver of an interface is pinned.
    #[must_use]
    pub fn xdp_link(&self, interface: &str) -> PathBuf {
        self.link(&format!("xdp_{interface}"))
    }

    /// Removes the pins of an interface's links. None is fine: a kernel without tcx has none.
    ///
    /// # Errors
    /// A pin can't be removed.
    pub fn remove_packet_links(&self, interface: &str) -> Result<(), BpfError> {
        ["in", "out"].into_iter().try_for_each(|way| unpin(self.packet_link(way, interface)))
    }

    /// The names of all pinned links.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn links(&self) -> Result<Vec<String>, BpfError> {
        names(&self.dir.join("links"))
    }

    /// How many pins there are below a directory, which may be gone.
    ///
    /// # Errors
    /// It can't be read.
    pub fn count(dir: &Path) -> Result<usize, BpfError> {
        let below = [dir.join("links"), dir.join("maps")].into_iter().filter(|sub| sub.exists());
        below.map(|sub| names(&sub).map(|names| names.len())).sum()
    }

    /// What is to be done about bpf file systems that are mounted at a path below the one that is seen there, if there are any: what
    /// is pinned in them stays.
    #[must_use]
    pub fn others_below(path: &Path) -> Option<String> {
        let below = below(&mounts().unwrap_or_default(), path);
        let shown = path.display();
        let text = format!(
            "other bpf file systems are mounted at {shown} below that one ({below}), and what is pinned there stays: unmount the \
             upper one on the node (umount {shown}), and run this again"
        );
        (below > 0).then_some(text)
    }

    /// Removes every pin, links first, and the directory: what was attached is attached no more.
    ///
    /// # Errors
    /// A file can't be removed. The others are removed all the same.
    pub fn remove(dir: &Path) -> Result<usize, BpfError> {
        let mut removed = 0;
        let mut first_error = None;
        for sub in [dir.join("links"), dir.join("maps")] {
            for name in if sub.exists() { names(&sub)? } else { Vec::new() } {
                // Whoever holds a link open keeps it; a map is none, and the interface of a link may be gone.
                let _not_attached = super::detach(&sub.join(&name));
                match unpin(sub.join(name)) {
                    Ok(()) => removed += 1,
                    Err(error) => drop(first_error.get_or_insert(error)),
                }
            }
        }
        for dir in [&dir.join("links"), &dir.join("maps"), dir] {
            match fs::remove_dir(dir) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    first_error.get_or_insert(BpfError::Pin {
                        what: "can't remove the directory",
                        path: dir.to_owned(),
                        source,
                    });
                }
                _ => {}
            }
        }
        first_error.map_or(Ok(removed), Err)
    }
}

/// Whether a file system that has no pins of Fairlead's is left to a keeper, by the numbers of the one that it holds, of what is
/// there, and of the one with this agent's pins.
fn is_left(held: Option<u64>, there: Option<u64>, own: Option<u64>) -> bool {
    held.is_some() && held != there && (own.is_none() || own != there)
}

/// How many other bpf file systems are mounted at a path than the last one.
fn below(mounts: &[Mount], path: &Path) -> usize {
    let of_bpf = mounts.iter().filter(|mount| mount.kind == "bpf" && mount.at == path);
    let devices: Vec<_> = of_bpf.map(|mount| &mount.device).collect();
    let others: BTreeSet<_> = devices.iter().filter(|device| devices.last() != Some(device)).collect();
    others.len()
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.dev())
}

/// Removes a pin. One that is gone is fine: the sweep and the end of a pod may want the same.
pub(super) fn unpin(path: PathBuf) -> Result<(), BpfError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(BpfError::Pin { what: "can't remove the pin", path, source })
        }
        _ => Ok(()),
    }
}

/// Whoever may write to a directory of pins decides what the programs read and which programs run.
fn owned(dir: &Path) -> Result<(), BpfError> {
    let meta = fs::symlink_metadata(dir).map_err(|source| BpfError::Pin {
        what: "can't stat the directory",
        path: dir.to_owned(),
        source,
    })?;
    match not_of_root(meta.is_dir(), meta.uid(), meta.mode()) {
        Some(wrong) => Err(BpfError::NotOurs { path: dir.to_owned(), wrong }),
        None => Ok(()),
    }
}

/// Why a file may be changed by others than root, or is no directory.
fn not_of_root(is_dir: bool, uid: u32, mode: u32) -> Option<String> {
    match mode & 0o777 {
        _ if !is_dir => Some("is not a directory".to_owned()),
        _ if uid != 0 => Some(format!("is owned by user {uid}, not by root")),
        mode if mode & 0o022 != 0 => Some(format!("is writable by users other than root (mode {mode:o})")),
        _ => None,
    }
}

fn names(dir: &Path) -> Result<Vec<String>, BpfError> {
    let pin = |source| BpfError::Pin { what: "can't list", path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(pin)?;
    entries.map(|e| Ok(e.map_err(pin)?.file_name().to_string_lossy().into_owned())).collect()
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_root_alone_may_change_is_believed() {
        for (is_dir, uid, mode, is_believed) in [
            (true, 0, 0o40_700, true),
            (true, 0, 0o40_755, true),
            (true, 1000, 0o40_700, false),
            (true, 0, 0o40_775, false),
            (true, 0, 0o41_777, false),
            // A symlink, which has all bits.
            (false, 0, 0o120_777, false),
            (false, 0, 0o100_600, false),
        ] {
            assert_eq!(not_of_root(is_dir, uid, mode).is_none(), is_believed, "{is_dir} {uid} {mode:o}");
        }
    }

    #[test]
    fn what_is_mounted_below_is_counted_and_the_same_one_twice_is_not() {
        let mount = |device: &str, at: &str, kind: &str| Mount {
            device: device.to_owned(),
            root: "/".into(),
            at: at.into(),
            kind: kind.to_owned(),
        };
        let path = Path::new("/sys/fs/bpf");
        let at =
            |devices: &[&str]| devices.iter().map(|device| mount(device, "/sys/fs/bpf", "bpf")).collect::<Vec<_>>();
        assert_eq!(below(&[], path), 0);
        assert_eq!(below(&at(&["0:1"]), path), 0);
        assert_eq!(below(&at(&["0:1", "0:1"]), path), 0);
        assert_eq!(below(&at(&["0:1", "0:2"]), path), 1);
        assert_eq!(below(&at(&["0:1", "0:2", "0:1", "0:3"]), path), 2);
        let others = [mount("0:1", "/sys/fs/bpf", "tmpfs"), mount("0:2", "/elsewhere", "bpf")];
        assert_eq!(below(&[&others[..], &at(&["0:3"])].concat(), path), 0);
    }

    #[test]
    fn another_file_system_than_that_of_the_keeper_is_left_to_it_and_ones_own_is_not() {
        let (held, other, third) = (Some(1), Some(2), Some(3));
        assert!(!is_left(None, other, None), "nothing is held");
        assert!(!is_left(held, held, None) && !is_left(held, held, other), "it is there");
        assert!(is_left(held, other, None), "an agent that starts");
        assert!(is_left(held, other, held) && is_left(held, other, third), "another is mounted over it");
        assert!(!is_left(held, other, other), "its own directory was removed");
        assert!(is_left(held, None, None));
    }

    #[test]
    fn a_directory_without_pins_is_told_from_one_with_pins() {
        let dir = std::env::temp_dir().join(format!("fairlead-pins-{}", std::process::id()));
        assert!(!PinDir::has_pins(&dir));
        for sub in ["maps", "links"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(sub)).unwrap();
        }
        assert!(!PinDir::has_pins(&dir), "directories alone");
        fs::write(dir.join("maps/x@1"), "").unwrap();
        let (has_pins, is_root) = (PinDir::has_pins(&dir), nix::unistd::geteuid().is_root());
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(has_pins, is_root);
    }
}
