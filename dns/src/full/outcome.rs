//! What becomes of a message, and what is known meanwhile.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;

use super::response::Response;
use super::transfer::Transfer;
use crate::forward::{Client, Forwarder, Given, Question};
use crate::manner::{Manner, Transport};
use crate::meter::Maker;
use crate::site::dns64::Dns64;
use crate::site::rewrite::Undo;

/// What becomes of a message.
pub enum Outcome {
    /// This goes back.
    Reply(Response),
    /// Nothing goes back.
    Silence,
    /// An upstream server has to be asked: [`Responder::finish`](super::Responder::finish) does it.
    Pending(Box<Pending>),
    /// A zone goes back over a stream, in these messages.
    Transfer(Box<Transfer>),
}

/// A response that waits for an upstream server.
pub struct Pending {
    pub(super) response: Response,
    pub(super) question: Question,
    pub(super) client: IpAddr,
    pub(super) forwarder: Arc<Forwarder>,
    /// What is kept, where it is to be asked anew besides.
    pub(super) kept: Option<Given>,
    pub(super) restore: Option<Box<Restore>>,
    pub(super) translation: Option<Box<Translation>>,
}

/// What becomes of a message that may be answered on the short way.
pub enum Short {
    /// The response is written; this made it.
    Written(Maker),
    /// The response is written, and this is to be asked anew: [`Responder::renew`](super::Responder::renew).
    Renew(Question),
    /// An upstream server has to be asked: [`Responder::finish_shortly`](super::Responder::finish_shortly) does it.
    Ask(Box<Asking>),
    /// It is for [`Responder::respond_to`](super::Responder::respond_to).
    Nothing,
}

/// A plain query that waits for an upstream server: as much of it as its response repeats.
pub struct Asking {
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) question: Question,
    pub(super) client: IpAddr,
    /// The question section, in the client's spelling.
    pub(super) section: Box<[u8]>,
    /// The rest of the query, with an empty question.
    pub(super) query: Client<'static>,
    pub(super) manner: Manner,
}

/// A client's question that is answered as another.
pub(super) struct Restore {
    pub(super) response: Response,
    pub(super) asked: Name,
    pub(super) query: Query,
    pub(super) undo: Undo,
}

impl Restore {
    /// The answer to the other question, as one to the client's.
    pub(super) fn response(self, inner: Response) -> Response {
        let Self { response, asked, query, undo } = self;
        let Some((mut message, maker)) = inner.into_message() else { return response.failed(ResponseCode::ServFail) };
        // What was checked are signatures of the other name.
        message.metadata.authentic_data = false;
        undo.apply(&mut message, &asked, &query.name);
        response.replace(message, maker)
    }
}

/// A client's question for IPv6 while others are asked for it.
pub(super) struct Translation {
    pub(super) rules: Dns64,
    pub(super) response: Response,
    pub(super) request: Message,
    pub(super) query: Query,
    pub(super) asker: Asker,
    /// What was said about IPv6, while it is asked about IPv4.
    pub(super) v6: Option<(Message, Option<Maker>)>,
}

/// Who asks, and how it is answered.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) manner: Manner,
}
