//! Whether the bpf file system is still mounted, as this process sees it.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use super::PinDir;

/// The kernel tells of changes of this file as of urgent data (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

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
