//! Addresses and prefixes as Kubernetes has always read them, which is more than a strict parser does.
//!
//! Objects stored long ago keep what was legal then: leading zeros (decimal, never octal), host bits set in a CIDR,
//! IPv4 addresses written as IPv6. They mean today what they meant then (`ParseIPSloppy` and `ParseCIDRSloppy` of
//! k8s.io/utils/net), and everybody downstream sees one canonical form.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// Bits in front of the IPv4 address in a v4-mapped IPv6 address (RFC 4291, 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// Reads an address; a v4-mapped one is IPv4.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    parse(text).map(|ip| ip.to_canonical())
}

/// Reads a prefix and clears its host bits; a v4-mapped one is IPv4.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    let length = parse_decimal(length).and_then(|n| u8::try_from(n).ok())?;
    match parse(address)? {
        IpAddr::V4(ip) => v4_network(ip, length),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) if length >= MAPPED_BITS => v4_network(ip, length.checked_sub(MAPPED_BITS)?),
            _ => {
                let network = Ipv6Network::new(ip, length).ok()?;
                Ipv6Network::new(network.network(), length).ok().map(IpNetwork::V6)
            }
        },
    }
}

fn v4_network(ip: Ipv4Addr, length: u8) -> Option<IpNetwork> {
    let network = Ipv4Network::new(ip, length).ok()?;
    Ipv4Network::new(network.network(), length).ok().map(IpNetwork::V4)
}

fn parse(text: &str) -> Option<IpAddr> {
    if text.contains(':') { parse_v6(text).map(IpAddr::V6) } else { parse_v4(text).map(IpAddr::V4) }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = parts.next().and_then(parse_decimal).and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    // The standard parser refuses zeros in front of a group that already has four digits, and in an IPv4 tail.
    let mut groups: Vec<String> = text.split(':').map(strip_group).collect();
    if let Some(tail) = groups.last_mut().filter(|tail| tail.contains('.')) {
        *tail = parse_v4(tail)?.to_string();
    }
    groups.join(":").parse().ok()
}

fn strip_group(group: &str) -> String {
    if group.len() <= 4 || group.contains('.') {
        return group.to_owned();
    }
    let stripped = group.trim_start_matches('0');
    if stripped.is_empty() { "0".to_owned() } else { stripped.to_owned() }
}

/// A decimal number with any number of zeros in front.
fn parse_decimal(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(())?;
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Option<String> {
        parse_cidr(text).map(|n| n.to_string())
    }

    #[test]
    fn p18_host_bits_are_cleared() {
        assert_eq!(cidr("10.161.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(cidr("fd00:1:2::3/32").as_deref(), Some("fd00:1::/32"));
        assert_eq!(cidr("10.0.0.1/0").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(cidr("10.0.0.1/32").as_deref(), Some("10.0.0.1/32"));
    }

    #[test]
    fn p18_leading_zeros_are_decimal() {
        assert_eq!(cidr("010.001.00.0/08").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(parse_ip("172.030.0.011"), Some("172.30.0.11".parse().unwrap()));
        assert_eq!(parse_ip("00fd00::00001"), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn p18_v4_mapped_is_v4() {
        assert_eq!(cidr("::ffff:10.1.2.3/104").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(cidr("::ffff:010.1.2.3/128").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(cidr("::ffff:a01:203/96").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(parse_ip("::ffff:10.1.2.3"), Some("10.1.2.3".parse().unwrap()));
        // Shorter than the mapping itself, it is a prefix of IPv6.
        assert_eq!(cidr("::ffff:10.1.2.3/64").as_deref(), Some("::/64"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "10.0.0", "10.0.0.0.0", "10.0.0.256", "10.0.0.-1", "1e1.0.0.0", "fe80::1%eth0", "fd00:::1", "a.b.c.d"]
        {
            assert_eq!(parse_ip(text), None, "{text:?}");
        }
        for text in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "fd00::/129", "/8", "10.0.0.0/+8", "10.0.0.0/8/8", "all"] {
            assert_eq!(parse_cidr(text), None, "{text:?}");
        }
    }
}
