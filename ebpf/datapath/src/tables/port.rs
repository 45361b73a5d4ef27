//! The source ports of translated flows: `SHARES` (array of counters) and `PORTS` (hash by destination).
//!
//! The truth of which tuple is taken is in the tables of flows. These two say, without looking there, how many ports of a
//! destination are in use, how many of them a pod has, and, of a destination that is crowded, which are free.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::key::FlowKey;
use super::peer::NO_SLOT;
use super::reused::mixed;
use crate::{Addr, Long, Tuple, WirePort};

/// Where translated packets go, and as whose: what two flows have to differ from each other in by their source port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Destination {
    /// The receiver's address.
    pub dst: Addr,
    /// The address that they have as source.
    pub src: Addr,
    /// The receiver's port.
    pub port: WirePort,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 5],
}

impl Destination {
    /// Becomes the destination of a far entry's key, in place, and says which source port that has. `from_a`: end `a` is the
    /// opener.
    #[inline(always)]
    pub fn set(&mut self, key: &FlowKey, from_a: bool) -> WirePort {
        self.proto = key.proto;
        self.pad = [0; 5];
        if from_a {
            (self.src, self.dst, self.port) = (key.a, key.b, key.b_port);
            key.a_port
        } else {
            (self.src, self.dst, self.port) = (key.b, key.a, key.a_port);
            key.b_port
        }
    }

    /// Becomes the destination of packets with a tuple, in place.
    #[inline(always)]
    pub const fn set_of(&mut self, t: &Tuple, proto: u8) {
        *self = Self { dst: t.dst, src: t.src, port: t.dport, proto, pad: [0; 5] };
    }

    /// Index in `SHARES` of the counter of its ports that are in use.
    #[inline(always)]
    #[must_use]
    pub const fn total(&self, seed: u32) -> u32 {
        self.counter(seed, 0)
    }

    /// Index in `SHARES` of the counter of its ports that somebody holds.
    #[inline(always)]
    #[must_use]
    pub const fn share(&self, seed: u32, who: u32) -> u32 {
        self.counter(seed, 1 + who as u64)
    }

    /// Two that meet in one counter are counted together: each seems to have more than it has.
    #[inline(always)]
    const fn counter(&self, seed: u32, of: u64) -> u32 {
        let rest = (self.port.bits() as u64) << 8 | self.proto as u64;
        let mut sum = mixed(seed as u64 ^ of << 32);
        sum = mixed(sum ^ self.dst.hi);
        sum = mixed(sum ^ self.dst.lo);
        sum = mixed(sum ^ self.src.hi);
        sum = mixed(sum ^ self.src.lo);
        mixed(sum ^ rest) as u32 & (MAX_SHARES - 1)
    }
}

/// Who holds a port: the pod that opened the flow, else the network that its client is in.
#[inline(always)]
#[must_use]
pub const fn holder(slot: u16, client: Addr) -> u32 {
    if slot != NO_SLOT {
        return slot as u32;
    }
    // The upper 24 bits of an IPv4 address, 64 of an IPv6 address.
    let network = if client.is_v4() { client.lo & 0x00ff_ffff_0000_0000 } else { client.hi };
    // Of one product the lower bits know nothing of the last octets.
    0x1_0000 | (mixed(mixed(network)) as u32 & 0xffff)
}

/// Elements of `SHARES`: a power of two.
pub const MAX_SHARES: u32 = 65_536;

/// Elements of `PORTS`: destinations that are crowded at one time.
pub const MAX_PORT_SETS: u32 = 1024;

/// Ports of a destination in use from which on it is kept which, of so many that there are.
#[inline(always)]
#[must_use]
pub const fn crowded_from(all: u16) -> u64 {
    (all / 8) as u64
}

/// Value of `PORTS`: a bit for each port, 1 if it is in use. One that is missing is found out when it is tried.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "host"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct PortSet {
    /// Port n: bit n % 64 of word n / 64.
    pub words: [Long; 1024],
}

impl PortSet {
    /// The word that has a port's bit, and the bit.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, port: u16) -> Option<(&Long, u64)> {
        self.words.get(usize::from(port >> 6)).map(|word| (word, 1 << (port & 63)))
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self { words: [const { Long::new(0) }; 1024] }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::holder;
    use crate::Addr;
    use crate::peer::NO_SLOT;

    #[test]
    fn networks_outside_are_told_apart_by_every_octet_of_theirs_and_by_no_other() {
        let who = |text: &str| holder(NO_SLOT, Addr::from(text.parse::<IpAddr>().unwrap()));
        for groups in [1 << 16, 1 << 10] {
            let names: [fn(usize) -> std::string::String; 5] = [
                |n| std::format!("{}.0.2.1", 11 + n % 200),
                |n| std::format!("203.{n}.2.1"),
                |n| std::format!("203.0.{n}.1"),
                |n| std::format!("2001:db8:{n:x}::1"),
                |n| std::format!("2001:db8:1:{n:x}::1"),
            ];
            for name in names {
                let seen: BTreeSet<_> = (0..200).map(|n| who(&name(n)) % groups).collect();
                assert!(seen.len() > 120, "{} of 200 like {}", seen.len(), name(1));
            }
        }
        assert_eq!(who("203.0.113.1"), who("203.0.113.254"));
        assert_eq!(who("2001:db8:1:2::1"), who("2001:db8:1:2:ffff::"));
    }
}
