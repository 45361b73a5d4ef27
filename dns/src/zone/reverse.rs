//! Addresses that are written as names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::{labels, strip_suffix};

const IN_ADDR: &[u8] = b"\x07in-addr\x04arpa\x00";
const IP6: &[u8] = b"\x03ip6\x04arpa\x00";

/// The address that a complete name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 section 3.5, RFC 3596
/// section 2.5). The name in lower case.
#[must_use]
pub fn address_of(name: &[u8]) -> Option<IpAddr> {
    if let Some(front) = strip_suffix(name, IN_ADDR) {
        let mut octets = [0; 4];
        let mut count = 0;
        for label in labels(front) {
            *octets.iter_mut().rev().nth(count)? = octet(label)?;
            count += 1;
        }
        return (count == 4).then(|| Ipv4Addr::from(octets).into());
    }
    let front = strip_suffix(name, IP6)?;
    let mut address = 0_u128;
    let mut count = 0;
    for label in labels(front) {
        let [digit] = label else { return None };
        address = (address >> 4) | (u128::from(char::from(*digit).to_digit(16)?) << 124);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(address).into())
}

/// An octet as it is written: no sign, no zeros in front.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    text.parse().ok().filter(|value: &u8| value.to_string() == text)
}

/// The address in the first label of a pod's name: `10-0-0-1`, or with dashes for colons.
pub(super) fn pod_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    if text.matches('-').count() == 3 && !text.contains("--") {
        text.replace('-', ".").parse().ok().map(IpAddr::V4)
    } else {
        text.replace('-', ":").parse().ok().map(IpAddr::V6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WireName;

    fn of(text: &str) -> Option<IpAddr> {
        address_of(WireName::parse(text).unwrap().as_wire())
    }

    #[test]
    fn reads_reverse_names() {
        assert_eq!(of("1.0.96.10.in-addr.arpa"), Some("10.96.0.1".parse().unwrap()));
        let nibbles = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(of(nibbles), Some("fd00:10:96::a".parse().unwrap()));
        for bad in
            ["0.96.10.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "01.0.96.10.in-addr.arpa", "256.1.1.1.in-addr.arpa"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(of("f.ip6.arpa"), None);
        assert_eq!(of(&nibbles.replacen('a', "ab", 1)), None);
        assert_eq!(of(&nibbles.replacen('a', "g", 1)), None);
    }
}
