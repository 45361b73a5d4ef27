//! DNS over TLS for clients (RFC 7858): the messages of a stream, answered as they get ready (RFC 7766 section 7).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use super::accept::Seat;
use super::frames::{Frame, Frames};
use super::secure::{Came, Handler, Replies, Reply};
use super::stream::Stream;
use super::tcp::{IDLE, SLOW};

/// How many queries of one connection may be under way; the next is read when one is answered.
const PIPELINE: usize = 8;

/// Serves a connection to its end.
pub(super) async fn talk(
    mut stream: TlsStream<Stream>,
    client: SocketAddr,
    seat: Arc<Seat>,
    handler: Handler,
) -> io::Result<()> {
    let (replies, mut ready) = Replies::new(&seat);
    let mut stop = seat.stop();
    let mut frames = Frames::default();
    let mut waiting = FuturesUnordered::new();
    let mut deadline = Instant::now() + IDLE;
    // What is waited for is still answered when nothing more is read: a client may close its side after its last query.
    let mut reads = true;
    loop {
        while reads && waiting.len() < PIPELINE {
            let came = match frames.next() {
                Frame::Message(message) => Came::Message(message.to_vec()),
                Frame::Partial => break,
                Frame::Broken(bytes) => {
                    reads = false;
                    Came::Broken(bytes.to_vec())
                }
            };
            if waiting.is_empty() {
                seat.busy();
            }
            waiting.push(handler.answer(came, client, replies.clone()));
        }
        tokio::select! {
            // What is ready leaves before anybody is told that nothing is waited for.
            biased;
            Some(reply) = ready.recv() => send(&mut stream, &reply, &handler, client).await?,
            Some(whole) = waiting.next() => {
                if !whole {
                    while let Ok(reply) = ready.try_recv() {
                        send(&mut stream, &reply, &handler, client).await?;
                    }
                    return Err(io::Error::other("a response could not be sent whole"));
                }
                if waiting.is_empty() {
                    seat.idle();
                    deadline = Instant::now() + IDLE;
                }
            }
            () = std::future::ready(()), if !reads && waiting.is_empty() => {
                while let Ok(reply) = ready.try_recv() {
                    send(&mut stream, &reply, &handler, client).await?;
                }
                break;
            }
            () = stop.stops(), if reads => reads = false,
            () = sleep_until(deadline), if waiting.is_empty() => break,
            read = stream.read_buf(frames.room()), if reads && waiting.len() < PIPELINE => reads = read? > 0,
        }
    }
    timeout(SLOW, stream.shutdown()).await?
}

/// Hands a response to the kernel: TLS keeps some of it otherwise.
async fn send(stream: &mut TlsStream<Stream>, reply: &Reply, handler: &Handler, client: SocketAddr) -> io::Result<()> {
    let length = u16::try_from(reply.bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let frame = [&length.to_be_bytes(), &reply.bytes[..]].concat();
    let written = timeout(SLOW, async {
        stream.write_all(&frame).await?;
        stream.flush().await
    });
    let written = written.await.map_err(io::Error::from).and_then(|written| written);
    written.inspect_err(|error| handler.unsent(client, error))
}
