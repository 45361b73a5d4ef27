//! What a packet says, read in another way than the datapath does, with every checksum checked.

use std::format;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::string::String;
use std::vec::Vec;

use super::frame::Frame;
use crate::packet::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// A packet, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; an echo request's identifier.
    pub sport: u16,
    /// Destination port; an echo reply's identifier.
    pub dport: u16,
    /// IP protocol number.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Flags of TCP.
    pub flags: u8,
    /// Type and code of ICMP.
    pub icmp: (u8, u8),
    /// What follows the L4 header: for an ICMP error the packet that it quotes, for a later fragment all that it has.
    pub payload: Vec<u8>,
}

impl Seen {
    /// Reads a packet.
    ///
    /// # Errors
    /// What is wrong with it: cut off, or a checksum that doesn't add up.
    pub fn of(frame: &Frame) -> Result<Self, String> {
        let headers = Headers::read(&frame.bytes)?;
        let mut seen = Self::read(&frame.bytes, &headers)?;
        if headers.fragment.is_some() {
            if headers.fragment != Some(0) {
                (seen.sport, seen.dport, seen.payload) = (0, 0, frame.bytes[headers.l4..headers.end].to_vec());
            }
            return Ok(seen);
        }
        let l4 = &frame.bytes[headers.l4..headers.end];
        let with_pseudo = matches!(headers.proto, TCP | UDP | ICMPV6);
        if frame.partial.is_some() {
            let field = if headers.proto == TCP { 16 } else { 6 };
            let there = u16::from_be_bytes([l4[field], l4[field + 1]]);
            if there % 0xffff != fold(headers.pseudo_sum()) % 0xffff {
                return Err(format!("the sum of the pseudo-header is {there:#x}"));
            }
        } else if with_pseudo || headers.proto == ICMP {
            let pseudo = if with_pseudo { headers.pseudo_sum() } else { 0 };
            let none = headers.proto == UDP && l4[6..8] == [0, 0];
            let total = fold(sum(l4) + pseudo);
            if !none && total != 0xffff {
                return Err(format!("the L4 checksum is off by {:#x}", !total));
            }
        }
        if seen.is_error()
            && headers.v4
            && let Some(inner) = seen.payload.get(..20)
            && inner[0] == 0x45
            && fold(sum(inner)) != 0xffff
        {
            return Err("the checksum of the quoted header is wrong".into());
        }
        Ok(seen)
    }

    /// Reads the packet that an ICMP error quotes, which may be cut off. Its checksums are not checked.
    ///
    /// # Errors
    /// When there is none, or less than its ports.
    pub fn quoted(&self) -> Result<Self, String> {
        if !self.is_error() {
            return Err("quotes nothing".into());
        }
        let mut frame = std::vec![0; 12];
        frame.extend(if self.src.is_ipv4() { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(&self.payload);
        let headers = Headers::read_cut(&frame)?;
        frame.resize(frame.len().max(headers.l4 + 20), 0);
        Self::read(&frame, &Headers { end: frame.len(), ..headers })
    }

    /// Source and destination, with ports.
    #[must_use]
    pub fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        ((self.src, self.sport), (self.dst, self.dport))
    }

    /// Whether it is an ICMP error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self.proto {
            ICMP => matches!(self.icmp.0, 3 | 4 | 5 | 11 | 12),
            ICMPV6 => self.icmp.0 < 128,
            _ => false,
        }
    }

    fn read(bytes: &[u8], headers: &Headers) -> Result<Self, String> {
        let l4 = &bytes[headers.l4..headers.end];
        let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
        let need = match headers.proto {
            TCP => 20,
            SCTP => 12,
            UDP | ICMP | ICMPV6 => 8,
            _ => 0,
        };
        let later = headers.fragment.is_some_and(|offset| offset != 0);
        if l4.len() < need && !later {
            return Err("the L4 header is cut off".into());
        }
        let mut seen = Self {
            src: headers.src,
            dst: headers.dst,
            sport: 0,
            dport: 0,
            proto: headers.proto,
            ttl: headers.ttl,
            flags: 0,
            icmp: (0, 0),
            payload: Vec::new(),
        };
        if later {
            return Ok(seen);
        }
        let mut header = need;
        match headers.proto {
            TCP => {
                header = usize::from(l4[12] >> 4) * 4;
                (seen.sport, seen.dport, seen.flags) = (word(0), word(2), l4[13]);
            }
            UDP | SCTP => (seen.sport, seen.dport) = (word(0), word(2)),
            ICMP | ICMPV6 => {
                seen.icmp = (l4[0], l4[1]);
                match (headers.proto, l4[0]) {
                    (ICMP, 8) | (ICMPV6, 128) => seen.sport = word(4),
                    (ICMP, 0) | (ICMPV6, 129) => seen.dport = word(4),
                    _ => {}
                }
            }
            _ => {}
        }
        seen.payload = l4.get(header..).unwrap_or_default().to_vec();
        Ok(seen)
    }
}

/// The IP headers of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Headers {
    pub(super) v4: bool,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) proto: u8,
    pub(super) ttl: u8,
    /// Offsets of the L4 header and of the packet's end.
    pub(super) l4: usize,
    pub(super) end: usize,
    /// Byte offset of a fragment; a whole packet has none.
    pub(super) fragment: Option<u16>,
}

impl Headers {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let headers = Self::read_cut(bytes)?;
        if headers.end > bytes.len() || headers.l4 > headers.end {
            return Err("it is longer than its bytes".into());
        }
        if headers.v4 && fold(sum(&bytes[14..headers.header_end(bytes)])) != 0xffff {
            return Err("the checksum of the IPv4 header is wrong".into());
        }
        Ok(headers)
    }

    fn header_end(&self, bytes: &[u8]) -> usize {
        14 + usize::from(bytes[14] & 15) * 4
    }

    /// Reads headers of what may end early.
    fn read_cut(bytes: &[u8]) -> Result<Self, String> {
        let ip = bytes.get(14..).unwrap_or_default();
        match bytes.get(12..14) {
            Some([8, 0]) if ip.len() >= 20 => Ok(Self::read_v4(ip)),
            Some([0x86, 0xdd]) if ip.len() >= 40 => Self::read_v6(ip),
            _ => Err("no IP header".into()),
        }
    }

    fn read_v4(ip: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap_or_default());
        let fragment = (word(6) & 0x3fff != 0).then_some((word(6) & 0x1fff) << 3);
        Self {
            v4: true,
            src: address(12),
            dst: address(16),
            proto: ip[9],
            ttl: ip[8],
            l4: 14 + usize::from(ip[0] & 15) * 4,
            end: 14 + usize::from(word(2)),
            fragment,
        }
    }

    fn read_v6(ip: &[u8]) -> Result<Self, String> {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap_or_default());
        let (mut next, mut at, mut fragment) = (ip[6], 40, None);
        while let 0 | 43 | 44 | 51 | 60 = next {
            let Some(head) = ip.get(at..at + 8) else { return Err("an extension header is cut off".into()) };
            let length = match next {
                44 => {
                    let place = u16::from_be_bytes([head[2], head[3]]);
                    fragment = (place & 0xfff9 != 0).then_some(place & 0xfff8);
                    8
                }
                51 => 8 + usize::from(head[1]) * 4,
                _ => 8 + usize::from(head[1]) * 8,
            };
            (next, at) = (head[0], at + length);
            if fragment.is_some_and(|offset| offset != 0) {
                break;
            }
        }
        let end = 14 + 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        Ok(Self { v4: false, src: address(8), dst: address(24), proto: next, ttl: ip[7], l4: 14 + at, end, fragment })
    }

    /// The sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
    pub(super) fn pseudo_sum(&self) -> u64 {
        let (src, dst) = (octets(self.src), octets(self.dst));
        sum(&src) + sum(&dst) + u64::from(self.proto) + (self.end - self.l4) as u64
    }
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::octets(&v4).to_vec(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6).to_vec(),
    }
}

/// The sum of 16-bit words in network order; an odd byte is the high one of its word.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(c.get(1).copied().unwrap_or_default())).sum()
}

pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
