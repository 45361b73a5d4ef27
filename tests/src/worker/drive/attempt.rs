//! One exchange: what its socket has to do next.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::engine::Task;
use crate::drive::Ending;

/// What a client asks a sink for: an answer after which the sink closes.
pub(super) const AND_CLOSE: u8 = b'S';
/// An answer after which the client closes.
pub(super) const AND_STAY: u8 = b'C';

/// An exchange that is under way.
pub(super) struct Attempt {
    socket: Socket,
    pub(super) started: Instant,
    /// How long it took until its connection was set up, or its question answered.
    pub(super) setup: Option<Duration>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The connection is not there yet.
    Connecting,
    /// The question is out.
    Asked,
    /// There was an answer; the server has to close.
    Answered,
}

/// What became of an exchange.
pub(super) enum Step {
    /// Nothing yet.
    Waits,
    /// It is over.
    Done,
    /// It has a connection that is to be kept.
    Keep,
    /// It failed.
    Failed(String),
}

impl Attempt {
    /// Begins one.
    pub(super) fn start(to: SocketAddr, task: Task) -> std::io::Result<Self> {
        let started = Instant::now();
        let datagram = task == Task::Exchange(Ending::Datagram);
        let kind = if datagram { Type::DGRAM } else { Type::STREAM };
        let socket = Socket::new(Domain::for_address(to), kind.nonblocking(), None)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { socket, started, setup: None, phase: Phase::Connecting })
    }

    /// Begins one on a connection that is there.
    pub(super) fn on(socket: Socket) -> Self {
        Self { socket, started: Instant::now(), setup: None, phase: Phase::Connecting }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// What it waited for when its time was over.
    pub(super) fn missing(&self, task: Task) -> &'static str {
        match (self.phase, task) {
            (_, Task::Exchange(Ending::Datagram)) => "UDP: no answer",
            (Phase::Connecting, _) => "connect: no answer",
            (Phase::Asked, _) => "connected, but no answer",
            (Phase::Answered, _) => "answered, but not closed",
        }
    }

    /// Does what can be done now that something has happened.
    pub(super) fn advance(&mut self, task: Task, writable: bool) -> Step {
        match self.try_advance(task, writable) {
            Ok(step) => step,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Waits,
            Err(error) => Step::Failed(format!("{}: {error}", self.doing())),
        }
    }

    fn doing(&self) -> &'static str {
        match self.phase {
            Phase::Connecting => "connect",
            Phase::Asked => "answer",
            Phase::Answered => "close",
        }
    }

    fn try_advance(&mut self, task: Task, writable: bool) -> std::io::Result<Step> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        let ending = match task {
            Task::Keep => {
                if writable {
                    self.setup = Some(self.started.elapsed());
                }
                return Ok(if writable { Step::Keep } else { Step::Waits });
            }
            Task::Exchange(ending) => ending,
        };
        if self.phase == Phase::Connecting {
            if !writable {
                return Ok(Step::Waits);
            }
            if ending != Ending::Datagram {
                self.setup = Some(self.started.elapsed());
            }
            let ask = if ending == Ending::ServerCloses { AND_CLOSE } else { AND_STAY };
            self.socket.write_all(&[ask])?;
            self.phase = Phase::Asked;
        }
        let mut buffer = [0; 16];
        if self.phase == Phase::Asked {
            if self.socket.read(&mut buffer)? == 0 {
                return Ok(Step::Failed("answer: closed without one".to_owned()));
            }
            match ending {
                Ending::Datagram => self.setup = Some(self.started.elapsed()),
                Ending::Reset => self.socket.set_linger(Some(Duration::ZERO))?,
                Ending::ClientCloses | Ending::ServerCloses => {}
            }
            if ending != Ending::ServerCloses {
                return Ok(Step::Done);
            }
            self.phase = Phase::Answered;
        }
        Ok(if self.socket.read(&mut buffer)? == 0 {
            Step::Done
        } else {
            Step::Failed("close: the server said more".to_owned())
        })
    }
}
