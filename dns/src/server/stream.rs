//! A connection's stream, and how it ends without losing what was sent.
//!
//! When a socket is closed with something unread in it, or gets more after that, the kernel answers with a reset (RFC
//! 1122 section 4.2.2.13): the client's next write fails, and responses that have not reached it are lost. So our side
//! ends first, and what still comes is discarded until the client has ended its side (RFC 9112 section 9.6).

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a client may take to end its side.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it still sends is discarded: more than it can have under way unless it goes on and on.
const MOST: usize = 256 << 10;

/// A connection's stream. All clones are the same one: who serves it has one, and who ends it another.
#[derive(Debug, Clone)]
pub(super) struct Stream(Arc<TcpStream>);

impl Stream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// The stream itself, to read and write without waiting.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.0
    }

    /// Ends our side, if it hasn't ended yet, and waits for a while until the client has ended its own.
    pub(super) async fn linger(&self) {
        if self.shut_down().is_ok() {
            // Whoever takes longer gets the reset.
            let _late = timeout(LINGER, self.discard()).await;
        }
    }

    async fn discard(&self) -> io::Result<()> {
        let mut left = MOST;
        while left > 0 {
            self.0.readable().await?;
            match discard_some(&self.0) {
                Ok(0) => break,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn shut_down(&self) -> io::Result<()> {
        Ok(shutdown(self.0.as_raw_fd(), Shutdown::Write)?)
    }
}

/// Reads into a buffer that no task keeps.
fn discard_some(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 4096])
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read_buf(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl Stream {
    /// Writes when there is room.
    fn poll_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(context, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    /// A stream of the server, and the client's end.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::new(listener.accept().await.unwrap().0), client)
    }

    #[tokio::test]
    async fn what_was_sent_arrives_whatever_comes_meanwhile() {
        for _ in 0..10 {
            let (mut stream, mut client) = pair().await;
            client.write_all(&[7; 1000]).await.unwrap();
            stream.write_all(b"answer").await.unwrap();
            let begin = Instant::now();
            let lingers = tokio::spawn(async move { stream.linger().await });
            let mut said = Vec::new();
            let read = client.read_to_end(&mut said).await;
            let wrote = [client.write_all(&[7; 1000]).await, client.write_all(&[7; 1000]).await];
            // Who takes longer than it lingers gets a reset, so a busy machine tries again.
            let in_time = begin.elapsed() < LINGER;
            drop(client);
            lingers.await.unwrap();
            if in_time {
                read.expect("an end, and no reset");
                assert!(wrote.iter().all(Result::is_ok), "no reset has come: {wrote:?}");
                assert_eq!(said, b"answer");
                return;
            }
        }
        panic!("the machine takes {LINGER:?} for everything");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_end_is_not_waited_for() {
        let (stream, _client) = pair().await;
        let begin = Instant::now();
        stream.linger().await;
        assert_eq!(begin.elapsed().as_secs(), LINGER.as_secs());
    }

    #[tokio::test]
    async fn who_sends_on_and_on_is_cut_off() {
        let (stream, mut client) = pair().await;
        let lingers = tokio::spawn(async move { stream.linger().await });
        let mut sent = 0;
        while client.write_all(&[7; 4096]).await.is_ok() {
            sent += 4096;
        }
        assert!(sent >= MOST, "{sent}");
        lingers.await.unwrap();
    }
}
