//! The machine below the lab: its cgroups, `ip`, mounts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Directories and cgroups of labs begin so.
pub(crate) const PREFIX: &str = "fairlead-lab-";

/// Where files of a lab are: logs, objects, sockets of its workers.
pub(crate) fn directory(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{id}"))
}

/// Where cgroup v2 is, for who has called [`mount_cgroups`].
const CGROUPS: &str = "/sys/fs/cgroup";

/// Moves this process into a mount namespace that has cgroup v2 where labs look for it. A machine may have it there, beside v1
/// or nowhere.
pub(crate) fn mount_cgroups() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("can't make a mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount_kernel("cgroup2", CGROUPS)
}

/// The cgroup of a lab; below it one for each node, and `outside` for processes that no node's hooks may see.
pub(crate) fn cgroup(id: &str) -> PathBuf {
    Path::new(CGROUPS).join(format!("{PREFIX}{id}"))
}

/// Runs `ip` commands, one a line.
pub(crate) fn ip(commands: &str) -> Result<()> {
    batch(&[], commands)
}

/// The same for what does not show its family.
pub(crate) fn ip6(commands: &str) -> Result<()> {
    batch(&["-6"], commands)
}

fn batch(family: &[&str], commands: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(family)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("the lab needs `ip` of iproute2: `cargo xtask setup` installs it")?;
    child.stdin.take().expect("it is piped").write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{commands}\nip: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Names the machine, as processes of this UTS namespace see it.
pub(crate) fn hostname(name: &str) -> Result<()> {
    fs::write("/proc/sys/kernel/hostname", name).context("can't set the host name")
}

/// Mounts a file system of the kernel.
pub(crate) fn mount_kernel(kind: &str, target: &str) -> Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("can't mount {kind} at {target}"))
}
