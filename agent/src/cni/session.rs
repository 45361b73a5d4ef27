//! One connection of a plugin.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_cni::protocol::{Attachment, Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::service::Service;
use super::{CniError, PodNetwork};

/// The longest request: the list of a GC on a full node is half a megabyte.
const LONGEST_REQUEST: u64 = 4 << 20;

/// How long a plugin may think between two requests.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The container that this connection works on: its turn, and what to take back if the plugin dies half-way.
#[derive(Default)]
struct Turn {
    container: Option<(String, OwnedMutexGuard<()>)>,
    unfinished: Option<Attachment>,
    /// Whether this is an ADD. One that fails leaves nothing behind, so its release is done when it is answered.
    is_add: bool,
}

impl Turn {
    async fn take<N: PodNetwork>(&mut self, service: &Service<N>, id: &str) {
        if self.container.as_ref().is_none_or(|(held, _)| held != id) {
            self.container = None;
            self.container = Some((id.to_owned(), service.container(id).await));
        }
    }
}

/// Serves a connection until its end.
pub(crate) async fn serve<N: PodNetwork>(service: Arc<Service<N>>, stream: UnixStream) {
    let mut turn = Turn::default();
    if let Err(error) = converse(&service, stream, &mut turn).await {
        tracing::debug!(%error, "a CNI connection broke");
    }
    if let Some(attachment) = turn.unfinished.take() {
        tracing::info!(?attachment, "the plugin abandoned an ADD: releasing its reservation");
        if let Err(error) = service.release(&attachment).await {
            tracing::warn!(?attachment, %error, "can't release a reservation");
        }
    }
}

async fn converse<N: PodNetwork>(
    service: &Arc<Service<N>>,
    stream: UnixStream,
    turn: &mut Turn,
) -> Result<(), std::io::Error> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(LONGEST_REQUEST);
        let read = timeout(IDLE_LIMIT, limited.read_until(b'\n', &mut line)).await??;
        if read == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => {
                let (verb, begin) = (verb(&request), Instant::now());
                let reply = answer(service, request, turn).await;
                service.network.answered(verb, reply.is_ok(), begin.elapsed());
                reply
            }
            Err(error) => Err(CniError::Request(error.to_string())),
        };
        let reply = reply.unwrap_or_else(|error| {
            tracing::warn!(code = error.code(), %error, "refused a CNI request");
            Reply::Failed(error.into())
        });
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
    }
}

/// The request's name in metrics.
fn verb(request: &Request) -> &'static str {
    match request {
        Request::Reserve { .. } => "reserve",
        Request::Attach { .. } => "attach",
        Request::Release { .. } => "release",
        Request::Check { .. } => "check",
        Request::Status => "status",
        Request::Gc { .. } => "gc",
    }
}

async fn answer<N: PodNetwork>(
    service: &Arc<Service<N>>,
    request: Request,
    turn: &mut Turn,
) -> Result<Reply, CniError> {
    match request {
        Request::Reserve { attachment, pod, netns, netns_inode, network, wanted } => {
            turn.take(service, &attachment.container_id).await;
            turn.is_add = true;
            let reservation = service.reserve(&attachment, pod, (netns, netns_inode), network, wanted).await?;
            turn.unfinished = Some(attachment);
            Ok(Reply::Reserved(reservation))
        }
        Request::Attach { attachment } => {
            turn.take(service, &attachment.container_id).await;
            service.attach(&attachment).await?;
            turn.unfinished = None;
            Ok(Reply::Done)
        }
        Request::Release { attachment } => {
            turn.take(service, &attachment.container_id).await;
            let released = match turn.is_add {
                true => service.release(&attachment).await,
                false => service.release_soon(&attachment).await,
            };
            // What is left to do waits for nobody.
            turn.container = None;
            released?;
            turn.unfinished = None;
            Ok(Reply::Done)
        }
        Request::Check { attachment } => {
            turn.take(service, &attachment.container_id).await;
            service.check(&attachment).map(Reply::Reserved)
        }
        Request::Status => service.status().map(|()| Reply::Done),
        Request::Gc { network, keep } => service.gc(&network, &keep).await.map(|()| Reply::Done),
    }
}
