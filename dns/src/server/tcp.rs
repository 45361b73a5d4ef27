//! TCP: several queries at once on a connection, answered in whatever order they are ready (RFC 7766).

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::full::{Outcome, Responder, Transport};

/// Connections at once; who comes later waits in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// Queries of one connection that wait for upstream servers at once.
const PIPELINE: usize = 64;
/// How long a connection may stay without a query.
const IDLE: Duration = Duration::from_secs(10);
/// How long a query may take to arrive, and a response to leave.
const TRANSFER: Duration = Duration::from_secs(3);

/// The places for connections, shared by all listeners.
#[derive(Clone)]
pub(super) struct Connections(Arc<Semaphore>);

impl Default for Connections {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }
}

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener, responder: Arc<Responder>, connections: Connections) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "TCP is not served: the socket can't be watched"),
    };
    let mut running = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&connections.0).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let responder = Arc::clone(&responder);
                running.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = connection(stream, responder).await {
                        tracing::debug!(%client, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting failed");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        while running.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, responder: Arc<Responder>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let (replies, mut outgoing) = mpsc::channel::<Vec<u8>>(PIPELINE);
    let write = async move {
        while let Some(bytes) = outgoing.recv().await {
            timeout(TRANSFER, writer.write_all(&framed(&bytes))).await??;
        }
        Ok(())
    };
    let read = async move {
        let mut waiting = JoinSet::new();
        while let Some(message) = query(&mut reader).await? {
            let bytes = match responder.respond(&message, Transport::Tcp) {
                Outcome::Silence => continue,
                Outcome::Reply(bytes) => bytes,
                Outcome::Pending(pending) => {
                    if waiting.len() >= PIPELINE {
                        waiting.join_next().await;
                    }
                    let (responder, replies) = (Arc::clone(&responder), replies.clone());
                    waiting.spawn(async move { replies.send(responder.finish(*pending).await).await.is_ok() });
                    continue;
                }
            };
            if replies.send(bytes).await.is_err() {
                break;
            }
        }
        // The client has said all; what it still waits for is on its way.
        while waiting.join_next().await.is_some() {}
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

/// The next query, or `None` when the client is done or has been silent for too long.
async fn query(reader: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let length = match timeout(IDLE, reader.read_u16()).await {
        Ok(Ok(length)) => length,
        Ok(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        Ok(Err(_)) | Err(_) => return Ok(None),
    };
    let mut message = vec![0; usize::from(length)];
    timeout(TRANSFER, reader.read_exact(&mut message)).await??;
    Ok(Some(message))
}

/// A message with its length in front (RFC 1035 section 4.2.2). No response is longer than 65535 bytes.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut framed = Vec::with_capacity(bytes.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(bytes);
    framed
}
