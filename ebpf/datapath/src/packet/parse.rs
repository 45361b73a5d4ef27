//! From bytes to what the walk decides by.

use super::headers::{ETH_LEN, ETH_P_IP, ETH_P_IPV6, ICMP, ICMPV6, Icmp, Ipv4, Ipv6, Ports, SCTP, TCP, UDP};
use crate::drop::DropReason;
use crate::kernel::{Kernel, stages};
use crate::scratch::{Class, Fragment, Packet, Walk};
use crate::{Addr, WirePort};

/// IPv6 headers that are looked at behind the first one: most extension headers that are followed, and what is behind them.
const HEADERS: usize = 6 + 1;

// Its branches are many, and what it leaves is in memory: as a stage it spares the verifier to follow each of them through
// the rest of the walk.
stages! {
    fn parse(ether_type: u16) -> Result<(), DropReason>, as Parse;
    fn behind(next: u32, offset: u32) -> u32, as Behind;
}

/// IPv6 extension headers (RFC 8200, RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Bits of the second word of a fragment header that say where the fragment is (RFC 8200 section 4.5).
const OFFSET: u16 = 0xfff8_u16.to_be();

/// Reads the headers of an IP packet. `ether_type` as on the wire, of a packet that has an Ethernet header.
#[inline(always)]
fn parse<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Result<(), DropReason> {
    let p = &mut w.packet;
    match ether_type {
        ETH_P_IP => parse_v4(k, p)?,
        ETH_P_IPV6 => parse_v6(k, p)?,
        _ => return Err(DropReason::NotIp),
    }
    let least = if p.fragment == Fragment::LATER {
        p.class = Class::PLAIN;
        0
    } else {
        parse_l4(k, p)?
    };
    // A frame may go on behind its packet. Whoever receives it cuts that off, and takes what a first fragment lacks from the
    // next one: nothing is decided by what is there.
    if p.l4 + least > p.end { Err(DropReason::Malformed) } else { Ok(()) }
}

#[inline(always)]
fn parse_v4<K: Kernel>(k: &K, p: &mut Packet) -> Result<(), DropReason> {
    const MORE: u16 = 0x2000_u16.to_be();
    const OFFSET: u16 = 0x1fff_u16.to_be();
    const DONT: u16 = 0x4000_u16.to_be();
    let Some(ip) = k.load::<Ipv4>(ETH_LEN) else { return Err(DropReason::Malformed) };
    let header = u32::from(ip.version_ihl & 0x0f) * 4;
    let total = u32::from(u16::from_be(ip.total_len));
    // An aggregate of more than 64 KiB (IPv4 BIG TCP) says 0: then skb->len is the length.
    let short = total != 0 && (total < header || total + ETH_LEN > k.packet_len());
    if ip.version_ihl >> 4 != 4 || header < 20 || ETH_LEN + header > k.packet_len() || short {
        return Err(DropReason::Malformed);
    }
    p.tuple.src = Addr::from_v4(ip.src);
    p.tuple.dst = Addr::from_v4(ip.dst);
    p.end = if total == 0 { k.packet_len() } else { ETH_LEN + total };
    p.l4 = ETH_LEN + header;
    p.proto = ip.proto;
    p.v6 = 0;
    p.ttl = ip.ttl;
    p.no_fragment = u8::from(ip.fragment & DONT != 0);
    p.fragment_id = u32::from(ip.id);
    p.fragment = if ip.fragment & OFFSET != 0 {
        Fragment::LATER
    } else if ip.fragment & MORE != 0 {
        Fragment::FIRST
    } else {
        Fragment::NONE
    };
    Ok(())
}

#[inline(always)]
fn parse_v6<K: Kernel>(k: &K, p: &mut Packet) -> Result<(), DropReason> {
    const MORE: u16 = 1_u16.to_be();

    let Some(ip) = k.load::<Ipv6>(ETH_LEN) else { return Err(DropReason::Malformed) };
    let payload = u32::from(u16::from_be(ip.payload_len));
    if ip.version_class_label.to_ne_bytes()[0] >> 4 != 6 || payload + ETH_LEN + 40 > k.packet_len() {
        return Err(DropReason::Malformed);
    }
    if ip.src.is_v4() || ip.dst.is_v4() {
        return Err(DropReason::BadAddress);
    }
    p.tuple.src = ip.src;
    p.tuple.dst = ip.dst;
    // As above.
    p.end = if payload == 0 { k.packet_len() } else { ETH_LEN + 40 + payload };
    p.v6 = 1;
    p.ttl = ip.hop_limit;
    p.no_fragment = 1;
    p.fragment = Fragment::NONE;
    p.fragment_id = 0;
    p.proto = ip.next;
    p.l4 = ETH_LEN + 40;
    for _ in 0..HEADERS {
        let offset = k.reread(&p.l4);
        let length = match p.proto {
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION => {
                let Some(header) = k.load::<[u8; 2]>(offset) else { return Err(DropReason::Malformed) };
                let length = extension_len(p.proto, header);
                [p.proto, _] = header;
                length
            }
            FRAGMENT => {
                let Some(header) = k.load::<[u16; 4]>(offset) else { return Err(DropReason::Malformed) };
                let [following, place, id_high, id_low] = header;
                p.proto = following.to_ne_bytes()[0];
                p.fragment_id = u32::from(id_high) | (u32::from(id_low) << 16);
                if place & OFFSET != 0 {
                    p.fragment = Fragment::LATER;
                } else if place & MORE != 0 {
                    p.fragment = Fragment::FIRST;
                }
                8
            }
            _ => return Ok(()),
        };
        p.l4 = offset + length;
        if p.fragment == Fragment::LATER {
            return Ok(());
        }
    }
    Err(DropReason::ExtensionHeaders)
}

/// The length of an extension header, by its number and first two bytes. RFC 8200: units of eight beyond the first eight.
/// RFC 4302: units of four beyond the first eight.
#[inline(always)]
const fn extension_len(number: u8, [_, units]: [u8; 2]) -> u32 {
    8 + units as u32 * if number == AUTHENTICATION { 4 } else { 8 }
}

/// What is behind the extension headers of an IPv6 packet that another one quotes: the offset of its L4 header shifted by 8, and
/// the protocol; 0 where that can't be read, as of a later fragment. `next`: the number of what begins at an offset.
#[inline(always)]
fn behind<K: Kernel>(k: &K, _: &mut Walk, next: u32, offset: u32) -> u32 {
    let (mut next, mut offset) = (next as u8, offset);
    for _ in 0..HEADERS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION => {
                let Some(header) = k.load::<[u8; 2]>(offset) else { return 0 };
                let length = extension_len(next, header);
                [next, _] = header;
                length
            }
            FRAGMENT => {
                let Some([following, place, ..]) = k.load::<[u16; 4]>(offset) else { return 0 };
                if place & OFFSET != 0 {
                    return 0;
                }
                [next, _] = following.to_ne_bytes();
                8
            }
            proto => return offset << 8 | u32::from(proto),
        };
        offset += length;
    }
    0
}

/// Reads an L4 header. Says how many bytes of one there have to be.
#[inline(always)]
fn parse_l4<K: Kernel>(k: &K, p: &mut Packet) -> Result<u32, DropReason> {
    p.tcp = 0;
    p.class = Class::PORTS;
    let least = match p.proto {
        TCP | UDP | SCTP => {
            let Some(ports) = k.load::<Ports>(p.l4) else { return Err(DropReason::Malformed) };
            p.tuple.sport = ports.src;
            p.tuple.dport = ports.dst;
            if p.proto == TCP {
                let Some([seq, ack, rest]) = k.load::<[u32; 3]>(p.l4 + 4) else { return Err(DropReason::Malformed) };
                let [offset, flags, ..] = rest.to_ne_bytes();
                if offset >> 4 < 5 {
                    return Err(DropReason::Malformed);
                }
                (p.seq, p.ack, p.tcp) = (seq, ack, flags);
                20
            } else {
                8
            }
        }
        ICMP if p.v6 == 0 => {
            let Some(icmp) = k.load::<Icmp>(p.l4) else { return Err(DropReason::Malformed) };
            classify_icmp(p, icmp.kind, icmp.id);
            8
        }
        ICMPV6 if p.v6 == 1 => {
            let Some(icmp) = k.load::<Icmp>(p.l4) else { return Err(DropReason::Malformed) };
            classify_icmpv6(p, icmp.kind, icmp.id);
            8
        }
        _ => {
            p.tuple.sport = WirePort::NONE;
            p.tuple.dport = WirePort::NONE;
            p.class = Class::PLAIN;
            0
        }
    };
    Ok(least)
}

#[inline(always)]
fn classify_icmp(p: &mut Packet, kind: u8, id: WirePort) {
    p.icmp_type = kind;
    // RFC 792: 8 and 0 echo; 3 unreachable, 4 quench, 5 redirect, 11 time exceeded, 12 parameter problem.
    (p.class, p.tuple.sport, p.tuple.dport) = match kind {
        8 => (Class::PORTS, id, WirePort::NONE),
        0 => (Class::PORTS, WirePort::NONE, id),
        3 | 4 | 5 | 11 | 12 => (Class::ERROR, WirePort::NONE, WirePort::NONE),
        _ => (Class::PLAIN, WirePort::NONE, WirePort::NONE),
    };
}

#[inline(always)]
fn classify_icmpv6(p: &mut Packet, kind: u8, id: WirePort) {
    p.icmp_type = kind;
    // RFC 4443: 128 and 129 echo, below 128 errors. RFC 4861: 133 to 137. RFC 3810 and 2710: 130 to 132, 143.
    (p.class, p.tuple.sport, p.tuple.dport) = match kind {
        128 => (Class::PORTS, id, WirePort::NONE),
        129 => (Class::PORTS, WirePort::NONE, id),
        0..=127 => (Class::ERROR, WirePort::NONE, WirePort::NONE),
        130..=137 | 143 => (Class::NEIGHBOUR, WirePort::NONE, WirePort::NONE),
        _ => (Class::PLAIN, WirePort::NONE, WirePort::NONE),
    };
}
