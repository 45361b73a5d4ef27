//! The command's side of the socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::server::LONGEST;
use super::{Reply, Request, failure};

/// How long an agent may take to answer. What follows an answer comes when it happens.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a comparison may take, of which an agent makes one at a time.
const COMPARING: Duration = Duration::from_secs(120);

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
        "the agent at {0} hangs: it has not answered in {limit} s. Its liveness probe restarts it; the current state \
         stays in force",
        limit = PATIENCE.as_secs()
    )]
    Hangs(PathBuf),
    /// It has a question that takes long.
    #[error(
        "the agent at {0} has not finished the comparison in {limit} s: ask about fewer policies at a time, or use \
         --objects, which \
         needs no agent",
        limit = COMPARING.as_secs()
    )]
    Compares(PathBuf),
    /// The question is longer than an agent reads.
    #[error(
        "the request has {0} bytes, and an agent accepts {LONGEST}: give fewer policies at a time, or use --objects, \
         which needs \
         no agent"
    )]
    TooLong(usize),
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
    /// Whether the question is one that takes long.
    compares: bool,
}

impl Connection {
    /// Connects and asks.
    ///
    /// # Errors
    /// No agent listens there.
    pub fn ask(socket: &Path, request: &Request) -> Result<Self, ClientError> {
        let compares = matches!(request, Request::PolicyWhatIf { .. });
        Self::ask_within(socket, request, if compares { COMPARING } else { PATIENCE })
    }

    fn ask_within(socket: &Path, request: &Request, limit: Duration) -> Result<Self, ClientError> {
        let left = || failure::left(socket);
        let absent = |source| ClientError::NotRunning { path: socket.to_owned(), source, left: left() };
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Garbled(e.to_string()))?;
        line.push(b'\n');
        if line.len() as u64 > LONGEST {
            return Err(ClientError::TooLong(line.len()));
        }
        let mut stream = UnixStream::connect(socket).map_err(absent)?;
        stream.set_read_timeout(Some(limit)).map_err(absent)?;
        stream.set_write_timeout(Some(limit)).map_err(absent)?;
        // An agent that has no room hangs up without reading, and has said why before.
        stream.write_all(&line).or_else(|error| if is_broken(&error) { Ok(()) } else { Err(absent(error)) })?;
        let compares = matches!(request, Request::PolicyWhatIf { .. });
        Ok(Self { stream: BufReader::new(stream), socket: socket.to_owned(), compares })
    }

    /// The next answer.
    ///
    /// # Errors
    /// The agent refuses, hangs up, or can't be understood.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut if self.compares => {
                ClientError::Compares(self.socket.clone())
            }
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

    fn what_if(manifest: String) -> Request {
        Request::PolicyWhatIf { manifests: vec![manifest], delete: false, namespace: None }
    }

    #[test]
    fn p70_an_agent_that_compares_for_long_is_not_said_to_hang() {
        let socket = std::env::temp_dir().join(format!("fairlead-compares-{}.sock", std::process::id()));
        let _listener = UnixListener::bind(&socket).unwrap();
        let asked = Connection::ask(&socket, &what_if(String::new())).unwrap();
        assert_eq!(asked.stream.get_ref().read_timeout().unwrap(), Some(COMPARING));
        let mut asked = Connection::ask_within(&socket, &what_if(String::new()), Duration::from_millis(10)).unwrap();
        let error = asked.answer::<serde_json::Value>().unwrap_err();
        assert!(matches!(&error, ClientError::Compares(path) if *path == socket), "{error}");
        std::fs::remove_file(&socket).unwrap();
    }

    #[test]
    fn p70_a_question_is_measured_as_it_is_sent() {
        let nowhere = Path::new("/nonexistent/agent.sock");
        let ask = |manifest: String| Connection::ask(nowhere, &what_if(manifest)).unwrap_err();
        let rest = serde_json::to_vec(&what_if(String::new())).unwrap().len() + 1;
        let fits = LONGEST as usize - rest;
        assert!(matches!(ask("x".repeat(fits)), ClientError::NotRunning { .. }));
        assert!(matches!(ask("x".repeat(fits + 1)), ClientError::TooLong(65_537)));
        // A line's end is two bytes there.
        assert!(matches!(ask("\n".repeat(fits / 2 + 1)), ClientError::TooLong(_)));
    }

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
