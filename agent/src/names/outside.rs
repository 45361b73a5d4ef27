//! Which addresses names may open: those that nobody inside has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether names may open an address: one of the internet or of a network of others, that nobody has of whom that is said. Where it
/// stands for an IPv4 address that is somebody's, it is that one's too.
#[must_use]
pub fn is_outside(ip: IpAddr, is_somebodys: impl Fn(IpAddr) -> bool) -> bool {
    let ip = ip.to_canonical();
    let embedded = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
    };
    std::iter::once(ip).chain(embedded).all(|ip| is_anybodys(ip) && !is_somebodys(ip))
}

/// Whether hosts elsewhere may have an address, as far as that can be told by itself.
fn is_anybodys(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast()),
    }
}

/// The IPv4 address that a translator or a tunnel leads to: NAT64 by its well-known prefix (64:ff9b::/96, RFC 6052), 6to4
/// (2002::/16, RFC 3056), and IPv4-compatible addresses (::/96, RFC 4291 section 2.5.5.1).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 0] => Some(of(g, h)),
        [0x2002, ..] => Some(of(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p84_names_open_nothing_that_is_nobodys_outside() {
        let somebodys: [IpAddr; 3] = ["10.0.0.9", "fd00:ec2::254", "172.17.0.1"].map(|text| text.parse().unwrap());
        for (text, is) in [
            ("192.0.2.1", true),
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("169.254.169.254", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            // What is somebody's, and what leads there.
            ("10.0.0.9", false),
            ("::ffff:10.0.0.9", false),
            ("fd00:ec2::254", false),
            ("172.17.0.1", false),
            ("64:ff9b::a00:9", false),
            ("64:ff9b::a00:1", true),
            ("64:ff9b::a9fe:a9fe", false),
            ("64:ff9b::7f00:1", false),
            ("2002:a00:9::1", false),
            ("2002:a00:1::1", true),
            ("2002:a9fe:a9fe:1::5", false),
            ("::a00:9", false),
            ("::169.254.169.254", false),
            ("::192.0.2.1", true),
            // Another prefix that ends like one.
            ("2001:db8::a00:9", true),
        ] {
            assert_eq!(is_outside(text.parse().unwrap(), |ip| somebodys.contains(&ip)), is, "{text}");
        }
    }
}
