//! Who has the answer to a query: the rules of its block, in order.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData};
use hickory_proto::serialize::binary::{BinDecodable, DecodeError};

use super::external::{Place, Said};
use super::outcome::{Asker, Outcome, Pending, Restore};
use super::records::{Answers, Chain, Spelling};
use super::responder::Responder;
use super::response::Response;
use crate::forward::{Forwarder, Question, Wants};
use crate::manner::Transport;
use crate::meter::Maker;
use crate::name::wire_of;
use crate::site::acl::{self, Verdict};
use crate::site::rewrite::{self, Rewritten};
use crate::site::{Block, Fixed, Judged, template};
use crate::wire::RecordType;
use crate::zone::Answer;

impl Responder {
    /// Whether a query is answered at all, and as which question.
    pub(super) fn decide(
        &self,
        response: Response,
        request: &Message,
        query: &Query,
        asker: Asker,
    ) -> Result<Outcome, DecodeError> {
        let record_type = RecordType(query.query_type.into());
        if query.query_class != DNSClass::IN {
            return Ok(self.refuse(response, ResponseCode::Refused));
        }
        if request.version() > 0 {
            return Ok(self.refuse(response, ResponseCode::BADVERS));
        }
        let site = self.site();
        let name = wire_of(&query.name).to_ascii_lowercase();
        let Some(block) = site.block(&name) else {
            return Ok(self.refuse(response, ResponseCode::Refused));
        };
        match block.rules.dns64 {
            Some(rules) if rules.is_for(record_type, asker.client) => {
                self.translate(block, rules, response, request, query, asker)
            }
            _ => self.look_up(block, response, request, query, asker),
        }
    }

    /// What a block says to a question as its rules have it.
    pub(super) fn look_up(
        &self,
        block: &Block,
        response: Response,
        request: &Message,
        query: &Query,
        asker: Asker,
    ) -> Result<Outcome, DecodeError> {
        let record_type = RecordType(query.query_type.into());
        let name = wire_of(&query.name).to_ascii_lowercase();
        // A zone is one that is served here, by its own name: who may have it must be judged by that.
        let is_transfer = matches!(record_type, RecordType::AXFR | RecordType::IXFR);
        let rules = if is_transfer { &[][..] } else { &block.rules.rewrites[..] };
        let Ok(rewritten) = rewrite::rewrite(rules, &name, record_type) else {
            return Ok(self.refuse(response, ResponseCode::ServFail));
        };
        // Who may ask what is about what is looked up.
        let asked = rewritten.as_ref().map_or((&name[..], record_type), |new| (new.name.as_wire(), new.record_type));
        match acl::judge(&block.rules.acl, asked.0, asked.1, asker.client) {
            Verdict::Allow => {}
            Verdict::Block => return Ok(self.refuse(response, ResponseCode::Refused)),
            Verdict::Filter => return Ok(self.refuse(response, ResponseCode::NoError)),
            Verdict::Drop => return Ok(Outcome::Silence),
        }
        if is_transfer {
            return Ok(self.transfer(block, response, request, query, asker));
        }
        let Some(Rewritten { name, record_type, undo }) = rewritten else {
            return self.answer(block, response, request, query, asker.client);
        };
        let other = Query::query(Name::from_bytes(name.as_wire())?, record_type.0.into());
        let inner = Response::to(request, other.clone(), Transport::Tcp, asker.manner);
        let restore = Box::new(Restore { response, asked: other.name.clone(), query: query.clone(), undo });
        Ok(match self.answer(block, inner, request, &other, asker.client)? {
            Outcome::Reply(inner) => Outcome::Reply(restore.response(inner)),
            Outcome::Pending(pending) => Outcome::Pending(Box::new(Pending { restore: Some(restore), ..*pending })),
            outcome @ (Outcome::Silence | Outcome::Transfer(_)) => outcome,
        })
    }

    /// What a block says to a question.
    fn answer(
        &self,
        block: &Block,
        mut response: Response,
        request: &Message,
        query: &Query,
        client: IpAddr,
    ) -> Result<Outcome, DecodeError> {
        let record_type = RecordType(query.query_type.into());
        let spelled = wire_of(&query.name);
        let name = spelled.to_ascii_lowercase();
        if let Some(filled) = template::answer(&block.rules.templates, &name, &spelled, record_type) {
            if filled.is_answer {
                response.fill_sections(filled.code, filled.sections);
            } else {
                response.set_code(filled.code);
            }
            self.stats.full.increment();
            return Ok(Outcome::Reply(response));
        }
        let first = block.rules.hosts.first;
        if first && let Some(code) = self.fixed(block, &mut response, &name, query) {
            return Ok(self.refuse(response, code));
        }
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = block.rules.external.as_ref().filter(|rules| rules.zone(&name).is_some()) {
            if !zone.is_synced() {
                self.stats.not_ready.increment();
                return Ok(self.refuse(response, ResponseCode::ServFail));
            }
            let place = Place::of(rules, &zone, &name, &spelled).map_err(|_| DecodeError::InsufficientBytes)?;
            match place.answer(&mut response, (&query.name, &name, record_type, request.metadata.id))? {
                Said::Next => {}
                Said::Done => {
                    self.stats.full.increment();
                    return Ok(Outcome::Reply(response));
                }
                Said::Alias(target) => {
                    let Some(forwarder) = block.forwarder(target.as_wire()) else {
                        return Ok(Outcome::Reply(response));
                    };
                    let question = Question::new(target.as_wire(), record_type, wants(request));
                    return Ok(self.ask(forwarder, response, question, client));
                }
            }
        }
        let spelling = Spelling { zone: &zone, spelled: &spelled };
        let mut answers = Answers::default();
        let judged = match &block.rules.cluster {
            Some(cluster) => cluster.judge(&name, zone.answer(&name, record_type)),
            None => Judged::Next,
        };
        let code = match judged {
            Judged::Next => {
                drop(zone);
                if !first && let Some(code) = self.fixed(block, &mut response, &name, query) {
                    return Ok(self.refuse(response, code));
                }
                return Ok(self.forward(block, response, request, &name, record_type, client));
            }
            Judged::Denied(reverse) => {
                let soa = spelling.soa_of(reverse)?;
                response.fill(ResponseCode::NXDomain, Vec::new(), Some(soa), Vec::new());
                self.stats.full.increment();
                return Ok(Outcome::Reply(response));
            }
            Judged::Zone(Answer::NotReady) => {
                self.stats.not_ready.increment();
                return Ok(self.refuse(response, ResponseCode::ServFail));
            }
            Judged::Zone(Answer::Alias(target)) if record_type == RecordType::CNAME => {
                let data = RData::CNAME(CNAME(spelling.name(target)?));
                answers.push(&query.name, zone.ttl(), data);
                ResponseCode::NoError
            }
            Judged::Zone(Answer::Alias(target)) => {
                match spelling.follow(&query.name, target, record_type, &mut answers)? {
                    Chain::Ends => ResponseCode::NoError,
                    Chain::Leaves(name) => {
                        let target = wire_of(&name).to_ascii_lowercase();
                        if let Some(forwarder) = block.forwarder(&target) {
                            response.alias(answers.records);
                            let question = Question::new(&target, record_type, wants(request));
                            return Ok(self.ask(forwarder, response, question, client));
                        }
                        ResponseCode::NoError
                    }
                }
            }
            Judged::Zone(answer) => spelling.records(&query.name, request.metadata.id, answer, &mut answers)?,
        };
        let soa = if answers.records.is_empty() { Some(spelling.soa()?) } else { None };
        response.fill(code, answers.records, soa, answers.glue);
        self.stats.full.increment();
        Ok(Outcome::Reply(response))
    }

    /// Writes what fixed addresses say, if they say anything, and returns the code.
    fn fixed(&self, block: &Block, response: &mut Response, name: &[u8], query: &Query) -> Option<ResponseCode> {
        match block.fixed(name, RecordType(query.query_type.into()), &query.name) {
            Fixed::Next => None,
            Fixed::Records(records) => {
                response.fill(ResponseCode::NoError, records, None, Vec::new());
                Some(ResponseCode::NoError)
            }
            Fixed::Unknown => Some(ResponseCode::ServFail),
        }
    }

    /// Asks whoever a block forwards a name to.
    fn forward(
        &self,
        block: &Block,
        response: Response,
        request: &Message,
        name: &[u8],
        record_type: RecordType,
        client: IpAddr,
    ) -> Outcome {
        let Some(forwarder) = block.forwarder(name) else { return self.refuse(response, ResponseCode::Refused) };
        let is_own = || self.site().forwarders().iter().any(|forwarder| forwarder.is_own_probe(name, record_type));
        if record_type == RecordType::HINFO && is_own() {
            return self.refuse(response, ResponseCode::NXDomain);
        }
        self.ask(forwarder, response, Question::new(name, record_type, wants(request)), client)
    }

    /// Answers with what is kept, or has it asked.
    fn ask(&self, forwarder: &Arc<Forwarder>, response: Response, question: Question, client: IpAddr) -> Outcome {
        let (kept, renew) = match forwarder.kept(&question) {
            Some((given, renew)) => (Some(given), renew),
            None => (None, false),
        };
        match kept {
            Some(given) if !renew => {
                self.stats.cached.increment();
                Outcome::Reply(self.take(response, &question, &given).made_by(Maker::Cache))
            }
            kept => {
                let counter = if kept.is_some() { &self.stats.cached } else { &self.stats.forwarded };
                counter.increment();
                let forwarder = Arc::clone(forwarder);
                Outcome::Pending(Box::new(Pending {
                    response,
                    question,
                    client,
                    forwarder,
                    kept,
                    restore: None,
                    translation: None,
                }))
            }
        }
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
