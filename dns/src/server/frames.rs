//! Messages in a stream: each behind its length in two bytes (RFC 1035 section 4.2.2).

use crate::wire::HEADER;

/// The longest query that is read. A query has one question and an OPT record; nothing that long is one.
pub(super) const LONGEST: usize = 4096;

/// What has come of a stream and is not yet taken. It grows with what comes, not with what a length promises.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

/// What is next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'f> {
    /// A whole message.
    Message(&'f [u8]),
    /// Something that is no query, as far as it has come: the stream can't go on.
    Broken(&'f [u8]),
    /// More has to come.
    Partial,
}

impl Frames {
    /// Where what comes next is appended, with room for some of it.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > 512 {
            self.bytes = Vec::new();
        }
        // Whoever sends half a query makes us keep little more than half a query.
        self.bytes.reserve_exact(if self.bytes.len() < 512 { 512 } else { LONGEST });
        &mut self.bytes
    }

    /// Takes the next message.
    pub(super) fn next(&mut self) -> Frame<'_> {
        if self.taken == self.bytes.len() {
            // Nothing is kept for a connection that is idle.
            *self = Self::default();
        }
        let left = self.bytes.get(self.taken..).unwrap_or_default();
        let Some((&[high, low], rest)) = left.split_first_chunk() else { return Frame::Partial };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > LONGEST && rest.len() >= HEADER {
            return Frame::Broken(rest);
        }
        match rest.get(..length) {
            Some(message) => {
                self.taken += 2 + length;
                Frame::Message(message)
            }
            None => Frame::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in vec(vec(any::<u8>(), 1..600), 0..12),
            pieces in vec(1_usize..700, 1..40),
        ) {
            let stream: Vec<u8> =
                messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat()).collect();
            let (mut frames, mut out, mut rest) = (Frames::default(), Vec::new(), &stream[..]);
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*piece));
                frames.room().extend_from_slice(now);
                while let Frame::Message(message) = frames.next() {
                    out.push(message.to_vec());
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(out, messages);
            prop_assert_eq!(frames.next(), Frame::Partial);
            prop_assert_eq!(frames.bytes.capacity(), 0, "an idle connection keeps no buffer");
        }
    }

    /// What must hold for whatever comes in whatever pieces: messages come out in order and whole, and what is kept is bounded by the
    /// longest query, not by what a length promises. Whether the stream can go on.
    fn check(stream: &[u8], pieces: &[usize]) -> bool {
        let (mut frames, mut out, mut rest) = (Frames::default(), Vec::new(), stream);
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let room = frames.room();
            let free = room.capacity() - room.len();
            let piece = pieces.next().map_or(1, |piece| *piece).min(free).min(rest.len());
            let (now, later) = rest.split_at(piece);
            room.extend_from_slice(now);
            assert!(room.capacity() <= 2 * LONGEST + 512, "{} bytes are kept", room.capacity());
            rest = later;
            loop {
                match frames.next() {
                    Frame::Message(message) => {
                        assert!((1..=LONGEST).contains(&message.len()));
                        out.extend((message.len() as u16).to_be_bytes());
                        out.extend(message);
                    }
                    Frame::Partial => break,
                    Frame::Broken(bytes) => {
                        assert!(stream.starts_with(&out) && bytes.len() <= 2 * LONGEST);
                        return false;
                    }
                }
            }
        }
        assert!(stream.starts_with(&out) && stream.len() - out.len() <= LONGEST + 2);
        true
    }

    #[test]
    fn streams_that_attackers_send_are_bounded() {
        let long = |length: u16, count| [&length.to_be_bytes()[..], &vec![0; count]].concat();
        assert!(check(&long(4096, 4095), &[1]), "all but the last byte");
        assert!(check(&long(4096, 4096).repeat(3), &[513]));
        assert!(check(&long(1, 1).repeat(3000), &[usize::MAX]), "small ones, many at once");
        assert!(!check(&long(4097, 4097), &[7]), "too long");
        assert!(!check(&long(u16::MAX, 70_000), &[4096]));
        assert!(!check(&[0; 2], &[1]), "none");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_and_in_order(
            lengths in vec((prop_oneof![0_u16..40, 500..530_u16, 4090..4100_u16, any::<u16>()], 0_usize..5000), 0..6),
            pieces in vec(1_usize..6000, 1..20),
        ) {
            let stream: Vec<u8> = lengths
                .iter()
                .flat_map(|(length, count)| [&length.to_be_bytes()[..], &vec![7; *count]].concat())
                .collect();
            check(&stream, &pieces);
        }
    }

    #[test]
    fn half_a_message_takes_little() {
        let mut frames = Frames::default();
        frames.room().extend_from_slice(&[0x0f, 0xff, 1, 2, 3]);
        assert_eq!(frames.next(), Frame::Partial);
        assert!(frames.bytes.capacity() <= 1024);
    }

    #[test]
    fn what_is_no_query_breaks_the_stream() {
        let mut frames = Frames::default();
        frames.room().extend_from_slice(&[0xff, 0xff]);
        assert_eq!(frames.next(), Frame::Partial);
        frames.room().extend_from_slice(&[7; 12]);
        assert_eq!(frames.next(), Frame::Broken(&[7; 12]));
        let mut frames = Frames::default();
        frames.room().extend_from_slice(&[0, 0]);
        assert_eq!(frames.next(), Frame::Broken(&[]));
    }
}
