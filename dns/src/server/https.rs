//! DNS over HTTPS for clients (RFC 8484), over HTTP/2.
//!
//! Requests are judged here, since hickory-server knows no GET, which a server has to, and refuses clients that accept
//! anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hickory_proto::rr::{RData, Record};
use hickory_server::net::NetError;
use hickory_server::net::http::{Version, fetch_body, response};
use http::{Method, StatusCode, header};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use super::accept::Seat;
use super::frames::LONGEST;
use super::secure::{Came, HANDSHAKE, Handler, Replies};
use super::stream::Stream;
use super::tcp::{IDLE, SLOW};

/// Where queries go to.
const PATH: &str = "/dns-query";
/// What queries and responses are.
const MIME: &str = "application/dns-message";
/// How many requests of one connection may be under way.
const PIPELINE: u32 = 16;
/// How much of HTTP's headers is read.
const HEADERS: u32 = 8 << 10;
/// How long a client is waited for that has learnt that the server stops.
const LAST: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub(super) async fn talk(
    stream: TlsStream<Stream>,
    client: SocketAddr,
    seat: Arc<Seat>,
    handler: Handler,
) -> io::Result<()> {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(PIPELINE).max_header_list_size(HEADERS).max_send_buffer_size(64 << 10);
    let mut requests = timeout(HANDSHAKE, builder.handshake::<_, Bytes>(stream)).await?.map_err(io::Error::other)?;
    let mut stop = seat.stop();
    // What has not come whole holds no place: a connection with half a request is idle.
    let mut coming = FuturesUnordered::new();
    let mut waiting = FuturesUnordered::new();
    let mut deadline = Instant::now() + IDLE;
    let mut stops = false;
    loop {
        tokio::select! {
            // This is what reads and writes for all requests.
            request = requests.accept() => {
                let Some(request) = request else { return Ok(()) };
                let (request, respond) = request.map_err(io::Error::other)?;
                coming.push(whole(request, respond));
            }
            Some(request) = coming.next() => if let Some((message, respond)) = request {
                if waiting.is_empty() {
                    seat.busy();
                }
                waiting.push(exchange(&handler, message, respond, client, &seat));
            },
            Some(()) = waiting.next() => {
                deadline = Instant::now() + if stops { LAST } else { IDLE };
                if waiting.is_empty() {
                    seat.idle();
                }
            }
            // Clients learn which requests are answered yet, and send others elsewhere (RFC 9113 section 6.8).
            () = stop.stops(), if !stops => {
                stops = true;
                requests.graceful_shutdown();
                deadline = Instant::now() + LAST;
            }
            () = sleep_until(deadline), if waiting.is_empty() => break,
        }
    }
    requests.abrupt_shutdown(Reason::NO_ERROR);
    timeout(LAST, std::future::poll_fn(|context| requests.poll_closed(context))).await?.map_err(io::Error::other)
}

/// Reads a request, and refuses what is none.
async fn whole(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<(Vec<u8>, SendResponse<Bytes>)> {
    let status = match timeout(SLOW, message(request)).await {
        Ok(Ok(message)) => return Some((message, respond)),
        Ok(Err(status)) => status,
        Err(_) => StatusCode::REQUEST_TIMEOUT,
    };
    refuse(&mut respond, status);
    None
}

/// Answers a request.
async fn exchange(
    handler: &Handler,
    message: Vec<u8>,
    mut respond: SendResponse<Bytes>,
    client: SocketAddr,
    seat: &Arc<Seat>,
) {
    let (replies, mut ready) = Replies::new(seat);
    // There is one response, and room for it.
    let is_whole = handler.answer(Came::Message(message), client, replies).await;
    match ready.try_recv() {
        Ok(reply) => {
            if let Err(error) = send(&mut respond, &reply.bytes).await {
                handler.unsent(client, &error);
            }
        }
        // Whoever gets no answer over other transports gets none here.
        Err(_) if is_whole => respond.send_reset(Reason::CANCEL),
        Err(_) => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
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
async fn send(respond: &mut SendResponse<Bytes>, bytes: &[u8]) -> Result<(), NetError> {
    let failed = |error: h2::Error| NetError::from(error.to_string());
    let mut head = response(Version::Http2, bytes.len())?;
    if let Ok(age) = header::HeaderValue::try_from(format!("max-age={}", shortest_ttl(bytes))) {
        head.headers_mut().insert(header::CACHE_CONTROL, age);
    }
    let mut stream = respond.send_response(head, false).map_err(failed)?;
    let mut left = Bytes::copy_from_slice(bytes);
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

/// The shortest TTL of a response's answers, or of its authority where there is no answer: of an SOA record that is no longer
/// than what it says of answers that are empty (RFC 2308 section 5).
fn shortest_ttl(bytes: &[u8]) -> u32 {
    let Ok(message) = hickory_proto::op::Message::from_vec(bytes) else { return 0 };
    let records = if message.answers.is_empty() { &message.authorities } else { &message.answers };
    let ttl = |record: &Record| match &record.data {
        RData::SOA(soa) if message.answers.is_empty() => record.ttl.min(soa.minimum),
        _ => record.ttl,
    };
    records.iter().map(ttl).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode};
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;

    #[test]
    fn what_is_empty_is_fresh_for_no_longer_than_its_zone_says() {
        let soa = |ttl, minimum| {
            Record::from_rdata(Name::root(), ttl, RData::SOA(SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, minimum)))
        };
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        let shortest = |message: &Message| shortest_ttl(&message.to_vec().unwrap());
        assert_eq!(shortest(&message), 0, "nobody says");
        for (ttl, minimum, shorter) in [(3600, 60, 60), (60, 3600, 60), (0, 60, 0)] {
            message.authorities = vec![soa(ttl, minimum)];
            assert_eq!(shortest(&message), shorter, "{ttl} {minimum}");
        }
        message.answers = vec![Record::from_rdata(Name::root(), 300, RData::A(A([192, 0, 2, 1].into())))];
        message.answers.push(soa(600, 60));
        assert_eq!(shortest(&message), 300, "what is not empty");
    }

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
