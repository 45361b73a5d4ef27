//! What a node has in place of the machine's own files: what a test finds must not depend on what else the machine runs.
//!
//! The programs of the machine are the node's too, and so is what the tests are built in, wherever it is. Everything that
//! says how the machine is connected, or what it runs, is not. What a node writes stays in the lab.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::system::mount_kernel;

/// Where a node's own files are.
const OWN: &str = "/run/lab";

/// What of the machine's /etc programs need to start and to name users and ports.
const ETC: [&str; 9] = [
    "alternatives",
    "group",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
];

/// Directories of the machine that a node sees and writes a version of its own of, and what in them it does not see.
const WRITABLE: [(&str, &[&str]); 2] = [("/opt", &["cni"]), ("/var/lib", &["cni", "kubelet"])];

/// Directories that a node sees empty: how services of the distribution treat interfaces.
const EMPTY: [&str; 8] = [
    "/lib/NetworkManager/conf.d",
    "/lib/systemd/network",
    "/lib/systemd/networkd.conf.d",
    "/usr/lib/NetworkManager/conf.d",
    "/usr/lib/systemd/network",
    "/usr/lib/systemd/networkd.conf.d",
    "/usr/local/lib/systemd/network",
    "/usr/local/lib/systemd/networkd.conf.d",
];

/// Gives this mount namespace, which is a node's, directories of its own.
pub(crate) fn machine() -> Result<()> {
    release_kernel_mounts()?;
    mount_kernel("tmpfs", "/run")?;
    fs::create_dir("/run/netns")?;
    make_etc()?;
    for (path, hidden) in WRITABLE {
        write_privately(path, hidden)?;
    }
    for path in EMPTY {
        if Path::new(path).is_dir() {
            mount_kernel("tmpfs", path)?;
        }
    }
    protect_root()
}

/// Takes away the machine's cgroups and pinned programs, wherever they are mounted: the agent would find them.
fn release_kernel_mounts() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    // The last is on top.
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ').skip(1);
        let (Some(target), Some("cgroup" | "cgroup2" | "bpf")) = (fields.next(), fields.next()) else { continue };
        match umount2(target, MntFlags::MNT_DETACH) {
            // Another mount hides it already.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error).with_context(|| format!("can't unmount the machine's {target}")),
        }
    }
    Ok(())
}

/// An /etc with nothing but what every program needs, and a name server that is not there.
fn make_etc() -> Result<()> {
    let own = Path::new(OWN).join("etc");
    fs::create_dir_all(&own)?;
    for name in ETC {
        let (theirs, own) = (Path::new("/etc").join(name), own.join(name));
        if theirs.is_dir() {
            fs::create_dir(&own)?;
            bind(&theirs, &own)?;
        } else if let Err(error) = fs::copy(&theirs, &own)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("can't copy {}", theirs.display()));
        }
    }
    fs::write(own.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write(own.join("resolv.conf"), "# No name server is on the lab's network.\nnameserver 192.0.2.53\n")?;
    bind(&own, Path::new("/etc"))
}

/// Lets a node write below a directory of the machine without the machine noticing, and hides some of what is there. Where
/// the machine has no such directory the node has none.
fn write_privately(path: &str, hidden: &[&str]) -> Result<()> {
    if !Path::new(path).is_dir() {
        return Ok(());
    }
    let own = Path::new(OWN).join(path.trim_start_matches('/').replace('/', "-"));
    let (upper, work) = (own.join("upper"), own.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    for name in hidden {
        // A whiteout (Documentation/filesystems/overlayfs.rst).
        mknod(&upper.join(name), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))
            .with_context(|| format!("can't hide {path}/{name}"))?;
    }
    let options = format!("lowerdir={path},upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), path, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("can't lay a private directory over {path}: the kernel needs overlayfs"))
}

/// Makes the rest of the machine's root file system read-only, but for where labs have their files.
fn protect_root() -> Result<()> {
    let labs = std::env::temp_dir();
    bind(&labs, &labs)?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    match mount(None::<&str>, "/", None::<&str>, read_only, None::<&str>) {
        // The root of a chroot need not be a mount, and stays writable then.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error).context("can't make the machine's root read-only"),
    }
}

fn bind(what: &Path, target: &Path) -> Result<()> {
    mount(Some(what), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("can't bind {} to {}", what.display(), target.display()))
}
