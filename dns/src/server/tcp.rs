//! TCP: connections that cost little, as many as there are places for.
//!
//! A connection is a task without a buffer until something comes. Its queries are answered as they get ready (RFC 7766
//! section 7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep_until, timeout};

use super::accept::{Connections, Seat, Share, accept};
use super::frames::{Frame, Frames};
use super::stream::Stream;
use crate::full::{Asking, Outcome, Responder, Response, Short, Transfer};
use crate::manner::Transport;
use crate::meter::{Answered, Asked, Maker, Shard};
use crate::site::log::Exchange;
use crate::wire::Header;

/// How long a connection may stay open after a query; within it the next one has to arrive whole.
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to send a request or to accept a response.
pub(super) const SLOW: Duration = Duration::from_secs(5);
/// How many queries of one connection may wait for upstream servers; the next is read when one is answered.
const PIPELINE: usize = 32;

/// Serves the connections of a listener for ever.
pub(super) async fn serve(
    listener: TcpListener,
    responder: Arc<Responder>,
    shard: Arc<Shard>,
    connections: Arc<Connections>,
) {
    let serve = |stream, client: SocketAddr, seat| {
        let (responder, shard) = (Arc::clone(&responder), Arc::clone(&shard));
        Connection { stream, client, responder, shard, seat }.serve()
    };
    accept(listener, connections, &responder.stats, serve).await;
}

struct Connection {
    stream: Stream,
    client: SocketAddr,
    responder: Arc<Responder>,
    shard: Arc<Shard>,
    seat: Arc<Seat>,
}

/// A response that was waited for.
struct Finished {
    response: Response,
    maker: Maker,
    came: Came,
}

/// A query, as much of it as is needed when it is answered.
struct Came {
    asked: Asked,
    begin: Instant,
    /// All of it, if queries are logged.
    logged: Option<Vec<u8>>,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        let mut frames = Frames::default();
        let mut waiting: FuturesUnordered<BoxFuture<'static, Finished>> = FuturesUnordered::new();
        let mut deadline = tokio::time::Instant::now() + IDLE;
        let mut stop = self.seat.stop();
        loop {
            while waiting.len() < PIPELINE {
                let begin = Instant::now();
                let message = match frames.next() {
                    Frame::Message(message) => message,
                    Frame::Partial => break,
                    Frame::Broken(bytes) => {
                        self.responder.stats.malformed.increment();
                        if let Some(header) = Header::read(bytes) {
                            self.send(&Response::malformed(&header).encode()).await?;
                        }
                        return Ok(());
                    }
                };
                let asked = Asked::new(message, self.client.is_ipv6());
                let logged = self.responder.site().logs().then(|| message.to_vec());
                let mut bytes = Vec::new();
                match shortly(&self.responder, message, self.client.ip(), &mut bytes) {
                    Shortly::Written(maker) => {
                        let answered = Answered::plainly(&bytes, maker);
                        self.write(&bytes, answered, Came { asked, begin, logged }).await?;
                        deadline = tokio::time::Instant::now() + IDLE;
                        continue;
                    }
                    Shortly::Ask(asking) => {
                        let responder = Arc::clone(&self.responder);
                        let answer = async move { responder.finish_shortly(*asking).await };
                        self.wait(&mut waiting, answer, Came { asked, begin, logged });
                        deadline = tokio::time::Instant::now() + IDLE;
                        continue;
                    }
                    Shortly::Nothing => {}
                }
                match self.responder.respond_to(message, Transport::Tcp, self.client.ip()) {
                    Outcome::Silence => {}
                    Outcome::Reply(response) => {
                        self.finish(response, Maker::Kubernetes, Came { asked, begin, logged }).await?;
                    }
                    Outcome::Transfer(messages) => {
                        self.seat.busy();
                        self.transfer(*messages, Came { asked, begin, logged }).await?;
                        if waiting.is_empty() {
                            self.seat.idle();
                        }
                    }
                    Outcome::Pending(pending) => {
                        let responder = Arc::clone(&self.responder);
                        let answer = async move { responder.finish(*pending).await };
                        self.wait(&mut waiting, answer, Came { asked, begin, logged });
                    }
                }
                deadline = tokio::time::Instant::now() + IDLE;
            }
            tokio::select! {
                Some(Finished { response, maker, came }) = waiting.next() => {
                    if waiting.is_empty() {
                        self.seat.idle();
                    }
                    self.finish(response, maker, came).await?;
                    deadline = tokio::time::Instant::now() + IDLE;
                }
                readable = self.stream.tcp().readable(), if waiting.len() < PIPELINE => {
                    readable?;
                    match self.stream.tcp().try_read_buf(frames.room()) {
                        // What is waited for is still answered: a client may close its side after its last query.
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                () = sleep_until(deadline), if waiting.is_empty() => return Ok(()),
                () = stop.stops() => break,
            }
        }
        while let Some(Finished { response, maker, came }) = waiting.next().await {
            self.finish(response, maker, came).await?;
        }
        Ok(())
    }

    /// Waits for an answer among others.
    fn wait(
        &self,
        waiting: &mut FuturesUnordered<BoxFuture<'static, Finished>>,
        answer: impl Future<Output = (Response, Maker)> + Send + 'static,
        came: Came,
    ) {
        if waiting.is_empty() {
            self.seat.busy();
        }
        let answer = async move {
            let (response, maker) = answer.await;
            Finished { response, maker, came }
        };
        waiting.push(answer.boxed());
    }

    async fn finish(&mut self, response: Response, maker: Maker, came: Came) -> io::Result<()> {
        let answered = response.summary(maker);
        let bytes = response.encode();
        self.write(&bytes, Answered { size: bytes.len(), ..answered }, came).await
    }

    /// Sends a zone, which counts as one response: its first message.
    async fn transfer(&mut self, messages: Transfer, came: Came) -> io::Result<()> {
        let mut came = Some(came);
        for message in messages {
            let message = message.map_err(|error| {
                tracing::info!(client = %self.client, %error, "zone transfer ended before its end");
                io::Error::other(error)
            })?;
            match came.take() {
                Some(came) => self.finish(message, Maker::Kubernetes, came).await?,
                None => self.send(&message.encode()).await?,
            }
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], answered: Answered, came: Came) -> io::Result<()> {
        let Came { asked, begin, logged } = came;
        let failed = self.responder.names.pass(self.client.ip(), bytes).await;
        let (bytes, answered) = match &failed {
            Some(failed) => (&failed[..], Answered::plainly(failed, answered.maker)),
            None => (bytes, answered),
        };
        self.shard.report(asked, answered);
        if let Some(query) = logged {
            let (client, transport, took) = (self.client, Transport::Tcp, begin.elapsed());
            let exchange = Exchange { client, transport, query: &query, response: bytes, took };
            self.responder.log(&self.responder.site(), &exchange);
        }
        let sent = self.send(bytes).await;
        self.shard.took(begin.elapsed(), 1);
        if sent.is_err() {
            self.responder.stats.unsent.increment();
        }
        sent
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let frame = [&length.to_be_bytes(), message].concat();
        let sent = match self.stream.tcp().try_write(&frame) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let _share = Share::take(&self.seat, frame.len())?;
        timeout(SLOW, self.stream.write_all(rest)).await?
    }
}

/// What becomes of a message over a stream.
pub(super) enum Shortly {
    /// The response is written.
    Written(Maker),
    /// Somebody has to be asked.
    Ask(Box<Asking>),
    /// It is for others to answer.
    Nothing,
}

/// Writes the response to a plain query.
pub(super) fn shortly(responder: &Arc<Responder>, message: &[u8], client: IpAddr, out: &mut Vec<u8>) -> Shortly {
    let zone = responder.zone.read().unwrap_or_else(PoisonError::into_inner);
    match responder.respond_shortly(&zone, &responder.site(), message, Transport::Tcp, client, out) {
        Short::Written(maker) => {
            let counter = if maker == Maker::Cache { &responder.stats.cached } else { &responder.stats.fast };
            counter.increment();
            Shortly::Written(maker)
        }
        Short::Renew(question) => {
            let responder = Arc::clone(responder);
            tokio::spawn(async move { responder.renew(question, client).await });
            Shortly::Written(Maker::Cache)
        }
        Short::Ask(asking) => Shortly::Ask(asking),
        Short::Nothing => Shortly::Nothing,
    }
}
