//! Packets of SCTP (RFC 9260 section 3): as much of them as it takes to set up an association.

/// What a chunk is (section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// ABORT.
    Abort,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
}

impl Kind {
    const ALL: [(Self, u8); 5] =
        [(Self::Init, 1), (Self::InitAck, 2), (Self::Abort, 6), (Self::CookieEcho, 10), (Self::CookieAck, 11)];

    fn number(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, of)| *of == number).map(|(kind, _)| *kind)
    }
}

/// A packet with one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) from: u16,
    pub(crate) to: u16,
    /// The receiver's tag (section 3.1): zero in an INIT.
    pub(crate) tag: u32,
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
}

/// The common header and that of a chunk.
const HEADER: usize = 12;
const CHUNK: usize = 4;

impl Packet {
    /// As it is sent.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = u16::try_from(CHUNK + self.body.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind.number(), 0]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        // Little endian: the reflected sum goes out byte by byte (appendix A).
        let sum = checksum(&bytes).to_le_bytes();
        bytes.splice(8..HEADER, sum);
        bytes
    }

    /// Reads one, if it is one of these and its sum is right.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, chunks) = bytes.split_at_checked(HEADER)?;
        let number = |at: usize| Some(u16::from_be_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let sum = u32::from_le_bytes(header.get(8..HEADER)?.try_into().ok()?);
        let mut plain = bytes.to_vec();
        plain.get_mut(8..HEADER)?.fill(0);
        if checksum(&plain) != sum {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(chunks.get(2..CHUNK)?.try_into().ok()?));
        Some(Self {
            from: number(0)?,
            to: number(2)?,
            tag: u32::from_be_bytes(header.get(4..8)?.try_into().ok()?),
            kind: Kind::of(*chunks.first()?)?,
            body: chunks.get(CHUNK..length)?.to_vec(),
        })
    }
}

/// What INIT and INIT ACK begin with (sections 3.3.2 and 3.3.3): the sender's tag, its window, streams and first number.
pub(crate) fn init(tag: u32) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend(65_536_u32.to_be_bytes());
    body.extend([0, 1, 0, 1]);
    body.extend(tag.to_be_bytes());
    body
}

/// The sender's tag.
pub(crate) fn tag_of(init: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(init.get(..4)?.try_into().ok()?))
}

/// The parameter "State Cookie".
const COOKIE: u16 = 7;

/// An INIT ACK's body.
pub(crate) fn init_ack(tag: u32, cookie: &[u8]) -> Vec<u8> {
    let mut body = init(tag);
    body.extend(COOKIE.to_be_bytes());
    body.extend(u16::try_from(CHUNK + cookie.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(cookie);
    body
}

/// The cookie in it.
pub(crate) fn cookie_of(init_ack: &[u8]) -> Option<Vec<u8>> {
    let mut rest = init_ack.get(16..)?;
    loop {
        let kind = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
        let value = rest.get(4..length)?;
        if kind == COOKIE {
            return Some(value.to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// CRC32c (appendix A), reflected.
fn checksum(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_are_those_of_the_standard() {
        // RFC 3720 appendix B.4.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read(from: u16, to: u16, tag: u32, kind in 0..5_usize, body: Vec<u8>) {
            let packet = Packet { from, to, tag, kind: Kind::ALL[kind].0, body };
            prop_assert_eq!(Packet::decode(&packet.encode()), Some(packet));
        }

        #[test]
        fn a_broken_one_is_none(tag: u32, at: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = Packet { from: 1, to: 2, tag, kind: Kind::Init, body: init(tag) }.encode();
            *at.get_mut(&mut bytes) ^= 1 << bit;
            prop_assert_eq!(Packet::decode(&bytes), None);
        }

        #[test]
        fn a_cookie_is_found(tag: u32, cookie: Vec<u8>) {
            let body = init_ack(tag, &cookie);
            prop_assert_eq!(tag_of(&body), Some(tag));
            prop_assert_eq!(cookie_of(&body), Some(cookie));
        }

        #[test]
        fn what_is_no_packet_is_refused(bytes: Vec<u8>) {
            prop_assert_eq!(Packet::decode(&bytes), None);
            let _none = cookie_of(&bytes);
        }
    }
}
