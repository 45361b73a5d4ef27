//! A response and its size.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::Record;

use crate::encode::encode;
use crate::forward::Client;
use crate::manner::{Manner, Transport};
use crate::meter::{Answered, Maker};
use crate::name::wire_of;
use crate::wire::{CLASS_IN, Header, PlainEdns, flags};

/// A response while it is made.
pub struct Response {
    form: Form,
    /// Who made it, where that is known.
    maker: Option<Maker>,
}

enum Form {
    Message {
        message: Box<Message>,
        limit: usize,
        /// The client knows the bit for checked signatures.
        authentic: bool,
    },
    /// As it goes to the client.
    Bytes(Vec<u8>),
}

/// What a client asked, for a response that is made of bytes.
pub(super) struct Asked {
    pub(super) question: Vec<u8>,
    /// The rest, with an empty question.
    pub(super) client: Client<'static>,
}

impl Response {
    fn of(form: Form) -> Self {
        Self { form, maker: None }
    }

    /// The same, made by this.
    pub(super) fn made_by(self, maker: Maker) -> Self {
        Self { maker: Some(maker), ..self }
    }

    /// What it says, and who made it.
    pub(super) fn into_message(self) -> Option<(Message, Option<Maker>)> {
        let Self { form, maker } = self;
        match form {
            Form::Message { message, .. } => Some((*message, maker)),
            Form::Bytes(bytes) => Some((Message::from_vec(&bytes).ok()?, maker)),
        }
    }

    /// Says what another message says, to its own question.
    pub(super) fn replace(self, other: Message, maker: Option<Maker>) -> Self {
        let Message { metadata, answers, authorities, additionals, .. } = other;
        let changed = self.change(|own| {
            own.metadata.truncation = metadata.truncation;
            own.metadata.authoritative = metadata.authoritative;
            own.metadata.authentic_data = metadata.authentic_data;
            own.metadata.response_code = metadata.response_code;
            own.answers = answers;
            own.authorities = authorities;
            own.additionals = additionals;
        });
        Self { maker, ..changed }
    }

    /// An answer with all of its sections.
    pub(super) fn fill_sections(&mut self, code: ResponseCode, sections: [Vec<Record>; 3]) {
        let [answers, authorities, additionals] = sections;
        self.fill(code, answers, None, additionals);
        if let Form::Message { message, .. } = &mut self.form {
            message.authorities = authorities;
        }
    }

    /// An empty response to a query.
    pub(super) fn to(request: &Message, query: Query, transport: Transport, manner: Manner) -> Self {
        let mut message = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.recursion_available = manner.recursion;
        message.add_query(query);
        message.edns = request.edns.as_ref().map(plain);
        let limit = manner.limit(transport, request.edns.as_ref().map(Edns::max_payload));
        Self::of(Form::Message { message: Box::new(message), limit, authentic: request.metadata.authentic_data })
    }

    /// A header only, to a query that can't be repeated.
    pub(super) fn to_header(header: &Header, code: ResponseCode) -> Self {
        let [opcode, _] = (header.flags & flags::OPCODE).to_be_bytes();
        let mut message = Message::response(header.id, OpCode::from_u8(opcode >> 3));
        message.metadata.recursion_desired = header.flags & flags::RECURSION_DESIRED != 0;
        message.metadata.checking_disabled = header.flags & flags::CHECKING_DISABLED != 0;
        message.metadata.response_code = code;
        Self::of(Form::Message { message: Box::new(message), limit: usize::from(u16::MAX), authentic: false })
    }

    /// To a message that can't be read.
    #[must_use]
    pub fn malformed(header: &Header) -> Self {
        Self::to_header(header, ResponseCode::FormErr)
    }

    /// Bytes as they go to the client.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::of(Form::Bytes(bytes))
    }

    fn change(mut self, change: impl FnOnce(&mut Message)) -> Self {
        if let Form::Message { message, .. } = &mut self.form {
            change(message);
        }
        self
    }

    pub(super) fn set_code(&mut self, code: ResponseCode) {
        if let Form::Message { message, .. } = &mut self.form {
            message.metadata.response_code = code;
        }
    }

    /// An answer of the zone.
    pub(super) fn fill(&mut self, code: ResponseCode, answers: Vec<Record>, soa: Option<Record>, glue: Vec<Record>) {
        if let Form::Message { message, .. } = &mut self.form {
            message.metadata.authoritative = true;
            message.metadata.response_code = code;
            message.answers = answers;
            message.authorities = soa.into_iter().collect();
            message.additionals = glue;
        }
    }

    /// Aliases of the zone, whose target is another zone's.
    pub(super) fn alias(&mut self, aliases: Vec<Record>) {
        self.fill(ResponseCode::NoError, aliases, None, Vec::new());
    }

    /// There is no answer.
    pub(super) fn failed(self, code: ResponseCode) -> Self {
        self.change(|message| {
            message.answers.clear();
            message.metadata.authoritative = false;
            message.metadata.response_code = code;
        })
    }

    /// What was asked, if nothing is in the response yet.
    pub(super) fn plain_question(&self) -> Option<Asked> {
        let Form::Message { message, limit, authentic } = &self.form else { return None };
        let query = message.queries.first().filter(|_| message.answers.is_empty())?;
        let mut question = wire_of(query.name());
        question.extend_from_slice(&u16::from(query.query_type()).to_be_bytes());
        question.extend_from_slice(&CLASS_IN.to_be_bytes());
        let edns = |edns: &Edns| PlainEdns { size: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok };
        let flag = |is: bool, bit: u16| if is { bit } else { 0 };
        let metadata = &message.metadata;
        let client = Client {
            id: metadata.id,
            flags: flag(metadata.recursion_desired, flags::RECURSION_DESIRED)
                | flag(metadata.checking_disabled, flags::CHECKING_DISABLED)
                | flag(*authentic, flags::AUTHENTIC_DATA),
            question: &[],
            edns: message.edns.as_ref().map(edns),
            limit: *limit,
        };
        Some(Asked { question, client })
    }

    /// Adds what an upstream server said to what is there already.
    pub(super) fn take_from(self, upstream: Message) -> Self {
        self.change(|own| {
            let Message { metadata, answers, authorities, additionals, .. } = upstream;
            own.metadata.truncation = metadata.truncation;
            own.metadata.response_code = metadata.response_code;
            own.answers.extend(answers);
            own.authorities = authorities;
            own.additionals = additionals;
        })
    }

    /// The response as bytes, at most as many as the client takes.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self.form {
            Form::Message { message, limit, .. } => encode(&message, limit),
            Form::Bytes(bytes) => bytes,
        }
    }

    /// What it says, for who counts responses; its length is known when it is encoded.
    #[must_use]
    pub fn summary(&self, maker: Maker) -> Answered {
        let maker = self.maker.unwrap_or(maker);
        let message = match &self.form {
            Form::Message { message, .. } => message,
            Form::Bytes(bytes) => return Answered::plainly(bytes, maker),
        };
        let Message { metadata, edns, .. } = &**message;
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
