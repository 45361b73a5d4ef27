//! DNS over TLS for clients (RFC 7858), by hickory-server: it reads, decodes and writes messages, and asks a
//! [`RequestHandler`], which says what the other transports say.
//!
//! Connections are accepted here, since hickory-server bounds neither how many there are nor how many of them one client
//! has. The queries of a connection are answered as they get ready (RFC 7766 section 7).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::ProtoError;
use hickory_proto::op::{self, HeaderCounts, Message, Metadata, SerialMessage};
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, BinEncoder};

use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::runtime::{Time, TokioTime};
use hickory_server::net::tls::tls_from_stream;
use hickory_server::net::xfer::Protocol;
use hickory_server::net::{BufDnsStreamHandle, DnsStreamHandle, NetError};
use hickory_server::server::{
    Request, RequestHandler, ResponseHandler, ResponseInfo, TimeoutStream, default_tls_server_config,
};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder, Queries};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::accept::{Connections, Seat, accept};
use super::certificate::Certificate;
use super::tcp::{IDLE, shortly};
use crate::full::{Outcome, Responder, Response, Transfer, Transport, encode};
use crate::meter::{Answered, Asked, Maker, Shard};
use crate::site::log::Exchange;
use crate::wire::Header;

/// How long a client may take until TLS is set up.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many queries of one connection may be under way; the next is read when one is answered. Each may have a response
/// that its client does not read.
const PIPELINE: usize = 8;
/// How long a client may take until there is room for one more message of a zone.
const SLOW: Duration = Duration::from_secs(5);
/// How often it is looked whether there is: hickory-server does not tell.
const LOOK: Duration = Duration::from_millis(2);
/// The protocol's name in ALPN.
const ALPN: &[u8] = b"dot";

/// How clients are answered over TLS.
///
/// # Errors
/// TLS can't be set up.
pub(super) fn acceptor(certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    Ok(TlsAcceptor::from(Arc::new(default_tls_server_config(ALPN, certificate)?)))
}

/// Serves the connections of a listener for ever.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    responder: Arc<Responder>,
    shard: Arc<Shard>,
    connections: Arc<Connections>,
) {
    let serve = |stream, client, seat| {
        let handler = Handler::new(Arc::clone(&responder), Arc::clone(&shard), Transport::Tcp);
        connection(stream, client, seat, acceptor.clone(), handler)
    };
    accept(listener, connections, &responder.stats, serve).await;
}

/// Serves a connection to its end.
async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    seat: Seat,
    acceptor: TlsAcceptor,
    handler: Handler,
) -> io::Result<()> {
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let (stream, sender) = tls_from_stream(AsyncIoTokioAsStd(stream), client);
    let mut messages = TimeoutStream::new(stream, IDLE);
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            // What is written goes out while this is looked at, so it is looked at as long as there is room.
            message = messages.next(), if waiting.len() < PIPELINE => {
                let Some(message) = message else { break };
                let (message, _) = message?.into_parts();
                if waiting.is_empty() {
                    seat.busy();
                }
                waiting.push(handler.message(message, client, sender.clone()));
            }
            Some(whole) = waiting.next() => {
                if !whole {
                    return Ok(());
                }
                if waiting.is_empty() {
                    seat.idle();
                }
            }
        }
    }
    // What is waited for is still answered: a client may close its side after its last query.
    while !waiting.is_empty() {
        tokio::select! {
            Some(whole) = waiting.next() => if !whole {
                break;
            },
            () = sleep(LOOK) => {}
        }
        // There is nothing to read any more, but what is to be written is.
        drop(timeout(SLOW, messages.next()).await);
    }
    Ok(())
}

/// Hands hickory-server the responses of the responder.
pub(super) struct Handler {
    responder: Arc<Responder>,
    shard: Arc<Shard>,
    transport: Transport,
}

impl Handler {
    pub(super) fn new(responder: Arc<Responder>, shard: Arc<Shard>, transport: Transport) -> Self {
        Self { responder, shard, transport }
    }

    /// Counts a message that can't be read.
    pub(super) fn malformed(&self) {
        self.responder.stats.malformed.increment();
    }

    /// Answers a message, and what hickory-server can't decode as the other transports do. `false`: what was sent is not
    /// whole, so the connection is to end.
    async fn message(&self, message: Vec<u8>, client: SocketAddr, sender: BufDnsStreamHandle) -> bool {
        let cut_off = Arc::new(AtomicBool::new(false));
        let mut response = Compact { client, sender, cut_off: Arc::clone(&cut_off) };
        match Request::from_bytes(message.clone(), client, Protocol::Tls) {
            Ok(request) => {
                self.handle_request::<_, TokioTime>(&request, response).await;
            }
            Err(_) => {
                self.malformed();
                let Some(header) = Header::read(&message) else { return true };
                let bytes = Response::malformed(&header).encode();
                if let Err(error) = send(&bytes, &mut response).await {
                    self.unsent(client, &error);
                }
            }
        }
        !cut_off.load(Ordering::Relaxed)
    }

    /// What the other transports say, as bytes, and what follows of a zone.
    async fn answer(&self, message: &[u8], client: IpAddr) -> Option<(Vec<u8>, Answered, Option<Transfer>)> {
        let responder = &self.responder;
        let mut bytes = Vec::new();
        if let Some(maker) = shortly(responder, message, client, &mut bytes) {
            let answered = Answered::plainly(&bytes, maker);
            return Some((bytes, answered, None));
        }
        let mut more = None;
        let (response, maker) = match responder.respond_to(message, self.transport, client) {
            Outcome::Reply(response) => (response, Maker::Kubernetes),
            Outcome::Pending(pending) => responder.finish(*pending).await,
            Outcome::Transfer(mut messages) => {
                let first = messages.next()?;
                more = Some(messages);
                (first, Maker::Kubernetes)
            }
            Outcome::Silence => return None,
        };
        let answered = response.summary(maker);
        let bytes = response.encode();
        let size = bytes.len();
        Some((bytes, Answered { size, ..answered }, more))
    }

    pub(super) fn unsent(&self, client: SocketAddr, error: &NetError) {
        tracing::debug!(%client, %error, "can't send a response");
        self.responder.stats.unsent.increment();
    }
}

/// Encodes responses as they are over the other transports. hickory-server's own handle never points to a name in the
/// question, so its bytes would be others.
#[derive(Clone)]
struct Compact {
    client: SocketAddr,
    sender: BufDnsStreamHandle,
    /// A message could not be sent.
    cut_off: Arc<AtomicBool>,
}

#[async_trait]
impl ResponseHandler for Compact {
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
        let (info, compact) = compact(response)?;
        let begin = Instant::now();
        // There is room for a few messages, and no way to wait for more but to try.
        while let Err(error) = self.sender.send(SerialMessage::new(compact.clone(), self.client)) {
            if begin.elapsed() >= SLOW {
                self.cut_off.store(true, Ordering::Relaxed);
                return Err(error);
            }
            sleep(LOOK).await;
        }
        Ok(info)
    }
}

/// A response as the other transports write it.
pub(super) fn compact<'a>(
    response: MessageResponse<
        '_,
        'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
        impl Iterator<Item = &'a Record> + Send + 'a,
    >,
) -> Result<(ResponseInfo, Vec<u8>), NetError> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(u16::MAX);
    let info = response.destructive_emit(&mut encoder)?;
    let message = Message::from_vec(&bytes).map_err(ProtoError::from)?;
    Ok((info, encode(&message, usize::from(u16::MAX))))
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let begin = Instant::now();
        let (message, address) = (request.as_slice(), request.src().ip());
        let Some((bytes, answered, more)) = self.answer(message, address).await else { return nothing(request) };
        self.shard.report(Asked::new(message, address.is_ipv6()), answered);
        let (transport, took) = (self.transport, begin.elapsed());
        let exchange = Exchange { client: request.src(), transport, query: message, response: &bytes, took };
        self.responder.log(&self.responder.site(), &exchange);
        let mut sent = send(&bytes, &mut client).await;
        for message in more.into_iter().flatten() {
            if sent.is_err() {
                break;
            }
            sent = send(&message.encode(), &mut client).await;
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
