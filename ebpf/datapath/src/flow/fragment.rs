//! Fragments: the ports of a datagram are in its first one alone; `FRAGS` (LRU hash) remembers them for the rest.

use crate::kernel::Kernel;
use crate::packet::{Class, Fragment, Packet};
use crate::tables::flow::{FragmentKey, FragmentPorts};

/// Seconds that later fragments may take (RFC 8200: 60; Linux `ipfrag_time`: 30).
const LIFETIME: u32 = 30;

/// Remembers the ports of a first fragment, or fills in those of a later one. False when they are not known: a fragment
/// that overtook the first.
#[inline(always)]
pub fn resolve<K: Kernel>(k: &K, p: &mut Packet) -> bool {
    if p.fragment == Fragment::NONE {
        return true;
    }
    let key = FragmentKey { src: p.tuple.src, dst: p.tuple.dst, id: p.fragment_id, proto: p.proto, pad: [0; 3] };
    if p.fragment == Fragment::FIRST {
        let (sport, dport) = (p.tuple.sport, p.tuple.dport);
        let ports = FragmentPorts { tag: 0, sport, dport, seen: k.seconds(), pad: 0 };
        k.insert_fragment(&key, ports.sealed(key.tag()));
        return true;
    }
    // The element may be another datagram's by now: then this one's first fragment has been forgotten.
    let Some(ports) = k.fragment(&key).filter(|ports| ports.is_of(key.tag())) else { return false };
    if k.seconds().wrapping_sub(ports.seen) > LIFETIME {
        return false;
    }
    p.tuple.sport = ports.sport;
    p.tuple.dport = ports.dport;
    p.class = Class::PORTS;
    true
}
