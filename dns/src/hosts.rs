//! Names with fixed addresses, as hosts(5) writes them: `ADDRESS NAME [NAME...]`.
//!
//! They come before what upstream servers say. A name that is here has no other addresses: where it has none of a family
//! there is no data. Addresses lead back to their names.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::BinDecodable;

use crate::WireName;
use crate::name::strip_suffix;
use crate::wire::RecordType;
use crate::zone::address_of;

/// How many names of an address are given: more don't fit into any message, and lists of names that are to lead nowhere
/// have a hundred thousand of them.
const MOST: usize = 65_535 / 15;

/// Names and their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    names: HashMap<WireName, Vec<IpAddr>>,
    addresses: HashMap<IpAddr, Vec<WireName>>,
}

/// A line that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {text:?} can't be read: write an address and one or more names, such as `192.0.2.1 a.example`")]
pub struct WrongLine {
    /// Its number, from 1.
    pub number: usize,
    /// What it says.
    pub text: String,
}

impl Hosts {
    /// Reads lines of hosts(5).
    ///
    /// # Errors
    /// The first line that can't be read.
    pub fn parse(text: &str) -> Result<Self, WrongLine> {
        let mut hosts = Self::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = || WrongLine { number: index + 1, text: line.to_owned() };
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(address) = words.next() else { continue };
            // A link is no matter to whoever asks, and IPv4 may be written as IPv6 has it.
            let address = address.split('%').next().unwrap_or_default();
            let address = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
            let names: Vec<WireName> = words.map(WireName::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
            if names.is_empty() {
                return Err(wrong());
            }
            names.into_iter().for_each(|name| hosts.add(name, address));
        }
        Ok(hosts)
    }

    fn add(&mut self, name: WireName, address: IpAddr) {
        let addresses = self.names.entry(name.clone()).or_default();
        // A name has few addresses, but an address may have very many names.
        if !addresses.contains(&address) {
            addresses.push(address);
            self.addresses.entry(address).or_default().push(name);
        }
    }

    /// Reads what can be read of lines of hosts(5); the others are left out.
    #[must_use]
    pub fn parse_leniently(text: &str) -> (Self, Vec<WrongLine>) {
        let mut wrong = Vec::new();
        let mut hosts = Self::default();
        for (index, line) in text.lines().enumerate() {
            match Self::parse(line) {
                Ok(more) => hosts = hosts.and(more),
                Err(line) => wrong.push(WrongLine { number: index + 1, ..line }),
            }
        }
        (hosts, wrong)
    }

    /// These and those; where both have a name, the addresses of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        // Each list by itself, so that all stay in the order of the lines.
        let Self { names: own, addresses } = &mut self;
        for (address, names) in other.addresses {
            let is_new = |name: &WireName| own.get(name).is_none_or(|known| !known.contains(&address));
            addresses.entry(address).or_default().extend(names.into_iter().filter(is_new));
        }
        for (name, more) in other.names {
            let known = own.entry(name).or_default();
            let new: Vec<IpAddr> = more.into_iter().filter(|address| !known.contains(address)).collect();
            known.extend(new);
        }
        self
    }

    /// Whether there are names in a zone.
    #[must_use]
    pub fn has_names_in(&self, zone: &WireName) -> bool {
        self.names.keys().any(|name| strip_suffix(name.as_wire(), zone.as_wire()).is_some())
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether it has something to say to a question; the name in lower case and wire format.
    #[must_use]
    pub fn knows(&self, name: &[u8], record_type: RecordType) -> bool {
        if record_type == RecordType::PTR {
            self.pointers(name, record_type).is_some()
        } else {
            self.names.contains_key(name)
        }
    }

    fn pointers(&self, name: &[u8], record_type: RecordType) -> Option<&Vec<WireName>> {
        let address = if record_type == RecordType::PTR { address_of(name) } else { None };
        self.addresses.get(&address?)
    }

    /// The records, whose owner is written as the client has it, with this TTL; none at all for a name that is here and
    /// has no such record. `None`: the name is not here, or an address is asked for that has no name.
    #[must_use]
    pub fn records(&self, name: &[u8], record_type: RecordType, owner: &Name, ttl: u32) -> Option<Vec<Record>> {
        let record = |data| Record::from_rdata(owner.clone(), ttl, data);
        if record_type == RecordType::PTR {
            let targets = self.pointers(name, record_type)?;
            let targets = targets.iter().take(MOST).filter_map(|target| Name::from_bytes(target.as_wire()).ok());
            return Some(targets.map(|target| record(RData::PTR(PTR(target)))).collect());
        }
        let addresses = self.names.get(name)?;
        let data = addresses.iter().filter_map(|address| match (address, record_type) {
            (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
            (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
            _ => None,
        });
        Some(data.map(record).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_stay_in_the_order_of_the_lines() {
        let hosts = |text: &str| Hosts::parse(text).unwrap();
        let lines = "192.0.2.9 a b\n192.0.2.1 b a\n192.0.2.5 a\n192.0.2.3 a";
        let all = hosts(lines);
        assert_eq!(Hosts::default().and(hosts(lines)), all);
        assert_eq!(hosts("192.0.2.9 a").and(all.clone()), all);
        assert_eq!(Hosts::parse_leniently(lines).0, all);
    }

    #[test]
    fn lines_are_read_and_mistakes_named() {
        let hosts = Hosts::parse("# a\n192.0.2.1 a.example b.example # c\n\n2001:db8::1\ta.example\n").unwrap();
        let name = WireName::parse("a.example").unwrap();
        let owner = Name::from_ascii("A.example.").unwrap();
        let lines = |kind| -> Vec<String> {
            hosts.records(name.as_wire(), kind, &owner, 30).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(lines(RecordType::A), ["A.example. 30 IN A 192.0.2.1"]);
        assert_eq!(lines(RecordType::AAAA), ["A.example. 30 IN AAAA 2001:db8::1"]);
        assert_eq!(lines(RecordType::TXT), Vec::<String>::new());
        let reverse = WireName::parse("1.2.0.192.in-addr.arpa").unwrap();
        assert!(hosts.knows(reverse.as_wire(), RecordType::PTR) && !hosts.knows(reverse.as_wire(), RecordType::A));
        for (text, number) in [("192.0.2.1 a\nnobody b", 2), ("192.0.2.1", 1), ("192.0.2.1 a..b", 1)] {
            assert_eq!(Hosts::parse(text).unwrap_err().number, number);
        }
    }

    #[test]
    fn a_list_of_very_many_names_of_one_address_takes_no_time() {
        let text: String = (0..100_000).map(|n| format!("0.0.0.0 ads-{n}.example\n")).collect();
        let begin = std::time::Instant::now();
        let hosts = Hosts::parse(&text).unwrap();
        let (again, wrong) = Hosts::parse_leniently(&text);
        // Each name compared with each before it would be five thousand million comparisons.
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(wrong.is_empty() && hosts == again);
        let reverse = WireName::parse("0.0.0.0.in-addr.arpa").unwrap();
        let given = hosts.records(reverse.as_wire(), RecordType::PTR, &Name::root(), 30).unwrap();
        assert_eq!(given.len(), MOST);
        assert!(hosts.knows(WireName::parse("ads-99999.example").unwrap().as_wire(), RecordType::A));
    }

    #[test]
    fn two_sources_are_put_together() {
        let one = Hosts::parse("192.0.2.1 a").unwrap();
        let both = one.and(Hosts::parse("192.0.2.2 a b\n192.0.2.1 c").unwrap());
        assert_eq!(both, Hosts::parse("192.0.2.1 a c\n192.0.2.2 a b").unwrap());
    }
}
