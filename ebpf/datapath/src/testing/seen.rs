//! What a packet says, read in another way than the datapath does, with every checksum checked.

use std::format;
use std::net::IpAddr;
use std::string::String;
use std::vec::Vec;

use super::frame::{Frame, Partial};
use super::headers::{Headers, fold, sum};
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

impl Frame {
    /// The same packet as the sender's stack hands it on, when that leaves the L4 checksum to the hardware: the field
    /// holds the sum of the pseudo-header. What is not whole and right TCP or UDP stays as it is.
    #[must_use]
    pub fn with_partial_checksum(mut self) -> Self {
        let (Ok(headers), true) = (Headers::read(&self.bytes), Seen::of(&self).is_ok()) else { return self };
        let at = match headers.proto {
            TCP => 16,
            UDP => 6,
            _ => return self,
        };
        if headers.fragment.is_none() {
            let field = headers.l4 + at;
            let sum = headers.pseudo_sum();
            self.bytes[field..field + 2].copy_from_slice(&fold(sum).to_be_bytes());
            self.partial = Some(Partial { start: headers.l4, field });
        }
        self
    }
}
