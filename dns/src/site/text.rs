//! Names and records as text.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinDecodable;

use crate::WireName;
use crate::name::labels;

/// A name in lower case with a dot at its end, if it can be written without escapes.
#[must_use]
pub fn of_wire(name: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in labels(name) {
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_*/+".contains(byte)) {
            return None;
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        text.push('.');
    }
    if text.is_empty() {
        text.push('.');
    }
    Some(text)
}

/// A name as the codec has it.
pub(super) fn name(text: &str) -> Option<Name> {
    Name::from_bytes(WireName::parse(text).ok()?.as_wire()).ok()
}

/// Reads a record: `NAME [TTL] [CLASS] TYPE DATA...`, of the types that templates are written for.
///
/// # Errors
/// What is wrong with it.
pub fn record(text: &str) -> Result<Record, String> {
    let words = words(text);
    let mut rest = words.iter().map(String::as_str);
    let owner = rest.next().and_then(name).ok_or("it does not begin with a name")?;
    let mut ttl = 3600;
    let mut kind = rest.next().unwrap_or_default();
    if let Ok(seconds) = kind.parse() {
        ttl = seconds;
        kind = rest.next().unwrap_or_default();
    }
    if kind.eq_ignore_ascii_case("IN") {
        kind = rest.next().unwrap_or_default();
    }
    let rest: Vec<&str> = rest.collect();
    let data = data(&kind.to_ascii_uppercase(), &rest)?;
    Ok(Record::from_rdata(owner, ttl, data))
}

fn data(kind: &str, words: &[&str]) -> Result<RData, String> {
    let wrong = || format!("{:?} is not valid data for {kind}", words.join(" "));
    let host = |at: usize| words.get(at).copied().and_then(name).ok_or_else(wrong);
    let small = |at: usize| words.get(at).and_then(|word| word.parse::<u16>().ok()).ok_or_else(wrong);
    let one = |data| if words.len() == 1 { Ok(data) } else { Err(wrong()) };
    match kind {
        "A" => one(RData::A(A(words.first().and_then(|w| w.parse::<Ipv4Addr>().ok()).ok_or_else(wrong)?))),
        "AAAA" => one(RData::AAAA(AAAA(words.first().and_then(|w| w.parse::<Ipv6Addr>().ok()).ok_or_else(wrong)?))),
        "CNAME" => one(RData::CNAME(CNAME(host(0)?))),
        "NS" => one(RData::NS(NS(host(0)?))),
        "PTR" => one(RData::PTR(PTR(host(0)?))),
        "MX" => Ok(RData::MX(MX::new(small(0)?, host(1)?))),
        "SRV" => Ok(RData::SRV(SRV::new(small(0)?, small(1)?, small(2)?, host(3)?))),
        "TXT" if !words.is_empty() && words.iter().all(|word| word.len() <= 255) => {
            Ok(RData::TXT(TXT::new(words.iter().map(|word| (*word).to_owned()).collect())))
        }
        "SOA" => {
            let words: Vec<&str> = words.iter().copied().filter(|word| !matches!(*word, "(" | ")")).collect();
            let time = |at: usize| {
                let word = words.get(at).map(|word| word.trim_matches(['(', ')'])).ok_or_else(wrong)?;
                word.parse::<u32>().map_err(|_| wrong())
            };
            let host = |at: usize| words.get(at).copied().and_then(name).ok_or_else(wrong);
            let signed = |at| time(at).map(u32::cast_signed);
            let (refresh, retry, expire) = (signed(3)?, signed(4)?, signed(5)?);
            Ok(RData::SOA(SOA::new(host(0)?, host(1)?, time(2)?, refresh, retry, expire, time(6)?)))
        }
        "" => Err("it has no type".to_owned()),
        _ => Err(format!(
            "records of type {kind} can't be written here: use A, AAAA, CNAME, MX, NS, PTR, SOA, SRV or TXT"
        )),
    }
}

/// Words, of which one in quotes may have spaces.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&next) = chars.peek() {
        if next.is_whitespace() {
            chars.next();
            continue;
        }
        let quoted = chars.next_if_eq(&'"').is_some();
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| if quoted { *c != '"' } else { !c.is_whitespace() }) {
            word.push(c);
        }
        if quoted {
            chars.next();
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_zone_files_have_them() {
        for (text, shown) in [
            ("a.example. 60 IN A 192.0.2.1", "a.example. 60 IN A 192.0.2.1"),
            ("a.example 60 AAAA 2001:db8::1", "a.example. 60 IN AAAA 2001:db8::1"),
            ("a.example. IN CNAME b.example.", "a.example. 3600 IN CNAME b.example."),
            ("a.example. 5 IN SRV 0 1 53 b.example.", "a.example. 5 IN SRV 0 1 53 b.example."),
            ("a. 60 IN SOA ns.a. host.a. (1 60 60 60 30)", "a. 60 IN SOA ns.a. host.a. 1 60 60 60 30"),
        ] {
            assert_eq!(record(text).unwrap().to_string(), shown);
        }
        let text = record("a. 60 IN TXT \"one two\" three").unwrap();
        assert!(matches!(&text.data, RData::TXT(txt) if txt.txt_data.len() == 2), "{text}");
        for (text, word) in
            [("", "name"), ("a.", "type"), ("a. A x", "data"), ("a. A 1.1.1.1 x", "data"), ("a. LOC 1", "LOC")]
        {
            assert!(record(text).unwrap_err().contains(word), "{text}");
        }
    }
}
