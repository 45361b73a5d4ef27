//! The IP headers of a packet, and sums over its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::string::String;
use std::vec::Vec;

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
    pub(super) fn read_cut(bytes: &[u8]) -> Result<Self, String> {
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
