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
use crate::seats::Seat;

/// The longest request: the list of a GC on a full node is half a megabyte.
const LONGEST_REQUEST: u64 = 4 << 20;

/// How long a plugin may think between two requests.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The container that this connection works on: its turn, and what to take back if the plugin dies half-way.
#[derive(Default)]
struct Turn {
    container: Option<(String, OwnedMutexGuard<()>)>,
    unfinished: Option<Attachment>,
    /// The pod that was attached, which its plugin wires from then on.
    attached: Option<Attachment>,
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

/// Says that there is no room for a connection, and hangs up.
pub(crate) fn refuse(stream: &UnixStream, error: CniError) {
    tracing::warn!(code = error.code(), %error, "refused a CNI connection");
    if let Ok(mut text) = serde_json::to_vec(&Reply::Failed(error.into())) {
        text.push(b'\n');
        // There is room in a new socket for a line; who has hung up need not be told.
        let _gone = stream.try_write(&text);
    }
}

/// Serves a connection until its end. While it has asked nothing it may lose its seat.
pub(crate) async fn serve<N: PodNetwork>(service: Arc<Service<N>>, stream: UnixStream, seat: Seat) {
    let mut turn = Turn::default();
    if let Err(error) = converse(&service, stream, &seat, &mut turn).await {
        tracing::debug!(%error, "a CNI connection broke");
    }
    if let Some(attachment) = turn.attached.take() {
        service.finished(&attachment);
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
    seat: &Seat,
    turn: &mut Turn,
) -> Result<(), std::io::Error> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(LONGEST_REQUEST);
        let come = timeout(IDLE_LIMIT, limited.read_until(b'\n', &mut line));
        // Who works on a container keeps the seat between two requests too.
        let read = if turn.container.is_some() { Some(come.await) } else { seat.wait(come).await };
        let Some(read) = read else { return Ok(()) };
        if read?? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice(&line) {
            // The runtime has gone on since, and has pods that are not in this list.
            Ok(Request::Gc { .. }) if has_hung_up(&stream) => {
                tracing::info!("the caller of this GC has given up: leaving it to the next one");
                return Ok(());
            }
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

/// Whether the other side is gone, as after an agent that hung for long. Plugins send nothing while they wait for an answer.
fn has_hung_up(stream: &BufReader<UnixStream>) -> bool {
    matches!(stream.get_ref().try_read(&mut [0]), Ok(0))
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
            turn.attached = Some(attachment);
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
            turn.attached = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c10_a_plugin_that_gave_up_is_noticed() {
        for gone in [false, true] {
            let (mut plugin, agent) = UnixStream::pair().unwrap();
            plugin.write_all(b"a request\n").await.unwrap();
            let waits = (!gone).then_some(plugin);
            let (mut stream, mut line) = (BufReader::new(agent), Vec::new());
            stream.read_until(b'\n', &mut line).await.unwrap();
            assert_eq!((line.as_slice(), has_hung_up(&stream)), (&b"a request\n"[..], gone));
            drop(waits);
        }
    }
}
