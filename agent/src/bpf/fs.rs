//! The directory of pins on a bpf file system: `maps/NAME@VERSION`, with `maps/layout:NAME@VERSION`, which describes it,
//! `maps/new:NAME@VERSION` while that is being filled, and `links/NAME`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use fairlead_datapath::catalog::TableId;
use fairlead_files::Lock;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use super::BpfError;

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
}

impl PinDir {
    /// Opens or makes it, and mounts a bpf file system at `/sys/fs/bpf` if that is where it goes and there is none.
    ///
    /// # Errors
    /// It would not be on a bpf file system, or can't be made.
    pub fn open(dir: &Path) -> Result<Self, BpfError> {
        Self::open_beside(dir, None)
    }

    /// The same, but while somebody holds the lock `keeper`, mounting is left to that one: it has the file system that was there,
    /// and what is mounted in a container the node does not see.
    ///
    /// # Errors
    /// As [`PinDir::open`]. Where nothing is mounted yet and this process may not or should not do it, that is
    /// [`BpfError::NoBpffs`] with [`io::ErrorKind::PermissionDenied`].
    pub fn open_beside(dir: &Path, keeper: Option<&Path>) -> Result<Self, BpfError> {
        let parent = dir.parent().unwrap_or(dir);
        let no_bpffs = |source| BpfError::NoBpffs { path: parent.to_owned(), source };
        if parent == Path::new(BPFFS) && !is_bpffs(parent) {
            if keeper.is_some_and(Lock::is_held) {
                let left = "it is left to `fairlead install --keep`, which runs on this node";
                return Err(no_bpffs(io::Error::new(io::ErrorKind::PermissionDenied, left)));
            }
            Self::mount(parent)?;
        }
        if !is_bpffs(parent) {
            return Err(no_bpffs(io::Error::other(
                "a different file system is mounted there, or the path does not exist",
            )));
        }
        for sub in [dir.to_owned(), dir.join("maps"), dir.join("links")] {
            match fs::DirBuilder::new().mode(0o700).create(&sub) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(BpfError::Pin { what: "can't create the directory", path: sub, source: error });
                }
                _ => {}
            }
            owned(&sub)?;
        }
        Ok(Self { dir: dir.to_owned(), keeper: keeper.map(Path::to_owned) })
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
        Self::open_beside(&self.dir, self.keeper.as_deref()).map(drop)
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
    let wrong = match meta.mode() & 0o777 {
        _ if !meta.is_dir() => "is not a directory".to_owned(),
        _ if meta.uid() != 0 => format!("is owned by user {}, not by root", meta.uid()),
        mode if mode & 0o022 != 0 => format!("is writable by users other than root (mode {mode:o})"),
        _ => return Ok(()),
    };
    Err(BpfError::NotOurs { path: dir.to_owned(), wrong })
}

fn names(dir: &Path) -> Result<Vec<String>, BpfError> {
    let pin = |source| BpfError::Pin { what: "can't list", path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(pin)?;
    entries.map(|e| Ok(e.map_err(pin)?.file_name().to_string_lossy().into_owned())).collect()
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC)
}
