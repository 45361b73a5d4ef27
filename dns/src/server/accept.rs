//! Connections: accepted, and in a place each, over TCP and TLS alike.
//!
//! Places are shared as [`Crowd`] says: when they are all taken, the client with the most connections loses the one that
//! has been idle longest; a connection with half a message is idle.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::libc;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::stream::Stream;
use crate::crowd::{Bounds, Crowd, Place};
use crate::seldom::Seldom;
use crate::stats::Stats;

/// How long to wait before connections are accepted again when there are no descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How many bytes of responses may wait for clients that don't read, on all connections together. A connection with
/// one more ends.
const UNREAD: usize = 8 << 20;
/// The same of one client, whose connections end before those of others. It has room for four of the largest responses.
const UNREAD_EACH: usize = 256 << 10;
/// How long connections may take to end when the server stops: as long as upstream servers may take to answer.
const LAST: Duration = Duration::from_secs(5);

/// What the connections of all listeners share.
pub(super) struct Connections {
    crowd: Mutex<Crowd<IpAddr, oneshot::Sender<()>>>,
    /// Responses that wait for clients.
    unread: Mutex<Unread>,
    complaints: Seldom,
    stop: watch::Sender<bool>,
}

impl Connections {
    pub(super) fn new(bounds: Bounds) -> Self {
        let complaints = Seldom::new(Duration::from_mins(1));
        let (crowd, stop) = (Mutex::new(Crowd::new(bounds)), watch::Sender::new(false));
        Self { crowd, unread: Mutex::default(), complaints, stop }
    }

    /// Has every connection end when what it waits for is answered, and none accepted any more.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd<IpAddr, oneshot::Sender<()>>> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of this client; the second end says when it is taken away.
    fn enter(self: &Arc<Self>, client: IpAddr, stats: &Stats) -> Option<(Arc<Seat>, oneshot::Receiver<()>)> {
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
        Some((Arc::new(Seat { all: Arc::clone(self), place, client }), gone))
    }
}

/// A connection's place. It is free again when this is dropped.
pub(super) struct Seat {
    pub(super) all: Arc<Connections>,
    place: Place,
    client: IpAddr,
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

    /// The connection has ended, but for its client.
    fn leaves(&self) {
        self.all.crowd().leaves(self.place);
    }

    /// Tells when the connection is to end.
    pub(super) fn stop(&self) -> Stop {
        Stop(self.all.stop.subscribe())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all.crowd().remove(self.place);
    }
}

/// Tells when the server stops.
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when it does.
    pub(super) async fn stops(&mut self) {
        // It does as well when nobody is left to say so.
        let _said = self.0.wait_for(|stop| *stop).await;
    }
}

/// How many bytes wait for clients.
#[derive(Debug, Default)]
struct Unread {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

impl Unread {
    /// More wait for a client, if they may.
    fn take(&mut self, client: IpAddr, bytes: usize) -> bool {
        let own = self.by_client.get(&client).copied().unwrap_or_default();
        let may = own + bytes <= UNREAD_EACH && self.all + bytes <= UNREAD;
        if may {
            self.by_client.insert(client, own + bytes);
            self.all += bytes;
        }
        may
    }

    fn give_back(&mut self, client: IpAddr, bytes: usize) {
        self.all -= bytes;
        if let Some(own) = self.by_client.get_mut(&client) {
            *own -= bytes;
            if *own == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

/// Bytes that wait for a client.
pub(super) struct Share {
    all: Arc<Connections>,
    client: IpAddr,
    bytes: usize,
}

impl Share {
    /// Takes it of what the client of a connection may have.
    pub(super) fn take(seat: &Seat, bytes: usize) -> io::Result<Self> {
        Self::of(&seat.all, seat.client, bytes)
    }

    fn of(all: &Arc<Connections>, client: IpAddr, bytes: usize) -> io::Result<Self> {
        if all.unread().take(client, bytes) {
            Ok(Self { all: Arc::clone(all), client, bytes })
        } else {
            Err(io::Error::other("too many responses wait for clients that don't read them"))
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.unread().give_back(self.client, self.bytes);
    }
}

/// Accepts the connections of a listener until the server stops, and serves each until its place is taken away.
pub(super) async fn accept<F>(
    listener: TcpListener,
    connections: Arc<Connections>,
    stats: &Stats,
    serve: impl Fn(Stream, SocketAddr, Arc<Seat>) -> F,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut stop = Stop(connections.stop.subscribe());
    loop {
        let accepted = tokio::select! {
            () = stop.stops() => break,
            accepted = listener.accept() => accepted,
            Some(_ended) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, client)) => {
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                let Some((seat, gone)) = connections.enter(client.ip(), stats) else { continue };
                let stream = Stream::new(stream);
                let connection = serve(stream.clone(), client, Arc::clone(&seat));
                tasks.spawn(async move {
                    let connection = pin!(async move {
                        let ended = connection.await;
                        if let Err(error) = &ended {
                            tracing::debug!(%client, %error, "connection closed with an error");
                        }
                        if has_said_something(&ended) {
                            seat.leaves();
                            stream.linger().await;
                        }
                    });
                    tokio::select! {
                        _ = gone => {}
                        () = connection => {}
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
    drop(listener);
    // Those that take longer are cut off.
    let _late = timeout(LAST, async { while tasks.join_next().await.is_some() {} }).await;
}

/// Whether a client may still have to read how its connection has ended: with everything sent, or, where what came was
/// not TLS, with an alert. Who does not read is not waited for again.
fn has_said_something(ended: &io::Result<()>) -> bool {
    ended.as_ref().err().is_none_or(|error| error.kind() == io::ErrorKind::InvalidData)
}

/// Whether the process or the node has no more of something, so that trying again at once is of no use.
fn is_short_of(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_leave_unread_is_bounded_for_each_and_for_all_together() {
        let connections = Arc::new(Connections::new(Bounds { all: 1, each: 1 }));
        let client = |n: u8| IpAddr::from([10, 244, 1, n]);
        // All that it is given.
        let takes = |n: u8| std::iter::repeat(n).map_while(|n| Share::of(&connections, client(n), 1 << 10).ok());
        let mut held: Vec<Share> = takes(0).collect();
        assert_eq!(held.len() << 10, UNREAD_EACH);
        (1..100).for_each(|n| held.extend(takes(n)));
        assert_eq!(held.len() << 10, UNREAD);
        let refused = Share::of(&connections, client(100), 1).map(drop).unwrap_err();
        assert!(refused.to_string().contains("don't read"), "{refused}");
        drop(held);
        assert!(takes(0).next().is_some());
        let unread = connections.unread();
        assert!(unread.all == 0 && unread.by_client.is_empty(), "what was refused has taken nothing");
    }
}
