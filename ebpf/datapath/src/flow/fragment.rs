//! Fragments: the ports of a datagram are in its first one alone; `FRAGS` (LRU hash) remembers them for the rest.
//!
//! First fragments are remembered before anybody has judged them. So each sender has places of his own, and who fills them
//! overwrites nobody else's.

use crate::kernel::Kernel;
use crate::packet::{Class, Fragment, Packet};
use crate::tables::flow::{FragmentKey, FragmentPorts, datagram};

/// Seconds that later fragments may take (RFC 8200: 60; Linux `ipfrag_time`: 30).
const LIFETIME: u32 = 30;

/// Remembers the ports of a first fragment, or fills in those of a later one. False when they are not known: a fragment
/// that overtook the first. `who`: whose place it is in, of [`FragmentKey`].
#[inline(always)]
pub fn resolve<K: Kernel>(k: &K, p: &mut Packet, who: u32) -> bool {
    if p.fragment == Fragment::NONE {
        return true;
    }
    let seed = k.config().map_or(0, |config| config.seed);
    let datagram = datagram(seed, p.tuple.src, p.tuple.dst, p.fragment_id, p.proto);
    let key = FragmentKey::new(who, datagram);
    if p.fragment == Fragment::FIRST {
        let (sport, dport) = (p.tuple.sport, p.tuple.dport);
        let ports = FragmentPorts { tag: 0, sport, dport, seen: k.seconds(), datagram };
        k.insert_fragment(&key, ports.sealed(key.tag()));
        return true;
    }
    // The place may be another datagram's by now: then this one's first fragment has been forgotten.
    let found = k.fragment(&key).filter(|ports| ports.is_of(key.tag()));
    let Some(ports) = found.filter(|ports| ports.datagram == datagram) else { return false };
    if k.seconds().wrapping_sub(ports.seen) > LIFETIME {
        return false;
    }
    p.tuple.sport = ports.sport;
    p.tuple.dport = ports.dport;
    p.class = Class::PORTS;
    true
}
