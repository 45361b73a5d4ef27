//! `ip`, sysctls and mounts of this process's namespaces.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};

/// Runs `ip` commands, one a line; in the network namespace of a process, or in ours.
pub(crate) fn ip(of: Option<i32>, commands: &str) -> Result<()> {
    batch(of, None, commands)
}

/// The same for commands whose words do not say that they are of IPv6: rules.
pub(crate) fn ip6(commands: &str) -> Result<()> {
    batch(None, Some("-6"), commands)
}

fn batch(of: Option<i32>, family: Option<&str>, commands: &str) -> Result<()> {
    let mut command = match of {
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/proc/{pid}/ns/net")).arg("ip");
            command
        }
        None => Command::new("ip"),
    };
    let mut child = command
        .args(family)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't start `ip` of iproute2: `cargo xtask setup --only cluster` installs it")?;
    child.stdin.take().context("it is piped")?.write_all(commands.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}{commands}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Sets sysctls below `/proc/sys/net`.
pub(crate) fn sysctl(settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, value).with_context(|| format!("can't set {} to {value}", path.display()))?;
    }
    Ok(())
}

/// Mounts a file system of the kernel.
pub(crate) fn mount_kernel(kind: &str, target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("can't mount {kind} at {}", target.display()))
}

/// Shows a file or directory at another place too.
pub(crate) fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("can't bind {} to {}", source.display(), target.display()))
}

/// Keeps what is mounted from here on to this mount namespace.
pub(crate) fn private_mounts() -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("can't create a mount namespace: is this root?")
}

/// A program of the machine, by PATH and by where Debian keeps root's.
pub(crate) fn which(name: &str) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    for folder in path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]) {
        let file = Path::new(folder).join(name);
        if file.is_file() {
            return Ok(file.display().to_string());
        }
    }
    bail!("{name} is missing: `cargo xtask setup --only cluster` installs it")
}
