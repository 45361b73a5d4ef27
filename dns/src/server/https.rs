//! DNS over HTTPS for clients (RFC 8484), over HTTP/2.
//!
//! hickory-server decodes messages, asks the same [`RequestHandler`] as over TLS, and makes responses. Requests are judged
//! here, since hickory-server knows no GET, which a server has to, and refuses clients that accept anything; and connections
//! are accepted here, since it does not bound them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hickory_proto::rr::Record;
use hickory_server::net::NetError;
use hickory_server::net::http::{Version, fetch_body, response};
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, default_tls_server_config};
use hickory_server::zone_handler::MessageResponse;
use http::{Method, StatusCode, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::accept::{Connections, Seat, accept};
use super::certificate::Certificate;
use super::frames::LONGEST;
use super::tcp::{IDLE, Share};
use super::tls::{HANDSHAKE, Handler, compact};
use crate::full::{Responder, Response, Transport};
use crate::meter::Shard;
use crate::wire::Header;

/// Where queries go to.
const PATH: &str = "/dns-query";
/// What queries and responses are.
const MIME: &str = "application/dns-message";
/// How many requests of one connection may be under way.
const PIPELINE: u32 = 16;
/// How much of HTTP's headers is read.
const HEADERS: u32 = 8 << 10;
/// How long a request may take to come, and a response to leave.
const SLOW: Duration = Duration::from_secs(5);

/// How clients are answered over HTTPS.
///
/// # Errors
/// TLS can't be set up.
pub(super) fn acceptor(certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    Ok(TlsAcceptor::from(Arc::new(default_tls_server_config(b"h2", certificate)?)))
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
        let handler = Handler::new(Arc::clone(&responder), Arc::clone(&shard), Transport::Https);
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
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(PIPELINE).max_header_list_size(HEADERS).max_send_buffer_size(64 << 10);
    let mut requests = timeout(HANDSHAKE, builder.handshake::<_, Bytes>(stream)).await?.map_err(io::Error::other)?;
    let mut waiting = FuturesUnordered::new();
    let mut deadline = Instant::now() + IDLE;
    loop {
        tokio::select! {
            // This is what reads and writes for all requests.
            request = requests.accept() => {
                let Some(request) = request else { return Ok(()) };
                let (request, respond) = request.map_err(io::Error::other)?;
                if waiting.is_empty() {
                    seat.busy();
                }
                waiting.push(exchange(&handler, request, respond, client, &seat.all.unread));
            }
            Some(()) = waiting.next() => {
                deadline = Instant::now() + IDLE;
                if waiting.is_empty() {
                    seat.idle();
                }
            }
            () = sleep_until(deadline), if waiting.is_empty() => return Ok(()),
        }
    }
}

/// Answers a request.
async fn exchange(
    handler: &Handler,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    client: SocketAddr,
    unread: &AtomicUsize,
) {
    let message = match timeout(SLOW, message(request)).await {
        Ok(Ok(message)) => message,
        Ok(Err(status)) => return refuse(&mut respond, status),
        Err(_) => return refuse(&mut respond, StatusCode::REQUEST_TIMEOUT),
    };
    let said = Said::default();
    match Request::from_bytes(message.clone(), client, Protocol::Https) {
        Ok(request) => drop(handler.handle_request::<_, TokioTime>(&request, said.clone()).await),
        Err(_) => {
            handler.malformed();
            if let Some(header) = Header::read(&message) {
                said.set(Response::malformed(&header).encode());
            }
        }
    }
    // Whoever gets no answer over other transports gets none here.
    let Some(bytes) = said.take() else { return respond.send_reset(Reason::CANCEL) };
    let Ok(_share) = Share::take(unread, bytes.len()) else { return respond.send_reset(Reason::ENHANCE_YOUR_CALM) };
    if let Err(error) = send(&mut respond, bytes).await {
        handler.unsent(client, &error);
    }
}

/// The DNS message in a request.
async fn message(request: http::Request<RecvStream>) -> Result<Vec<u8>, StatusCode> {
    let (head, body) = request.into_parts();
    if head.uri.path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    let message = match head.method {
        Method::GET => of_query(head.uri.query().unwrap_or_default()).ok_or(StatusCode::BAD_REQUEST)?,
        Method::POST if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != MIME) => {
            return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        Method::POST => {
            // No more than that is read, whatever the client says.
            let body = fetch_body(body.map(|bytes| bytes.map_err(|error| NetError::from(error.to_string()))), None);
            body.await.map_err(|_| StatusCode::BAD_REQUEST)?.to_vec()
        }
        _ => return Err(StatusCode::METHOD_NOT_ALLOWED),
    };
    if message.len() > LONGEST { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(message) }
}

/// The message of `dns=BASE64URL` (RFC 8484 section 4.1).
fn of_query(query: &str) -> Option<Vec<u8>> {
    let text = query.split('&').find_map(|word| word.strip_prefix("dns="))?;
    if text.len() > LONGEST * 2 {
        return None;
    }
    // It has no padding, but some clients pad.
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

fn refuse(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut head = http::Response::new(());
    *head.status_mut() = status;
    // Who has gone does not need it.
    drop(respond.send_response(head, true));
}

/// Sends a response, which may be kept for as long as its records (RFC 8484 section 5.1).
async fn send(respond: &mut SendResponse<Bytes>, bytes: Vec<u8>) -> Result<(), NetError> {
    let failed = |error: h2::Error| NetError::from(error.to_string());
    let mut head = response(Version::Http2, bytes.len())?;
    if let Ok(age) = header::HeaderValue::try_from(format!("max-age={}", shortest_ttl(&bytes))) {
        head.headers_mut().insert(header::CACHE_CONTROL, age);
    }
    let mut stream = respond.send_response(head, false).map_err(failed)?;
    let mut left = Bytes::from(bytes);
    let deadline = Instant::now() + SLOW;
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        let room = timeout_at(deadline, std::future::poll_fn(|context| stream.poll_capacity(context)));
        let room = match room.await {
            Ok(Some(Ok(room))) => room,
            Ok(Some(Err(error))) => return Err(failed(error)),
            Ok(None) => return Err(NetError::from("the client has gone")),
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return Err(NetError::from("the client does not read"));
            }
        };
        let part = left.split_to(room.min(left.len()));
        stream.send_data(part, left.is_empty()).map_err(failed)?;
    }
    Ok(())
}

/// The shortest TTL of a response's answers, or of its authority where there is no answer.
fn shortest_ttl(bytes: &[u8]) -> u32 {
    let Ok(message) = hickory_proto::op::Message::from_vec(bytes) else { return 0 };
    let records = if message.answers.is_empty() { &message.authorities } else { &message.answers };
    records.iter().map(|record| record.ttl).min().unwrap_or(0)
}

/// What the handler says.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Option<Vec<u8>>>>);

impl Said {
    fn set(&self, bytes: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl ResponseHandler for Said {
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
        let (info, bytes) = compact(response)?;
        self.set(bytes);
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_get_are_read_and_nothing_else() {
        // The example of RFC 8484 section 4.1.1.
        let message = of_query("dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB").unwrap();
        assert_eq!(&message[..4], [0, 0, 1, 0]);
        assert!(message.ends_with(b"\x03www\x07example\x03com\x00\x00\x01\x00\x01"));
        assert_eq!(of_query("ct=1&dns=-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(of_query("dns=-_8="), Some(vec![0xfb, 0xff]), "padded");
        for wrong in ["", "dns", "dns=A", "dns=A+AA", "dns=-_9", "name=web", "dns=%41"] {
            assert_eq!(of_query(wrong), None, "{wrong}");
        }
        assert_eq!(of_query(&format!("dns={}", "A".repeat(LONGEST * 2 + 1))), None);
    }
}
