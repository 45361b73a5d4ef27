//! The plugin's end of the agent's socket: blocking, with a time limit.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::Error;
use crate::protocol::{Attachment, Failure, Reply, Request, Reservation};

/// How long ADD waits for an agent that restarts, on a node that was ready before. On a node whose CPUs are all in use a start takes
/// many times what it takes elsewhere.
const RESTART_PATIENCE: Duration = Duration::from_secs(20);
const RESTART_POLL: Duration = Duration::from_millis(50);

/// How long a verb may take with the agent. The agent gives up earlier, so that its reason arrives: an ADD may wait 16 s for
/// addresses and then 10 s for its policy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The least that a system call may take: the kernel reads zero as for ever.
const LEAST: Duration = Duration::from_millis(1);

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    /// What was asked for has to be answered by then.
    deadline: Instant,
}

impl Client {
    /// Connects. Each request has to be answered within [`PATIENCE`].
    ///
    /// # Errors
    /// Code 11 when nobody listens.
    pub fn connect(socket: &Path) -> Result<Self, Error> {
        Self::connect_within(socket, PATIENCE)
    }

    /// Connects. All of the conversation has so long. An agent that hangs may not even take a connection: the kernel does so
    /// for it, until too many wait.
    ///
    /// # Errors
    /// Code 11 when nobody listens, or nobody does in time.
    pub fn connect_within(path: &Path, limit: Duration) -> Result<Self, Error> {
        let deadline = Instant::now() + limit;
        let connect = || {
            let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            // connect(2) obeys the limit for sending (`unix_stream_connect` in net/unix/af_unix.c).
            let limit = TimeVal::microseconds(i64::try_from(limit.as_micros()).unwrap_or(i64::MAX));
            setsockopt(&fd, SendTimeout, &limit)?;
            connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
            Ok(UnixStream::from(fd))
        };
        let stream = connect().map_err(|errno: Errno| match errno {
            Errno::EAGAIN => late(path),
            errno => away(path, &std::io::Error::from(errno)),
        })?;
        Ok(Self { stream: BufReader::new(stream), socket: path.to_owned(), deadline })
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
        self.send(line.as_bytes())?;
        let line = self.receive()?;
        match serde_json::from_slice(&line) {
            Ok(Reply::Failed(failure)) => Err(Error::Agent(failure)),
            Ok(reply) => Ok(reply),
            Err(e) => Err(Error::Decode { what: "the agent's answer", reason: e.to_string() }),
        }
    }

    /// What is left, as a limit of the next system call.
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(LEAST)
    }

    fn send(&mut self, line: &[u8]) -> Result<(), Error> {
        let limit = self.left();
        let stream = self.stream.get_mut();
        let sent = stream.set_write_timeout(Some(limit)).and_then(|()| stream.write_all(line));
        match sent {
            // An agent that has no room hangs up without reading, and has said why before.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| broken(&self.socket, &error)),
        }
    }

    /// Reads a line. An answer that comes byte by byte has no more time than another.
    fn receive(&mut self) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            if Instant::now() >= self.deadline {
                return Err(late(&self.socket));
            }
            let limit = self.left();
            let read = self.stream.get_ref().set_read_timeout(Some(limit)).and_then(|()| {
                let buffer = self.stream.fill_buf()?;
                let length = buffer.iter().position(|byte| *byte == b'\n').map_or(buffer.len(), |at| at + 1);
                line.extend_from_slice(&buffer[..length]);
                self.stream.consume(length);
                Ok(length)
            });
            match read {
                Ok(0) => return Err(away(&self.socket, &"it closed the connection")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&self.socket, &error)),
            }
        }
        Ok(line)
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
                reason: "expected a reservation; the plugin and the agent are different releases: run `fairlead \
                    install` of the agent's release"
                    .to_owned(),
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

/// Of a connection that was there.
fn broken(socket: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late(socket),
        _ => away(socket, error),
    }
}

fn late(socket: &Path) -> Error {
    Error::AgentHangs { socket: socket.display().to_string() }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: error.code(), msg: error.to_string(), details: error.details().to_owned() }
    }
}
