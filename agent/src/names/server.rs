//! The socket at which the node's DNS server asks.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairlead_objects::names::{Ask, LONGEST, MOST_ADDRESSES, Reply, SOCKET, Said};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

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
    let is = path.symlink_metadata()?;
    if !is.is_dir() {
        return Err(io::Error::other("something else has this name: find out who made it, and remove it"));
    }
    if is.gid() != GROUP {
        chown(path, None, Some(GROUP))?;
    }
    if is.permissions().mode() & 0o7777 != MODE {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
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
    pub(crate) fn count(&self, said: Said) {
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
pub struct Asked {
    /// The question.
    pub ask: Ask,
    since: Instant,
    to: Arc<OwnedWriteHalf>,
}

impl Asked {
    /// Whether the server has given up on it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.since.elapsed() > PATIENCE
    }

    /// Replies, on whatever thread. A server that does not read loses it, and takes the answer for refused.
    pub fn reply(&self, said: Said) {
        let line = Reply { id: self.ask.id, said }.encode();
        match self.to.try_write(&line) {
            Ok(written) if written == line.len() => {}
            result => debug!(?result, "can't reply to the DNS server"),
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

    /// Passes questions on until it is dropped. `ask`: passes one on, and says whether anybody is there. It listens again where
    /// somebody has removed its socket, once the directory is there.
    pub async fn run<F: Future<Output = bool> + Send>(
        mut self,
        ask: impl Fn(Asked) -> F + Clone + Send + Sync + 'static,
    ) {
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
                    let ask = ask.clone();
                    tokio::spawn(async move {
                        info!("a DNS server asks which names open what");
                        if let Err(error) = converse(stream, ask).await {
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

async fn converse<F: Future<Output = bool>>(stream: UnixStream, ask: impl Fn(Asked) -> F) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (mut read, write) = (BufReader::new(read), Arc::new(write));
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = LONGEST as u64;
        if (&mut read).take(most).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let Ok(question) = Ask::decode(&line) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it asked what nobody understands"));
        };
        let asked = Asked { ask: question, since: Instant::now(), to: Arc::clone(&write) };
        if asked.ask.addresses.len() > MOST_ADDRESSES {
            asked.reply(Said::Refused);
        } else if !ask(asked).await {
            return Ok(());
        }
    }
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
