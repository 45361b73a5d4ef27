//! Messages as bytes.
//!
//! Names are pointers to where they, or their ends, stand already in the same spelling (RFC 1035 section 4.1.4), however
//! many there are; the names in an SRV record are written whole (RFC 2782) and pointed to. A message can be cut behind any
//! record, since pointers only lead back.

use std::collections::HashMap;

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinEncodable;

use crate::name::wire_of;
use crate::wire::{HEADER, Header, flags};

/// The longest message.
const LONGEST: usize = 65535;
/// What a pointer can reach.
const REACH: usize = 0x4000;

/// Writes a message that has at most `limit` bytes. What is too much is left out from the end; TC says so, unless only
/// additional records are missing and the message is as long as any can be: nobody could fetch them otherwise.
pub(crate) fn encode(message: &Message, limit: usize) -> Vec<u8> {
    let Message { metadata, queries, answers, authorities, additionals, edns, .. } = message;
    let mut writer = Writer { out: Vec::with_capacity(512), names: HashMap::new() };
    writer.out.resize(HEADER, 0);
    queries.iter().for_each(|query| writer.query(query));
    let room = limit.min(LONGEST).saturating_sub(edns.as_ref().map_or(0, |_| OPT));
    let mut counts = [u16::try_from(queries.len()).unwrap_or(0), 0, 0, 0];
    let mut cut = None;
    'sections: for (section, records) in [answers, authorities, additionals].into_iter().enumerate() {
        for record in records {
            let end = writer.out.len();
            if writer.record(record).is_none() || writer.out.len() > room {
                writer.out.truncate(end);
                cut = Some(section);
                break 'sections;
            }
            counts[section + 1] += 1;
        }
    }
    if let Some(edns) = edns {
        writer.opt(edns, metadata.response_code.high());
        counts[3] += 1;
    }
    let truncated = metadata.truncation || cut.is_some_and(|section| section < 2 || limit < LONGEST);
    let flag = |is: bool, bit: u16| if is { bit } else { 0 };
    let mut header = Vec::with_capacity(HEADER);
    Header {
        id: metadata.id,
        flags: flag(metadata.message_type == MessageType::Response, flags::RESPONSE)
            | u16::from(u8::from(metadata.op_code)) << 11
            | flag(metadata.authoritative, flags::AUTHORITATIVE)
            | flag(truncated, flags::TRUNCATED)
            | flag(metadata.recursion_desired, flags::RECURSION_DESIRED)
            | flag(metadata.recursion_available, flags::RECURSION_AVAILABLE)
            | flag(metadata.authentic_data, flags::AUTHENTIC_DATA)
            | flag(metadata.checking_disabled, flags::CHECKING_DISABLED)
            | u16::from(metadata.response_code.low()),
        counts,
    }
    .write(&mut header);
    if let Some(start) = writer.out.get_mut(..HEADER) {
        start.copy_from_slice(&header);
    }
    writer.out
}

/// The length of an OPT record without options.
const OPT: usize = 11;

struct Writer {
    out: Vec<u8>,
    /// Where names and their ends stand.
    names: HashMap<Vec<u8>, u16>,
}

impl Writer {
    fn word(&mut self, word: u16) {
        self.out.extend_from_slice(&word.to_be_bytes());
    }

    fn query(&mut self, query: &Query) {
        self.name(query.name(), true);
        self.word(query.query_type().into());
        self.word(query.query_class().into());
    }

    /// Writes a name, with a pointer for as much of it as can be.
    fn name(&mut self, name: &Name, pointers: bool) {
        let wire = wire_of(name);
        let mut at = 0;
        while let Some(rest) = wire.get(at..).filter(|rest| rest.len() > 1) {
            if let Some(known) = self.names.get(rest).copied().filter(|_| pointers) {
                self.word(0xc000 | known);
                return;
            }
            let here = self.out.len();
            if let Ok(here) = u16::try_from(here)
                && usize::from(here) < REACH
            {
                self.names.entry(rest.to_vec()).or_insert(here);
            }
            let label = usize::from(rest[0]) + 1;
            self.out.extend_from_slice(rest.get(..label).unwrap_or_default());
            at += label;
        }
        self.out.push(0);
    }

    /// Writes a record; nothing of one whose data can't be written.
    fn record(&mut self, record: &Record) -> Option<()> {
        self.name(&record.name, true);
        self.word(record.record_type().into());
        self.word(record.dns_class.into());
        self.out.extend_from_slice(&record.ttl.to_be_bytes());
        let start = self.out.len();
        self.word(0);
        match &record.data {
            RData::A(address) => self.out.extend_from_slice(&address.octets()),
            RData::AAAA(address) => self.out.extend_from_slice(&address.octets()),
            RData::CNAME(name) => self.name(name, true),
            RData::NS(name) => self.name(name, true),
            RData::PTR(name) => self.name(name, true),
            RData::SOA(soa) => {
                self.name(&soa.mname, true);
                self.name(&soa.rname, true);
                for number in [soa.serial, soa.refresh.cast_unsigned(), soa.retry.cast_unsigned()] {
                    self.out.extend_from_slice(&number.to_be_bytes());
                }
                self.out.extend_from_slice(&soa.expire.to_be_bytes());
                self.out.extend_from_slice(&soa.minimum.to_be_bytes());
            }
            RData::SRV(srv) => {
                self.word(srv.priority);
                self.word(srv.weight);
                self.word(srv.port);
                self.name(&srv.target, false);
            }
            other => self.out.extend(other.to_bytes().ok()?),
        }
        let length = u16::try_from(self.out.len() - start - 2).ok()?;
        self.out.get_mut(start..start + 2)?.copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    fn opt(&mut self, edns: &Edns, code: u8) {
        let [high, low] = edns.max_payload().to_be_bytes();
        let dnssec_ok = if edns.flags().dnssec_ok { 0x80 } else { 0 };
        self.out.extend_from_slice(&[0, 0, 41, high, low, code, 0, dnssec_ok, 0, 0, 0]);
    }
}
