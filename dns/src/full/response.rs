//! A response and its size.

use std::mem;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;

use super::Transport;
use crate::fast::Manner;
use crate::meter::{Answered, Maker};
use crate::wire::{Header, flags};

/// What a message over TCP may not fill: the names that hickory-server writes whole where this codec writes a pointer.
const TCP_MARGIN: u16 = 1024;

/// A response while it is made.
pub struct Response {
    pub(super) message: Message,
    limit: usize,
}

impl Response {
    /// An empty response to a query.
    pub(super) fn to(request: &Message, query: Query, transport: Transport, manner: Manner) -> Self {
        let mut message = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.recursion_available = manner.recursion;
        message.add_query(query);
        message.edns = request.edns.as_ref().map(echo);
        let limit = match transport {
            Transport::Udp => manner.udp_limit(request.edns.as_ref().map(Edns::max_payload)),
            Transport::Tcp => usize::from(u16::MAX - TCP_MARGIN),
        };
        Self { message, limit }
    }

    /// A header only, to a query that can't be repeated.
    pub(super) fn to_header(header: &Header, code: ResponseCode) -> Self {
        let [opcode, _] = (header.flags & flags::OPCODE).to_be_bytes();
        let mut message = Message::response(header.id, OpCode::from_u8(opcode >> 3));
        message.metadata.recursion_desired = header.flags & flags::RECURSION_DESIRED != 0;
        message.metadata.checking_disabled = header.flags & flags::CHECKING_DISABLED != 0;
        message.metadata.response_code = code;
        Self { message, limit: usize::from(u16::MAX) }
    }

    /// Adds what an upstream server said to what is there already.
    pub(super) fn take_from(&mut self, upstream: Message) {
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

    /// The response as the bytes of a datagram.
    #[must_use]
    pub fn encode(mut self) -> Vec<u8> {
        self.fit()
    }

    /// The response as a message, for who writes it with an encoder of its own, and its length with this one.
    #[must_use]
    pub fn into_message(mut self) -> (Message, usize) {
        let length = self.fit().len();
        (self.message, length)
    }

    /// What it says, for who counts responses; its length is known when it is encoded.
    #[must_use]
    pub fn summary(&self, maker: Maker) -> Answered {
        let Message { metadata, edns, .. } = &self.message;
        let dnssec_ok = edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        // What isn't from the zone and not from elsewhere only says why there is no answer.
        let maker = if maker == Maker::Kubernetes && !metadata.authoritative { Maker::Nobody } else { maker };
        Answered { code: metadata.response_code.into(), dnssec_ok, size: 0, maker }
    }

    /// Makes the message as long as the client takes: what is too much is left out from the end and TC says so.
    fn fit(&mut self) -> Vec<u8> {
        let Some(bytes) = self.sized() else { return self.fail() };
        if bytes.len() <= self.limit {
            return bytes;
        }
        self.message.metadata.truncation = true;
        self.message.additionals.clear();
        let answers = mem::take(&mut self.message.answers);
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
        self.message.answers = answers.into_iter().take(bounds.start).collect();
        best.unwrap_or_else(|| {
            self.message.authorities.clear();
            self.message.edns = self.message.edns.take().map(|edns| plain(&edns));
            self.sized().unwrap_or_else(|| self.fail())
        })
    }

    fn sized(&self) -> Option<Vec<u8>> {
        self.message.to_vec().inspect_err(|error| tracing::warn!(%error, "a response can't be written")).ok()
    }

    fn fail(&mut self) -> Vec<u8> {
        let header = Header { id: self.message.metadata.id, flags: 0, counts: [0; 4] };
        *self = Self::to_header(&header, ResponseCode::ServFail);
        self.sized().unwrap_or_default()
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
