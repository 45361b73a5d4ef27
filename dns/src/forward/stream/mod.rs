//! Questions over TCP or TLS: a few connections for each server, shared by all questions while they last.
//!
//! One connection is enough for a server that answers what is ready (RFC 7766 section 7), and every server is asked on one
//! first. Where nothing comes on it for a while it may be that the answer to the first question is late and the server
//! answers in turn: then what is asked next goes over another, and what waits behind the late one is asked there too.

mod line;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::line::Line;
use super::question::Question;
use super::tls::Tls;
use super::waiting::{MOST, State};

/// How many connections a server gets.
const LINES: usize = 8;
/// Connections without any answer that a question is asked on. A server may close one whenever it likes, after so many
/// questions too.
const TRIES: usize = 4;
/// For how long nothing may come of a server that answers in turn, as far as is known, until others don't wait for it.
const HELD: Duration = Duration::from_millis(100);
/// The same of one that has answered out of turn: it holds nothing back, but the way to it may be gone.
const LOST: Duration = Duration::from_secs(1);

/// The connections to one server, while there are some.
pub(super) struct Lines(Arc<Server>);

struct Server {
    to: SocketAddr,
    tls: Option<Tls>,
    lines: Mutex<Vec<Arc<Line>>>,
    out_of_turn: Arc<AtomicBool>,
    /// Whoever makes a connection has this; others wait, and take what comes of it. In it is when it last failed, and why.
    opening: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

/// Why there is no connection.
#[derive(Clone)]
struct Failure(io::ErrorKind, String);

/// Where a question goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Over this connection.
    Use(usize),
    /// Over a new one.
    Open,
    /// Nowhere: there is no room on any.
    Full,
}

/// Where the next question goes: over the connection with the fewest that wait, of those on which something comes.
fn choose(lines: &[State], patience: Duration) -> Choice {
    let has_room = |state: &State| !state.closed && state.waiting < MOST;
    let least = |fits: &dyn Fn(&State) -> bool| {
        let fitting = lines.iter().enumerate().filter(|(_, state)| has_room(state) && fits(state));
        fitting.min_by_key(|(_, state)| state.waiting).map(|(at, _)| Choice::Use(at))
    };
    if let Some(choice) = least(&|state| state.quiet < patience) {
        return choice;
    }
    if lines.len() < LINES {
        return Choice::Open;
    }
    least(&|_| true).unwrap_or(Choice::Full)
}

impl Lines {
    pub(super) fn new(to: SocketAddr, tls: Option<Tls>) -> Self {
        Self(Arc::new(Server {
            to,
            tls,
            lines: Mutex::default(),
            out_of_turn: Arc::default(),
            opening: tokio::sync::Mutex::new(None),
        }))
    }

    /// Whether there is a connection on which something has come.
    pub(super) fn are_alive(&self) -> bool {
        self.0.lines().iter().any(|line| line.is_alive())
    }

    /// Asks, and waits for as long as the caller does.
    pub(super) async fn ask(&self, question: &Question, edns: bool) -> io::Result<Vec<u8>> {
        let mut fruitless = 0;
        loop {
            let line = self.line(None).await?;
            let before = line.state().answered;
            match self.ask_on(&line, question, edns).await {
                // Others were faster; where there is no room on any, that is said above.
                Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => {}
                Err(error) => {
                    // A server that answers some questions and closes is asked the rest anew.
                    fruitless += usize::from(line.state().answered == before);
                    if fruitless >= TRIES {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// Asks over this connection; and over another, if this one is held up by another question.
    async fn ask_on(&self, line: &Arc<Line>, question: &Question, edns: bool) -> io::Result<Vec<u8>> {
        let mut first = line.ask(question, edns)?;
        loop {
            tokio::select! {
                answer = first.answer() => return answer,
                () = sleep(HELD) => {}
            }
            if !self.0.out_of_turn.load(Ordering::Relaxed) && first.is_behind() && line.state().quiet >= HELD {
                break;
            }
        }
        let other = async {
            let other = self.line(Some(line)).await?;
            other.ask(question, edns)?.answer().await
        };
        tokio::select! {
            answer = first.answer() => answer,
            Ok(answer) = other => Ok(answer),
        }
    }

    /// A connection, other than this one. It is made for all who ask, so also where the first of them gives up.
    async fn line(&self, but: Option<&Arc<Line>>) -> io::Result<Arc<Line>> {
        if let Some(line) = self.0.find(but)? {
            return Ok(line);
        }
        let (server, but) = (Arc::clone(&self.0), but.cloned());
        tokio::spawn(async move { server.open(but.as_ref()).await }).await.map_err(io::Error::other)?
    }
}

impl Server {
    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that there is; none if a new one is to be made.
    fn find(&self, but: Option<&Arc<Line>>) -> io::Result<Option<Arc<Line>>> {
        let mut lines = self.lines();
        lines.retain(|line| !line.state().closed);
        let patience = if self.out_of_turn.load(Ordering::Relaxed) { LOST } else { HELD };
        let state = |line: &Arc<Line>| match but {
            // As if nothing came on it, and nothing fitted.
            Some(but) if Arc::ptr_eq(but, line) => State { waiting: MOST, quiet: patience, ..line.state() },
            _ => line.state(),
        };
        let states: Vec<State> = lines.iter().map(state).collect();
        match choose(&states, patience) {
            Choice::Use(at) => Ok(lines.get(at).cloned()),
            Choice::Open => Ok(None),
            Choice::Full => {
                let text = format!("{MOST} questions wait for it already on each of {LINES} connections");
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, text))
            }
        }
    }

    /// A new connection. However many ask for it at once, one is made.
    async fn open(&self, but: Option<&Arc<Line>>) -> io::Result<Arc<Line>> {
        let begin = Instant::now();
        let mut failed = self.opening.lock().await;
        if let Some(line) = self.find(but)? {
            return Ok(line);
        }
        if let Some((_, Failure(kind, why))) = failed.as_ref().filter(|(when, _)| *when >= begin) {
            return Err(io::Error::new(*kind, why.clone()));
        }
        match Line::open(self.to, self.tls.as_ref(), Arc::clone(&self.out_of_turn)).await {
            Ok(line) => {
                let line = Arc::new(line);
                self.lines().push(Arc::clone(&line));
                Ok(line)
            }
            Err(error) => {
                *failed = Some((Instant::now(), Failure(error.kind(), error.to_string())));
                Err(error)
            }
        }
    }
}
