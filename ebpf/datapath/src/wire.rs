//! Numbers in network byte order, as types: what a header or a table holds can't be taken for what a program counts with.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A port as on the wire. An ICMP echo has its identifier here. Ordered by its bytes, which means nothing but is the same
/// everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct WirePort(u16);

impl WirePort {
    /// Port 0: none, or any.
    pub const NONE: Self = Self(0);

    /// Of a number.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }

    /// Of two bytes of a header, loaded as they stand.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Its two bytes, as a header has them.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// The four bytes of an IPv4 address, as a header has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct WireV4(u32);

impl WireV4 {
    /// Of four bytes of a header, loaded as they stand.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As they stand in a header.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Of a number, the first byte of the address its highest.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number.to_be())
    }

    /// As a number, the first byte of the address its highest.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        u32::from_be(self.0)
    }

    /// Its bytes in order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
}

/// A port is read by people as its number.
impl core::fmt::Debug for WirePort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.number().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::{WirePort, WireV4};

    #[test]
    fn numbers_go_there_and_back() {
        for number in [0, 1, 80, 30_000, u16::MAX] {
            let port = WirePort::new(number);
            assert_eq!(port.number(), number);
            assert_eq!(port.bits().to_ne_bytes(), number.to_be_bytes());
            assert_eq!(WirePort::from_bits(port.bits()), port);
        }
        let addr = WireV4::new(0x0a60_000a);
        assert_eq!((addr.octets(), addr.number()), ([10, 96, 0, 10], 0x0a60_000a));
    }
}
