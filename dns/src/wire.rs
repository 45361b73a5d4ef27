//! The parts of a DNS message that are read and written by hand (RFC 1035 section 4.1, RFC 6891).

use crate::name::{MAX_LABEL, MAX_NAME};

/// The length of a message's header.
pub const HEADER: usize = 12;
/// The class of the Internet.
pub const CLASS_IN: u16 = 1;
/// What a client without EDNS takes over UDP (RFC 1035 section 4.2.1).
pub const MIN_UDP: u16 = 512;

/// A record's type (IANA DNS parameters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordType(pub u16);

#[expect(missing_docs, reason = "they are the types' own names")]
impl RecordType {
    pub const A: Self = Self(1);
    pub const NS: Self = Self(2);
    pub const CNAME: Self = Self(5);
    pub const SOA: Self = Self(6);
    pub const PTR: Self = Self(12);
    pub const HINFO: Self = Self(13);
    pub const TXT: Self = Self(16);
    pub const AAAA: Self = Self(28);
    pub const SRV: Self = Self(33);
    pub const DNAME: Self = Self(39);
    pub const OPT: Self = Self(41);
    pub const RRSIG: Self = Self(46);
    pub const SVCB: Self = Self(64);
    pub const HTTPS: Self = Self(65);
    pub const IXFR: Self = Self(251);
    pub const AXFR: Self = Self(252);
}

/// Bits of the header's flags.
pub mod flags {
    /// This is a response.
    pub const RESPONSE: u16 = 1 << 15;
    /// The kind of query: 0 is a plain one.
    pub const OPCODE: u16 = 0xf << 11;
    /// The answer comes from who owns the data.
    pub const AUTHORITATIVE: u16 = 1 << 10;
    /// There is more than fits.
    pub const TRUNCATED: u16 = 1 << 9;
    /// The client wants other zones looked up too.
    pub const RECURSION_DESIRED: u16 = 1 << 8;
    /// Other zones are looked up here.
    pub const RECURSION_AVAILABLE: u16 = 1 << 7;
    /// Signatures were checked.
    pub const AUTHENTIC_DATA: u16 = 1 << 5;
    /// The client doesn't want signatures checked.
    pub const CHECKING_DISABLED: u16 = 1 << 4;
}

/// The response codes of answers (RFC 1035 section 4.1.1).
pub mod rcode {
    /// No error.
    pub const NO_ERROR: u16 = 0;
    /// The name doesn't exist.
    pub const NO_NAME: u16 = 3;
}

/// The header of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the response repeats.
    pub id: u16,
    /// See [`flags`] and [`rcode`].
    pub flags: u16,
    /// How many questions, answers, authority and additional records follow.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the header of a message, if it is long enough to have one.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let words: &[u8; HEADER] = message.first_chunk()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *words;
        let word = u16::from_be_bytes;
        Some(Self {
            id: word([a, b]),
            flags: word([c, d]),
            counts: [word([e, f]), word([g, h]), word([i, j]), word([k, l])],
        })
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        for count in self.counts {
            out.extend_from_slice(&count.to_be_bytes());
        }
    }
}

/// A plain query: one question, class IN, at most an OPT record without options that could change the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainQuery<'m> {
    /// Its header.
    pub header: Header,
    /// The name in the client's spelling, root included.
    pub name: &'m [u8],
    /// The whole question: name, type and class.
    pub question: &'m [u8],
    /// The type.
    pub record_type: RecordType,
    /// The OPT record, if there is one.
    pub edns: Option<PlainEdns>,
}

/// What a plain OPT record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainEdns {
    /// The longest UDP message that the client takes.
    pub size: u16,
    /// The client wants signatures.
    pub dnssec_ok: bool,
}

impl<'m> PlainQuery<'m> {
    /// Reads a query that is plain to the last byte. Everything else is `None`, and somebody else's to judge.
    #[must_use]
    pub fn read(message: &'m [u8]) -> Option<Self> {
        let header = Header::read(message)?;
        let [1, 0, 0, additional @ 0..=1] = header.counts else { return None };
        let refused = flags::RESPONSE | flags::OPCODE | flags::TRUNCATED;
        if header.flags & refused != 0 {
            return None;
        }
        let body = message.get(HEADER..)?;
        let end = name_end(body)?;
        let (name, rest) = body.split_at_checked(end)?;
        let (&[t0, t1, c0, c1], rest) = rest.split_first_chunk()?;
        if u16::from_be_bytes([c0, c1]) != CLASS_IN {
            return None;
        }
        let edns = match (additional, rest) {
            (0, []) => None,
            // Root, type OPT, size, extended code 0, version 0, flags, options.
            (1, [0, 0, 41, s0, s1, 0, 0, f0, 0, l0, l1, options @ ..])
                if f0 & 0x7f == 0 && is_ignored(options, u16::from_be_bytes([*l0, *l1])) =>
            {
                Some(PlainEdns { size: u16::from_be_bytes([*s0, *s1]), dnssec_ok: *f0 != 0 })
            }
            _ => return None,
        };
        let question = body.get(..end + 4)?;
        Some(Self { header, name, question, record_type: RecordType(u16::from_be_bytes([t0, t1])), edns })
    }
}

/// Options that whoever answers may leave alone, whatever they say: COOKIE (RFC 7873), edns-tcp-keepalive (RFC 7828) and
/// Padding (RFC 7830).
const IGNORED: [u16; 3] = [10, 11, 12];

/// Whether options have this length, and change nothing.
fn is_ignored(mut options: &[u8], length: u16) -> bool {
    if options.len() != usize::from(length) {
        return false;
    }
    while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let Some(rest) = rest.get(length..).filter(|_| IGNORED.contains(&u16::from_be_bytes([c0, c1]))) else {
            return false;
        };
        options = rest;
    }
    options.is_empty()
}

/// The type that a message asks for first, if its name is not compressed.
#[must_use]
pub fn question_type(message: &[u8]) -> Option<RecordType> {
    let body = message.get(HEADER..)?;
    let &[high, low] = body.get(name_end(body)?..)?.first_chunk()?;
    Some(RecordType(u16::from_be_bytes([high, low])))
}

/// Where an uncompressed name ends, root included.
fn name_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += length + 1;
        if length > MAX_LABEL || at > MAX_NAME {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}
