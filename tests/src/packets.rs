//! Whole frames: to send what no socket would, and to see what really goes over an interface.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::proto::Request;

/// A frame with its Ethernet header. Checksums that the sender's device would have computed are not yet in it, and
/// segments can be larger than the MTU: virtual devices pass them on so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Whether this place sent it.
    pub outgoing: bool,
    pub(crate) hex: String,
}

impl Frame {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        from_hex(&self.hex).unwrap_or_default()
    }
}

/// A packet socket in a place's namespace.
#[derive(Debug)]
pub struct Packets {
    link: Link,
}

impl Packets {
    pub(crate) fn open(mut link: Link, interface: &str) -> Result<Self> {
        link.ask::<()>(&Request::PacketOpen(interface.to_owned()))?;
        Ok(Self { link })
    }

    /// Sends a frame as it is.
    ///
    /// # Panics
    /// When the interface does not take it (it is down, or the frame is larger than its MTU).
    #[track_caller]
    pub fn send(&mut self, frame: &[u8]) {
        if let Err(error) = self.link.ask::<()>(&Request::PacketSend(to_hex(frame))) {
            panic!("the frame was not sent: {error:#}");
        }
    }

    /// The first frame that the filter wants, or nothing when none came in time. Frames before it are thrown away, and so are
    /// those behind it that came before this looked: [`Packets::collect`] is for more than one.
    #[track_caller]
    pub fn wait_for(&mut self, within: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let frames = self.receive(left);
            if let Some(found) = frames.into_iter().find(&mut wanted) {
                return Some(found);
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// All frames that the filter wants until the time is over.
    #[track_caller]
    pub fn collect(&mut self, during: Duration, mut wanted: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let deadline = Instant::now() + during;
        let mut found = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            found.extend(self.receive(left).into_iter().filter(&mut wanted));
            if left.is_zero() {
                return found;
            }
        }
    }

    #[track_caller]
    fn receive(&mut self, within: Duration) -> Vec<Frame> {
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        match self.link.ask(&Request::PacketReceive { millis }) {
            Ok(frames) => frames,
            Err(error) => panic!("frames can't be received: {error:#}"),
        }
    }
}

/// The Internet checksum (RFC 1071) of some bytes, in host order.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_written_down() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("abc"), None);
        assert_eq!(from_hex("zz"), None);
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), 0x00ff);
    }
}
