//! What an upstream server said, kept as the bytes that clients get.
//!
//! The records are written once, behind a question in lower case. A client's response is its own header and question, a
//! copy of these bytes, and what is left of the TTLs: pointers into the question lead to the client's spelling.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinDecodable;

use crate::encode::encode;
use crate::fast::rotated_start;
use crate::manner::Manner;
use crate::wire::{CLASS_IN, HEADER, Header, PlainEdns, RecordType, flags};

use super::question::Question;

/// The length of an OPT record without options.
const OPT: usize = 11;

/// An answer of an upstream server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: ResponseCode,
    authentic: bool,
    truncated: bool,
    unsigned: bool,
    partial: bool,
    counts: [u16; 3],
    question: usize,
    body: Box<[u8]>,
    records: Box<[Place]>,
    turns: Option<Turns>,
    ttl: u32,
    negative: Option<u32>,
}

/// Where a record is in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    end: u16,
    ttl_at: u16,
    ttl: u32,
}

/// Addresses that may be in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turns {
    start: usize,
    count: usize,
    size: usize,
}

/// A client's query, as much of it as its response repeats.
#[derive(Debug, Clone, Copy)]
pub struct Client<'q> {
    /// The query's id.
    pub id: u16,
    /// The query's flags.
    pub flags: u16,
    /// The question section, in the client's spelling.
    pub question: &'q [u8],
    /// What its OPT record says.
    pub edns: Option<PlainEdns>,
    /// The longest response.
    pub limit: usize,
}

impl Reply {
    /// Reads a message that is known to answer a question. `None`: it can't be read.
    #[must_use]
    pub fn read(message: &[u8], question: &Question) -> Option<Self> {
        Self::plain(message, question).or_else(|| Self::of(Message::from_vec(message).ok()?, question))
    }

    /// Reads a message with addresses of the name that was asked for and nothing besides, as most are: their records are
    /// as they would be written here, so they are kept as they came. `None`: it is none, or an odd one.
    fn plain(message: &[u8], question: &Question) -> Option<Self> {
        let header = Header::read(message)?;
        let [1, answers, 0, more] = header.counts else { return None };
        let kind = question.record_type();
        let size = match kind {
            RecordType::A => 4_u8,
            RecordType::AAAA => 16,
            _ => return None,
        };
        let (asked, rest) = message.get(HEADER..)?.split_at_checked(question.name().len() + 4)?;
        let [high, low] = kind.0.to_be_bytes();
        let is_asked =
            asked.strip_suffix(&[high, low, 0, 1]).is_some_and(|name| name.eq_ignore_ascii_case(question.name()));
        let length = 12 + usize::from(size);
        let (body, rest) = rest.split_at_checked(length * usize::from(answers))?;
        // Nothing, or an OPT record that says nothing of the code.
        let ends = match (more, rest) {
            (0, []) => true,
            (1, [0, 0, 41, _, _, 0, 0, _, _, l0, l1, options @ ..]) => {
                options.len() == usize::from(u16::from_be_bytes([*l0, *l1]))
            }
            _ => false,
        };
        if !is_asked || !ends || answers == 0 || header.flags & 0xf != 0 {
            return None;
        }
        let mut records = Vec::with_capacity(answers.into());
        for (index, record) in body.chunks_exact(length).enumerate() {
            let &[0xc0, 0x0c, a, b, 0, 1, t0, t1, t2, t3, 0, l, ..] = record else { return None };
            if [a, b, l] != [high, low, size] {
                return None;
            }
            let start = index * length;
            let ttl = ttl([t0, t1, t2, t3]);
            records.push(Place {
                end: u16::try_from(start + length).ok()?,
                ttl_at: u16::try_from(start + 6).ok()?,
                ttl,
            });
        }
        Some(Self {
            code: ResponseCode::NoError,
            authentic: header.flags & flags::AUTHENTIC_DATA != 0,
            truncated: header.flags & flags::TRUNCATED != 0,
            unsigned: false,
            partial: false,
            counts: [answers, 0, 0],
            question: asked.len(),
            turns: turns(body, &records, answers),
            body: body.into(),
            ttl: records.iter().map(|place| place.ttl).min().unwrap_or(0),
            records: records.into(),
            negative: None,
        })
    }

    /// An answer without records.
    #[must_use]
    pub fn empty(code: ResponseCode, question: &Question) -> Option<Self> {
        let mut message = Message::response(0, hickory_proto::op::OpCode::Query);
        message.metadata.response_code = code;
        Self::of(message, question)
    }

    fn of(message: Message, question: &Question) -> Option<Self> {
        let section = question.section(false);
        let Message { metadata, answers, authorities, additionals, .. } = message;
        let name = Name::from_bytes(question.name()).ok()?;
        let mut written = Message::response(0, hickory_proto::op::OpCode::Query);
        let respelled = |records: Vec<Record>| -> Vec<Record> {
            records.into_iter().map(|record| respell(record, &name)).collect()
        };
        written.add_query(hickory_proto::op::Query::query(name.clone(), question.record_type().0.into()));
        written.answers = respelled(answers);
        written.authorities = respelled(authorities);
        written.additionals = respelled(additionals);
        written.metadata.response_code = metadata.response_code;
        let negative = negative_ttl(&written);
        let partial = is_partial(&written, question.record_type());
        written.metadata.response_code = ResponseCode::NoError;
        let bytes = encode(&written, usize::MAX);
        let header = Header::read(&bytes)?;
        let body = bytes.get(HEADER + section.len()..)?;
        let [_, counts @ ..] = header.counts;
        let records = places(body, counts)?;
        let ttl = records.iter().map(|place| place.ttl).min().unwrap_or(0);
        // Codes beyond 15 speak about the upstream server's OPT record, which is not the client's matter.
        let code = if metadata.response_code.high() == 0 { metadata.response_code } else { ResponseCode::ServFail };
        Some(Self {
            code,
            authentic: metadata.authentic_data,
            truncated: metadata.truncation || header.flags & flags::TRUNCATED != 0,
            unsigned: false,
            partial,
            counts,
            question: section.len(),
            turns: turns(body, &records, counts[0]),
            body: body.into(),
            records,
            ttl,
            negative,
        })
    }

    /// The response code.
    #[must_use]
    pub fn code(&self) -> ResponseCode {
        self.code
    }

    /// There was more than the upstream server could send.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Signatures were wanted and could not be asked for: the next who wants them may get them.
    pub(super) fn set_unsigned(&mut self, is: bool) {
        self.unsigned = is;
    }

    /// Whether the name exists, and has no records of the type.
    #[must_use]
    pub(super) fn is_without_data(&self) -> bool {
        self.code == ResponseCode::NoError && self.counts[0] == 0 && !self.truncated
    }

    /// Whether it says more about the server than about the name.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        use ResponseCode::{FormErr, NotImp, Refused, ServFail};
        matches!(self.code, ServFail | Refused | NotImp | FormErr)
    }

    /// How long it may be kept, in seconds: as long as every record of it, and if it says that there is nothing, as long
    /// as the zone says (RFC 2308 section 5). `None`: not at all, or as a failure.
    #[must_use]
    pub fn lifetime(&self) -> Option<Lifetime> {
        if self.truncated || self.unsigned {
            return None;
        }
        match self.code {
            ResponseCode::NoError if self.counts[0] > 0 && self.negative.is_none() && !self.partial => {
                Some(Lifetime::Positive(self.ttl))
            }
            ResponseCode::NoError | ResponseCode::NXDomain => self.negative.map(Lifetime::Negative),
            _ => None,
        }
    }

    /// How many bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.body.len() + size_of_val(&*self.records)
    }

    /// Writes a client's response. No TTL is more than `most`, and each is less by `age` seconds.
    pub fn write(&self, client: &Client<'_>, age: u32, most: u32, manner: Manner, out: &mut Vec<u8>) {
        out.clear();
        let opt = client.edns.map_or(0, |_| OPT);
        let room = client.limit.saturating_sub(HEADER + self.question + opt);
        let fits = self.records.partition_point(|place| usize::from(place.end) <= room);
        let end = fits.checked_sub(1).and_then(|last| self.records.get(last)).map_or(0, |place| usize::from(place.end));
        let kept = client.flags & (flags::RECURSION_DESIRED | flags::CHECKING_DISABLED);
        let flag = |is: bool, bit: u16| if is { bit } else { 0 };
        // Only for clients that know the bit (RFC 6840 section 5.8).
        let asks = client.flags & flags::AUTHENTIC_DATA != 0 || client.edns.is_some_and(|edns| edns.dnssec_ok);
        let mut left = fits;
        let [answers, authorities, additionals] = self.counts.map(|count| {
            let taken = usize::from(count).min(left);
            left -= taken;
            u16::try_from(taken).unwrap_or(0)
        });
        Header {
            id: client.id,
            flags: flags::RESPONSE
                | kept
                | flag(manner.recursion, flags::RECURSION_AVAILABLE)
                | flag(self.authentic && asks, flags::AUTHENTIC_DATA)
                | flag(self.truncated || fits < self.records.len(), flags::TRUNCATED)
                | u16::from(self.code.low()),
            counts: [1, answers, authorities, additionals + u16::from(client.edns.is_some())],
        }
        .write(out);
        out.extend_from_slice(client.question);
        let start = out.len();
        let body = self.body.get(..end).unwrap_or_default();
        match self.turns.filter(|turns| turns.start + turns.count * turns.size <= end) {
            Some(Turns { start, count, size }) => {
                let (before, rest) = body.split_at(start);
                let (run, after) = rest.split_at(count * size);
                let (back, front) = run.split_at(rotated_start(count, client.id) * size);
                for part in [before, front, back, after] {
                    out.extend_from_slice(part);
                }
            }
            None => out.extend_from_slice(body),
        }
        for place in self.records.iter().take(fits) {
            let ttl = place.ttl.min(most).saturating_sub(age);
            let at = start + usize::from(place.ttl_at);
            if let Some(bytes) = out.get_mut(at..at + 4) {
                bytes.copy_from_slice(&ttl.to_be_bytes());
            }
        }
        if let Some(edns) = client.edns {
            let [high, low] = edns.size.max(crate::wire::MIN_UDP).to_be_bytes();
            out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
    }

    /// The records as a message, for who adds others.
    #[must_use]
    pub fn message(&self, question: &Question, age: u32, most: u32) -> Option<Message> {
        let section = question.section(false);
        let client = Client { id: 0, flags: 0, question: &section, edns: None, limit: usize::from(u16::MAX) };
        let mut bytes = Vec::new();
        self.write(&client, age, most, Manner { recursion: true, max_udp: u16::MAX }, &mut bytes);
        Message::from_vec(&bytes).ok()
    }
}

/// What kind of answer it is, and for how many seconds it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Records.
    Positive(u32),
    /// That there are none.
    Negative(u32),
}

/// A record whose owner is the question's name has it in the question's spelling.
fn respell(mut record: Record, name: &Name) -> Record {
    if record.name == *name {
        record.name = name.clone();
    }
    record
}

/// The time for which a denial holds, if the message is one.
fn negative_ttl(message: &Message) -> Option<u32> {
    let denies = message.metadata.response_code == ResponseCode::NXDomain
        || message.answers.iter().all(|record| matches!(record.data, RData::CNAME(_)));
    let soa = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    let answers = message.answers.iter().map(|record| record.ttl).min().unwrap_or(u32::MAX);
    soa.filter(|_| denies).map(|soa| soa.min(answers))
}

/// Whether there are records, and none of the type that was asked for: an alias without what it leads to. Whether there is
/// any only an SOA says (RFC 2308 section 5).
fn is_partial(message: &Message, kind: RecordType) -> bool {
    const ANY: RecordType = RecordType(255);
    let fits = |record: &Record| kind == ANY || u16::from(record.record_type()) == kind.0;
    !message.answers.is_empty() && !message.answers.iter().any(fits)
}

/// The highest bit is none of a TTL's (RFC 2181 section 8).
fn ttl(bytes: [u8; 4]) -> u32 {
    Some(u32::from_be_bytes(bytes)).filter(|ttl| ttl >> 31 == 0).unwrap_or(0)
}

/// The records of a body.
fn places(body: &[u8], counts: [u16; 3]) -> Option<Box<[Place]>> {
    let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
    let mut places = Vec::with_capacity(total);
    let mut at = 0;
    for _ in 0..total {
        let ttl_at = name_end(body, at)? + 4;
        let &[t0, t1, t2, t3, l0, l1] = body.get(ttl_at..)?.first_chunk()?;
        at = ttl_at + 6 + usize::from(u16::from_be_bytes([l0, l1]));
        places.push(Place {
            end: u16::try_from(at).ok()?,
            ttl_at: u16::try_from(ttl_at).ok()?,
            ttl: ttl([t0, t1, t2, t3]),
        });
    }
    (at == body.len()).then(|| places.into())
}

/// Where a name that may end in a pointer ends.
fn name_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *body.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

/// The first addresses that stand behind each other with the same owner, if there are several. Each begins with a
/// pointer, so nothing points at them and they can change places.
fn turns(body: &[u8], records: &[Place], answers: u16) -> Option<Turns> {
    let start = |index: usize| index.checked_sub(1).map_or(0, |before| usize::from(records[before].end));
    let head = |index: usize| {
        let place = records.get(index).filter(|_| index < usize::from(answers))?;
        let bytes = body.get(start(index)..usize::from(place.end))?;
        let &[p0, p1, t0, t1, c0, c1] = bytes.first_chunk()?;
        let kind = RecordType(u16::from_be_bytes([t0, t1]));
        let address = matches!(kind, RecordType::A | RecordType::AAAA) && u16::from_be_bytes([c0, c1]) == CLASS_IN;
        (p0 >= 0xc0 && address).then_some(([p0, p1], kind, bytes.len(), place.ttl))
    };
    let first = (0..usize::from(answers)).find(|index| head(*index).is_some())?;
    let alike = head(first)?;
    let count = (first..usize::from(answers)).take_while(|index| head(*index) == Some(alike)).count();
    (count > 1).then(|| Turns { start: start(first), count, size: alike.2 })
}

#[cfg(test)]
mod tests;
