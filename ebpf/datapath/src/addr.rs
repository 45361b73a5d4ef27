//! Addresses of both families in one form.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::WireV4;

/// An IPv6 address, or an IPv4 address v4-mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
///
/// The sixteen bytes are as on the wire; two words of eight, since that is what the kernel's hash and a comparison cost
/// least on. Ordered by those words, which means nothing but is the same everywhere.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Addr {
    /// Bytes 0 to 7.
    pub hi: u64,
    /// Bytes 8 to 15.
    pub lo: u64,
}

/// Bytes 8 to 11 of a v4-mapped address, as the low half of the second word.
const MAPPED: u64 = 0xffff_0000;

impl Addr {
    /// The address that nobody has: `::`.
    pub const UNSPECIFIED: Self = Self { hi: 0, lo: 0 };

    /// From the four bytes of an IPv4 header, loaded as they stand.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(wire: WireV4) -> Self {
        Self { hi: 0, lo: MAPPED | ((wire.bits() as u64) << 32) }
    }

    /// The four bytes of an IPv4 header, as they stand there. Meaningful if [`Addr::is_v4`].
    #[inline(always)]
    #[must_use]
    pub const fn v4(self) -> WireV4 {
        WireV4::from_bits((self.lo >> 32) as u32)
    }

    /// Whether it is a v4-mapped address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && self.lo as u32 == MAPPED as u32
    }

    /// From sixteen bytes as on the wire.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15] = b;
        Self {
            hi: u64::from_ne_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            lo: u64::from_ne_bytes([b8, b9, b10, b11, b12, b13, b14, b15]),
        }
    }

    /// The unspecified address of the same family: what stands for every address of the node in a frontend's key.
    #[inline(always)]
    #[must_use]
    pub const fn wildcard(self) -> Self {
        if self.is_v4() { Self::from_v4(WireV4::from_bits(0)) } else { Self::UNSPECIFIED }
    }

    /// Whether it is an address that only its own host has: loopback, or unspecified, which a socket takes for loopback.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            let [first, ..] = self.v4().octets();
            first == 127 || self.v4().bits() == 0
        } else {
            self.hi == 0 && self.lo.swap_bytes() <= 1
        }
    }

    /// The sixteen bytes as on the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        zerocopy::transmute!(self)
    }

    /// A word that tells addresses apart most of the time: part of the tag by which a value knows its key.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> u32 {
        let x = (self.hi ^ self.lo.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x >> 32) as u32
    }
}

#[cfg(any(test, feature = "host"))]
mod host {
    use super::Addr;
    use std::net::{IpAddr, Ipv6Addr};

    impl From<IpAddr> for Addr {
        fn from(ip: IpAddr) -> Self {
            Self::from_bytes(match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            })
        }
    }

    impl From<Addr> for IpAddr {
        fn from(addr: Addr) -> Self {
            Self::V6(Ipv6Addr::from(addr.bytes())).to_canonical()
        }
    }

    impl std::fmt::Display for Addr {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Addr, WireV4};
    use std::net::IpAddr;

    #[test]
    fn both_families_go_there_and_back() {
        for text in ["10.96.0.10", "0.0.0.0", "255.255.255.255", "fd00:10:96::a", "::1", "::"] {
            let ip: IpAddr = text.parse().unwrap();
            let addr = Addr::from(ip);
            assert_eq!(IpAddr::from(addr), ip);
            assert_eq!(addr.is_v4(), ip.is_ipv4());
            if let IpAddr::V4(v4) = ip {
                assert_eq!(Addr::from_v4(WireV4::from_bits(u32::from_ne_bytes(v4.octets()))), addr);
                assert_eq!(addr.v4().octets(), v4.octets());
            }
        }
    }
}
