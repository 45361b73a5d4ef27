//! Every answer, made with a complete codec: what [`fast`](crate::fast) leaves alone, and what has to be asked
//! elsewhere. The bytes are the same over UDP and TCP, but for what does not fit into a datagram.

mod decide;
mod encode;
mod external;
mod records;
mod response;
mod transfer;
mod translate;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Name;

use self::decide::Restore;
use self::translate::Translation;
use crate::fast::{Manner, Said, say};
use crate::forward::{Client, ForwardError, Forwarder, Given, Kept, Question};
use crate::meter::Maker;
use crate::name::{MAX_NAME, labels};
use crate::site::Site;
use crate::site::log::{self, Exchange, Gate, Pass};
use crate::stats::Stats;
use crate::wire::{Header, PlainQuery, RecordType, flags};
use crate::zone::Zone;

pub(crate) use self::encode::encode;
pub use self::response::Response;
pub use self::transfer::{Transfer, TransferError, Transfers};

/// What a message came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// A stream, where a message may have 65535 bytes.
    Tcp,
    /// A request and a response of HTTP, which may be as long.
    Https,
}

impl Transport {
    /// Its name in metrics and in the query log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Https => "https",
        }
    }
}

/// Answers any message.
pub struct Responder {
    /// The zone, shared with who changes it.
    pub zone: Arc<RwLock<Zone>>,
    /// What is answered besides; it changes with the configuration.
    pub site: RwLock<Arc<Site>>,
    /// Lines of the query log that may be written.
    pub gate: Gate,
    /// Sizes and flags that every tier shares.
    pub manner: Manner,
    /// Zones that are on their way.
    pub transfers: Transfers,
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
    /// A zone goes back over a stream, in these messages.
    Transfer(Box<Transfer>),
}

/// A response that waits for an upstream server.
pub struct Pending {
    response: Response,
    question: Question,
    client: IpAddr,
    forwarder: Arc<Forwarder>,
    /// What is kept, where it is to be asked anew besides.
    kept: Option<Given>,
    restore: Option<Box<Restore>>,
    translation: Option<Box<Translation>>,
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
            Kept::Nothing => Short::Nothing,
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
            Err(ForwardError::Nobody) => (response.failed(ResponseCode::Refused), Maker::Nobody),
            Err(error) => {
                let busy = matches!(error, ForwardError::Busy);
                let counter = if busy { &self.stats.forward_refused } else { &self.stats.forward_failed };
                counter.increment();
                let code = if busy { ResponseCode::Refused } else { ResponseCode::ServFail };
                (response.failed(code), Maker::Forward)
            }
        };
        match restore {
            Some(restore) => (restore.response(response), maker),
            None => (response, maker),
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
        reply.write(&client, *age, *most, self.site().manner(self.manner), &mut bytes);
        Response::of_bytes(bytes)
    }

    fn refuse(&self, mut response: Response, code: ResponseCode) -> Outcome {
        self.stats.full.increment();
        response.set_code(code);
        Outcome::Reply(response)
    }
}

/// Who asks, and how it is answered.
#[derive(Clone, Copy)]
struct Asker {
    client: IpAddr,
    transport: Transport,
    manner: Manner,
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
