//! One's complement arithmetic (RFC 1071, RFC 1624) on words as they stand on the wire.
//!
//! A *difference* is what has to be added to a checksum's complement when bytes change: the new words plus the
//! complement of the old ones, folded to 32 bits, as `bpf_csum_diff` gives it.

use crate::{Addr, WirePort};

/// Folds a sum to 32 bits.
#[inline(always)]
#[must_use]
pub const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

/// Folds a sum to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold16(sum: u64) -> u16 {
    let sum = fold32(sum);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of an address' 32-bit words.
#[inline(always)]
#[must_use]
pub const fn addr_sum(addr: Addr) -> u64 {
    (addr.hi & 0xffff_ffff) + (addr.hi >> 32) + (addr.lo & 0xffff_ffff) + (addr.lo >> 32)
}

/// The difference when an address takes another's place. For IPv4 the mapped prefix cancels out.
#[inline(always)]
#[must_use]
pub const fn addr_diff(old: Addr, new: Addr) -> u32 {
    fold32(addr_sum(new) + addr_sum(Addr { hi: !old.hi, lo: !old.lo }))
}

/// The difference when a 16-bit word takes another's place.
#[inline(always)]
#[must_use]
pub const fn word_diff(old: u16, new: u16) -> u32 {
    (new as u32) + (!old as u32)
}

/// The difference when a port takes another's place.
#[inline(always)]
#[must_use]
pub const fn port_diff(old: WirePort, new: WirePort) -> u32 {
    word_diff(old.bits(), new.bits())
}

/// Two differences together.
#[inline(always)]
#[must_use]
pub const fn add(a: u32, b: u32) -> u32 {
    fold32(a as u64 + b as u64)
}

/// A checksum field after a difference (RFC 1624, eqn. 3).
#[inline(always)]
#[must_use]
pub const fn adjust(csum: u16, diff: u32) -> u16 {
    !fold16(!csum as u64 + diff as u64)
}

/// The checksum of an L4 header after a difference, where nobody but the packet's bytes knows it. Of UDP, zero says that there is none:
/// it stays so, and no other becomes so (RFC 768, RFC 8200 section 8.1).
#[inline(always)]
#[must_use]
pub const fn adjust_l4(csum: u16, diff: u32, udp: bool) -> u16 {
    if udp && csum == 0 {
        return 0;
    }
    let after = adjust(csum, diff);
    if udp && after == 0 { 0xffff } else { after }
}

#[cfg(test)]
mod tests {
    use super::{addr_diff, adjust, adjust_l4, word_diff};
    use crate::Addr;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn checksum(words: &[u16]) -> u16 {
        !super::fold16(words.iter().map(|w| u64::from(*w)).sum())
    }

    fn words(addr: Addr) -> Vec<u16> {
        addr.bytes().chunks(2).map(|c| u16::from_ne_bytes([c[0], c[1]])).collect()
    }

    /// Zero has two forms in one's complement; a checksum of all ones is one of them.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn adjusting_is_computing_anew(old: [u8; 16], new: [u8; 16], rest: Vec<u16>, port: (u16, u16)) {
            let (old, new) = (Addr::from_bytes(old), Addr::from_bytes(new));
            let mut before = words(old);
            before.push(port.0);
            before.extend(&rest);
            let mut after = words(new);
            after.push(port.1);
            after.extend(&rest);
            let csum = adjust(adjust(checksum(&before), addr_diff(old, new)), word_diff(port.0, port.1));
            prop_assert!(same(csum, checksum(&after)), "{csum:x} {:x}", checksum(&after));
        }

        #[test]
        fn s82_a_checksum_that_says_none_stays_and_none_comes_to_say_so(
            old: [u8; 16],
            new: [u8; 16],
            rest: Vec<u16>,
            udp: bool,
        ) {
            let (old, new) = (Addr::from_bytes(old), Addr::from_bytes(new));
            let sum = |addr| {
                let mut all = words(addr);
                all.extend(&rest);
                match checksum(&all) {
                    0 if udp => 0xffff,
                    sum => sum,
                }
            };
            let after = adjust_l4(sum(old), addr_diff(old, new), udp);
            prop_assert!(same(after, sum(new)) && !(udp && after == 0), "{:x} {:x}", after, sum(new));
            prop_assert_eq!(adjust_l4(0, addr_diff(old, new), true), 0);
        }
    }
}
