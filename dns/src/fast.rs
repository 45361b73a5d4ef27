//! Plain answers without a detour: a question for addresses in the zone, or for something that isn't there.
//!
//! What it writes is what [`full`](crate::full) would write, byte for byte: names are pointers into the question where
//! the question has them, and the client's spelling stays. Whatever it isn't sure of it leaves alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::manner::{Manner, Transport};
use crate::name::labels;
use crate::wire::{CLASS_IN, HEADER, Header, MIN_UDP, PlainQuery, RecordType, flags, rcode};
use crate::zone::{Answer, Zone};

/// A pointer to the question's name, which every message has at the same place.
const QUESTION: u16 = 0xc000 | HEADER as u16;
/// The fixed fields of an SOA after the serial: refresh, retry, expire, in seconds.
pub(crate) const SOA_TIMES: [u32; 3] = [7200, 1800, 86400];

/// The length of the SOA's data: `ns.dns` and `hostmaster` with a pointer behind each, and five numbers.
const SOA_DATA: u16 = (3 + 4 + 2) + (11 + 2) + 5 * 4;

/// What the short way says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'m> {
    /// The response is written.
    Written,
    /// The name is another zone's. `out` is as it was.
    Elsewhere(PlainQuery<'m>),
    /// It is not sure. `out` is as it was.
    Nothing,
}

/// Writes the response to a message that came over UDP into `out`, or leaves `out` alone and says `false`.
pub fn respond(zone: &Zone, manner: Manner, message: &[u8], out: &mut Vec<u8>) -> bool {
    say(zone, manner, Transport::Udp, message, out) == Said::Written
}

/// Writes the response to a message into `out`.
pub fn say<'m>(zone: &Zone, manner: Manner, transport: Transport, message: &'m [u8], out: &mut Vec<u8>) -> Said<'m> {
    let Some(query) = PlainQuery::read(message) else { return Said::Nothing };
    let mut lower = [0; crate::name::MAX_NAME];
    let Some(name) = lower.get_mut(..query.name.len()) else { return Said::Nothing };
    name.copy_from_slice(query.name);
    // The length bytes are below the letters.
    name.make_ascii_lowercase();
    if matches!(query.record_type, RecordType::AXFR | RecordType::IXFR) {
        return Said::Nothing;
    }
    let limit = manner.limit(transport, query.edns.map(|edns| edns.size));
    let room = limit.saturating_sub(HEADER + query.question.len() + query.edns.map_or(0, |_| OPT));
    let written = match zone.answer(name, query.record_type) {
        Answer::Elsewhere => return Said::Elsewhere(query),
        Answer::V4(addresses) if addresses.len() * (RECORD + 4) <= room => {
            let octets = rotated(&addresses, query.header.id).map(Ipv4Addr::octets);
            positive(zone, manner, &query, addresses.len(), octets, out)
        }
        Answer::V6(addresses) if addresses.len() * (RECORD + 16) <= room => {
            let octets = rotated(&addresses, query.header.id).map(Ipv6Addr::octets);
            positive(zone, manner, &query, addresses.len(), octets, out)
        }
        Answer::NoData => negative(zone, manner, &query, name, rcode::NO_ERROR, out),
        Answer::NoName => negative(zone, manner, &query, name, rcode::NO_NAME, out),
        _ => false,
    };
    if written { Said::Written } else { Said::Nothing }
}

/// The length of a record with a pointer for its owner, without its data.
const RECORD: usize = 12;
/// The length of an OPT record without options.
const OPT: usize = 11;

/// The place from which so many addresses are told.
pub(crate) fn rotated_start(count: usize, id: u16) -> usize {
    usize::from(id).checked_rem(count).unwrap_or(0)
}

/// Addresses from a place that the client's random id chooses: clients that take the first one spread, and every tier
/// gives the same bytes.
pub(crate) fn rotated<T>(addresses: &[T], id: u16) -> impl Iterator<Item = &T> {
    let start = rotated_start(addresses.len(), id);
    let (front, back) = addresses.split_at_checked(start).unwrap_or((addresses, &[]));
    back.iter().chain(front)
}

fn positive<const N: usize>(
    zone: &Zone,
    manner: Manner,
    query: &PlainQuery<'_>,
    count: usize,
    addresses: impl Iterator<Item = [u8; N]>,
    out: &mut Vec<u8>,
) -> bool {
    let Ok(count) = u16::try_from(count) else { return false };
    start(manner, query, rcode::NO_ERROR, [1, count, 0], out);
    for address in addresses {
        record(QUESTION, query.record_type, zone.ttl(), N as u16, out);
        out.extend_from_slice(&address);
    }
    finish(query, out);
    true
}

/// The part of a name in front of the zone's, if a negative answer about it is plain.
fn denied<'n>(zone: &Zone, name: &'n [u8]) -> Option<&'n [u8]> {
    let front = crate::name::strip_suffix(name, zone.origin().as_wire())?;
    let last = labels(front).last().unwrap_or_default();
    // The names in the SOA would be compressed against these, in some spellings only.
    (last != b"dns" && last != b"hostmaster").then_some(front)
}

/// Whether a negative answer about a name, in lower case, is plain.
pub(crate) fn is_denied(zone: &Zone, name: &[u8]) -> bool {
    denied(zone, name).is_some()
}

fn negative(zone: &Zone, manner: Manner, query: &PlainQuery<'_>, name: &[u8], rcode: u16, out: &mut Vec<u8>) -> bool {
    let Some(front) = denied(zone, name) else { return false };
    let Ok(offset) = u16::try_from(front.len()) else { return false };
    let origin = (QUESTION + offset).to_be_bytes();
    start(manner, query, rcode, [1, 0, 1], out);
    record(QUESTION + offset, RecordType::SOA, zone.soa_ttl(), SOA_DATA, out);
    out.extend_from_slice(b"\x02ns\x03dns");
    out.extend_from_slice(&origin);
    out.extend_from_slice(b"\x0ahostmaster");
    out.extend_from_slice(&origin);
    out.extend_from_slice(&zone.serial().to_be_bytes());
    for time in SOA_TIMES {
        out.extend_from_slice(&time.to_be_bytes());
    }
    out.extend_from_slice(&zone.ttl().to_be_bytes());
    finish(query, out);
    true
}

fn start(manner: Manner, query: &PlainQuery<'_>, rcode: u16, counts: [u16; 3], out: &mut Vec<u8>) {
    out.clear();
    let kept = query.header.flags & (flags::RECURSION_DESIRED | flags::CHECKING_DISABLED);
    let recursion = if manner.recursion { flags::RECURSION_AVAILABLE } else { 0 };
    let [questions, answers, authorities] = counts;
    Header {
        id: query.header.id,
        flags: flags::RESPONSE | flags::AUTHORITATIVE | kept | recursion | rcode,
        counts: [questions, answers, authorities, u16::from(query.edns.is_some())],
    }
    .write(out);
    out.extend_from_slice(query.question);
}

fn record(owner: u16, record_type: RecordType, ttl: u32, length: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&owner.to_be_bytes());
    out.extend_from_slice(&record_type.0.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

fn finish(query: &PlainQuery<'_>, out: &mut Vec<u8>) {
    if let Some(edns) = query.edns {
        // Less is to be treated as 512 (RFC 6891 section 6.2.3).
        let [high, low] = edns.size.max(MIN_UDP).to_be_bytes();
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, dnssec_ok, 0, 0, 0]);
    }
}
