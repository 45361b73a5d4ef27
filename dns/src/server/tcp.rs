//! TCP: hickory-server accepts, reads and writes, and asks [`full`](crate::full) what to say.
//!
//! It answers the queries of a connection one after the other; RFC 7766 section 7 recommends to answer each when it is
//! ready, but no client can count on that. A message that it can't decode it answers itself, with FORMERR, before
//! anything else is looked at: such messages are in its log (`hickory_server=info`), not in
//! [`Stats`](crate::stats::Stats). A length of 0 ends the connection. There are as many connections as the limit on open
//! files allows.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hickory_proto::ProtoError;
use hickory_proto::op::{self, HeaderCounts, Message, Metadata};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo, Server};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};

use crate::full::{Outcome, Responder, Transport};
use crate::meter::{Answered, Asked, Maker, Shard};

/// How long a connection may stay open after a query; within it the next one has to arrive whole.
const IDLE: Duration = Duration::from_secs(10);
/// Responses of a connection that wait to be written. The next query is read when they have been.
const QUEUE: usize = 4;
/// How long to wait before a listener that ended is started again.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the connections of a listener for ever.
pub(super) async fn serve(listener: TcpListener, responder: Arc<Responder>, shard: Arc<Shard>) {
    let mut server = Server::new(Handler(responder, shard));
    loop {
        // hickory-server gives a listener up when a connection ends before it is accepted (ECONNABORTED).
        match listener.try_clone().and_then(tokio::net::TcpListener::from_std) {
            Ok(listener) => {
                server.register_listener(listener, IDLE, QUEUE);
                if let Err(error) = server.block_until_done().await {
                    tracing::warn!(%error, "accepting TCP connections ended: it is started again");
                }
            }
            Err(error) => tracing::error!(%error, "TCP is not served: the socket can't be watched; it is tried again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Hands hickory-server the responses of the responder.
struct Handler(Arc<Responder>, Arc<Shard>);

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let Self(responder, shard) = self;
        let begin = Instant::now();
        let (response, maker) = match responder.respond(request.as_slice(), Transport::Tcp) {
            Outcome::Reply(response) => (response, Maker::Kubernetes),
            Outcome::Pending(pending) => (responder.finish(*pending).await, Maker::Forward),
            Outcome::Silence => return nothing(request),
        };
        let answered = response.summary(maker);
        let (message, size) = response.into_message();
        let asked = Asked::new(request.as_slice(), request.src().ip().to_canonical().is_ipv6());
        shard.report(asked, Answered { size, ..answered });
        let sent = match questions(&message) {
            Ok(queries) => {
                let builder = MessageResponseBuilder::new(&queries, message.edns.as_ref());
                let Message { metadata, answers, authorities, additionals, .. } = &message;
                client.send_response(builder.build(*metadata, answers, authorities, [], additionals)).await
            }
            Err(error) => Err(error.into()),
        };
        shard.took(begin.elapsed(), 1);
        sent.unwrap_or_else(|error| {
            tracing::debug!(client = %request.src(), %error, "a response can't be sent");
            responder.stats.unsent.increment();
            nothing(request)
        })
    }
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
