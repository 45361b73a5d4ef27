//! Who may ask what.

use std::net::IpAddr;

use crate::WireName;
use crate::wire::RecordType;

use super::scope::covers;

/// A network of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: u128,
    length: u8,
    v6: bool,
}

impl Prefix {
    /// Reads `ADDR/LENGTH` or `ADDR`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(most);
        (length <= most).then(|| Self { address: bits(address), length, v6: address.is_ipv6() })
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        // Of 128 bits, the address' own are the first.
        let differ = bits(address) ^ self.address;
        address.is_ipv6() == self.v6 && differ.checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// What becomes of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered.
    Allow,
    /// It is refused.
    Block,
    /// It gets an empty answer.
    Filter,
    /// It gets none.
    Drop,
}

/// One of the rules for some zones; the first that a query is as decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRule {
    /// The zones.
    pub zones: Vec<WireName>,
    /// What becomes of queries that are as the rest says.
    pub verdict: Verdict,
    /// Their types; none: all.
    pub types: Vec<RecordType>,
    /// Where they come from; none: from everywhere.
    pub sources: Vec<Prefix>,
}

/// What becomes of a query with this name, in lower case and wire format.
#[must_use]
pub fn judge(rules: &[AclRule], name: &[u8], record_type: RecordType, client: IpAddr) -> Verdict {
    let meets = |rule: &&AclRule| {
        covers(&rule.zones, name)
            && (rule.types.is_empty() || rule.types.contains(&record_type))
            && (rule.sources.is_empty() || rule.sources.iter().any(|source| source.contains(client)))
    };
    rules.iter().find(meets).map_or(Verdict::Allow, |rule| rule.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        for (prefix, address, is_in) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
            ("2001:db8::/32", "2001:db9::", false),
        ] {
            assert_eq!(Prefix::parse(prefix).unwrap().contains(address.parse().unwrap()), is_in, "{prefix} {address}");
        }
        for wrong in ["10.0.0.0/33", "::/129", "x", "10.0.0.0/x", ""] {
            assert_eq!(Prefix::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let zone = |text| vec![WireName::parse(text).unwrap()];
        let inside = vec![Prefix::parse("10.0.0.0/8").unwrap()];
        let rules = [
            AclRule { zones: zone("."), verdict: Verdict::Allow, types: vec![], sources: inside.clone() },
            AclRule { zones: zone("a"), verdict: Verdict::Filter, types: vec![RecordType::A], sources: vec![] },
            AclRule { zones: zone("."), verdict: Verdict::Block, types: vec![], sources: vec![] },
        ];
        let name = WireName::parse("x.a").unwrap();
        let judged = |kind, client: &str| judge(&rules, name.as_wire(), kind, client.parse().unwrap());
        assert_eq!(judged(RecordType::A, "10.1.1.1"), Verdict::Allow);
        assert_eq!(judged(RecordType::A, "192.0.2.1"), Verdict::Filter);
        assert_eq!(judged(RecordType::AAAA, "192.0.2.1"), Verdict::Block);
        assert_eq!(judge(&[], name.as_wire(), RecordType::A, "192.0.2.1".parse().unwrap()), Verdict::Allow);
    }
}
