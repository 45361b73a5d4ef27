//! The command's side of the socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Reply, Request, failure};

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
    /// The agent hung up, or speaks another language.
    #[error("the agent's answer can't be read: {0}; are the command and the agent of the same version?")]
    Garbled(String),
    /// The agent has no answer.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the agent.
#[derive(Debug)]
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects and asks.
    ///
    /// # Errors
    /// No agent listens there.
    pub fn ask(socket: &Path, request: &Request) -> Result<Self, ClientError> {
        let left = || failure::left(socket);
        let absent = |source| ClientError::NotRunning { path: socket.to_owned(), source, left: left() };
        let mut stream = UnixStream::connect(socket).map_err(absent)?;
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Garbled(e.to_string()))?;
        line.push(b'\n');
        // An agent that has no room hangs up without reading, and has said why before.
        stream.write_all(&line).or_else(|error| if is_broken(&error) { Ok(()) } else { Err(absent(error)) })?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The next answer.
    ///
    /// # Errors
    /// The agent refuses, hangs up, or can't be understood.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).map_err(|e| ClientError::Garbled(e.to_string()))?;
        if read == 0 {
            return Err(ClientError::Garbled("it hung up".to_owned()));
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
