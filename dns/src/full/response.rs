//! A response and its size.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;

use super::Transport;
use crate::fast::Manner;
use crate::wire::{Header, rcode};

/// A response while it is made.
pub(super) struct Response {
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
            Transport::Tcp => usize::from(u16::MAX),
        };
        Self { message, limit }
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

    /// The message in as many bytes as the client takes: what is too much is left out from the end and TC says so.
    pub(super) fn encode(mut self) -> Vec<u8> {
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
