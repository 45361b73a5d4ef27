//! Connections: accepted, and in a place each, over TCP and TLS alike.
//!
//! Places are shared as [`Crowd`] says: when they are all taken, the client with the most connections loses the one that
//! has been idle longest; a connection with half a message is idle.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::libc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::crowd::{Bounds, Crowd, Place};
use crate::seldom::Seldom;
use crate::stats::Stats;

/// How long to wait before connections are accepted again when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// What the connections of all listeners share.
pub(super) struct Connections {
    crowd: Mutex<Crowd<IpAddr, oneshot::Sender<()>>>,
    /// How many bytes of responses wait for clients.
    pub(super) unread: AtomicUsize,
    complaints: Seldom,
}

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Self {
        let complaints = Seldom::new(Duration::from_mins(1));
        Self { crowd: Mutex::new(Crowd::new(bounds)), unread: AtomicUsize::new(0), complaints }
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd<IpAddr, oneshot::Sender<()>>> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this client; the second end says when it is taken away.
    fn enter(self: &Arc<Self>, client: IpAddr, stats: &Stats) -> Option<(Seat, oneshot::Receiver<()>)> {
        let (stays, gone) = oneshot::channel();
        let admitted = self.crowd().admit(&client, stays);
        let Some((place, evicted)) = admitted else {
            stats.tcp_refused.increment();
            return None;
        };
        if evicted.is_some() {
            stats.tcp_evicted.increment();
        }
        stats.tcp_connections.increment();
        Some((Seat { all: Arc::clone(self), place }, gone))
    }
}

/// A connection's place. It is free again when this is dropped.
pub(super) struct Seat {
    pub(super) all: Arc<Connections>,
    place: Place,
}

impl Seat {
    /// The connection waits for an answer: it can't be taken away.
    pub(super) fn busy(&self) {
        self.all.crowd().busy(self.place);
    }

    /// The connection waits for its client.
    pub(super) fn idle(&self) {
        self.all.crowd().idle(self.place);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all.crowd().remove(self.place);
    }
}

/// Accepts the connections of a listener for ever, and serves each until its place is taken away.
pub(super) async fn accept<F>(
    listener: TcpListener,
    connections: Arc<Connections>,
    stats: &Stats,
    serve: impl Fn(TcpStream, SocketAddr, Seat) -> F,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, client)) => {
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                let Some((seat, gone)) = connections.enter(client.ip(), stats) else { continue };
                let connection = serve(stream, client, seat);
                tasks.spawn(async move {
                    let connection = pin!(connection);
                    tokio::select! {
                        _ = gone => {}
                        ended = connection => if let Err(error) = ended {
                            tracing::debug!(%client, %error, "connection closed with an error");
                        }
                    }
                });
            }
            Err(error) if is_short_of(&error) => {
                if let Some(left_out) = connections.complaints.allow() {
                    tracing::warn!(
                        %error, left_out,
                        "can't accept TCP connections: raise the limit of open files (ulimit -n) or of memory; idle \
                         connections are closed meanwhile"
                    );
                }
                drop(connections.crowd().shed());
                tokio::time::sleep(PAUSE).await;
            }
            // The connection ended before it was accepted.
            Err(error) => tracing::debug!(%error, "can't accept a connection"),
        }
    }
}

/// Whether the process or the node has no more of something, so that trying again at once is of no use.
fn is_short_of(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
