//! ICMP errors: the ones that pass through, and the ones that are made here (RFC 792, RFC 4443, RFC 5508).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::csum;
use super::headers::{ETH_LEN, ETH_P_IP, ETH_P_IPV6, ICMP, ICMPV6, Icmp, Ipv4, Ipv6, Macs, Ports, SCTP, TCP, UDP};
use super::parse::stage::behind;
use super::reset::{reset_v4, reset_v6};
use super::rewrite::rewrite_outer;
use crate::Addr;
use crate::kernel::Kernel;
use crate::scratch::{Class, Fragment, Packet, Quoted, TcpFlags, Walk};
use crate::{Tuple, WirePort};

/// Length of the ICMP header before the quoted packet.
const QUOTE: u32 = 8;

/// Where an ICMP error ends: its packet has no more than the smallest MTU of IPv6 (RFC 4443 section 2.4); of IPv4 it is shorter
/// (RFC 1812 section 4.3.2.3).
const LONGEST: u32 = ETH_LEN + 1280;

/// Reads the packet that an error quotes. `None` when it can't be read, or when it is of a kind that no flow is kept for. A later
/// fragment is one that can't: it says nothing of ports, and whoever sent it hears of the first one too.
#[inline(always)]
pub fn quoted<K: Kernel>(k: &K, w: &mut Walk) -> Option<Quoted> {
    const OFFSET: u16 = 0x1fff_u16.to_be();
    k.reach(LONGEST);
    let (inner, v6) = (w.packet.l4 + QUOTE, w.packet.v6);
    let (src, dst, proto, l4) = if v6 == 1 {
        let ip = k.load::<Ipv6>(inner)?;
        let found = behind(k, w, u32::from(ip.next), inner + 40);
        if found == 0 {
            return None;
        }
        (ip.src, ip.dst, found as u8, found >> 8)
    } else {
        let ip = k.load::<Ipv4>(inner)?;
        let header = u32::from(ip.version_ihl & 0x0f) * 4;
        if header < 20 || ip.fragment & OFFSET != 0 {
            return None;
        }
        (Addr::from_v4(ip.src), Addr::from_v4(ip.dst), ip.proto, inner + header)
    };
    // Less is no error to whoever gets it (RFC 792; `icmp_socket_deliver` in net/ipv4/icmp.c, `icmpv6_notify` in net/ipv6/icmp.c).
    if l4 + 8 > w.packet.end {
        return None;
    }
    let (sport, dport) = match proto {
        TCP | UDP | SCTP => {
            let ports = k.load::<Ports>(l4)?;
            (ports.src, ports.dst)
        }
        ICMP | ICMPV6 => {
            let icmp = k.load::<Icmp>(l4)?;
            match (proto, icmp.kind) {
                (ICMP, 8) | (ICMPV6, 128) => (icmp.id, WirePort::NONE),
                (ICMP, 0) | (ICMPV6, 129) => (WirePort::NONE, icmp.id),
                _ => return None,
            }
        }
        _ => (WirePort::NONE, WirePort::NONE),
    };
    Some(Quoted { tuple: Tuple { src, dst, sport, dport, pad: 0 }, l4, proto: u32::from(proto) })
}

/// Gives the quoted packet the tuple that its sender knows it by, and the error the addresses that go with it.
///
/// The quoted L4 checksum is left alone: a quote is cut off and nobody can check it. The quoted IPv4 header checksum
/// is mended, which makes the addresses neutral to ICMP's own; for ICMPv6 they are not, nor are the ports.
#[inline(always)]
pub fn translate_quote<K: Kernel>(k: &K, w: &mut Walk, new: &Tuple, (src, dst): (Addr, Addr)) -> bool {
    let Walk { packet: p, quoted, .. } = w;
    let (old, l4) = (&quoted.tuple, quoted.l4);
    let inner = p.l4 + QUOTE;
    let addresses = csum::add(csum::addr_diff(old.src, new.src), csum::addr_diff(old.dst, new.dst));
    let ports = csum::add(csum::port_diff(old.sport, new.sport), csum::port_diff(old.dport, new.dport));
    let diff = if p.v6 == 1 {
        if !k.store(inner + 8, &[new.src, new.dst]) {
            return false;
        }
        csum::add(addresses, ports)
    } else {
        let Some(ip) = k.load::<Ipv4>(inner) else { return false };
        let mended = csum::adjust(ip.csum, addresses);
        if !(k.store(inner + 10, &mended) && k.store(inner + 12, &[new.src.v4(), new.dst.v4()])) {
            return false;
        }
        ports
    };
    let stored = match quoted.proto as u8 {
        TCP | UDP => k.store(l4, &Ports { src: new.sport, dst: new.dport }),
        ICMP | ICMPV6 => k.store(l4 + 4, &new.echo_id()),
        _ => true,
    };
    stored && k.adjust_l4_csum(p.l4 + 2, diff, false, false) && rewrite_outer(k, p, src, dst)
}

/// The errors that are made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// Nobody serves this port.
    PortUnreachable,
    /// No pod has this address.
    HostUnreachable,
    /// The TTL ran out.
    TimeExceeded,
    /// Larger than this many bytes and not to be cut.
    TooBig(u32),
}

impl IcmpError {
    /// As two numbers.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> (u16, u32) {
        match self {
            Self::PortUnreachable => (0, 0),
            Self::HostUnreachable => (1, 0),
            Self::TimeExceeded => (2, 0),
            Self::TooBig(mtu) => (3, mtu),
        }
    }

    /// From [`IcmpError::pack`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(kind: u16, mtu: u32) -> Self {
        match kind {
            0 => Self::PortUnreachable,
            1 => Self::HostUnreachable,
            2 => Self::TimeExceeded,
            _ => Self::TooBig(mtu),
        }
    }

    /// Whether two numbers are those of [`Self::PortUnreachable`].
    #[inline(always)]
    const fn is_about_port((kind, _): (u16, u32)) -> bool {
        kind == 0
    }

    /// Type and code of what two numbers stand for. Taken out of words, for a branch for each would be as many packets to the
    /// verifier.
    #[inline(always)]
    const fn type_and_code((kind, _): (u16, u32), v6: bool) -> (u8, u8) {
        let (types, codes) = if v6 { ([1, 1, 3, 2], [4, 3, 0, 0]) } else { ([3, 3, 11, 3], [3, 1, 0, 4]) };
        let place = (kind & 3) * 8;
        ((u32::from_le_bytes(types) >> place) as u8, (u32::from_le_bytes(codes) >> place) as u8)
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IcmpHead {
    kind: u8,
    code: u8,
    csum: u16,
    word: u32,
}

impl IcmpHead {
    /// With its checksum: `rest` is the sum of what follows and, for ICMPv6, of the pseudo-header.
    #[inline(always)]
    const fn new(kind: u8, code: u8, word: u32, rest: u64) -> Self {
        let first = u16::from_ne_bytes([kind, code]) as u64;
        Self { kind, code, csum: !csum::fold16(first + word as u64 + rest), word }
    }
}

/// Turns an IPv4 packet into an ICMP error ([`IcmpError::pack`]) about it, addressed to its sender, from `from` (a node's address). False when
/// none may be sent (RFC 1122 section 3.2.2) or when the packet could not be changed. TCP to a port that nobody serves is
/// reset instead.
#[inline(always)]
pub fn send_error_v4<K: Kernel>(k: &K, p: &Packet, error: (u16, u32), from: Addr) -> bool {
    if is_reset(p, error) {
        return reset_v4(k, p);
    }
    if !may_refuse(p, V4_L4, from) {
        return false;
    }
    let Some(macs) = k.load::<Macs>(0) else { return false };
    let back = Macs { dst: macs.src, src: macs.dst };
    let Some(quote) = quote_l4(k, p.proto, V4_L4) else { return false };
    k.cut(V4_L4 + quote.length) && error_v4(k, p, error, from, back, quote)
}

/// The same for IPv6 (RFC 4443 section 2.4).
#[inline(always)]
pub fn send_error_v6<K: Kernel>(k: &K, p: &Packet, error: (u16, u32), from: Addr) -> bool {
    if is_reset(p, error) {
        return reset_v6(k, p);
    }
    if !may_refuse(p, if p.l4 == V6_L4 + EXTENSION { p.l4 } else { V6_L4 }, from) {
        return false;
    }
    let l4 = k.reread(&p.l4);
    let Some(macs) = k.load::<Macs>(0) else { return false };
    let back = Macs { dst: macs.src, src: macs.dst };
    let Some(quote) = quote_l4(k, p.proto, l4) else { return false };
    k.cut(l4 + quote.length) && error_v6(k, p, error, from, back, quote)
}

/// Length of the one extension header that may be before the L4 header of a packet that an error is about: that of fragments.
const EXTENSION: u32 = 8;

#[inline(always)]
const fn is_reset(p: &Packet, error: (u16, u32)) -> bool {
    p.proto == TCP && IcmpError::is_about_port(error)
}

/// No error is sent about an error or about a later fragment. A packet with options or other extension headers (its L4 header
/// is not where it is without) gets none rather than one that quotes it wrongly.
#[inline(always)]
fn may_refuse(p: &Packet, l4: u32, from: Addr) -> bool {
    is_answerable(p) && p.l4 == l4 && from != Addr::UNSPECIFIED
}

/// Whether an error may be about a packet, wherever its headers are, or a reset: about no error, no reset and no later fragment.
#[inline(always)]
pub(crate) fn is_answerable(p: &Packet) -> bool {
    let about_error = p.class == Class::ERROR || p.class == Class::NEIGHBOUR;
    !about_error && p.fragment != Fragment::LATER && (p.proto != TCP || p.tcp & TcpFlags::RST == 0)
}

/// Where the L4 header is without options or extension headers.
const V4_L4: u32 = ETH_LEN + 20;
const V6_L4: u32 = ETH_LEN + 40;

/// The L4 part of a quote: its length in bytes and the sum of its words.
#[derive(Clone, Copy)]
struct Quote {
    length: u32,
    sum: u64,
}

/// Prepares the L4 header for being quoted: eight bytes, or a TCP header without options.
///
/// A packet from a veth usually has its checksum still to be computed, from the L4 header on to the end of the packet,
/// and nothing shows whether it has. The header is part of the quote from now on; if the kernel writes there, ICMP's own
/// checksum is wrong. A value `f` with `!(others + f) == f` is immune. (The kernel also refuses to cut off a checksum
/// that it has still to write: `__bpf_skb_min_len` in net/core/filter.c.)
#[inline(always)]
fn quote_l4<K: Kernel>(k: &K, proto: u8, l4: u32) -> Option<Quote> {
    match proto {
        TCP => quote_settled(k, l4, 5, 16),
        UDP => quote_settled(k, l4, 2, 6),
        _ => sum(k, l4, 2).map(|sum| Quote { length: 8, sum }),
    }
}

/// Prepares a header of so many words whose checksum is at an offset.
#[inline(always)]
fn quote_settled<K: Kernel>(k: &K, l4: u32, words: u32, csum: u32) -> Option<Quote> {
    let there = k.load::<u16>(l4 + csum)?;
    let others = sum(k, l4, words)? + u64::from(!there);
    let settled = settled(others);
    k.store(l4 + csum, &settled).then_some(Quote { length: words * 4, sum: others + u64::from(settled) })
}

/// The sum of so many 32-bit words.
#[inline(always)]
fn sum<K: Kernel>(k: &K, offset: u32, words: u32) -> Option<u64> {
    let mut sum = 0;
    for word in 0..words {
        sum += u64::from(k.load::<u32>(offset + word * 4)?);
    }
    Some(sum)
}

/// The checksum that completing leaves as it is, given the sum of the other words.
#[inline(always)]
const fn settled(others: u64) -> u16 {
    let others = csum::fold16(others) as u32;
    match ((65535 - others) * 32768) % 65535 {
        0 => 65535,
        f => f as u16,
    }
}

#[inline(always)]
fn error_v4<K: Kernel>(k: &K, p: &Packet, error: (u16, u32), from: Addr, back: Macs, quote: Quote) -> bool {
    const ROOM: u32 = 28;
    let ((kind, code), (_, mtu)) = (IcmpError::type_and_code(error, false), error);
    if !k.make_room(ROOM) {
        return false;
    }
    let Some(header) = sum(k, ETH_LEN + ROOM, 5) else { return false };
    let length = (ROOM + 20 + quote.length) as u16;
    let ip = Ipv4::made(length, ICMP, from.v4(), p.tuple.src.v4());
    let icmp = IcmpHead::new(kind, code, (mtu & 0xffff).to_be(), header + quote.sum);
    k.store(ETH_LEN, &ip) && k.store(ETH_LEN + 20, &icmp) && k.store(0, &back) && k.store(12, &ETH_P_IP)
}

#[inline(always)]
fn error_v6<K: Kernel>(k: &K, p: &Packet, error: (u16, u32), from: Addr, back: Macs, quote: Quote) -> bool {
    const ROOM: u32 = 48;
    let extension = p.l4 != V6_L4;
    let length = (8 + p.l4 - ETH_LEN + quote.length) as u16;
    let ((kind, code), (_, mtu)) = (IcmpError::type_and_code(error, true), error);
    if !k.make_room(ROOM) {
        return false;
    }
    let Some(mut header) = sum(k, ETH_LEN + ROOM, 40 / 4) else { return false };
    if extension {
        let Some(more) = sum(k, V6_L4 + ROOM, EXTENSION / 4) else { return false };
        header += more;
    }
    let ip = Ipv6::made(length, ICMPV6, from, p.tuple.src);
    let pseudo = csum::addr_sum(from)
        + csum::addr_sum(p.tuple.src)
        + u64::from(length.to_be())
        + u64::from(u16::from(ICMPV6).to_be());
    let icmp = IcmpHead::new(kind, code, mtu.to_be(), header + quote.sum + pseudo);
    k.store(ETH_LEN, &ip) && k.store(ETH_LEN + 40, &icmp) && k.store(0, &back) && k.store(12, &ETH_P_IPV6)
}
