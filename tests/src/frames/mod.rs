//! Frames made by hand.

mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::wire::Wire;
use crate::packets::checksum;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// A frame.
#[must_use]
pub fn ethernet(dst: [u8; 6], src: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &kind.to_be_bytes(), payload].concat()
}

/// An IPv4 packet.
///
/// # Panics
/// When it is longer than a packet can be.
#[must_use]
pub fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0];
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

/// An IPv6 packet.
///
/// # Panics
/// When it is longer than a packet can be.
#[must_use]
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, hops];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(payload);
    packet
}

/// A packet of the family that the addresses are of, with its EtherType.
///
/// # Panics
/// When they are of two.
#[must_use]
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => (IPV4, ipv4(src, dst, protocol, payload)),
        (IpAddr::V6(src), IpAddr::V6(dst)) => (IPV6, ipv6(src, dst, protocol, 64, payload)),
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// A fragment of a packet: its identification, where its payload begins in bytes, and whether more follow.
///
/// # Panics
/// When the addresses are of two families.
#[must_use]
pub fn fragment(
    (src, dst): (IpAddr, IpAddr),
    protocol: u8,
    id: u16,
    (offset, more): (u16, bool),
    payload: &[u8],
) -> (u16, Vec<u8>) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut packet = ipv4(src, dst, protocol, payload);
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[6..8].copy_from_slice(&((u16::from(more) << 13) | (offset / 8)).to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum(&packet[..20]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            (IPV4, packet)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            const FRAGMENT: u8 = 44;
            let mut extension = vec![protocol, 0];
            extension.extend((offset | u16::from(more)).to_be_bytes());
            extension.extend(u32::from(id).to_be_bytes());
            (IPV6, ipv6(src, dst, FRAGMENT, 64, &[&extension, payload].concat()))
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
}

/// A TCP segment in its packet, with the EtherType of that.
#[must_use]
pub fn segment(src: IpAddr, dst: IpAddr, ports: (u16, u16), tcp: &Segment<'_>) -> (u16, Vec<u8>) {
    let mut bytes = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    bytes.extend(tcp.seq.to_be_bytes());
    bytes.extend(tcp.ack.to_be_bytes());
    bytes.extend([5 << 4, tcp.flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(tcp.payload);
    let sum = with_pseudo(src, dst, TCP, &bytes) ^ u16::from(!tcp.intact);
    bytes[16..18].copy_from_slice(&sum.to_be_bytes());
    packet(src, dst, TCP, &bytes)
}

/// What a TCP segment carries.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Its flags: a sum of those of [`flags`].
    pub flags: u8,
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// Its data.
    pub payload: &'a [u8],
    /// Whether its checksum is right.
    pub intact: bool,
}

impl Segment<'static> {
    /// One with these flags and no data.
    #[must_use]
    pub const fn new(flags: u8) -> Self {
        Self { flags, seq: 0x0102_0304, ack: 0, payload: &[], intact: true }
    }
}

/// TCP's flags (RFC 9293, section 3.1).
pub mod flags {
    /// No more data comes.
    pub const FIN: u8 = 1;
    /// A connection is opened.
    pub const SYN: u8 = 2;
    /// It is reset.
    pub const RST: u8 = 4;
    /// Data is to be handed on.
    pub const PSH: u8 = 8;
    /// The acknowledgement counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
}

/// The flags of a frame's TCP segment, if it has one right behind the IP header.
#[must_use]
pub fn tcp_flags(frame: &[u8]) -> Option<u8> {
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let (protocol, at) = match kind {
        IPV4 => (frame.get(23)?, 14 + usize::from(frame.get(14)? & 15) * 4),
        IPV6 => (frame.get(20)?, 54),
        _ => return None,
    };
    (*protocol == TCP).then(|| frame.get(at + 13).copied())?
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// Nobody listens on the port.
    PortUnreachable,
    /// The path takes this many bytes only.
    TooBig(u16),
}

/// An ICMP error about a packet, with its EtherType.
#[must_use]
pub fn icmp_error(src: IpAddr, dst: IpAddr, about: Complaint, quote: &[u8]) -> (u16, Vec<u8>) {
    let (kind, code, mtu) = match (about, src.is_ipv4()) {
        (Complaint::PortUnreachable, true) => (3, 3, 0),
        (Complaint::PortUnreachable, false) => (1, 4, 0),
        (Complaint::TooBig(mtu), true) => (3, 4, mtu),
        (Complaint::TooBig(mtu), false) => (2, 0, mtu),
    };
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quote);
    let protocol = if src.is_ipv4() { ICMP } else { ICMPV6 };
    let sum = if src.is_ipv4() { checksum(&message) } else { with_pseudo(src, dst, ICMPV6, &message) };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet(src, dst, protocol, &message)
}

/// A datagram in its packet, with the EtherType of that.
///
/// # Panics
/// When it is longer than a packet can be.
#[must_use]
pub fn datagram(src: IpAddr, dst: IpAddr, ports: (u16, u16), payload: &[u8]) -> (u16, Vec<u8>) {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let sum = with_pseudo(src, dst, UDP, &udp);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet(src, dst, UDP, &udp)
}

/// An ICMPv6 message in its packet; its checksum field is filled in.
#[must_use]
pub fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let sum = with_pseudo(src.into(), dst.into(), ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(src, dst, ICMPV6, 255, &message)
}

/// The checksum over a message and its pseudo-header: 0 for one that has a right one.
///
/// # Panics
/// When it is longer than a packet can be.
#[must_use]
pub fn with_pseudo(src: IpAddr, dst: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let tail = [0, protocol, length[0], length[1]];
    checksum(&[&octets(src)[..], &octets(dst), &tail, message].concat())
}

/// The addresses of a frame's IP packet.
#[must_use]
pub fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok().map(IpAddr::from);
    let v6 = |at: usize| <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok().map(IpAddr::from);
    match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
        IPV4 => Some((v4(26)?, v4(30)?)),
        IPV6 => Some((v6(22)?, v6(38)?)),
        _ => None,
    }
}
