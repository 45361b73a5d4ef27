//! The connection between the DNS server and the agent.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as Socket;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::LONGEST;

/// Bytes that are read at once.
const READ: usize = 4096;

/// A connection of lines. Only what comes wakes its end, not that there is room for what goes: there is room again whenever the other
/// end reads, and to hear of that takes a CPU from it just when it begins to work.
#[derive(Debug)]
pub struct Line(AsyncFd<Socket>);

impl Line {
    /// Of a connection, in the current runtime.
    ///
    /// # Errors
    /// The kernel can't say when something comes.
    #[expect(deprecated, reason = "what replaces it is unsafe, for what others may close: the socket is owned here")]
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        AsyncFd::with_interest(stream.into_std()?, Interest::READABLE).map(Self)
    }

    /// Writes as much of these bytes as there is room for, from any thread.
    ///
    /// # Errors
    /// There is none, or the other end has hung up.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_ref().write(bytes)
    }

    /// Has each line heard, with its end, until the other end hangs up.
    ///
    /// # Errors
    /// Who hears says so, a line has no end, or nothing can be read.
    pub async fn listen(&self, mut hear: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let (mut lines, mut room) = (Lines::default(), vec![0; READ]);
        loop {
            let mut ready = self.0.readable().await?;
            let read = match ready.try_io(|socket| socket.get_ref().read(&mut room)) {
                Ok(Ok(0)) => return lines.end(),
                Ok(Ok(read)) => read,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(Err(error)) => return Err(error),
                Err(_nothing) => continue,
            };
            // The socket was read empty, so that need not be asked. What has come meanwhile is told anew.
            if read < room.len() {
                ready.clear_ready();
            }
            lines.push(room.get(..read).unwrap_or_default(), &mut hear)?;
        }
    }
}

/// What has come of a line that is not whole.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Bytes come.
    fn push(&mut self, mut bytes: &[u8], hear: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            if self.begun.is_empty() {
                hear(line)?;
            } else {
                self.begun.extend_from_slice(line);
                hear(&self.begun)?;
                self.begun.clear();
            }
            bytes = rest;
        }
        self.begun.extend_from_slice(bytes);
        if self.begun.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        Ok(())
    }

    /// No more bytes come.
    fn end(&self) -> io::Result<()> {
        if self.begun.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_heard_whole_however_they_come(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"ab\n".to_vec()), 0..8), 0..16),
        ) {
            let (mut lines, mut heard) = (Lines::default(), Vec::new());
            let mut hear = |line: &[u8]| {
                heard.push(line.to_vec());
                Ok(())
            };
            for piece in &pieces {
                lines.push(piece, &mut hear).unwrap();
            }
            let all = pieces.concat();
            let mut expected: Vec<_> = all.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let is_whole = expected.pop_if(|last| last.last() != Some(&b'\n')).is_none();
            prop_assert_eq!(heard, expected);
            prop_assert_eq!(lines.end().is_ok(), is_whole);
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let mut hear = |_: &[u8]| Ok(());
        assert!(lines.push(&vec![b'a'; LONGEST], &mut hear).is_ok());
        assert!(lines.push(b"a", &mut hear).is_err());
    }

    #[tokio::test]
    async fn both_ends_hear_what_the_other_writes_and_that_it_has_hung_up() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Line::new(one).unwrap(), Line::new(other).unwrap());
        // More than is read at once, and no multiple of it.
        let said = [vec![b'a'; 2 * READ], b"\nb\n".to_vec()].concat();
        assert_eq!(one.write(&said).unwrap(), said.len());
        drop(one);
        let mut heard = Vec::new();
        let ended = other.listen(|line| {
            heard.extend_from_slice(line);
            Ok(())
        });
        ended.await.unwrap();
        assert_eq!(heard, said);
    }
}
