//! The socket at which the node's DNS server asks.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairlead_objects::names::{Ask, Line, MOST_ADDRESSES, Reply, SOCKET, Said};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::turns::Turns;
use crate::socket;

/// The group that may connect: that of the server in `manifests/base/dns.yaml`.
const GROUP: u32 = 65532;

/// The directory that both see, in the run directory.
pub const DIRECTORY: &str = "names";

/// The mode of that directory.
const MODE: u32 = 0o750;

/// How often it looks whether somebody has removed its socket.
const LOOK: Duration = Duration::from_secs(10);

/// Connections at a time: two servers while one takes the other's place, and some to spare.
const CONNECTIONS: usize = 8;

/// How long the server waits for a reply (`PATIENCE` of fairlead-dns).
const PATIENCE: Duration = Duration::from_millis(50);

/// Makes the directory that both see: the server's group may look up names in it, and nobody else. Says whether it is new.
///
/// # Errors
/// It can't be made, or something else has its name.
pub fn directory(path: &Path) -> io::Result<bool> {
    let is_new = match std::fs::DirBuilder::new().mode(MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        result => result.map(|()| true)?,
    };
    // What is changed is what was looked at, and no link leads elsewhere.
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
    let directory = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => {
            io::Error::other("something else has this name: find out who made it, and remove it")
        }
        _ => error,
    })?;
    let is = directory.metadata()?;
    if is.gid() != GROUP {
        fchown(&directory, None, Some(GROUP))?;
    }
    if is.permissions().mode() & 0o7777 != MODE {
        directory.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    }
    Ok(is_new)
}

/// Whether it is there as [`directory`] makes it.
#[must_use]
pub fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|is| is.is_dir() && is.gid() == GROUP && is.permissions().mode() & 0o7777 == MODE)
}

/// What is counted of answers.
#[derive(Debug, Default)]
pub struct Told {
    /// Servers that are connected.
    connected: AtomicUsize,
    /// Answers whose addresses came into force.
    pub in_force: AtomicU64,
    /// Answers that no rule is about.
    pub not_covered: AtomicU64,
    /// Answers that did not come into force.
    pub refused: AtomicU64,
    /// Addresses that names do not open.
    pub inside: AtomicU64,
    /// Entries that had to go.
    pub evicted: AtomicU64,
    /// Entries there are.
    pub entries: AtomicUsize,
    /// A server came or went.
    pub changed: Notify,
}

impl Told {
    /// Servers that are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Counts what was said.
    fn count(&self, said: Said) {
        let counter = match said {
            Said::InForce => &self.in_force,
            Said::NotCovered => &self.not_covered,
            Said::Refused => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A question, and where the reply goes.
#[derive(Debug)]
struct Asked {
    ask: Ask,
    since: Instant,
    to: Rc<Line>,
}

impl Asked {
    /// Whether the server has given up on it.
    fn is_late(&self) -> bool {
        self.since.elapsed() > PATIENCE
    }

    /// Replies, and counts it. A server that does not read loses it, and takes the answer for refused.
    fn reply(&self, said: Said, told: &Told) {
        told.count(said);
        let line = Reply { id: self.ask.id, said }.encode();
        match self.to.write(&line) {
            Ok(written) if written == line.len() => {}
            result => debug!(?result, "can't reply to the DNS server"),
        }
    }
}

/// Questions that wait for their turn.
#[derive(Debug)]
struct Waiting {
    turns: RefCell<Turns<Asked>>,
    /// There is one.
    comes: Notify,
    told: Arc<Told>,
}

impl Waiting {
    fn new(told: Arc<Told>) -> Rc<Self> {
        Rc::new(Self { turns: RefCell::default(), comes: Notify::new(), told })
    }

    /// One comes. Too many are refused.
    fn push(&self, asked: Asked) {
        let (client, addresses) = (asked.ask.client, asked.ask.addresses.len());
        if addresses > MOST_ADDRESSES {
            return asked.reply(Said::Refused, &self.told);
        }
        let pushed = self.turns.borrow_mut().push(client, addresses, asked);
        match pushed {
            Ok(()) => self.comes.notify_one(),
            Err(asked) => asked.reply(Said::Refused, &self.told),
        }
    }

    /// Answers them, each client in its turn, and lets others come between two of them.
    async fn answer(&self, answer: impl Fn(&Ask, &mut dyn FnMut(Said))) {
        loop {
            let taken = self.turns.borrow_mut().take();
            if taken.is_empty() {
                self.comes.notified().await;
            }
            for asked in taken {
                if asked.is_late() {
                    asked.reply(Said::Refused, &self.told);
                } else {
                    answer(&asked.ask, &mut |said| asked.reply(said, &self.told));
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
    told: Arc<Told>,
}

impl Server {
    /// Listens in a directory. Who can look up names there may connect.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn open(path: &Path, told: Arc<Told>) -> io::Result<Self> {
        let socket = path.join(SOCKET);
        Ok(Self { listener: socket::listen_for(&socket, 0o666)?, socket, told })
    }

    /// Answers questions, in a thread of its own: `answer` says the answer to what it is given. What is returned ends if that thread does. It listens again where somebody has
    /// removed its socket, once the directory is there.
    ///
    /// # Errors
    /// The thread can't be made.
    pub fn spawn(
        self,
        answer: impl Fn(&Ask, &mut dyn FnMut(Said)) + Send + 'static,
    ) -> io::Result<oneshot::Receiver<()>> {
        let Self { listener, socket, told } = self;
        let listener = listener.into_std()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (ends, ended) = oneshot::channel();
        std::thread::Builder::new().name("names".to_owned()).spawn(move || {
            let local = LocalSet::new();
            let serve = async move {
                match UnixListener::from_std(listener) {
                    Ok(listener) => {
                        let waiting = Waiting::new(Arc::clone(&told));
                        tokio::select! {
                            () = Server { listener, socket, told }.run(&waiting) => {}
                            () = waiting.answer(answer) => {}
                        }
                    }
                    Err(error) => warn!(%error, "can't listen for the node's DNS server"),
                }
            };
            local.block_on(&runtime, serve);
            drop(ends);
        })?;
        Ok(ended)
    }

    async fn run(mut self, waiting: &Rc<Waiting>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = looks.tick() => {
                    self.listen_again();
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    let told = Arc::clone(&self.told);
                    if told.connected.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                        warn!("more than {CONNECTIONS} DNS servers ask at once: one is turned away");
                        told.connected.fetch_sub(1, Ordering::Relaxed);
                        continue;
                    }
                    told.changed.notify_one();
                    let waiting = Rc::clone(waiting);
                    tokio::task::spawn_local(async move {
                        info!("a DNS server asks which names open what");
                        if let Err(error) = converse(stream, &waiting).await {
                            info!(%error, "a DNS server hung up");
                        }
                        told.connected.fetch_sub(1, Ordering::Relaxed);
                        told.changed.notify_one();
                    });
                }
                Err(error) => {
                    warn!(%error, "can't accept a connection of a DNS server");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Server {
    /// An agent that succeeds this one puts its own socket in that place.
    fn listen_again(&mut self) {
        if !matches!(self.socket.try_exists(), Ok(false)) {
            return;
        }
        match socket::listen_for(&self.socket, 0o666) {
            Ok(listener) => {
                warn!(path = %self.socket.display(), "somebody removed the socket for DNS servers: listening again");
                self.listener = listener;
            }
            Err(error) => debug!(%error, "can't listen again for DNS servers"),
        }
    }
}

async fn converse(stream: UnixStream, waiting: &Waiting) -> io::Result<()> {
    let line = Rc::new(Line::new(stream)?);
    let asks = line.listen(|bytes| {
        let ask = Ask::decode(bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it asked what nobody understands"))?;
        waiting.push(Asked { ask, since: Instant::now(), to: Rc::clone(&line) });
        Ok(())
    });
    asks.await
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_that_is_set_right_is_no_new_one_and_what_is_none_is_refused() {
        // Only root gives files to other groups.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let path = std::env::temp_dir().join(format!("fairlead-names-{}", std::process::id()));
        assert!(directory(&path).unwrap() && is_directory(&path));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_directory(&path));
        assert!(!directory(&path).unwrap() && is_directory(&path));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
        let error = directory(&path).unwrap_err().to_string();
        let is_one = is_directory(&path);
        fs::remove_file(&path).unwrap();
        assert!(error.contains("remove it") && !is_one, "{error}");
    }
}
