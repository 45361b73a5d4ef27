//! One connection: questions go out as they come, answers come back by their ids.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::super::question::Question;
use super::super::tls::Tls;
use super::super::waiting::{Entry, Given, Heard, MOST, State, Waiting};

/// How long a connection stays open on which nothing comes: without questions, or with questions that nobody answers.
const IDLE: Duration = Duration::from_secs(10);
/// How long a connection may take to be made, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// How many bytes of questions wait for a server that does not read.
const UNSENT: usize = 1 << 20;

/// Bytes both ways, encrypted or not.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection.
pub(super) struct Line {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    waiting: Waiting,
    /// What is to be written. Whoever asks may give up at any time, and half a question would spoil the connection, so
    /// another one writes.
    unsent: Mutex<Vec<u8>>,
    more: Notify,
    /// The server answers out of turn.
    out_of_turn: Arc<AtomicBool>,
    /// A message has come, if only one that nobody waits for any more.
    has_come: AtomicBool,
}

/// A question on its way.
pub(super) struct Asking<'l> {
    entry: Entry<'l>,
    heard: oneshot::Receiver<Heard>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(to: SocketAddr, tls: Option<&Tls>) -> io::Result<Box<dyn Bytes>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.connect(stream).await?),
    })
}

impl Line {
    /// Connects. `out_of_turn` is set when the server answers so.
    pub(super) async fn open(to: SocketAddr, tls: Option<&Tls>, out_of_turn: Arc<AtomicBool>) -> io::Result<Self> {
        let stream = timeout(CONNECT, connect(to, tls)).await??;
        let shared = Arc::new(Shared {
            waiting: Waiting::in_order(),
            unsent: Mutex::default(),
            more: Notify::new(),
            out_of_turn,
            has_come: AtomicBool::new(false),
        });
        let running = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let (reader, mut writer) = split(stream);
            tokio::select! {
                () = running.read(reader) => {}
                _failed = running.write(&mut writer) => {}
            }
            running.waiting.close();
            // The server learns now that nothing more comes.
            let _gone_anyway = timeout(CONNECT, writer.shutdown()).await;
        });
        Ok(Self { shared, task: task.abort_handle() })
    }

    /// How it is. One that is not read is full.
    pub(super) fn state(&self) -> State {
        let state = self.shared.waiting.state();
        if self.unsent().len() < UNSENT { state } else { State { waiting: MOST, ..state } }
    }

    /// Whether something has come on it, and it has not ended.
    pub(super) fn is_alive(&self) -> bool {
        self.shared.has_come.load(Ordering::Relaxed) && !self.state().closed
    }

    fn unsent(&self) -> MutexGuard<'_, Vec<u8>> {
        self.shared.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks.
    ///
    /// # Errors
    /// Too many questions wait, or the connection has ended.
    pub(super) fn ask(&self, question: &Question, edns: bool) -> io::Result<Asking<'_>> {
        let section = question.section(false);
        // Questions are written in the order of the table.
        let mut unsent = self.unsent();
        let (entry, heard) = self.shared.waiting.enter(&section, false)?;
        let message = question.message(entry.id, &section, edns);
        let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        unsent.extend_from_slice(&length.to_be_bytes());
        unsent.extend_from_slice(&message);
        drop(unsent);
        self.shared.more.notify_one();
        Ok(Asking { entry, heard })
    }
}

impl Asking<'_> {
    /// Whether it waits for what was asked before it.
    pub(super) fn is_behind(&self) -> bool {
        self.entry.is_behind()
    }

    /// The answer. It may be waited for again where this was dropped.
    pub(super) async fn answer(&mut self) -> io::Result<Vec<u8>> {
        match (&mut self.heard).await {
            Ok(Heard::Answer(message)) => Ok(message),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

impl Shared {
    /// Writes what is asked, as much as there is at once.
    async fn write(&self, writer: &mut WriteHalf<Box<dyn Bytes>>) -> io::Result<()> {
        loop {
            let unsent = std::mem::take(&mut *self.unsent.lock().unwrap_or_else(PoisonError::into_inner));
            if unsent.is_empty() {
                self.more.notified().await;
                continue;
            }
            writer.write_all(&unsent).await?;
            writer.flush().await?;
        }
    }

    /// Reads until the server closes or sends nothing for a while: the way to it may be gone, and nobody says so.
    async fn read(&self, mut reader: ReadHalf<Box<dyn Bytes>>) {
        let mut bytes = Vec::new();
        loop {
            match timeout(IDLE, reader.read_buf(&mut bytes)).await {
                Ok(Ok(0) | Err(_)) | Err(_) => return,
                Ok(Ok(_)) => {}
            }
            let mut at = 0;
            while let Some((&[high, low], rest)) = bytes.get(at..).and_then(|left| left.split_first_chunk()) {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(message) = rest.get(..length) else { break };
                self.has_come.store(true, Ordering::Relaxed);
                if matches!(self.waiting.give(message), Given::Told { out_of_turn: true }) {
                    self.out_of_turn.store(true, Ordering::Relaxed);
                }
                at += 2 + length;
            }
            bytes.drain(..at);
        }
    }
}
