//! What is answered of the cluster's DNS: `DNS_ZONE` (array of one) and `DNS_NAMES` (hash), both written by the agent, and
//! `DNS_ANSWERS` (counters).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::reused::mixed;
use crate::{Addr, WirePort, WireV4};

/// Elements of `DNS_NAMES`: services, their endpoints, named ports and namespaces. What has no room is answered elsewhere, and
/// then nobody says here of any name that it does not exist.
pub const MAX_DNS_NAMES: u32 = 1 << 17;

/// The longest name that has a key, in wire format with its root: every `service.namespace.svc` fits, below a zone of 28 bytes.
pub const LONGEST_NAME: u32 = 160;

/// The longest zone, likewise.
pub const LONGEST_ZONE: u32 = 64;

/// Key of `DNS_NAMES`: a name in wire format and lower case, with its root, and zeros behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DnsName {
    /// Its bytes.
    pub words: [u64; LONGEST_NAME as usize / 8],
}

impl DnsName {
    /// A word that tells names apart most of the time: part of the tag by which a value knows its key. Four sums side by side,
    /// so that none waits for the others.
    #[inline(always)]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        let [a, b, c, d, rest @ ..] = &self.words;
        let (mut a, mut b, mut c, mut d) = (mixed(*a), mixed(*b), mixed(*c), mixed(*d));
        let mut index = 0;
        while index < rest.len() {
            a = mixed(a ^ rest[index]);
            b = mixed(b ^ rest[index + 1]);
            c = mixed(c ^ rest[index + 2]);
            d = mixed(d ^ rest[index + 3]);
            index += 4;
        }
        (mixed(a ^ mixed(b ^ mixed(c ^ mixed(d)))) >> 16) as u32
    }

    /// Of a name in wire format, whatever its case. `None` if it is too long.
    #[cfg(any(test, feature = "host"))]
    #[must_use]
    pub fn of(wire: &[u8]) -> Option<Self> {
        let mut name = Self { words: [0; LONGEST_NAME as usize / 8] };
        let bytes = name.as_mut_bytes().get_mut(..wire.len())?;
        bytes.copy_from_slice(wire);
        // The length bytes are below the letters.
        bytes.make_ascii_lowercase();
        Some(name)
    }
}

/// Value of `DNS_NAMES`: what is at a name that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct DnsFacts {
    /// Check of its key and content: [`DnsFacts::is_of`].
    pub tag: u32,
    /// [`DnsFlags`].
    pub flags: u32,
    /// Its one A record.
    pub v4: WireV4,
    /// The session of a server in which it was written: what a server does not have is taken out by that.
    pub session: u32,
    /// Its one AAAA record.
    pub v6: Addr,
}

flags! {
    /// Bits of [`DnsFacts::flags`]. Of a family without a bit nothing is said here.
    pub struct DnsFlags {
        /// There is one A record.
        pub const A: u32 = 1;
        /// There is none.
        pub const NO_A: u32 = 2;
        /// There is one AAAA record.
        pub const AAAA: u32 = 4;
        /// There is none.
        pub const NO_AAAA: u32 = 8;
    }
}

super::reused::tagged! { DnsFacts, of 4 words; }

/// The one element of `DNS_ZONE`: for whom, how and until when is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DnsZone {
    /// The lease: the second (since boot) from which on nothing is answered.
    pub until: u32,
    /// [`ZoneFlags`].
    pub flags: u32,
    /// The SOA's serial.
    pub serial: u32,
    /// How long records live, in seconds; also the SOA's last field.
    pub ttl: u32,
    /// How long the SOA itself lives.
    pub soa_ttl: u32,
    /// The slot of the server's pod: queries that would go to it are answered, and no others.
    pub server: u32,
    /// The port at which it would get them.
    pub port: WirePort,
    /// Zero.
    pub pad: u16,
    /// Length of the zone's name.
    pub length: u32,
    /// The zone's name, as a [`DnsName`] has its own.
    pub origin: [u64; LONGEST_ZONE as usize / 8],
}

flags! {
    /// Bits of [`DnsZone::flags`].
    pub struct ZoneFlags {
        /// Every name that exists and is short enough is in `DNS_NAMES`: what is not there does not exist.
        pub const COMPLETE: u32 = 1;
        /// The server looks up other zones: the RA flag.
        pub const RECURSION: u32 = 2;
        /// Somebody looks at flows to learn who asks: queries make some, as if the server had got them.
        pub const FLOWS: u32 = 4;
    }
}

/// What is answered, as the index in `DNS_ANSWERS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DnsAnswer {
    /// An A record.
    A = 0,
    /// An AAAA record.
    Aaaa = 1,
    /// The name has no A record.
    NoA = 2,
    /// The name has no AAAA record.
    NoAaaa = 3,
    /// The name does not exist; an A record was asked for.
    NoNameForA = 4,
    /// The name does not exist; an AAAA record was asked for.
    NoNameForAaaa = 5,
}

impl DnsAnswer {
    /// Every answer, by index.
    pub const ALL: [Self; 6] = [Self::A, Self::Aaaa, Self::NoA, Self::NoAaaa, Self::NoNameForA, Self::NoNameForAaaa];

    /// What is said, as metrics have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A | Self::Aaaa => "address",
            Self::NoA | Self::NoAaaa => "no_data",
            Self::NoNameForA | Self::NoNameForAaaa => "no_name",
        }
    }

    /// The type that was asked for, as metrics have it.
    #[must_use]
    pub const fn record_type(self) -> &'static str {
        match self {
            Self::A | Self::NoA | Self::NoNameForA => "A",
            Self::Aaaa | Self::NoAaaa | Self::NoNameForAaaa => "AAAA",
        }
    }

    /// The response code, as metrics have it.
    #[must_use]
    pub const fn rcode(self) -> &'static str {
        match self {
            Self::A | Self::Aaaa | Self::NoA | Self::NoAaaa => "NOERROR",
            Self::NoNameForA | Self::NoNameForAaaa => "NXDOMAIN",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DnsName, LONGEST_NAME};
    use zerocopy::IntoBytes;

    #[test]
    fn names_differ_in_their_tags_by_each_bit() {
        let name = DnsName::of(b"\x03web\x07default\x03svc\x07cluster\x05local\x00").unwrap();
        for at in 0..LONGEST_NAME as usize {
            for bit in 0..8 {
                let mut other = name;
                other.as_mut_bytes()[at] ^= 1 << bit;
                assert_ne!(other.tag(), name.tag(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_name_has_one_key_whatever_its_case() {
        assert_eq!(DnsName::of(b"\x03WeB\x00"), DnsName::of(b"\x03web\x00"));
        assert!(DnsName::of(&[1; LONGEST_NAME as usize]).is_some());
        assert!(DnsName::of(&[1; LONGEST_NAME as usize + 1]).is_none());
    }
}
