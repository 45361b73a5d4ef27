//! Network namespaces of pods: made by a thread, kept by a bind mount below `/run/netns` as a container runtime does.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::sysctls;
use crate::system::ip;

/// Where a namespace is found in the node's mount namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Moves this thread into a namespace.
pub(super) fn enter(name: &str) -> Result<()> {
    let path = path(name);
    let file = File::open(&path).with_context(|| format!("there is no network namespace {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("can't enter {}", path.display()))
}

/// Makes a namespace with its loopback up.
pub(super) fn add(name: &str) -> Result<()> {
    let target = path(name);
    fs::create_dir_all("/run/netns")?;
    File::create_new(&target).with_context(|| format!("{} can't be made", target.display()))?;
    thread::spawn(move || -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
        let here = "/proc/thread-self/ns/net";
        mount(Some(here), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("can't keep the namespace at {}", target.display()))?;
        sysctls::reset()?;
        ip("link set lo up")
    })
    .join()
    .expect("the thread returns its errors")
}

/// Lets go of a namespace; it ends with its last process and socket. One that is gone is fine.
pub(super) fn remove(name: &str) -> Result<()> {
    let target = path(name);
    if target.exists() {
        // Detached: a thread of ours may just be leaving it.
        umount2(&target, MntFlags::MNT_DETACH).with_context(|| format!("can't unmount {}", target.display()))?;
        fs::remove_file(&target)?;
    }
    Ok(())
}
