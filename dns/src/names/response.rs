//! What a response tells: the name that was asked for, and the addresses that it has, by whatever aliases.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::name::{MAX_LABEL, MAX_NAME};
use crate::wire::{CLASS_IN, HEADER, Header, RecordType, flags};

/// Aliases that are followed. Resolvers follow 8 to 16.
const MOST_ALIASES: usize = 16;

/// A response code of the header (RFC 1035 section 4.1.1).
const SERVFAIL: u16 = 2;

/// Where the fixed fields of a question end behind its name: type and class.
const QUESTION: usize = 4;

/// The name that a message asks for, in small letters, without a dot at its end. `None` if it has none, or one that no rule can
/// have: of letters, digits, `-` and `_`.
pub(super) fn asked(message: &[u8]) -> Option<String> {
    let wire = question(message)?.0;
    let mut text = String::with_capacity(wire.len());
    let mut rest = &wire[..];
    while let Some((&length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
        let (label, after) = after.split_at_checked(length.into())?;
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(*byte)));
        rest = after;
    }
    (!text.is_empty()).then_some(text)
}

/// The name of the only question, as on the wire in small letters, and where the question ends.
fn question(message: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [1, ..] = Header::read(message)?.counts else { return None };
    let (name, end) = name(message, HEADER)?;
    let class = message.get(end + 2..end + QUESTION)?;
    (class == CLASS_IN.to_be_bytes()).then_some((name, end + QUESTION))
}

/// The addresses that a response has for the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Addresses {
    /// In the order in which they are there.
    pub(super) addresses: Vec<IpAddr>,
    /// For how long they and every alias before them may be used, in seconds.
    pub(super) ttl: u32,
}

/// Reads the addresses, by way of aliases in the same response. `None`: it can't be read.
pub(super) fn addresses(message: &[u8]) -> Option<Addresses> {
    let [_, answers, ..] = Header::read(message)?.counts;
    let (mut owner, mut at) = question(message)?;
    let mut aliases: HashMap<Vec<u8>, (Vec<u8>, u32)> = HashMap::new();
    let mut found: HashMap<Vec<u8>, Vec<(IpAddr, u32)>> = HashMap::new();
    for _ in 0..answers {
        let record = Record::read(message, at)?;
        at = record.data.end;
        let data = message.get(record.data.clone())?;
        match record.kind {
            RecordType::A => {
                let octets: [u8; 4] = data.try_into().ok()?;
                found.entry(record.owner).or_default().push((Ipv4Addr::from(octets).into(), record.ttl));
            }
            RecordType::AAAA => {
                let octets: [u8; 16] = data.try_into().ok()?;
                found.entry(record.owner).or_default().push((Ipv6Addr::from(octets).to_canonical(), record.ttl));
            }
            RecordType::CNAME => {
                let (target, _) = name(message, record.data.start)?;
                aliases.insert(record.owner, (target, record.ttl));
            }
            _ => {}
        }
    }
    let (mut all, mut ttl) = (Vec::new(), u32::MAX);
    for _ in 0..=MOST_ALIASES {
        for (ip, of_record) in found.remove(&owner).into_iter().flatten() {
            all.push(ip);
            ttl = ttl.min(of_record);
        }
        let Some((target, of_alias)) = aliases.remove(&owner) else { break };
        ttl = ttl.min(of_alias);
        owner = target;
    }
    Some(Addresses { addresses: all, ttl })
}

/// A record of a message.
struct Record {
    owner: Vec<u8>,
    kind: RecordType,
    ttl: u32,
    data: Range<usize>,
}

impl Record {
    fn read(message: &[u8], at: usize) -> Option<Self> {
        let (owner, end) = name(message, at)?;
        let &[t0, t1, _, _, a, b, c, d, l0, l1] = message.get(end..)?.first_chunk()?;
        let ttl = u32::from_be_bytes([a, b, c, d]);
        let start = end + 10;
        let data = start..start + usize::from(u16::from_be_bytes([l0, l1]));
        message.get(data.clone())?;
        // What begins with a 1 is 0 (RFC 2181 section 8).
        let ttl = if ttl >> 31 == 1 { 0 } else { ttl };
        Some(Self { owner, kind: RecordType(u16::from_be_bytes([t0, t1])), ttl, data })
    }
}

/// A name in a message (RFC 1035 section 4.1.4), as on the wire without pointers in small letters, and where it ends.
fn name(message: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut wire, mut at, mut end, mut before) = (Vec::new(), start, None, start);
    loop {
        let length = usize::from(*message.get(at)?);
        if length & 0xc0 == 0xc0 {
            let to = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
            end.get_or_insert(at + 2);
            // Each leads further back than what led to it, so there is an end.
            if to >= before {
                return None;
            }
            (before, at) = (to, to);
            continue;
        }
        if length > MAX_LABEL || wire.len() + length + 1 > MAX_NAME {
            return None;
        }
        let label = message.get(at..at + 1 + length)?;
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
        at += 1 + length;
        if length == 0 {
            return Some((wire, end.unwrap_or(at)));
        }
    }
}

/// The response that says that there is none: to the same question, with the same OPT record.
pub(super) fn failed(message: &[u8]) -> Vec<u8> {
    let Some(header) = Header::read(message) else { return Vec::new() };
    let question = question(message).and_then(|(_, end)| message.get(HEADER..end)).unwrap_or_default();
    let opt = opt(message).unwrap_or_default();
    let kept = flags::RESPONSE
        | flags::OPCODE
        | flags::RECURSION_DESIRED
        | flags::RECURSION_AVAILABLE
        | flags::CHECKING_DISABLED;
    let mut bytes = Vec::with_capacity(HEADER + question.len() + opt.len());
    let counts = [u16::from(!question.is_empty()), 0, 0, u16::from(!opt.is_empty())];
    Header { id: header.id, flags: header.flags & kept | SERVFAIL, counts }.write(&mut bytes);
    bytes.extend_from_slice(question);
    bytes.extend_from_slice(opt);
    bytes
}

/// The OPT record of a message.
fn opt(message: &[u8]) -> Option<&[u8]> {
    let [_, answers, authorities, additionals] = Header::read(message)?.counts;
    let (_, mut at) = question(message)?;
    for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(additionals) {
        let record = Record::read(message, at)?;
        if record.kind == RecordType::OPT {
            return message.get(at..record.data.end);
        }
        at = record.data.end;
    }
    None
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};
    use hickory_proto::rr::{Name, RData, Record as Made, RecordType as Kind};
    use proptest::prelude::*;

    use super::*;

    fn wire(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// A response to a question for addresses with records of `owner ttl target`.
    fn response(asked: &str, records: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(wire(asked), Kind::A));
        for (owner, ttl, target) in records {
            let data = match target.parse::<IpAddr>() {
                Ok(IpAddr::V4(ip)) => RData::A(A(ip)),
                Ok(IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
                Err(_) => RData::CNAME(CNAME(wire(target))),
            };
            message.add_answer(Made::from_rdata(wire(owner), *ttl, data));
        }
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        message.edns = Some(edns);
        message.to_vec().unwrap()
    }

    fn read(asked: &str, records: &[(&str, u32, &str)]) -> (Vec<String>, u32) {
        let Addresses { addresses, ttl } = addresses(&response(asked, records)).unwrap();
        (addresses.iter().map(ToString::to_string).collect(), ttl)
    }

    #[test]
    fn p76_addresses_are_those_at_the_end_of_the_aliases() {
        assert_eq!(
            read("a.example.", &[("a.example.", 30, "192.0.2.1"), ("a.example.", 20, "192.0.2.2")]),
            (vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()], 20)
        );
        let chain = [
            ("c.example.net.", 50, "192.0.2.3"),
            ("b.example.net.", 10, "C.example.net."),
            ("A.example.", 40, "b.example.net."),
        ];
        assert_eq!(read("a.EXAMPLE.", &chain), (vec!["192.0.2.3".to_owned()], 10), "in whatever order and spelling");
        let other =
            [("a.example.", 30, "b.example."), ("x.example.", 30, "192.0.2.9"), ("b.example.", 30, "2001:db8::1")];
        assert_eq!(read("a.example.", &other).0, ["2001:db8::1"], "no record that nothing leads to");
        assert_eq!(read("a.example.", &[("a.example.", 30, "b.example.")]).0, Vec::<String>::new());
        let round = [("a.example.", 30, "b.example."), ("b.example.", 30, "a.example.")];
        assert_eq!(read("a.example.", &round).0, Vec::<String>::new());
        assert_eq!(read("a.example.", &[("a.example.", u32::MAX, "192.0.2.1")]).1, 0);
        assert_eq!(read("a.example.", &[("a.example.", 1, "::ffff:192.0.2.1")]).0, ["192.0.2.1"]);
    }

    #[test]
    fn names_that_no_rule_can_have_are_none() {
        let name = |text: &str| asked(&response(text, &[]));
        assert_eq!(name("WWW.Example.com.").as_deref(), Some("www.example.com"));
        assert_eq!(name("_dns.a-b.example.").as_deref(), Some("_dns.a-b.example"));
        assert_eq!(name("."), None);
        assert_eq!(name("a\\.b.example."), None, "a dot in a label");
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[0; 12]), None);
    }

    #[test]
    fn a_failure_repeats_the_question_and_has_no_address() {
        let bytes = failed(&response("a.example.", &[("a.example.", 30, "192.0.2.1")]));
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!((message.metadata.response_code, message.metadata.id), (ResponseCode::ServFail, 7));
        assert_eq!(message.queries[0].name(), &wire("a.example."));
        assert!(message.answers.is_empty() && message.metadata.recursion_desired);
        assert_eq!(message.edns.map(|edns| edns.max_payload()), Some(1232));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..400_usize, at in 0..400_usize, byte in any::<u8>()) {
            let _ = (asked(&bytes), addresses(&bytes), failed(&bytes));
            let mut whole = response("a.b.example.", &[("a.b.example.", 30, "c.example."), ("c.example.", 30, "192.0.2.1")]);
            if let Some(place) = whole.get_mut(at) {
                *place = byte;
            }
            whole.truncate(cut);
            let _ = (asked(&whole), addresses(&whole), failed(&whole));
        }
    }
}
