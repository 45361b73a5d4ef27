//! The command's side of the socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Reply, Request, failure};

/// How long an agent may take to answer. What follows an answer comes when it happens.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {path} ({source}): start one with `fairlead agent --node NAME`, \
         or name the socket of a running one with --socket{left}"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
        /// What an agent before left behind about its end.
        left: String,
    },
    /// It listens, and does not answer.
    #[error(
        "the agent at {0} hangs: it has not answered in {limit} s. Its liveness probe restarts it; what is in force stays",
        limit = PATIENCE.as_secs()
    )]
    Hangs(PathBuf),
    /// The agent hung up, or speaks another language.
    #[error("can't read the agent's answer: {0}; are the command and the agent the same version?")]
    Garbled(String),
    /// The agent has no answer.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
}

impl Connection {
    /// Connects and asks.
    ///
    /// # Errors
    /// No agent listens there.
    pub fn ask(socket: &Path, request: &Request) -> Result<Self, ClientError> {
        Self::ask_within(socket, request, PATIENCE)
    }

    fn ask_within(socket: &Path, request: &Request, limit: Duration) -> Result<Self, ClientError> {
        let left = || failure::left(socket);
        let absent = |source| ClientError::NotRunning { path: socket.to_owned(), source, left: left() };
        let mut stream = UnixStream::connect(socket).map_err(absent)?;
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Garbled(e.to_string()))?;
        line.push(b'\n');
        stream.set_read_timeout(Some(limit)).map_err(absent)?;
        stream.set_write_timeout(Some(limit)).map_err(absent)?;
        // An agent that has no room hangs up without reading, and has said why before.
        stream.write_all(&line).or_else(|error| if is_broken(&error) { Ok(()) } else { Err(absent(error)) })?;
        Ok(Self { stream: BufReader::new(stream), socket: socket.to_owned() })
    }

    /// The next answer.
    ///
    /// # Errors
    /// The agent refuses, hangs up, or can't be understood.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => ClientError::Hangs(self.socket.clone()),
            _ => ClientError::Garbled(error.to_string()),
        })?;
        self.stream.get_ref().set_read_timeout(None).map_err(|error| ClientError::Garbled(error.to_string()))?;
        if read == 0 {
            return Err(ClientError::Garbled("it closed the connection".to_owned()));
        }
        let garbled = |error: serde_json::Error| ClientError::Garbled(error.to_string());
        match serde_json::from_str(&line).map_err(garbled)? {
            Reply::Ok(value) => serde_json::from_value(value).map_err(garbled),
            Reply::Error(text) => Err(ClientError::Refused(text)),
        }
    }
}

/// Whether the other end has hung up.
fn is_broken(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_agent_that_takes_the_question_and_does_not_answer_is_said_to_hang() {
        let socket = std::env::temp_dir().join(format!("fairlead-hangs-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut asked = Connection::ask_within(&socket, &Request::Status, Duration::from_millis(10)).unwrap();
        let error = asked.answer::<serde_json::Value>().unwrap_err();
        assert!(matches!(&error, ClientError::Hangs(path) if *path == socket), "{error}");
        // What follows an answer may take as long as it takes.
        let mut asked = Connection::ask_within(&socket, &Request::Status, PATIENCE).unwrap();
        listener.accept().unwrap();
        let (mut served, _) = listener.accept().unwrap();
        served.write_all(b"{\"ok\":1}\n").unwrap();
        assert_eq!(asked.answer::<u8>().unwrap(), 1);
        assert_eq!(asked.stream.get_ref().read_timeout().unwrap(), None);
        std::fs::remove_file(&socket).unwrap();
    }
}
