//! A response and its size.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};

use super::Transport;
use super::encode::encode;
use crate::fast::Manner;
use crate::meter::{Answered, Maker};
use crate::wire::{Header, flags};

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
        message.edns = request.edns.as_ref().map(plain);
        let limit = match transport {
            Transport::Udp => manner.udp_limit(request.edns.as_ref().map(Edns::max_payload)),
            Transport::Tcp => usize::from(u16::MAX),
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

    /// To a message that can't be read.
    #[must_use]
    pub fn malformed(header: &Header) -> Self {
        Self::to_header(header, ResponseCode::FormErr)
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

    /// The response as bytes, at most as many as the client takes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        encode(&self.message, self.limit)
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
}

/// The response's OPT record: the client's size and DO flag. None of its options is repeated: nothing here has what they
/// ask for (RFC 6891 section 6.1.1).
fn plain(client: &Edns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(client.max_payload()).set_dnssec_ok(client.flags().dnssec_ok);
    edns
}
