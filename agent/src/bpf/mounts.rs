//! The mounts that this process sees (proc_pid_mountinfo(5)), and whether the bpf file system is still among them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use super::PinDir;

/// Their list. The kernel tells of changes of this file as of urgent data.
pub const MOUNTS: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The number of its file system, as `major:minor`.
    pub device: String,
    /// What of that is mounted. The kernel follows renames there.
    pub root: PathBuf,
    /// Where.
    pub at: PathBuf,
    /// What kind of file system it is.
    pub kind: String,
}

/// Those that there are now, one that is on top of another behind it.
///
/// # Errors
/// The list can't be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    std::fs::read_to_string(MOUNTS).map(|list| parse(&list))
}

/// Those of a list.
pub(super) fn parse(list: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (mount, source) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, root, at) = (fields.next()?, fields.next()?, fields.next()?);
        let kind = source.split(' ').next()?;
        Some(Mount { device: device.to_owned(), root: path(root), at: path(at), kind: kind.to_owned() })
    };
    list.lines().filter_map(mount).collect()
}

/// A path as it is there: a space, a tab, a line's end and a backslash are three octal digits behind a backslash (`mangle` in
/// fs/proc_namespace.c).
fn path(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = behind.get(if byte.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    OsString::from_vec(bytes).into()
}

/// Tells when the directory of pins is gone, and when it is back, in a thread of its own. Other mounts come and go with every pod.
pub fn watch_mounts(pins: PinDir, changed: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let file = match File::open(MOUNTS) {
            Ok(file) => file,
            Err(error) => return warn!(%error, "{MOUNTS} can't be watched: mounts are checked periodically"),
        };
        let mut was_whole = true;
        loop {
            let mut mounts = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut mounts, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return warn!(%error, "{MOUNTS} can't be watched: mounts are checked periodically"),
            }
            let is_whole = pins.is_whole();
            if (!is_whole || !was_whole)
                && let Err(TrySendError::Closed(())) = changed.try_send(())
            {
                return;
            }
            was_whole = is_whole;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_whatever_their_paths_are() {
        let list = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw\n\
                    42 31 0:39 /a\\040b /c\\134d\\1 rw - tmpfs - rw\nno mount\n";
        let mount = |device: &str, root: &str, at: &str, kind: &str| Mount {
            device: device.to_owned(),
            root: root.into(),
            at: at.into(),
            kind: kind.to_owned(),
        };
        let wanted =
            [mount("0:38", "/", "/sys/fs/cgroup/unified", "cgroup2"), mount("0:39", "/a b", "/c\\d\\1", "tmpfs")];
        assert_eq!(parse(list), wanted);
        assert!(mounts().unwrap().iter().any(|mount| mount.kind == "proc"));
    }
}
