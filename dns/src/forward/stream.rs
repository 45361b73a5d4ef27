//! Questions over TCP or TLS: one connection for each server, shared by all questions while it lasts.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::question::Question;
use super::tls::Tls;
use super::udp::{Heard, Waiting};

/// How long a connection stays open on which nothing comes: without questions, or with questions that nobody answers.
const IDLE: Duration = Duration::from_secs(10);
/// How long a connection may take to be made, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// Connections that a question is asked on. A server may close one whenever it likes, after so many questions too.
const TRIES: usize = 4;

/// The connection to one server, while there is one.
pub(super) struct Lines(Arc<Server>);

struct Server {
    to: SocketAddr,
    tls: Option<Tls>,
    current: Mutex<Option<Arc<Line>>>,
    /// Whoever makes a connection has this; others wait, and take what comes of it. In it is when it last failed, and why.
    opening: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

/// Why there is no connection.
#[derive(Clone)]
struct Failure(io::ErrorKind, String);

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
        Self(Arc::new(Server { to, tls, current: Mutex::new(None), opening: tokio::sync::Mutex::new(None) }))
    }

    /// Asks, and waits for as long as the caller does.
    pub(super) async fn ask(&self, question: &Question, edns: bool) -> io::Result<Vec<u8>> {
        let mut line = match self.0.current() {
            Some(line) => line,
            None => self.open(None).await?,
        };
        for _ in 1..TRIES {
            if let Ok(answer) = line.ask(question, edns).await {
                return Ok(answer);
            }
            line = self.open(Some(line)).await?;
        }
        line.ask(question, edns).await
    }

    /// A connection in place of one that is of no use. It is made for all who ask, so also where the first of them gives up.
    async fn open(&self, useless: Option<Arc<Line>>) -> io::Result<Arc<Line>> {
        let server = Arc::clone(&self.0);
        tokio::spawn(async move { server.open(useless.as_ref()).await }).await.map_err(io::Error::other)?
    }
}

impl Server {
    /// The connection, if there is one that is open.
    fn current(&self) -> Option<Arc<Line>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        current.filter(|line| !line.shared.closed.load(Ordering::Relaxed))
    }

    /// A connection in place of one that is of no use. However many ask for it at once, one is made.
    async fn open(&self, useless: Option<&Arc<Line>>) -> io::Result<Arc<Line>> {
        let begin = Instant::now();
        let mut failed = self.opening.lock().await;
        let is_useless = |line: &Arc<Line>| useless.is_some_and(|useless| Arc::ptr_eq(useless, line));
        if let Some(line) = self.current().filter(|line| !is_useless(line)) {
            return Ok(line);
        }
        if let Some((_, Failure(kind, why))) = failed.as_ref().filter(|(when, _)| *when >= begin) {
            return Err(io::Error::new(*kind, why.clone()));
        }
        match Line::open(self.to, self.tls.as_ref()).await {
            Ok(line) => {
                let line = Arc::new(line);
                *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&line));
                Ok(line)
            }
            Err(error) => {
                *failed = Some((Instant::now(), Failure(error.kind(), error.to_string())));
                Err(error)
            }
        }
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
    async fn open(to: SocketAddr, tls: Option<&Tls>) -> io::Result<Self> {
        let stream = timeout(CONNECT, connect(to, tls)).await??;
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
            // The server learns now that nothing more comes, not with the next question.
            if let Ok(mut writer) = reading.writer.try_lock() {
                let _gone_anyway = timeout(CONNECT, writer.shutdown()).await;
            }
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
        // Whoever had it before may have given up in the middle.
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let writing = Writing { closed: &self.shared.closed, is_whole: false };
        writer.write_all(&frame).await?;
        writer.flush().await?;
        writing.ends();
        drop(writer);
        match heard.await {
            Ok(Heard::Answer(message)) => Ok(message),
            _ => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

/// A question that is being written. Whoever asks may give up at any time, and behind half a question nobody can write
/// another: then the connection is of no use.
struct Writing<'s> {
    closed: &'s AtomicBool,
    is_whole: bool,
}

impl Writing<'_> {
    fn ends(mut self) {
        self.is_whole = true;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// Reads until the server closes or sends nothing for a while: the way to it may be gone, and nobody says so.
    async fn read(&self, mut reader: ReadHalf<Box<dyn Bytes>>) {
        let mut bytes = Vec::new();
        loop {
            match timeout(IDLE, reader.read_buf(&mut bytes)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                Err(_) => return,
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt as _;
    use futures::future::join_all;
    use tokio::net::TcpListener;

    use super::super::question::Wants;
    use super::*;
    use crate::WireName;
    use crate::wire::RecordType;

    fn question(number: usize) -> Question {
        let name = WireName::parse(&format!("www-{number}.example")).unwrap();
        Question::new(name.as_wire(), RecordType::A, Wants::default())
    }

    fn run(future: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
    }

    /// Answers every question with itself, so many on a connection, and counts connections.
    async fn server(most: Option<usize>) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    for _ in 0..most.unwrap_or(usize::MAX) {
                        let Ok(length) = stream.read_u16().await else { return };
                        let mut message = vec![0; usize::from(length)];
                        stream.read_exact(&mut message).await.unwrap();
                        message[2] |= 0x80;
                        stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await.unwrap();
                    }
                });
            }
        });
        (address, connections)
    }

    #[test]
    fn questions_that_come_at_once_make_one_connection() {
        run(async {
            let (address, connections) = server(None).await;
            let lines = Lines::new(address, None);
            let questions: Vec<Question> = (0..100).map(question).collect();
            let answers = join_all(questions.iter().map(|question| lines.ask(question, false))).await;
            assert!(answers.iter().all(Result::is_ok));
            assert_eq!(connections.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_server_that_closes_after_some_questions_answers_a_burst() {
        run(async {
            let (address, connections) = server(Some(128)).await;
            let lines = Lines::new(address, None);
            let questions: Vec<Question> = (0..300).map(question).collect();
            let answers = join_all(questions.iter().map(|question| lines.ask(question, false))).await;
            assert!(answers.iter().all(Result::is_ok));
            assert_eq!(connections.load(Ordering::Relaxed), 3);
        });
    }

    #[test]
    fn a_connection_is_made_though_who_asked_for_it_gives_up() {
        run(async {
            let (address, connections) = server(None).await;
            let lines = Lines::new(address, None);
            let first = question(1);
            // It is polled once, and dropped.
            assert!(lines.ask(&first, false).now_or_never().is_none());
            assert!(lines.ask(&question(2), false).await.is_ok());
            assert_eq!(connections.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn who_waits_for_a_connection_that_fails_does_not_try_after_it() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let lines = Lines::new(address, None);
            let questions: Vec<Question> = (0..100).map(question).collect();
            let answers = join_all(questions.iter().map(|question| lines.ask(question, false))).await;
            let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap_err().kind()).collect();
            assert!(kinds.iter().all(|kind| *kind == io::ErrorKind::ConnectionRefused), "{kinds:?}");
        });
    }

    #[test]
    fn nothing_is_written_behind_half_a_question() {
        let closed = AtomicBool::new(false);
        Writing { closed: &closed, is_whole: false }.ends();
        assert!(!closed.load(Ordering::Relaxed));
        drop(Writing { closed: &closed, is_whole: false });
        assert!(closed.load(Ordering::Relaxed));
    }
}
