//! Every answer, made with a complete codec: what [`fast`](crate::fast) leaves alone, everything over TCP, and what
//! has to be asked elsewhere.
//!
//! This is hickory's codec with a server of our own around it. hickory's server never compresses a name against the
//! question, so its bytes could not be those of the other tiers; it serves one query at a time on a TCP connection,
//! and it can't choose the source address of a UDP response.

use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, DecodeError};

use crate::WireName;
use crate::fast::{Manner, SOA_TIMES, rotated};
use crate::forward::{ForwardError, Forwarder, Request};
use crate::name::{labels, strip_suffix};
use crate::stats::Stats;
use crate::wire::{Header, RecordType, flags, rcode};
use crate::zone::{Answer, Srv, Zone};

/// How many names a chain of aliases in the zone may have.
const CHAIN: usize = 10;

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
    Reply(Vec<u8>),
    /// Nothing goes back.
    Silence,
    /// An upstream server has to be asked: [`Responder::finish`] does it.
    Pending(Box<Pending>),
}

/// A response that waits for an upstream server.
pub struct Pending {
    response: Response,
    request: Request,
}

struct Response {
    message: Message,
    limit: usize,
}

impl Responder {
    /// Answers from the zone, without waiting for anything.
    #[must_use]
    pub fn respond(&self, message: &[u8], transport: Transport) -> Outcome {
        let Some(header) = Header::read(message).filter(|header| header.flags & flags::RESPONSE == 0) else {
            self.stats.ignored.increment();
            return Outcome::Silence;
        };
        if header.flags & flags::OPCODE != 0 {
            self.stats.full.increment();
            return Outcome::Reply(header.refuse(rcode::NOT_IMPLEMENTED));
        }
        if header.counts[0] == 0 {
            self.stats.malformed.increment();
            return Outcome::Reply(header.refuse(rcode::SERVER_FAILURE));
        }
        let decoded = if header.counts[0] == 1 { Message::from_vec(message).ok() } else { None };
        let Some(request) = decoded else {
            self.stats.malformed.increment();
            return Outcome::Reply(header.refuse(rcode::FORMAT));
        };
        let Some(query) = request.queries.first().cloned() else {
            return Outcome::Reply(header.refuse(rcode::FORMAT));
        };
        let response = self.start(&request, query.clone(), transport);
        self.decide(response, &request, &query).unwrap_or_else(|_| Outcome::Reply(header.refuse(rcode::SERVER_FAILURE)))
    }

    /// Asks elsewhere and answers with what comes back.
    pub async fn finish(&self, pending: Pending) -> Vec<u8> {
        let Pending { mut response, request } = pending;
        let result = match &self.forwarder {
            Some(forwarder) => forwarder.ask(&request).await,
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
        response.encode()
    }

    fn start(&self, request: &Message, query: Query, transport: Transport) -> Response {
        let mut message = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.recursion_available = self.manner.recursion;
        message.add_query(query);
        message.edns = request.edns.as_ref().map(echo);
        let limit = match transport {
            Transport::Udp => self.manner.udp_limit(request.edns.as_ref().map(Edns::max_payload)),
            Transport::Tcp => usize::from(u16::MAX),
        };
        Response { message, limit }
    }

    fn decide(&self, mut response: Response, request: &Message, query: &Query) -> Result<Outcome, DecodeError> {
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
                return Ok(Outcome::Pending(Box::new(Pending { response, request })));
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
                    return Ok(Outcome::Pending(Box::new(Pending { response, request })));
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
        Ok(Outcome::Reply(response.encode()))
    }

    fn refuse(&self, mut response: Response, code: ResponseCode) -> Outcome {
        self.stats.full.increment();
        response.message.metadata.response_code = code;
        Outcome::Reply(response.encode())
    }
}

impl Response {
    /// Adds what an upstream server said to what is there already.
    fn take_from(&mut self, upstream: Message) {
        let Message { metadata, answers, authorities, additionals, .. } = upstream;
        let own = &mut self.message.metadata;
        let aliased = !self.message.answers.is_empty();
        own.authoritative = aliased;
        own.authentic_data = metadata.authentic_data && !aliased;
        own.truncation = metadata.truncation;
        // Codes beyond 15 speak about the upstream server's OPT record, which is not the client's matter.
        own.response_code =
            if metadata.response_code.high() == 0 { metadata.response_code } else { ResponseCode::ServFail };
        self.message.answers.extend(answers);
        self.message.authorities = authorities;
        self.message.additionals = additionals;
    }

    /// The message in as many bytes as the client takes: what is too much is left out from the end and TC says so.
    fn encode(mut self) -> Vec<u8> {
        let Some(bytes) = self.sized() else { return self.failure() };
        if bytes.len() <= self.limit {
            return bytes;
        }
        self.message.metadata.truncation = true;
        self.message.additionals.clear();
        let answers = std::mem::take(&mut self.message.answers);
        let mut bounds = 0..answers.len();
        let mut best = None;
        while !bounds.is_empty() {
            let middle = bounds.start + (bounds.end - bounds.start).div_ceil(2);
            self.message.answers = answers.iter().take(middle).cloned().collect();
            match self.sized().filter(|bytes| bytes.len() <= self.limit) {
                Some(bytes) => (best, bounds.start) = (Some(bytes), middle),
                None => bounds.end = middle - 1,
            }
        }
        best.unwrap_or_else(|| {
            self.message.answers.clear();
            self.message.authorities.clear();
            self.message.edns = self.message.edns.take().map(|edns| plain(&edns));
            self.sized().unwrap_or_else(|| self.failure())
        })
    }

    fn sized(&self) -> Option<Vec<u8>> {
        self.message.to_vec().inspect_err(|error| tracing::warn!(%error, "a response can't be written")).ok()
    }

    fn failure(&self) -> Vec<u8> {
        Header { id: self.message.metadata.id, flags: 0, counts: [0; 4] }.refuse(rcode::SERVER_FAILURE)
    }
}

/// Records for the client while they are collected.
#[derive(Default)]
struct Answers {
    records: Vec<Record>,
    glue: Vec<Record>,
}

impl Answers {
    fn push(&mut self, owner: &Name, ttl: u32, data: RData) {
        self.records.push(Record::from_rdata(owner.clone(), ttl, data));
    }
}

/// Where a chain of aliases leads.
enum Chain {
    /// To records of this zone, or to none.
    Ends,
    /// To another zone.
    Leaves(Name),
}

/// Writes names of the zone with the client's spelling of the zone's own name.
struct Spelling<'z> {
    zone: &'z Zone,
    spelled: &'z [u8],
}

impl Spelling<'_> {
    fn name(&self, name: &WireName) -> Result<Name, DecodeError> {
        let origin = self.zone.origin().as_wire();
        let front = strip_suffix(name.as_wire(), origin);
        let queried = self.spelled.len().checked_sub(origin.len()).and_then(|start| self.spelled.get(start..));
        match (front, queried.filter(|spelled| spelled.eq_ignore_ascii_case(origin))) {
            (Some(front), Some(spelled)) => Name::from_bytes(&[front, spelled].concat()),
            _ => Name::from_bytes(name.as_wire()),
        }
    }

    fn below(&self, label: &str) -> Result<Name, DecodeError> {
        self.zone.origin().below(&[label]).map_or(Ok(Name::root()), |name| self.name(&name))
    }

    fn soa(&self) -> Result<Record, DecodeError> {
        let zone = self.zone;
        let mname = zone.origin().below(&["ns", "dns"]).map_or(Ok(Name::root()), |name| self.name(&name))?;
        let rname = self.below("hostmaster")?;
        let [refresh, retry, expire] = SOA_TIMES.map(u32::cast_signed);
        let data = SOA::new(mname, rname, zone.serial(), refresh, retry, expire, zone.ttl());
        Ok(Record::from_rdata(self.name(zone.origin())?, zone.soa_ttl(), RData::SOA(data)))
    }

    /// The records of an answer of the zone, apart from aliases.
    fn records(
        &self,
        owner: &Name,
        id: u16,
        answer: Answer<'_>,
        answers: &mut Answers,
    ) -> Result<ResponseCode, DecodeError> {
        let ttl = self.zone.ttl();
        match answer {
            Answer::NoName => return Ok(ResponseCode::NXDomain),
            Answer::V4(addresses) => {
                rotated(&addresses, id).for_each(|address| answers.push(owner, ttl, RData::A(A(*address))));
            }
            Answer::V6(addresses) => {
                rotated(&addresses, id).for_each(|address| answers.push(owner, ttl, RData::AAAA(AAAA(*address))));
            }
            Answer::Srv(records) => self.srv(owner, records, answers)?,
            Answer::Pointers(names) => {
                for name in names {
                    answers.push(owner, ttl, RData::PTR(PTR(self.name(name)?)));
                }
            }
            Answer::Soa => answers.records.push(self.soa()?),
            Answer::NameServer(name) => {
                answers.push(owner, ttl, RData::NS(NS(self.name(name)?)));
                self.glue(name, answers)?;
            }
            Answer::Version => {
                answers.push(owner, Zone::SCHEMA_TTL, RData::TXT(TXT::new(vec![Zone::SCHEMA.to_owned()])));
            }
            Answer::NoData | Answer::Alias(_) | Answer::Elsewhere | Answer::NotReady => {}
        }
        Ok(ResponseCode::NoError)
    }

    fn srv(&self, owner: &Name, records: &[Srv], answers: &mut Answers) -> Result<(), DecodeError> {
        let mut last = None;
        for Srv { target, port, weight } in records {
            answers.push(owner, self.zone.ttl(), RData::SRV(SRV::new(0, *weight, *port, self.name(target)?)));
            // They are sorted by target.
            if last.replace(target) != Some(target) {
                self.glue(target, answers)?;
            }
        }
        Ok(())
    }

    fn glue(&self, target: &WireName, answers: &mut Answers) -> Result<(), DecodeError> {
        let Some(facts) = self.zone.facts(target.as_wire()) else { return Ok(()) };
        let name = self.name(target)?;
        let v4 = facts.v4.iter().map(|address| RData::A(A(*address)));
        let v6 = facts.v6.iter().map(|address| RData::AAAA(AAAA(*address)));
        answers.glue.extend(v4.chain(v6).map(|data| Record::from_rdata(name.clone(), self.zone.ttl(), data)));
        Ok(())
    }

    /// Follows an alias through the zone. One that leads nowhere gives no records at all.
    fn follow(
        &self,
        owner: &Name,
        target: &WireName,
        record_type: RecordType,
        answers: &mut Answers,
    ) -> Result<Chain, DecodeError> {
        let mut owner = owner.clone();
        let mut target = target;
        for _ in 0..CHAIN {
            let name = self.name(target)?;
            answers.push(&owner, self.zone.ttl(), RData::CNAME(CNAME(name.clone())));
            match self.zone.answer(target.as_wire(), record_type) {
                Answer::Elsewhere => return Ok(Chain::Leaves(name)),
                Answer::Alias(next) => (owner, target) = (name, next),
                answer @ (Answer::V4(_) | Answer::V6(_)) => {
                    self.records(&name, 0, answer, answers)?;
                    return Ok(Chain::Ends);
                }
                _ => break,
            }
        }
        answers.records.clear();
        Ok(Chain::Ends)
    }
}

/// The response's OPT record: the client's size and DO flag, and those of its options that CoreDNS hands back.
fn echo(client: &Edns) -> Edns {
    let mut edns = plain(client);
    let kept = |code: EdnsCode| {
        matches!(code, EdnsCode::NSID | EdnsCode::Cookie | EdnsCode::Keepalive | EdnsCode::Padding | EdnsCode::Expire)
    };
    edns.options_mut().options = client.options().options.iter().filter(|(code, _)| kept(*code)).cloned().collect();
    edns
}

fn plain(client: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(client.max_payload()).set_dnssec_ok(client.flags().dnssec_ok);
    edns
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
