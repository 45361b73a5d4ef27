//! Addresses of IPv6 for servers that have only IPv4 (RFC 6147), so that clients without IPv4 reach them by NAT64.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::AAAA;
use hickory_proto::rr::{RData, Record};

use crate::wire::RecordType;

/// How long what is made may be kept where nothing says how long the absence of IPv6 may be (RFC 6147 section 5.1.7).
const UNKNOWN: u32 = 600;

/// The network that IPv4 addresses are put into (RFC 6052).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    network: Ipv6Addr,
    bytes: usize,
}

impl Prefix {
    /// `64:ff9b::/96`, which every NAT64 has (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self { network: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), bytes: 12 };

    /// Reads `NETWORK/LENGTH`, with one of the lengths that RFC 6052 has: 32, 40, 48, 56, 64 or 96.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (network, length) = text.split_once('/')?;
        let (network, length): (Ipv6Addr, u32) = (network.parse().ok()?, length.parse().ok()?);
        let known = matches!(length, 32 | 40 | 48 | 56 | 64 | 96);
        let mask = u128::MAX.checked_shl(128 - length).filter(|_| known)?;
        let network = Ipv6Addr::from_bits(network.to_bits() & mask);
        Some(Self { network, bytes: usize::try_from(length / 8).ok()? })
    }

    /// The address of IPv6 that stands for one of IPv4. The ninth byte is always 0 (RFC 6052 section 2.2).
    #[must_use]
    pub fn embed(self, address: Ipv4Addr) -> Ipv6Addr {
        let mut bytes = self.network.octets();
        let places = bytes.iter_mut().enumerate().filter(|(at, _)| *at >= self.bytes && *at != 8);
        places.zip(address.octets()).for_each(|((_, place), byte)| *place = byte);
        bytes.into()
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { network, bytes } = self;
        write!(f, "{network}/{}", bytes * 8)
    }
}

/// For whom and for what addresses are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dns64 {
    /// The network that they are in.
    pub prefix: Prefix,
    /// Names that have addresses of IPv6 get these instead.
    pub all: bool,
    /// Clients that ask over IPv4 get them too.
    pub over_v4: bool,
}

impl Dns64 {
    /// Whether a question's answer may be another with this.
    #[must_use]
    pub fn is_for(&self, record_type: RecordType, client: IpAddr) -> bool {
        record_type == RecordType::AAAA && (self.over_v4 || client.to_canonical().is_ipv6())
    }

    /// Whether addresses of IPv4 are to be looked for after this answer. A name that does not exist has none.
    #[must_use]
    pub fn is_wanted(&self, answer: &Message) -> bool {
        let usable = |record: &Record| matches!(record.data, RData::AAAA(address) if !is_excluded(address));
        answer.metadata.response_code != ResponseCode::NXDomain && (self.all || !answer.answers.iter().any(usable))
    }

    /// The answer of a name that has addresses of IPv6.
    #[must_use]
    pub fn native(mut answer: Message) -> Message {
        answer.answers.retain(|record| !matches!(record.data, RData::AAAA(address) if is_excluded(address)));
        answer
    }

    /// The answer that is made of one to the question for IPv6 and one to the question for IPv4: the first, if there is
    /// no address of IPv4 (RFC 6147 section 5.1.6).
    #[must_use]
    pub fn synthesize(&self, v6: Message, mut v4: Message) -> Message {
        if !v4.answers.iter().any(|record| matches!(record.data, RData::A(_))) {
            return Self::native(v6);
        }
        let denial = v6.authorities.iter().find(|record| matches!(record.data, RData::SOA(_)));
        let most = denial.map_or(UNKNOWN, |soa| soa.ttl);
        for record in &mut v4.answers {
            if let RData::A(address) = record.data {
                record.data = RData::AAAA(AAAA(self.prefix.embed(address.0)));
                record.ttl = record.ttl.min(most);
            }
        }
        // Nobody has signed this.
        (v4.metadata.authentic_data, v4.metadata.authoritative) = (false, false);
        v4
    }
}

/// Addresses of IPv4 as IPv6 writes them lead nowhere (RFC 6147 section 5.1.4).
fn is_excluded(address: AAAA) -> bool {
    address.0.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_put_where_rfc_6052_has_them() {
        // The examples of its section 2.4.
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let prefix = Prefix::parse(prefix).unwrap();
            assert_eq!(prefix.embed(Ipv4Addr::new(192, 0, 2, 33)), address.parse::<Ipv6Addr>().unwrap(), "{prefix}");
        }
        assert_eq!(Prefix::parse("64:ff9b::/96"), Some(Prefix::WELL_KNOWN));
        assert_eq!(Prefix::parse("64:ff9b::1/96"), Some(Prefix::WELL_KNOWN), "what is behind the length is no matter");
        for wrong in ["64:ff9b::", "64:ff9b::/95", "64:ff9b::/72", "64:ff9b::/128", "64:ff9b::/0", "10.0.0.0/8", "x/96"]
        {
            assert_eq!(Prefix::parse(wrong), None, "{wrong}");
        }
    }
}
