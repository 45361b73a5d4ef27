//! What is asked of upstream servers, as bytes.

use std::fmt;
use std::sync::Arc;

use crate::name::labels;
use crate::random;
use crate::wire::{CLASS_IN, HEADER, Header, RecordType, flags};

/// The UDP size that is offered to upstream servers: what every path carries in one piece (DNS flag day 2020).
pub(super) const UDP_SIZE: u16 = 1232;

/// What is asked: everything that an answer depends on. Questions that are equal have one answer. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Flags, the type, and the name in lower case: see [`Self::key`].
    key: Arc<[u8]>,
}

/// What a client wants besides the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// Recursion.
    pub recursion: bool,
    /// Data whose signatures weren't checked.
    pub unchecked: bool,
    /// Signatures.
    pub signatures: bool,
}

/// Bytes in front of the name.
const FRONT: usize = 3;

impl Question {
    /// A question about a name in wire format, in any spelling.
    #[must_use]
    pub fn new(name: &[u8], record_type: RecordType, wants: Wants) -> Self {
        let mut key = Vec::with_capacity(FRONT + name.len());
        write_key(name, record_type, wants, &mut key);
        Self { key: key.into() }
    }

    /// The question with this key.
    pub(super) fn of_key(key: &[u8]) -> Self {
        Self { key: key.into() }
    }

    /// The question as one string of bytes.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The name, in lower case and wire format.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.key.get(FRONT..).unwrap_or_default()
    }

    /// The type.
    #[must_use]
    pub fn record_type(&self) -> RecordType {
        let [_, high, low] = self.key.first_chunk().copied().unwrap_or_default();
        RecordType(u16::from_be_bytes([high, low]))
    }

    /// What the client wants besides.
    #[must_use]
    pub fn wants(&self) -> Wants {
        let bits = self.key.first().copied().unwrap_or_default();
        Wants { recursion: bits & 1 != 0, unchecked: bits & 2 != 0, signatures: bits & 4 != 0 }
    }

    /// The question section of a message, with the name as it is or in a random spelling.
    pub(super) fn section(&self, spelled: bool) -> Vec<u8> {
        let mut section = Vec::with_capacity(self.name().len() + 4);
        section.extend_from_slice(self.name());
        if spelled {
            spell(&mut section);
        }
        section.extend_from_slice(&self.record_type().0.to_be_bytes());
        section.extend_from_slice(&CLASS_IN.to_be_bytes());
        section
    }

    /// The whole message around a question section.
    pub(super) fn message(&self, id: u16, section: &[u8], edns: bool) -> Vec<u8> {
        let wants = self.wants();
        let flag = |is: bool, bit: u16| if is { bit } else { 0 };
        // The server says whether it has checked signatures (RFC 6840 section 5.7), for which it needs no OPT record.
        let flags = flag(wants.recursion, flags::RECURSION_DESIRED)
            | flag(wants.unchecked, flags::CHECKING_DISABLED)
            | flags::AUTHENTIC_DATA;
        let mut out = Vec::with_capacity(HEADER + section.len() + 11);
        Header { id, flags, counts: [1, 0, 0, u16::from(edns)] }.write(&mut out);
        out.extend_from_slice(section);
        if edns {
            let [high, low] = UDP_SIZE.to_be_bytes();
            out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, if wants.signatures { 0x80 } else { 0 }, 0, 0, 0]);
        }
        out
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in labels(self.name()) {
            write!(f, "{}.", label.escape_ascii())?;
        }
        write!(f, " {}", hickory_proto::rr::RecordType::from(self.record_type().0))
    }
}

/// Writes the key of a question, as [`Question::key`] has it.
pub(super) fn write_key(name: &[u8], record_type: RecordType, wants: Wants, out: &mut Vec<u8>) {
    out.clear();
    let Wants { recursion, unchecked, signatures } = wants;
    let [high, low] = record_type.0.to_be_bytes();
    out.extend_from_slice(&[u8::from(recursion) | u8::from(unchecked) << 1 | u8::from(signatures) << 2, high, low]);
    out.extend(name.iter().map(u8::to_ascii_lowercase));
}

/// Chooses the case of each letter at random (draft-vixie-dnsext-dns0x20): who wants to forge an answer has to guess
/// them all. The length bytes are below the letters.
fn spell(name: &mut [u8]) {
    let mut bits = 0;
    for (at, byte) in name.iter_mut().filter(|byte| byte.is_ascii_alphabetic()).enumerate() {
        if at % 64 == 0 {
            bits = random::number();
        }
        if bits >> (at % 64) & 1 == 1 {
            byte.make_ascii_uppercase();
        }
    }
}

/// How a message goes with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// It answers it.
    Answer,
    /// It answers it in another spelling of the name: it may be forged.
    Misspelled,
    /// It has nothing to do with it.
    Nothing,
}

/// Compares a message with the question section that was sent. Its id is known to be right.
pub(super) fn compare(message: &[u8], section: &[u8]) -> Match {
    let Some(header) = Header::read(message) else { return Match::Nothing };
    if header.flags & flags::RESPONSE == 0 || header.flags & flags::OPCODE != 0 {
        return Match::Nothing;
    }
    // A server that can't read a question need not repeat it.
    if header.counts[0] == 0 && matches!(header.flags & 0xf, 1 | 4) && message.len() == HEADER {
        return Match::Answer;
    }
    let given = message.get(HEADER..HEADER + section.len()).filter(|_| header.counts[0] == 1);
    match given {
        Some(given) if given == section => Match::Answer,
        Some(given) if given.eq_ignore_ascii_case(section) => Match::Misspelled,
        _ => Match::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::WireName;

    proptest! {
        #[test]
        fn a_question_is_what_it_was_made_of(
            name in "[a-zA-Z0-9]{1,20}(\\.[a-zA-Z0-9]{1,20}){0,4}",
            record_type in any::<u16>(),
            bits in 0..8_u8,
        ) {
            let name = WireName::parse(&name).unwrap();
            let wants = Wants { recursion: bits & 1 != 0, unchecked: bits & 2 != 0, signatures: bits & 4 != 0 };
            let question = Question::new(name.as_wire(), RecordType(record_type), wants);
            prop_assert_eq!(question.name(), name.as_wire());
            prop_assert_eq!((question.record_type(), question.wants()), (RecordType(record_type), wants));
            let section = question.section(true);
            prop_assert!(section.eq_ignore_ascii_case(&question.section(false)));
            let mut message = question.message(7, &section, bits & 1 == 0);
            prop_assert_eq!(compare(&message, &section), Match::Nothing);
            message[2] |= 0x80;
            prop_assert_eq!(compare(&message, &section), Match::Answer);
        }
    }

    #[test]
    fn spellings_differ_and_are_told_apart() {
        let name = WireName::parse("a-rather-long-name.example.org").unwrap();
        let question = Question::new(name.as_wire(), RecordType::A, Wants::default());
        let (one, other) = (question.section(true), question.section(true));
        assert_ne!(one, other, "26 letters are spelled the same once in 2^26");
        let mut message = question.message(7, &one, false);
        message[2] |= 0x80;
        assert_eq!(compare(&message, &other), Match::Misspelled);
    }
}
