//! DNS over TLS for clients (RFC 7858), by hickory-server: it reads, decodes and writes messages, and asks a
//! [`RequestHandler`], which says what the other transports say.
//!
//! Connections are accepted here, since hickory-server bounds neither how many there are nor how many of them one client
//! has. The queries of a connection are answered one after the other.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
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
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::accept::{Connections, Seat, accept};
use super::certificate::Certificate;
use super::tcp::{IDLE, shortly};
use crate::full::{Outcome, Responder, Response, Transport, encode};
use crate::meter::{Answered, Asked, Maker, Shard};
use crate::site::log::Exchange;
use crate::wire::Header;

/// How long a client may take until TLS is set up.
const HANDSHAKE: Duration = Duration::from_secs(5);
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
        connection(stream, client, seat, acceptor.clone(), Handler(Arc::clone(&responder), Arc::clone(&shard)))
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
    while let Some(message) = messages.next().await {
        let (message, _) = message?.into_parts();
        seat.busy();
        handler.message(message, client, sender.clone()).await;
        seat.idle();
    }
    Ok(())
}

/// Hands hickory-server the responses of the responder.
struct Handler(Arc<Responder>, Arc<Shard>);

impl Handler {
    /// Answers a message, and what hickory-server can't decode as the other transports do.
    async fn message(&self, message: Vec<u8>, client: SocketAddr, sender: BufDnsStreamHandle) {
        let mut response = Compact { client, sender };
        match Request::from_bytes(message.clone(), client, Protocol::Tls) {
            Ok(request) => {
                self.handle_request::<_, TokioTime>(&request, response).await;
            }
            Err(_) => {
                self.0.stats.malformed.increment();
                let Some(header) = Header::read(&message) else { return };
                let bytes = Response::malformed(&header).encode();
                if let Err(error) = send(&bytes, &mut response).await {
                    self.unsent(client, &error);
                }
            }
        }
    }

    /// What the other transports say, as bytes, and what follows of a zone.
    async fn answer(&self, message: &[u8], client: IpAddr) -> Option<(Vec<u8>, Answered, Vec<Response>)> {
        let Self(responder, _) = self;
        let mut bytes = Vec::new();
        if let Some(maker) = shortly(responder, message, client, &mut bytes) {
            let answered = Answered::plainly(&bytes, maker);
            return Some((bytes, answered, Vec::new()));
        }
        let mut more = Vec::new();
        let (response, maker) = match responder.respond_to(message, Transport::Tcp, client) {
            Outcome::Reply(response) => (response, Maker::Kubernetes),
            Outcome::Pending(pending) => responder.finish(*pending).await,
            Outcome::Transfer(mut messages) if !messages.is_empty() => {
                more = messages.split_off(1);
                (messages.pop()?, Maker::Kubernetes)
            }
            Outcome::Silence | Outcome::Transfer(_) => return None,
        };
        let answered = response.summary(maker);
        let bytes = response.encode();
        let size = bytes.len();
        Some((bytes, Answered { size, ..answered }, more))
    }

    fn unsent(&self, client: SocketAddr, error: &NetError) {
        tracing::debug!(%client, %error, "can't send a response");
        self.0.stats.unsent.increment();
    }
}

/// Encodes responses as they are over the other transports. hickory-server's own handle never points to a name in the
/// question, so its bytes would be others.
#[derive(Clone)]
struct Compact {
    client: SocketAddr,
    sender: BufDnsStreamHandle,
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
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        let info = response.destructive_emit(&mut encoder)?;
        let message = Message::from_vec(&bytes).map_err(ProtoError::from)?;
        let compact = encode(&message, usize::from(u16::MAX));
        self.sender.send(SerialMessage::new(compact, self.client))?;
        Ok(info)
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let begin = Instant::now();
        let (message, address) = (request.as_slice(), request.src().ip());
        let Some((bytes, answered, more)) = self.answer(message, address).await else { return nothing(request) };
        self.1.report(Asked::new(message, address.is_ipv6()), answered);
        let (transport, took) = (Transport::Tcp, begin.elapsed());
        let exchange = Exchange { client: request.src(), transport, query: message, response: &bytes, took };
        self.0.log(&self.0.site(), &exchange);
        let mut sent = send(&bytes, &mut client).await;
        for message in more {
            if sent.is_err() {
                break;
            }
            sent = send(&message.encode(), &mut client).await;
        }
        self.1.took(begin.elapsed(), 1);
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
