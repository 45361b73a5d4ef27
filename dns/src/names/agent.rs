//! The connection to the node's agent: many questions at once, each with its own patience.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_objects::names::{Ask, LONGEST, Reply, Said};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

/// How long an answer waits for the agent.
pub const PATIENCE: Duration = Duration::from_millis(50);

/// Questions that wait to be written.
const MOST_WAITING: usize = 1024;

/// How soon an agent that is not there is looked for again: within the patience of a question.
const RETRY: Duration = Duration::from_millis(20);

/// The agent, while it is there.
#[derive(Debug)]
pub(super) struct Agent {
    line: watch::Sender<Option<Arc<Line>>>,
}

/// A connection.
#[derive(Debug)]
struct Line {
    /// Lines that wait to be written.
    questions: mpsc::Sender<Vec<u8>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Said>>>,
    next: AtomicU64,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Said>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a question. Nothing if too many wait: the agent does not read.
    fn send(&self, ask: &mut Ask) -> Option<oneshot::Receiver<Said>> {
        ask.id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = ask.encode();
        let (tell, told) = oneshot::channel();
        self.waiting().insert(ask.id, tell);
        if self.questions.try_send(line).is_err() {
            self.waiting().remove(&ask.id);
            return None;
        }
        Some(told)
    }

    /// Says what a client is given, and waits for no reply. Whether the agent reads it.
    fn say(&self, ask: &mut Ask) -> bool {
        // Of the reply nobody wants to know.
        self.send(ask).is_some_and(|told| {
            drop(told);
            self.waiting().remove(&ask.id);
            true
        })
    }

    async fn listen(&self, read: OwnedReadHalf) -> io::Result<()> {
        let (mut read, mut line) = (BufReader::new(read), Vec::new());
        loop {
            line.clear();
            if (&mut read).take(LONGEST as u64).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let reply = Reply::decode(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Nobody waits for it any more if it took too long.
            if let Some(tell) = self.waiting().remove(&reply.id) {
                let _gave_up = tell.send(reply.said);
            }
        }
    }
}

/// Forgets a question that nobody waits for any more.
struct Waits<'a>(&'a Line, u64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting().remove(&self.1);
    }
}

impl Agent {
    /// Keeps a connection, in the current runtime.
    pub(super) fn connect(socket: &Path) -> Arc<Self> {
        let agent = Arc::new(Self { line: watch::Sender::new(None) });
        tokio::spawn(keep(Arc::clone(&agent), socket.to_owned()));
        agent
    }

    /// Says what a client is given, if the agent is there.
    pub(super) fn say(&self, mut ask: Ask) -> bool {
        let line = self.line.borrow().clone();
        line.is_some_and(|line| line.say(&mut ask))
    }

    /// Asks, and waits for a short time. `None`: nobody has said anything.
    pub(super) async fn ask(&self, mut ask: Ask) -> Option<Said> {
        let mut lines = self.line.subscribe();
        let asked = async {
            let line = loop {
                let line = lines.borrow_and_update().clone();
                match line {
                    Some(line) => break line,
                    None => lines.changed().await.ok()?,
                }
            };
            let told = line.send(&mut ask)?;
            let _waits = Waits(&line, ask.id);
            told.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// Writes one line after the other, however long each takes.
async fn say(mut write: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(line) = waiting.recv().await {
        write.write_all(&line).await?;
    }
    Ok(())
}

async fn keep(agent: Arc<Agent>, socket: PathBuf) {
    let mut complaint = String::new();
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                tracing::info!(socket = %socket.display(), "asking the node's agent which names open what");
                complaint.clear();
                let (read, write) = stream.into_split();
                let (questions, waiting) = mpsc::channel(MOST_WAITING);
                let line = Arc::new(Line { questions, waiting: Mutex::default(), next: AtomicU64::new(0) });
                agent.line.send_replace(Some(Arc::clone(&line)));
                let ended = tokio::select! {
                    ended = line.listen(read) => ended,
                    ended = say(write, waiting) => ended,
                };
                agent.line.send_replace(None);
                // Who waits hears that nobody answers.
                line.waiting().clear();
                tracing::info!(error = ended.err().map(|error| error.to_string()), "the node's agent hung up");
            }
            Err(error) => {
                let text = error.to_string();
                if text != complaint {
                    tracing::info!(socket = %socket.display(), error = text, "the node's agent is not there to be asked");
                    complaint = text;
                }
            }
        }
        sleep(RETRY).await;
    }
}
