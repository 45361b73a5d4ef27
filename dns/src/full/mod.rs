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
use crate::fast::{Manner, Said, say};
use crate::forward::{Client, ForwardError, Forwarder, Given, Kept, Question, Wants};
use crate::hosts::Hosts;
use crate::meter::Maker;
use crate::name::labels;
use crate::stats::Stats;
use crate::wire::{Header, RecordType, flags};
use crate::zone::{Answer, Zone};

pub(crate) use self::encode::encode;
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
    pub forwarder: Option<Arc<Forwarder>>,
    /// Names with fixed addresses, which come before what is said elsewhere.
    pub hosts: RwLock<Arc<Hosts>>,
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
    question: Question,
    client: IpAddr,
}

/// What becomes of a message that may be answered on the short way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Short {
    /// The response is written; this made it.
    Written(Maker),
    /// The response is written, and this is to be asked anew: [`Responder::renew`].
    Renew(Question),
    /// It is for [`Responder::respond_to`].
    Nothing,
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

    /// Writes the response to a message if it is plain, from the zone or from what is kept of other zones.
    pub fn respond_shortly(&self, zone: &Zone, message: &[u8], transport: Transport, out: &mut Vec<u8>) -> Short {
        let query = match say(zone, self.manner, transport, message, out) {
            Said::Written => return Short::Written(Maker::Kubernetes),
            Said::Elsewhere(query) if query.record_type != RecordType::HINFO => query,
            _ => return Short::Nothing,
        };
        let Some(forwarder) = &self.forwarder else { return Short::Nothing };
        let hosts = self.hosts();
        if !hosts.is_empty() && hosts.knows(&query.name.to_ascii_lowercase(), query.record_type) {
            return Short::Nothing;
        }
        let limit = self.manner.limit(transport, query.edns.map(|edns| edns.size));
        match forwarder.respond(&query, limit, self.manner, out) {
            Kept::Written => Short::Written(Maker::Cache),
            Kept::Renew(question) => Short::Renew(question),
            Kept::Nothing => Short::Nothing,
        }
    }

    /// Asks anew for what is kept and will go soon.
    pub async fn renew(&self, question: Question, client: IpAddr) {
        if let Some(forwarder) = &self.forwarder {
            Arc::clone(forwarder).renew(question, client).await;
        }
    }

    /// Asks elsewhere and answers with what comes back, or what is kept of it.
    pub async fn finish(&self, pending: Pending) -> (Response, Maker) {
        let Pending { response, question, client } = pending;
        let result = match &self.forwarder {
            Some(forwarder) => forwarder.ask(&question, client).await,
            None => Err(ForwardError::Busy),
        };
        match result {
            Ok(given) => {
                let maker = if given.cached { Maker::Cache } else { Maker::Forward };
                (self.take(response, &question, &given), maker)
            }
            Err(ForwardError::Nobody) => (response.failed(ResponseCode::Refused), Maker::Nobody),
            Err(error) => {
                let busy = matches!(error, ForwardError::Busy);
                let counter = if busy { &self.stats.forward_refused } else { &self.stats.forward_failed };
                counter.increment();
                let code = if busy { ResponseCode::Refused } else { ResponseCode::ServFail };
                (response.failed(code), Maker::Forward)
            }
        }
    }

    /// What was said elsewhere, as a response.
    fn take(&self, response: Response, question: &Question, given: &Given) -> Response {
        let Given { reply, age, most, .. } = given;
        let Some(asked) = response.plain_question() else {
            return match reply.message(question, *age, *most) {
                Some(message) => response.take_from(message),
                None => response.failed(ResponseCode::ServFail),
            };
        };
        let client = Client { question: &asked.question, ..asked.client };
        let mut bytes = Vec::new();
        reply.write(&client, *age, *most, self.manner, &mut bytes);
        Response::of_bytes(bytes)
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
            Answer::Elsewhere if self.hosts().knows(&name, record_type) => {
                answers.records = self.hosts().records(&name, record_type, &query.name).unwrap_or_default();
                response.fill(ResponseCode::NoError, answers.records, None, Vec::new());
                self.stats.full.increment();
                return Ok(Outcome::Reply(response));
            }
            Answer::Elsewhere if self.is_own_probe(&name, record_type) => {
                return Ok(self.refuse(response, ResponseCode::NXDomain));
            }
            Answer::Elsewhere if self.forwarder.is_some() => {
                self.stats.forwarded.increment();
                let question = Question::new(&name, record_type, wants(request));
                return Ok(Outcome::Pending(Box::new(Pending { response, question, client })));
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
                    response.alias(answers.records);
                    self.stats.forwarded.increment();
                    let question = Question::new(&wire_of(&name), record_type, wants(request));
                    return Ok(Outcome::Pending(Box::new(Pending { response, question, client })));
                }
                Chain::Leaves(_) => ResponseCode::NoError,
            },
            answer => spelling.records(&query.name, request.metadata.id, answer, &mut answers)?,
        };
        let soa = if answers.records.is_empty() { Some(spelling.soa()?) } else { None };
        response.fill(code, answers.records, soa, answers.glue);
        self.stats.full.increment();
        Ok(Outcome::Reply(response))
    }

    fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.hosts.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_own_probe(&self, name: &[u8], record_type: RecordType) -> bool {
        self.forwarder.as_ref().is_some_and(|forwarder| forwarder.is_own_probe(name, record_type))
    }

    fn refuse(&self, mut response: Response, code: ResponseCode) -> Outcome {
        self.stats.full.increment();
        response.set_code(code);
        Outcome::Reply(response)
    }
}

/// What a client wants besides the records.
fn wants(request: &Message) -> Wants {
    Wants {
        recursion: request.metadata.recursion_desired,
        unchecked: request.metadata.checking_disabled,
        signatures: request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
    }
}

/// A name's bytes on the wire, in the client's spelling.
pub(crate) fn wire_of(name: &Name) -> Vec<u8> {
    let mut wire = Vec::with_capacity(name.len() + 1);
    for label in name {
        wire.push(u8::try_from(label.len()).unwrap_or(0));
        wire.extend_from_slice(label);
    }
    wire.push(0);
    debug_assert_eq!(labels(&wire).count(), name.iter().count(), "a decoded name is a name");
    wire
}
