//! Whether the bpf file system is still mounted.

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

/// Tells when the directory of pins is gone, in a thread of its own. Other mounts come and go with every pod.
pub fn watch_mounts(pins: PinDir, gone: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let file = match File::open(MOUNTS) {
            Ok(file) => file,
            Err(error) => return warn!(%error, "{MOUNTS} can't be watched: mounts are checked periodically"),
        };
        loop {
            let mut changed = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut changed, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return warn!(%error, "{MOUNTS} can't be watched: mounts are checked periodically"),
            }
            if !pins.is_whole()
                && let Err(TrySendError::Closed(())) = gone.try_send(())
            {
                return;
            }
        }
    });
}
