//! What the lab's owner and its workers say to each other: lines of JSON over a Unix socket, a request and its answer.
//!
//! A connection belongs to one network namespace, named in its first line, and so does the worker's thread behind it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bulk::Bulk;
use crate::drive::{Drive, Hold};
use crate::load::Load;
use crate::probe::Probe;

/// The first line of a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The pod's namespace in which this connection acts; the worker's own where there is none.
    pub(crate) netns: Option<String>,
}

/// What a worker can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run a command to its end. Answer: [`Ended`].
    Run(Command),
    /// Start a command that stays. Answer: its process id in the lab.
    Spawn {
        /// What to run.
        command: Command,
        /// Where its output goes.
        log: PathBuf,
    },
    /// Send a signal to a process that was started with `Spawn`. Answer: nothing.
    Signal {
        /// Its process id in the lab.
        pid: u32,
        /// The signal's number.
        signal: i32,
    },
    /// Wait for the end of such a process. Answer: its exit code as text, or nothing when it still runs.
    Wait {
        /// Its process id in the lab.
        pid: u32,
        /// How long to wait.
        millis: u64,
    },
    /// Whether somebody accepts connections on a Unix socket. Answer: a bool.
    Connectable(PathBuf),
    /// Make a network namespace with its loopback up. Answer: nothing.
    AddNetns(String),
    /// Stop the servers of a network namespace and let go of it. Answer: nothing.
    RemoveNetns(String),
    /// Start a server in this connection's namespace. Answer: nothing, once it listens.
    Serve(Serve),
    /// Probe. Answer: `Result<Reply, ProbeError>`.
    Probe(Probe),
    /// Send a message of any protocol and wait for its answer, both as hexadecimal digits. Over TCP each has its length
    /// in front, as DNS has it (RFC 1035, 4.2.2). Answer: `Result<String, ProbeError>`.
    Message {
        /// Where to; what it says of payloads does not count.
        probe: Probe,
        /// The message.
        hex: String,
    },
    /// Ping. Answer: `Result<Echo, ProbeError>`.
    Ping(crate::probe::Ping),
    /// Open a connection that stays, one for each connection to the worker. Answer: `Result<Reply, ProbeError>`.
    Open(Probe),
    /// Send a line on it and read the answer. Answer: `Result<Reply, ProbeError>`.
    Exchange {
        /// How many bytes to send.
        size: usize,
        /// How many bytes the server adds to its answer.
        pad: usize,
    },
    /// Close it. Answer: nothing.
    Close,
    /// Bind a socket and close it. Answer: `Result<(), i32>`, with the error's number.
    Bind {
        /// A UDP socket, not a TCP one.
        udp: bool,
        /// Where.
        address: SocketAddr,
    },
    /// Open a packet socket on an interface. Answer: nothing.
    PacketOpen(String),
    /// Send a frame through it. Answer: nothing.
    PacketSend(String),
    /// The frames that arrived, waiting for the first. Answer: a list of [`crate::packets::Frame`].
    PacketReceive {
        /// How long to wait.
        millis: u64,
    },
    /// Begin to generate load. Answer: the number of attempts, once it is under way.
    LoadBegin(Box<Load>),
    /// How much it has tried. Answer: the number of attempts.
    LoadCount,
    /// End it when its time is over. Answer: [`crate::load::Report`].
    LoadEnd,
    /// Start a server of the exact load generator, which ends with this connection. Answer: nothing, once it listens.
    Sink(u16),
    /// Exchange with such a server at a pace. Answer: [`crate::drive::Driven`].
    Drive(Drive),
    /// Open connections to such a server, which stay. Answer: [`crate::drive::Driven`].
    Hold(Hold),
    /// Exchange a byte on each and close it. Answer: [`crate::drive::Driven`].
    Finish,
    /// Receive a bulk transfer. Answer: the bytes that counted.
    Receive(Bulk),
    /// Send one. Answer: nothing.
    Send(Bulk),
}

/// A worker's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It was done; what it gave depends on the request.
    Done(serde_json::Value),
    /// It could not be done.
    Failed(String),
}

/// A command.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// Variables that are added to the environment.
    pub(crate) env: BTreeMap<String, String>,
    /// What it reads from standard input.
    pub(crate) stdin: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Whether it ended with exit code 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == 0
    }
}

/// A server to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serve {
    /// The network namespace whose removal ends it; the worker's own where there is none.
    pub(crate) netns: Option<String>,
    /// What it says of itself.
    pub(crate) pod: String,
    /// The node that it says it is on.
    pub(crate) node: String,
    /// Where it listens; every address of both families where this is empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// TCP ports.
    pub(crate) tcp: Vec<u16>,
    /// UDP ports.
    pub(crate) udp: Vec<u16>,
    /// SCTP ports.
    pub(crate) sctp: Vec<u16>,
}
