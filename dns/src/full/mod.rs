//! Every answer, made with a complete codec: what [`fast`](crate::fast) leaves alone, and what has to be asked
//! elsewhere. The bytes are the same over UDP and TCP, but for what does not fit into a datagram.

mod encode;
mod records;
mod response;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData};
use hickory_proto::serialize::binary::DecodeError;

use self::records::{Answers, Chain, Spelling};
use crate::fast::Manner;
use crate::forward::{ForwardError, Forwarder, Request};
use crate::name::labels;
use crate::stats::Stats;
use crate::wire::{Header, RecordType, flags};
use crate::zone::{Answer, Zone};

pub use self::response::Response;

/// What a message came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A stream, where a message may have 65535 bytes.
    Tcp,
}

/// Answers any message.
pub struct Responder {
    /// The zone, shared with who changes it.
    pub zone: Arc<RwLock<Zone>>,
    /// Where other zones are asked for; without it they are refused.
    pub forwarder: Option<Forwarder>,
    /// Sizes and flags that every tier shares.
    pub manner: Manner,
    /// What has happened.
    pub stats: Stats,
}

/// What becomes of a message.
pub enum Outcome {
    /// This goes back.
    Reply(Response),
    /// Nothing goes back.
    Silence,
    /// An upstream server has to be asked: [`Responder::finish`] does it.
    Pending(Box<Pending>),
}

/// A response that waits for an upstream server.
pub struct Pending {
    response: Response,
    request: Request,
    client: IpAddr,
}

impl Responder {
    /// Answers a client that nobody knows: see [`Self::respond_to`].
    #[must_use]
    pub fn respond(&self, message: &[u8], transport: Transport) -> Outcome {
        self.respond_to(message, transport, IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Answers without waiting for anything. What has to be asked elsewhere is the client's to pay for.
    #[must_use]
    pub fn respond_to(&self, message: &[u8], transport: Transport, client: IpAddr) -> Outcome {
        let Some(header) = Header::read(message).filter(|header| header.flags & flags::RESPONSE == 0) else {
            self.stats.ignored.increment();
            return Outcome::Silence;
        };
        if header.flags & flags::OPCODE != 0 {
            self.stats.full.increment();
            return Outcome::Reply(Response::to_header(&header, ResponseCode::NotImp));
        }
        let decoded = if header.counts[0] == 1 { Message::from_vec(message).ok() } else { None };
        let Some(request) = decoded else {
            self.stats.malformed.increment();
            return Outcome::Reply(Response::malformed(&header));
        };
        let Some(query) = request.queries.first().cloned() else {
            return Outcome::Reply(Response::malformed(&header));
        };
        let response = Response::to(&request, query.clone(), transport, self.manner);
        self.decide(response, &request, &query, client)
            .unwrap_or_else(|_| Outcome::Reply(Response::to_header(&header, ResponseCode::ServFail)))
    }

    /// Asks elsewhere and answers with what comes back.
    pub async fn finish(&self, pending: Pending) -> Response {
        let Pending { mut response, request, client } = pending;
        let result = match &self.forwarder {
            Some(forwarder) => forwarder.ask(&request, client).await,
            None => Err(ForwardError::Busy),
        };
        match result {
            Ok(upstream) => response.take_from(upstream),
            Err(error) => {
                let busy = matches!(error, ForwardError::Busy);
                let counter = if busy { &self.stats.forward_refused } else { &self.stats.forward_failed };
                counter.increment();
                tracing::debug!(name = %request.name, %error, "no answer from upstream");
                response.message.answers.clear();
                response.message.metadata.authoritative = false;
                response.message.metadata.response_code =
                    if busy { ResponseCode::Refused } else { ResponseCode::ServFail };
            }
        }
        response
    }

    fn decide(
        &self,
        mut response: Response,
        request: &Message,
        query: &Query,
        client: IpAddr,
    ) -> Result<Outcome, DecodeError> {
        let record_type = RecordType(query.query_type.into());
        let transfer = matches!(record_type, RecordType::AXFR | RecordType::IXFR);
        if query.query_class != DNSClass::IN {
            return Ok(self.refuse(response, ResponseCode::Refused));
        }
        if request.version() > 0 {
            return Ok(self.refuse(response, ResponseCode::BADVERS));
        }
        if transfer {
            return Ok(self.refuse(response, ResponseCode::Refused));
        }
        let spelled = wire_of(&query.name);
        let name = spelled.to_ascii_lowercase();
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        let spelling = Spelling { zone: &zone, spelled: &spelled };
        let mut answers = Answers::default();
        let code = match zone.answer(&name, record_type) {
            Answer::Elsewhere if self.forwarder.is_some() => {
                let request = Request::of(request, query.name.clone(), query.query_type);
                self.stats.forwarded.increment();
                return Ok(Outcome::Pending(Box::new(Pending { response, request, client })));
            }
            Answer::Elsewhere => return Ok(self.refuse(response, ResponseCode::Refused)),
            Answer::NotReady => {
                self.stats.not_ready.increment();
                return Ok(self.refuse(response, ResponseCode::ServFail));
            }
            Answer::Alias(target) if record_type == RecordType::CNAME => {
                let data = RData::CNAME(CNAME(spelling.name(target)?));
                answers.push(&query.name, zone.ttl(), data);
                ResponseCode::NoError
            }
            Answer::Alias(target) => match spelling.follow(&query.name, target, record_type, &mut answers)? {
                Chain::Ends => ResponseCode::NoError,
                Chain::Leaves(name) if self.forwarder.is_some() => {
                    response.message.metadata.authoritative = true;
                    response.message.answers = answers.records;
                    let request = Request::of(request, name, query.query_type);
                    self.stats.forwarded.increment();
                    return Ok(Outcome::Pending(Box::new(Pending { response, request, client })));
                }
                Chain::Leaves(_) => ResponseCode::NoError,
            },
            answer => spelling.records(&query.name, request.metadata.id, answer, &mut answers)?,
        };
        response.message.metadata.authoritative = true;
        response.message.metadata.response_code = code;
        if answers.records.is_empty() {
            response.message.authorities = vec![spelling.soa()?];
        }
        response.message.answers = answers.records;
        response.message.additionals = answers.glue;
        self.stats.full.increment();
        Ok(Outcome::Reply(response))
    }

    fn refuse(&self, mut response: Response, code: ResponseCode) -> Outcome {
        self.stats.full.increment();
        response.message.metadata.response_code = code;
        Outcome::Reply(response)
    }
}

/// A name's bytes on the wire, in the client's spelling.
fn wire_of(name: &Name) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name {
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    debug_assert_eq!(labels(&wire).count(), name.iter().count(), "a decoded name is a name");
    wire
}
