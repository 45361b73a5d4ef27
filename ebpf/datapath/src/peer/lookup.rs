//! From an address to what is known of it.

use super::{CidrKey, Peer, PeerFlags, Tables};
use crate::Addr;

/// What is known of an address: its own entry, else its longest prefix', else that it is of the world outside.
///
/// With [`PeerFlags::RACED`] the entry changed twice under the reader and nothing is known: the packet is dropped.
#[inline(always)]
#[must_use]
pub fn lookup<T: Tables>(tables: &T, addr: Addr) -> Peer {
    let mut attempt = 0;
    while attempt < 2 {
        match tables.peer(&addr) {
            Some(peer) if peer.is_of(addr.tag()) => return peer,
            Some(_) => attempt += 1,
            None => return tables.cidr(&CidrKey::lookup(addr)).unwrap_or(Peer::WORLD),
        }
    }
    Peer { flags: PeerFlags::RACED, ..Peer::WORLD }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::IpAddr;

    use super::*;
    use crate::peer::HostTables;
    use crate::peer::{HostSide, NodeHop, Pod};

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn class(class: u32) -> Peer {
        Peer { class, ..Peer::WORLD }
    }

    fn tables() -> HostTables {
        let mut t = HostTables::default();
        for (text, c) in [("10.244.1.7", 1), ("fd00::7", 2)] {
            t.peers.insert(addr(text), class(c).sealed(addr(text).tag()));
        }
        for (text, len, c) in [("10.244.0.0", 16, 3), ("10.244.1.0", 24, 4), ("::", 0, 5), ("fd00::", 16, 6)] {
            t.cidrs.insert(CidrKey::prefix(addr(text), len), class(c));
        }
        t
    }

    #[test]
    fn an_address_goes_before_its_prefixes_and_the_longest_before_others() {
        for (text, expected) in [
            ("10.244.1.7", 1),
            ("10.244.1.8", 4),
            ("10.244.2.1", 3),
            ("10.245.0.1", 0),
            ("fd00::7", 2),
            ("fd00::8", 6),
            ("2001:db8::1", 5),
        ] {
            assert_eq!(lookup(&tables(), addr(text)).class, expected, "{text}");
        }
    }

    #[test]
    fn p38_a_prefix_of_one_family_says_nothing_about_the_other() {
        let mut t = HostTables::default();
        t.cidrs.insert(CidrKey::prefix(addr("::"), 0), class(1));
        assert_eq!(lookup(&t, addr("10.0.0.1")), Peer::WORLD);
        assert_eq!(lookup(&t, addr("fd00::1")).class, 1);
        let mut t = HostTables::default();
        t.cidrs.insert(CidrKey::prefix(addr("0.0.0.0"), 0), class(1));
        assert_eq!(lookup(&t, addr("10.0.0.1")).class, 1);
        assert_eq!(lookup(&t, addr("fd00::1")), Peer::WORLD);
    }

    /// Shows another address' entry so many times.
    struct Reused(Cell<u32>);

    impl Tables for Reused {
        fn peer(&self, addr: &Addr) -> Option<Peer> {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            Some(class(9).sealed(addr.tag() ^ u32::from(left != 0)))
        }

        fn cidr(&self, _: &CidrKey) -> Option<Peer> {
            Some(class(1))
        }

        fn node(&self, _: u16) -> Option<NodeHop> {
            None
        }

        fn pod(&self, _: u16) -> Option<&Pod> {
            None
        }

        fn pod_word(&self, _: u16) -> u64 {
            0
        }

        fn foreign(&self, _: u32) -> Option<HostSide> {
            None
        }

        fn host_side(&self, _: u16) -> u32 {
            0
        }
    }

    #[test]
    fn an_entry_of_another_address_is_asked_for_again_and_then_refused() {
        assert_eq!(lookup(&Reused(Cell::new(1)), addr("10.0.0.1")).class, 9);
        assert_eq!(lookup(&Reused(Cell::new(2)), addr("10.0.0.1")).flags, PeerFlags::RACED);
    }
}
