//! What DNS over TLS and over HTTPS share: TLS is set up, and hickory-server decodes messages, asks a [`RequestHandler`],
//! which says what the other transports say, and makes responses.
//!
//! Connections are accepted, read and written here, since hickory-server bounds neither how many there are, nor how many
//! of them one client has, nor what waits for clients that don't read.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_proto::ProtoError;
use hickory_proto::op::{self, HeaderCounts, Message, Metadata};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, BinEncoder};
use hickory_server::net::NetError;
use hickory_server::net::runtime::{Time, TokioTime};
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, default_tls_server_config};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder, Queries};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::accept::{Connections, Seat, Share, accept};
use super::certificate::Certificate;
use super::stream::Stream;
use super::tcp::{Shortly, shortly};
use crate::encode::encode;
use crate::full::{Outcome, Responder, Response, Transfer};
use crate::manner::Transport;
use crate::meter::{Answered, Asked, Maker, Shard};
use crate::site::log::Exchange;
use crate::wire::Header;

/// How long a client may take until TLS is set up.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);

/// How clients are answered over TLS, under this name of a protocol in ALPN.
///
/// # Errors
/// TLS can't be set up.
pub(super) fn acceptor(alpn: &[u8], certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    Ok(TlsAcceptor::from(Arc::new(default_tls_server_config(alpn, certificate)?)))
}

/// Serves the connections of a listener until the server stops: sets TLS up, and has `talk` serve the rest.
pub(super) async fn serve<F>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Handler,
    connections: Arc<Connections>,
    talk: impl Fn(TlsStream<Stream>, SocketAddr, Arc<Seat>, Handler) -> F + Copy + Send + Sync + 'static,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let serve = |stream, client, seat| {
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        async move {
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
            talk(stream, client, seat, handler).await
        }
    };
    accept(listener, connections, &handler.responder.stats, serve).await;
}

/// Hands hickory-server the responses of the responder.
#[derive(Clone)]
pub(super) struct Handler {
    responder: Arc<Responder>,
    shard: Arc<Shard>,
    transport: Transport,
    /// Something is missing of what was sent, so nothing more can be sent.
    cut_off: Arc<AtomicBool>,
}

impl Handler {
    pub(super) fn new(responder: Arc<Responder>, shard: Arc<Shard>, transport: Transport) -> Self {
        Self { responder, shard, transport, cut_off: Arc::default() }
    }

    /// Answers what came, and what hickory-server can't decode as the other transports do. `false`: what was sent is not
    /// whole, so the connection is to end.
    pub(super) async fn answer(&self, came: Came, client: SocketAddr, mut replies: Replies) -> bool {
        let protocol = if self.transport == Transport::Https { Protocol::Https } else { Protocol::Tls };
        let cut_off = Arc::clone(&replies.cut_off);
        let (request, message) = match came {
            Came::Message(message) => (Request::from_bytes(message.clone(), client, protocol).ok(), message),
            Came::Broken(bytes) => (None, bytes),
        };
        if let Some(request) = request {
            let own = Self { cut_off: Arc::clone(&cut_off), ..self.clone() };
            own.handle_request::<_, TokioTime>(&request, replies).await;
        } else {
            self.responder.stats.malformed.increment();
            if let Some(header) = Header::read(&message)
                && let Err(error) = send(&Response::malformed(&header).encode(), &mut replies).await
            {
                self.unsent(client, &error);
            }
        }
        !cut_off.load(Ordering::Relaxed)
    }

    /// What the other transports say, as bytes, and what follows of a zone.
    async fn respond(&self, message: &[u8], client: IpAddr) -> Option<(Vec<u8>, Answered, Option<Transfer>)> {
        let responder = &self.responder;
        let mut bytes = Vec::new();
        let short = match shortly(responder, message, client, &mut bytes) {
            Shortly::Written(maker) => Some(Answered::plainly(&bytes, maker)),
            Shortly::Ask(asking) => {
                let (response, maker) = responder.finish_shortly(*asking).await;
                let answered = response.summary(maker);
                bytes = response.encode();
                Some(answered)
            }
            Shortly::Nothing => None,
        };
        if let Some(answered) = short {
            return Some((bytes, answered, None));
        }
        let mut more = None;
        let (response, maker) = match responder.respond_to(message, self.transport, client) {
            Outcome::Reply(response) => (response, Maker::Kubernetes),
            Outcome::Pending(pending) => responder.finish(*pending).await,
            Outcome::Transfer(mut messages) => {
                let first = messages.next()?.ok()?;
                more = Some(*messages);
                (first, Maker::Kubernetes)
            }
            Outcome::Silence => return None,
        };
        let answered = response.summary(maker);
        let bytes = response.encode();
        let size = bytes.len();
        Some((bytes, Answered { size, ..answered }, more))
    }

    /// Counts a response that could not be sent.
    pub(super) fn unsent(&self, client: SocketAddr, error: &dyn std::fmt::Display) {
        tracing::debug!(%client, %error, "can't send a response");
        self.responder.stats.unsent.increment();
    }
}

/// What a client has sent.
pub(super) enum Came {
    /// A message.
    Message(Vec<u8>),
    /// The beginning of what is none.
    Broken(Vec<u8>),
}

/// A response for a client, and its share of what all clients may leave unread.
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    _share: Share,
}

/// Where responses go, encoded as they are over the other transports: hickory-server's own handle never points to a name in
/// the question, so its bytes would be others.
#[derive(Clone)]
pub(super) struct Replies {
    to: mpsc::Sender<Reply>,
    seat: Arc<Seat>,
    /// Something is missing, so nothing more can be sent.
    cut_off: Arc<AtomicBool>,
}

impl Replies {
    /// Room for one response that is to be written; whoever has the next waits.
    pub(super) fn new(seat: &Arc<Seat>) -> (Self, mpsc::Receiver<Reply>) {
        let (to, ready) = mpsc::channel(1);
        (Self { to, seat: Arc::clone(seat), cut_off: Arc::default() }, ready)
    }

    async fn give(&self, bytes: Vec<u8>) -> Result<(), NetError> {
        let cut_off = |error: String| {
            self.cut_off.store(true, Ordering::Relaxed);
            NetError::from(error)
        };
        let share = Share::take(&self.seat, bytes.len()).map_err(|error| cut_off(error.to_string()))?;
        self.to.send(Reply { bytes, _share: share }).await.map_err(|_| cut_off("the connection has ended".to_owned()))
    }
}

#[async_trait]
impl ResponseHandler for Replies {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        let info = response.destructive_emit(&mut encoder)?;
        let message = Message::from_vec(&bytes).map_err(ProtoError::from)?;
        self.give(encode(&message, usize::from(u16::MAX))).await?;
        Ok(info)
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let begin = Instant::now();
        let (message, address) = (request.as_slice(), request.src().ip());
        let Some((mut bytes, mut answered, more)) = self.respond(message, address).await else {
            return nothing(request);
        };
        if let Some(failed) = self.responder.names.pass(address, &bytes).await {
            answered = Answered::plainly(&failed, answered.maker);
            bytes = failed;
        }
        self.shard.report(Asked::new(message, address.is_ipv6()), answered);
        let (transport, took) = (self.transport, begin.elapsed());
        let exchange = Exchange { client: request.src(), transport, query: message, response: &bytes, took };
        self.responder.log(&self.responder.site(), &exchange);
        let mut sent = send(&bytes, &mut client).await;
        for message in more.into_iter().flatten() {
            sent = match (sent, message) {
                (Ok(_), Ok(message)) => send(&message.encode(), &mut client).await,
                (Ok(_), Err(error)) => {
                    tracing::info!(client = %request.src(), %error, "zone transfer ended before its end");
                    self.cut_off.store(true, Ordering::Relaxed);
                    Err(NetError::from(error.to_string()))
                }
                (Err(error), _) => Err(error),
            };
            if sent.is_err() {
                break;
            }
        }
        self.shard.took(begin.elapsed(), 1);
        sent.unwrap_or_else(|error| {
            self.unsent(request.src(), &error);
            nothing(request)
        })
    }
}

/// Sends a response that is known as bytes.
async fn send(bytes: &[u8], client: &mut impl ResponseHandler) -> Result<ResponseInfo, NetError> {
    let message = Message::from_vec(bytes).map_err(ProtoError::from)?;
    let queries = questions(&message)?;
    let Message { metadata, answers, authorities, additionals, edns, .. } = &message;
    let response = MessageResponseBuilder::new(&queries, edns.as_ref());
    client.send_response(response.build(*metadata, answers, authorities, [], additionals)).await
}

/// The message's question as hickory-server repeats it: from bytes.
fn questions(message: &Message) -> Result<Queries, ProtoError> {
    let mut bytes = Vec::new();
    for query in &message.queries {
        bytes.extend(query.to_bytes()?);
    }
    Ok(Queries::read(&mut BinDecoder::new(&bytes), message.queries.len())?)
}

/// What there is to say about a response that wasn't sent.
fn nothing(request: &Request) -> ResponseInfo {
    let metadata = Metadata::response_from_request(&request.metadata);
    op::Header { metadata, counts: HeaderCounts::default() }.into()
}
