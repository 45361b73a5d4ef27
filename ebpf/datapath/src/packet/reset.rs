//! Resets: how a TCP connection is refused (RFC 9293 section 3.10.7.1).
//!
//! "Port unreachable" would say the same, but while connect(2) holds its socket the kernel drops an ICMP error
//! (`LockDroppedIcmps` in `tcp_v4_err`), and one made on the same node always comes while it does; the client would wait
//! for the second SYN. A segment is kept until the socket is free.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::csum;
use super::headers::{ETH_LEN, Ipv4, Ipv6, Macs, TCP};
use super::size::carried;
use crate::WirePort;
use crate::kernel::Kernel;
use crate::scratch::{Fragment, Packet, TcpFlags};

/// TCP header without options (RFC 9293 section 3.1).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Segment {
    sport: WirePort,
    dport: WirePort,
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
    csum: u16,
    urgent: u16,
}

const LENGTH: u32 = size_of::<Segment>() as u32;

/// Turns a TCP packet over IPv4 into the reset that answers it. False when none may be sent, as about a reset, or when
/// the packet could not be changed. One with options gets none, as it gets no ICMP error.
#[inline(always)]
pub(super) fn reset_v4<K: Kernel>(k: &K, p: &Packet) -> bool {
    const L4: u32 = ETH_LEN + 20;
    let ip = Ipv4::made((20 + LENGTH) as u16, TCP, p.tuple.dst.v4(), p.tuple.src.v4());
    reset(k, p, L4) && k.store(ETH_LEN, &ip)
}

/// The same over IPv6.
#[inline(always)]
pub(super) fn reset_v6<K: Kernel>(k: &K, p: &Packet) -> bool {
    const L4: u32 = ETH_LEN + 40;
    let ip = Ipv6::made(LENGTH as u16, TCP, p.tuple.dst, p.tuple.src);
    reset(k, p, L4) && k.store(ETH_LEN, &ip)
}

/// Turns everything but the IP header round.
#[inline(always)]
fn reset<K: Kernel>(k: &K, p: &Packet, l4: u32) -> bool {
    if p.l4 != l4 || p.fragment != Fragment::NONE || p.tcp & TcpFlags::RST != 0 {
        return false;
    }
    let (Some(macs), Some(got)) = (k.load::<Macs>(0), k.load::<Segment>(l4)) else { return false };
    let payload = carried(k, p);
    k.cut(l4 + LENGTH) && k.store(l4, &answer(p, &got, payload)) && k.store(0, &Macs { dst: macs.src, src: macs.dst })
}

/// The reset that answers a segment with so much payload.
///
/// Nothing shows whether the kernel has still to compute the checksum, from the sum of the pseudo-header that it expects
/// in the field. Nobody looks at the window of a reset, so it is chosen such that this sum is the checksum too.
#[inline(always)]
fn answer(p: &Packet, got: &Segment, payload: u32) -> Segment {
    // SYN and FIN take a number each (RFC 9293 section 3.4).
    let numbers = payload + u32::from(p.tcp & TcpFlags::SYN != 0) + u32::from(p.tcp & TcpFlags::FIN != 0);
    let acknowledges = p.tcp & TcpFlags::ACK != 0;
    let mut reset = Segment {
        sport: got.dport,
        dport: got.sport,
        seq: if acknowledges { got.ack } else { 0 },
        ack: if acknowledges { 0 } else { u32::from_be(got.seq).wrapping_add(numbers).to_be() },
        offset: 5 << 4,
        flags: if acknowledges { TcpFlags::RST } else { TcpFlags::RST | TcpFlags::ACK },
        window: 0,
        csum: 0,
        urgent: 0,
    };
    let pseudo = csum::addr_sum(p.tuple.src)
        + csum::addr_sum(p.tuple.dst)
        + u64::from((LENGTH as u16).to_be())
        + u64::from(u16::from(TCP).to_be());
    reset.csum = csum::fold16(pseudo);
    let [a, b, c, d, e]: [u32; 5] = zerocopy::transmute!(reset);
    reset.window = !csum::fold16([a, b, c, d, e].map(u64::from).iter().sum::<u64>() + pseudo);
    reset
}
