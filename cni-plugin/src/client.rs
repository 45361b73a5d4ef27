//! The plugin's end of the agent's socket: blocking, with a time limit on each answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Error;
use crate::protocol::{Attachment, Failure, Reply, Request, Reservation};

/// How long ADD waits for an agent that restarts, on a node that was ready before.
const RESTART_PATIENCE: Duration = Duration::from_secs(5);
const RESTART_POLL: Duration = Duration::from_millis(50);

/// How long an answer may take. The agent gives up earlier (10 s), so that its reason arrives.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Code 11 when nobody listens.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket).map_err(|e| away(socket, &e))?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_LIMIT)))
            .map_err(|e| away(socket, &e))?;
        Ok(Self { stream: BufReader::new(stream), socket: socket.to_owned() })
    }

    /// Connects, and where the node was ready before waits a little for an agent that restarts: an error would cost
    /// the pod the runtime's back-off.
    ///
    /// # Errors
    /// Code 11 when nobody listens.
    pub fn connect_patiently(socket: &Path) -> Result<Self, Error> {
        let deadline = Instant::now() + RESTART_PATIENCE;
        loop {
            match Self::connect(socket) {
                Err(_) if Instant::now() < deadline && crate::ready::was_ready(socket) => {
                    std::thread::sleep(RESTART_POLL);
                }
                result => return result,
            }
        }
    }

    /// Sends a request and waits for the answer.
    ///
    /// # Errors
    /// Code 11 when no answer comes, the agent's code when it says no.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Error> {
        let mut line = serde_json::to_string(request)
            .map_err(|e| Error::Decode { what: "a request to the agent", reason: e.to_string() })?;
        line.push('\n');
        let socket = &self.socket;
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|e| away(socket, &e))?;
        line.clear();
        let read = self.stream.read_line(&mut line).map_err(|e| away(socket, &e))?;
        if read == 0 {
            return Err(away(socket, &"it closed the connection"));
        }
        match serde_json::from_str(&line) {
            Ok(Reply::Failed(failure)) => Err(Error::Agent(failure)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(Error::Decode { what: "the agent's answer", reason: e.to_string() }),
        }
    }

    /// Sends a request whose answer is a reservation.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn reservation(&mut self, request: &Request) -> Result<Reservation, Error> {
        match self.ask(request)? {
            Reply::Reserved(reservation) => Ok(reservation),
            Reply::Done | Reply::Failed(_) => Err(Error::Decode {
                what: "the agent's answer",
                reason: "expected a reservation; plugin and agent are of different releases: run `fairlead install` of the agent's release".to_owned(),
            }),
        }
    }

    /// Releases an attachment.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn release(&mut self, attachment: &Attachment) -> Result<(), Error> {
        self.ask(&Request::Release { attachment: attachment.clone() }).map(drop)
    }
}

fn away(socket: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::AgentAway { socket: socket.display().to_string(), reason: reason.to_string() }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: error.code(), msg: error.to_string(), details: error.details().to_owned() }
    }
}
