//! Building packets.

use std::net::IpAddr;
use std::vec;
use std::vec::Vec;

use super::frame::Frame;
use super::headers::{fold, octets, sum};
use crate::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// A packet to be built, with right checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 "don't fragment".
    pub no_fragment: bool,
    /// Options of an IPv4 header, padded to words by the caller.
    pub options: Vec<u8>,
    /// Options of a TCP header, padded to words by the caller.
    pub tcp_options: Vec<u8>,
    /// IPv6 extension headers: type, and body of 6, 14, 22… bytes (an authentication header's: 10, 14…).
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What it carries.
    pub l4: L4,
    /// What follows the L4 header.
    pub payload: Vec<u8>,
}

/// The L4 header of a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    /// TCP: ports and flags; the sequence number is 1.
    Tcp(u16, u16, u8),
    /// TCP: ports, flags, sequence number.
    TcpAt(u16, u16, u8, u32),
    /// TCP: ports, flags, sequence number, acknowledgement number.
    Segment(u16, u16, u8, u32, u32),
    /// UDP: ports.
    Udp(u16, u16),
    /// UDP without a checksum, which only IPv4 allows.
    UdpUnchecked(u16, u16),
    /// SCTP, of an association: ports.
    Sctp(u16, u16),
    /// SCTP that opens an association, with no verification tag: ports.
    SctpInit(u16, u16),
    /// ICMP echo request, by the message's family: identifier.
    Ask(u16),
    /// ICMP echo reply: identifier.
    Answer(u16),
    /// Another ICMP message: type, code, and the four bytes after the checksum.
    Icmp(u8, u8, u32),
    /// Another protocol: its number.
    Other(u8),
}

impl Message {
    /// From one address to another.
    ///
    /// # Panics
    /// When they are of different families.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, l4: L4) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "{src} and {dst}");
        let (options, tcp_options, extensions, payload) = (Vec::new(), Vec::new(), Vec::new(), b"fairlead".to_vec());
        Self { src, dst, ttl: 64, no_fragment: false, options, tcp_options, extensions, l4, payload }
    }

    /// The message in one packet.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::new(self.packet(&self.segment(), None))
    }

    /// The message in fragments of at most so many bytes each (a multiple of eight), under an identifier.
    #[must_use]
    pub fn fragments(&self, size: usize, id: u16) -> Vec<Frame> {
        let segment = self.segment();
        let pieces = segment.chunks(size);
        let last = pieces.len() - 1;
        pieces
            .enumerate()
            .map(|(n, piece)| Frame::new(self.packet(piece, Some(((n * size) as u16, n != last, id)))))
            .collect()
    }

    /// An ICMP error about a packet, as whoever is at `from` sends it: with as much of the packet as it says.
    #[must_use]
    pub fn error(from: IpAddr, about: &Frame, (kind, code, word): (u8, u8, u32), quote: usize) -> Self {
        let ip = &about.bytes[14..];
        let to = if from.is_ipv4() {
            IpAddr::from(<[u8; 4]>::try_from(&ip[12..16]).unwrap_or_default())
        } else {
            IpAddr::from(<[u8; 16]>::try_from(&ip[8..24]).unwrap_or_default())
        };
        let payload = ip[..ip.len().min(quote)].to_vec();
        Self { payload, ..Self::new(from, to, L4::Icmp(kind, code, word)) }
    }

    /// L4 header and payload.
    fn segment(&self) -> Vec<u8> {
        let v4 = self.src.is_ipv4();
        let ports = |a: u16, b: u16| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let tcp = |a: u16, b: u16, flags: u8, seq: u32, ack: u32| {
            let offset = 0x50 + (self.tcp_options.len() / 4 * 16) as u8;
            let rest = [offset, flags, 0xff, 0xff, 0, 0, 0, 0];
            [&ports(a, b), &seq.to_be_bytes()[..], &ack.to_be_bytes(), &rest, &self.tcp_options].concat()
        };
        let icmp = |kind: u8, code: u8, word: u32| [&[kind, code, 0, 0], &word.to_be_bytes()[..]].concat();
        let echo = |kind: u8, id: u16| icmp(kind, 0, u32::from(id) << 16 | 1);
        let icmp_proto = if v4 { ICMP } else { ICMPV6 };
        let length = (8 + self.payload.len()) as u16;
        // Protocol, header, and where its checksum is.
        let (proto, mut bytes, field) = match self.l4 {
            L4::Tcp(a, b, flags) => (TCP, tcp(a, b, flags, 1, 2), Some(16)),
            L4::TcpAt(a, b, flags, seq) => (TCP, tcp(a, b, flags, seq, 2), Some(16)),
            L4::Segment(a, b, flags, seq, ack) => (TCP, tcp(a, b, flags, seq, ack), Some(16)),
            L4::Udp(a, b) => (UDP, [&ports(a, b), &length.to_be_bytes()[..], &[0, 0]].concat(), Some(6)),
            L4::UdpUnchecked(a, b) => (UDP, [&ports(a, b), &length.to_be_bytes()[..], &[0, 0]].concat(), None),
            L4::Sctp(a, b) => (SCTP, [&ports(a, b), &[0, 0, 0, 9, 0xc3, 0xc3, 0xc3, 0xc3][..]].concat(), None),
            L4::SctpInit(a, b) => (SCTP, [&ports(a, b), &[0, 0, 0, 0, 0xc3, 0xc3, 0xc3, 0xc3][..]].concat(), None),
            L4::Ask(id) => (icmp_proto, echo(if v4 { 8 } else { 128 }, id), Some(2)),
            L4::Answer(id) => (icmp_proto, echo(if v4 { 0 } else { 129 }, id), Some(2)),
            L4::Icmp(kind, code, word) => (icmp_proto, icmp(kind, code, word), Some(2)),
            L4::Other(proto) => (proto, Vec::new(), None),
        };
        bytes.extend(&self.payload);
        if let Some(field) = field {
            let mut total = sum(&bytes);
            if proto != ICMP {
                total += sum(&octets(self.src)) + sum(&octets(self.dst)) + u64::from(proto) + bytes.len() as u64;
            }
            let csum = match (!fold(total), proto) {
                (0, UDP) => 0xffff,
                (csum, _) => csum,
            };
            bytes[field..field + 2].copy_from_slice(&csum.to_be_bytes());
        }
        bytes
    }

    fn proto(&self) -> u8 {
        match self.l4 {
            L4::Tcp(..) | L4::TcpAt(..) | L4::Segment(..) => TCP,
            L4::Udp(..) | L4::UdpUnchecked(..) => UDP,
            L4::Sctp(..) | L4::SctpInit(..) => SCTP,
            L4::Ask(_) | L4::Answer(_) | L4::Icmp(..) => {
                if self.src.is_ipv4() {
                    ICMP
                } else {
                    ICMPV6
                }
            }
            L4::Other(proto) => proto,
        }
    }

    /// Headers around a piece of the segment: its offset, whether more follow, and the identifier.
    fn packet(&self, piece: &[u8], fragment: Option<(u16, bool, u16)>) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.src.is_ipv4() {
            bytes.extend([8, 0]);
            bytes.extend(self.header_v4(piece.len(), fragment));
        } else {
            bytes.extend([0x86, 0xdd]);
            bytes.extend(self.header_v6(piece.len(), fragment));
        }
        bytes.extend(piece);
        bytes
    }

    fn header_v4(&self, length: usize, fragment: Option<(u16, bool, u16)>) -> Vec<u8> {
        let header = 20 + self.options.len();
        let (offset, more, id) = fragment.unwrap_or((0, false, 7));
        let place = offset >> 3 | u16::from(more) << 13 | u16::from(self.no_fragment) << 14;
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + length) as u16).to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(place.to_be_bytes());
        bytes.extend([self.ttl, self.proto(), 0, 0]);
        bytes.extend(octets(self.src));
        bytes.extend(octets(self.dst));
        bytes.extend(&self.options);
        let csum = !fold(sum(&bytes));
        bytes[10..12].copy_from_slice(&csum.to_be_bytes());
        bytes
    }

    fn header_v6(&self, length: usize, fragment: Option<(u16, bool, u16)>) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some((offset, more, id)) = fragment {
            let place = (offset | u16::from(more)).to_be_bytes();
            extensions.push((44, [&place[..], &u32::from(id).to_be_bytes()].concat()));
        }
        let mut rest = Vec::new();
        for (n, (kind, body)) in extensions.iter().enumerate() {
            let next = extensions.get(n + 1).map_or(self.proto(), |(kind, _)| *kind);
            let units = match kind {
                44 => 0,
                51 => (body.len() - 6) / 4,
                _ => (body.len() - 6) / 8,
            };
            rest.extend([next, units as u8]);
            rest.extend(body);
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(((rest.len() + length) as u16).to_be_bytes());
        bytes.extend([extensions.first().map_or(self.proto(), |(kind, _)| *kind), self.ttl]);
        bytes.extend(octets(self.src));
        bytes.extend(octets(self.dst));
        bytes.extend(rest);
        bytes
    }
}
