//! A packet as the kernel has it: its bytes, and what the kernel knows of them.

use std::vec::Vec;

use super::headers::{fold, sum};
use crate::overlay::Outer;

/// A packet with its Ethernet header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Set when the L4 checksum is still to be completed (`CHECKSUM_PARTIAL`, include/linux/skbuff.h): as most packets of
    /// pods come.
    pub partial: Option<Partial>,
    /// Payload of each segment of an aggregate, else 0.
    pub segment_size: u32,
    /// Its mark.
    pub mark: u32,
    /// The interface that it came in by, 0 when the node made it.
    pub ingress: u32,
    /// Whether the stack has made it of what it forwards, so that no socket has sent it.
    pub is_remade: bool,
    /// When it is to leave, by the kernel's clock, if it is to wait.
    pub departs: Option<u64>,
    /// The VLAN that it is tagged for.
    pub vlan: Option<u16>,
    /// Its outside, if it came through the tunnel.
    pub outer: Option<Outer>,
}

/// A checksum that is still to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial {
    /// Where the sum begins.
    pub start: usize,
    /// Where it is written.
    pub field: usize,
}

impl Frame {
    /// Bytes with complete checksums, or whatever.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Completes the checksum, as the hardware does (`skb_checksum_help`). One of zero is written as all ones.
    pub fn complete(&mut self) {
        let Some(Partial { start, field }) = self.partial.take() else { return };
        let sum = match !fold(sum(&self.bytes[start..])) {
            0 => 0xffff,
            sum => sum,
        };
        self.bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// The EtherType, as on the wire.
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        match self.bytes.get(12..14) {
            Some(&[a, b]) => u16::from_ne_bytes([a, b]),
            _ => 0,
        }
    }
}
