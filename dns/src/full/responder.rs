//! The responder: who answers any message.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};

use super::outcome::{Asker, Asking, Outcome, Pending, Short};
use super::response::Response;
use super::transfer::Transfers;
use crate::fast::{Said, say};
use crate::forward::{Client, ForwardError, Given, Kept, Question, Reply};
use crate::manner::{Manner, Transport};
use crate::meter::Maker;
use crate::name::MAX_NAME;
use crate::names::Gate;
use crate::site::Site;
use crate::site::log::{self, Exchange, Gate as LogGate, Pass};
use crate::stats::Stats;
use crate::wire::{Header, PlainQuery, RecordType, flags};
use crate::zone::Zone;

/// Answers any message.
pub struct Responder {
    /// The zone, shared with who changes it.
    pub zone: Arc<RwLock<Zone>>,
    /// What is answered besides; it changes with the configuration.
    pub site: RwLock<Arc<Site>>,
    /// Lines of the query log that may be written.
    pub gate: LogGate,
    /// Sizes and flags that every tier shares.
    pub manner: Manner,
    /// Zones that are on their way.
    pub transfers: Transfers,
    /// Answers that open something by policy.
    pub names: Arc<Gate>,
    /// What has happened.
    pub stats: Stats,
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
        let manner = self.site().manner(self.manner);
        let response = Response::to(&request, query.clone(), transport, manner);
        self.decide(response, &request, &query, Asker { client, transport, manner })
            .unwrap_or_else(|_| Outcome::Reply(Response::to_header(&header, ResponseCode::ServFail)))
    }

    /// Writes the response to a message if it is plain, from the zone or from what is kept of other zones.
    pub fn respond_shortly(
        &self,
        zone: &Zone,
        site: &Site,
        message: &[u8],
        transport: Transport,
        client: IpAddr,
        out: &mut Vec<u8>,
    ) -> Short {
        let manner = site.manner(self.manner);
        if !site.is_plain() {
            let Some(query) = PlainQuery::read(message) else { return Short::Nothing };
            if !site.is_short(&query.name.to_ascii_lowercase(), query.record_type, client) {
                return Short::Nothing;
            }
        }
        let query = match say(zone, manner, transport, message, out) {
            Said::Written => return Short::Written(Maker::Kubernetes),
            Said::Elsewhere(query) if query.record_type != RecordType::HINFO => query,
            _ => return Short::Nothing,
        };
        let mut lower = [0; MAX_NAME];
        let Some(name) = lower.get_mut(..query.name.len()) else { return Short::Nothing };
        name.copy_from_slice(query.name);
        name.make_ascii_lowercase();
        let Some(block) = site.block(name) else { return Short::Nothing };
        let Some(forwarder) = block.forwarder(name) else { return Short::Nothing };
        if block.is_fixed(name, query.record_type) {
            return Short::Nothing;
        }
        let limit = manner.limit(transport, query.edns.map(|edns| edns.size));
        match forwarder.respond(&query, limit, manner, out) {
            Kept::Written => Short::Written(Maker::Cache),
            Kept::Renew(question) => Short::Renew(question),
            Kept::Nothing(question) => {
                self.stats.forwarded.increment();
                Short::Ask(Box::new(Asking {
                    forwarder: Arc::clone(forwarder),
                    question,
                    client,
                    section: query.question.into(),
                    query: Client {
                        id: query.header.id,
                        flags: query.header.flags,
                        question: &[],
                        edns: query.edns,
                        limit,
                    },
                    manner,
                }))
            }
        }
    }

    /// Asks elsewhere, and answers a plain query with what comes back, as [`Self::finish`] would.
    pub async fn finish_shortly(&self, asking: Asking) -> (Response, Maker) {
        let result = asking.forwarder.ask(&asking.question, asking.client).await;
        self.answered(&asking, result)
    }

    /// The same, with `done` for what comes back, and without a task where that does. To be called in a runtime's context.
    pub fn begin_shortly(self: &Arc<Self>, asking: Asking, done: impl FnOnce(Response, Maker) + Send + 'static) {
        let (responder, forwarder) = (Arc::clone(self), Arc::clone(&asking.forwarder));
        forwarder.begin(asking.question.clone(), asking.client, move |result| {
            let (response, maker) = responder.answered(&asking, result);
            done(response, maker);
        });
    }

    /// The response with what was said elsewhere.
    fn answered(&self, asking: &Asking, result: Result<Given, ForwardError>) -> (Response, Maker) {
        let Asking { question, section, query, manner, .. } = asking;
        let (query, manner) = (Client { question: section, ..*query }, *manner);
        let mut bytes = Vec::new();
        let maker = match result {
            Ok(Given { reply, age, most, cached }) => {
                reply.write(&query, age, most, manner, &mut bytes);
                if cached { Maker::Cache } else { Maker::Forward }
            }
            Err(error) => {
                let (code, maker) = self.failed(&error);
                let Some(failure) = Reply::empty(code, question) else {
                    let header = Header { id: query.id, flags: query.flags, counts: [0; 4] };
                    return (Response::to_header(&header, code), maker);
                };
                failure.write(&query, 0, 0, manner, &mut bytes);
                maker
            }
        };
        (Response::of_bytes(bytes), maker)
    }

    /// Counts that there is no answer from elsewhere, and says how that is answered.
    fn failed(&self, error: &ForwardError) -> (ResponseCode, Maker) {
        match error {
            ForwardError::Nobody => (ResponseCode::Refused, Maker::Nobody),
            ForwardError::Busy => {
                self.stats.forward_refused.increment();
                (ResponseCode::Refused, Maker::Forward)
            }
            ForwardError::TimedOut | ForwardError::Down | ForwardError::Loop | ForwardError::Server(_) => {
                self.stats.forward_failed.increment();
                (ResponseCode::ServFail, Maker::Forward)
            }
        }
    }

    /// Asks anew for what is kept and will go soon.
    pub async fn renew(&self, question: Question, client: IpAddr) {
        let forwarder = self.site().block(question.name()).and_then(|block| block.forwarder(question.name()).cloned());
        if let Some(forwarder) = forwarder {
            forwarder.renew(question, client).await;
        }
    }

    /// What is answered besides the zone.
    #[must_use]
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers as this site says from now on.
    pub fn set_site(&self, site: Site) {
        *self.site.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(site);
    }

    /// Writes what the query log wants of a query.
    pub fn log(&self, site: &Site, exchange: &Exchange<'_>) {
        if !site.logs() {
            return;
        }
        let rules = |name: &[u8]| site.block(name).map_or(&[][..], |block| &block.rules.log);
        for line in log::lines(rules, exchange) {
            match self.gate.pass(site.log_rate(), Instant::now()) {
                Pass::Yes => tracing::info!(target: "query", "{line}"),
                Pass::After(left_out) => {
                    tracing::warn!(target: "query", left_out, "queries were not logged: there were more than queryLogRate");
                    tracing::info!(target: "query", "{line}");
                }
                Pass::No => {}
            }
        }
    }

    /// Asks elsewhere and answers with what comes back, or what is kept of it.
    pub async fn finish(&self, mut pending: Pending) -> (Response, Maker) {
        loop {
            let translation = pending.translation.take();
            let (response, maker) = self.wait(pending).await;
            let Some(translation) = translation else { return (response, maker) };
            // There may be another question in it, and no third.
            match self.translated(*translation, response) {
                Err(next) => pending = *next,
                Ok(response) => return (response, maker),
            }
        }
    }

    async fn wait(&self, pending: Pending) -> (Response, Maker) {
        let Pending { response, question, client, forwarder, kept, restore, translation: _ } = pending;
        let result = match kept {
            Some(given) => {
                tokio::spawn(Arc::clone(&forwarder).renew(question.clone(), client));
                Ok(given)
            }
            None => forwarder.ask(&question, client).await,
        };
        let (response, maker) = match result {
            Ok(given) => {
                let maker = if given.cached { Maker::Cache } else { Maker::Forward };
                (self.take(response, &question, &given), maker)
            }
            Err(error) => {
                let (code, maker) = self.failed(&error);
                (response.failed(code), maker)
            }
        };
        match restore {
            Some(restore) => (restore.response(response), maker),
            None => (response, maker),
        }
    }

    /// What was said elsewhere, as a response.
    pub(super) fn take(&self, response: Response, question: &Question, given: &Given) -> Response {
        let Given { reply, age, most, .. } = given;
        let Some(asked) = response.plain_question() else {
            return match reply.message(question, *age, *most) {
                Some(message) => response.take_from(message),
                None => response.failed(ResponseCode::ServFail),
            };
        };
        let client = Client { question: &asked.question, ..asked.client };
        let mut bytes = Vec::new();
        reply.write(&client, *age, *most, self.site().manner(self.manner), &mut bytes);
        Response::of_bytes(bytes)
    }

    pub(super) fn refuse(&self, mut response: Response, code: ResponseCode) -> Outcome {
        self.stats.full.increment();
        response.set_code(code);
        Outcome::Reply(response)
    }
}
