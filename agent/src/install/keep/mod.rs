//! `fairlead install --keep`: what [`install()`](super::install()) puts in place stays there.
//!
//! One thread, which sleeps: it looks whenever mounts change (proc_pid_mountinfo(5)) and every ten seconds, and puts right what is
//! not as it should be. It reads files of the node and takes no input from anybody else: no socket, no API server, no
//! network. How it is stands in a file of the run directory that is locked while it lives, so that `fairlead doctor` and the agent
//! know.
//!
//! What it can't bring back is a directory of the node of which its container has a mount, if somebody removes the directory itself:
//! it says so.

mod bpffs;
mod say;
mod stamp;
mod things;
mod trees;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fairlead_files::Lock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{info, warn};

use super::Setup;
use crate::bpf::{Kept, MOUNTS};
use bpffs::Bpffs;
use say::Speaker;
use things::Things;

/// How often it looks, whatever happens.
const LOOK: Duration = Duration::from_secs(10);

/// How long it waits once it was told of a change: whoever unmounts a file system to mount another is given the time, and so is a
/// script that unmounts until there is nothing left to unmount.
const SETTLE: Duration = Duration::from_millis(200);

/// The least time between two looks: somebody who undoes everything at once costs this process nothing.
const REST: Duration = Duration::from_secs(1);

/// How often it tries to be the one that keeps, while another is.
const AGAIN: Duration = Duration::from_millis(500);

/// What came of looking at a thing: nothing to do, what was put right, or why it could not be and what to do.
type Looked = Result<Option<String>, String>;

/// The file in the run directory that is locked while a keeper lives, with a line for each thing that it can't put right.
#[must_use]
pub fn lock_of(run_dir: &Path) -> PathBuf {
    run_dir.join("keeper")
}

/// Keeps everything in place until SIGTERM or SIGINT.
///
/// # Errors
/// It can't wait for signals or for changes of mounts, or the run directory of which its container has a mount was removed.
pub fn keep(setup: &Setup) -> io::Result<()> {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    end.thread_block()?;
    let end = SignalFd::with_flags(&end, SfdFlags::SFD_CLOEXEC)?;
    // Before the first look: what changes after it is told.
    let mounts = File::open(MOUNTS)?;
    let lock = lock_of(&setup.run_dir);
    let (mut keeper, mut held, mut attempts, mut is_keeping) = (Keeper::new(setup), None::<Lock>, 0_u32, false);
    loop {
        let begun = Instant::now();
        if held.as_ref().is_none_or(|lock| !lock.is_found()) {
            held = match keeper.take(&lock) {
                Taken::By(lock) => {
                    // What one before has said is not so any more.
                    keeper.say(lock.as_ref(), String::new());
                    lock
                }
                Taken::ByAnother => {
                    // What it holds would run on beside what that one keeps.
                    keeper.let_go();
                    held = None;
                    (attempts, is_keeping) = (attempts.saturating_add(1), false);
                    // The first may have met somebody who only asked.
                    if attempts == 2 {
                        info!("another `fairlead install --keep` runs on this node: waiting for its end");
                    }
                    match wait(&end, None, AGAIN)? {
                        Woken::Ended => return Ok(()),
                        Woken::Changed | Woken::Elapsed => continue,
                    }
                }
            };
        }
        if !is_keeping {
            info!("keeping what is installed");
            is_keeping = true;
        }
        let failing = keeper.look();
        keeper.say(held.as_ref(), failing);
        if keeper.things.run_dir_is_dead() && keeper.bpffs.is_in_place() {
            // Nobody would see its lock, nor what it says; the next one has the directory that is there now.
            return Err(io::Error::other(things::removed(&setup.run_dir)));
        }
        // A change may be told of while this one is looked at, and rests until then.
        let rest = REST.saturating_sub(begun.elapsed());
        let woken = match wait(&end, None, rest)? {
            Woken::Ended => Woken::Ended,
            Woken::Changed | Woken::Elapsed => wait(&end, Some(&mounts), LOOK.saturating_sub(rest))?,
        };
        let woken = if woken == Woken::Changed { wait(&end, None, SETTLE)? } else { woken };
        if woken == Woken::Ended {
            info!("ended: what is in place stays");
            return Ok(());
        }
    }
}

/// Why it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It was told to end.
    Ended,
    /// Mounts have changed.
    Changed,
    /// The time is over.
    Elapsed,
}

fn wait(end: &SignalFd, mounts: Option<&File>, time: Duration) -> io::Result<Woken> {
    let deadline = Instant::now() + time;
    loop {
        let mut fds = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        fds.extend(mounts.map(|mounts| PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)));
        let left = deadline.saturating_duration_since(Instant::now());
        // What is less than a millisecond is none.
        let left = left.saturating_add(Duration::from_micros(999));
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Ok(Woken::Elapsed),
            Ok(_) if fds[0].any() == Some(true) => return Ok(Woken::Ended),
            Ok(_) => return Ok(Woken::Changed),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who keeps things on this node.
enum Taken {
    /// This process; without a lock where that can't be made, which is no reason not to.
    By(Option<Lock>),
    /// Another one.
    ByAnother,
}

/// Everything that is kept.
struct Keeper<'a> {
    setup: &'a Setup,
    bpffs: Bpffs,
    things: Things<'a>,
    speaker: Speaker,
}

impl<'a> Keeper<'a> {
    fn new(setup: &'a Setup) -> Self {
        Self { setup, bpffs: Bpffs::new(&setup.bpffs), things: Things::new(setup), speaker: Speaker::default() }
    }

    /// Leaves everything to another.
    fn let_go(&mut self) {
        self.bpffs = Bpffs::new(&self.setup.bpffs);
        self.things = Things::new(self.setup);
    }

    /// Takes the lock, for which the run directory has to be there.
    fn take(&mut self, lock: &Path) -> Taken {
        let made = self.things.run_dir();
        self.hear("run directory", made);
        let (taken, looked) = match Lock::take(lock) {
            Ok(Some(lock)) => (Taken::By(Some(lock)), Ok(None)),
            Ok(None) => (Taken::ByAnother, Ok(None)),
            Err(error) => (Taken::By(None), Err(error.to_string())),
        };
        self.hear("lock", looked);
        taken
    }

    /// Looks at everything, and gives a line for each thing that could not be put right.
    fn look(&mut self) -> String {
        // The agent waits for this one.
        let bpffs = self.bpffs.look();
        let all = [
            ("bpf file system", bpffs),
            ("run directory", self.things.run_dir()),
            ("kernel settings", self.things.settings()),
            ("API server", self.things.api_server()),
            ("CNI plugin", self.things.plugin()),
        ];
        let lines = all.into_iter().filter_map(|(thing, looked)| {
            let failed = looked.as_ref().err().map(|text| format!("{thing}: {text}\n"));
            self.hear(thing, looked);
            failed
        });
        lines.collect::<Vec<_>>().concat()
    }

    /// Says how things are to whoever reads the file of the lock.
    fn say(&mut self, lock: Option<&Lock>, failing: String) {
        let Some(lock) = lock else { return };
        let said = lock.say(&Kept::now(self.bpffs.held(), failing).to_text());
        self.hear("state", said.map(|()| None).map_err(|error| format!("can't say how things are: {error}")));
    }

    fn hear(&mut self, thing: &'static str, looked: Looked) {
        match self.speaker.hear(Instant::now(), thing, looked) {
            Some(say::Said::Warn(text)) => warn!("{text}"),
            Some(say::Said::Info(text)) => info!("{text}"),
            None => {}
        }
    }
}
