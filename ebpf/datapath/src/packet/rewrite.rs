//! Changing addresses, ports and the TTL of a packet in place.

use super::csum;
use super::headers::{ETH_LEN, ICMP, ICMPV6, Ports, TCP, UDP};
use crate::Addr;
use crate::Tuple;
use crate::kernel::Kernel;
use crate::scratch::{Class, Fragment, Packet};

/// Offset of the IPv4 checksum, of the IPv4 addresses and of the IPv6 addresses.
const V4_CSUM: u32 = ETH_LEN + 10;
const V4_ADDRESSES: u32 = ETH_LEN + 12;
const V6_ADDRESSES: u32 = ETH_LEN + 8;

/// Offset of the checksum in an L4 header, whether the pseudo-header is part of it, and whether 0 means none.
#[inline(always)]
const fn l4_csum(proto: u8) -> Option<(u32, bool, bool)> {
    match proto {
        TCP => Some((16, true, false)),
        UDP => Some((6, true, true)),
        ICMPV6 => Some((2, true, false)),
        ICMP => Some((2, false, false)),
        // SCTP's checksum covers its own bytes alone (RFC 9260 section 6.8): addresses may change under it.
        _ => None,
    }
}

/// Gives a packet other addresses and ports. False when that is not possible, and then the packet must be dropped.
#[inline(always)]
pub fn rewrite<K: Kernel>(k: &K, p: &mut Packet, to: &Tuple) -> bool {
    let addresses = csum::add(csum::addr_diff(p.tuple.src, to.src), csum::addr_diff(p.tuple.dst, to.dst));
    if p.fragment != Fragment::LATER {
        if !rewrite_ports(k, p, to) {
            return false;
        }
        if let Some((offset, true, udp)) = l4_csum(p.proto)
            && !k.adjust_l4_csum(p.l4 + offset, addresses, true, udp)
        {
            return false;
        }
    }
    let stored = if p.v6 == 1 {
        k.sum_changed(addresses);
        k.store(V6_ADDRESSES, &[to.src, to.dst])
    } else {
        let Some(before) = k.load::<u16>(V4_CSUM) else { return false };
        k.store(V4_CSUM, &csum::adjust(before, addresses)) && k.store(V4_ADDRESSES, &[to.src.v4(), to.dst.v4()])
    };
    p.tuple = *to;
    stored
}

/// Ports, or the identifier of an echo, and what they do to the L4 checksum.
#[inline(always)]
fn rewrite_ports<K: Kernel>(k: &K, p: &Packet, to: &Tuple) -> bool {
    if p.class != Class::PORTS || (p.tuple.sport == to.sport && p.tuple.dport == to.dport) {
        return true;
    }
    let diff = csum::add(csum::port_diff(p.tuple.sport, to.sport), csum::port_diff(p.tuple.dport, to.dport));
    let Some((offset, _, udp)) = l4_csum(p.proto) else { return false };
    if !k.adjust_l4_csum(p.l4 + offset, diff, false, udp) {
        return false;
    }
    match p.proto {
        // One of the two is 0 and stays so: their sum is the identifier.
        ICMP | ICMPV6 => k.store(p.l4 + 4, &to.echo_id()),
        _ => k.store(p.l4, &Ports { src: to.sport, dst: to.dport }),
    }
}

/// Lowers the TTL or hop limit by one, as a router does. False when it was 1 or less: the packet has gone far enough.
#[inline(always)]
pub fn decrement_ttl<K: Kernel>(k: &K, p: &mut Packet) -> bool {
    if p.ttl <= 1 {
        return false;
    }
    let ttl = p.ttl - 1;
    let stored = if p.v6 == 1 {
        k.sum_changed(csum::word_diff(u16::from_ne_bytes([0, p.ttl]), u16::from_ne_bytes([0, ttl])));
        k.store(ETH_LEN + 7, &ttl)
    } else {
        let (old, new) = (u16::from_ne_bytes([p.ttl, p.proto]), u16::from_ne_bytes([ttl, p.proto]));
        let Some(before) = k.load::<u16>(V4_CSUM) else { return false };
        k.store(V4_CSUM, &csum::adjust(before, csum::word_diff(old, new))) && k.store(ETH_LEN + 8, &ttl)
    };
    p.ttl = ttl;
    stored
}

/// Replaces one of the two addresses of the outer header of an ICMP error, whose own checksum the caller sees to.
#[inline(always)]
pub(super) fn rewrite_outer<K: Kernel>(k: &K, p: &mut Packet, src: Addr, dst: Addr) -> bool {
    let diff = csum::add(csum::addr_diff(p.tuple.src, src), csum::addr_diff(p.tuple.dst, dst));
    p.tuple.src = src;
    p.tuple.dst = dst;
    if p.v6 == 1 {
        k.sum_changed(diff);
        k.adjust_l4_csum(p.l4 + 2, diff, true, false) && k.store(V6_ADDRESSES, &[src, dst])
    } else {
        let Some(before) = k.load::<u16>(V4_CSUM) else { return false };
        k.store(V4_CSUM, &csum::adjust(before, diff)) && k.store(V4_ADDRESSES, &[src.v4(), dst.v4()])
    }
}
