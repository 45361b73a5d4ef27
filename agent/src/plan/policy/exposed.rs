//! What a table that is too small must not cost: a rule that denies.
//!
//! An address or a prefix that is left out falls to the next prefix around it. Rules that accept match less then, and nothing
//! passes that would not have. A rule that denies or passes might no longer match, and whatever comes after it would let the
//! packet through; so might a rule that accepts, if an exception of it were left out. The sets for which that is so are closed
//! instead.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_datapath::Addr;
use fairlead_datapath::peer::CidrKey;

use crate::compile::policy::{PolicySet, Wanted, WantedPeer};

/// What the tables of addresses and prefixes would hold if they had room.
#[derive(Debug)]
pub(super) struct Whole {
    peers: BTreeMap<Addr, WantedPeer>,
    cidrs: BTreeMap<CidrKey, WantedPeer>,
}

impl Whole {
    /// Of what is wanted, before anything is left out.
    pub(super) fn of(wanted: &Wanted) -> Self {
        Self { peers: wanted.peers.clone(), cidrs: wanted.cidrs.clone() }
    }

    /// The sets, by their place, that might let something pass, now that some of it is left out.
    pub(super) fn exposed(&self, wanted: &Wanted) -> BTreeSet<usize> {
        let lengths: BTreeSet<u32> = wanted.cidrs.keys().map(|key| key.prefix_len).collect();
        let around = |key: CidrKey| {
            let outer = lengths.range(..=key.prefix_len).rev().map(|len| shortened(key, *len));
            outer.filter_map(|key| wanted.cidrs.get(&key)).next().map_or(0, |peer| peer.class)
        };
        let peers = self.peers.iter().filter(|(addr, _)| !wanted.peers.contains_key(*addr));
        let cidrs = self.cidrs.iter().filter(|(key, _)| !wanted.cidrs.contains_key(*key));
        let moves: BTreeSet<(usize, usize)> = peers
            .map(|(addr, peer)| (peer.class, around(CidrKey::lookup(*addr))))
            .chain(cidrs.map(|(key, peer)| (peer.class, around(*key))))
            .filter(|(is, falls)| is != falls)
            .collect();
        let places = wanted.sets.iter().enumerate();
        places
            .filter(|(_, set)| moves.iter().any(|moved| misses(wanted, set, *moved)))
            .map(|(place, _)| place)
            .collect()
    }
}

/// Whether an address of a class that is looked for as one of another misses a rule of a set that denies or passes, or meets
/// one that accepts.
fn misses(wanted: &Wanted, set: &PolicySet, (is, falls): (usize, usize)) -> bool {
    let row = |class: usize| wanted.classes.get(class).map(|(signature, _)| set.peers(signature));
    let (Some(is), Some(falls)) = (row(is), row(falls)) else { return true };
    let closing = set.closing();
    let pages = is.pages().iter().zip(falls.pages()).zip(closing.pages());
    let mut words = pages.flat_map(|((is, falls), closing)| is.iter().zip(falls).zip(closing));
    words.any(|((is, falls), closing)| is & !falls & closing != 0 || falls & !is & !closing != 0)
}

/// The key of the prefix of this length that holds another.
fn shortened(key: CidrKey, len: u32) -> CidrKey {
    // The first byte of the prefix is the family.
    let bits = u128::from_be_bytes(key.addr) & u128::MAX.checked_shl(128 + 8 - len).unwrap_or_default();
    CidrKey { prefix_len: len, addr: bits.to_be_bytes(), ..key }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn prefixes_are_shortened_within_their_family() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (addr, len, prefix) in [
            ("10.1.2.3", 32, "10.1.2.3"),
            ("10.1.2.3", 24, "10.1.2.0"),
            ("10.1.2.3", 0, "0.0.0.0"),
            ("fd00::1", 128, "fd00::1"),
            ("fd00:1::1", 8, "fd00::"),
            ("fd00::1", 0, "::"),
        ] {
            let wanted = CidrKey::prefix(ip(prefix).into(), len);
            assert_eq!(shortened(CidrKey::lookup(ip(addr).into()), wanted.prefix_len), wanted, "{addr}/{len}");
        }
    }
}
