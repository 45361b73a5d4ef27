//! The machine below the lab: where its cgroups are, `ip`, sysctls, mounts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

/// Directories and cgroups of labs begin so.
pub(crate) const PREFIX: &str = "fairlead-lab-";

/// Where files of a lab are: logs, objects, sockets of its workers.
pub(crate) fn directory(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{id}"))
}

/// The v2 hierarchy of this machine: alone, or beside v1 controllers.
pub(crate) fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    find_cgroup2(&mounts).context("no cgroup v2 is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup/unified)")
}

fn find_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(target))
    })
}

/// The cgroup of a lab; below it one for each node, and `outside` for processes that no node's hooks may see.
pub(crate) fn cgroup(id: &str) -> Result<PathBuf> {
    Ok(cgroup2()?.join(format!("{PREFIX}{id}")))
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

/// Sets sysctls below `/proc/sys/net` of this thread's network namespace.
pub(crate) fn sysctl(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, value).with_context(|| format!("can't set {} to {value}", path.display()))?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_alone_and_beside_v1() {
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup2(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(find_cgroup2(pure), Some("/sys/fs/cgroup".into()));
        assert_eq!(find_cgroup2("proc /proc proc rw 0 0\n"), None);
    }
}
