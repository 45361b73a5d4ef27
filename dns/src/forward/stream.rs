//! Questions over TCP or TLS: one connection for each server, shared by all questions while it lasts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::question::Question;
use super::tls::Tls;
use super::udp::{Heard, Waiting};

/// How long a connection without questions stays open.
const IDLE: Duration = Duration::from_secs(10);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// The connection to one server, while there is one.
pub(super) struct Lines {
    to: SocketAddr,
    tls: Option<Tls>,
    current: Mutex<Option<Arc<Line>>>,
}

/// Bytes both ways, encrypted or not.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

struct Line {
    shared: Arc<Shared>,
    reader: AbortHandle,
}

struct Shared {
    writer: tokio::sync::Mutex<WriteHalf<Box<dyn Bytes>>>,
    waiting: Waiting,
    closed: AtomicBool,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Lines {
    pub(super) fn new(to: SocketAddr, tls: Option<Tls>) -> Self {
        Self { to, tls, current: Mutex::new(None) }
    }

    /// Asks, and waits for as long as the caller does.
    pub(super) async fn ask(&self, question: &Question, edns: bool) -> io::Result<Vec<u8>> {
        let known = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(line) = known.filter(|line| !line.shared.closed.load(Ordering::Relaxed)) {
            // A server may close a connection whenever it likes: then there is a new one.
            if let Ok(answer) = line.ask(question, edns).await {
                return Ok(answer);
            }
        }
        let line = Arc::new(Line::open(self.to, self.tls.as_ref()).await?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&line));
        line.ask(question, edns).await
    }
}

impl Line {
    async fn open(to: SocketAddr, tls: Option<&Tls>) -> io::Result<Self> {
        let stream = timeout(CONNECT, TcpStream::connect(to)).await??;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Bytes> = match tls {
            None => Box::new(stream),
            Some(tls) => Box::new(timeout(CONNECT, tls.connect(stream)).await??),
        };
        let (reader, writer) = split(stream);
        let shared = Arc::new(Shared {
            writer: tokio::sync::Mutex::new(writer),
            waiting: Waiting::default(),
            closed: AtomicBool::new(false),
        });
        let reading = Arc::clone(&shared);
        let reader = tokio::spawn(async move {
            reading.read(reader).await;
            reading.closed.store(true, Ordering::Relaxed);
            reading.waiting.fail();
        });
        Ok(Self { shared, reader: reader.abort_handle() })
    }

    async fn ask(&self, question: &Question, edns: bool) -> io::Result<Vec<u8>> {
        let section = question.section(false);
        let (entry, heard) = self.shared.waiting.enter(&section, false);
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let message = question.message(entry.id, &section, edns);
        let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let frame = [&length.to_be_bytes(), &message[..]].concat();
        let mut writer = self.shared.writer.lock().await;
        writer.write_all(&frame).await?;
        writer.flush().await?;
        drop(writer);
        match heard.await {
            Ok(Heard::Answer(message)) => Ok(message),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl Shared {
    /// Reads until the server closes, sends what is no message, or nobody has asked for a while.
    async fn read(&self, mut reader: ReadHalf<Box<dyn Bytes>>) {
        let mut bytes = Vec::new();
        loop {
            match timeout(IDLE, reader.read_buf(&mut bytes)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                Err(_) if self.waiting.is_empty() => return,
                Err(_) => continue,
            }
            let mut at = 0;
            while let Some((&[high, low], rest)) = bytes.get(at..).and_then(|left| left.split_first_chunk()) {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(message) = rest.get(..length) else { break };
                self.waiting.give(message);
                at += 2 + length;
            }
            bytes.drain(..at);
        }
    }
}
