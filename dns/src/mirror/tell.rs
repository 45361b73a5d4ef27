//! Telling the agent.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use fairlead_objects::zone::{Begin, Holds, LEASE, Line, MOST_NAMES, SOCKET, VERSION};
use nix::time::{ClockId, clock_gettime};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::told;
use crate::full::Responder;
use crate::{WireName, Zone};

/// How often it is said that all of it holds.
const AGAIN: Duration = Duration::from_millis(LEASE.as_millis() as u64 / 6);

/// How soon an agent that is not there is looked for again.
const RETRY: Duration = Duration::from_secs(1);

/// This server.
pub struct Server {
    /// The directory that the agent sees too.
    pub directory: PathBuf,
    /// Where it gets queries.
    pub listen: Vec<SocketAddr>,
    /// Why nobody may answer in its place beside what its configuration says, if that is so.
    pub obstacle: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// What the kernel may say in this server's place.
pub struct Mirror {
    responder: Arc<Responder>,
    server: Server,
}

/// What the agent has been told.
struct Told {
    begin: Begin,
    changes: Arc<Notify>,
    /// Names of which the agent knows nothing, since they can't be written.
    unspoken: BTreeSet<WireName>,
}

impl Mirror {
    /// Of a responder, and of where it is.
    #[must_use]
    pub fn new(responder: Arc<Responder>, server: Server) -> Self {
        Self { responder, server }
    }

    /// Tells the agent, whenever it is there.
    pub async fn keep(self) {
        let socket = self.server.directory.join(SOCKET);
        loop {
            if let Ok(stream) = UnixStream::connect(&socket).await {
                let error = self.tell(stream).await.err().map(|error| error.to_string());
                tracing::debug!(error, "the node's agent reads no more of the zone");
                self.zone_mut().leave();
            }
            sleep(RETRY).await;
        }
    }

    fn zone(&self) -> RwLockReadGuard<'_, Zone> {
        self.responder.zone.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn zone_mut(&self) -> RwLockWriteGuard<'_, Zone> {
        self.responder.zone.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut told = None;
        loop {
            match self.obstacle() {
                Some(why) => {
                    if told.take().is_some() {
                        self.zone_mut().leave();
                    }
                    say(&mut stream, &Line::Silent(why)).await?;
                }
                None => told = Some(self.go_on(&mut stream, told.take()).await?),
            }
            let changes = told.as_ref().map(|told: &Told| Arc::clone(&told.changes));
            let waits = async {
                match changes {
                    Some(changes) => changes.notified().await,
                    None => std::future::pending().await,
                }
            };
            let _again = timeout(AGAIN, waits).await;
        }
    }

    /// Why nobody may answer in this server's place.
    fn obstacle(&self) -> Option<String> {
        let site = self.responder.site();
        let (is_synced, besides) = {
            let zone = self.zone();
            (zone.is_synced(), site.besides(zone.origin()))
        };
        if !is_synced {
            return Some("its first list of objects is not complete".to_owned());
        }
        let other = || besides.map(|what| format!("its configuration has, for names in the cluster's zone: {what}"));
        (self.server.obstacle)().or_else(other)
    }

    /// Who answers, and how.
    fn begin(&self) -> Option<Begin> {
        let manner = self.responder.site().manner(self.responder.manner);
        let zone = self.zone();
        let port = self.server.listen.first()?.port();
        let of = |listen: &SocketAddr| -> Vec<IpAddr> {
            if listen.ip().is_unspecified() { zone.own().to_vec() } else { vec![listen.ip()] }
        };
        let mut addresses: Vec<_> = self.server.listen.iter().filter(|at| at.port() == port).flat_map(of).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Some(Begin {
            version: VERSION,
            addresses,
            port,
            zone: zone.origin().to_string(),
            ttl: zone.ttl(),
            soa_ttl: zone.soa_ttl(),
            recursion: manner.recursion,
        })
    }

    /// Brings the agent up to date, and says so.
    async fn go_on(&self, stream: &mut UnixStream, told: Option<Told>) -> io::Result<Told> {
        let begin = self.begin().ok_or_else(|| io::Error::other("this server listens nowhere"))?;
        let mut told = match told.filter(|told| told.begin == begin) {
            Some(told) => told,
            None => self.begin_with(stream, begin).await?,
        };
        loop {
            let changed = self.zone_mut().take_changed(MOST_NAMES);
            self.send(stream, changed, &mut told.unspoken).await?;
            let holds = {
                let zone = self.zone();
                let complete = told.unspoken.is_empty();
                (!zone.has_changed()).then(|| Holds { serial: zone.serial(), complete, at: now() })
            };
            if let Some(holds) = holds {
                say(stream, &Line::Holds(holds)).await?;
                return Ok(told);
            }
        }
    }

    /// Tells everything.
    async fn begin_with(&self, stream: &mut UnixStream, begin: Begin) -> io::Result<Told> {
        // What changes from here on is told afterwards.
        let changes = self.zone_mut().follow();
        let mut told = Told { begin: begin.clone(), changes, unspoken: BTreeSet::new() };
        say(stream, &Line::Begin(begin)).await?;
        let all: Vec<WireName> = self.zone().names().map(|(name, _)| name.clone()).collect();
        for some in all.chunks(MOST_NAMES) {
            self.send(stream, some.to_vec(), &mut told.unspoken).await?;
        }
        Ok(told)
    }

    /// Tells what is at these names, or that they are gone.
    async fn send(
        &self,
        stream: &mut UnixStream,
        names: Vec<WireName>,
        unspoken: &mut BTreeSet<WireName>,
    ) -> io::Result<()> {
        let (mut known, mut gone) = (Vec::new(), Vec::new());
        {
            let zone = self.zone();
            for name in names {
                let text = name.to_string();
                let is_same = WireName::parse(&text).is_ok_and(|read| read == name);
                match told(&zone, &name) {
                    Some(_) if !is_same => drop(unspoken.insert(name)),
                    Some(told) => known.push(told),
                    None if is_same => gone.push(text),
                    None => drop(unspoken.remove(&name)),
                }
            }
        }
        // What comes first, so that no name is missing while it moves.
        if !known.is_empty() {
            say(stream, &Line::Names(known)).await?;
        }
        if !gone.is_empty() {
            say(stream, &Line::Gone(gone)).await?;
        }
        Ok(())
    }
}

async fn say(stream: &mut UnixStream, line: &Line) -> io::Result<()> {
    stream.write_all(&line.encode()).await
}

/// Milliseconds since the node's start.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}
