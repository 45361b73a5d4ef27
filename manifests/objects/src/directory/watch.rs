//! Follows a directory with inotify(7).

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::state::{Reading, State};
use super::{Error, is_manifest, list, read_file};
use crate::{Event, Kind};

/// How long a burst of changes is collected. Files that are replaced together are then one change.
const SETTLE: Duration = Duration::from_millis(10);
/// How long to wait for a directory that is not there.
const RETRY: Duration = Duration::from_secs(1);

/// Follows a directory until nobody listens any more.
///
/// The first full read ends with a [`Event::Synced`] for each kind. A directory that can't be read is an
/// [`Event::Invalid`], said once, and tried again every second; what it gave before goes on meanwhile.
pub async fn watch(dir: &Path, events: mpsc::Sender<Event>) {
    let mut follower = Follower { events, state: State::default(), seen: BTreeMap::new(), synced: false };
    let mut complaint = String::new();
    while let Err(Stop::Broken(error)) = follower.follow(dir).await {
        let reason = error.to_string();
        if reason != complaint {
            complaint.clone_from(&reason);
            let origin = dir.display().to_string();
            if follower.send([Event::Invalid { kind: None, key: None, origin, reason }]).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Why following ends.
enum Stop {
    /// Nobody listens.
    Closed,
    /// The directory is not there (any more).
    Broken(Error),
}

/// What tells one content of a file from the next without reading it: device, inode, size, change time.
type Mark = (u64, u64, u64, i64, i64);

struct Follower {
    events: mpsc::Sender<Event>,
    state: State,
    /// The files that were read, as they were then.
    seen: BTreeMap<String, Option<Mark>>,
    synced: bool,
}

/// Which files may have changed.
enum Changed {
    Named(BTreeSet<String>),
    Any,
}

impl Follower {
    async fn follow(&mut self, dir: &Path) -> Result<(), Stop> {
        // The watch comes first: a change during the first read is then seen by one of the two.
        let inotify = subscribe(dir).map_err(Stop::Broken)?;
        self.reload(dir, Changed::Any).await?;
        if !self.synced {
            self.send(Kind::ALL.map(Event::Synced)).await?;
            self.synced = true;
        }
        loop {
            let changed = tokio::select! {
                changed = next_change(dir, &inotify) => changed,
                () = self.events.closed() => return Err(Stop::Closed),
            };
            let changed = changed.map_err(|source| Stop::Broken(Error::Watch { path: dir.to_owned(), source }))?;
            self.reload(dir, changed).await?;
        }
    }

    /// Reads what may have changed and sends what did.
    async fn reload(&mut self, dir: &Path, changed: Changed) -> Result<(), Stop> {
        let names = match changed {
            Changed::Named(names) => names,
            Changed::Any => {
                let present = list(dir).map_err(Stop::Broken)?;
                let known = self.seen.keys().cloned();
                let names: BTreeSet<String> = present.into_iter().chain(known).collect();
                names.into_iter().filter(|name| self.seen.get(name) != Some(&mark(dir, name))).collect()
            }
        };
        let mut readings: BTreeMap<String, Reading> = BTreeMap::new();
        for name in names {
            // Taken before the read: a change in between is then seen as one.
            let mark = mark(dir, &name);
            let reading = read_file(dir, &name);
            match &reading {
                Some(_) => self.seen.insert(name.clone(), mark),
                None => self.seen.remove(&name),
            };
            readings.insert(name, reading);
        }
        let events = self.state.update(&readings);
        self.send(events).await
    }

    async fn send(&self, events: impl IntoIterator<Item = Event>) -> Result<(), Stop> {
        for event in events {
            self.events.send(event).await.map_err(|_| Stop::Closed)?;
        }
        Ok(())
    }
}

/// An inotify instance as tokio wants it.
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn mark(dir: &Path, name: &str) -> Option<Mark> {
    let meta = fs::metadata(dir.join(name)).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}

fn subscribe(dir: &Path) -> Result<AsyncFd<Watch>, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::List { path: dir.to_owned(), source },
        _ => Error::Watch { path: dir.to_owned(), source },
    };
    let inotify =
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|errno| failed(errno.into()))?;
    // A file that is being written says nothing until it is closed; IN_CREATE is for links, which are never written.
    let flags = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(dir, flags).map_err(|errno| failed(errno.into()))?;
    #[expect(deprecated, reason = "its successor is unsafe, for descriptors that are not owned; this one is")]
    AsyncFd::try_with_interest(Watch(inotify), Interest::READABLE).map_err(|error| failed(error.into()))
}

/// Waits for changes and collects those that belong together.
async fn next_change(dir: &Path, inotify: &AsyncFd<Watch>) -> io::Result<Changed> {
    let first = read_events(inotify).await?;
    tokio::time::sleep(SETTLE).await;
    let rest = match inotify.get_ref().0.read_events() {
        Ok(events) => events,
        Err(Errno::EAGAIN) => Vec::new(),
        Err(errno) => return Err(errno.into()),
    };
    changed(dir, &first.into_iter().chain(rest).collect::<Vec<_>>())
}

async fn read_events(inotify: &AsyncFd<Watch>) -> io::Result<Vec<InotifyEvent>> {
    inotify.async_io(Interest::READABLE, |watch| watch.0.read_events().map_err(Into::into)).await
}

fn changed(dir: &Path, events: &[InotifyEvent]) -> io::Result<Changed> {
    let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
    if events.iter().any(|event| event.mask.intersects(gone)) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut names = BTreeSet::new();
    for event in events {
        match event.name.as_ref().and_then(|name| name.to_str()) {
            // No name: the queue ran over and something was lost. A dot: perhaps the target of links, as a mounted
            // ConfigMap replaces its `..data`.
            None => return Ok(Changed::Any),
            Some(name) if name.starts_with('.') => return Ok(Changed::Any),
            Some(name) if !is_manifest(name) => {}
            Some(name) if event.mask == AddWatchFlags::IN_CREATE && is_being_written(dir, name) => {}
            Some(name) => _ = names.insert(name.to_owned()),
        }
    }
    Ok(Changed::Named(names))
}

/// Whether a new name is a new file, to be closed by its writer, and not a link to a finished one.
fn is_being_written(dir: &Path, name: &str) -> bool {
    fs::symlink_metadata(dir.join(name)).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

#[cfg(test)]
mod tests;
