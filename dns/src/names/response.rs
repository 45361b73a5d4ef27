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

/// The same response without addresses in records of services (SVCB, HTTPS: `ipv4hint` and `ipv6hint`, RFC 9460 section 7.3): a
/// client may use them in place of those that it asks for, and nobody opens them. `None` if there are none, or if it is signed:
/// then the client would take it for forged. It is no longer than what it replaces, which fits the client: where it would be,
/// since names are compressed that must not be (RFC 3597 section 4), there is none.
pub(super) fn without_hints(message: &[u8]) -> Option<Vec<u8>> {
    let header = Header::read(message)?;
    let [_, answers, ..] = header.counts;
    let (asked, end) = question(message)?;
    let opt = opt(message).unwrap_or_default();
    let mut bytes = Vec::with_capacity(message.len());
    let counts = [1, answers, 0, u16::from(!opt.is_empty())];
    Header { id: header.id, flags: header.flags & !flags::AUTHENTIC_DATA, counts }.write(&mut bytes);
    let mut names = Names::default();
    names.write(&asked, false, &mut bytes);
    bytes.extend(message.get(end.checked_sub(QUESTION)?..end)?);
    if bytes.len() != end {
        // The name that is asked for is compressed, and by nothing.
        return Some(failed(message));
    }
    // In the client's spelling.
    bytes.get_mut(HEADER..end)?.copy_from_slice(message.get(HEADER..end)?);
    let (mut at, mut has_hints) = (end, false);
    for _ in 0..answers {
        let record = Record::read(message, at)?;
        at = record.data.end;
        names.write(&record.owner, true, &mut bytes);
        // Its length comes after the data.
        bytes.extend(message.get(record.data.start.checked_sub(10)?..record.data.start)?);
        let start = bytes.len();
        match record.kind {
            RecordType::SVCB | RecordType::HTTPS => {
                let (target, target_end) = name(message, record.data.start + 2)?;
                let parameters = message.get(target_end..record.data.end)?;
                let left = without_hint_parameters(parameters)?;
                has_hints |= left.len() != parameters.len();
                bytes.extend(message.get(record.data.start..record.data.start + 2)?);
                names.write(&target, false, &mut bytes);
                bytes.extend(left);
            }
            RecordType::CNAME => names.write(&name(message, record.data.start)?.0, true, &mut bytes),
            RecordType::DNAME => names.write(&name(message, record.data.start)?.0, false, &mut bytes),
            // There are no names in them.
            RecordType::A | RecordType::AAAA | RecordType::TXT => bytes.extend(message.get(record.data)?),
            _ => return None,
        }
        let length = u16::try_from(bytes.len() - start).ok()?;
        bytes.get_mut(start - 2..start)?.copy_from_slice(&length.to_be_bytes());
    }
    bytes.extend(opt);
    if bytes.len() > message.len() {
        bytes = failed(message);
    }
    has_hints.then_some(bytes)
}

/// Where names are in a message that is written, by their wire format.
#[derive(Default)]
struct Names(HashMap<Vec<u8>, u16>);

impl Names {
    /// Writes a name to the end of a message, compressed (RFC 1035 section 4.1.4) or not.
    fn write(&mut self, name: &[u8], compressed: bool, bytes: &mut Vec<u8>) {
        /// Pointers lead to what begins before this.
        const REACH: usize = 1 << 14;
        let mut rest = name;
        while let Some((&length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
            if compressed && let Some(at) = self.0.get(rest) {
                return bytes.extend((0xc000 | at).to_be_bytes());
            }
            if let Some(at) = u16::try_from(bytes.len()).ok().filter(|at| usize::from(*at) < REACH) {
                self.0.entry(rest.to_vec()).or_insert(at);
            }
            let (label, after) = after.split_at_checked(length.into()).unwrap_or((after, &[]));
            bytes.push(length);
            bytes.extend(label);
            rest = after;
        }
        bytes.push(0);
    }
}

/// The parameters of a record of a service that are no addresses, nor ask for them (RFC 9460 sections 2.2 and 8).
fn without_hint_parameters(mut rest: &[u8]) -> Option<Vec<u8>> {
    const HINTS: [u16; 2] = [4, 6];
    let mut left = Vec::new();
    while !rest.is_empty() {
        let (&[k0, k1, l0, l1], behind) = rest.split_first_chunk()?;
        let (value, next) = behind.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        rest = next;
        let key = u16::from_be_bytes([k0, k1]);
        let is_hint = |key: &[u8]| HINTS.iter().any(|hint| key == hint.to_be_bytes());
        let value: Vec<u8> = match key {
            // Keys that the client has to know.
            0 => value.chunks(2).filter(|key| !is_hint(key)).flatten().copied().collect(),
            _ => value.to_vec(),
        };
        if HINTS.contains(&key) || key == 0 && value.is_empty() {
            continue;
        }
        left.extend([k0, k1]);
        left.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
        left.extend(value);
    }
    Some(left)
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

    /// A response to a question for the HTTPS record of `a.example`, with these parameters, behind an alias or not.
    fn https(parameters: &[u8], alias: bool) -> Vec<u8> {
        let mut bytes = vec![0, 7, 0x81, 0xa0, 0, 1, 0, 1 + u8::from(alias), 0, 0, 0, 0];
        bytes.extend(b"\x01a\x07example\0\0\x41\0\x01");
        let mut owner = vec![0xc0, 12];
        if alias {
            bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'b', 0xc0, 14]);
            owner = b"\x01b\x07example\0".to_vec();
        }
        bytes.extend(owner);
        bytes.extend([0, 0x41, 0, 1, 0, 0, 0, 30]);
        let data = [&[0, 1, 0][..], parameters].concat();
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn p76_records_of_services_have_no_addresses() {
        let alpn = [0, 1, 0, 3, 2, b'h', b'2'];
        let v4 = [0, 4, 0, 4, 192, 0, 2, 1];
        let v6 = [&[0, 6, 0, 16][..], &[1; 16]].concat();
        let mandatory = |keys: &[u8]| [&[0, 0, 0, keys.len() as u8][..], keys].concat();
        for alias in [false, true] {
            let stripped = without_hints(&https(&[&alpn[..], &v4, &v6].concat(), alias)).unwrap();
            let parsed = Message::from_vec(&stripped).unwrap();
            assert_eq!((parsed.answers.len(), parsed.metadata.authentic_data), (1 + usize::from(alias), false));
            assert!(stripped.ends_with(&[&[0, 10, 0, 1, 0][..], &alpn].concat()), "{stripped:?}");
            assert_eq!(asked(&stripped).as_deref(), Some("a.example"));
            assert_eq!(without_hints(&stripped), None);
        }
        let both = without_hints(&https(&[&mandatory(&[0, 1, 0, 4])[..], &alpn, &v4].concat(), false)).unwrap();
        assert!(both.ends_with(&[&mandatory(&[0, 1])[..], &alpn].concat()));
        let only = without_hints(&https(&[&mandatory(&[0, 4])[..], &v4].concat(), false)).unwrap();
        assert!(only.ends_with(&[0, 3, 0, 1, 0]));
        assert_eq!(without_hints(&https(&alpn, false)), None);
        assert_eq!(without_hints(&response("a.example.", &[("a.example.", 30, "b.example.")])), None);
    }

    /// A response to a question for HTTPS records behind so many aliases, with so many addresses.
    fn aliased(aliases: usize, hints: u8) -> Vec<u8> {
        let owner = |number| wire(&format!("Name-{number}.a-rather-long-zone.example.org."));
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.add_query(Query::query(owner(0), Kind::HTTPS));
        for number in 0..aliases {
            message.add_answer(Made::from_rdata(owner(number), 30, RData::CNAME(CNAME(owner(number + 1)))));
        }
        let hints = [&[0, 4, 0, hints * 4][..], &[192, 0, 2, 1].repeat(hints.into())].concat();
        let data = hickory_proto::rr::rdata::NULL::with([&[0, 1, 0][..], &hints].concat());
        let data = RData::Unknown { code: Kind::HTTPS, rdata: data };
        message.add_answer(Made::from_rdata(owner(aliases), 30, data));
        message.to_vec().unwrap()
    }

    #[test]
    fn p76_what_has_no_addresses_is_no_longer_than_what_had() {
        for aliases in [0, 1, 7, 500] {
            let before = aliased(aliases, 1);
            let after = without_hints(&before).unwrap();
            assert!(after.len() <= before.len() - 8, "{aliases}: {} for {}", after.len(), before.len());
            let (before, after) = [before, after].map(|bytes| Message::from_vec(&bytes).unwrap()).into();
            assert_eq!(before.queries, after.queries);
            let names = |message: &Message| -> Vec<(Name, Option<Name>)> {
                let target =
                    |record: &Made| if let RData::CNAME(target) = &record.data { Some(target.0.clone()) } else { None };
                message.answers.iter().map(|record| (record.name.clone(), target(record))).collect()
            };
            assert_eq!(names(&before), names(&after), "{aliases}");
        }
        // The target of a record is compressed, which it must not be.
        let compressed = |hints: u8| {
            let mut bytes = https(&[], false);
            bytes.truncate(bytes.len() - 5);
            bytes.extend([0, 8 + hints * 4, 0, 1, 0xc0, 12, 0, 4, 0, hints * 4]);
            bytes.extend([192, 0, 2, 1].repeat(hints.into()));
            without_hints(&bytes).map(|bytes| Message::from_vec(&bytes).unwrap()).unwrap()
        };
        let after = compressed(2);
        let RData::HTTPS(service) = &after.answers[0].data else { panic!("{after}") };
        assert_eq!((&service.0.target_name, service.0.svc_params.len()), (&wire("a.example."), 0));
        let after = compressed(1);
        assert_eq!(
            (after.metadata.response_code, after.answers.len()),
            (ResponseCode::ServFail, 0),
            "it would be longer"
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..400_usize, at in 0..400_usize, byte in any::<u8>()) {
            let _ = (asked(&bytes), addresses(&bytes), failed(&bytes), without_hints(&bytes));
            let mut made = https(&bytes, cut % 2 == 0);
            if let Some(place) = made.get_mut(at) {
                *place = byte;
            }
            let _ = without_hints(&made);
            let mut whole = response("a.b.example.", &[("a.b.example.", 30, "c.example."), ("c.example.", 30, "192.0.2.1")]);
            if let Some(place) = whole.get_mut(at) {
                *place = byte;
            }
            whole.truncate(cut);
            let _ = (asked(&whole), addresses(&whole), failed(&whole));
        }
    }
}
